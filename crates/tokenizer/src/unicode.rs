//! The character classes that pre-tokenizers split on.

use std::sync::LazyLock;

use regex_syntax::hir::{Class, HirKind};

/// Unicode general category L (letter): `\p{L}`.
pub(crate) fn is_letter(c: char) -> bool {
    if c.is_ascii() { c.is_ascii_alphabetic() } else { contains(&LETTERS, c) }
}

/// Unicode general category P (punctuation): `\p{P}`.
pub(crate) fn is_punctuation(c: char) -> bool {
    contains(&PUNCTUATION, c)
}

/// Unicode general category N (number): `\p{N}`.
pub(crate) fn is_number(c: char) -> bool {
    c.is_numeric()
}

/// Sorted, disjoint, inclusive ranges.
type Ranges = Vec<(char, char)>;

static LETTERS: LazyLock<Ranges> = LazyLock::new(|| general_category(r"\p{L}"));
static PUNCTUATION: LazyLock<Ranges> = LazyLock::new(|| general_category(r"\p{P}"));

/// Whether one of sorted, disjoint, inclusive ranges holds `c`.
pub(crate) fn contains(ranges: &[(char, char)], c: char) -> bool {
    let after = ranges.partition_point(|&(start, _)| start <= c);
    after > 0 && c <= ranges[after - 1].1
}

fn general_category(class: &str) -> Ranges {
    // The two patterns are constants of this file, so parsing them cannot fail.
    let hir = regex_syntax::parse(class).expect("a valid class");
    match hir.kind() {
        HirKind::Class(Class::Unicode(class)) => {
            class.ranges().iter().map(|range| (range.start(), range.end())).collect()
        }
        other => unreachable!("{class} parsed as {other:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes() {
        for c in "azAZéßñДжあ漢ªʰ".chars() {
            assert!(is_letter(c), "{c}");
        }
        // Combining marks and letter-like symbols are alphabetic, but not letters.
        for c in "09 _-\u{300}\u{94d}Ⓐ🦙½".chars() {
            assert!(!is_letter(c), "{c}");
        }
        for c in "09½Ⅷ٣".chars() {
            assert!(is_number(c), "{c}");
        }
        for c in "!_-«。".chars() {
            assert!(is_punctuation(c), "{c}");
        }
        for c in "$+<=>^`|~a1 ".chars() {
            assert!(!is_punctuation(c), "{c}");
        }
    }
}
