//! Weight matrices in the kernels' layout, and their products with activations.
//!
//! # Layout
//! 16 output rows form a tile; rows beyond the last are zero.
//! * Quantised formats: blocks of 32 k in lines of 64 bytes, 16 rows × 4 k of 8 bits (or 8 k of 4 bits …), and their scales in a
//!   plane of its own behind them, so that the lines stay aligned. `tile/layout.rs` has the details.
//! * F32, F16, BF16, F8_E4M3: 16 rows of one k side by side; scales of whole rows behind them.

use std::ops::Range;

use crate::activation::Input;
use crate::block::{BlockFormat, f8_to_f32, sparse};
use crate::error::KernelError;
use crate::isa::Isa;
use crate::limits::{
    BLOCK, LANES, MATRIX_SIDE_MAX, PARALLEL_WORK_MIN, PRODUCTS_MAX, ROTATION_MAX, SHARE_WORK_MIN,
    SHARES_PER_THREAD,
};
use crate::math::{bf16_to_f32, f16_to_f32};
use crate::packed::{PackedBytes, lines_of};
use crate::pool::Pool;
use crate::rotation::{Side, one_row_back, rotate_back, rotation_width};
use crate::shared::SharedSlice;
use crate::tile::layout::{Layout, Record};
use crate::tile::{self, QuantTiles, Target, Tiles, pack};

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

/// One byte for each row of a tile.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(16))]
pub(crate) struct Lanes8(pub(crate) [u8; LANES]);

/// A (rows, k) weight matrix in the kernels' layout.
#[derive(Debug)]
pub struct Matrix {
    rows: usize,
    k: usize,
    format: BlockFormat,
    packed: PackedBytes,
    /// Of I8_ROW: the scale of its activations, if it was measured beforehand.
    input_scale: Option<f32>,
}

/// 32 columns of a group of rows that are rotated together.
type Strip = [[f32; BLOCK]; ROTATION_MAX];

/// Lines of the quants (or floats) and of the scales; `None` on overflow or partial blocks.
fn plane_lines(format: BlockFormat, rows: usize, k: usize) -> Option<(usize, usize)> {
    // Nothing below overflows where the padded tensor itself, as floats, does not: scales are smaller than quants.
    format.matrix_bytes(rows, k)?;
    rows.checked_next_multiple_of(LANES)?.checked_mul(k)?.checked_mul(2 * size_of::<f32>())?;
    let tiles = rows.div_ceil(LANES);
    Some(match Layout::of(format) {
        Some(layout) => (layout.quant_lines(tiles, k / BLOCK), layout.scale_lines(tiles, k / BLOCK)),
        None => (pack::float_lines(format, rows, k), if format.row_bytes() > 0 { tiles } else { 0 }),
    })
}

impl Matrix {
    /// Bytes that a packed (rows, k) matrix takes; `None` on overflow or partial blocks.
    pub fn packed_bytes(format: BlockFormat, rows: usize, k: usize) -> Option<usize> {
        let (quants, scales) = plane_lines(format, rows, k)?;
        quants.checked_add(scales)?.checked_mul(size_of::<Line>())
    }

    /// Repacks row-major bytes of a GGUF tensor; `name` is for the error.
    ///
    /// # Errors
    /// If a side is zero or too long, rows are not whole blocks, `bytes` is not exactly the tensor's size, or a block of a sparse format
    /// says that it stores another number of values than 16.
    pub fn pack(
        name: &str,
        format: BlockFormat,
        rows: usize,
        k: usize,
        bytes: &[u8],
    ) -> Result<Self, KernelError> {
        let count = check(name, format, rows, k, bytes)?;
        let mut lines = vec![Line([0; 64]); count];
        pack::pack(format, rows, k, bytes, &mut lines);
        Ok(Self { rows, k, format, packed: PackedBytes::owned(lines), input_scale: None })
    }

    /// As [`Matrix::pack`], into `out`: zeros, aligned to [`PackedBytes::ALIGNMENT`], exactly [`Matrix::packed_bytes`] long.
    ///
    /// # Errors
    /// As [`Matrix::pack`].
    ///
    /// # Panics
    /// If `out` has another length or alignment.
    pub fn pack_into(
        name: &str,
        format: BlockFormat,
        rows: usize,
        k: usize,
        bytes: &[u8],
        out: &mut [u8],
    ) -> Result<(), KernelError> {
        let count = check(name, format, rows, k, bytes)?;
        let lines = lines_of(out).expect("aligned whole lines");
        assert!(lines.len() == count, "{} lines for {count}", lines.len());
        pack::pack(format, rows, k, bytes, lines);
        Ok(())
    }

