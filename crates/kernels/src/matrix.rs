//! Weight matrices repacked for the kernels, and their products with activations.
//!
//! # Layout
//! 16 output rows form a tile; rows beyond the last are zero.
//! * Q8_0: a 64-byte line holds 16 rows × 4 k of `q + 128` as u8 (`byte = 4·row + k mod 4`); 8 lines a block.
//! * Q4_0: a line holds 16 rows × 8 k: low nibbles k 0–3, high nibbles k 4–7; 4 lines a block.
//! * Their f16 scales lie in a plane of their own, 16 a block, so that the lines stay aligned.
//! * F32, F16, BF16: 16 rows of one k side by side.

use std::ops::Range;

use crate::activation::Input;
use crate::block::BlockFormat;
use crate::error::KernelError;
use crate::isa::Isa;
use crate::limits::{BLOCK, LANES, MATRIX_SIDE_MAX, PARALLEL_WORK_MIN, PRODUCTS_MAX};
use crate::math::{bf16_to_f32, f16_to_f32};
use crate::pool::Pool;
use crate::shared::SharedSlice;
use crate::tile::{self, Tiles};

/// 64 bytes of quants, one cache line.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct Line(pub(crate) [u8; 64]);

/// One f32 for each row of a tile.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct Lanes32(pub(crate) [f32; LANES]);

/// One 16-bit float for each row of a tile.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(32))]
pub(crate) struct Lanes16(pub(crate) [u16; LANES]);

#[derive(Debug)]
pub(crate) enum Storage {
    F32(Vec<Lanes32>),
    F16(Vec<Lanes16>),
    Bf16(Vec<Lanes16>),
    Q8 { quants: Vec<Line>, scales: Vec<Lanes16> },
    Q4 { quants: Vec<Line>, scales: Vec<Lanes16> },
}

/// A (rows, k) weight matrix in the kernels' layout.
#[derive(Debug)]
pub struct Matrix {
    rows: usize,
    k: usize,
    format: BlockFormat,
    storage: Storage,
}

impl Matrix {
    /// Bytes that a packed (rows, k) matrix takes; `None` on overflow or partial blocks.
    pub fn packed_bytes(format: BlockFormat, rows: usize, k: usize) -> Option<usize> {
        format.size_bytes(k)?.checked_mul(rows.checked_next_multiple_of(LANES)?)
    }

    /// Repacks row-major bytes of a GGUF tensor; `name` is for the error.
    ///
    /// # Errors
    /// If a side is zero or too long, rows are not whole blocks, or `bytes` is not exactly the tensor's size.
    pub fn pack(
        name: &str,
        format: BlockFormat,
        rows: usize,
        k: usize,
        bytes: &[u8],
    ) -> Result<Self, KernelError> {
        if rows == 0 || k == 0 || rows > MATRIX_SIDE_MAX || k > MATRIX_SIDE_MAX {
            return Err(KernelError::Shape { name: name.to_owned(), rows, k, max: MATRIX_SIDE_MAX });
        }
        let row_bytes = format.size_bytes(k).ok_or_else(|| KernelError::PartialBlock {
            name: name.to_owned(),
            count: k,
            format,
            block: format.block(),
        })?;
        let expected = row_bytes * rows;
        if bytes.len() != expected {
            return Err(KernelError::ByteLength { name: name.to_owned(), found: bytes.len(), expected });
        }
        let tiles = rows.div_ceil(LANES);
        let storage = match format {
            BlockFormat::F32 => {
                let mut lanes = vec![Lanes32([0.0; LANES]); tiles * k];
                for (row, source) in bytes.chunks_exact(row_bytes).enumerate() {
                    for (i, b) in source.as_chunks::<4>().0.iter().enumerate() {
                        lanes[row / LANES * k + i].0[row % LANES] = f32::from_le_bytes(*b);
                    }
                }
                Storage::F32(lanes)
            }
            BlockFormat::F16 => Storage::F16(pack_16(bytes, row_bytes, tiles, k)),
            BlockFormat::Bf16 => Storage::Bf16(pack_16(bytes, row_bytes, tiles, k)),
            BlockFormat::Q8_0 => {
                let (quants, scales) = pack_quants(bytes, row_bytes, tiles, format, |line, row, i, q| {
                    line[i / 4].0[row * 4 + i % 4] = q[i] ^ 0x80;
                });
                Storage::Q8 { quants, scales }
            }
            BlockFormat::Q4_0 => {
                let (quants, scales) = pack_quants(bytes, row_bytes, tiles, format, |line, row, i, q| {
                    let nibble = if i < BLOCK / 2 { q[i] & 15 } else { q[i - BLOCK / 2] >> 4 };
                    line[i / 8].0[row * 4 + i % 4] |= nibble << (i % 8 / 4 * 4);
                });
                Storage::Q4 { quants, scales }
            }
            _ => return Err(KernelError::Unsupported { name: name.to_owned(), format }),
        };
        Ok(Self { rows, k, format, storage })
    }

