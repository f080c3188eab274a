//! Hugging Face model folders to GGUF: config.json, safetensors (one file or shards), tokenizer.json.
//!
//! ```text
//! config.json ─families─► Plan: keys, and for each tensor its source, shape, row order ─┐
//! *.safetensors ─Folder─► mapped, every shape checked against the plan                  ├─► GgufWriter, tensor by tensor
//! tokenizer.json ─tokenizer─► tokenizer.* keys, tried with this project's tokenizer ────┘
//! ```
//! A folder is untrusted: sizes are bounded, ranges checked, file names in an index must be plain. A tensor that has no
//! place in the architecture is refused, as is a setting that its graph in GGUF does not compute.
//!
//! Names of keys and tensors, and the order of rows, are those that llama.cpp reads (its `convert_hf_to_gguf.py` and
//! `gguf-py/gguf/constants.py`).

mod export;
mod families;
mod fields;
mod folder;
mod plan;
mod rope;
mod rows;
mod tokenizer;

use std::cell::RefCell;
use std::io::Write;
use std::path::{Path, PathBuf};

use ganglion_gguf::{GgufWriter, Value};
use ganglion_kernels::BlockFormat;

pub use self::export::{ExportOptions, FolderExport};

use self::families::{FAMILIES, Family};
use self::fields::Fields;
use self::folder::{Folder, SourceTensor, read_object};
use self::plan::{Origin, Plan, Role, Target};
use self::rows::Rows;
use crate::error::{LlmError, Result};
use crate::format::tensor_type;
use crate::limits;

/// How to convert a folder.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FolderOptions<'a> {
    /// Type of the matrices; without one each keeps the type that it is stored in. Norms, biases and routers are F32 in
    /// any case. Below 8 bits a weight, embedding and output are Q8_0. Rows that are no whole blocks of a type are stored
    /// as Q8_0 or F16.
    pub format: Option<BlockFormat>,
    /// Name of the pre-tokenizer (`tokenizer.ggml.pre`), for byte-level vocabularies whose definition is not known.
    pub pre_tokenizer: Option<&'a str>,
    /// Leave the tokenizer out.
    pub without_tokenizer: bool,
}

/// How far [`ModelFolder::write_file`] has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Bytes of tensors written.
    pub done_bytes: u64,
    /// Bytes of all tensors.
    pub total_bytes: u64,
}

/// A Hugging Face folder, read and checked, ready to be written as GGUF.
pub struct ModelFolder {
    folder: Folder,
    architecture: &'static str,
    metadata: Vec<(String, Value)>,
    targets: Vec<(Target, BlockFormat)>,
}

impl ModelFolder {
    /// Reads what describes the model, maps its tensors, and checks that the two belong together. No tensor's values are
    /// read yet.
    ///
    /// # Errors
    /// [`LlmError::SourceFile`] and [`LlmError::SourceField`] with the file, what was found and what was expected;
    /// [`LlmError::Gguf`] if a file cannot be mapped.
    pub fn open(path: impl AsRef<Path>, options: FolderOptions<'_>) -> Result<Self> {
        let path = path.as_ref();
        let file = path.join("config.json");
        let Some(map) = read_object(&file)? else {
            let reason = "is missing; expected a folder as save_pretrained writes it".to_owned();
            return Err(LlmError::SourceFile { file, reason });
        };
        let config = Fields::new(&file, &map);
        let family = family(config)?;
        let folder = Folder::open(path)?;
        let mut plan = Plan::new(family.name, config, &folder);
        config.only("quantization_config", &[])?;
        (family.plan)(&mut plan)?;
        plan.check_leftovers(family.ignored)?;
        let Plan { mut metadata, targets, .. } = plan;
        let targets: Vec<_> = targets
            .into_iter()
            .map(|target| with_format(target, &folder, options.format))
            .collect::<Result<_>>()?;

        let mut name = name(path, config)?;
        let vocabulary = if options.without_tokenizer {
            vec![("tokenizer.ggml.model".to_owned(), "none".into())]
        } else {
            let vocab_size = config.count("vocab_size", limits::VOCAB_MAX)?;
            let converted = tokenizer::convert(path, vocab_size, config, options.pre_tokenizer)?;
            // The only way to say that special tokens swallow spaces.
            if converted.strips_right && family.name == "phi3" && !name.to_lowercase().contains("phi-3") {
                name = format!("Phi-3 {name}");
            }
            converted.metadata
        };
        let mut general: Vec<(String, Value)> = vec![
            ("general.architecture".to_owned(), family.name.into()),
            ("general.name".to_owned(), name.into()),
        ];
        if let Some(id) = file_type(&targets) {
            general.push(("general.file_type".to_owned(), id.into()));
            general.push(("general.quantization_version".to_owned(), 2u32.into()));
        }
        metadata.splice(0..0, general);
        metadata.extend(vocabulary);
        Ok(Self { folder, architecture: family.name, metadata, targets })
    }

