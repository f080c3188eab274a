//! What a site says about plans: what its commands take, do and need, and what must hold while they are carried out.
//!
//! Tags are the state variables. Times are seconds, rates are per second, lengths are metres, everything else is in the
//! tag's own unit. A [`Span`] is an interval of what may happen; every value in it has to be reckoned with.

use crate::command::{Command, Value};
use crate::site::Term;

/// `[plan]`, `[plan.map]` and the `plan` table of every command.
#[derive(Debug, Clone, PartialEq)]
pub struct PlanSpec {
    /// Commands that have a plan are sent as steps of verified plans only, not as answers to sentences.
    pub only: bool,
    /// Longest time of a whole plan, in s.
    pub time_s_max: Option<f64>,
    /// Each has to hold at every moment.
    pub always: Vec<Term>,
    /// None of these may hold at any moment: all terms of one together.
    pub never: Vec<Vec<Term>>,
    /// Each has to hold when the plan has ended.
    pub end: Vec<Term>,
    /// What changes by itself, whatever is done.
    pub drift: Vec<Drift>,
    /// Commands that planning may add to those that were asked for.
    pub insert: Vec<Command>,
    /// How many of them, at most.
    pub insert_max: usize,
    /// Time that the solver has for one question, in ms.
    pub budget_ms: u32,
    /// Places and the roads between them.
    pub map: Option<Map>,
    /// One per command of the site, `None` for those that cannot be part of a plan.
    pub actions: Vec<Option<Action>>,
}

/// An interval, bounds included.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Span {
    /// Smallest value.
    pub lo: f64,
    /// Largest value.
    pub hi: f64,
}

impl Span {
    /// The interval of one value.
    pub const fn exactly(value: f64) -> Self {
        Self { lo: value, hi: value }
    }
}

/// A tag that moves at its own pace.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Drift {
    /// Index into the site's tags.
    pub tag: usize,
    /// In the tag's unit per second.
    pub per_s: Span,
}

/// `[plan.map]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Map {
    /// The tag that reads the number of the place where the machine is.
    pub tag: usize,
    /// At least one; the index is the place everywhere else.
    pub places: Vec<Place>,
    /// Both ways.
    pub roads: Vec<Road>,
    /// Speed on roads, in m/s; the upper end is what travel may not exceed.
    pub m_per_s: Span,
}

/// Somewhere to be.
#[derive(Debug, Clone, PartialEq)]
pub struct Place {
    /// Unique name.
    pub name: String,
    /// What the map's tag reads there.
    pub number: f64,
    /// Coordinates in m.
    pub at_m: [f64; 2],
    /// The place may not be used while all of these hold. Empty: always free.
    pub avoid: Vec<Term>,
}

/// A direct way between two places.
#[derive(Debug, Clone, PartialEq)]
pub struct Road {
    /// The two places.
    pub between: [usize; 2],
    /// In m.
    pub length_m: f64,
    /// The road may not be used while all of these hold. Empty: always free.
    pub avoid: Vec<Term>,
}

/// What a plan has to know of one command.
#[derive(Debug, Clone, PartialEq)]
pub struct Action {
    /// How long it takes.
    pub takes: Takes,
    /// Where the machine has to be for it.
    pub at: Option<Whereabouts>,
    /// Where it brings the machine, over one road.
    pub moves: Option<Whereabouts>,
    /// What has to hold when it begins.
    pub needs: ByChoice<Vec<Term>>,
    /// What it does to tags, at most one effect per tag.
    pub effects: Vec<Effect>,
    /// What tells that it is done; without terms the time alone does.
    pub done: ByChoice<Vec<Term>>,
    /// Time after which a step that is not done has failed, in s; twice its longest time by default.
    pub timeout_s: Option<f64>,
}

/// How long a command takes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Takes {
    /// So long, in s.
    Seconds(Span),
    /// As one of its arguments says.
    Argument {
        /// Index of the argument.
        index: usize,
        /// Seconds per unit of the argument.
        s_per_unit: f64,
    },
    /// As long as the road and the map's speed say.
    Travel,
}

