//! What a command becomes on the wire: fixed-point register values, and what the device will read back out of them.

use crate::text::reason;
use ganglion_site::limits::WRITES_MAX;
use ganglion_site::{Command, Reason, Site, Value, WriteSource, WriteTarget};

/// One raw write.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RawWrite {
    /// Holding register or coil.
    pub target: WriteTarget,
    /// Zero-based protocol address, the selecting argument already added.
    pub address: u16,
    /// Two's complement register value; a coil's is 0 or 1.
    pub raw: u16,
    /// The argument it carries and the value the device will understand, in that argument's unit.
    pub carries: Option<(usize, f64)>,
}

/// All writes of one command, in the site's order. No heap.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RawWrites {
    writes: [Option<RawWrite>; WRITES_MAX],
}

impl RawWrites {
    /// The writes.
    pub fn iter(&self) -> impl Iterator<Item = &RawWrite> {
        self.writes.iter().flatten()
    }
}

/// Encodes `command`: raw = round(value / scale) as two's complement i16.
///
/// # Errors
/// A reason when a value has no number, is not finite, leaves the register's range or an address overflows.
pub fn register_writes(site: &Site, command: &Command) -> Result<RawWrites, Reason> {
    let Some(spec) = site.commands.get(usize::from(command.verb)) else {
        return Err(reason!("command number {} does not exist", command.verb));
    };
    if spec.writes.len() > WRITES_MAX {
        return Err(reason!("{} has more than {WRITES_MAX} register writes", spec.name));
    }
    let mut out = RawWrites { writes: [None; WRITES_MAX] };
    for (place, write) in out.writes.iter_mut().zip(&spec.writes) {
        let offset = match write.select {
            None => 0,
            Some(index) => match command.values.get(index) {
                Some(Value::Choice(choice)) => *choice,
                _ => {
                    return Err(reason!(
                        "{}: the register is selected by an argument that is no choice",
                        spec.name
                    ));
                }
            },
        };
        let Some(address) = write.address.checked_add(offset) else {
            return Err(reason!("{}: register address {} + {offset} overflows", spec.name, write.address));
        };
        let (raw, carries) = match write.source {
            WriteSource::Constant(raw) => (raw, None),
            WriteSource::Argument { index, scale } => {
                let Some(value) = command.values.get(index).and_then(number_of) else {
                    return Err(reason!("{}: argument {index} has no number to write", spec.name));
                };
                let counts = (value / scale).round();
                if !(counts >= f64::from(i16::MIN) && counts <= f64::from(i16::MAX)) {
                    let name = spec.arguments.get(index).map_or("?", |a| a.name.as_str());
                    return Err(reason!(
                        "{}.{name}: {counts} register counts do not fit a register",
                        spec.name
                    ));
                }
                // In range of i16 by the test above, which NaN fails too.
                let raw = counts as i16;
                (raw.cast_unsigned(), Some((index, f64::from(raw) * scale)))
            }
        };
        if write.target == WriteTarget::Coil && raw > 1 {
            return Err(reason!("{}: a coil takes 0 or 1, not {raw}", spec.name));
        }
        *place = Some(RawWrite { target: write.target, address, raw, carries });
    }
    Ok(out)
}

/// The number an argument value is written and limited by: choice index, integer, number, 0 or 1.
pub(crate) fn number_of(value: &Value) -> Option<f64> {
    match value {
        Value::Choice(index) => Some(f64::from(*index)),
        // Beyond 2^53 this rounds; such a value fits no register and is refused there.
        Value::Integer(integer) => Some(*integer as f64),
        Value::Number(number) => Some(*number),
        Value::Bool(on) => Some(f64::from(u8::from(*on))),
        Value::Absent | Value::Text(_) => None,
    }
}
