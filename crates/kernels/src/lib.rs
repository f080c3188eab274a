//! The arithmetic of the inference engine: block formats, matrix × activations, and the float operations of a
//! decoder layer, each with one summation order.
//!
//! # Data flow
//! ```text
//! GGUF bytes ──Matrix::pack──► tiles of 16 rows ─┐
//!                                                ├─► matmul ──► (tokens, rows) f32
//! f32 rows ──ActivationBuffer::prepare──► int8 ──┘
//!      rms_norm · layer_norm · RopeTable::apply · KvCache::{write, attend} · activate_gated · argmax
//! ```
//!
//! # The determinism contract
//! Every output element is computed in a lane of its own, in an order fixed by the shapes of the weights and by
//! the position alone. Batch size, tile size, thread count and instruction set choose *which* lanes are computed
//! together, never the order inside one:
//! * int8 block dots are exact in i32; blocks are joined by `acc = fma(f32(isum), dw * da, acc)` in ascending order;
//! * rotations add and subtract in the order of a butterfly, for a fixed group of values;
//! * float weights use four partial sums per output (`k mod 4`), joined as `(p0 + p1) + (p2 + p3)`;
//! * sums over one row (norm, softmax) use 16 virtual lanes and one fixed tree;
//! * `exp`, `tanh`, `sin`, `cos`, `ln` are polynomials of this crate; fused multiply-add is part of the definition.
//!
//! # Example
//! ```
//! use ganglion_kernels::{ActivationBuffer, BlockFormat, Input, Isa, Matrix, Pool, matmul, quantize};
//! let (rows, k) = (3, 32);
//! let weights: Vec<f32> = (0..rows * k).map(|i| i as f32 / 50.0 - 1.0).collect();
//! let mut bytes = vec![0; BlockFormat::Q8_0.size_bytes(rows * k).unwrap()];
//! quantize(BlockFormat::Q8_0, &weights, &mut bytes).unwrap();
//! let matrix = Matrix::pack("w", BlockFormat::Q8_0, rows, k, &bytes).unwrap();
//!
//! let (isa, pool) = (Isa::detect(), Pool::new(1).unwrap());
//! let x = vec![0.5; k];
//! let mut quantised = ActivationBuffer::new(1, k);
//! quantised.quantize(isa, &pool, &x, 1, k);
//! let mut out = vec![0.0; rows];
//! matmul(isa, &pool, &Input::new(&x, &quantised), &mut [(&matrix, &mut out)]);
//! assert!((out[0] - weights[..k].iter().sum::<f32>() * 0.5).abs() < 0.1);
//! ```
//!
//! # What it does not do
//! It reads no files, knows no model architecture, keeps no clock and samples nothing. Attention has no NEON code of its own;
//! processors other than x86-64 and aarch64 run the scalar twins, with the same bits.

mod activation;
mod argmax;
mod block;
mod error;
mod isa;
mod kv;
pub mod limits;
mod math;
mod matrix;
mod nonlinear;
mod norm;
mod packed;
mod pool;
pub mod probe;
mod rope;
mod rotation;
mod shared;
mod tile;

pub use activation::{ActivationBuffer, Form, Forms, Input};
pub use argmax::argmax;
pub use block::{
    BlockCode, BlockFormat, Target, TrellisSearch, dequantize, dequantize_matrix, quantize, quantize_rows,
};
pub use error::KernelError;
pub use isa::{Avx2, Avx512, AvxVnni, Isa, Neon, NeonDot, NeonI8mm};
pub use kv::{AttentionBatch, KvCache, KvPlan, KvRing, KvShape, KvSpill, KvType};
pub use math::{exp, ln_f64, sin_cos_f64, tanh};
pub use matrix::{Matrix, matmul, matmul_rows};
pub use nonlinear::{Activation, activate, activate_gated, sigmoid, soft_cap, softmax};
pub use norm::{add_bias, add_rows, add_scaled, layer_norm, rms_norm, rms_norm_in_place};
pub use packed::PackedBytes;
pub use pool::Pool;
pub use rope::{RopeOrder, RopeScaling, RopeTable, Rotation};
pub use rotation::{Side, rotate, rotate_back, rotate_columns, rotate_columns_back, rotation_width};
