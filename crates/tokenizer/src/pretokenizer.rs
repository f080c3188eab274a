//! Pre-tokenizers: where byte-level BPE may not merge across.
//!
//! A vocabulary names one of a few sets of regular expressions. They are applied one after the other, each within
//! the pieces the one before left; what an expression does not match is a piece too. The expressions are few and
//! simple, so each is a hand-written matcher, stated beside its expression: a general engine with look-ahead would
//! take most of the time of encoding a sentence. Set names and expressions are those of llama.cpp.

use crate::error::{Result, TokenizerError};
use crate::unicode::{contains, is_letter, is_number, is_punctuation};

/// One expression.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`
    Gpt2,
    /// `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|`
    /// `\s+(?!\S)|\s+`, with at most `digit_count_max` numbers together. Only ASCII letters ignore case.
    Words { digit_count_max: usize },
    /// `[class]`
    One(fn(char) -> bool),
    /// `[class]+`
    Run(fn(char) -> bool),
    /// `\s?[class]+`
    SpacedRun(fn(char) -> bool),
    /// `[0-9][0-9][0-9]`
    ThreeDigits,
    /// `\s+$`
    TrailingSpace,
}

/// The expressions of one pre-tokenizer, and the habits that go with it.
#[derive(Clone, Debug)]
pub(crate) struct PreTokenizer {
    steps: &'static [Step],
    /// A piece that is a token is taken whole, whatever the merges would make of it.
    pub(crate) ignore_merges: bool,
    /// Whether a vocabulary that does not say so wants a BOS token.
    pub(crate) add_bos_default: bool,
}

const DEFAULT: &[Step] =
    &[Step::Run(is_default_punctuation), Step::Gpt2, Step::Run(is_number), Step::ThreeDigits];
const GPT_2: &[Step] = &[Step::Gpt2];
const LLAMA_3: &[Step] = &[Step::Words { digit_count_max: 3 }];
const QWEN_2: &[Step] = &[Step::Words { digit_count_max: 1 }];
const STARCODER: &[Step] = &[Step::One(is_number), Step::Gpt2];
const FALCON: &[Step] = &[Step::Run(is_falcon_punctuation), Step::Gpt2, Step::ThreeDigits];
const DEEPSEEK_LLM: &[Step] = &[
    Step::One(is_line_break),
    Step::SpacedRun(is_deepseek_letter),
    Step::SpacedRun(is_deepseek_punctuation),
    Step::TrailingSpace,
    Step::Run(is_deepseek_east_asian),
    Step::Run(is_number),
];
const DEEPSEEK_CODER: &[Step] = &[
    Step::One(is_line_break),
    Step::SpacedRun(is_letter),
    Step::SpacedRun(is_punctuation),
    Step::Run(is_deepseek_east_asian),
    Step::One(is_number),
];

/// Names in `tokenizer.ggml.pre`, with the expressions of each.
const SETS: &[(&str, &[Step])] = &[
    ("default", DEFAULT),
    ("gpt-2", GPT_2),
    ("phi-2", GPT_2),
    ("mpt", GPT_2),
    ("olmo", GPT_2),
    ("jais", GPT_2),
    ("llama-bpe", LLAMA_3),
    ("llama3", LLAMA_3),
    ("llama-v3", LLAMA_3),
    ("dbrx", LLAMA_3),
    ("smaug-bpe", LLAMA_3),
    ("qwen2", QWEN_2),
    ("deepseek-r1-qwen", QWEN_2),
    ("stablelm2", QWEN_2),
    ("starcoder", STARCODER),
    ("refact", STARCODER),
    ("command-r", STARCODER),
    ("smollm", STARCODER),
    ("codeshell", STARCODER),
    ("exaone", STARCODER),
    ("minerva-7b", STARCODER),
    ("falcon", FALCON),
    ("deepseek-llm", DEEPSEEK_LLM),
    ("deepseek-coder", DEEPSEEK_CODER),
];

impl PreTokenizer {
    /// The pre-tokenizer with a name of `tokenizer.ggml.pre`.
    pub(crate) fn named(name: &str) -> Result<PreTokenizer> {
        let set = SETS.iter().find(|(known, _)| *known == name);
        let (_, steps) = set.ok_or_else(|| TokenizerError::UnsupportedPreTokenizer {
            found: name.to_owned(),
            supported: SETS.iter().map(|(known, _)| *known).collect::<Vec<_>>().join(", "),
        })?;
        let llama_3 = matches!(name, "llama-bpe" | "llama3" | "llama-v3");
        Ok(PreTokenizer { steps, ignore_merges: llama_3, add_bos_default: llama_3 })
    }

