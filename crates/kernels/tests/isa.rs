//! Bit-for-bit properties: every instruction set, batch size, thread count and row selection gives the same bits, and
//! they agree with a plain double-precision product.

use ganglion_kernels::*;
use proptest::prelude::*;

const FORMATS: &[BlockFormat] = &BlockFormat::ALL;

/// A small generator, so that sizes and seeds shrink while contents stay arbitrary.
struct Noise(u64);

impl Noise {
    fn bits(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
    /// In -1..1.
    fn float(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }
    fn floats(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| self.float()).collect()
    }
}

/// A (rows, k) tensor of any format: floats in -1..1, or arbitrary quants and sub-scales under small scales.
fn tensor(noise: &mut Noise, format: BlockFormat, rows: usize, k: usize) -> Vec<u8> {
    let mut bytes = vec![0; format.matrix_bytes(rows, k).unwrap()];
    if format.row_bytes() > 0 {
        quantize_rows(format, k, &noise.floats(rows * k), &mut bytes).unwrap();
        return bytes;
    }
    if format.block() == 1 {
        quantize(format, &noise.floats(rows * k), &mut bytes).unwrap();
        return bytes;
    }
    bytes.fill_with(|| (noise.bits() >> 32) as u8);
    for block in bytes.chunks_exact_mut(format.block_bytes()) {
        set_scales(format, block, &mut |_| half::f16::from_f32(noise.float() * 0.01));
        if format.sparse_bits().is_some() {
            set_mask(block, (noise.bits() >> 32) as u32);
        }
        if format == BlockFormat::MXFP4 {
            block[0] = 118 + (noise.bits() >> 40) as u8 % 12;
        }
    }
    bytes
}

/// Sets the mask of a block of a sparse format: one with 16 ones that is near to `mask`.
fn set_mask(block: &mut [u8], mut mask: u32) {
    while mask.count_ones() > 16 {
        mask &= mask - 1;
    }
    while mask.count_ones() < 16 {
        mask |= mask + 1;
    }
    block[2..6].copy_from_slice(&mask.to_le_bytes());
}

