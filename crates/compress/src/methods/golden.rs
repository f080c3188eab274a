//! Golden values of `tests/golden/methods.py`, and what must hold for any method.

use ganglion_kernels::{BlockCode, BlockFormat, dequantize};

use super::gptq::Solver;
use super::output_error::{OutputError, normalised};
use super::{MatrixRef, Method, awq, hqq, quantize_matrix, rounding};
use crate::statistics::Statistics;

const FORMAT: BlockFormat = BlockFormat::Q4_0;

pub(super) struct Golden(serde_json::Value);

impl Golden {
    pub(super) fn read() -> Self {
        Self(serde_json::from_str(include_str!("../../tests/golden/methods.json")).unwrap())
    }

    fn floats(&self, pointer: &str) -> Vec<f32> {
        let values =
            self.0.pointer(pointer).and_then(|v| v.as_array()).unwrap_or_else(|| panic!("{pointer}"));
        values.iter().map(|v| v.as_f64().unwrap() as f32).collect()
    }

    fn columns(&self) -> usize {
        self.0["columns"].as_u64().unwrap() as usize
    }

    fn statistics(&self) -> Statistics {
        let mut statistics = Statistics::new(self.columns(), true);
        statistics.add(&self.floats("/x"), 1);
        statistics
    }

    fn output_error(&self) -> OutputError {
        OutputError::new(&normalised(self.statistics().second_moments.unwrap()).unwrap())
    }

    /// The grids of all rows: blocks with the given scales.
    fn codes(&self) -> Vec<Vec<BlockCode>> {
        let scales = self.floats("/scales");
        let code = |scale: &f32| {
            let mut bytes = [0x88; 18];
            bytes[..2].copy_from_slice(&half::f16::from_f32(*scale).to_le_bytes());
            BlockCode::read(FORMAT, &bytes).unwrap()
        };
        scales.chunks(self.columns() / 32).map(|row| row.iter().map(code).collect()).collect()
    }
}

fn quants(rows: &[Vec<BlockCode>]) -> Vec<f32> {
    let blocks = rows.iter().flatten();
    blocks.flat_map(|code| (0..32).map(|i| f32::from(code.quant(i))).collect::<Vec<_>>()).collect()
}

#[test]
fn gptq_chooses_the_quants_of_the_reference_in_both_orders() {
    let golden = Golden::read();
    let solver = Solver::new(&golden.statistics(), "golden").unwrap();
    let w = golden.floats("/w");
    for (name, ordered) in [("natural", false), ("ordered", true)] {
        let found = solver.with_scales(FORMAT, &w, golden.codes(), ordered).unwrap();
        let expected = golden.floats(&format!("/{name}"));
        assert_eq!(
            quants(&found.iter().map(|(codes, _)| codes.clone()).collect::<Vec<_>>()),
            expected,
            "{name}"
        );
        for ((_, error), expected) in found.iter().zip(golden.floats(&format!("/errors/{name}"))) {
            assert!((*error as f32 / expected - 1.0).abs() < 1e-3, "{name}: {error}, not {expected}");
        }
    }
}

#[test]
fn coordinate_descent_ends_where_the_reference_ends() {
    let golden = Golden::read();
    let output = golden.output_error();
    let w = golden.floats("/w");
    let mut codes = golden.codes();
    let mut errors = Vec::new();
    for (row, codes) in w.chunks(golden.columns()).zip(&mut codes) {
        for (code, x) in codes.iter_mut().zip(row.chunks(32)) {
            code.set_nearest(x);
        }
        output.descend(row, codes);
        errors.push(output.of(row, codes));
    }
    assert_eq!(quants(&codes), golden.floats("/descent"));
    let plain = golden.floats("/errors/plain");
    assert!(errors.iter().zip(&plain).all(|(found, plain)| (*found as f32) < *plain), "{errors:?} {plain:?}");
}

#[test]
fn learned_rounding_reaches_the_errors_of_the_reference() {
    let golden = Golden::read();
    let statistics = golden.statistics();
    let learned = rounding::Rounding::new(&statistics, "golden").unwrap();
    let output = golden.output_error();
    let rows = golden.floats("/w");
    for ((row, codes), expected) in
        rows.chunks(golden.columns()).zip(golden.codes()).zip(golden.floats("/autoround"))
    {
        let found = output.of(row, &learned.learn(row, codes)) as f32;
        // Signs of gradients near zero differ in f32; both end at the bottom.
        assert!((found / expected - 1.0).abs() < 0.05, "{found}, the reference {expected}");
    }
}

#[test]
fn scales_and_zero_points_are_those_of_the_reference() {
    let golden = Golden::read();
    for i in 0..golden.0["hqq"].as_array().unwrap().len() {
        let most = golden.0["hqq"][i]["quant_max"].as_f64().unwrap() as f32;
        let found = hqq::fit(&golden.floats(&format!("/hqq/{i}/group")), most, true);
        let at = |key: &str| golden.0["hqq"][i][key].as_f64().unwrap() as f32;
        assert!((found.scale / at("scale") - 1.0).abs() < 1e-4, "group {i}");
        let zero = found.min / found.scale;
        assert!((zero - at("zero")).abs() < 1e-2, "group {i}: {zero}, not {}", at("zero"));
    }
}

