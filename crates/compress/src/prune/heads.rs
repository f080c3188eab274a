//! Heads of attention: a key/value head with all query heads that share it, or as many query heads of each of them.

use super::choice::Choice;
use super::plan::Sizes;

/// The values of queries, and of keys and values, that stay. `None` if the moments cannot be factored.
pub(super) fn choose(choice: &Choice, before: Sizes, after: Sizes) -> Option<(Vec<usize>, Vec<usize>)> {
    let (dim, group) = (before.head_dim, before.group());
    let width = group * dim;
    let groups: Vec<_> = (0..before.kv_heads).map(|head| head * width..(head + 1) * width).collect();
    let key_heads = choice.staying(&groups, before.kv_heads - after.kv_heads, &|_, _| true)?;
    let heads: Vec<usize> = key_heads.iter().flat_map(|head| head * group..(head + 1) * group).collect();
    let queries: Vec<usize> = heads.iter().flat_map(|head| head * dim..(head + 1) * dim).collect();
    let key_values = key_heads.iter().flat_map(|head| head * dim..(head + 1) * dim).collect();
    let fewer = group - after.group();
    if fewer == 0 {
        return Some((queries, key_values));
    }
    let groups: Vec<_> = (0..heads.len()).map(|head| head * dim..(head + 1) * dim).collect();
    // As many of each key/value head.
    let may_go = |gone: &[bool], head: usize| {
        let first = head / group * group;
        gone[first..first + group].iter().filter(|gone| **gone).count() < fewer
    };
    let stays = choice.of(&queries).staying(&groups, fewer * after.kv_heads, &may_go)?;
    let queries = stays.iter().flat_map(|head| queries[head * dim..(head + 1) * dim].to_vec()).collect();
    Some((queries, key_values))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linalg::Square;
    use crate::prune::Importance;

    #[test]
    fn groups_go_first_and_then_as_many_queries_of_each() {
        // Three key/value heads of two values, each shared by three query heads.
        let before = Sizes { hidden: 8, head_dim: 2, heads: 9, kv_heads: 3, channels: 8 };
        let after = Sizes { heads: 4, kv_heads: 2, ..before };
        let mut moments = Square::zeros(18);
        // Head 4 is in the middle of the second group; all of the first are small.
        (0..18).for_each(|i| {
            moments.set(
                i,
                i,
                if i < 6 {
                    0.1
                } else if i / 2 == 4 {
                    0.5
                } else {
                    1.0 + i as f64
                },
            )
        });
        let weights = vec![1.0; 4 * 18];
        for importance in [Importance::Activation, Importance::Reconstruction] {
            let choice = Choice::new(importance, moments.clone(), weights.clone(), None);
            let (queries, key_values) = choose(&choice, before, after).unwrap();
            assert_eq!(key_values, [2, 3, 4, 5], "{importance:?}");
            assert_eq!(queries, [6, 7, 10, 11, 14, 15, 16, 17], "{importance:?}");
        }
    }
}
