//! Frames: what one cycle was given and what came out of it, as bytes.
//!
//! A frame is a kind and a body in postcard's encoding (varints, floats by their bits), with runs of zeros folded. Between
//! cycle and writer, and inside a block of a file, each frame is preceded by its size. Tags, link, brain and lease are
//! written when they change; times relative to the cycle's own.

use ganglion_guard::{
    Actuated, BrainAction, BrainProcess, Field, Fingerprint, Input, Link, OperatorCommand, Quality, Record,
    Request, Seen, TagSample, stand_in,
};
use ganglion_site::limits::TAGS_MAX;
use ganglion_site::{Decision, Event, Micros, Progress};
use serde::{Deserialize, Serialize};

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// The guard's whole state before a cycle.
    State = 1,
    /// What a cycle was given.
    Begin = 2,
    /// What came out of it.
    End = 3,
    /// Another policy, by its fingerprint.
    Adopt = 4,
    /// A notice from outside the cycle.
    Note = 5,
    /// Frames were lost before this one.
    Gap = 6,
    /// The text of a site file.
    Site = 7,
    /// A fault was seen in the cycle before.
    Fault = 8,
    /// Another variant of the model answers from the next cycle on.
    Variant = 9,
}

impl Kind {
    pub fn of(byte: u8) -> Option<Self> {
        use Kind::{Adopt, Begin, End, Fault, Gap, Note, Site, State, Variant};
        [State, Begin, End, Adopt, Note, Gap, Site, Fault, Variant]
            .into_iter()
            .find(|kind| *kind as u8 == byte)
    }
}

/// One tag that is not as it was.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct TagChange {
    tag: u8,
    quality: Quality,
    /// Of the sample, before the cycle's time.
    age_us: i64,
    /// `None`: the value is as it was, to the last bit.
    value: Option<f64>,
}

impl TagChange {
    const NONE: Self = Self { tag: 0, quality: Quality::Bad, age_us: 0, value: None };
}

/// What a cycle was given, less what is as in the cycle before.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Begin<T, D, P> {
    /// Since the cycle before; the first after a state: the time itself.
    pub elapsed_us: u64,
    tag_count: u8,
    pub changes: T,
    link: Option<(bool, u8, i64)>,
    sole_writer: bool,
    estop: bool,
    brain: Option<BrainProcess>,
    operator: Option<OperatorCommand>,
    event: Option<Request>,
    signs_of_life: u8,
    decisions: D,
    progress: P,
}

/// What came out of a cycle. `quiet` stands for: nothing but a heartbeat as the lease has it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct End<E, F, R> {
    pub event: Option<E>,
    pub actuated: Option<Actuated>,
    pub brain: BrainAction,
    pub heartbeat: bool,
    pub fields: F,
    pub records: R,
    /// CRC-32 of the status in postcard's encoding.
    pub status_crc: u32,
}

pub(crate) type OwnedBegin = Begin<Vec<TagChange>, Vec<Decision>, Vec<Progress>>;
pub(crate) type OwnedEnd = End<Event, Vec<Field>, Vec<Record>>;

/// What the cycle before was given; the base of the next one's changes, on both sides.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Before {
    pub now: Micros,
    tags: [TagSample; TAGS_MAX],
    link: Link,
    brain: BrainProcess,
}

impl Before {
    pub const NOTHING: Self =
        Self { now: 0, tags: [TagSample::MISSING; TAGS_MAX], link: Link::DOWN, brain: BrainProcess::Absent };
}

/// A slice whose elements are written one after another, changed on the way.
struct Each<'s, T, F>(&'s [T], F);

impl<T, U: Serialize, F: Fn(&T) -> U> Serialize for Each<'_, T, F> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(&self.1))
    }
}

fn relative(now: Micros, at: Micros) -> i64 {
    now.wrapping_sub(at).cast_signed()
}

fn absolute(now: Micros, relative: i64) -> Micros {
    now.wrapping_sub(relative.cast_unsigned())
}

/// Writes what a cycle is given; `None` when there is no room. No heap.
pub(crate) fn write_begin<'o>(
    before: &mut Before,
    now: Micros,
    input: &Input<'_>,
    keep_text: bool,
    out: &'o mut [u8],
) -> Option<&'o mut [u8]> {
    let mut changes = [TagChange::NONE; TAGS_MAX];
    let mut count = 0;
    let tags = input.tags.get(..input.tags.len().min(TAGS_MAX)).unwrap_or(&[]);
    for ((tag, sample), last) in (0u8..).zip(tags).zip(&mut before.tags) {
        let same_value = sample.value.to_bits() == last.value.to_bits();
        if same_value && sample.quality == last.quality && sample.time_us == last.time_us {
            continue;
        }
        let value = (!same_value).then_some(sample.value);
        if let Some(change) = changes.get_mut(count) {
            *change =
                TagChange { tag, quality: sample.quality, age_us: relative(now, sample.time_us), value };
            count += 1;
        }
        *last = *sample;
    }
    let link = (input.link != before.link).then(|| {
        let link = input.link;
        (link.connected, link.watchdog as u8, relative(now, link.heartbeat_ack_us))
    });
    let signs = input.decisions.iter().take_while(|d| **d == Decision::SIGN_OF_LIFE).count().min(255);
    let begin = Begin {
        elapsed_us: now.wrapping_sub(before.now),
        tag_count: u8::try_from(tags.len()).unwrap_or(u8::MAX),
        changes: changes.get(..count).unwrap_or(&[]),
        link,
        sole_writer: input.sole_writer,
        estop: input.estop,
        brain: (input.brain != before.brain).then_some(input.brain),
        operator: input.operator,
        event: input.event.map(|event| if keep_text { *event } else { without_text(event) }),
        signs_of_life: u8::try_from(signs).unwrap_or(0),
        decisions: input.decisions.get(signs..).unwrap_or(&[]),
        progress: input.progress,
    };
    (before.now, before.link, before.brain) = (now, input.link, input.brain);
    postcard::to_slice(&begin, out).ok()
}