    /// `general.architecture` of the result.
    pub fn architecture(&self) -> &'static str {
        self.architecture
    }

    /// Number of tensors of each type, in the order in which the types first occur.
    pub fn formats(&self) -> Vec<(BlockFormat, usize)> {
        let mut counts: Vec<(BlockFormat, usize)> = Vec::new();
        for (_, format) in &self.targets {
            match counts.iter_mut().find(|(known, _)| known == format) {
                Some((_, count)) => *count += 1,
                None => counts.push((*format, 1)),
            }
        }
        counts
    }

    /// Writes the file, one tensor at a time: a part of one tensor is in memory, never the model. `path` holds either what
    /// it held before or the complete new file.
    ///
    /// # Errors
    /// [`LlmError::Gguf`] when writing fails, [`LlmError::SourceFile`] for a value that is not a number or that the target
    /// type cannot hold.
    pub fn write_file(&self, path: impl AsRef<Path>, progress: &mut dyn FnMut(Progress)) -> Result<()> {
        let failure = RefCell::new(None);
        self.written(&failure, progress, |writer| writer.write_file(path))
    }

    /// As [`Self::write_file`], to a stream.
    ///
    /// # Errors
    /// As [`Self::write_file`].
    pub fn write_to(&self, out: &mut dyn Write) -> Result<()> {
        let failure = RefCell::new(None);
        self.written(&failure, &mut |_| {}, |writer| writer.write_to(out))
    }

    fn written<'a>(
        &'a self,
        failure: &'a RefCell<Option<LlmError>>,
        progress: &'a mut dyn FnMut(Progress),
        write: impl FnOnce(GgufWriter<'a>) -> ganglion_gguf::Result<()>,
    ) -> Result<()> {
        let mut writer = GgufWriter::new();
        for (key, value) in &self.metadata {
            writer.metadata(key.clone(), value.clone())?;
        }
        let size = |target: &Target, format| tensor_type(format).size_bytes(&target.shape).unwrap_or(0);
        let total_bytes = self.targets.iter().map(|(target, format)| size(target, *format)).sum();
        let counter = std::rc::Rc::new(RefCell::new((0, progress)));
        for (target, format) in &self.targets {
            let dtype = tensor_type(*format);
            let size_bytes = size(target, *format);
            let counter = std::rc::Rc::clone(&counter);
            writer.tensor_with(target.name.clone(), &target.shape, dtype, move |out| {
                if let Err(error) = self.produce(target, *format, out)? {
                    // The stream only carries errors of its own kind; this one is passed on beside it.
                    *failure.borrow_mut() = Some(error);
                    return Err(std::io::Error::other("the source is damaged"));
                }
                let mut counter = counter.borrow_mut();
                counter.0 += size_bytes;
                let done_bytes = counter.0;
                (counter.1)(Progress { done_bytes, total_bytes });
                Ok(())
            })?;
        }
        drop(counter);
        let result = write(writer);
        match failure.take() {
            Some(error) => Err(error),
            None => Ok(result?),
        }
    }

    fn produce(
        &self,
        target: &Target,
        format: BlockFormat,
        out: &mut dyn Write,
    ) -> std::io::Result<Result<()>> {
        match &target.origin {
            Origin::Values(values) => {
                for value in values {
                    out.write_all(&value.to_le_bytes())?;
                }
                Ok(Ok(()))
            }
            Origin::Source { names, shape, order, offset } => {
                let parts: Result<Vec<SourceTensor<'_>>> =
                    names.iter().map(|name| self.folder.tensor(name, shape)).collect();
                let parts = match parts {
                    Ok(parts) => parts,
                    Err(error) => return Ok(Err(error)),
                };
                let (rows, columns) = order.rows_and_columns(shape);
                Rows { name: &names[0], parts, rows, columns, order: *order, offset: *offset }
                    .write(format, out)
            }
        }
    }
}

