//! GGUF files to Hugging Face folders: every model of the golden folders comes back as it was.

mod common;
use common::folder::*;
use common::stored::with_matrices;
use common::{finish, shared};

use std::collections::BTreeMap;
use std::path::Path;

use ganglion_gguf::Gguf;
use ganglion_kernels::dequantize;
use ganglion_llm::block_format;
use ganglion_llm::convert::{
    BlockFormat, ExportOptions, FolderExport, FolderOptions, ModelFolder, Precision, llama2c,
};
use ganglion_tokenizer::{EncodeOptions, Tokenizer};
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

const PLAIN: ExportOptions = ExportOptions { format: BlockFormat::F32, without_tokenizer: true };

fn json(path: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// Shape and f32 values of every tensor of a folder.
fn tensors(folder: &Path) -> BTreeMap<String, (Vec<usize>, Vec<f32>)> {
    let mut tensors = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|ending| ending != "safetensors") {
            continue;
        }
        let bytes = std::fs::read(path).unwrap();
        for (name, view) in SafeTensors::deserialize(&bytes).unwrap().tensors() {
            let format = match view.dtype() {
                Dtype::F32 => BlockFormat::F32,
                Dtype::F16 => BlockFormat::F16,
                Dtype::BF16 => BlockFormat::Bf16,
                other => panic!("{other:?}"),
            };
            let mut values = vec![0.0; view.shape().iter().product()];
            dequantize(format, view.data(), &mut values).unwrap();
            tensors.insert(name.clone(), (view.shape().to_vec(), values));
        }
    }
    tensors
}

fn values(gguf: &Gguf, name: &str) -> Vec<f32> {
    let info = gguf.tensor(name).unwrap();
    let mut values = vec![0.0; info.element_count() as usize];
    dequantize(block_format(info).unwrap(), gguf.tensor_bytes(name).unwrap(), &mut values).unwrap();
    values
}

/// Both hold the same tensors, value for value.
fn assert_same_tensors(a: &Gguf, b: &Gguf, what: &str) {
    let names = |gguf: &Gguf| {
        let mut names: Vec<_> =
            gguf.tensors().iter().map(|info| (info.name.clone(), info.shape.clone())).collect();
        names.sort();
        names
    };
    assert_eq!(names(a), names(b), "{what}");
    for info in a.tensors() {
        assert!(values(a, &info.name) == values(b, &info.name), "{what}: {} differs", info.name);
    }
}

fn export(gguf: &Gguf, folder: &Path, options: ExportOptions) -> String {
    let export = FolderExport::new(gguf, options).unwrap_or_else(|error| panic!("{error}"));
    let mut last = 0;
    export.write(folder, &mut |progress| last = progress.done_bytes).unwrap();
    assert_eq!(last, export.size_bytes());
    export.class().to_owned()
}

/// Fields that only the training or the library's own defaults look at.
const OF_NO_MATTER: [&str; 26] = [
    "_sliding_window_pattern",
    "attention_dropout",
    "attn_pdrop",
    "bos_token_id",
    "classifier_dropout",
    "embd_pdrop",
    "eos_token_id",
    "hidden_dropout",
    "initializer_range",
    "is_decoder",
    "layer_norm_epsilon_",
    "max_window_layers",
    "mlp_bias",
    "model_type_",
    "output_router_logits",
    "pad_token_id",
    "pretraining_tp",
    "resid_pdrop",
    "router_aux_loss_coef",
    "rope_scaling",
    "sliding_window_pattern",
    "torch_dtype",
    "transformers_version",
    "use_cache",
    "head_dim",
    "rope_local_base_freq",
];

