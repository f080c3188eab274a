//! Which event's command each output of the plant follows.
//!
//! Events are asked one after the other and answered in any order. An output that follows a younger event's command is not
//! given an older one's: that answer is superseded. Outputs are the registers that a command writes; for a command that
//! writes none, the command itself.

use crate::registers::register_writes;
use ganglion_site::{ArgumentKind, Command, Epoch, Site, WriteTarget};

/// The youngest event that each output follows; 0 = none.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub(crate) struct Outputs {
    /// Sorted.
    registers: Vec<(bool, u16)>,
    of_registers: Vec<Epoch>,
    of_commands: Vec<Epoch>,
    /// Events up to this one were asked before the safe command went out.
    of_safe: Epoch,
}

impl Outputs {
    /// Allocates everything.
    pub fn new(site: &Site) -> Self {
        let mut registers: Vec<(bool, u16)> = Vec::new();
        for spec in &site.commands {
            for write in &spec.writes {
                let selected = write.select.and_then(|index| spec.arguments.get(index));
                let count = match selected.map(|argument| &argument.kind) {
                    Some(ArgumentKind::Enum(choices)) => choices.len(),
                    _ => 1,
                };
                let last = u16::try_from(count.saturating_sub(1)).unwrap_or(u16::MAX);
                let addresses = write.address..=write.address.saturating_add(last);
                registers.extend(addresses.map(|address| key(write.target, address)));
            }
        }
        registers.sort_unstable();
        registers.dedup();
        Self {
            of_registers: vec![0; registers.len()],
            of_commands: vec![0; site.commands.len()],
            registers,
            of_safe: 0,
        }
    }

    /// Registers and commands.
    pub fn count(&self) -> usize {
        self.of_registers.len() + self.of_commands.len()
    }

    /// A command of this event went out.
    pub fn note(&mut self, site: &Site, command: &Command, epoch: Epoch) {
        if let Some(of) = self.of_commands.get_mut(usize::from(command.verb)) {
            *of = (*of).max(epoch);
        }
        let Ok(writes) = register_writes(site, command) else { return };
        for write in writes.iter() {
            if let Some(of) =
                self.place(write.target, write.address).and_then(|i| self.of_registers.get_mut(i))
            {
                *of = (*of).max(epoch);
            }
        }
    }

    /// The safe command went out; `epoch` is the event it answers, or the next one to be asked.
    pub fn note_safe(&mut self, epoch: Epoch) {
        self.of_safe = self.of_safe.max(epoch);
    }

    /// Whether a younger event than this one, or the safe command, has had the last word on what `command` writes.
    pub fn superseded(&self, site: &Site, command: &Command, epoch: Epoch) -> bool {
        let writes = site.commands.get(usize::from(command.verb)).is_some_and(|spec| !spec.writes.is_empty());
        let newest = match register_writes(site, command) {
            Ok(raw) if writes => raw
                .iter()
                .filter_map(|write| self.of_registers.get(self.place(write.target, write.address)?))
                .copied()
                .max(),
            _ => self.of_commands.get(usize::from(command.verb)).copied(),
        };
        newest.unwrap_or(0).max(self.of_safe) > epoch
    }

    fn place(&self, target: WriteTarget, address: u16) -> Option<usize> {
        self.registers.binary_search(&key(target, address)).ok()
    }
}

fn key(target: WriteTarget, address: u16) -> (bool, u16) {
    (target == WriteTarget::Coil, address)
}