    /// A matrix over bytes that [`Matrix::pack_into`] wrote for the same format and shape.
    ///
    /// # Errors
    /// If a side is zero or too long, rows are not whole blocks, or `packed` has another length.
    pub fn from_packed(
        name: &str,
        format: BlockFormat,
        rows: usize,
        k: usize,
        packed: PackedBytes,
    ) -> Result<Self, KernelError> {
        let expected = check_shape(name, format, rows, k)? * size_of::<Line>();
        if packed.as_bytes().len() != expected {
            let found = packed.as_bytes().len();
            return Err(KernelError::ByteLength { name: name.to_owned(), found, expected });
        }
        Ok(Self { rows, k, format, packed, input_scale: None })
    }

    /// With a fixed scale for what an I8_ROW matrix reads, in place of one for each token; no other format heeds it.
    pub fn with_input_scale(mut self, scale: Option<f32>) -> Self {
        self.input_scale = scale;
        self
    }

    /// The fixed scale of what it reads.
    pub fn input_scale(&self) -> Option<f32> {
        self.input_scale
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

    /// The packed weights.
    pub fn packed(&self) -> &PackedBytes {
        &self.packed
    }

    /// One row as f32: `out` is (k,). The values are those of [`crate::dequantize_matrix`], bit for bit. A row of a trellis format
    /// takes as long as all rows that it was rotated with.
    ///
    /// # Panics
    /// If `row` or the length of `out` is wrong.
    pub fn dequantize_row(&self, row: usize, out: &mut [f32]) {
        assert!(row < self.rows && out.len() == self.k, "row {row} of {} x {}", self.rows, self.k);
        let tiles = self.tiles();
        if let Some(layout) = Layout::of(self.format) {
            let quant_tiles = QuantTiles::new(&layout, &tiles);
            if self.format.trellis_bits().is_some() {
                return self.rotated_row(&layout, &quant_tiles, row, out);
            }
            return quant_tiles.dequantize_row(&layout, row, 0, out);
        }
        let (first, lane) = (row / LANES * self.k, row % LANES);
        for (i, value) in out.iter_mut().enumerate() {
            *value = match self.format {
                BlockFormat::F32 => Lanes32::view(tiles.lines)[first + i].0[lane],
                BlockFormat::F16 => f16_to_f32(Lanes16::view(tiles.lines)[first + i].0[lane]),
                BlockFormat::F8_E4M3 => {
                    let scale = Lanes32::view(tiles.lines)[tiles.quant_lines + row / LANES].0[lane];
                    scale * f8_to_f32(Lanes8::view(tiles.lines)[first + i].0[lane])
                }
                _ => bf16_to_f32(Lanes16::view(tiles.lines)[first + i].0[lane]),
            };
        }
    }

    /// A row of a matrix that is stored rotated.
    fn rotated_row(&self, layout: &Layout, tiles: &QuantTiles<'_>, row: usize, out: &mut [f32]) {
        let width = rotation_width(self.rows);
        let first = row / width * width;
        for (block, values) in out.as_chunks_mut::<BLOCK>().0.iter_mut().enumerate() {
            let mut strip: Strip = [[0.0; BLOCK]; ROTATION_MAX];
            for (i, row) in strip[..width].iter_mut().enumerate() {
                tiles.dequantize_row(layout, first + i, block, row);
            }
            *values = one_row_back(Side::Output, &mut strip[..width], row - first);
        }
        rotate_back(Isa::Scalar, Side::Input, out, rotation_width(self.k));
    }

    /// Tiles whose rows are rotated together; 1 without rotation.
    fn unit(&self) -> usize {
        match self.format.trellis_bits() {
            Some(_) => rotation_width(self.rows) / LANES,
            None => 1,
        }
    }

    fn tiles(&self) -> Tiles<'_> {
        let quant_lines = plane_lines(self.format, self.rows, self.k).map_or(0, |(quants, _)| quants);
        Tiles { format: self.format, k: self.k, lines: self.packed.lines(), quant_lines }
    }

