//! How keys and values are stored, and how they become f32 again: exactly, before any arithmetic.

use crate::isa::{Isa, multiversion};
use crate::limits::{KV_BLOCK, LANES};
use crate::math::{f16_to_f32, f32_to_f16, round_even};

use super::storage::{Lanes, Line, view, view_mut};

/// Storage type of keys and values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum KvType {
    /// IEEE single: what the layer computed.
    F32,
    /// IEEE half, rounded to nearest, ties to even. A magnitude above 65504 becomes infinite and ends in a NaN.
    #[default]
    F16,
    /// int8 with one f32 scale `amax / 127` for each (token, head) of keys and of values.
    Int8,
}

impl KvType {
    /// Every type.
    pub const ALL: [Self; 3] = [Self::F32, Self::F16, Self::Int8];

    /// Short name, as in site files and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Int8 => "int8",
        }
    }

    /// The type of this name.
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    const fn size(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 => 2,
            Self::Int8 => 1,
        }
    }
}

/// Lane groups in a block of positions.
pub(super) const TILES: usize = KV_BLOCK / LANES;

/// Sizes of what one head has in one block: keys (head_dim, KV_BLOCK), values (KV_BLOCK, head_dim padded to lanes), then
/// for int8 the scales of the keys and of the values, (KV_BLOCK) each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct HeadLayout {
    pub(super) kind: KvType,
    pub(super) head_dim: usize,
}

impl HeadLayout {
    /// Lane groups of one value row.
    pub(super) fn value_lanes(self) -> usize {
        self.head_dim.div_ceil(LANES)
    }

    fn key_lines(self) -> usize {
        self.head_dim * KV_BLOCK * self.kind.size() / size_of::<Line>()
    }

    fn value_lines(self) -> usize {
        KV_BLOCK * self.value_lanes() * LANES * self.kind.size() / size_of::<Line>()
    }

    fn scale_lines(self) -> usize {
        if self.kind == KvType::Int8 { KV_BLOCK * size_of::<f32>() / size_of::<Line>() } else { 0 }
    }

    pub(super) fn lines(self) -> usize {
        self.key_lines() + self.value_lines() + 2 * self.scale_lines()
    }

    /// Lines of keys, values, key scales, value scales.
    pub(super) fn split(self, lines: &[Line]) -> [&[Line]; 4] {
        let (keys, rest) = lines.split_at(self.key_lines());
        let (values, scales) = rest.split_at(self.value_lines());
        let (key_scales, value_scales) = scales.split_at(self.scale_lines());
        [keys, values, key_scales, value_scales]
    }

    fn split_mut(self, lines: &mut [Line]) -> [&mut [Line]; 4] {
        let (keys, rest) = lines.split_at_mut(self.key_lines());
        let (values, scales) = rest.split_at_mut(self.value_lines());
        let (key_scales, value_scales) = scales.split_at_mut(self.scale_lines());
        [keys, values, key_scales, value_scales]
    }

    /// Zeroes what positions from `valid` on hold, in the bytes of [`Self::lines`].
    pub(super) fn clear_from(self, bytes: &mut [u8], valid: usize) {
        let line = size_of::<Line>();
        let (keys, rest) = bytes.split_at_mut(self.key_lines() * line);
        let (values, scales) = rest.split_at_mut(self.value_lines() * line);
        // Bytes of one position: in each row of keys, of values, of scales.
        let size = self.kind.size();
        let rows = keys.chunks_exact_mut(KV_BLOCK * size).map(|row| (row, size));
        let values = (values, self.value_lanes() * LANES * size);
        let scales = scales.chunks_exact_mut(KV_BLOCK * size_of::<f32>()).map(|row| (row, size_of::<f32>()));
        for (row, each) in rows.chain([values]).chain(scales) {
            row[valid * each..].fill(0);
        }
    }
}

/// Rows of one head among those of all: row i starts at `first + i * stride` and has head_dim values.
#[derive(Debug, Clone, Copy)]
pub(super) struct HeadRows<'a> {
    pub(super) all: &'a [f32],
    pub(super) first: usize,
    pub(super) stride: usize,
    pub(super) count: usize,
}

