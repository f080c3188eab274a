//! Operator commands on their way to the guard: a short queue, which a stop or an abort overtakes and empties.

use crate::limits::OPERATOR_QUEUE_MAX;
use crate::status::OperatorCommand;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// So many commands wait already that this one was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{OPERATOR_QUEUE_MAX} mode commands wait for the guard already; say it again")]
pub struct OperatorQueueFull;

/// The end that operators write to.
#[derive(Debug)]
pub struct OperatorQueue {
    waiting: rtrb::Producer<(u64, OperatorCommand)>,
    urgent: Arc<AtomicU64>,
    /// Number of the last command.
    last: u64,
}

/// The end that the guard reads, one command a cycle.
#[derive(Debug)]
pub(crate) struct OperatorCommands {
    waiting: rtrb::Consumer<(u64, OperatorCommand)>,
    /// The last stop or abort: its number above [`KIND_BITS`] bits of what it is; 0 = none.
    urgent: Arc<AtomicU64>,
    /// Commands before this one were overtaken.
    from: u64,
}

const KIND_BITS: u32 = 2;
const STOP: u64 = 1;
const ABORT: u64 = 2;

/// Both ends.
pub(crate) fn operator_queue() -> (OperatorQueue, OperatorCommands) {
    let (producer, consumer) = rtrb::RingBuffer::new(OPERATOR_QUEUE_MAX);
    let urgent = Arc::new(AtomicU64::new(0));
    (
        OperatorQueue { waiting: producer, urgent: Arc::clone(&urgent), last: 0 },
        OperatorCommands { waiting: consumer, urgent, from: 0 },
    )
}

impl OperatorQueue {
    /// Hands a command to the guard. A stop or an abort always arrives, in the guard's next cycle, and nothing that was said
    /// before it is obeyed after it.
    ///
    /// # Errors
    /// If too many wait.
    pub fn send(&mut self, command: OperatorCommand) -> Result<(), OperatorQueueFull> {
        self.last += 1;
        let kind = match command {
            OperatorCommand::Stop => STOP,
            OperatorCommand::Abort => ABORT,
            _ => return self.waiting.push((self.last, command)).map_err(|_| OperatorQueueFull),
        };
        let merge = |old: u64| Some(self.last << KIND_BITS | kind.max(old & ((1 << KIND_BITS) - 1)));
        // The closure always gives a value.
        let _ = self.urgent.fetch_update(Ordering::AcqRel, Ordering::Acquire, merge);
        Ok(())
    }
}

impl OperatorCommands {
    /// What is to be obeyed next.
    pub fn next(&mut self) -> Option<OperatorCommand> {
        let urgent = self.urgent.swap(0, Ordering::AcqRel);
        if urgent != 0 {
            self.from = urgent >> KIND_BITS;
            let is_abort = urgent & ((1 << KIND_BITS) - 1) == ABORT;
            return Some(if is_abort { OperatorCommand::Abort } else { OperatorCommand::Stop });
        }
        while let Ok((number, command)) = self.waiting.pop() {
            if number > self.from {
                return Some(command);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use OperatorCommand::{Abort, Hold, Reset, Stop, Unhold};

    fn after(sent: &[OperatorCommand]) -> Vec<OperatorCommand> {
        let (mut queue, mut commands) = operator_queue();
        sent.iter().for_each(|command| queue.send(*command).unwrap());
        std::iter::from_fn(|| commands.next()).collect()
    }

    #[test]
    fn a_stop_overtakes_what_was_said_before_it_and_nothing_else() {
        assert_eq!(after(&[Hold, Unhold]), [Hold, Unhold]);
        assert_eq!(after(&[Hold, Unhold, Stop]), [Stop]);
        assert_eq!(after(&[Hold, Stop, Reset, Hold]), [Stop, Reset, Hold]);
    }

    #[test]
    fn a_stop_does_not_take_the_place_of_an_abort() {
        for sent in [[Stop, Abort], [Abort, Stop]] {
            assert_eq!(after(&sent), [Abort]);
        }
    }

    #[test]
    fn a_full_queue_refuses_all_but_a_stop() {
        let (mut queue, mut commands) = operator_queue();
        (0..OPERATOR_QUEUE_MAX).for_each(|_| queue.send(Hold).unwrap());
        assert_eq!(queue.send(Unhold), Err(OperatorQueueFull));
        assert_eq!(queue.send(Stop), Ok(()));
        assert_eq!((commands.next(), commands.next()), (Some(Stop), None));
    }
}
