//! The formats of ADR 0026 and 0031 against `golden/formats.json`, and what must hold for a trellis with error feedback.

use ganglion_compress::{MatrixRef, Method, Statistics, quantize_matrix};
use ganglion_kernels::{BlockFormat, dequantize_matrix, quantize};

fn golden() -> serde_json::Value {
    serde_json::from_str(include_str!("golden/formats.json")).unwrap()
}

fn floats(value: &serde_json::Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap() as f32).collect()
}

fn hex(value: &serde_json::Value) -> Vec<u8> {
    let digits = value.as_str().unwrap().as_bytes().as_chunks::<2>().0;
    digits.iter().map(|two| u8::from_str_radix(std::str::from_utf8(two).unwrap(), 16).unwrap()).collect()
}

fn restored(format: BlockFormat, columns: usize, bytes: &[u8], count: usize) -> Vec<f32> {
    let mut values = vec![0.0; count];
    dequantize_matrix(format, columns, bytes, &mut values).unwrap();
    values
}

fn stored(
    format: BlockFormat,
    method: Method,
    matrix: MatrixRef<'_>,
    statistics: Option<&Statistics>,
    threads: usize,
) -> Vec<u8> {
    let rows = matrix.values.len() / matrix.columns;
    let mut bytes = vec![0; format.matrix_bytes(rows, matrix.columns).unwrap()];
    quantize_matrix("w", (method, format), matrix, statistics, threads, &mut bytes).unwrap();
    bytes
}

fn squares(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2)).sum()
}

#[test]
fn stored_values_are_those_of_the_reference() {
    let golden = golden();
    for (name, of) in golden["formats"].as_object().unwrap() {
        let format = BlockFormat::from_name(name).unwrap();
        let source = match (format.trellis_bits(), format.sparse_bits()) {
            (Some(_), _) => "square",
            (_, Some(_)) => "half",
            _ => "wide",
        };
        let columns = if source == "square" { 64 } else { 256 };
        let (w, expected, bytes) = (floats(&golden[source]), floats(&of["values"]), hex(&of["bytes"]));
        let found = restored(format, columns, &bytes, w.len());
        let widest = w.iter().fold(0.0f32, |m, v| m.max(v.abs()));
        for (i, (a, b)) in found.iter().zip(&expected).enumerate() {
            assert!((a - b).abs() <= 2e-6 * widest, "{name}, value {i}: {a}, not {b}");
        }
        let matrix = MatrixRef { values: &w, columns };
        let own = restored(format, columns, &stored(format, Method::Rtn, matrix, None, 1), w.len());
        let (error, reference) = (squares(&own, &w), squares(&found, &w));
        println!("{name}: {:.4} of the reference's error", error / reference);
        assert!(error <= 1.02 * reference, "{name}: {error}, the reference {reference}");
        if format.sparse_bits().is_some() {
            let mut own = vec![0; bytes.len()];
            quantize(format, &w, &mut own).unwrap();
            assert!(own == bytes, "{name}: {own:?}, the reference {bytes:?}");
            let back = restored(format, columns, &stored(format, Method::Rtn, matrix, None, 1), w.len());
            assert!(w.iter().zip(&back).all(|(a, b)| *a != 0.0 || *b == 0.0), "{name}: zeros");
        }
        if format.row_bytes() > 0 {
            let own = stored(format, Method::Rtn, matrix, None, 1);
            // The reference divides in f64: what lies between two values may go either way.
            let differ = own.iter().zip(&bytes).filter(|(a, b)| a != b).count();
            assert!(differ * 100 < own.len(), "{name}: {differ} bytes of {}", own.len());
        }
    }
}

/// Inputs whose columns depend on each other, and a matrix.
fn case() -> (Statistics, Vec<f32>, usize) {
    let columns = 128;
    let noise = |i: usize| ((i.wrapping_mul(2_654_435_761) >> 7) % 2003) as f32 / 2003.0 - 0.5;
    let mut x = vec![0.0; 200 * columns];
    for (t, row) in x.chunks_mut(columns).enumerate() {
        for (j, value) in row.iter_mut().enumerate() {
            let common = noise(t * 31 + j / 8) * 2.0;
            *value = (common + noise(t * columns + j)) * if j % 50 == 3 { 6.0 } else { 1.0 };
        }
    }
    let mut statistics = Statistics::new(columns, true);
    statistics.add(&x, 1);
    (statistics, (0..32 * columns).map(|i| noise(i * 3 + 11) * 0.1 + noise(i * 7) * 0.05).collect(), columns)
}