fn family(config: Fields<'_>) -> Result<&'static Family> {
    let known = || FAMILIES.iter().map(|family| family.class).collect::<Vec<_>>().join(", ");
    let classes = config.texts("architectures").map_err(|_| config.refuse("architectures", known()))?;
    let found = FAMILIES.iter().find(|family| classes.first() == Some(&family.class));
    found.ok_or_else(|| config.refuse("architectures", format!("one of {}", known())))
}

/// The model's name: what its makers called it, or its folder.
fn name(path: &Path, config: Fields<'_>) -> Result<String> {
    let stated = config.optional_text("_name_or_path")?.map(PathBuf::from);
    let of = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
    let folder = || of(&path.canonicalize().unwrap_or_else(|_| path.to_owned()));
    Ok(stated.as_deref().and_then(of).or_else(folder).unwrap_or_else(|| "model".to_owned()))
}

/// Checks that the sources of a tensor are there, and chooses how it is stored.
fn with_format(target: Target, folder: &Folder, asked: Option<BlockFormat>) -> Result<(Target, BlockFormat)> {
    let mut stored = None;
    if let Origin::Source { names, shape, .. } = &target.origin {
        for name in names {
            let format = folder.tensor(name, shape)?.format;
            stored = Some(if stored.unwrap_or(format) == format { format } else { BlockFormat::F32 });
        }
    }
    let columns = target.shape.first().map_or(1, |columns| *columns as usize);
    let format = match (target.role, asked) {
        (Role::Exact, _) => BlockFormat::F32,
        (_, None) => stored.unwrap_or(BlockFormat::F32),
        (Role::Embedding, Some(format)) if format.bits_per_weight() < 8.0 => {
            fitting(BlockFormat::Q8_0, columns)
        }
        (_, Some(format)) => fitting(format, columns),
    };
    Ok((target, format))
}

/// The type, or the smallest simpler one whose blocks fill rows of `columns`.
fn fitting(format: BlockFormat, columns: usize) -> BlockFormat {
    let candidates = [format, BlockFormat::Q8_0];
    let fits =
        |candidate: &BlockFormat| candidate.is_blockwise() && columns.is_multiple_of(candidate.block());
    candidates.into_iter().find(fits).unwrap_or(BlockFormat::F16)
}

/// llama.cpp's number for the type of most matrices.
fn file_type(targets: &[(Target, BlockFormat)]) -> Option<u32> {
    let matrices = targets.iter().filter(|(target, _)| target.role == Role::Matrix);
    let formats: Vec<_> = matrices.map(|(_, format)| *format).collect();
    let most = formats.iter().max_by_key(|format| formats.iter().filter(|other| other == format).count())?;
    Some(match most {
        BlockFormat::F32 => 0,
        BlockFormat::F16 => 1,
        BlockFormat::Q4_0 => 2,
        BlockFormat::Q4_1 => 3,
        BlockFormat::Q8_0 => 7,
        BlockFormat::Q5_0 => 8,
        BlockFormat::Q5_1 => 9,
        BlockFormat::Q2_K => 10,
        BlockFormat::Q3_K => 11,
        BlockFormat::Q4_K => 14,
        BlockFormat::Q5_K => 16,
        BlockFormat::Q6_K => 18,
        BlockFormat::IQ4_NL => 25,
        BlockFormat::Bf16 => 32,
        BlockFormat::MXFP4 => 38,
        own => tensor_type(*own).id(),
    })
}
