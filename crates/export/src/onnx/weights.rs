//! Matrices as initialisers, in the types that a graph can hold.

use ganglion_kernels::BlockFormat;
use ganglion_llm::MatrixPart;

use super::graph::{Attribute, Graph, Type};
use crate::error::Result;
use crate::matrix::{BLOCK, Rows, block_parts, half_to_f32, row_parts};
use crate::output::Output;

/// How a matrix is stored in the graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stored {
    Float,
    /// As f32 in arithmetic.
    Half,
    /// Blocks of 32 with one f32 scale: Q8_0's values, or I8_ROW's with its row's scale in each block, plus 128.
    Eight,
    /// Blocks of 32 with one f32 scale: Q4_0's values, two a byte.
    Four,
}

impl Stored {
    /// The type that was asked for, or what the file has where a graph can say the same.
    pub(super) fn of(part: &MatrixPart, asked: Option<BlockFormat>) -> Self {
        match asked.unwrap_or(part.format) {
            BlockFormat::F16 => Self::Half,
            BlockFormat::Q8_0 | BlockFormat::I8_ROW if part.k.is_multiple_of(BLOCK) => Self::Eight,
            BlockFormat::Q4_0 if part.k.is_multiple_of(BLOCK) => Self::Four,
            BlockFormat::Q8_0 | BlockFormat::Q4_0 => Self::Half,
            _ => Self::Float,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Float => "f32",
            Self::Half => "f16",
            Self::Eight => "int8",
            Self::Four => "int4",
        }
    }
}

/// `x · matrixᵀ` for the last axis of `x`; `name` is the matrix's.
pub(super) fn product<'a>(
    graph: &mut Graph<'a>,
    x: &str,
    rows: Rows<'a>,
    stored: Stored,
    name: &str,
) -> String {
    let (count, k) = (rows.part.rows, rows.part.k);
    match stored {
        Stored::Float => {
            let size = (count * k * 4) as u64;
            graph.initializer(name, Type::Float, &[k, count], size, move |out| transposed(rows, stored, out));
            graph.node("MatMul", &[x, name], &[])
        }
        Stored::Half => {
            let size = (count * k * 2) as u64;
            graph.initializer(name, Type::Float16, &[k, count], size, move |out| {
                transposed(rows, stored, out)
            });
            let wide = to_float(graph, name);
            graph.node("MatMul", &[x, &wide], &[])
        }
        Stored::Eight | Stored::Four => {
            let scales = blocks(graph, rows, stored, name);
            block_product(graph, x, (name, &scales), (count, k), stored)
        }
    }
}

fn to_float(graph: &mut Graph<'_>, value: &str) -> String {
    graph.node("Cast", &[value], &[Attribute::Int("to", Type::Float as i64)])
}

/// ONNX Runtime's product with quantised blocks, in float arithmetic.
fn block_product(
    graph: &mut Graph<'_>,
    x: &str,
    (quants, scales): (&str, &str),
    (rows, k): (usize, usize),
    stored: Stored,
) -> String {
    let bits = if stored == Stored::Four { 4 } else { 8 };
    let attributes = [
        Attribute::Int("K", k as i64),
        Attribute::Int("N", rows as i64),
        Attribute::Int("bits", bits),
        Attribute::Int("block_size", BLOCK as i64),
        Attribute::Int("accuracy_level", 1),
    ];
    graph.runtime_node("MatMulNBits", &[x, quants, scales], &attributes)
}

/// The table of a vocabulary, read by rows and, where the head is tied to it, multiplied with.
pub(super) struct Embedding<'a> {
    rows: Rows<'a>,
    stored: Stored,
}

const TABLE: &str = "token_embd.weight";

