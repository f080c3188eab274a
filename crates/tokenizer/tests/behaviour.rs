//! Behaviour on small vocabularies made here: special tokens, bytes, streaming, refusals.

mod common;

use common::{Draft, PARSED, PLAIN};
use ganglion_tokenizer::{Detokenizer, EncodeOptions, Model, TokenKind};

#[test]
fn bpe_merges_by_rank() {
    let tokenizer = Draft::bpe().tokenizer();
    assert_eq!(tokenizer.model(), Model::Bpe);
    assert_eq!(tokenizer.encode("hell", PLAIN), [258]);
    assert_eq!(tokenizer.encode(" he", PLAIN), [259]);
    assert_eq!(tokenizer.encode("x", PLAIN), [u32::from(b'x')]);
    assert_eq!(tokenizer.token_bytes(259), b" he");
    assert_eq!(tokenizer.token_bytes(9999), b"");
    assert_eq!(tokenizer.token_kind(9999), TokenKind::Unused);
    // " he" + "ll" has no rule: " hell" stays two tokens although "hell" is one.
    assert_eq!(tokenizer.encode(" hell", PLAIN), [u32::from(b' '), 258]);
}

#[test]
fn special_tokens() {
    let tokenizer = Draft::bpe().tokenizer();
    assert_eq!(tokenizer.encode("<|end|>::x::", PARSED), [260, 261]);
    let literal = tokenizer.encode("<|end|>::x::", PLAIN);
    assert_eq!(literal.last(), Some(&261), "user-defined tokens are always recognised");
    assert!(!literal.contains(&260), "control tokens only when asked for");
    assert_eq!(tokenizer.find_special("a<|end|>"), Some(260));
    assert_eq!(tokenizer.find_special("a<|end|"), None);
    assert_eq!(tokenizer.decode(&[104, 260, 105]), "hi");
    assert_eq!(tokenizer.eot(), Some(260));
    assert_eq!(tokenizer.token_kind(260), TokenKind::Control);
}

#[test]
fn spm_falls_back_to_bytes_and_never_to_control_tokens() {
    let tokenizer = Draft::spm().tokenizer();
    let id = |text: &str| Draft::spm().tokens.iter().position(|token| token == text).unwrap() as u32;
    assert_eq!(tokenizer.encode("hell", PLAIN), [id("▁hell")]);
    assert_eq!(tokenizer.encode("é", PLAIN), [id("▁"), id("<0xC3>"), id("<0xA9>")]);
    assert_eq!(tokenizer.encode("</s>", PLAIN).len(), 5);
    assert_eq!(tokenizer.encode("</s>he", PARSED), [2, id("▁he")]);
    assert_eq!(tokenizer.encode("", EncodeOptions { add_bos: true, ..PLAIN }), [1]);
    for text in ["hell", " hell", "▁", "é\n", "<0x41>", "  "] {
        assert_eq!(tokenizer.decode(&tokenizer.encode(text, PLAIN)), text);
    }
    let mut without_prefix = Draft::spm();
    without_prefix.extra.push(("tokenizer.ggml.add_space_prefix", false.into()));
    assert_eq!(without_prefix.tokenizer().encode("hell", PLAIN), [id("hell")]);
    assert_eq!(without_prefix.tokenizer().decode(&[id("▁hell")]), " hell");
}

#[test]
fn streaming_never_splits_a_character() {
    let tokenizer = Draft::bpe().tokenizer();
    let mut detokenizer = Detokenizer::new();
    let mut push = |byte: u8| detokenizer.push(&tokenizer, u32::from(byte)).to_owned();
    let llama = "🦙".as_bytes();
    assert_eq!(llama.map_pieces(&mut push), ["", "", "", "🦙"]);
    assert_eq!(b"a\xe6\xbcb".map_pieces(&mut push), ["a", "", "", "\u{fffd}b"]);
    assert_eq!(b"\xff\xc3".map_pieces(&mut push), ["\u{fffd}", ""]);
    assert_eq!(detokenizer.finish(), "\u{fffd}");
    assert_eq!(detokenizer.finish(), "");
    assert_eq!(tokenizer.decode_bytes(&[0xff, 0xc3]), b"\xff\xc3");

    let spm = Draft::spm().tokenizer();
    let ids = spm.encode("hell", PLAIN);
    assert_eq!(Detokenizer::new().push(&spm, ids[0]), "hell");
    assert_eq!(Detokenizer::continuing().push(&spm, ids[0]), " hell");
    assert_eq!(Detokenizer::new().push(&spm, 0), "\u{fffd}");
}