/// Stores rows of keys and values of one head from position `at` of the block on.
pub(super) fn store(
    isa: Isa,
    layout: HeadLayout,
    lines: &mut [Line],
    at: usize,
    keys: HeadRows<'_>,
    values: HeadRows<'_>,
) {
    let [key_lines, value_lines, key_scales, value_scales] = layout.split_mut(lines);
    let (dim, row) = (layout.head_dim, layout.value_lanes() * LANES);
    match layout.kind {
        KvType::F32 => {
            store_f32(
                isa,
                dim,
                row,
                view_mut::<Lanes>(key_lines),
                view_mut::<Lanes>(value_lines),
                at,
                keys,
                values,
            );
        }
        KvType::F16 => {
            let keys_out = view_mut::<[u16; LANES]>(key_lines).as_flattened_mut();
            let values_out = view_mut::<[u16; LANES]>(value_lines).as_flattened_mut();
            store_f16(isa, dim, row, keys_out, values_out, at, keys, values);
        }
        KvType::Int8 => {
            let keys_out = view_mut::<[i8; LANES]>(key_lines).as_flattened_mut();
            let values_out = view_mut::<[i8; LANES]>(value_lines).as_flattened_mut();
            store_int8(isa, dim, keys_out, 1, KV_BLOCK, view_mut(key_scales), at, keys);
            store_int8(isa, dim, values_out, row, 1, view_mut(value_scales), at, values);
        }
    }
}

multiversion! {
    fn store_f32(
        isa,
        dim: usize,
        row: usize,
        key_lanes: &mut [Lanes],
        value_lanes: &mut [Lanes],
        at: usize,
        keys: HeadRows<'_>,
        values: HeadRows<'_>,
    ) {
        for i in 0..keys.count {
            let (tile, lane) = ((at + i) / LANES, (at + i) % LANES);
            let source = &keys.all[keys.first + i * keys.stride..][..dim];
            for (column, key) in key_lanes.chunks_exact_mut(TILES).zip(source) {
                column[tile].0[lane] = *key;
            }
            let source = &values.all[values.first + i * values.stride..][..dim];
            let target = &mut value_lanes[(at + i) * (row / LANES)..];
            for (target, source) in target.iter_mut().zip(source.chunks(LANES)) {
                target.0[..source.len()].copy_from_slice(source);
            }
        }
    }
}

multiversion! {
    fn store_f16(
        isa,
        dim: usize,
        row: usize,
        keys_out: &mut [u16],
        values_out: &mut [u16],
        at: usize,
        keys: HeadRows<'_>,
        values: HeadRows<'_>,
    ) {
        for i in 0..keys.count {
            let source = &keys.all[keys.first + i * keys.stride..][..dim];
            for (part, columns) in source.chunks(LANES).zip(keys_out.chunks_mut(LANES * KV_BLOCK)) {
                let mut rounded = [0u16; LANES];
                for (r, v) in rounded.iter_mut().zip(part) {
                    *r = f32_to_f16(*v);
                }
                for (r, column) in rounded.iter().zip(columns.chunks_exact_mut(KV_BLOCK)) {
                    column[at + i] = *r;
                }
            }
            let source = &values.all[values.first + i * values.stride..][..dim];
            for (r, v) in values_out[(at + i) * row..].iter_mut().zip(source) {
                *r = f32_to_f16(*v);
            }
        }
    }
}

multiversion! {
    /// Value d of position p goes to `p * position_step + d * step`.
    fn store_int8(
        isa,
        dim: usize,
        out: &mut [i8],
        position_step: usize,
        step: usize,
        scales: &mut [f32],
        at: usize,
        rows: HeadRows<'_>,
    ) {
        for i in 0..rows.count {
            let source = &rows.all[rows.first + i * rows.stride..][..dim];
            // Magnitudes compared as integers order like floats, with NaN above all: it cannot be lost.
            let amax = source.iter().fold(0u32, |max, v| max.max(v.to_bits() & 0x7fff_ffff));
            let scale = f32::from_bits(amax) / 127.0;
            let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
            let target = &mut out[(at + i) * position_step..];
            for (part, columns) in source.chunks(LANES).zip(target.chunks_mut(LANES * step)) {
                let mut rounded = [0i8; LANES];
                for (r, v) in rounded.iter_mut().zip(part) {
                    // Clamped: for subnormal scales the inverse is infinite.
                    *r = round_even((v * inverse).clamp(-127.0, 127.0)).1 as i8;
                }
                for (r, column) in rounded[..part.len()].iter().zip(columns.chunks_mut(step)) {
                    column[0] = *r;
                }
            }
            scales[at + i] = scale;
        }
    }
}