impl<'a> Embedding<'a> {
    pub(super) fn new(graph: &mut Graph<'a>, rows: Rows<'a>, asked: Option<BlockFormat>) -> Self {
        // Four bits would have to be taken apart after each look-up; eight hold the same values.
        let stored = match Stored::of(rows.part, asked) {
            Stored::Four => Stored::Eight,
            stored => stored,
        };
        let (count, k) = (rows.part.rows, rows.part.k);
        match stored {
            Stored::Float | Stored::Half => {
                let (kind, format, size) = match stored {
                    Stored::Float => (Type::Float, BlockFormat::F32, 4),
                    _ => (Type::Float16, BlockFormat::F16, 2),
                };
                graph.initializer(TABLE, kind, &[count, k], (count * k * size) as u64, move |out| {
                    write_rows(rows, format, out)
                });
            }
            Stored::Eight | Stored::Four => {
                blocks(graph, rows, stored, TABLE);
            }
        }
        Self { rows, stored }
    }

    /// How it is stored.
    pub(super) fn stored(&self) -> Stored {
        self.stored
    }

    /// The rows of `ids`, as floats.
    pub(super) fn look_up(&self, graph: &mut Graph<'_>, ids: &str) -> String {
        let rows = graph.node("Gather", &[TABLE, ids], &[]);
        match self.stored {
            Stored::Float => rows,
            Stored::Half => to_float(graph, &rows),
            Stored::Eight | Stored::Four => {
                // (batch, sequence, blocks, 32) times (batch, sequence, blocks, 1)
                let quants = to_float(graph, &rows);
                let zero = graph.float(128.0);
                let centred = graph.node("Sub", &[&quants, &zero], &[]);
                let scales = graph.node("Gather", &[&scales_name(TABLE), ids], &[]);
                let last = graph.ints(&[-1]);
                let scales = graph.node("Unsqueeze", &[&scales, &last], &[]);
                let values = graph.node("Mul", &[&centred, &scales], &[]);
                let shape = graph.ints(&[0, 0, self.rows.part.k as i64]);
                graph.node("Reshape", &[&values, &shape], &[])
            }
        }
    }

    /// `x · tableᵀ`.
    pub(super) fn product(&self, graph: &mut Graph<'_>, x: &str) -> String {
        let wide = match self.stored {
            Stored::Float => TABLE.to_owned(),
            Stored::Half => to_float(graph, TABLE),
            Stored::Eight | Stored::Four => {
                let shape = (self.rows.part.rows, self.rows.part.k);
                return block_product(graph, x, (TABLE, &scales_name(TABLE)), shape, self.stored);
            }
        };
        let matrix = graph.node("Transpose", &[&wide], &[Attribute::Ints("perm", &[1, 0])]);
        graph.node("MatMul", &[x, &matrix], &[])
    }
}

fn scales_name(name: &str) -> String {
    format!("{name}.scales")
}

/// Quants (rows, blocks, bytes) and scales (rows, blocks) of a matrix; the name of the scales.
fn blocks<'a>(graph: &mut Graph<'a>, rows: Rows<'a>, stored: Stored, name: &str) -> String {
    let (count, per_row) = (rows.part.rows, rows.part.k / BLOCK);
    let bytes = if stored == Stored::Four { BLOCK / 2 } else { BLOCK };
    let size = (count * per_row * bytes) as u64;
    graph.initializer(name, Type::Uint8, &[count, per_row, bytes], size, move |out| {
        each_block(rows, stored, &mut |_, quants| out.write(quants))
    });
    let scales = scales_name(name);
    graph.initializer(&scales, Type::Float, &[count, per_row], (count * per_row * 4) as u64, move |out| {
        each_block(rows, stored, &mut |scale, _| out.write(&scale.to_le_bytes()))
    });
    scales
}