#[test]
fn what_came_from_a_folder_goes_back_into_one() {
    for (name, source) in cases() {
        let gguf = converted(&source, Some(BlockFormat::F32));
        let out = Temporary::new();
        let folder = out.0.join("model");
        let class = export(&gguf, &folder, PLAIN);
        let (before, after) = (json(&source.join("config.json")), json(&folder.join("config.json")));
        assert_eq!(before["architectures"][0], *class, "{name}");
        assert_eq!(before["model_type"], after["model_type"], "{name}");
        for (field, value) in before.as_object().unwrap() {
            let same = match (value.as_f64(), after[field].as_f64()) {
                (Some(a), Some(b)) => (a - b).abs() <= 1e-7 * a.abs(),
                _ => *value == after[field],
            };
            let matters = after.get(field).is_some() && !OF_NO_MATTER.contains(&field.as_str());
            assert!(same || !matters, "{name}: {field} was {value}, is {}", after[field]);
        }
        let (before, after) = (tensors(&source), tensors(&folder));
        for (tensor, (shape, values)) in &before {
            // Stored once though it is used twice.
            if let Some(found) = after.get(tensor) {
                assert_eq!(found.0, *shape, "{name}: {tensor}");
                // Norms of Gemma are stored less 1: what is small beside it loses its last bits.
                let lost = if name.starts_with("gemma") && tensor.contains("norm") { 1e-7 } else { 0.0 };
                let near = |(a, b): (&f32, &f32)| (a - b).abs() <= lost;
                assert!(values.iter().zip(&found.1).all(near), "{name}: {tensor} differs");
            } else {
                assert!(
                    tensor.contains("lm_head") || tensor.contains("inv_freq"),
                    "{name}: {tensor} is missing"
                );
            }
        }
        let again = converted(&folder, Some(BlockFormat::F32));
        assert_same_tensors(&gguf, &again, &name);
        let keys = |gguf: &Gguf| {
            let mut keys: Vec<_> = gguf
                .metadata()
                .filter(|(key, _)| *key != "general.name")
                .map(|(key, value)| (key.to_owned(), value.to_string()))
                .collect();
            keys.sort();
            keys
        };
        assert_eq!(keys(&gguf), keys(&again), "{name}");
    }
}

#[test]
fn smaller_floats_round_matrices_only() {
    let gguf = converted(&case("llama"), Some(BlockFormat::F32));
    for (format, error_max) in [(BlockFormat::F16, 1.0 / 2048.0), (BlockFormat::Bf16, 1.0 / 256.0)] {
        let out = Temporary::new();
        let folder = out.0.join("model");
        export(&gguf, &folder, ExportOptions { format, ..PLAIN });
        let again = converted(&folder, None);
        let mut rounded = 0;
        for info in gguf.tensors() {
            let (before, after) = (values(&gguf, &info.name), values(&again, &info.name));
            if info.shape.len() == 1 {
                assert!(before == after, "{} is exact", info.name);
            }
            rounded += usize::from(before != after);
            let near = |(a, b): (&f32, &f32)| (a - b).abs() <= error_max * a.abs() + 1e-7;
            assert!(before.iter().zip(&after).all(near), "{}", info.name);
        }
        assert!(rounded > 5, "{}", format.name());
    }
}

/// The texts of a model's own vocabulary and others, as ids.
fn assert_same_ids(a: &Gguf, b: &Gguf, texts: &[&str]) {
    let [a, b] = [a, b].map(|gguf| Tokenizer::from_gguf(gguf).unwrap());
    for text in texts {
        for add_bos in [false, true] {
            let options = EncodeOptions { add_bos, parse_special: true };
            assert_eq!(a.encode(text, options), b.encode(text, options), "{text:?}");
        }
    }
    assert_eq!((a.bos(), a.eos(), a.unknown()), (b.bos(), b.eos(), b.unknown()));
    assert_eq!((a.add_bos_token(), a.add_eos_token()), (b.add_bos_token(), b.add_eos_token()));
}

fn there_and_back(gguf: &Gguf) -> Gguf {
    let out = Temporary::new();
    let folder = out.0.join("model");
    export(gguf, &folder, ExportOptions { format: BlockFormat::F32, without_tokenizer: false });
    let mut bytes = Vec::new();
    let folder =
        ModelFolder::open(&folder, FolderOptions::default()).unwrap_or_else(|error| panic!("{error}"));
    folder.write_to(&mut bytes).unwrap();
    Gguf::parse(bytes).unwrap()
}

