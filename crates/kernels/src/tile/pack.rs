//! From a tensor's bytes, row by row, to tiles.

use half::f16;

use super::layout::{HalfMin, Layout, Lone, Record, ScaleKind, Sub16, Sub16Min, Sub32, put_trellis};
use super::sparse;
use crate::block::{
    BlockFormat, F8_NAN, ROW_SCALE_BYTES, SuperBlock, e8m0_half, five_bits, nf4_fields, nibbles, row_scale,
    trellis,
};
use crate::limits::{BLOCK, LANES, SUPER_BLOCKS};
use crate::matrix::{Lanes8, Lanes16, Lanes32, Line};

/// Puts a (rows, k) tensor into `lines`, which are zero and as long as the packed matrix.
pub(crate) fn pack(format: BlockFormat, rows: usize, k: usize, bytes: &[u8], lines: &mut [Line]) {
    let row_bytes = bytes.len() / rows;
    let sources = bytes.chunks_exact(row_bytes.max(1)).enumerate();
    let Some(layout) = Layout::of(format) else {
        for (row, source) in sources {
            pack_floats(format, row, k, source, lines);
        }
        if format == BlockFormat::F8_E4M3 {
            let scales = &mut Lanes32::view_mut(lines)[float_lines(format, rows, k)..];
            for (row, source) in bytes.chunks_exact(row_bytes).enumerate() {
                let (scale, values) = source.split_at(ROW_SCALE_BYTES);
                let sound = values.iter().all(|byte| byte & 0x7f != F8_NAN);
                scales[row / LANES].0[row % LANES] = if sound { row_scale(scale) } else { f32::NAN };
            }
        }
        return;
    };
    let blocks = k / BLOCK;
    let (quants, scales) = lines.split_at_mut(layout.quant_lines(rows.div_ceil(LANES), blocks));
    let mut planes = Planes { layout, blocks, quants, scales };
    if let Some(bits) = format.trellis_bits() {
        for (index, block) in bytes.chunks_exact(format.block_bytes()).enumerate() {
            Lone::view_mut(planes.scales)[index].0 = trellis::scale(block);
            let lines = &mut planes.quants[index * layout.bits.lines()..(index + 1) * layout.bits.lines()];
            put_trellis(bits, lines, &block[2..]);
        }
        return;
    }
    if let Some(bits) = format.sparse_bits() {
        return planes.put_sparse(bits, format, bytes);
    }
    for (row, source) in sources {
        let source = if format == BlockFormat::I8_ROW {
            Lanes32::view_mut(planes.scales)[row / LANES].0[row % LANES] = row_scale(source);
            &source[ROW_SCALE_BYTES..]
        } else {
            source
        };
        for (i, block) in source.chunks_exact(format.block_bytes()).enumerate() {
            if format == BlockFormat::I8_ROW {
                planes.put_quants(row, i, &std::array::from_fn(|i| block[i] ^ 0x80));
            } else if format.block() == BLOCK {
                planes.put_block(format, row, i, block);
            } else {
                planes.put_super_block(format, row, i, block);
            }
        }
    }
}

/// Lines of the values of a float format: those of the scales, if it has any, follow.
pub(crate) fn float_lines(format: BlockFormat, rows: usize, k: usize) -> usize {
    (rows.div_ceil(LANES) * LANES * k * format.block_bytes()).div_ceil(size_of::<Line>())
}

fn pack_floats(format: BlockFormat, row: usize, k: usize, source: &[u8], lines: &mut [Line]) {
    let (tile, lane) = (row / LANES, row % LANES);
    if format == BlockFormat::F32 {
        let lanes = &mut Lanes32::view_mut(lines)[tile * k..(tile + 1) * k];
        for (to, from) in lanes.iter_mut().zip(source.as_chunks().0) {
            to.0[lane] = f32::from_le_bytes(*from);
        }
    } else if format == BlockFormat::F8_E4M3 {
        let lanes = &mut Lanes8::view_mut(lines)[tile * k..(tile + 1) * k];
        for (to, from) in lanes.iter_mut().zip(&source[ROW_SCALE_BYTES..]) {
            to.0[lane] = *from;
        }
    } else {
        let lanes = &mut Lanes16::view_mut(lines)[tile * k..(tile + 1) * k];
        for (to, from) in lanes.iter_mut().zip(source.as_chunks().0) {
            to.0[lane] = u16::from_le_bytes(*from);
        }
    }
}

struct Planes<'a> {
    layout: Layout,
    blocks: usize,
    quants: &'a mut [Line],
    scales: &'a mut [Line],
}

