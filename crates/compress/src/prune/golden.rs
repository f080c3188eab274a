//! Golden values of `tests/golden/prune.py`, and what must hold for any matrix.

use super::choice::Choice;
use super::plan::Sizes;
use super::sparse::{Pattern, SparseMethod, SparseOptions, sparsify};
use super::{Importance, channels, heads};
use crate::linalg::Square;
use crate::statistics::Statistics;

pub(crate) struct Golden(serde_json::Value);

impl Golden {
    pub(crate) fn read() -> Self {
        Self(serde_json::from_str(include_str!("../../tests/golden/prune.json")).unwrap())
    }

    pub(crate) fn at(&self, pointer: &str) -> &serde_json::Value {
        self.0.pointer(pointer).unwrap_or_else(|| panic!("{pointer}"))
    }

    pub(crate) fn numbers(&self, pointer: &str) -> Vec<f64> {
        self.at(pointer).as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
    }

    pub(crate) fn floats(&self, pointer: &str) -> Vec<f32> {
        self.numbers(pointer).into_iter().map(|v| v as f32).collect()
    }

    pub(crate) fn number(&self, pointer: &str) -> usize {
        self.at(pointer).as_u64().unwrap() as usize
    }

    /// Moments of the first `columns` columns of the inputs, exact to f64.
    pub(crate) fn moments(&self, columns: usize) -> Square {
        let mut moments = Square::zeros(columns);
        for row in self.numbers("/x").chunks(self.number("/columns")) {
            for i in 0..columns {
                (0..columns).for_each(|j| moments.set(i, j, moments.at(i, j) + row[i] * row[j]));
            }
        }
        moments
    }

    fn statistics(&self) -> Statistics {
        let columns = self.number("/columns");
        let mut statistics = Statistics::new(columns, true);
        statistics.add(&self.floats("/x"), 1);
        statistics.second_moments = Some(self.moments(columns));
        statistics
    }
}

const HALF: Pattern = Pattern::Share(0.5);
const TWO_OF_FOUR: Pattern = Pattern::Groups { kept: 2, of: 4 };

fn sparse(method: SparseMethod, pattern: Pattern, threads: usize, golden: &Golden) -> Vec<f32> {
    let mut values = golden.floats("/w");
    sparsify("w", SparseOptions { pattern, method, threads }, &mut values, &golden.statistics()).unwrap();
    values
}

#[test]
fn wanda_keeps_the_weights_of_the_reference() {
    let golden = Golden::read();
    for (name, pattern) in [("half", HALF), ("2:4", TWO_OF_FOUR)] {
        let found = sparse(SparseMethod::Wanda, pattern, 1, &golden);
        let kept: String = found.iter().map(|v| if *v == 0.0 { '0' } else { '1' }).collect();
        assert_eq!(kept, golden.at(&format!("/wanda/{name}")).as_str().unwrap(), "{name}");
        let pairs = found.iter().zip(golden.floats("/w"));
        assert!(pairs.into_iter().all(|(found, w)| *found == 0.0 || *found == w), "{name}: weights moved");
    }
}

#[test]
fn sparsegpt_gives_the_weights_of_the_reference_on_any_threads() {
    let golden = Golden::read();
    for (name, pattern) in [("half", HALF), ("2:4", TWO_OF_FOUR)] {
        let expected = golden.floats(&format!("/sparsegpt/{name}"));
        for threads in [1, 2, 5] {
            let found = sparse(SparseMethod::SparseGpt, pattern, threads, &golden);
            for (i, (found, expected)) in found.iter().zip(&expected).enumerate() {
                assert_eq!(*found == 0.0, *expected == 0.0, "{name}: weight {i}");
                assert!((found - expected).abs() < 1e-5, "{name}: weight {i}: {found}, not {expected}");
            }
        }
    }
}