    fn tile_count(&self) -> usize {
        self.rows.div_ceil(LANES)
    }

    fn check(&self, input: &Input<'_>) -> usize {
        assert!(input.values.len().is_multiple_of(self.k), "activations are not (tokens, {})", self.k);
        let tokens = input.values.len() / self.k;
        if Layout::of(self.format).is_some() {
            assert!(
                input.quantised.holds(self.format.form(), tokens, self.k),
                "activations were not quantised from these values"
            );
        }
        tokens
    }
}

/// Lines of the packed matrix.
fn check_shape(name: &str, format: BlockFormat, rows: usize, k: usize) -> Result<usize, KernelError> {
    if rows == 0 || k == 0 || rows > MATRIX_SIDE_MAX || k > MATRIX_SIDE_MAX {
        return Err(KernelError::Shape { name: name.to_owned(), rows, k, max: MATRIX_SIDE_MAX });
    }
    let (quants, scales) = plane_lines(format, rows, k).ok_or_else(|| KernelError::PartialBlock {
        name: name.to_owned(),
        count: k,
        format,
        block: format.block(),
    })?;
    Ok(quants + scales)
}

fn check(name: &str, format: BlockFormat, rows: usize, k: usize, bytes: &[u8]) -> Result<usize, KernelError> {
    let lines = check_shape(name, format, rows, k)?;
    let expected = format.matrix_bytes(rows, k).unwrap_or(0);
    if bytes.len() != expected {
        return Err(KernelError::ByteLength { name: name.to_owned(), found: bytes.len(), expected });
    }
    sparse::check_masks(format, bytes, name)?;
    Ok(lines)
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
            let unit = matrix.unit();
            let units = matrix.tile_count() / unit;
            let range = units * index / of * unit..units * (index + 1) / of * unit;
            let target = Target { out: *out, stride: matrix.rows, first_row: 0, rows: matrix.rows };
            #[allow(unsafe_code)]
            // SAFETY: the tile ranges of the threads are disjoint.
            unsafe {
                tile::drive(isa, &matrix.tiles(), input, range.clone(), target);
            }
            if matrix.format.trellis_bits().is_some() && !range.is_empty() {
                for token in 0..input.values.len() / matrix.k {
                    let (first, count) = (token * matrix.rows + range.start * LANES, range.len() * LANES);
                    #[allow(unsafe_code)]
                    // SAFETY: these rows are this thread's own, and nobody holds them any more.
                    let part = unsafe { out.part(first, count) };
                    rotate_back(isa, Side::Output, part, rotation_width(matrix.rows));
                }
            }
        }
    };
    if threads == 1 || work < PARALLEL_WORK_MIN {
        share(0, 1);
    } else {
        let shares = (work / SHARE_WORK_MIN).clamp(threads, threads * SHARES_PER_THREAD);
        pool.run_shares(shares, &|index| share(index, shares));
    }
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
    let tiles = matrix.tiles();
    let share = |range: Range<usize>| {
        let unit = matrix.unit();
        let height = unit * LANES;
        let mut current = usize::MAX;
        let mut values = [0.0f32; ROTATION_MAX];
        for i in range {
            let row = rows[i] as usize;
            assert!(row < matrix.rows, "row {row} of {}", matrix.rows);
            if row / height != current {
                current = row / height;
                let first_row = current * height;
                let out = SharedSlice::new(&mut values[..height]);
                let target = Target { out, stride: height, first_row, rows: first_row + height };
                #[allow(unsafe_code)]
                // SAFETY: the target is this thread's own.
                unsafe {
                    tile::drive(isa, &tiles, input, current * unit..(current + 1) * unit, target);
                }
                if matrix.format.trellis_bits().is_some() {
                    rotate_back(isa, Side::Output, &mut values[..height], height);
                }
            }
            #[allow(unsafe_code)]
            // SAFETY: `split` gives every index to one thread.
            let place = unsafe { out.part(i, 1) };
            place[0] = values[row % height];
        }
    };
    if rows.len() * matrix.k < PARALLEL_WORK_MIN {
        share(0..rows.len());
    } else {
        pool.split(rows.len(), &share);
    }
}