/// Sets the half-precision scales of a block; MXFP4 has a power of two instead, set to one.
fn set_scales(format: BlockFormat, block: &mut [u8], scale: &mut dyn FnMut(usize) -> half::f16) {
    let halves: &[usize] = match format {
        BlockFormat::Q4_1 | BlockFormat::Q5_1 | BlockFormat::Q4_K | BlockFormat::Q5_K => &[0, 2],
        BlockFormat::I8_ROW | BlockFormat::F8_E4M3 => &[],
        BlockFormat::Q2_K => &[80, 82],
        BlockFormat::Q3_K => &[108],
        BlockFormat::Q6_K => &[208],
        BlockFormat::MXFP4 => {
            block[0] = 127;
            &[]
        }
        _ => &[0],
    };
    for (i, at) in halves.iter().enumerate() {
        block[*at..at + 2].copy_from_slice(&scale(i).to_le_bytes());
    }
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

fn product(isa: Isa, threads: usize, matrix: &Matrix, x: &[f32], batch: usize) -> Vec<f32> {
    let pool = Pool::new(threads).unwrap();
    let k = matrix.k();
    let mut buffer = ActivationBuffer::new(batch, k);
    let mut result = Vec::new();
    for part in x.chunks(batch * k) {
        let mut out = vec![0.0; part.len() / k * matrix.rows()];
        buffer.prepare(isa, &pool, part, (part.len() / k, k), &[matrix]);
        matmul(isa, &pool, &Input::new(part, &buffer), &mut [(matrix, &mut out)]);
        result.extend(out);
    }
    result
}

/// How far int8 activations may move a product of rotated ones: `‖w‖·‖δ‖`, δ being half a step of each block.
fn rotated_bound(w: &[f32], x: &[f32]) -> f64 {
    let mut turned = x.to_vec();
    rotate(Isa::Scalar, Side::Input, &mut turned, rotation_width(x.len()));
    let square = |x: &[f32]| x.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>();
    let step = |x: &[f32]| x.iter().fold(0.0f32, |m, v| m.max(v.abs())) * 0.51 / 127.0;
    let steps: f64 = turned.chunks(32).map(|x| 32.0 * f64::from(step(x)).powi(2)).sum();
    (square(w) * steps).sqrt()
}

/// 60 cases, or as many as `PROPTEST_CASES` says: under emulation fewer must do.
fn config() -> ProptestConfig {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|count| count.parse().ok()).unwrap_or(60);
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn products_have_one_result(
        format in prop::sample::select(FORMATS),
        rows in 1usize..100,
        strips in 1usize..13,
        units in 1usize..6,
        tokens in 1usize..30,
        batch in 1usize..30,
        seed in 1u64..,
    ) {
        let mut noise = Noise(seed);
        // Float formats take any row length, with tails.
        let k = if format.block() == 1 { units * 7 + tokens } else { units * format.block() };
        let rows = if format.block_rows() > 1 { strips * format.block_rows() } else { rows };
        let bytes = tensor(&mut noise, format, rows, k);
        let mut stored = vec![0.0; rows * k];
        dequantize_matrix(format, k, &bytes, &mut stored).unwrap();
        let matrix = Matrix::pack("w", format, rows, k, &bytes).unwrap();
        let x = noise.floats(tokens * k);

        let reference = product(Isa::Scalar, 1, &matrix, &x, 1);
        for isa in Isa::available() {
            for threads in 1..=3 {
                prop_assert_eq!(bits(&reference), bits(&product(isa, threads, &matrix, &x, batch)), "{:?}", isa);
            }
        }

        for (token, x) in x.chunks(k).enumerate() {
            for (row, w) in stored.chunks(k).enumerate() {
                let exact: f64 = w.iter().zip(x).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
                // int8 activations: half a step of at most 1/127 each.
                let magnitude: f64 = w.iter().map(|w| f64::from(w.abs())).sum();
                let bound = match format.form() {
                    _ if format.block() == 1 => 1e-5 * magnitude.max(1.0),
                    Form::Blocks | Form::Token => 1e-5 + magnitude * 0.51 / 127.0,
                    Form::Rotated => 1e-4 + rotated_bound(w, x),
                };
                let found = f64::from(reference[token * rows + row]);
                prop_assert!((found - exact).abs() <= bound, "{} is not {}", found, exact);
            }
        }

        let mut row = vec![0.0; k];
        for index in 0..rows {
            matrix.dequantize_row(index, &mut row);
            prop_assert_eq!(bits(&row), bits(&stored[index * k..(index + 1) * k]));
        }
    }

    #[test]
    fn a_fixed_scale_is_met_within_half_of_it(rows in 1usize..40, units in 1usize..6, seed in 1u64..) {
        let mut noise = Noise(seed);
        let (k, tokens, scale) = (units * 32, 5, 0.7 / 127.0);
        let bytes = tensor(&mut noise, BlockFormat::I8_ROW, rows, k);
        let matrix = Matrix::pack("w", BlockFormat::I8_ROW, rows, k, &bytes).unwrap();
        let matrix = matrix.with_input_scale(Some(scale));
        let x = noise.floats(tokens * k);
        let reference = product(Isa::Scalar, 1, &matrix, &x, 1);
        for isa in Isa::available() {
            prop_assert_eq!(bits(&reference), bits(&product(isa, 2, &matrix, &x, tokens)), "{:?}", isa);
        }
        let mut row = vec![0.0; k];
        for index in 0..rows {
            matrix.dequantize_row(index, &mut row);
            for (token, x) in x.chunks(k).enumerate() {
                let cut = x.iter().map(|x| x.clamp(-127.0 * scale, 127.0 * scale));
                let exact: f64 = row.iter().zip(cut).map(|(w, x)| f64::from(*w) * f64::from(x)).sum();
                let magnitude: f64 = row.iter().map(|w| f64::from(w.abs())).sum();
                let found = f64::from(reference[token * rows + index]);
                prop_assert!((found - exact).abs() <= magnitude * f64::from(scale) * 0.51 + 1e-5);
            }
        }
    }

    #[test]
    fn chosen_rows_have_the_bits_of_the_whole(
        format in prop::sample::select(FORMATS),
        rows in 1usize..200,
        picks in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
        seed in 1u64..,
    ) {
        let mut noise = Noise(seed);
        let k = 256;
        let rows = rows.next_multiple_of(format.block_rows());
        let bytes = tensor(&mut noise, format, rows, k);
        let matrix = Matrix::pack("w", format, rows, k, &bytes).unwrap();
        let x = noise.floats(k);
        let whole = product(Isa::Scalar, 1, &matrix, &x, 1);
        let picks: Vec<u32> = picks.iter().map(|p| p.index(rows) as u32).collect();
        for isa in Isa::available() {
            let pool = Pool::new(2).unwrap();
            let mut buffer = ActivationBuffer::new(1, k);
            buffer.prepare(isa, &pool, &x, (1, k), &[&matrix]);
            let mut out = vec![0.0; picks.len()];
            matmul_rows(isa, &pool, &Input::new(&x, &buffer), &matrix, &picks, &mut out);
            let expected: Vec<u32> = picks.iter().map(|p| whole[*p as usize].to_bits()).collect();
            prop_assert_eq!(expected, bits(&out));
        }
    }

    #[test]
    fn row_operations_have_one_result(length in 1usize..150, tokens in 1usize..5, seed in 1u64..) {
        let mut noise = Noise(seed);
        let x: Vec<f32> = noise.floats(tokens * length).iter().map(|v| v * 30.0).collect();
        let (weight, up) = (noise.floats(length), noise.floats(tokens * length));
        let run = |isa, threads| {
            let pool = Pool::new(threads).unwrap();
            let mut normed = vec![0.0; x.len()];
            rms_norm(isa, &pool, &x, &weight, 1e-5, &mut normed);
            let mut gated = x.clone();
            activate_gated(isa, &pool, Activation::Silu, &mut gated, &up, length);
            activate_gated(isa, &pool, Activation::GeluTanh, &mut gated, &up, length);
            activate_gated(isa, &pool, Activation::GeluErf, &mut gated, &x, length);
            add_rows(isa, &mut gated, &normed);
            add_bias(isa, &pool, &mut gated, &weight);
            for activation in [Activation::Silu, Activation::GeluTanh, Activation::GeluErf] {
                let mut plain = x.clone();
                activate(isa, &pool, activation, &mut plain, length);
                add_scaled(isa, &mut gated, &plain, 0.3);
            }
            let mut layered = x.clone();
            layer_norm(isa, &pool, &x, &weight, &up[..length], 1e-5, &mut layered);
            rms_norm_in_place(isa, &pool, &mut gated, length, &weight, 1e-5);
            soft_cap(isa, &mut gated, 2.0);
            let rotation = Rotation::plain(RopeOrder::Interleaved, 2, 10_000.0);
            let table = RopeTable::new(&rotation, 64, &[]);
            let mut turned: Vec<f32> = gated.iter().flat_map(|v| [*v, 1.0 - v]).collect();
            table.apply(isa, &pool, &mut turned, 2 * length, 2, 3);
            (bits(&normed), bits(&layered), bits(&turned))
        };
        let reference = run(Isa::Scalar, 1);
        for isa in Isa::available() {
            for threads in 1..=3 {
                prop_assert_eq!(&reference, &run(isa, threads));
            }
        }
        for (row, x) in x.chunks(length).enumerate() {
            let mean = x.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / length as f64;
            for i in 0..length {
                let exact = f64::from(x[i]) / (mean + 1e-5).sqrt() * f64::from(weight[i]);
                let found = f64::from(f32::from_bits(reference.0[row * length + i]));
                prop_assert!((found - exact).abs() <= 1e-5 * exact.abs().max(1.0));
            }
            let mean = x.iter().map(|v| f64::from(*v)).sum::<f64>() / length as f64;
            let variance = x.iter().map(|v| (f64::from(*v) - mean).powi(2)).sum::<f64>() / length as f64;
            for i in 0..length {
                let normed = (f64::from(x[i]) - mean) / (variance + 1e-5).sqrt();
                let exact = normed * f64::from(weight[i]) + f64::from(up[i]);
                let found = f64::from(f32::from_bits(reference.1[row * length + i]));
                prop_assert!((found - exact).abs() <= 2e-5 * exact.abs().max(1.0), "{} {}", found, exact);
            }
        }
    }
}

