//! Random bytes and prompts: an answer each, exact where exactness is promised, no panic.

mod common;

use common::{Draft, PARSED, PLAIN, Xorshift, vocabulary};
use ganglion_gguf::Gguf;
use ganglion_tokenizer::{Detokenizer, EncodeOptions, EncodeScratch, Model, Tokenizer};

/// The vocabularies made here, and the real ones where they are at hand.
fn tokenizers() -> Vec<(&'static str, Tokenizer)> {
    let mut all = vec![("small bpe", Draft::bpe().tokenizer()), ("small spm", Draft::spm().tokenizer())];
    for pre in ["default", "llama-bpe", "qwen2", "starcoder", "falcon", "deepseek-llm", "deepseek-coder"] {
        all.push((pre, Draft { pre, ..Draft::bpe() }.tokenizer()));
    }
    for name in ["llama-spm", "llama-bpe", "gpt-2", "qwen2", "phi-3", "deepseek-llm", "starcoder"] {
        all.extend(vocabulary(name).map(|tokenizer| (name, tokenizer)));
    }
    all
}

#[test]
fn text_survives() {
    let mut random = Xorshift(0x1234_5678_9ABC_DEF1);
    let (mut scratch, mut ids) = (EncodeScratch::default(), Vec::new());
    let tokenizers = tokenizers();
    let mut exact = 0;
    for round in 0..10_000 {
        let (name, tokenizer) = &tokenizers[round % tokenizers.len()];
        let text = random.text(12);
        ids.clear();
        tokenizer.encode_into(text.as_bytes(), PLAIN, &mut scratch, &mut ids);
        assert_eq!(ids, tokenizer.encode(&text, PLAIN), "{name}: scratch memory must not matter");
        // SPM puts a space behind special tokens, and Phi-3's swallow what follows.
        let is_exact = tokenizer.model() == Model::Bpe || tokenizer.find_special(&text).is_none();
        if is_exact && tokenizer.missing_byte(text.as_bytes()).is_none() {
            exact += 1;
            assert_eq!(tokenizer.decode(&ids), text, "{name}: {text:?}");
        }
        tokenizer.encode(&text, EncodeOptions { add_bos: true, ..PARSED });
    }
    assert!(exact > 7000, "{exact}");
}

#[test]
fn bytes_survive() {
    let mut random = Xorshift(0x0F1E_2D3C_4B5A_6978);
    let tokenizers = tokenizers();
    let mut exact = 0;
    for round in 0..10_000 {
        let (name, tokenizer) = &tokenizers[round % tokenizers.len()];
        let length = random.below(40);
        let bytes = random.bytes(length);
        let ids = tokenizer.encode_bytes(&bytes, PLAIN);
        // Some real vocabularies lack bytes that UTF-8 never uses.
        if tokenizer.missing_byte(&bytes).is_none() {
            exact += 1;
            assert_eq!(tokenizer.decode_bytes(&ids), bytes, "{name}");
        }
        tokenizer.decode(&ids);
    }
    assert!(exact > 6000, "{exact}");
}

#[test]
fn random_ids_stream_like_they_decode() {
    let mut random = Xorshift(0x5555_AAAA_1234_4321);
    for (name, tokenizer) in tokenizers() {
        for _ in 0..500 {
            let ids: Vec<u32> =
                (0..random.below(20)).map(|_| random.below(tokenizer.vocab_size() + 10) as u32).collect();
            let mut detokenizer = Detokenizer::new();
            let mut streamed = String::new();
            for &id in &ids {
                streamed.push_str(detokenizer.push(&tokenizer, id));
            }
            streamed.push_str(detokenizer.finish());
            assert_eq!(streamed, String::from_utf8_lossy(&tokenizer.decode_bytes(&ids)), "{name}");
        }
    }
}

#[test]
fn long_monotonous_text_takes_no_quadratic_time() {
    // A quadratic algorithm would take hours for these.
    let units = ["a", " ", "\n", "1", "[", "<", "'", "漢", "\u{3000}", " \t"];
    for (name, tokenizer) in tokenizers() {
        for unit in units {
            let text = unit.repeat(300_000 / unit.len());
            let ids = tokenizer.encode(&text, PARSED);
            assert!(tokenizer.decode(&ids) == text, "{name}: {unit:?}");
        }
    }
}

#[test]
fn mutated_vocabularies_load_or_are_refused() {
    let mut random = Xorshift(0xC0FF_EE00_1234_5678);
    let mut loaded = 0;
    for round in 0..10_000 {
        let draft = if round % 2 == 0 { Draft::bpe() } else { Draft::spm() };
        let mut bytes = draft.gguf().bytes().to_vec();
        for _ in 0..=random.below(3) {
            let at = random.below(bytes.len());
            // Small changes pass the UTF-8 check more often than random bytes do.
            bytes[at] ^= 1 << random.below(7);
        }
        let Ok(gguf) = Gguf::parse(bytes) else { continue };
        let Ok(tokenizer) = Tokenizer::from_gguf(&gguf) else { continue };
        loaded += 1;
        let text = random.text(6);
        let ids = tokenizer.encode(&text, PARSED);
        assert!(ids.iter().all(|&id| (id as usize) < tokenizer.vocab_size()));
        tokenizer.decode(&ids);
    }
    assert!(loaded > 300, "{loaded}");
}
