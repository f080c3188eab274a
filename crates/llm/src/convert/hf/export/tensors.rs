//! Which rows of a file become which tensor of a folder.

use std::collections::HashSet;
use std::io::Write;

use ganglion_gguf::{Gguf, OptionalExt};
use ganglion_kernels::{BlockFormat, dequantize, quantize};

use super::super::plan::{Origin, Role, Target};
use super::super::rows::{HALF_MAX, Order};
use super::{computed, refuse};
use crate::config::Config;
use crate::error::{LlmError, Result};
use crate::format::block_format;
use crate::limits;

/// How far factors of frequencies may be from those that the settings give: they are computed in f64 and stored as f32.
const FACTOR_ERROR_MAX: f32 = 1e-6;

/// Some rows of a tensor of the file.
#[derive(Debug, Clone)]
struct Piece {
    tensor: String,
    /// Its own first row.
    first: usize,
    rows: usize,
}

/// A tensor of the folder.
pub(super) struct OutTensor {
    pub(super) name: String,
    /// Outermost dimension first.
    pub(super) shape: Vec<usize>,
    format: BlockFormat,
    pieces: Vec<Piece>,
    /// Rows of the file's form, and values of each.
    rows: usize,
    columns: usize,
    order: Order,
    offset: f32,
}

/// The folder's tensors.
///
/// # Errors
/// A tensor that the settings call for and the file has not got, and one that would be left.
pub(super) fn assign(
    gguf: &Gguf,
    config: &Config,
    targets: &[Target],
    format: BlockFormat,
) -> Result<Vec<OutTensor>> {
    let (mut tensors, mut used) = (Vec::new(), HashSet::new());
    for target in targets {
        let Origin::Source { names, shape, order, offset } = &target.origin else { continue };
        // A vector is a column, so that it can be a part of a fused one.
        let (rows, columns) = match shape.as_slice() {
            [length] => (*length, 1),
            _ => order.rows_and_columns(shape),
        };
        let pieces = find(gguf, config, target, rows * names.len())?;
        used.extend(pieces.iter().map(|piece| piece.tensor.clone()));
        for (index, name) in names.iter().enumerate() {
            tensors.push(OutTensor {
                name: name.clone(),
                shape: shape.clone(),
                format: if target.role == Role::Exact { BlockFormat::F32 } else { format },
                pieces: cut(&pieces, index * rows, rows),
                rows,
                columns,
                order: *order,
                offset: *offset,
            });
        }
    }
    for info in gguf.tensors().iter().filter(|info| !used.contains(&info.name)) {
        let mut values = vec![0.0; info.element_count() as usize];
        dequantize(block_format(info)?, gguf.tensor_bytes(&info.name)?, &mut values)?;
        let near = |(a, b): (&f32, &f32)| (a - b).abs() <= FACTOR_ERROR_MAX * b.abs();
        let same = computed(targets, &info.name)
            .is_some_and(|found| found.len() == values.len() && found.iter().zip(&values).all(near));
        if !same {
            let reason = format!("tensor {} has no place in a folder of this class", info.name);
            return Err(refuse(reason));
        }
    }
    Ok(tensors)
}

/// Where the rows of a target are: under its name, among those of a fused tensor, or in three tensors.
fn find(gguf: &Gguf, config: &Config, target: &Target, rows: usize) -> Result<Vec<Piece>> {
    let has = |name: &str| gguf.tensor(name).optional().map(|found| found.is_some());
    if has(&target.name)? {
        return Ok(vec![Piece { tensor: target.name.clone(), first: 0, rows }]);
    }
    let missing = || LlmError::MissingTensor { tensor: target.name.clone(), expected: target.shape.clone() };
    let (query, kv) = (config.query_length(), config.kv_length());
    let parts = [("attn_q", 0, query), ("attn_k", query, kv), ("attn_v", query + kv, kv)];
    for (part, first, rows) in parts {
        if target.name.contains(&format!(".{part}.")) {
            let fused = target.name.replace(&format!(".{part}."), ".attn_qkv.");
            return match has(&fused)? {
                true => Ok(vec![Piece { tensor: fused, first, rows }]),
                false => Err(missing()),
            };
        }
    }
    if target.name.contains(".attn_qkv.") {
        let named = |part: &str| target.name.replace(".attn_qkv.", &format!(".{part}."));
        let pieces = parts.map(|(part, _, rows)| Piece { tensor: named(part), first: 0, rows });
        for piece in &pieces {
            if !has(&piece.tensor)? {
                return Err(missing());
            }
        }
        return Ok(pieces.to_vec());
    }
    Err(missing())
}

