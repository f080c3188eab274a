//! Values against the arguments they are for: reading, checking, showing.

use crate::command::{ArgumentKind, ArgumentSpec, ShortText, Value};
use crate::error::CommandError;
use crate::limits::DECIMALS_MAX;
use crate::number::{Grid, push_decimal, shortest};

/// A value as TOML or JSON has it, before it is known what it is for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Scalar<'a> {
    Text(&'a str),
    Integer(i64),
    Number(f64),
    Bool(bool),
    /// None of the above; the words say what.
    Other(&'static str),
}

impl std::fmt::Display for Scalar<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Text(text) => {
                write!(f, "{:?}", text.chars().take(crate::limits::QUOTE_BYTES_MAX).collect::<String>())
            }
            Self::Integer(value) => write!(f, "{value}"),
            Self::Number(value) if value.abs() >= 1e15 => write!(f, "{value:e}"),
            Self::Number(value) => write!(f, "{value}"),
            Self::Bool(value) => write!(f, "{value}"),
            Self::Other(words) => f.write_str(words),
        }
    }
}

impl ArgumentSpec {
    /// What the argument takes, in words for an error message.
    pub fn expected(&self) -> String {
        let unit = if self.unit.is_empty() { String::new() } else { format!(" {}", self.unit) };
        match &self.kind {
            ArgumentKind::Enum(choices) => format!("one of {}", choices.join(", ")),
            ArgumentKind::Integer { lo, hi } => format!("a whole number from {lo} to {hi}{unit}"),
            ArgumentKind::Number { lo, hi, step } => {
                let (lo, hi, step) = (shortest(*lo), shortest(*hi), shortest(*step));
                format!("a number from {lo} to {hi}{unit} in steps of {step}")
            }
            ArgumentKind::Bool => "true or false".into(),
            ArgumentKind::Text { bytes_max } => format!("text of at most {bytes_max} bytes"),
        }
    }

    /// A value for people: the choice's name, the number with its unit.
    pub fn show(&self, value: &Value) -> String {
        let unit = if self.unit.is_empty() { String::new() } else { format!(" {}", self.unit) };
        match (value, &self.kind) {
            (Value::Absent, _) => "nothing".into(),
            (Value::Choice(index), ArgumentKind::Enum(choices)) => match choices.get(usize::from(*index)) {
                Some(choice) => choice.clone(),
                None => format!("choice {index}"),
            },
            (Value::Choice(index), _) => format!("choice {index}"),
            (Value::Integer(value), _) => format!("{value}{unit}"),
            (Value::Number(value), _) => {
                let mut out = String::new();
                push_decimal(&mut out, *value, self.decimals());
                out + &unit
            }
            (Value::Bool(value), _) => if *value { "yes" } else { "no" }.into(),
            (Value::Text(text), _) => format!("{:?}", text.as_str()),
        }
    }

    /// Decimals of the step of a number argument, 0 for a whole one.
    pub fn decimals(&self) -> u8 {
        match self.kind {
            ArgumentKind::Number { step, .. } => Grid::new(step).map_or(DECIMALS_MAX, |grid| grid.decimals),
            _ => 0,
        }
    }

    /// Whether `value` is one that the argument takes. Allocates only to say what is wrong.
    ///
    /// # Errors
    /// [`CommandError`] naming the argument, what it takes, and what was found.
    pub fn check(&self, value: &Value) -> Result<(), CommandError> {
        match (&self.kind, value) {
            (ArgumentKind::Enum(choices), Value::Choice(index)) if usize::from(*index) < choices.len() => {
                Ok(())
            }
            (ArgumentKind::Enum(_), Value::Choice(_)) => Err(CommandError::UnknownChoice {
                field: self.name.clone(),
                expected: self.expected(),
                found: self.show(value),
            }),
            (ArgumentKind::Integer { lo, hi }, Value::Integer(value)) => {
                if (lo..=hi).contains(&value) {
                    Ok(())
                } else {
                    Err(self.out_of_range(Scalar::Integer(*value)))
                }
            }
            (ArgumentKind::Number { .. }, Value::Number(value)) => self.snap(*value).map(|_| ()),
            (ArgumentKind::Bool, Value::Bool(_)) => Ok(()),
            (ArgumentKind::Text { bytes_max }, Value::Text(text)) => {
                if text.as_str().len() <= *bytes_max {
                    Ok(())
                } else {
                    Err(self.out_of_range(Scalar::Text(text.as_str())))
                }
            }
            _ => Err(CommandError::WrongType {
                field: self.name.clone(),
                expected: self.expected(),
                found: self.show(value),
            }),
        }
    }

