//! Answers already given: greedy decoding of a fixed model on a fixed site is a pure function of the event's text.

use crate::limits::MEMO_ENTRIES_MAX;
use ganglion_site::Decision;
use std::collections::{HashMap, VecDeque};

/// A bounded map from event text to its decision; the oldest entry goes first.
#[derive(Default)]
pub(crate) struct Memo {
    answers: HashMap<String, Decision>,
    order: VecDeque<String>,
}

impl Memo {
    pub(crate) fn get(&self, text: &str) -> Option<&Decision> {
        self.answers.get(text)
    }

    pub(crate) fn put(&mut self, text: &str, decision: Decision) {
        if self.answers.insert(text.to_owned(), decision).is_some() {
            return;
        }
        self.order.push_back(text.to_owned());
        if self.order.len() > MEMO_ENTRIES_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.answers.remove(&oldest);
        }
    }
}