#[test]
fn the_default_model_comes_back_with_its_tokenizer() {
    let gguf = Gguf::open(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/nano/nano.gguf")).unwrap();
    let again = there_and_back(&gguf);
    assert_same_tensors(&gguf, &again, "nano");
    let texts = ["set the kitchen to 21.5 degrees", "do all_off\n\n  note: x_1 = -3", "ünïcode — 温度", ""];
    assert_same_ids(&gguf, &again, &texts);
}

#[test]
fn sentence_piece_comes_back_by_its_scores() {
    let Some(shared) = shared() else { return };
    let folder = shared.join("data/stories260k");
    let read = |name: &str| std::fs::read(folder.join(name)).unwrap();
    let gguf = finish(llama2c(&read("stories260K.bin"), &read("tok512.bin"), Precision::F32).unwrap());
    let again = there_and_back(&gguf);
    assert_same_tensors(&gguf, &again, "stories260k");
    let story = String::from_utf8(read("stories260K.md")).unwrap();
    assert_same_ids(&gguf, &again, &[&story, "  two spaces", "naïve 温度", ""]);
}

/// Whatever a file stores its matrices as, a folder holds what they stand for.
#[test]
fn own_formats_go_out_as_their_values() {
    for name in ["llama", "phi3", "olmoe", "qwen2moe", "gptneox", "gpt2"] {
        let plain = converted(&case(name), Some(BlockFormat::F32));
        for format in BlockFormat::OWN {
            let gguf = with_matrices(&plain, format);
            let out = Temporary::new();
            let folder = out.0.join("model");
            export(&gguf, &folder, PLAIN);
            let what = format!("{name} as {format}");
            assert_same_tensors(
                &with_matrices(&gguf, BlockFormat::F32),
                &converted(&folder, Some(BlockFormat::F32)),
                &what,
            );
        }
    }
}

/// Fixed scales of activations are for int8 matrices, which a folder has not got.
#[test]
fn fixed_scales_of_activations_stay_behind() {
    let gguf = with_matrices(&converted(&case("llama"), Some(BlockFormat::F32)), BlockFormat::I8_ROW);
    let layers = gguf.get_u32("llama.block_count").unwrap() as usize;
    let scales = ganglion_gguf::Value::from(vec![0.5f32; 4 * layers]);
    let fixed = common::golden::rewritten(&gguf, &[("ganglion.activation_scales", scales)], |name, bytes| {
        Some((name.to_owned(), bytes))
    });
    let out = Temporary::new();
    for (gguf, name) in [(&gguf, "dynamic"), (&fixed, "static")] {
        export(gguf, &out.0.join(name), PLAIN);
    }
    assert!(tensors(&out.0.join("dynamic")) == tensors(&out.0.join("static")));
}

#[test]
fn factors_are_multiplied() {
    for (name, format) in
        [("mistral", BlockFormat::F32), ("gemma3", BlockFormat::F32), ("qwen3", BlockFormat::Q8_0)]
    {
        let whole = converted(&case(name), Some(format));
        let factors = finish(common::factored(&whole, format, ""));
        let out = Temporary::new();
        let folder = out.0.join("model");
        export(&factors, &folder, PLAIN);
        let again = converted(&folder, Some(BlockFormat::F32));
        // One factor is the identity; rounding to Q8_0 once more may move a value by a step's rounding.
        let lost = if format == BlockFormat::F32 { 0.0 } else { 1e-4 };
        for info in again.tensors() {
            let near = |(a, b): (&f32, &f32)| (a - b).abs() <= lost;
            let (a, b) = (values(&whole, &info.name), values(&again, &info.name));
            assert!(a.len() == b.len() && a.iter().zip(&b).all(near), "{name}: {}", info.name);
        }
    }
}

/// A product that is not trivial, by the definition.
#[test]
fn a_product_of_factors_is_that_of_the_matrices() {
    let whole = converted(&case("llama"), Some(BlockFormat::F32));
    let (name, columns, rows, rank) = ("blk.1.ffn_up", 32, 64, 5);
    let mut noise = common::Noise(7);
    let mut random = |count: usize| (0..count).map(|_| noise.next()).collect::<Vec<f32>>();
    let (first, second) = (random(rank * columns), random(rows * rank));
    let mut writer = ganglion_gguf::GgufWriter::new();
    for (key, value) in whole.metadata() {
        writer.metadata(key, value.clone()).unwrap();
    }
    for info in whole.tensors().iter().filter(|info| info.name != format!("{name}.weight")) {
        let bytes = whole.tensor_bytes(&info.name).unwrap().to_vec();
        writer.tensor(info.name.clone(), &info.shape, info.dtype, bytes).unwrap();
    }
    common::add(&mut writer, &format!("{name}.first.weight"), columns, BlockFormat::F32, &first);
    common::add(&mut writer, &format!("{name}.second.weight"), rank, BlockFormat::F32, &second);
    let out = Temporary::new();
    let folder = out.0.join("model");
    export(&finish(writer), &folder, PLAIN);
    let (shape, found) = &tensors(&folder)["model.layers.1.mlp.up_proj.weight"];
    assert_eq!(*shape, [rows, columns]);
    for (index, found) in found.iter().enumerate() {
        let (row, column) = (index / columns, index % columns);
        let term = |r: usize| f64::from(second[row * rank + r]) * f64::from(first[r * columns + column]);
        let sum: f64 = (0..rank).map(term).sum();
        assert!((f64::from(*found) - sum).abs() < 1e-6, "{row}, {column}: {found}, not {sum}");
    }
}

#[test]
fn a_slash_behind_the_name_is_no_part_of_it() {
    let gguf = converted(&case("llama"), Some(BlockFormat::F32));
    let out = Temporary::new();
    let folder = out.0.join("model/");
    export(&gguf, &folder, PLAIN);
    assert!(folder.join("model.safetensors").exists());
    let names: Vec<_> = std::fs::read_dir(&out.0).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["model"]);
}