/// Blocks of one byte each, so that quants and sub-scales are all at an end of their range together.
#[test]
fn extreme_quants_are_exact() {
    let (rows, tokens) = (33, 13);
    // Rotations do not keep integers, and scales of rows are floats of four bytes.
    for format in FORMATS.iter().copied().filter(|format| format.has_block_code()) {
        let k = format.block().max(96);
        for fill in [0x00u8, 0x7f, 0x80, 0xff, 0xf0, 0x0f] {
            let mut bytes = vec![fill; format.size_bytes(rows * k).unwrap()];
            for block in bytes.chunks_mut(format.block_bytes()) {
                set_scales(format, block, &mut |_| half::f16::ONE);
                if format.sparse_bits().is_some() {
                    set_mask(block, u32::from_le_bytes([fill; 4]));
                }
            }
            let matrix = Matrix::pack("w", format, rows, k, &bytes).unwrap();
            let mut row = vec![0.0; k];
            matrix.dequantize_row(rows - 1, &mut row);
            for activation in [-127, 0, i8::MAX] {
                let mut buffer = ActivationBuffer::new(tokens, k);
                buffer.set_quantized(&vec![activation; tokens * k], &vec![1.0; tokens * k / 32], tokens, k);
                let expected = row.iter().sum::<f32>() * f32::from(activation);
                for isa in Isa::available() {
                    let mut out = vec![f32::NAN; tokens * rows];
                    let x = vec![0.0; tokens * k];
                    let pool = Pool::new(1).unwrap();
                    matmul(isa, &pool, &Input::new(&x, &buffer), &mut [(&matrix, &mut out)]);
                    // All sums are integers; those of the k-quants pass 2^24, where f32 begins to round.
                    let bound = if format.block() == 32 { 0.0 } else { expected.abs() * 1e-6 };
                    assert!(
                        out.iter().all(|v| (*v - expected).abs() <= bound),
                        "{format:?} {fill:#x} {activation} {isa:?}: {} is not {expected}",
                        out[0]
                    );
                }
            }
        }
    }
}