    /// Calls `each` with the pieces of `text`, in order; joined they are `text` again.
    pub(crate) fn split(&self, text: &str, each: &mut dyn FnMut(&str)) {
        split(self.steps, text, each);
    }
}

fn split(steps: &[Step], text: &str, each: &mut dyn FnMut(&str)) {
    if text.is_empty() {
        return;
    }
    let Some((step, steps)) = steps.split_first() else { return each(text) };
    if let Step::TrailingSpace = step {
        let (head, space) = text.split_at(text.trim_end().len());
        split(steps, head, each);
        return split(steps, space, each);
    }
    let mut unmatched = 0;
    let mut position = 0;
    while let Some(first) = text[position..].chars().next() {
        let length = step.match_length(first, &text[position..]);
        if length == 0 {
            position += first.len_utf8();
            continue;
        }
        split(steps, &text[unmatched..position], each);
        split(steps, &text[position..position + length], each);
        position += length;
        unmatched = position;
    }
    split(steps, &text[unmatched..], each);
}

/// Bytes of the longest prefix made of `class`.
fn run(text: &str, class: impl Fn(char) -> bool) -> usize {
    text.char_indices().find(|&(_, c)| !class(c)).map_or(text.len(), |(end, _)| end)
}

impl Step {
    /// Bytes matched at the start of `text`, which starts with `first`; 0 for no match.
    fn match_length(self, first: char, text: &str) -> usize {
        match self {
            Step::Gpt2 => match_gpt2(first, text),
            Step::Words { digit_count_max } => match_words(first, text, digit_count_max),
            Step::One(class) if class(first) => first.len_utf8(),
            Step::One(_) => 0,
            Step::Run(class) => run(text, class),
            Step::SpacedRun(class) => {
                let space = if first.is_whitespace() { first.len_utf8() } else { 0 };
                match run(&text[space..], class) {
                    // The space itself may be of the class: U+3000 is.
                    0 => run(text, class),
                    length => space + length,
                }
            }
            Step::ThreeDigits => match text.as_bytes() {
                [a, b, c, ..] if [a, b, c].iter().all(|byte| byte.is_ascii_digit()) => 3,
                _ => 0,
            },
            Step::TrailingSpace => 0, // applied by `split`, which sees the end
        }
    }
}

fn match_gpt2(first: char, text: &str) -> usize {
    if first == '\'' {
        let length = match text.as_bytes() {
            [_, b's' | b't' | b'm' | b'd', ..] => 2,
            [_, b'r' | b'v', b'e', ..] | [_, b'l', b'l', ..] => 3,
            _ => 0,
        };
        if length > 0 {
            return length;
        }
    }
    let space = usize::from(first == ' ');
    let Some(second) = text[space..].chars().next() else { return text.len() };
    let body = &text[space..];
    if is_letter(second) {
        space + run(body, is_letter)
    } else if is_number(second) {
        space + run(body, is_number)
    } else if !second.is_whitespace() {
        space + run(body, is_other)
    } else {
        match_space(text)
    }
}

fn match_words(first: char, text: &str, digit_count_max: usize) -> usize {
    if first == '\'' {
        let lower = |index: usize| text.as_bytes().get(index).map_or(0, u8::to_ascii_lowercase);
        let length = match (lower(1), lower(2)) {
            (b's' | b't' | b'm' | b'd', _) => 2,
            (b'r' | b'v', b'e') | (b'l', b'l') => 3,
            _ => 0,
        };
        if length > 0 {
            return length;
        }
    }
    let word_start =
        if is_letter(first) || is_number(first) || is_line_break(first) { 0 } else { first.len_utf8() };
    let letters = run(&text[word_start..], is_letter);
    if letters > 0 {
        return word_start + letters;
    }
    if is_number(first) {
        let mut digits = text.char_indices().skip(1).take(digit_count_max - 1);
        let end = digits.find(|&(_, c)| !is_number(c)).map(|(end, _)| end);
        return end.unwrap_or_else(|| text.chars().take(digit_count_max).map(char::len_utf8).sum());
    }
    let space = usize::from(first == ' ');
    let others = run(&text[space..], is_other);
    if others > 0 {
        let end = space + others;
        return end + run(&text[end..], is_line_break);
    }
    let whitespace = &text[..run(text, char::is_whitespace)];
    match whitespace.rfind(is_line_break) {
        Some(last) => last + 1,
        None => match_space(text),
    }
}

