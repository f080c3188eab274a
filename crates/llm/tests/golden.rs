//! Logits against an independent float64 implementation and against llama.cpp (tests/golden/make.py).

mod common;
use common::*;
use ganglion_gguf::Gguf;
use ganglion_kernels::Isa;

fn worst(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[test]
fn tiny_models_agree_with_the_reference_and_with_llama_cpp() {
    let golden: serde_json::Value = serde_json::from_str(include_str!("golden/tiny.json")).unwrap();
    let tokens: Vec<u32> = serde_json::from_value(golden["tokens"].clone()).unwrap();
    // Logits reach 6. Bounds to (the reference, llama.cpp):
    // * f32: only f32 rounding and the order of sums differ.
    // * f16: llama.cpp also rounds the activations of every product to f16; we keep them f32.
    // * q8_0, q4_0: reference and kernels round activations to int8 alike, but where the last bits of a float differ, an
    //   activation next to a half falls to the other side, one step of 1/127 of its block. llama.cpp rounds to int8 too
    //   and besides rounds the scale to f16. Leaving the activations unrounded moves these logits by up to 0.12.
    for (kind, to_reference, to_llama_cpp) in
        [("f32", 2e-5, 2e-5), ("f16", 2e-5, 1e-2), ("q8_0", 0.02, 0.1), ("q4_0", 0.02, 0.1)]
    {
        let path = format!("{}/tests/golden/tiny-{kind}.gguf", env!("CARGO_MANIFEST_DIR"));
        let gguf = Gguf::open(path).unwrap();
        let mut session = session(&gguf, 1, Isa::detect(), 64, 64);
        session.prefill(&tokens, &mut || false).unwrap();
        let ours = logits(&mut session);
        let model = &golden["models"][kind];
        for (name, bound) in [("reference", to_reference), ("llama_cpp", to_llama_cpp)] {
            let theirs: Vec<f32> = serde_json::from_value(model[name].clone()).unwrap();
            let found = worst(&ours, &theirs);
            println!("{kind} {name}: {found}");
            assert!(found < bound, "{kind}: {found} from {name}, bound {bound}");
        }
    }
}