/// Writes what came out of a cycle; `None` when there is no room. No heap.
pub(crate) fn write_end<'o>(seen: &Seen<'_>, keep_text: bool, out: &'o mut [u8]) -> Option<&'o mut [u8]> {
    let status_crc = ganglion_site::crc32(postcard::to_slice(seen.status, out).ok()?);
    let of_event = |event: &Event| Event { sentence: stand_in(&event.sentence), ..*event };
    let as_kept = |record: &Record| {
        if keep_text { *record } else { Record { event: of_event(&record.event), ..*record } }
    };
    let end = End {
        event: seen.event.map(|event| if keep_text { *event } else { of_event(event) }),
        actuated: seen.actuated,
        brain: seen.brain,
        heartbeat: seen.heartbeat,
        fields: seen.fields,
        records: Each(seen.records, as_kept),
        status_crc,
    };
    postcard::to_slice(&end, out).ok()
}

fn without_text(request: &Request) -> Request {
    Request { sentence: stand_in(&request.sentence), ..*request }
}

/// A cycle's input, with everything that was as before.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Given {
    pub now: Micros,
    pub tags: Vec<TagSample>,
    pub link: Link,
    pub sole_writer: bool,
    pub estop: bool,
    pub brain: BrainProcess,
    pub operator: Option<OperatorCommand>,
    pub event: Option<Request>,
    pub decisions: Vec<Decision>,
    pub progress: Vec<Progress>,
}

impl Given {
    pub fn input(&self) -> Input<'_> {
        Input {
            tags: &self.tags,
            link: self.link,
            sole_writer: self.sole_writer,
            event: self.event.as_ref(),
            decisions: &self.decisions,
            progress: &self.progress,
            brain: self.brain,
            operator: self.operator,
            estop: self.estop,
        }
    }
}

/// The cycle's input out of what has changed; `None` for a tag or link that cannot be.
pub(crate) fn read_begin(before: &mut Before, begin: OwnedBegin) -> Option<Given> {
    let now = before.now.wrapping_add(begin.elapsed_us);
    for change in &begin.changes {
        let last = before.tags.get_mut(usize::from(change.tag))?;
        *last = TagSample {
            value: change.value.unwrap_or(last.value),
            quality: change.quality,
            time_us: absolute(now, change.age_us),
        };
    }
    if let Some((connected, watchdog, age_us)) = begin.link {
        use ganglion_guard::DeviceWatchdog::{Armed, Off, Tripped};
        let watchdog = [Off, Armed, Tripped].into_iter().find(|w| *w as u8 == watchdog)?;
        before.link = Link { connected, watchdog, heartbeat_ack_us: absolute(now, age_us) };
    }
    before.brain = begin.brain.unwrap_or(before.brain);
    before.now = now;
    let signs = std::iter::repeat_n(Decision::SIGN_OF_LIFE, usize::from(begin.signs_of_life));
    Some(Given {
        now,
        tags: before.tags.get(..usize::from(begin.tag_count))?.to_vec(),
        link: before.link,
        sole_writer: begin.sole_writer,
        estop: begin.estop,
        brain: before.brain,
        operator: begin.operator,
        event: begin.event,
        decisions: signs.chain(begin.decisions).collect(),
        progress: begin.progress,
    })
}

/// Another policy takes over before the next cycle.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Adopt {
    pub before: Fingerprint,
    pub after: Fingerprint,
}

/// Folds runs of zeros: a zero is followed by how many there are. `None` when there is no room.
pub(crate) fn fold(bytes: &[u8], out: &mut [u8]) -> Option<usize> {
    let mut at = 0;
    let mut zeros = 0u8;
    let mut put = |byte: u8, at: &mut usize| -> Option<()> {
        *out.get_mut(*at)? = byte;
        *at += 1;
        Some(())
    };
    for &byte in bytes {
        if byte == 0 && zeros < u8::MAX {
            zeros += 1;
            continue;
        }
        if zeros > 0 {
            put(0, &mut at)?;
            put(zeros, &mut at)?;
            zeros = 0;
        }
        if byte == 0 {
            zeros = 1;
        } else {
            put(byte, &mut at)?;
        }
    }
    if zeros > 0 {
        put(0, &mut at)?;
        put(zeros, &mut at)?;
    }
    Some(at)
}

/// The reverse of [`fold`]; `None` for what it never writes, or more than `bytes_max`.
pub(crate) fn unfold(bytes: &[u8], bytes_max: usize) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity((bytes.len() * 2).min(bytes_max));
    let mut rest = bytes.iter();
    while let Some(&byte) = rest.next() {
        if byte == 0 {
            let count = *rest.next().filter(|count| **count > 0)?;
            out.resize(out.len() + usize::from(count), 0);
        } else {
            out.push(byte);
        }
        if out.len() > bytes_max {
            return None;
        }
    }
    Some(out)
}
