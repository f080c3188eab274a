//! Gradients against a reference in double precision, and against differences of the loss for each architecture.

use std::path::{Path, PathBuf};

use ganglion_compress::{CompressError, Gradients, Loss, Windows};
use ganglion_gguf::Gguf;
use ganglion_llm::convert::{BlockFormat, FolderOptions, ModelFolder};

fn llm_golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../llm/tests/golden").join(name)
}

/// Numbers without a pattern, as the reference makes them.
fn direction(count: usize, seed: usize) -> Vec<f32> {
    let number = |i: usize| ((i * 7919 + seed * 104_729 + 13) % 997) as f64 / 997.0 - 0.5;
    (0..count).map(|i| number(i) as f32).collect()
}

fn along(gradient: &[f32], direction: &[f32]) -> f64 {
    gradient.iter().zip(direction).map(|(g, d)| f64::from(*g) * f64::from(*d)).sum()
}

#[test]
fn gradients_are_those_of_the_reference() {
    let golden: serde_json::Value = serde_json::from_str(include_str!("golden/gradient.json")).unwrap();
    let tokens: Vec<u32> =
        golden["tokens"].as_array().unwrap().iter().map(|t| t.as_u64().unwrap() as u32).collect();
    let length = golden["window"].as_u64().unwrap() as usize;
    let windows = Windows::of_tokens(tokens, length, 1).unwrap();
    let source = Gguf::open(llm_golden("tiny-f32.gguf")).unwrap();
    for threads in [1, 2] {
        let model = Gradients::new(&source, length, threads).unwrap();
        let mut other = Gradients::new(&source, length, threads).unwrap();
        let head = source.tensor_bytes("output.weight").unwrap().as_chunks::<4>().0;
        let head = head.iter().map(|b| f32::from_le_bytes(*b) * 1.1).collect();
        other.replace("output.weight", head).unwrap();
        let reference = other.outputs(&windows).unwrap();
        for (key, loss) in [("text", Loss::Text), ("reference", Loss::Reference(&reference))] {
            let expected = &golden[key];
            let mut seen = 0;
            let found = model
                .run(&windows, loss, &mut |matrix| {
                    for (seed, expected) in expected[matrix.tensor].as_array().unwrap().iter().enumerate() {
                        let found = along(matrix.gradient, &direction(matrix.gradient.len(), seed));
                        let expected = expected.as_f64().unwrap();
                        let size = matrix.gradient.iter().map(|g| f64::from(*g).powi(2)).sum::<f64>().sqrt();
                        let off = (found - expected).abs();
                        assert!(off < 1e-4 * size, "{key} {}: {found}, not {expected}", matrix.tensor);
                    }
                    seen += 1;
                    Ok(())
                })
                .unwrap();
            assert_eq!(seen, 16, "every matrix");
            assert!((found - expected["loss"].as_f64().unwrap()).abs() < 1e-5, "{key}: {found}");
        }
    }
}

/// Every architecture with a backward pass: the loss changes along a direction as the gradient says.
#[test]
fn gradients_are_slopes_for_every_architecture() {
    let folder = std::env::temp_dir().join(format!("ganglion-gradient-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    for name in
        ["gemma2", "gemma3", "llama-bias", "llama-llama3", "olmo2", "phi3", "qwen2", "qwen3", "llama-yarn"]
    {
        let options = FolderOptions {
            format: Some(BlockFormat::F32),
            without_tokenizer: true,
            ..FolderOptions::default()
        };
        let file = folder.join(format!("{name}.gguf"));
        let hf = ModelFolder::open(llm_golden("hf").join(name), options).unwrap();
        hf.write_file(&file, &mut |_| {}).unwrap();
        let source = Gguf::open(&file).unwrap();
        let length = 24;
        let windows =
            Windows::of_tokens((0..2 * length as u32).map(|i| i * 37 % 90).collect(), length, 1).unwrap();
        let mut model = Gradients::new(&source, length, 2).unwrap();
        let mut found = Vec::new();
        let take = &mut |matrix: ganglion_compress::MatrixGradient<'_>| {
            // Along the gradient, so that the loss changes by much, and a tenth of the way across it.
            let size = |v: &[f32]| v.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
            let noise = direction(matrix.gradient.len(), 3);
            let scale = size(matrix.gradient) / size(&noise).max(1e-30);
            let direction: Vec<f32> =
                matrix.gradient.iter().zip(&noise).map(|(g, n)| g + 0.3 * scale as f32 * n).collect();
            let slope = along(matrix.gradient, &direction);
            found.push((matrix.tensor.to_owned(), matrix.weights.to_vec(), direction, slope));
            Ok(())
        };
        model.run(&windows, Loss::Text, take).unwrap();
        assert!(found.len() > 8, "{name}: {} tensors", found.len());
        for (tensor, weights, direction, slope) in found {
            assert!(slope > 0.0, "{name} {tensor}: a gradient of nothing");
            // A step that moves the loss by about a thousandth.
            let step = (1e-3 / slope) as f32;
            let mut loss = |sign: f32| {
                let moved = weights.iter().zip(&direction).map(|(w, d)| w + sign * step * d).collect();
                model.replace(&tensor, moved).unwrap();
                model.run(&windows, Loss::Text, &mut |_| Ok(())).unwrap()
            };
            let measured = (loss(1.0) - loss(-1.0)) / (2.0 * f64::from(step));
            model.replace(&tensor, weights.clone()).unwrap();
            assert!((measured / slope - 1.0).abs() < 0.02, "{name} {tensor}: {slope}, measured {measured}");
        }
    }
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn what_has_no_backward_pass_is_refused() {
    let folder = std::env::temp_dir().join(format!("ganglion-gradient-refused-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let file = folder.join("gpt2.gguf");
    let options = FolderOptions { without_tokenizer: true, ..FolderOptions::default() };
    let hf = ModelFolder::open(llm_golden("hf/gpt2"), options).unwrap();
    hf.write_file(&file, &mut |_| {}).unwrap();
    let source = Gguf::open(&file).unwrap();
    let refused = Gradients::new(&source, 16, 1).err().unwrap();
    assert!(matches!(&refused, CompressError::Gradient { reason } if reason.contains("gpt2")), "{refused}");
    std::fs::remove_dir_all(folder).unwrap();
}