impl Planes<'_> {
    fn put_quants(&mut self, row: usize, block: usize, quants: &[u8; BLOCK]) {
        let lines = self.layout.bits.lines();
        let at = (row / LANES * self.blocks + block) * lines;
        self.layout.put(&mut self.quants[at..at + lines], row % LANES, quants);
    }

    /// A block of 32 values.
    fn put_block(&mut self, format: BlockFormat, row: usize, block: usize, bytes: &[u8]) {
        let half = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let (d, m, quants) = match format {
            BlockFormat::Q8_0 => (half(0), 0, std::array::from_fn(|i| bytes[2 + i] ^ 0x80)),
            BlockFormat::Q4_1 => (half(0), half(2), nibbles(&bytes[4..])),
            BlockFormat::Q5_0 => (half(0), 0, five_bits(&bytes[2..])),
            BlockFormat::Q5_1 => (half(0), half(2), five_bits(&bytes[4..])),
            // A power of two from 2^-128 on is a brain float, exactly.
            BlockFormat::MXFP4 => ((e8m0_half(bytes[0]).to_bits() >> 16) as u16, 0, nibbles(&bytes[1..])),
            _ => (half(0), 0, nibbles(&bytes[2..])),
        };
        self.put_quants(row, block, &quants);
        let at = row / LANES * self.blocks + block;
        if self.layout.scales == ScaleKind::HalfMin {
            let record = &mut HalfMin::view_mut(self.scales)[at];
            (record.d.0[row % LANES], record.m.0[row % LANES]) = (d, m);
        } else {
            Lanes16::view_mut(self.scales)[at].0[row % LANES] = d;
        }
    }

    /// All rows of a sparse format: those of a tile share streams.
    fn put_sparse(&mut self, bits: u32, format: BlockFormat, bytes: &[u8]) {
        let (size, lines) = (format.block_bytes(), self.layout.bits.lines());
        for (tile, rows) in bytes.chunks(LANES * self.blocks * size).enumerate() {
            for block in 0..self.blocks {
                let at = tile * self.blocks + block;
                let mut stored = [&[][..]; LANES];
                let mut count = 0;
                for (lane, row) in rows.chunks_exact(self.blocks * size).enumerate() {
                    let block = &row[block * size..(block + 1) * size];
                    Lanes16::view_mut(self.scales)[at].0[lane] = u16::from_le_bytes([block[0], block[1]]);
                    (stored[lane], count) = (block, lane + 1);
                }
                sparse::put(bits, &stored[..count], &mut self.quants[at * lines..(at + 1) * lines]);
            }
        }
    }

    /// A super-block of 256 values.
    fn put_super_block(&mut self, format: BlockFormat, row: usize, index: usize, bytes: &[u8]) {
        if format == BlockFormat::NF4 {
            return self.put_nf4(row, index, bytes);
        }
        let source = match format {
            BlockFormat::Q2_K => SuperBlock::read_q2(bytes),
            BlockFormat::Q3_K => SuperBlock::read_q3(bytes),
            BlockFormat::Q4_K => SuperBlock::read_q4(bytes),
            BlockFormat::Q5_K => SuperBlock::read_q5(bytes),
            _ => SuperBlock::read_q6(bytes),
        };
        for (i, quants) in source.quants.as_chunks::<BLOCK>().0.iter().enumerate() {
            self.put_quants(row, index * SUPER_BLOCKS + i, quants);
        }
        // They were halves, so this is exact.
        let (d, m) = (f16::from_f32(source.d).to_bits(), f16::from_f32(source.d_min).to_bits());
        let lane = row % LANES;
        let at = row / LANES * (self.blocks / SUPER_BLOCKS) + index;
        match self.layout.scales {
            ScaleKind::Sub32 => {
                let record = &mut Sub32::view_mut(self.scales)[at];
                (record.d.0[lane], record.m.0[lane]) = (d, m);
                for j in 0..SUPER_BLOCKS {
                    record.scales[j][lane] = source.scales[j] as u8;
                    record.mins[j][lane] = source.mins[j];
                }
            }
            ScaleKind::Sub16 => {
                let record = &mut Sub16::view_mut(self.scales)[at];
                record.d.0[lane] = d;
                for (to, from) in record.scales.iter_mut().zip(source.scales) {
                    to[lane] = from;
                }
            }
            _ => {
                let record = &mut Sub16Min::view_mut(self.scales)[at];
                (record.d.0[lane], record.m.0[lane]) = (d, m);
                for (j, to) in record.scales.iter_mut().enumerate() {
                    to[lane] = source.scales[j] as u8 | source.mins[j] << 4;
                }
            }
        }
    }

    /// NF4's scales serve two blocks of 32 each.
    fn put_nf4(&mut self, row: usize, index: usize, bytes: &[u8]) {
        let (d, scales, quants) = nf4_fields(bytes);
        for (i, quants) in quants.as_chunks::<BLOCK>().0.iter().enumerate() {
            self.put_quants(row, index * SUPER_BLOCKS + i, quants);
        }
        let at = row / LANES * (self.blocks / SUPER_BLOCKS) + index;
        let record = &mut Sub16::view_mut(self.scales)[at];
        record.d.0[row % LANES] = f16::from_f32(d).to_bits();
        for (j, to) in record.scales.iter_mut().enumerate() {
            to[row % LANES] = scales[j / (record_scales() / scales.len())];
        }
    }
}

/// Scales of a [`Sub16`].
const fn record_scales() -> usize {
    2 * SUPER_BLOCKS
}