#[test]
fn folded_factors_are_those_of_the_reference() {
    let golden = Golden::read();
    let (w, columns) = (golden.floats("/w"), golden.columns());
    let statistics = golden.statistics();
    let reader = MatrixRef { values: &w, columns };
    let smooth = awq::fold_smooth(&[reader], &statistics, columns, &|j| j);
    let powers = awq::powers(&statistics.mean_magnitudes(), 0.45);
    for (name, found) in [("smooth", smooth), ("awq", powers)] {
        for (found, expected) in found.iter().zip(golden.floats(&format!("/{name}"))) {
            assert!((found / expected - 1.0).abs() < 1e-3, "{name}: {found}, not {expected}");
        }
    }
}

#[test]
fn a_weighed_fit_is_as_good_as_trying_all_scales() {
    let golden = Golden::read();
    for i in 0..golden.0["weighed"].as_array().unwrap().len() {
        let x = golden.floats(&format!("/weighed/{i}/values"));
        let weights = golden.floats(&format!("/weighed/{i}/weights"));
        let code = BlockCode::fit(FORMAT, &x, Some(&weights)).unwrap();
        let square = |(j, x): (usize, &f32)| weights[j] * (code.value(j, code.quant(j)) - x).powi(2);
        let found: f32 = x.iter().enumerate().map(square).sum();
        let least = golden.0["weighed"][i]["error"].as_f64().unwrap() as f32;
        assert!(found < least * 1.1, "block {i}: {found}, the least is {least}");
    }
}

/// Output error of a method on a matrix of `columns` columns whose inputs depend on each other.
fn error_of(method: Method, format: BlockFormat, statistics: &Statistics, values: &[f32]) -> f64 {
    let columns = statistics.columns();
    let mut bytes = vec![0; format.size_bytes(values.len()).unwrap()];
    let matrix = MatrixRef { values, columns };
    quantize_matrix("w", (method, format), matrix, Some(statistics), 2, &mut bytes).unwrap();
    let mut back = vec![0.0; values.len()];
    dequantize(format, &bytes, &mut back).unwrap();
    let rows = back.chunks(columns).zip(values.chunks(columns));
    rows.map(|(back, row)| {
        let difference: Vec<f32> = back.iter().zip(row).map(|(a, b)| a - b).collect();
        statistics.output_error(&difference)
    })
    .sum()
}

#[test]
fn error_feedback_never_errs_more_than_rounding_and_much_less_at_few_bits() {
    let columns = 512;
    let noise = |i: usize| ((i.wrapping_mul(2_654_435_761) >> 7) % 2003) as f32 / 2003.0 - 0.5;
    let mut x = vec![0.0; 300 * columns];
    for (t, row) in x.chunks_mut(columns).enumerate() {
        for (j, value) in row.iter_mut().enumerate() {
            let common = noise(t * 31 + j / 8) * 2.0;
            *value = (common + noise(t * columns + j)) * if j % 50 == 3 { 6.0 } else { 1.0 };
        }
    }
    let mut statistics = Statistics::new(columns, true);
    statistics.add(&x, 2);
    let values: Vec<f32> = (0..12 * columns).map(|i| noise(i * 3 + 11) * 0.1 + noise(i * 7) * 0.05).collect();
    for format in BlockFormat::ALL.into_iter().filter(|format| format.has_block_code()) {
        let half =
            |(i, v): (usize, &f32)| if format.sparse_bits().is_some() && i % 2 == 1 { 0.0 } else { *v };
        let values: Vec<f32> = values.iter().enumerate().map(half).collect();
        let error = |method| error_of(method, format, &statistics, &values);
        let (plain, weighed, fed, learned) =
            (error(Method::Rtn), error(Method::Imatrix), error(Method::Gptq), error(Method::AutoRound));
        println!(
            "{format}: rtn 1, imatrix {:.3}, gptq {:.3}, autoround {:.3}",
            weighed / plain,
            fed / plain,
            learned / plain
        );
        assert!(fed <= plain && fed <= weighed, "{format}: {fed}, rounding {plain}, weighed {weighed}");
        assert!(learned <= weighed, "{format}: learned {learned}, weighed {weighed}");
        if format.quant_max() <= 15 {
            assert!(fed < 0.6 * plain, "{format}: {fed}, rounding {plain}");
        }
    }
}

#[test]
fn rows_do_not_depend_on_the_number_of_threads() {
    let golden = Golden::read();
    let (statistics, w, columns) = (golden.statistics(), golden.floats("/w"), golden.columns());
    for method in Method::ALL {
        let stored = [1, 2, 5].map(|threads| {
            let mut bytes = vec![0; BlockFormat::Q4_1.size_bytes(w.len()).unwrap()];
            let matrix = MatrixRef { values: &w, columns };
            quantize_matrix("w", (method, BlockFormat::Q4_1), matrix, Some(&statistics), threads, &mut bytes)
                .unwrap();
            bytes
        });
        assert!(stored[0] == stored[1] && stored[0] == stored[2], "{}", method.name());
    }
}
