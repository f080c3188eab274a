//! Tables of measurements from CSV files (RFC 4180 without line breaks inside quotes), a byte order mark allowed.

use crate::error::Error;
use crate::limits::{COLUMNS_MAX, SCRIPT_BYTES_MAX, SCRIPT_ITEMS_MAX};
use std::path::{Path, PathBuf};

/// A CSV file in memory.
#[derive(Debug, Clone)]
pub struct Table {
    file: PathBuf,
    columns: Vec<Column>,
    /// What follows the header line.
    body: String,
    header_line: u64,
}

/// The header of one column: `Tool wear [min]` has name `tool_wear` and unit `min`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Lower case, words joined by `_`.
    pub name: String,
    /// What stands in square brackets, or empty.
    pub unit: String,
}

/// One data row.
#[derive(Debug)]
pub struct Row<'a> {
    table: &'a Table,
    cells: Vec<String>,
    line: u64,
}

impl Table {
    /// Reads a file.
    ///
    /// # Errors
    /// Not readable, not UTF-8, too long, no header line.
    pub fn load(file: &Path) -> Result<Self, Error> {
        Self::parse(file, read_bounded(file)?)
    }

    /// Takes a file's content; `file` is for messages.
    ///
    /// # Errors
    /// As [`Table::load`].
    pub fn parse(file: &Path, bytes: Vec<u8>) -> Result<Self, Error> {
        let text = String::from_utf8(bytes).map_err(|error| {
            let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
            let line = 1 + good.iter().filter(|&&b| b == b'\n').count() as u64;
            Error::Line { file: file.to_owned(), line, reason: "not UTF-8".to_owned() }
        })?;
        let text = text.strip_prefix('\u{FEFF}').unwrap_or(&text);
        let mut header_line = 0;
        let mut rest = text;
        let header = loop {
            if rest.is_empty() {
                let reason = "no header line with column names".to_owned();
                return Err(Error::Line { file: file.to_owned(), line: 1, reason });
            }
            let (line, after) = rest.split_once('\n').unwrap_or((rest, ""));
            (rest, header_line) = (after, header_line + 1);
            if !line.trim().is_empty() {
                break line.trim_end_matches('\r');
            }
        };
        let failed = |reason| Error::Line { file: file.to_owned(), line: header_line, reason };
        let columns: Vec<Column> =
            split(header).map_err(failed)?.iter().map(|cell| Column::from_header(cell)).collect();
        Ok(Self { file: file.to_owned(), columns, body: rest.to_owned(), header_line })
    }

    /// The columns in file order.
    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// The column with the first of these names that exists.
    ///
    /// # Errors
    /// None has one of them, or two share it.
    pub fn column(&self, names: &[&str]) -> Result<usize, Error> {
        for name in names {
            let mut found = self.columns.iter().enumerate().filter(|(_, column)| column.name == *name);
            match (found.next(), found.next()) {
                (Some((index, _)), None) => return Ok(index),
                (Some(_), Some(_)) => {
                    return Err(self.header_error(format!("two columns are named `{name}`")));
                }
                _ => {}
            }
        }
        Err(self.header_error(format!("no column is named `{}`", names.join("` or `"))))
    }

    /// An error about the header line.
    pub(crate) fn header_error(&self, reason: String) -> Error {
        Error::Line { file: self.file.clone(), line: self.header_line, reason }
    }

    /// The data rows; blank lines are passed over. A malformed row is an error with its line number.
    pub fn rows(&self) -> impl Iterator<Item = Result<Row<'_>, Error>> {
        let first = self.header_line + 1;
        self.body.lines().zip(first..).filter(|(text, _)| !text.trim().is_empty()).map(|(text, line)| {
            let failed = |reason| Error::Line { file: self.file.clone(), line, reason };
            let cells = split(text).map_err(failed)?;
            if cells.len() != self.columns.len() {
                let (found, expected) = (cells.len(), self.columns.len());
                return Err(failed(format!("{found} cells, expected {expected} as in the header")));
            }
            Ok(Row { table: self, cells, line })
        })
    }
}

impl Column {
    fn from_header(cell: &str) -> Self {
        let (name, unit) = match cell.split_once('[') {
            Some((name, rest)) => (name, rest.split(']').next().unwrap_or("").trim()),
            None => (cell, ""),
        };
        let words: Vec<String> = name
            .split(|c: char| !c.is_alphanumeric())
            .filter(|word| !word.is_empty())
            .map(str::to_lowercase)
            .collect();
        Self { name: words.join("_"), unit: unit.to_owned() }
    }
}

