//! GGUF files to Hugging Face folders: the way back.
//!
//! ```text
//! Gguf ─settings─► config.json ─families─► Plan ─┬─ the same Config? every tensor used? ─► tensors, rows in the source's order
//!      ─tokenizer─► tokenizer.json, …            └─► model.safetensors
//! ```
//! Names, shapes and row orders are those of the import, read backwards: the settings that are written are given to the same
//! [`Plan`] that reads folders, and the [`Config`] that comes out of it has to be the file's own. So what cannot be said in a
//! config.json is refused, and what is written is read back as it was.

mod settings;
mod source;
mod tensors;
mod tokenizer;

use std::io::Write;
use std::path::{Path, PathBuf};

use ganglion_gguf::{Gguf, GgufWriter, Header, TensorType};
use ganglion_kernels::BlockFormat;
use serde_json::{Map, Value, json};

use self::tensors::OutTensor;
use super::Progress;
use super::families::FAMILIES;
use super::fields::Fields;
use super::folder::Folder;
use super::plan::{Origin, Plan, Target};
use crate::config::Config;
use crate::error::{LlmError, Result};

/// How to write a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExportOptions {
    /// Type of the matrices: F32, F16 or BF16. Norms, biases and routers are F32 in any case.
    pub format: BlockFormat,
    /// Leave the tokenizer out.
    pub without_tokenizer: bool,
}

/// A GGUF file, checked and ready to be written as a Hugging Face folder.
pub struct FolderExport<'a> {
    gguf: &'a Gguf,
    class: &'static str,
    /// Names and contents of the files besides the weights.
    texts: Vec<(&'static str, String)>,
    tensors: Vec<OutTensor>,
}

fn refuse(reason: impl Into<String>) -> LlmError {
    LlmError::Export { reason: reason.into() }
}

impl<'a> FolderExport<'a> {
    /// Finds the folder's settings and tensors. No tensor's values are read yet.
    ///
    /// # Errors
    /// [`LlmError::Export`] for what a folder cannot say, and whatever loading the file would meet.
    pub fn new(gguf: &'a Gguf, options: ExportOptions) -> Result<Self> {
        let name = match options.format {
            BlockFormat::F32 => "float32",
            BlockFormat::F16 => "float16",
            BlockFormat::Bf16 => "bfloat16",
            other => return Err(refuse(format!("weights as {}: give f32, f16 or bf16", other.name()))),
        };
        let config = Config::from_header(gguf.header())?;
        crate::tensors::check_tensors(gguf.header(), &config)?;
        let (class, mut map) = settings::settings(gguf, &config)?;
        map.insert("torch_dtype".to_owned(), name.into());
        let family = FAMILIES.iter().find(|family| family.class == class);
        let family = family.unwrap_or_else(|| unreachable!("settings name families"));
        let (folder, file) = (Folder::empty(), PathBuf::from("config.json"));
        let mut plan = Plan::new(family.name, Fields::new(&file, &map), &folder);
        (family.plan)(&mut plan)?;
        check_settings(&plan, &config)?;
        let tensors = tensors::assign(gguf, &config, &plan.targets, options.format)?;
        drop(plan);
        let mut texts = Vec::new();
        if !options.without_tokenizer {
            texts.extend(tokenizer::files(gguf, &config)?);
        }
        texts.push(("generation_config.json", generation(gguf)));
        texts.push(("config.json", pretty(Value::Object(map))));
        Ok(Self { gguf, class, texts, tensors })
    }

