//! Channels of the feed-forward part: rows of its first matrices and columns of its last.

use super::choice::Choice;

/// The channels that stay, in ascending order. `None` if the moments cannot be factored.
pub(super) fn choose(choice: &Choice, before: usize, after: usize) -> Option<Vec<usize>> {
    let groups: Vec<_> = (0..before).map(|channel| channel..channel + 1).collect();
    choice.staying(&groups, before - after, &|_, _| true)
}