#[test]
fn every_set_of_this_processor_has_a_name() {
    for isa in Isa::available() {
        assert_eq!(Isa::by_name(isa.name()), Some(isa));
    }
    assert_eq!(Isa::available().last(), Some(&Isa::detect()));
    assert_eq!(Isa::by_name("sse9"), None);
    // Where the processor is known, as under emulation, so must be its fastest set.
    if let Ok(expected) = std::env::var("GANGLION_ISA_EXPECTED") {
        assert_eq!(Isa::detect().name(), expected);
    }
}

/// More blocks in a row than are expanded at a time, for more tokens than share registers.
#[test]
fn long_rows_have_one_result() {
    let mut noise = Noise(3);
    let (k, tokens) = (32 * (2 * limits::EXPANDED_BLOCKS + 3), 27);
    let x = noise.floats(tokens * k);
    let long =
        [BlockFormat::SPARSE8, BlockFormat::SPARSE4, BlockFormat::T2, BlockFormat::T3, BlockFormat::I8_ROW];
    for format in long {
        let rows = if format.block_rows() > 1 { 48 } else { 37 };
        let bytes = tensor(&mut noise, format, rows, k);
        let matrix = Matrix::pack("w", format, rows, k, &bytes).unwrap();
        let reference = product(Isa::Scalar, 1, &matrix, &x, 1);
        for isa in Isa::available() {
            for batch in [1, 4, 13, tokens] {
                let found = product(isa, 2, &matrix, &x, batch);
                assert!(bits(&reference) == bits(&found), "{format} {isa:?}, {batch} tokens at once");
            }
        }
    }
}

