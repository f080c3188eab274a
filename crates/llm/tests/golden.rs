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
    // Logits reach 6. The reference rounds activations to int8 where the kernels do, so that only f32 rounding and the
    // order of sums are left: ten times what was found. An activation that f32 rounding moved across a half would
    // show as 0.01 or more; our bits are the same on every machine, so it cannot come and go. llama.cpp:
    // * f32: the same arithmetic in another order.
    // * f16: it also rounds the activations of every product to f16; we keep them f32.
    // * q8_0, q4_0: it rounds activations to int8 as we do, but their scales to f16, and so some int8 differ by one
    //   step of 1/127. Not rounding the activations at all moves these logits by up to 0.12: the difference stays below
    //   the error that int8 activations have anyway.
    for (kind, to_reference, to_llama_cpp) in
        [("f32", 2e-5, 2e-5), ("f16", 2e-5, 1e-2), ("q8_0", 2e-5, 0.1), ("q4_0", 2e-5, 0.1)]
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