#[test]
fn columns_go_in_the_order_of_the_reference() {
    let golden = Golden::read();
    let columns = golden.number("/columns");
    let choice = Choice::new(Importance::Reconstruction, golden.moments(columns), golden.floats("/w"), None);
    let expected: Vec<usize> = golden.numbers("/obs").into_iter().map(|v| v as usize).collect();
    assert_eq!(channels::choose(&choice, columns, expected.len()).unwrap(), expected);
}

#[test]
fn columns_that_add_least_go_as_in_the_reference() {
    let golden = Golden::read();
    let columns = golden.number("/columns");
    let choice = Choice::new(Importance::Activation, golden.moments(columns), golden.floats("/w"), None);
    let expected: Vec<usize> = golden.numbers("/activation").into_iter().map(|v| v as usize).collect();
    assert_eq!(channels::choose(&choice, columns, expected.len()).unwrap(), expected);
}

#[test]
fn heads_go_as_in_the_reference() {
    let golden = Golden::read();
    let columns = golden.number("/columns");
    let before = Sizes { hidden: 6, head_dim: 7, heads: 20, kv_heads: 5, channels: 1 };
    let after = Sizes { heads: 12, kv_heads: 4, ..before };
    for importance in [Importance::Reconstruction, Importance::Activation] {
        let choice = Choice::new(importance, golden.moments(columns), golden.floats("/w"), None);
        let (queries, key_values) = heads::choose(&choice, before, after).unwrap();
        let list = |what: &str| -> Vec<usize> {
            let found = golden.numbers(&format!("/heads/{}/{what}", importance.name()));
            found.into_iter().map(|v| v as usize).collect()
        };
        let values: Vec<usize> = list("key_heads").iter().flat_map(|head| head * 7..head * 7 + 7).collect();
        assert_eq!(key_values, values, "{importance:?}");
        assert_eq!(queries, list("queries"), "{importance:?}");
    }
}

#[test]
fn a_layer_has_the_influence_of_the_reference() {
    let golden = Golden::read();
    let width = golden.number("/influence/width");
    // In two windows.
    let streams = |what: &str| -> Vec<Vec<f32>> {
        golden.floats(&format!("/influence/{what}")).chunks(20 * width).map(<[f32]>::to_vec).collect()
    };
    let found = crate::calibrate::turned(&streams("before"), &streams("after"), width);
    let expected = golden.at("/influence/value").as_f64().unwrap();
    assert!((found - expected).abs() < 1e-6, "{found}, not {expected}");
}

/// A matrix and inputs that depend on each other, another for each seed.
fn random(seed: usize, rows: usize, columns: usize) -> (Vec<f32>, Statistics) {
    let noise = |i: usize| ((i + seed * 7919).wrapping_mul(2_654_435_761) >> 7) % 2003;
    let noise = |i: usize| noise(i) as f32 / 2003.0 - 0.5;
    let x: Vec<f32> = (0..300 * columns)
        .map(|i| {
            (2.0 * noise(i / columns * 31 + i % columns / 8) + noise(i + 5))
                * (1.0 + (i % columns % 7) as f32)
        })
        .collect();
    let mut statistics = Statistics::new(columns, true);
    statistics.add(&x, 2);
    ((0..rows * columns).map(|i| noise(i * 3 + 11)).collect(), statistics)
}

#[test]
fn sparsegpt_errs_least_and_wanda_less_than_magnitude() {
    let (rows, columns) = (16, 256);
    for pattern in [HALF, TWO_OF_FOUR, Pattern::Share(0.75), Pattern::Groups { kept: 16, of: 32 }] {
        let mut sums = [0.0; 3];
        for seed in 0..4 {
            let (weights, statistics) = random(seed, rows, columns);
            for (sum, method) in sums.iter_mut().zip(SparseMethod::ALL) {
                let mut values = weights.clone();
                sparsify("w", SparseOptions { pattern, method, threads: 2 }, &mut values, &statistics)
                    .unwrap();
                let zeros = values.iter().filter(|v| **v == 0.0).count();
                assert_eq!(zeros, pattern.zeros(values.len()), "{pattern:?} {}", method.name());
                if let Pattern::Groups { kept, of } = pattern {
                    let fits = |group: &[f32]| group.iter().filter(|v| **v != 0.0).count() == kept;
                    assert!(values.chunks(of).all(fits), "{pattern:?} {}", method.name());
                }
                for (row, before) in values.chunks(columns).zip(weights.chunks(columns)) {
                    let difference: Vec<f32> = row.iter().zip(before).map(|(a, b)| a - b).collect();
                    *sum += statistics.output_error(&difference);
                }
            }
        }
        let [magnitude, wanda, sparsegpt] = sums;
        println!("{pattern:?}: magnitude {magnitude}, wanda {wanda}, sparsegpt {sparsegpt}");
        assert!(sparsegpt <= wanda && wanda <= magnitude, "{pattern:?}: {sums:?}");
    }
}

