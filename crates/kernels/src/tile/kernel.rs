//! The one integer kernel: a tile of 16 rows times N tokens, for every instruction set and format.

use super::format::{Format, Quants, Scales};
use super::simd::Simd;
use super::{QuantTiles, QuantTokens};
use crate::limits::LANES;

/// Results of one tile × N tokens.
pub(crate) type Group<const N: usize> = [[f32; LANES]; N];

/// Tokens `token..token + N` times the rows of `tile`.
///
/// Weights are unsigned, so every integer sum starts at `-zero_point · Σ activations`: the correction costs nothing. The two
/// halves of a block are separate chains: some formats scale them apart, and one chain would wait for itself.
#[inline(always)]
pub(super) fn product<S: Simd, F: Format, const N: usize>(
    simd: S,
    w: QuantTiles<'_>,
    a: QuantTokens<'_>,
    tile: usize,
    token: usize,
    out: &mut Group<N>,
) {
    let quants = <F::Quants as Quants>::blocks(w.quants);
    let quants = &quants[tile * w.blocks..(tile + 1) * w.blocks];
    let scales = w.scales.tile::<<F::Scales as Scales>::Record>(tile);
    let tokens: [_; N] = std::array::from_fn(|n| a.token(token + n));
    for part in 0..LANES / S::WIDTH {
        let mut acc = [simd.zero(); N];
        for (b, block) in quants.iter().enumerate() {
            let weights = <F::Quants as Quants>::expand(simd, block, part);
            let loaded = <F::Scales as Scales>::load(simd, scales, b, part);
            for n in 0..N {
                let (values, meta) = (&tokens[n].0[b], &tokens[n].1[b]);
                let (mut first, mut second) = match F::ZERO_POINT {
                    Some(shift) if <F::Scales as Scales>::HALVES => {
                        let second = meta.sum_negated - meta.first_negated;
                        (simd.int_shifted(meta.first_negated, shift), simd.int_shifted(second, shift))
                    }
                    Some(shift) => (simd.int_shifted(meta.sum_negated, shift), simd.int(0)),
                    None => (simd.int(0), simd.int(0)),
                };
                let (fours, _) = values.as_chunks::<4>();
                for l in 0..4 {
                    first = simd.dot(first, weights[l], simd.four(&fours[l]));
                    second = simd.dot(second, weights[l + 4], simd.four(&fours[l + 4]));
                }
                acc[n] = <F::Scales as Scales>::join(simd, loaded, (first, second), meta, acc[n]);
            }
        }
        for n in 0..N {
            simd.store(acc[n], &mut out[n], part);
        }
    }
}