impl Row<'_> {
    /// Counted from 1 in the file.
    pub fn line(&self) -> u64 {
        self.line
    }

    /// The text of a cell, empty past the last column.
    pub fn text(&self, column: usize) -> &str {
        self.cells.get(column).map_or("", |cell| cell.trim())
    }

    /// A cell as a finite number.
    ///
    /// # Errors
    /// [`Error::Line`] with the column's name and what was found.
    pub fn number(&self, column: usize) -> Result<f64, Error> {
        let text = self.text(column);
        match text.parse::<f64>() {
            Ok(value) if value.is_finite() => Ok(value),
            _ => {
                let name = self.table.columns.get(column).map_or("?", |column| column.name.as_str());
                Err(self.error(format!("column `{name}`: found `{text}`, expected a number")))
            }
        }
    }

    /// An error about this row.
    pub(crate) fn error(&self, reason: String) -> Error {
        Error::Line { file: self.table.file.clone(), line: self.line, reason }
    }
}

/// Reads a file of at most [`SCRIPT_BYTES_MAX`] bytes.
pub(crate) fn read_bounded(file: &Path) -> Result<Vec<u8>, Error> {
    use std::io::Read;
    let failed = |source| Error::Read { file: file.to_owned(), source };
    let mut bytes = Vec::new();
    let opened = std::fs::File::open(file).map_err(failed)?;
    opened.take(SCRIPT_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > SCRIPT_BYTES_MAX {
        let found = opened_size(file).unwrap_or(bytes.len() as u64);
        return Err(Error::TooMuch { file: file.to_owned(), what: "bytes", found, max: SCRIPT_BYTES_MAX });
    }
    Ok(bytes)
}

fn opened_size(file: &Path) -> Option<u64> {
    std::fs::metadata(file).ok().map(|data| data.len())
}

pub(crate) fn too_many_items(file: &Path, found: usize) -> Error {
    let max = SCRIPT_ITEMS_MAX as u64;
    Error::TooMuch { file: file.to_owned(), what: "items", found: found as u64, max }
}

fn split(line: &str) -> Result<Vec<String>, String> {
    let mut cells = vec![String::new()];
    let mut quoted = false;
    let mut characters = line.chars().peekable();
    while let Some(character) = characters.next() {
        let Some(cell) = cells.last_mut() else { break };
        match character {
            '"' if quoted && characters.peek() == Some(&'"') => {
                characters.next();
                cell.push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => {
                if cells.len() == COLUMNS_MAX {
                    return Err(format!("more than {COLUMNS_MAX} columns"));
                }
                cells.push(String::new());
            }
            other => cell.push(other),
        }
    }
    if quoted { Err("a quote that does not end on its line".to_owned()) } else { Ok(cells) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(text: &str) -> Result<Table, Error> {
        Table::parse(Path::new("parts.csv"), text.as_bytes().to_vec())
    }

    #[test]
    fn reads_headers_with_units_quotes_and_a_byte_order_mark() {
        let table = table("\u{FEFF}UDI,Tool wear [min],\"a \"\"b\"\", c\"\r\n1,3, x \r\n\r\n2,5,y").unwrap();
        let names: Vec<_> = table.columns().iter().map(|c| (c.name.as_str(), c.unit.as_str())).collect();
        assert_eq!(names, [("udi", ""), ("tool_wear", "min"), ("a_b_c", "")]);
        let rows: Vec<_> = table.rows().map(Result::unwrap).collect();
        assert_eq!((rows[0].number(1).unwrap(), rows[0].text(2)), (3.0, "x"));
        assert_eq!((rows[1].line(), rows[1].text(9)), (4, ""));
    }

    #[test]
    fn bad_rows_name_their_line() {
        let parsed = table("a,b\n1,2\n3\n").unwrap();
        let error = parsed.rows().nth(1).unwrap().unwrap_err().to_string();
        assert_eq!(error, "parts.csv:3: 1 cells, expected 2 as in the header");
        let parsed = table("a\nNaN\n").unwrap();
        let error = parsed.rows().next().unwrap().unwrap().number(0).unwrap_err().to_string();
        assert_eq!(error, "parts.csv:2: column `a`: found `NaN`, expected a number");
        assert!(table("").unwrap_err().to_string().contains("no header"));
        assert!(table("a,a\n").unwrap().column(&["a"]).unwrap_err().to_string().contains("two columns"));
        let error = Table::parse(Path::new("x"), b"a\nb\xFF".to_vec()).unwrap_err().to_string();
        assert_eq!(error, "x:2: not UTF-8");
    }
}