trait MapPieces {
    fn map_pieces(&self, push: &mut impl FnMut(u8) -> String) -> Vec<String>;
}

impl MapPieces for [u8] {
    fn map_pieces(&self, push: &mut impl FnMut(u8) -> String) -> Vec<String> {
        self.iter().map(|&byte| push(byte)).collect()
    }
}

#[test]
fn the_space_in_front_is_a_matter_of_spm() {
    let mut draft = Draft::bpe();
    draft.extra.push(("tokenizer.ggml.add_space_prefix", true.into()));
    let tokenizer = draft.tokenizer();
    assert!(!tokenizer.add_space_prefix());
    assert_eq!(tokenizer.decode(&tokenizer.encode(" he", PLAIN)), " he");
}

#[test]
fn bytes_without_tokens() {
    // The unknown token of some files is their end of text; it must not come from text.
    let mut draft = Draft::bpe();
    draft.types[0xf1] = 3;
    draft.extra.push(("tokenizer.ggml.unknown_token_id", 260u32.into()));
    let tokenizer = draft.tokenizer();
    assert_eq!(tokenizer.missing_byte("ab\u{40000}".as_bytes()), Some(0xf1));
    assert_eq!(tokenizer.missing_byte(b"ab\xf0"), None);
    assert_eq!(tokenizer.encode_bytes(b"a\xf1b", PLAIN), [97, 98]);
    draft.types[260] = 2;
    assert_eq!(draft.tokenizer().encode_bytes(b"a\xf1b", PLAIN), [97, 260, 98]);
    assert_eq!(draft.tokenizer().decode(&[97, 260, 98]), "a\u{fffd}b");

    let mut spm = Draft::spm();
    spm.types[3 + 0xc3] = 5; // not a byte token any more
    assert_eq!(spm.tokenizer().missing_byte("é".as_bytes()), Some(0xc3));
    assert_eq!(spm.tokenizer().decode(&spm.tokenizer().encode("éh", PLAIN)), "\u{fffd}h");
}

#[test]
fn malformed_vocabularies_are_refused() {
    let edit = |edit: fn(&mut Draft), draft: fn() -> Draft, expected: &str| {
        let mut draft = draft();
        edit(&mut draft);
        draft.refused(expected);
    };
    edit(|d| d.model = "bert", Draft::bpe, "tokenizer.ggml.model is `bert`, supported are");
    edit(|d| d.pre = "nonesuch", Draft::bpe, "tokenizer.ggml.pre is `nonesuch`, supported are default, ");
    edit(|d| d.types.truncate(5), Draft::bpe, "tokenizer.ggml.token_type has 5 elements");
    edit(|d| d.types[7] = 9, Draft::bpe, "token 7 (`ć`) has type 9, expected 1 to 6");
    edit(|d| d.types[65] = 3, Draft::bpe, "no token spells byte 0x41");
    edit(|d| d.merges.push("hex".into()), Draft::bpe, "merge 4 (`hex`) is not two texts and a space");
    edit(
        |d| d.merges.push("h h".into()),
        Draft::bpe,
        "merge 4 (`h h`) has a part or result that is no token",
    );
    edit(|d| d.scores.truncate(3), Draft::spm, "tokenizer.ggml.scores has 3 elements");
    edit(|d| d.scores[260] = f32::NAN, Draft::spm, "token 260 (`h`) has a score that is not a number");
    edit(
        |d| d.types[260] = 6,
        Draft::spm,
        "token 260 (`h`) has the type `byte`, but is not of the form <0xNN>",
    );
    edit(
        |d| d.extra.push(("tokenizer.ggml.bos_token_id", 100_000u32.into())),
        Draft::spm,
        "tokenizer.ggml.bos_token_id is 100000, expected a token id below 268",
    );
}