/// Widens the lane groups `first..last` of every row of `stride` groups; the others stay as they are.
pub(super) fn widen(
    isa: Isa,
    kind: KvType,
    lines: &[Line],
    stride: usize,
    (first, last): (usize, usize),
    out: &mut [Lanes],
) {
    // Whole rows are one long row.
    let (stride, first, last) =
        if (first, last) == (0, stride) { (out.len(), 0, out.len()) } else { (stride, first, last) };
    match kind {
        KvType::F32 => unreachable!("f32 is read where it lies"),
        KvType::F16 => widen_f16(isa, view(lines), stride, first, last, out),
        KvType::Int8 => widen_int8(isa, view(lines), stride, first, last, out),
    }
}

multiversion! {
    fn widen_int8(isa, narrow: &[[i8; LANES]], stride: usize, first: usize, last: usize, out: &mut [Lanes]) {
        for (row, out) in narrow.chunks_exact(stride).zip(out.chunks_exact_mut(stride)) {
            for (q, wide) in row[first..last].iter().zip(&mut out[first..last]) {
                for (wide, q) in wide.0.iter_mut().zip(q) {
                    *wide = f32::from(*q);
                }
            }
        }
    }
}

/// Halves are widened by instructions where there are some: the plain conversion is an order slower. Both are exact.
fn widen_f16(isa: Isa, narrow: &[[u16; LANES]], stride: usize, first: usize, last: usize, out: &mut [Lanes]) {
    match isa {
        #[cfg(target_arch = "x86_64")]
        #[allow(unsafe_code)]
        // SAFETY: the token proves the features.
        Isa::Avx2(_) | Isa::AvxVnni(_) => unsafe { f16::avx2(narrow, stride, first, last, out) },
        #[cfg(target_arch = "x86_64")]
        #[allow(unsafe_code)]
        // SAFETY: the token proves the features.
        Isa::Avx512(_) => unsafe { f16::avx512(narrow, stride, first, last, out) },
        #[cfg(target_arch = "aarch64")]
        Isa::Neon(_) | Isa::NeonDot(_) | Isa::NeonI8mm(_) => {
            widen_each(narrow, stride, first, last, out, crate::tile::neon::widen_lanes);
        }
        _ => widen_each(narrow, stride, first, last, out, |half| half.map(f16_to_f32)),
    }
}

#[inline(always)]
fn widen_each(
    narrow: &[[u16; LANES]],
    stride: usize,
    first: usize,
    last: usize,
    out: &mut [Lanes],
    get: impl Fn(&[u16; LANES]) -> [f32; LANES],
) {
    for (row, out) in narrow.chunks_exact(stride).zip(out.chunks_exact_mut(stride)) {
        for (half, wide) in row[first..last].iter().zip(&mut out[first..last]) {
            wide.0 = get(half);
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code)]
mod f16 {
    use std::arch::x86_64::*;

    use super::{LANES, Lanes, widen_each};

    #[target_feature(enable = "avx2,fma,f16c")]
    pub(super) fn avx2(narrow: &[[u16; LANES]], stride: usize, first: usize, last: usize, out: &mut [Lanes]) {
        widen_each(narrow, stride, first, last, out, |half| {
            let mut wide = [0.0f32; LANES];
            let (eights, _) = half.as_chunks::<8>();
            for (wide, eight) in wide.as_chunks_mut::<8>().0.iter_mut().zip(eights) {
                // SAFETY: 8 halves are 16 bytes, 8 floats 32.
                unsafe {
                    _mm256_storeu_ps(
                        wide.as_mut_ptr(),
                        _mm256_cvtph_ps(_mm_loadu_si128(eight.as_ptr().cast())),
                    );
                }
            }
            wide
        });
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
    pub(super) fn avx512(
        narrow: &[[u16; LANES]],
        stride: usize,
        first: usize,
        last: usize,
        out: &mut [Lanes],
    ) {
        widen_each(narrow, stride, first, last, out, |half| {
            let mut wide = [0.0f32; LANES];
            // SAFETY: 16 halves are 32 bytes, 16 floats 64.
            unsafe {
                _mm512_storeu_ps(
                    wide.as_mut_ptr(),
                    _mm512_cvtph_ps(_mm256_loadu_si256(half.as_ptr().cast())),
                );
            }
            wide
        });
    }
}
