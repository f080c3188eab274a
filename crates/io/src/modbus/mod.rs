//! The plant over Modbus TCP: tags in, commands out, and the device's own watchdog between us and harm.
//!
//! [`Driver::run`] is one task. It polls the site's tags in as few reads as their addresses allow, writes commands
//! in the order they come, and counts the heartbeat register up only while guard cycles complete, so that a guard
//! that hangs or dies lets the device's comms watchdog trip. It reports [`Link::is_armed`] only after the device has
//! confirmed that this watchdog runs; a command that comes while it does not, or while there is no connection, is
//! refused at once and never written later.

mod driver;
mod guard;
mod link;
mod plan;
#[cfg(test)]
mod tests;

pub use driver::Driver;
pub use link::{Link, LinkStatus};

use ganglion_guard::Actuation;
use ganglion_site::{Command, Micros, Outcome};

/// How far a tag's value can be trusted; names as OPC UA's status codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quality {
    /// Read, and inside the tag's range.
    Good,
    /// Read, but not believable: outside the tag's range.
    BadOutOfRange,
    /// The device refused the read; the value is NaN.
    BadDeviceFailure,
    /// No connection; the value is NaN.
    BadNoCommunication,
}

impl Quality {
    /// Whether a decision may use the value.
    pub fn is_good(self) -> bool {
        self == Self::Good
    }
}

/// Takes what was read. Implementations must not block.
pub trait TagSink {
    /// Value of the tag with index `tag` in its unit (bool: 0 or 1), as of `time_us`.
    fn publish(&self, tag: usize, value: f64, quality: Quality, time_us: Micros);
    /// The link may have changed.
    fn link_changed(&self, link: &Link) {
        let _ = link;
    }
}

/// Gives the commands to write: only those that the guard approved. Implementations must not block.
///
/// ```compile_fail,E0053
/// # use ganglion_io::modbus::{CommandSource, WriteFailure};
/// # use ganglion_site::Command;
/// struct Shortcut(Command);
/// impl CommandSource for Shortcut {
///     fn next_command(&mut self) -> Option<Command> {
///         Some(self.0)
///     }
///     fn written(&mut self, _: &Command, _: Result<(), WriteFailure>) {}
/// }
/// ```
pub trait CommandSource {
    /// The next command, `None` when none waits.
    fn next_command(&mut self) -> Option<Actuation>;
    /// What became of a command that [`CommandSource::next_command`] gave; called once for each, in order.
    fn written(&mut self, command: &Command, result: Result<(), WriteFailure>);
}

/// The inside of [`CommandSource`], where the proof has been seen. Private, so that nothing outside this module can
/// have an unapproved command written.
trait Source {
    fn next_order(&mut self) -> Option<Order>;
    fn written(&mut self, command: &Command, result: Result<(), WriteFailure>);
}

/// A command to write.
struct Order {
    command: Command,
    /// It is the safe command: a device that refuses it is fed no longer.
    is_safe: bool,
}

struct Proven<'a, C>(&'a mut C);

impl<C: CommandSource> Source for Proven<'_, C> {
    fn next_order(&mut self) -> Option<Order> {
        let actuation = self.0.next_command()?;
        Some(Order { command: *actuation.approved.get(), is_safe: actuation.outcome == Outcome::Safe })
    }

    fn written(&mut self, command: &Command, result: Result<(), WriteFailure>) {
        self.0.written(command, result);
    }
}

/// Tells whether the guard lives.
pub trait CycleWatch {
    /// Guarded cycles completed so far.
    fn cycles(&self) -> u64;
    /// Whether the device's watchdog may be armed now, also after it tripped.
    fn may_arm(&self) -> bool;
}

/// Why a command did not reach the plant; [`LinkStatus::last_error`] has the details.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WriteFailure {
    /// No connection; nothing was written.
    #[error("the plant is not connected")]
    NotConnected,
    /// The device's comms watchdog is not known to run; nothing was written.
    #[error("the plant's comms watchdog is not armed")]
    NotArmed,
    /// A value fits no register; nothing was written.
    #[error("the command does not fit the plant's registers")]
    Encoding,
    /// The device refused a write; those before it were done.
    #[error("the plant refused the write to {address} with Modbus exception {code}")]
    Exception {
        /// Register or coil address.
        address: u16,
        /// Modbus exception code.
        code: u8,
    },
    /// The connection broke on the way; whether the write was done is unknown.
    #[error("the connection to the plant broke during the write to {address}")]
    Broken {
        /// Register or coil address.
        address: u16,
    },
}
