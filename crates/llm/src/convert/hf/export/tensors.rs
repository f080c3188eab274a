//! Which rows of a file become which tensor of a folder.

use std::collections::HashSet;
use std::io::Write;

use ganglion_gguf::Gguf;
use ganglion_kernels::{BlockFormat, dequantize, quantize};

use super::super::plan::{Origin, Role, Target};
use super::super::rows::{HALF_MAX, Order};
use super::source::{Place, Reader};
use super::{computed, refuse};
use crate::config::Config;
use crate::error::{LlmError, Result};
use crate::format::block_format;
use crate::limits;

/// How far factors of frequencies may be from those that the settings give: they are computed in f64 and stored as f32.
const FACTOR_ERROR_MAX: f32 = 1e-6;

/// Some rows of a matrix of the file, or values of a vector.
#[derive(Debug, Clone)]
pub(super) struct Piece {
    pub(super) place: Place,
    /// Its own first row.
    pub(super) first: usize,
    pub(super) rows: usize,
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
        used.extend(pieces.iter().flat_map(|piece| piece.place.tensors().map(str::to_owned)));
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
        if info.shape.len() > 1 {
            return Err(refuse(format!("tensor {} has no place in a folder of this class", info.name)));
        }
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
    if let Some(place) = Place::find(gguf, &target.name)? {
        return Ok(vec![Piece { place, first: 0, rows }]);
    }
    let missing = || LlmError::MissingTensor { tensor: target.name.clone(), expected: target.shape.clone() };
    let (query, kv) = (config.query_length(), config.kv_length());
    let parts = [("attn_q", 0, query), ("attn_k", query, kv), ("attn_v", query + kv, kv)];
    for (part, first, rows) in parts {
        if target.name.contains(&format!(".{part}.")) {
            let fused = target.name.replace(&format!(".{part}."), ".attn_qkv.");
            let place = Place::find(gguf, &fused)?.ok_or_else(missing)?;
            return Ok(vec![Piece { place, first, rows }]);
        }
    }
    if target.name.contains(".attn_qkv.") {
        let piece = |(part, _, rows): (&str, usize, usize)| -> Result<Piece> {
            let name = target.name.replace(".attn_qkv.", &format!(".{part}."));
            Ok(Piece { place: Place::find(gguf, &name)?.ok_or_else(missing)?, first: 0, rows })
        };
        return parts.into_iter().map(piece).collect();
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

    pub(super) fn write(&self, gguf: &Gguf, out: &mut dyn Write) -> Result<std::io::Result<()>> {
        let columns = self.columns;
        let readers = self.pieces.iter().map(|piece| Reader::open(gguf, piece, columns));
        let readers = readers.collect::<Result<Vec<_>>>()?;
        // A row of the file's form.
        let read = |mut row: usize, out: &mut [f32]| -> Result<()> {
            for (piece, reader) in self.pieces.iter().zip(&readers) {
                if row < piece.rows {
                    reader.read(row, out)?;
                    out.iter_mut().for_each(|value| *value -= self.offset);
                    return Ok(());
                }
                row -= piece.rows;
            }
            unreachable!("{} has {} rows", self.name, self.rows)
        };
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
                read(row, &mut row_values)?;
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
                read(*row, values)?;
            }
            let result = put(values)?;
            if result.is_err() {
                return Ok(result);
            }
        }
        Ok(Ok(()))
    }
}