/// `\s+(?!\S)|\s+`: whitespace up to the end of the text, or else without its last character, or else that one.
fn match_space(text: &str) -> usize {
    let length = run(text, char::is_whitespace);
    if length == text.len() {
        return length;
    }
    match text[..length].char_indices().next_back() {
        Some((last, _)) if last > 0 => last,
        _ => length,
    }
}

/// `[^\s\p{L}\p{N}]`
fn is_other(c: char) -> bool {
    !(c.is_whitespace() || is_letter(c) || is_number(c))
}

/// `[\r\n]`
fn is_line_break(c: char) -> bool {
    matches!(c, '\r' | '\n')
}

/// ``[\p{P}$+<=>^~|]``
fn is_default_punctuation(c: char) -> bool {
    matches!(c, '$' | '+' | '<' | '=' | '>' | '^' | '~' | '|') || is_punctuation(c)
}

/// ``[\p{P}$+<=>^~|`]``
fn is_falcon_punctuation(c: char) -> bool {
    c == '`' || is_default_punctuation(c)
}

/// Full-width and general punctuation as DeepSeek's tokenizers list it.
fn is_deepseek_punctuation(c: char) -> bool {
    matches!(
        c,
        '!'..='/' | ':'..='~' | '\u{ff01}'..='\u{ff0f}' | '\u{ff1a}'..='\u{ff5e}' | '\u{2018}'..='\u{201f}'
            | '\u{3000}'..='\u{3002}'
    )
}

/// The ranges DeepSeek's tokenizers list for Chinese, Japanese and Korean (and, in effect, much of Asia).
fn is_deepseek_east_asian(c: char) -> bool {
    matches!(c, '\u{800}'..='\u{9fa5}' | '\u{ac00}'..='\u{d7ff}')
}

/// Cased letters of Latin, Greek, Cyrillic and a few more scripts, as DeepSeek's tokenizers list them.
fn is_deepseek_letter(c: char) -> bool {
    if c.is_ascii() { c.is_ascii_alphabetic() } else { contains(DEEPSEEK_LETTERS, c) }
}