    /// The model's class in transformers.
    pub fn class(&self) -> &'static str {
        self.class
    }

    /// Bytes of all tensors.
    pub fn size_bytes(&self) -> u64 {
        self.tensors.iter().map(OutTensor::size_bytes).sum()
    }

    /// Writes the folder, a part of one tensor in memory at a time. It appears under its name when it is whole.
    ///
    /// # Errors
    /// [`LlmError::SourceFile`] if the folder is there already and not empty, or when writing fails; [`LlmError::Export`] for a value
    /// that the wanted type cannot hold.
    pub fn write(&self, path: &Path, progress: &mut dyn FnMut(Progress)) -> Result<()> {
        let failed = |file: &Path, reason: String| LlmError::SourceFile { file: file.to_owned(), reason };
        // A slash at the end would put what is being written into the folder.
        let path = &path.components().collect::<PathBuf>();
        if path.exists() && std::fs::read_dir(path).map_or(true, |mut entries| entries.next().is_some()) {
            return Err(failed(path, "is there already; give the folder another name".to_owned()));
        }
        let mut name = path.as_os_str().to_owned();
        name.push(".part");
        let part = PathBuf::from(name);
        let io =
            |file: PathBuf| move |error: std::io::Error| failed(&file, format!("cannot be written: {error}"));
        // What an interrupted export left.
        let _ = std::fs::remove_dir_all(&part);
        std::fs::create_dir_all(&part).map_err(io(part.clone()))?;
        let written = (|| {
            for (name, text) in &self.texts {
                let file = part.join(name);
                std::fs::write(&file, text).map_err(io(file))?;
            }
            let file = part.join("model.safetensors");
            let out = std::fs::File::create(&file).map_err(io(file.clone()))?;
            let mut out = std::io::BufWriter::new(out);
            self.weights(&mut out, progress)?.map_err(io(file.clone()))?;
            out.get_ref().sync_all().map_err(io(file))?;
            // An empty folder of that name may be replaced.
            let _ = std::fs::remove_dir(path);
            std::fs::rename(&part, path).map_err(io(path.to_owned()))
        })();
        if written.is_err() {
            let _ = std::fs::remove_dir_all(&part);
        }
        written
    }

    /// A safetensors file: the length of a JSON header, the header, all tensors.
    fn weights(
        &self,
        out: &mut dyn Write,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<std::io::Result<()>> {
        let mut header = Map::new();
        header.insert("__metadata__".to_owned(), json!({"format": "pt"}));
        let mut end = 0;
        for tensor in &self.tensors {
            let start = end;
            end += tensor.size_bytes();
            let entry = json!({"dtype": tensor.dtype(), "shape": tensor.shape, "data_offsets": [start, end]});
            header.insert(tensor.name.clone(), entry);
        }
        let mut header = Value::Object(header).to_string().into_bytes();
        header.resize(header.len().next_multiple_of(8), b' ');
        let total_bytes = end;
        let mut done_bytes = 0;
        let result =
            out.write_all(&(header.len() as u64).to_le_bytes()).and_then(|()| out.write_all(&header));
        if result.is_err() {
            return Ok(result);
        }
        for tensor in &self.tensors {
            let result = tensor.write(self.gguf, out)?;
            if result.is_err() {
                return Ok(result);
            }
            done_bytes += tensor.size_bytes();
            progress(Progress { done_bytes, total_bytes });
        }
        Ok(out.flush())
    }
}

fn pretty(value: Value) -> String {
    format!("{value:#}\n")
}

/// Whether the settings, read as a folder's are, describe the very model. How it is stored is no part of them: factors are multiplied,
/// and fixed scales of activations are for int8.
fn check_settings(plan: &Plan<'_>, config: &Config) -> Result<()> {
    let config = &Config { activation_scales: Vec::new(), factor_rank: 0, ..config.clone() };
    let mut writer = GgufWriter::new();
    writer.metadata("general.architecture", plan.architecture)?;
    for (key, value) in &plan.metadata {
        writer.metadata(key.clone(), value.clone())?;
    }
    for Target { name, shape, .. } in &plan.targets {
        writer.tensor_with(name.clone(), shape, TensorType::F32, |_| Ok(()))?;
    }
    let layout = writer.layout()?;
    let found = Config::from_header(&Header::parse_start(&layout.header, layout.size_bytes)?)?;
    if found == *config {
        return Ok(());
    }
    let differs = [
        ("the number of layers", found.layer_count != config.layer_count),
        ("the context", found.context_length != config.context_length),
        ("the epsilon of norms", found.norm_epsilon != config.norm_epsilon),
        ("the scale of attention", found.attention_scale != config.attention_scale),
        (
            "a soft-cap",
            (found.attention_softcap, found.final_softcap)
                != (config.attention_softcap, config.final_softcap),
        ),
        ("the windows of layers", found.layers != config.layers),
        ("the rotation", found.ropes != config.ropes),
        ("the mixture of experts", found.experts != config.experts),
        ("the order of sub-layers or their functions", found.design != config.design),
    ];
    let what = differs.iter().find(|(_, differs)| *differs).map_or("a size", |(name, _)| name);
    let architecture = config.architecture;
    Err(refuse(format!("{what} of this {architecture} model cannot be said in a config.json of its class")))
}

/// Ids that end or begin a text.
fn generation(gguf: &Gguf) -> String {
    let mut map = Map::new();
    for (role, key) in [("bos", "bos"), ("eos", "eos"), ("pad", "padding")] {
        if let Ok(id) = gguf.get_u32(&format!("tokenizer.ggml.{key}_token_id")) {
            map.insert(format!("{role}_token_id"), id.into());
        }
    }
    pretty(Value::Object(map))
}

/// Values that the import computes from the settings, where it does.
fn computed<'p>(targets: &'p [Target], name: &str) -> Option<&'p [f32]> {
    targets.iter().find(|target| target.name == name).and_then(|target| match &target.origin {
        Origin::Values(values) => Some(values.as_slice()),
        Origin::Source { .. } => None,
    })
}