/// A place, or the one that an argument names.
#[derive(Debug, Clone, PartialEq)]
pub enum Whereabouts {
    /// Always there.
    Place(usize),
    /// Where the argument's choice says.
    Argument {
        /// Index of an enum argument.
        index: usize,
        /// The place of each choice.
        places: Vec<usize>,
    },
}

/// Something that may depend on the choice of one enum argument.
#[derive(Debug, Clone, PartialEq)]
pub struct ByChoice<T> {
    /// The argument; `None` = the same for all.
    pub argument: Option<usize>,
    /// One entry, or one per choice.
    pub of: Vec<T>,
}

/// What a command does to one tag.
#[derive(Debug, Clone, PartialEq)]
pub struct Effect {
    /// Which tag.
    pub tag: ByChoice<usize>,
    /// How.
    pub how: EffectHow,
    /// How much.
    pub amount: Amount,
    /// The effect of a rate ends when the tag gets there.
    pub until: Option<f64>,
}

/// The shape of an effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EffectHow {
    /// The tag gets this value, at some moment of the step.
    Set,
    /// The tag moves by this much, at some moment of the step.
    Add,
    /// The tag has this value for a part of the step, and its own again at the end.
    During,
    /// The tag moves by this much per second.
    PerSecond,
    /// The tag moves by this much per metre of road.
    PerMetre,
}

/// The amount of an effect.
#[derive(Debug, Clone, PartialEq)]
pub enum Amount {
    /// An interval, for all choices or for each.
    Span(ByChoice<Span>),
    /// The value of a numeric argument times this.
    Argument {
        /// Index of the argument.
        index: usize,
        /// Units of the effect per unit of the argument.
        factor: f64,
    },
}

impl<T> ByChoice<T> {
    /// The same for all choices.
    pub fn always(value: T) -> Self {
        Self { argument: None, of: vec![value] }
    }

    /// What holds for this command; `None` when it has no such choice.
    pub fn of(&self, command: &Command) -> Option<&T> {
        let Some(argument) = self.argument else { return self.of.first() };
        match command.values.get(argument)? {
            Value::Choice(choice) => self.of.get(usize::from(*choice)),
            _ => None,
        }
    }
}

impl Whereabouts {
    /// The place for this command; `None` when it has no such choice.
    pub fn of(&self, command: &Command) -> Option<usize> {
        match self {
            Self::Place(place) => Some(*place),
            Self::Argument { index, places } => match command.values.get(*index)? {
                Value::Choice(choice) => places.get(usize::from(*choice)).copied(),
                _ => None,
            },
        }
    }
}

impl Amount {
    /// The interval for this command; `None` when it has no such argument.
    pub fn of(&self, command: &Command) -> Option<Span> {
        match self {
            Self::Span(spans) => spans.of(command).copied(),
            Self::Argument { index, factor } => {
                Some(Span::exactly(numeric(command.values.get(*index)?)? * factor))
            }
        }
    }
}

impl PlanSpec {
    /// What a plan knows of this command.
    pub fn action(&self, command: &Command) -> Option<&Action> {
        self.actions.get(usize::from(command.verb))?.as_ref()
    }
}

impl Map {
    /// The place whose number the map's tag reads.
    pub fn place_of(&self, reading: f64) -> Option<usize> {
        self.places.iter().position(|place| place.number == reading)
    }

    /// The direct road between two places.
    pub fn road(&self, from: usize, to: usize) -> Option<usize> {
        self.roads.iter().position(|road| road.between == [from, to] || road.between == [to, from])
    }
}

/// A value as a number: whole, real, or 0 and 1 for a bool.
pub fn numeric(value: &Value) -> Option<f64> {
    match value {
        // Within 2^53 by the argument's own range.
        Value::Integer(value) => Some(*value as f64),
        Value::Number(value) => Some(*value),
        Value::Bool(value) => Some(f64::from(u8::from(*value))),
        Value::Absent | Value::Choice(_) | Value::Text(_) => None,
    }
}