fn output_error(statistics: &Statistics, columns: usize, found: &[f32], values: &[f32]) -> f64 {
    let rows = found.chunks(columns).zip(values.chunks(columns));
    rows.map(|(found, row)| {
        let difference: Vec<f32> = found.iter().zip(row).map(|(a, b)| a - b).collect();
        statistics.output_error(&difference)
    })
    .sum()
}

#[test]
fn feedback_makes_a_trellis_err_less_and_threads_change_nothing() {
    let (statistics, values, columns) = case();
    let matrix = MatrixRef { values: &values, columns };
    let error = |format, bytes: &[u8]| {
        output_error(&statistics, columns, &restored(format, columns, bytes, values.len()), &values)
    };
    for format in [BlockFormat::T2, BlockFormat::T4] {
        let fed = stored(format, Method::Trellis, matrix, Some(&statistics), 2);
        assert!(
            fed == stored(format, Method::Trellis, matrix, Some(&statistics), 1),
            "{format}: threads differ"
        );
        let plain = error(format, &stored(format, Method::Rtn, matrix, None, 2));
        let found = error(format, &fed);
        println!("{format}: {:.3} of the error without feedback", found / plain);
        assert!(found < 0.7 * plain, "{format}: {found}, without feedback {plain}");
    }
}

/// The 16 of largest magnitude of every 32, or 2 of every 4.
fn pruned(values: &[f32], kept: usize, of: usize) -> Vec<f32> {
    let mut values = values.to_vec();
    for group in values.chunks_mut(of) {
        let mut order: Vec<usize> = (0..of).collect();
        order.sort_by(|a, b| group[*b].abs().total_cmp(&group[*a].abs()));
        order.into_iter().skip(kept).for_each(|place| group[place] = 0.0);
    }
    values
}

#[test]
fn every_method_keeps_the_zeros_of_a_sparse_matrix_and_feedback_errs_least() {
    let (statistics, values, columns) = case();
    for (kept, of) in [(2, 4), (16, 32)] {
        let values = pruned(&values, kept, of);
        let matrix = MatrixRef { values: &values, columns };
        for format in [BlockFormat::SPARSE8, BlockFormat::SPARSE4] {
            let mut errors = Vec::new();
            for method in [Method::Rtn, Method::Imatrix, Method::AutoRound, Method::Gptq] {
                let bytes = stored(format, method, matrix, Some(&statistics), 2);
                let back = restored(format, columns, &bytes, values.len());
                let zeros = values.iter().zip(&back).all(|(a, b)| *a != 0.0 || *b == 0.0);
                assert!(zeros, "{format}, {}: a zero became something else", method.name());
                errors.push(output_error(&statistics, columns, &back, &values));
            }
            println!("{format} {kept}:{of}: rtn, imatrix, autoround, gptq {errors:?}");
            assert!(errors[3] <= errors[0] && errors[3] <= errors[1], "{format}: {errors:?}");
            assert!(format == BlockFormat::SPARSE8 || errors[3] < 0.6 * errors[0], "{format}: {errors:?}");
        }
    }
}

#[test]
fn a_dense_matrix_is_refused_with_what_to_do() {
    let (_, values, columns) = case();
    let mut bytes = vec![0; BlockFormat::SPARSE8.matrix_bytes(32, columns).unwrap()];
    let matrix = MatrixRef { values: &values, columns };
    let error = quantize_matrix("w", (Method::Rtn, BlockFormat::SPARSE8), matrix, None, 1, &mut bytes);
    let error = error.unwrap_err().to_string();
    assert!(error.contains("32 values that are not zero") && error.contains("--sparsity 2:4"), "{error}");
}