    /// Output rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Values in a row: the length of the activations it multiplies.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Format of the weights.
    pub fn format(&self) -> BlockFormat {
        self.format
    }

    /// One row as f32: `out` is (k,). The values are those of [`crate::dequantize`], bit for bit.
    ///
    /// # Panics
    /// If `row` or the length of `out` is wrong.
    pub fn dequantize_row(&self, row: usize, out: &mut [f32]) {
        assert!(row < self.rows && out.len() == self.k, "row {row} of {} x {}", self.rows, self.k);
        let (tile, lane) = (row / LANES, row % LANES);
        let blocks = self.k / BLOCK;
        for (i, value) in out.iter_mut().enumerate() {
            *value = match &self.storage {
                Storage::F32(lanes) => lanes[tile * self.k + i].0[lane],
                Storage::F16(lanes) => f16_to_f32(lanes[tile * self.k + i].0[lane]),
                Storage::Bf16(lanes) => bf16_to_f32(lanes[tile * self.k + i].0[lane]),
                Storage::Q8 { quants, scales } => {
                    let block = tile * blocks + i / BLOCK;
                    let q = quants[block * 8 + i % BLOCK / 4].0[lane * 4 + i % 4] ^ 0x80;
                    f32::from(q as i8) * f16_to_f32(scales[block].0[lane])
                }
                Storage::Q4 { quants, scales } => {
                    let block = tile * blocks + i / BLOCK;
                    let byte = quants[block * 4 + i % BLOCK / 8].0[lane * 4 + i % 4];
                    let nibble = (byte >> (i % 8 / 4 * 4)) & 15;
                    f32::from(nibble as i8 - 8) * f16_to_f32(scales[block].0[lane])
                }
            };
        }
    }

    fn tiles(&self) -> Tiles<'_> {
        Tiles { k: self.k, storage: &self.storage }
    }

    fn tile_count(&self) -> usize {
        self.rows.div_ceil(LANES)
    }

    fn check(&self, input: &Input<'_>) -> usize {
        assert!(input.values.len().is_multiple_of(self.k), "activations are not (tokens, {})", self.k);
        let tokens = input.values.len() / self.k;
        if matches!(self.storage, Storage::Q8 { .. } | Storage::Q4 { .. }) {
            assert!(
                input.quantised.holds(tokens, self.k),
                "activations were not quantised from these values"
            );
        }
        tokens
    }
}

fn pack_16(bytes: &[u8], row_bytes: usize, tiles: usize, k: usize) -> Vec<Lanes16> {
    let mut lanes = vec![Lanes16([0; LANES]); tiles * k];
    for (row, source) in bytes.chunks_exact(row_bytes).enumerate() {
        for (i, b) in source.as_chunks::<2>().0.iter().enumerate() {
            lanes[row / LANES * k + i].0[row % LANES] = u16::from_le_bytes(*b);
        }
    }
    lanes
}