#[rustfmt::skip]
const DEEPSEEK_LETTERS: &[(char, char)] = &[
    ('\u{41}', '\u{5a}'), ('\u{61}', '\u{7a}'), ('\u{b5}', '\u{b5}'), ('\u{c0}', '\u{d6}'),
    ('\u{d8}', '\u{f6}'), ('\u{f8}', '\u{1ba}'), ('\u{1bc}', '\u{1bf}'), ('\u{1c4}', '\u{293}'),
    ('\u{295}', '\u{2af}'), ('\u{370}', '\u{373}'), ('\u{376}', '\u{376}'), ('\u{377}', '\u{377}'),
    ('\u{37b}', '\u{37d}'), ('\u{37f}', '\u{37f}'), ('\u{386}', '\u{386}'), ('\u{388}', '\u{38a}'),
    ('\u{38c}', '\u{38c}'), ('\u{38e}', '\u{3a1}'), ('\u{3a3}', '\u{3f5}'), ('\u{3f7}', '\u{481}'),
    ('\u{48a}', '\u{52f}'), ('\u{531}', '\u{556}'), ('\u{10a0}', '\u{10c5}'), ('\u{13a0}', '\u{13f5}'),
    ('\u{13f8}', '\u{13fd}'), ('\u{1c90}', '\u{1cba}'), ('\u{1cbd}', '\u{1cbf}'), ('\u{1d00}', '\u{1d2b}'),
    ('\u{1d6b}', '\u{1d77}'), ('\u{1d79}', '\u{1d9a}'), ('\u{1e00}', '\u{1f15}'), ('\u{1f18}', '\u{1f1d}'),
    ('\u{1f20}', '\u{1f45}'), ('\u{1f48}', '\u{1f4d}'), ('\u{1f50}', '\u{1f57}'), ('\u{1f59}', '\u{1f59}'),
    ('\u{1f5b}', '\u{1f5b}'), ('\u{1f5d}', '\u{1f5d}'), ('\u{1f5f}', '\u{1f7d}'), ('\u{1f80}', '\u{1fb4}'),
    ('\u{1fb6}', '\u{1fbc}'), ('\u{1fbe}', '\u{1fbe}'), ('\u{1fc2}', '\u{1fc4}'), ('\u{1fc6}', '\u{1fcc}'),
    ('\u{1fd0}', '\u{1fd3}'), ('\u{1fd6}', '\u{1fdb}'), ('\u{1fe0}', '\u{1fec}'), ('\u{1ff2}', '\u{1ff4}'),
    ('\u{1ff6}', '\u{1ffc}'), ('\u{2102}', '\u{2102}'), ('\u{2107}', '\u{2107}'), ('\u{210a}', '\u{2113}'),
    ('\u{2115}', '\u{2115}'), ('\u{2119}', '\u{211d}'), ('\u{2124}', '\u{2124}'), ('\u{2126}', '\u{2126}'),
    ('\u{2128}', '\u{2128}'), ('\u{212a}', '\u{212d}'), ('\u{212f}', '\u{2134}'), ('\u{2139}', '\u{2139}'),
    ('\u{213c}', '\u{213f}'), ('\u{2145}', '\u{2149}'), ('\u{214e}', '\u{214e}'), ('\u{2183}', '\u{2183}'),
    ('\u{2184}', '\u{2184}'), ('\u{2c00}', '\u{2c7b}'), ('\u{2c7e}', '\u{2ce4}'), ('\u{2ceb}', '\u{2cee}'),
    ('\u{2cf2}', '\u{2cf2}'), ('\u{2cf3}', '\u{2cf3}'), ('\u{a640}', '\u{a66d}'), ('\u{a680}', '\u{a69b}'),
    ('\u{a722}', '\u{a76f}'), ('\u{a771}', '\u{a787}'), ('\u{a78b}', '\u{a78e}'), ('\u{ab70}', '\u{abbf}'),
    ('\u{fb00}', '\u{fb06}'), ('\u{fb13}', '\u{fb17}'), ('\u{ff21}', '\u{ff3a}'), ('\u{ff41}', '\u{ff5a}'),
    ('\u{10400}', '\u{1044f}'), ('\u{104b0}', '\u{104d3}'), ('\u{104d8}', '\u{104fb}'),
    ('\u{10c80}', '\u{10cb2}'), ('\u{10cc0}', '\u{10cf2}'), ('\u{118a0}', '\u{118df}'),
    ('\u{1e900}', '\u{1e943}'),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(name: &str, text: &str, expected: &[&str]) {
        let mut pieces = Vec::new();
        PreTokenizer::named(name).unwrap().split(text, &mut |piece| pieces.push(piece.to_owned()));
        assert_eq!(pieces, expected, "{name}");
    }

    #[test]
    fn gpt_2() {
        check(
            "gpt-2",
            "I'll  say 'Tis\n\n x3.14",
            &["I", "'ll", " ", " say", " '", "Tis", "\n\n", " x", "3", ".", "14"],
        );
        check("gpt-2", "a\tb \t", &["a", "\t", "b", " \t"]);
        check("gpt-2", "'", &["'"]);
        check("gpt-2", " ", &[" "]);
    }

    #[test]
    fn words() {
        check(
            "llama-bpe",
            "WE'LL pay 12345$!\n\n  now",
            &["WE", "'LL", " pay", " ", "123", "45", "$!\n\n", " ", " now"],
        );
        check("qwen2", "x\t\n\n y 12", &["x", "\t\n\n", " y", " ", "1", "2"]);
        check("qwen2", "(abc) 'x '", &["(abc", ")", " '", "x", " '"]);
        check("llama-bpe", "½٣4५6", &["½٣4", "५6"]);
        check("llama-bpe", "'", &["'"]);
        check("llama-bpe", "\u{3000}\u{3000}漢", &["\u{3000}", "\u{3000}漢"]);
    }

    #[test]
    fn sequences() {
        check("starcoder", "a 123", &["a", " ", "1", "2", "3"]);
        check("default", "a $12345, b", &["a", " ", "$", "123", "45", ",", " b"]);
        check("falcon", "`1234` ", &["`", "123", "4", "`", " "]);
        check(
            "deepseek-llm",
            "Hi there,\n\n  漢字 33  ",
            &["Hi", " there", ",", "\n", "\n", "  ", "漢字", " ", "33", "  "],
        );
        check("deepseek-llm", "\u{3000}。x", &["\u{3000}。", "x"]);
        check("deepseek-coder", "let x=12;", &["let", " x", "=", "1", "2", ";"]);
    }

    /// The same as [`split`], by expressions.
    fn split_by_expressions(expressions: &[fancy_regex::Regex], text: &str, pieces: &mut Vec<String>) {
        if text.is_empty() {
            return;
        }
        let Some((expression, rest)) = expressions.split_first() else { return pieces.push(text.to_owned()) };
        let mut unmatched = 0;
        for found in expression.find_iter(text) {
            let found = found.unwrap();
            split_by_expressions(rest, &text[unmatched..found.start()], pieces);
            split_by_expressions(rest, found.as_str(), pieces);
            unmatched = found.end();
        }
        split_by_expressions(rest, &text[unmatched..], pieces);
    }

    #[test]
    fn matchers_agree_with_the_expressions() {
        const GPT_2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
        let words = |digits: &str| {
            let contractions = "'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD]";
            let letters = r"[^\r\n\p{L}\p{N}]?\p{L}+";
            let rest = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
            format!("{contractions}|{letters}|{digits}|{rest}")
        };
        let (llama_3, qwen_2) = (words(r"\p{N}{1,3}"), words(r"\p{N}"));
        let letters: String = DEEPSEEK_LETTERS.iter().map(|(from, to)| format!("{from}-{to}")).collect();
        let deepseek_letters = format!(r"\s?[A-Za-z{letters}]+");
        let east_asian = "[一-龥ࠀ-一가-\u{d7ff}]+";
        let sets: [(&str, &[&str]); 8] = [
            ("gpt-2", &[GPT_2]),
            ("llama-bpe", &[&llama_3]),
            ("qwen2", &[&qwen_2]),
            ("starcoder", &[r"\p{N}", GPT_2]),
            ("default", &[r"[\p{P}\$\+<=>\^~\|]+", GPT_2, r"\p{N}+", "[0-9][0-9][0-9]"]),
            ("falcon", &[r"[\p{P}\$\+<=>\^~\|`]+", GPT_2, "[0-9][0-9][0-9]"]),
            ("deepseek-coder", &[r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", east_asian, r"\p{N}"]),
            (
                "deepseek-llm",
                &[
                    r"[\r\n]",
                    &deepseek_letters,
                    r"\s?[!-/:-~！-／：-～‘-‟\u{3000}-。]+",
                    r"\s+$",
                    east_asian,
                    r"\p{N}+",
                ],
            ),
        ];
        let parts: Vec<char> =
            " \t\n\r\u{3000}\u{a0}'sSlLrReEvVmdtTxÄßжλ漢한\u{300}\u{94d}09½٣$+<`|~!_。「“🦙\u{200d}\0"
                .chars()
                .collect();
        for (name, expressions) in sets {
            let expressions: Vec<_> =
                expressions.iter().map(|e| fancy_regex::Regex::new(e).unwrap()).collect();
            let pre = PreTokenizer::named(name).unwrap();
            let mut state = 0x2545_F491_4F6C_DD1Du64;
            let mut random = move || {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                state
            };
            for _ in 0..3000 {
                let length = random() % 16;
                let text: String =
                    (0..length).map(|_| parts[(random() % parts.len() as u64) as usize]).collect();
                let (mut pieces, mut expected) = (Vec::new(), Vec::new());
                pre.split(&text, &mut |piece| pieces.push(piece.to_owned()));
                split_by_expressions(&expressions, &text, &mut expected);
                assert_eq!(pieces, expected, "{name}: {text:?}");
            }
        }
    }

    #[test]
    fn unknown_names_are_refused() {
        let error = PreTokenizer::named("nonesuch").unwrap_err().to_string();
        assert!(
            error.starts_with("tokenizer.ggml.pre is `nonesuch`, supported are default, gpt-2,"),
            "{error}"
        );
    }
}
