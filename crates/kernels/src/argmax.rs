//! The greedy choice.

/// Index of the largest value; the first of equals. `None` for an empty slice or if any value is NaN: a NaN is a
/// fault of the model and must not pick a token.
pub fn argmax(values: &[f32]) -> Option<usize> {
    let mut best: Option<(usize, f32)> = None;
    for (index, value) in values.iter().enumerate() {
        if value.is_nan() {
            return None;
        }
        if best.is_none_or(|(_, top)| *value > top) {
            best = Some((index, *value));
        }
    }
    best.map(|(index, _)| index)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_of_equals_and_never_a_nan() {
        assert_eq!(argmax(&[1.0, 3.0, 3.0, -1.0]), Some(1));
        assert_eq!(argmax(&[f32::NEG_INFINITY]), Some(0));
        assert_eq!(argmax(&[1.0, f32::NAN, 9.0]), None);
        assert_eq!(argmax(&[]), None);
    }
}