/// `place(lines of the block, lane, index in the block, quant bytes of the row)` puts one value.
fn pack_quants(
    bytes: &[u8],
    row_bytes: usize,
    tiles: usize,
    format: BlockFormat,
    place: impl Fn(&mut [Line], usize, usize, &[u8]),
) -> (Vec<Line>, Vec<Lanes16>) {
    let block_bytes = format.block_bytes();
    let blocks = row_bytes / block_bytes;
    let lines = (block_bytes - 2) * LANES / 64;
    let mut quants = vec![Line([0; 64]); tiles * blocks * lines];
    let mut scales = vec![Lanes16([0; LANES]); tiles * blocks];
    for (row, source) in bytes.chunks_exact(row_bytes).enumerate() {
        for (b, block) in source.chunks_exact(block_bytes).enumerate() {
            let index = row / LANES * blocks + b;
            scales[index].0[row % LANES] = u16::from_le_bytes([block[0], block[1]]);
            for i in 0..BLOCK {
                place(&mut quants[index * lines..(index + 1) * lines], row % LANES, i, &block[2..]);
            }
        }
    }
    (quants, scales)
}

/// `out = input · Wᵀ` for several matrices of the same input in one fork: each `out` is (tokens, rows).
///
/// # Panics
/// If there are more than [`PRODUCTS_MAX`] matrices, a shape disagrees, or a quantised matrix meets activations that were not quantised.
pub fn matmul(isa: Isa, pool: &Pool, input: &Input<'_>, products: &mut [(&Matrix, &mut [f32])]) {
    assert!(products.len() <= PRODUCTS_MAX, "at most {PRODUCTS_MAX} matrices in one fork");
    let mut work = 0;
    for (matrix, out) in products.iter() {
        let tokens = matrix.check(input);
        assert!(out.len() == tokens * matrix.rows, "output is not ({tokens}, {})", matrix.rows);
        work += out.len() * matrix.k;
    }
    let threads = pool.threads();
    let mut shared: [Option<(&Matrix, SharedSlice<'_, f32>)>; PRODUCTS_MAX] = [None; PRODUCTS_MAX];
    for (slot, (matrix, out)) in shared.iter_mut().zip(products.iter_mut()) {
        *slot = Some((matrix, SharedSlice::new(out)));
    }
    let share = |index: usize, of: usize| {
        for (matrix, out) in shared.iter().flatten() {
            let range = matrix.tile_count() * index / of..matrix.tile_count() * (index + 1) / of;
            product(isa, matrix, input, range, out);
        }
    };
    if threads == 1 || work < PARALLEL_WORK_MIN {
        share(0, 1);
    } else {
        pool.run(&|index| share(index, threads));
    }
}

fn product(isa: Isa, matrix: &Matrix, input: &Input<'_>, tiles: Range<usize>, out: &SharedSlice<'_, f32>) {
    let rows = matrix.rows;
    tile::drive(isa, &matrix.tiles(), input, tiles, &mut |tile, token, values| {
        let valid = LANES.min(rows - tile * LANES);
        #[allow(unsafe_code)]
        // SAFETY: tile ranges of the threads are disjoint, so no other thread takes these rows of this token.
        let part = unsafe { out.part(token * rows + tile * LANES, valid) };
        part.copy_from_slice(&values[..valid]);
    });
}

/// `out[i] = input · W[rows[i]]` for one token: the same bits as [`matmul`] gives for these rows, at the cost of
/// their tiles only. Rows in ascending order share tiles.
///
/// # Panics
/// If the input is not one token, a row is out of range, or `out` is not as long as `rows`.
pub fn matmul_rows(isa: Isa, pool: &Pool, input: &Input<'_>, matrix: &Matrix, rows: &[u32], out: &mut [f32]) {
    assert!(matrix.check(input) == 1, "one token");
    assert!(out.len() == rows.len(), "one output a row");
    let out = SharedSlice::new(out);
    let share = |range: Range<usize>| {
        let mut current = usize::MAX;
        let mut values = [0.0f32; LANES];
        for i in range {
            let row = rows[i] as usize;
            assert!(row < matrix.rows, "row {row} of {}", matrix.rows);
            if row / LANES != current {
                current = row / LANES;
                tile::drive(isa, &matrix.tiles(), input, current..current + 1, &mut |_, _, v| values = *v);
            }
            #[allow(unsafe_code)]
            // SAFETY: `split` gives every index to one thread.
            let place = unsafe { out.part(i, 1) };
            place[0] = values[row % LANES];
        }
    };
    if rows.len() * matrix.k < PARALLEL_WORK_MIN {
        share(0..rows.len());
    } else {
        pool.split(rows.len(), &share);
    }
}
