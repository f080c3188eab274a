//! Reasons without the heap: `core::fmt` into an inline text, cut where it does not fit.

use ganglion_site::Reason;
use ganglion_site::limits::REASON_BYTES_MAX;
use std::fmt::{self, Write};

/// Formats into an inline [`Reason`]; text beyond [`REASON_BYTES_MAX`] is cut at a character boundary.
pub(crate) fn format_reason(arguments: fmt::Arguments<'_>) -> Reason {
    let mut buffer = Buffer { bytes: [0; REASON_BYTES_MAX], size_bytes: 0 };
    // An error only says that the text was cut.
    let _ = buffer.write_fmt(arguments);
    Reason::cut(buffer.as_str())
}

/// `reason!("…", …)`: [`format_reason`] with format arguments.
macro_rules! reason {
    ($($argument:tt)*) => { $crate::text::format_reason(format_args!($($argument)*)) };
}
pub(crate) use reason;

struct Buffer {
    bytes: [u8; REASON_BYTES_MAX],
    size_bytes: usize,
}

impl Buffer {
    fn as_str(&self) -> &str {
        self.bytes.get(..self.size_bytes).and_then(|b| std::str::from_utf8(b).ok()).unwrap_or("")
    }
}

impl Write for Buffer {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = self.bytes.len() - self.size_bytes;
        let end = (0..=text.len().min(room)).rev().find(|&i| text.is_char_boundary(i)).unwrap_or(0);
        for (to, from) in self.bytes.iter_mut().skip(self.size_bytes).zip(text.as_bytes().iter().take(end)) {
            *to = *from;
        }
        self.size_bytes += end;
        if end == text.len() { Ok(()) } else { Err(fmt::Error) }
    }
}

/// A number as a controls engineer writes it: at most four decimals, no trailing zeros, `NaN` and `inf` by name.
pub(crate) struct Quantity<'a>(pub f64, pub &'a str);

impl fmt::Display for Quantity<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.0;
        if value.is_finite() && value.abs() < 1e9 {
            write!(f, "{}", (value * 1e4).round() / 1e4 + 0.0)?;
        } else {
            write!(f, "{value:e}")?;
        }
        if self.1.is_empty() { Ok(()) } else { write!(f, " {}", self.1) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_and_cuts_at_a_character_boundary() {
        assert_eq!(reason!("{} {}", 1, "ab").as_str(), "1 ab");
        let long = "ä".repeat(REASON_BYTES_MAX);
        let cut = reason!("x{long}");
        assert_eq!(cut.as_str().len(), REASON_BYTES_MAX - 1);
        assert!(cut.as_str().ends_with('ä'));
    }

    #[test]
    fn quantities_read_well() {
        assert_eq!(Quantity(20.1 + 0.2, "C").to_string(), "20.3 C");
        assert_eq!(Quantity(40.0, "%").to_string(), "40 %");
        assert_eq!(Quantity(f64::NAN, "").to_string(), "NaN");
        assert_eq!(Quantity(f64::NEG_INFINITY, "m").to_string(), "-inf m");
        assert_eq!(Quantity(999_999_999.0, "").to_string(), "999999999");
        assert_eq!(Quantity(1e9, "").to_string(), "1e9");
        assert_eq!(Quantity(-0.00000001, "").to_string(), "0");
    }
}