/// The pieces of `rows` rows from `first` on.
fn cut(pieces: &[Piece], first: usize, rows: usize) -> Vec<Piece> {
    match pieces {
        [one] => vec![Piece { first: one.first + first, rows, ..one.clone() }],
        several => several.to_vec(),
    }
}

impl OutTensor {
    pub(super) fn dtype(&self) -> &'static str {
        match self.format {
            BlockFormat::F16 => "F16",
            BlockFormat::Bf16 => "BF16",
            _ => "F32",
        }
    }

    pub(super) fn size_bytes(&self) -> u64 {
        (self.shape.iter().product::<usize>() * self.format.block_bytes()) as u64
    }

    /// A row of the file's form.
    fn read(&self, gguf: &Gguf, mut row: usize, out: &mut [f32]) -> Result<()> {
        for piece in &self.pieces {
            if row < piece.rows {
                let format = block_format(gguf.tensor(&piece.tensor)?)?;
                let size = format.size_bytes(self.columns).unwrap_or(0);
                let at = (piece.first + row) * size;
                dequantize(format, &gguf.tensor_bytes(&piece.tensor)?[at..at + size], out)?;
                out.iter_mut().for_each(|value| *value -= self.offset);
                return Ok(());
            }
            row -= piece.rows;
        }
        unreachable!("{} has {} rows", self.name, self.rows)
    }

    pub(super) fn write(&self, gguf: &Gguf, out: &mut dyn Write) -> Result<std::io::Result<()>> {
        let columns = self.columns;
        let mut bytes = Vec::new();
        let mut put = |values: &[f32]| -> Result<std::io::Result<()>> {
            let largest = if self.format == BlockFormat::F16 { HALF_MAX } else { f32::MAX };
            if let Some(found) = values.iter().find(|value| value.is_nan() || value.abs() > largest) {
                let held =
                    if found.is_finite() { "more than f16 can; choose bf16 or f32" } else { "no number" };
                return Err(refuse(format!("tensor {} holds {found}: {held}", self.name)));
            }
            bytes.resize(values.len() * self.format.block_bytes(), 0);
            quantize(self.format, values, &mut bytes)?;
            Ok(out.write_all(&bytes))
        };
        if self.order == Order::Transposed {
            let mut all = vec![0.0; self.rows * columns];
            let mut row_values = vec![0.0; columns];
            for row in 0..self.rows {
                self.read(gguf, row, &mut row_values)?;
                row_values.iter().enumerate().for_each(|(column, v)| all[column * self.rows + row] = *v);
            }
            return put(&all);
        }
        let mut place = vec![0; self.rows];
        (0..self.rows).for_each(|row| place[self.order.source_row(row, self.rows)] = row);
        let batch = (limits::CONVERT_VALUES_AT_ONCE / columns).clamp(1, self.rows);
        let mut values = vec![0.0; batch * columns];
        for rows in place.chunks(batch) {
            let values = &mut values[..rows.len() * columns];
            for (row, values) in rows.iter().zip(values.chunks_exact_mut(columns)) {
                self.read(gguf, *row, values)?;
            }
            let result = put(values)?;
            if result.is_err() {
                return Ok(result);
            }
        }
        Ok(Ok(()))
    }
}