/// Rows with one scale are summed as integers: the largest sums there are, of more blocks than one integer holds.
#[test]
fn the_longest_sums_of_whole_rows_are_exact() {
    let (rows, tokens, k) = (2usize, 13, 32 * (limits::WHOLE_SUM_BLOCKS + 2));
    let mut bytes = Vec::new();
    for _ in 0..rows {
        bytes.extend(1f32.to_le_bytes());
        bytes.extend(vec![0x80; k]);
    }
    let matrix = Matrix::pack("w", BlockFormat::I8_ROW, rows, k, &bytes).unwrap();
    for sign in [1.0, -1.0] {
        let x = vec![sign * 127.0; tokens * k];
        let expected = sign * -128.0 * 127.0 * k as f32;
        for isa in Isa::available() {
            for batch in [1, 2, tokens] {
                let found = product(isa, 1, &matrix, &x, batch);
                assert!(found == vec![expected; rows * tokens], "{isa:?}: {} is not {expected}", found[0]);
            }
        }
    }
}

/// Every eight-bit float by itself, against what its format says; a row with a NaN is one, and its neighbour is not.
#[test]
fn eight_bit_floats_are_widened_exactly() {
    let numbers: Vec<u8> = (0..=255).filter(|byte| byte & 0x7f != 0x7f).collect();
    let k = numbers.len();
    let row = |values: &[u8]| [&1.5f32.to_le_bytes()[..], values].concat();
    let mut faulty = numbers.clone();
    faulty[100] = 0xff;
    let bytes = [row(&numbers), row(&faulty)].concat();
    let mut values = vec![0.0; 2 * k];
    dequantize_matrix(BlockFormat::F8_E4M3, k, &bytes, &mut values).unwrap();
    let matrix = Matrix::pack("w", BlockFormat::F8_E4M3, 2, k, &bytes).unwrap();
    let mut x = vec![0.0; k * k];
    (0..k).for_each(|i| x[i * k + i] = 1.0);
    for isa in Isa::available() {
        for (i, found) in product(isa, 1, &matrix, &x, 5).chunks(2).enumerate() {
            assert_eq!(found[0], values[i], "{isa:?}, byte {}", numbers[i]);
            assert!(found[1].is_nan(), "{isa:?}, byte {}: {}", numbers[i], found[1]);
        }
    }
}

/// A token with one scale has one fault: a number in one block must not hide what is none in another.
#[test]
fn whole_rows_swallow_nothing() {
    let k = 96;
    let mut bytes = 1f32.to_le_bytes().to_vec();
    bytes.extend(vec![0; k]);
    for scale in [None, Some(0.5)] {
        let matrix = Matrix::pack("w", BlockFormat::I8_ROW, 1, k, &bytes).unwrap().with_input_scale(scale);
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for at in [0, 40, 95] {
                let mut x = vec![1.0; 2 * k];
                x[at] = bad;
                for isa in Isa::available() {
                    let found = product(isa, 1, &matrix, &x, 2);
                    assert!(found[0].is_nan() && found[1] == 0.0, "{isa:?}, {bad} at {at}: {found:?}");
                }
            }
        }
    }
}

/// The shapes above mostly stay on one thread; these are large enough to be shared even for one token.
#[test]
fn shared_products_have_one_result() {
    let mut noise = Noise(7);
    let (some_rows, k) = (333usize, 1024);
    let x = noise.floats(k);
    let picks: Vec<u32> = (0..300).map(|i| i * 7 % 333).collect();
    for format in FORMATS.iter().copied() {
        let rows = some_rows.next_multiple_of(format.block_rows());
        let bytes = tensor(&mut noise, format, rows, k);
        let matrix = Matrix::pack("w", format, rows, k, &bytes).unwrap();
        let whole = product(Isa::Scalar, 1, &matrix, &x, 1);
        for isa in Isa::available() {
            for threads in 1..=4 {
                assert_eq!(bits(&whole), bits(&product(isa, threads, &matrix, &x, 1)));
                let pool = Pool::new(threads).unwrap();
                let mut buffer = ActivationBuffer::new(1, k);
                buffer.prepare(isa, &pool, &x, (1, k), &[&matrix]);
                let mut out = vec![0.0; picks.len()];
                matmul_rows(isa, &pool, &Input::new(&x, &buffer), &matrix, &picks, &mut out);
                assert!(picks.iter().zip(&out).all(|(p, v)| whole[*p as usize].to_bits() == v.to_bits()));
            }
        }
    }
}
