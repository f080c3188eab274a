//! The proof that a command passed every check.

/// A value that the guard has checked (and, where the site says so, clamped). There is no public way to make one: no
/// constructor, no field, no `Default`, no deserialisation, so a driver that takes `Approved<Command>` cannot be given
/// anything else.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Approved<T>(T);

impl<T> Approved<T> {
    /// Only the envelope and the pre-checked safe command may call this.
    pub(crate) fn seal(value: T) -> Self {
        Self(value)
    }

    /// What was approved.
    pub fn get(&self) -> &T {
        &self.0
    }
}