/// Hands out every block's scale and its quants as `MatMulNBits` reads them.
fn each_block(rows: Rows<'_>, stored: Stored, take: &mut dyn FnMut(f32, &[u8]) -> Result<()>) -> Result<()> {
    let reader = rows.open()?;
    if stored == Stored::Eight && rows.part.format == BlockFormat::I8_ROW {
        return (0..rows.part.rows).try_for_each(|row| each_block_of_int8(reader.bytes(row), take));
    }
    // A table in eight bits keeps what the file has in four.
    let format = match stored {
        Stored::Four => BlockFormat::Q4_0,
        _ if rows.part.format == BlockFormat::Q4_0 => BlockFormat::Q4_0,
        _ => BlockFormat::Q8_0,
    };
    let mut bytes = Vec::new();
    for row in 0..rows.part.rows {
        reader.stored(row, format, &mut bytes)?;
        for block in bytes.chunks_exact(format.block_bytes()) {
            let (scale, quants) = block_parts(block);
            let mut ready = [0; BLOCK];
            match (format, stored) {
                (BlockFormat::Q8_0, _) => ready.iter_mut().zip(quants).for_each(|(r, q)| *r = q ^ 0x80),
                (_, Stored::Four) => repack(quants, &mut ready),
                // 0 to 15 with zero at 8, to zero at 128.
                _ => (0..BLOCK).for_each(|i| ready[i] = nibble(quants, i) + 120),
            }
            let length = if stored == Stored::Four { BLOCK / 2 } else { BLOCK };
            take(half_to_f32(scale)?, &ready[..length])?;
        }
    }
    Ok(())
}

/// The blocks of a row of I8_ROW: all have the row's scale, and keep its values.
fn each_block_of_int8(row: &[u8], take: &mut dyn FnMut(f32, &[u8]) -> Result<()>) -> Result<()> {
    let (scale, quants) = row_parts(row);
    quants.chunks_exact(BLOCK).try_for_each(|block| {
        let mut ready = [0; BLOCK];
        ready.iter_mut().zip(block).for_each(|(r, q)| *r = q ^ 0x80);
        take(scale, &ready)
    })
}

/// All rows in a type, one after the other.
pub(super) fn write_rows(rows: Rows<'_>, format: BlockFormat, out: &mut Output) -> Result<()> {
    let (reader, mut bytes) = (rows.open()?, Vec::new());
    (0..rows.part.rows).try_for_each(|row| {
        reader.stored(row, format, &mut bytes)?;
        out.write(&bytes)
    })
}

/// Value i of a block of Q4_0: the low halves of 16 bytes, then the high ones.
fn nibble(quants: &[u8], i: usize) -> u8 {
    if i < BLOCK / 2 { quants[i] & 15 } else { quants[i - BLOCK / 2] >> 4 }
}

/// Neighbours in one byte, the first in its low half.
fn repack(quants: &[u8], ready: &mut [u8; BLOCK]) {
    for (pair, byte) in ready[..BLOCK / 2].iter_mut().enumerate() {
        *byte = nibble(quants, 2 * pair) | nibble(quants, 2 * pair + 1) << 4;
    }
}

/// A matrix as (k, rows).
fn transposed(rows: Rows<'_>, stored: Stored, out: &mut Output) -> Result<()> {
    let (count, k) = (rows.part.rows, rows.part.k);
    let (format, size) = match stored {
        Stored::Half => (BlockFormat::F16, 2),
        _ => (BlockFormat::F32, 4),
    };
    let mut all = vec![0u8; count * k * size];
    let (reader, mut bytes) = (rows.open()?, Vec::new());
    for row in 0..count {
        reader.stored(row, format, &mut bytes)?;
        for (column, value) in bytes.chunks_exact(size).enumerate() {
            all[(column * count + row) * size..][..size].copy_from_slice(value);
        }
    }
    out.write(&all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn four_bit_values_keep_their_order() {
        let quants: Vec<u8> = (0..16).map(|i| i | (15 - i) << 4).collect();
        let values: Vec<u8> = (0..BLOCK).map(|i| nibble(&quants, i)).collect();
        assert_eq!(values, (0..16).chain((0..16).rev()).collect::<Vec<u8>>());
        let mut ready = [0; BLOCK];
        repack(&quants, &mut ready);
        let found: Vec<u8> = ready[..16].iter().flat_map(|byte| [byte & 15, byte >> 4]).collect();
        assert_eq!(found, values);
    }
}
