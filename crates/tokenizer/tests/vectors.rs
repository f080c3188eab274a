//! Token ids are identical to llama.cpp's test vectors.

mod common;

use common::{PARSED, PLAIN, shared, vocabulary};
use ganglion_gguf::Gguf;
use ganglion_tokenizer::{EncodeOptions, Tokenizer};

/// Vocabularies whose vectors must match.
const NAMES: &[&str] = &["llama-spm", "llama-bpe", "gpt-2", "qwen2", "phi-3", "deepseek-llm", "starcoder"];

#[test]
fn identical_to_the_vectors() {
    let Some(shared) = shared() else { return };
    for name in NAMES {
        let tokenizer = vocabulary(name).unwrap();
        let read = |ending: &str| {
            let path = shared.join(format!("data/vocab/ggml-vocab-{name}.gguf{ending}"));
            std::fs::read_to_string(path).unwrap()
        };
        let (inputs, outputs) = (read(".inp"), read(".out"));
        let inputs: Vec<&str> = inputs.split("\n__ggml_vocab_test__\n").collect();
        let outputs: Vec<&str> = outputs.lines().collect();
        assert_eq!(inputs.len(), outputs.len() + 1, "{name}"); // a separator ends the last text
        for (input, output) in inputs.iter().zip(outputs) {
            let expected: Vec<u32> = output.split_whitespace().map(|id| id.parse().unwrap()).collect();
            let ids = tokenizer.encode(input, PLAIN);
            assert_eq!(ids, expected, "{name}: {input:?}");
            assert_eq!(tokenizer.decode(&ids), *input, "{name}");
        }
    }
}

#[test]
fn properties_of_real_vocabularies() {
    if shared().is_none() {
        return;
    }
    let spm = vocabulary("llama-spm").unwrap();
    assert_eq!((spm.vocab_size(), spm.bos(), spm.eos(), spm.unknown()), (32_000, Some(1), Some(2), Some(0)));
    assert!(spm.add_bos_token() && spm.add_space_prefix());
    let with_bos = EncodeOptions { add_bos: true, ..PLAIN };
    assert_eq!(spm.encode("", with_bos), [1]);

    let bpe = vocabulary("llama-bpe").unwrap();
    assert_eq!((bpe.bos(), bpe.eos(), bpe.eot()), (Some(128_000), Some(128_001), Some(128_009)));
    assert!(bpe.add_bos_token() && !bpe.add_space_prefix());
    assert!(bpe.end_of_generation().contains(&128_001) && bpe.end_of_generation().contains(&128_009));

    let qwen = vocabulary("qwen2").unwrap();
    assert!(!qwen.add_bos_token());
    assert_eq!(qwen.eot(), Some(151_645));
    assert_eq!(qwen.token_bytes(qwen.encode(" world", PLAIN)[0]), b" world");
    let text = "<|im_start|>user\nhi<|im_end|>";
    assert_eq!(qwen.encode(text, PARSED).first(), Some(&151_644));
    assert_eq!(qwen.encode(text, PARSED).last(), Some(&151_645));
    assert!(qwen.encode(text, PLAIN).iter().all(|&id| id < 151_643), "text must not become control tokens");
    assert!(qwen.chat_template().unwrap().contains("im_start"));

    let phi = vocabulary("phi-3").unwrap();
    // Phi-3's turn markers swallow the line break behind them; `hi` follows a special token, so it gets its space.
    assert_eq!(phi.encode("<|user|>\nhi<|end|>\n", PARSED), phi.encode("<|user|>hi<|end|>", PARSED));
    // User-defined tokens are recognised in any text.
    assert_eq!(phi.encode("</s>", PLAIN), [2]);
}

#[test]
fn other_models_are_refused_by_name() {
    let Some(shared) = shared() else { return };
    let gguf = Gguf::open(shared.join("data/vocab/ggml-vocab-bert-bge.gguf")).unwrap();
    let error = Tokenizer::from_gguf(&gguf).unwrap_err().to_string();
    assert_eq!(
        error,
        "tokenizer.ggml.model is `bert`, supported are `llama` (SPM) and `gpt2` (byte-level BPE)"
    );
}