#[test]
fn what_a_folder_cannot_say_is_refused() {
    let gguf = converted(&case("llama"), Some(BlockFormat::F32));
    let refused = |gguf: &Gguf, options| match FolderExport::new(gguf, options) {
        Err(error) => error.to_string(),
        Ok(_) => panic!("exported"),
    };
    let alpha =
        common::golden::rewritten(&gguf, &[("llama.rope.scaling.alpha", 2.0f32.into())], |name, bytes| {
            Some((name.to_owned(), bytes))
        });
    assert!(refused(&alpha, PLAIN).contains("rope.scaling.alpha"));
    let factor = common::golden::rewritten(
        &gguf,
        &[("llama.rope.scaling.attn_factor", 2.0f32.into())],
        |name, bytes| Some((name.to_owned(), bytes)),
    );
    assert!(refused(&factor, PLAIN).contains("the rotation"), "{}", refused(&factor, PLAIN));
    assert!(refused(&gguf, ExportOptions { format: BlockFormat::Q8_0, ..PLAIN }).contains("Q8_0"));

    let out = Temporary::new();
    out.write("mine.txt", "keep");
    let export = FolderExport::new(&gguf, PLAIN).unwrap();
    let error = export.write(&out.0, &mut |_| ()).unwrap_err().to_string();
    assert!(error.contains("is there already"), "{error}");
    assert_eq!(std::fs::read_dir(&out.0).unwrap().count(), 1);

    let large = common::golden::rewritten(&gguf, &[], |name, bytes| {
        let grown = |_, value: f32| if name == "blk.1.ffn_up.weight" { value * 1e7 } else { value };
        Some((name.to_owned(), common::golden::mapped(&bytes, grown)))
    });
    let export = FolderExport::new(&large, ExportOptions { format: BlockFormat::F16, ..PLAIN }).unwrap();
    let path = out.0.join("large");
    let error = export.write(&path, &mut |_| ()).unwrap_err().to_string();
    assert!(error.contains("more than f16") && error.contains("layers.1.mlp.up_proj"), "{error}");
    assert!(!path.exists() && !out.0.join("large.part").exists());
}