#[test]
fn patterns_are_read_by_name() {
    assert_eq!(Pattern::from_name("0.5"), Some(HALF));
    assert_eq!(Pattern::from_name("2:4"), Some(TWO_OF_FOUR));
    assert_eq!(Pattern::from_name("16:32"), Some(Pattern::Groups { kept: 16, of: 32 }));
    let halves = |name: &str| Pattern::from_name(name).unwrap().halves_blocks();
    assert!(["2:4", "1:4", "4:8", "16:32", "1:2"].into_iter().all(halves));
    assert!(!["0.5", "3:4", "32:64", "3:6"].into_iter().any(halves));
    for wrong in ["", "1", "-0.1", "4:4", "0:4", "5:4", "2:", "x", "NaN", "2:128"] {
        assert_eq!(Pattern::from_name(wrong), None, "{wrong}");
    }
}

#[test]
fn principal_axes_and_a_narrower_norm_are_those_of_the_reference() {
    let golden = Golden::read();
    let (width, kept) = (golden.number("/slice/width"), golden.number("/slice/kept"));
    let normed = golden.numbers("/slice/normed");
    let mut moments = Square::zeros(width);
    for row in normed.chunks(width) {
        for i in 0..width {
            (0..width).for_each(|j| moments.set(i, j, moments.at(i, j) + row[i] * row[j]));
        }
    }
    let found = crate::linalg::eigen(&moments).unwrap();
    for (found, expected) in found.values.iter().zip(golden.numbers("/slice/values")) {
        assert!((found / expected - 1.0).abs() < 1e-5, "{found}, not {expected}");
    }
    let weight = golden.numbers("/slice/weight");
    let matrix: Vec<f32> = golden
        .numbers("/slice/matrix")
        .chunks(width)
        .flat_map(|row| row.iter().zip(&weight).map(|(v, w)| (v * w) as f32).collect::<Vec<_>>())
        .collect();
    let turned = super::slice::rotate(&matrix, &found.vectors, 2);
    for (j, expected) in golden.numbers("/slice/turned_squares").into_iter().enumerate() {
        // Signs of axes are free.
        let found: f32 = turned.chunks(width).map(|row| row[j] * row[j]).sum();
        assert!((f64::from(found) / expected - 1.0).abs() < 1e-3, "column {j}: {found}, not {expected}");
    }
    let input = golden.floats("/slice/inputs")[..width].to_vec();
    let stream = super::slice::rotate(&input, &found.vectors, 1);
    let output = |count: usize| -> Vec<f32> {
        let mean = stream[..count].iter().map(|v| v * v).sum::<f32>() / count as f32;
        let scale = (width as f32 / count as f32).sqrt() / mean.sqrt();
        turned.chunks(width).map(|row| (0..count).map(|j| row[j] * stream[j] * scale).sum()).collect()
    };
    for (name, count) in [("whole", width), ("cut", kept)] {
        for (found, expected) in output(count).iter().zip(golden.floats(&format!("/slice/{name}"))) {
            assert!(
                (found - expected).abs() < 2e-3 * expected.abs().max(1.0),
                "{name}: {found}, not {expected}"
            );
        }
    }
}