    /// A number in range and on a step; the f64 nearest to its decimal form.
    fn snap(&self, value: f64) -> Result<f64, CommandError> {
        let ArgumentKind::Number { lo, hi, step } = self.kind else {
            return Err(self.wrong_type(Scalar::Number(value)));
        };
        if !value.is_finite() {
            return Err(CommandError::NotFinite { field: self.name.clone(), found: value.to_string() });
        }
        let snapped = Grid::new(step).and_then(|grid| grid.snap(value));
        // A hair outside the range may still be its end; whatever is further out is out of range first of all.
        match snapped {
            Some(snapped) if (lo..=hi).contains(&snapped) => Ok(snapped),
            None if (lo..=hi).contains(&value) => Err(CommandError::NotAMultiple {
                field: self.name.clone(),
                step: shortest(step),
                found: value.to_string(),
            }),
            _ => Err(self.out_of_range(Scalar::Number(value))),
        }
    }

    fn out_of_range(&self, found: Scalar<'_>) -> CommandError {
        CommandError::OutOfRange {
            field: self.name.clone(),
            expected: self.expected(),
            found: found.to_string(),
        }
    }

    fn wrong_type(&self, found: Scalar<'_>) -> CommandError {
        CommandError::WrongType {
            field: self.name.clone(),
            expected: self.expected(),
            found: found.to_string(),
        }
    }

    /// The value that `scalar` means for this argument.
    pub(crate) fn read(&self, scalar: Scalar<'_>) -> Result<Value, CommandError> {
        match (&self.kind, scalar) {
            (ArgumentKind::Enum(choices), Scalar::Text(text)) => {
                let index = choices.iter().position(|choice| choice == text);
                let index = index.and_then(|index| u16::try_from(index).ok());
                index.map(Value::Choice).ok_or_else(|| CommandError::UnknownChoice {
                    field: self.name.clone(),
                    expected: self.expected(),
                    found: scalar.to_string(),
                })
            }
            (ArgumentKind::Integer { lo, hi }, Scalar::Integer(_) | Scalar::Number(_)) => {
                let whole = match scalar {
                    Scalar::Integer(value) => Some(value),
                    // JSON Schema takes 21.0 for an integer, so we do; within 2^53 the cast is exact.
                    Scalar::Number(value) if value.fract() == 0.0 && value.abs() < 9e15 => Some(value as i64),
                    Scalar::Number(value) if !value.is_finite() => {
                        return Err(CommandError::NotFinite {
                            field: self.name.clone(),
                            found: value.to_string(),
                        });
                    }
                    Scalar::Number(value) if value.fract() == 0.0 => return Err(self.out_of_range(scalar)),
                    _ => None,
                };
                let whole = whole.ok_or_else(|| self.wrong_type(scalar))?;
                if (lo..=hi).contains(&&whole) {
                    Ok(Value::Integer(whole))
                } else {
                    Err(self.out_of_range(scalar))
                }
            }
            (ArgumentKind::Number { .. }, Scalar::Number(value)) => self.snap(value).map(Value::Number),
            // Rounding a huge whole number cannot bring it into a range.
            (ArgumentKind::Number { .. }, Scalar::Integer(value)) => {
                self.snap(value as f64).map(Value::Number)
            }
            (ArgumentKind::Bool, Scalar::Bool(value)) => Ok(Value::Bool(value)),
            (ArgumentKind::Text { bytes_max }, Scalar::Text(text)) => ShortText::new(text)
                .filter(|_| text.len() <= *bytes_max)
                .map(Value::Text)
                .ok_or_else(|| self.out_of_range(scalar)),
            _ => Err(self.wrong_type(scalar)),
        }
    }
}
