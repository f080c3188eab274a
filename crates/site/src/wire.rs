//! Frames as bytes: fixed size, little-endian, a checksum at the end. Both sides are the same binary, yet every field
//! is checked on arrival: the other process may have been killed while it wrote, or worse.
//!
//! | event, at | bytes | field |
//! |---|---|---|
//! | 0 | 4 | magic `GEVT` |
//! | 4 | 2 | version |
//! | 6 | 2 | flags: bit 0 = dry run, bit 1 = stream |
//! | 8 | 8 | epoch |
//! | 16 | 8 | deadline, µs |
//! | 24 | 8 | client |
//! | 32 | 8 | tag presence mask |
//! | 40 | 8 × 64 | tags, f64 |
//! | 552 | 2 | sentence size |
//! | 554 | 512 | sentence, UTF-8, zeros behind |
//! | 1066 | 4 | CRC-32 of all before |
//!
//! | decision, at | bytes | field |
//! |---|---|---|
//! | 0 | 4 | magic `GDEC` |
//! | 4 | 2 | version |
//! | 6 | 1 | 1 = with a command, else 0 |
//! | 7 | 1 | outcome |
//! | 8 | 8 | epoch |
//! | 16 | 4 | confidence, f32 |
//! | 20 | 4 × 10 | timings |
//! | 60 | 2 | verb |
//! | 62 | 8 × 66 | values: kind, size, 64 bytes |
//! | 590 | 2 | reason size |
//! | 592 | 160 | reason, UTF-8, zeros behind |
//! | 752 | 4 | CRC-32 of all before |
//!
//! | progress, at | bytes | field |
//! |---|---|---|
//! | 0 | 4 | magic `GPRG` |
//! | 4 | 2 | version |
//! | 6 | 2 | argument's index + 1; 0 = the verb itself |
//! | 8 | 8 | epoch |
//! | 16 | 2 | verb |
//! | 18 | 66 | value: kind, size, 64 bytes |
//! | 84 | 4 | CRC-32 of all before |

use crate::command::{Command, Value};
use crate::error::FrameError;
use crate::frame::{BrainMessage, Decision, Event, InlineText, Outcome, Progress, Timings};
use crate::limits::{ARGUMENTS_MAX, REASON_BYTES_MAX, SENTENCE_BYTES_MAX, TAGS_MAX, TEXT_ARGUMENT_BYTES_MAX};

/// Size of an encoded [`Event`].
pub const EVENT_FRAME_BYTES: usize = 40 + 8 * TAGS_MAX + 2 + SENTENCE_BYTES_MAX + 4;
/// Size of an encoded [`Decision`].
pub const DECISION_FRAME_BYTES: usize =
    62 + ARGUMENTS_MAX * (2 + TEXT_ARGUMENT_BYTES_MAX) + 2 + REASON_BYTES_MAX + 4;
/// Size of an encoded [`Progress`].
pub const PROGRESS_FRAME_BYTES: usize = 18 + 2 + TEXT_ARGUMENT_BYTES_MAX + 4;

const EVENT_MAGIC: u32 = u32::from_le_bytes(*b"GEVT");
const DECISION_MAGIC: u32 = u32::from_le_bytes(*b"GDEC");
const PROGRESS_MAGIC: u32 = u32::from_le_bytes(*b"GPRG");
const VERSION: u16 = 3;

const CRC_TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut index = 0;
    while index < 256 {
        let mut crc = index as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0xEDB8_8320 } else { crc >> 1 };
            bit += 1;
        }
        table[index] = crc;
        index += 1;
    }
    table
};

/// CRC-32 as in IEEE 802.3 (reflected, polynomial 0x04C11DB7).
pub fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32, byte: &u8| {
        let [low, ..] = crc.to_le_bytes();
        (crc >> 8) ^ CRC_TABLE.get(usize::from(low ^ byte)).copied().unwrap_or(0)
    };
    !bytes.iter().fold(u32::MAX, step)
}

/// Fills a frame from its start; what does not fit would be a wrong frame size and is caught by the tests.
struct Writer<'b> {
    bytes: &'b mut [u8],
    at: usize,
}

impl Writer<'_> {
    fn put(&mut self, bytes: &[u8]) {
        for (to, from) in self.bytes.iter_mut().skip(self.at).zip(bytes) {
            *to = *from;
        }
        self.at += bytes.len();
    }

    fn text<const N: usize>(&mut self, text: &InlineText<N>) {
        let text = text.as_str();
        self.put(&u16::try_from(text.len()).unwrap_or(0).to_le_bytes());
        self.put(text.as_bytes());
        self.zeros(N - text.len());
    }

    fn zeros(&mut self, count: usize) {
        self.bytes.iter_mut().skip(self.at).take(count).for_each(|byte| *byte = 0);
        self.at += count;
    }

    fn finish(mut self) {
        let (before, _) = self.bytes.split_at(self.at.min(self.bytes.len()));
        let crc = crc32(before);
        self.put(&crc.to_le_bytes());
    }
}

/// Takes a frame apart from its start.
struct Reader<'b> {
    bytes: &'b [u8],
    at: usize,
}

impl<'b> Reader<'b> {
    /// A reader behind magic and version of a frame that is of the right size and whole.
    fn open(bytes: &'b [u8], size: usize, magic: u32) -> Result<Self, FrameError> {
        if bytes.len() != size {
            return Err(FrameError::Size { expected: size, found: bytes.len() });
        }
        let mut reader = Self { bytes, at: 0 };
        let found = u32::from_le_bytes(reader.take("magic")?);
        if found != magic {
            return Err(FrameError::Magic { expected: magic, found });
        }
        let version = u16::from_le_bytes(reader.take("version")?);
        if version != VERSION {
            return Err(FrameError::Version { expected: VERSION, found: version });
        }
        let (before, end) = bytes.split_at(size - 4);
        let expected = crc32(before);
        let found = u32::from_le_bytes(Reader { bytes: end, at: 0 }.take("checksum")?);
        if found != expected {
            return Err(FrameError::Checksum { expected, found });
        }
        Ok(reader)
    }

    fn slice(&mut self, count: usize, field: &'static str) -> Result<&'b [u8], FrameError> {
        let offset = self.at;
        let slice = self.bytes.get(offset..offset + count).ok_or(FrameError::Field { field, offset })?;
        self.at += count;
        Ok(slice)
    }

    fn take<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], FrameError> {
        let offset = self.at;
        let slice = self.slice(N, field)?;
        slice.try_into().map_err(|_| FrameError::Field { field, offset })
    }

    fn u64(&mut self, field: &'static str) -> Result<u64, FrameError> {
        Ok(u64::from_le_bytes(self.take(field)?))
    }

    fn u32(&mut self, field: &'static str) -> Result<u32, FrameError> {
        Ok(u32::from_le_bytes(self.take(field)?))
    }

    fn u16(&mut self, field: &'static str) -> Result<u16, FrameError> {
        Ok(u16::from_le_bytes(self.take(field)?))
    }

    fn u8(&mut self, field: &'static str) -> Result<u8, FrameError> {
        let [byte] = self.take(field)?;
        Ok(byte)
    }

    fn text<const N: usize>(&mut self, field: &'static str) -> Result<InlineText<N>, FrameError> {
        let offset = self.at;
        let size = usize::from(self.u16(field)?);
        padded(self.slice(N, field)?, size).ok_or(FrameError::Field { field, offset })
    }
}

/// The first `size` bytes as text; `None` when they are no UTF-8, too many, or not followed by zeros only.
fn padded<const N: usize>(bytes: &[u8], size: usize) -> Option<InlineText<N>> {
    let (text, rest) = bytes.split_at_checked(size)?;
    let text = std::str::from_utf8(text).ok()?;
    rest.iter().all(|byte| *byte == 0).then(|| InlineText::new(text)).flatten()
}

impl Event {
    /// Writes the frame; fields of any value are written as they are, [`decode`](Self::decode) judges them.
    pub fn encode(&self, frame: &mut [u8; EVENT_FRAME_BYTES]) {
        let mut writer = Writer { bytes: frame, at: 0 };
        writer.put(&EVENT_MAGIC.to_le_bytes());
        writer.put(&VERSION.to_le_bytes());
        writer.put(&(u16::from(self.dry_run) | u16::from(self.stream) << 1).to_le_bytes());
        writer.put(&self.epoch.to_le_bytes());
        writer.put(&self.deadline_us.to_le_bytes());
        writer.put(&self.client.to_le_bytes());
        writer.put(&self.tags_present.to_le_bytes());
        self.tags.iter().for_each(|value| writer.put(&value.to_le_bytes()));
        writer.text(&self.sentence);
        writer.finish();
    }

    /// Reads a frame. No heap. Tags whose presence bit is clear may hold anything, NaN included.
    ///
    /// # Errors
    /// [`FrameError`] for a wrong size, magic, version, checksum, or a field that holds what it cannot.
    pub fn decode(frame: &[u8]) -> Result<Self, FrameError> {
        let mut reader = Reader::open(frame, EVENT_FRAME_BYTES, EVENT_MAGIC)?;
        let offset = reader.at;
        let (dry_run, stream) = match reader.u16("flags")? {
            flags @ 0..=3 => (flags & 1 == 1, flags & 2 == 2),
            _ => return Err(FrameError::Field { field: "flags", offset }),
        };
        let epoch = reader.u64("epoch")?;
        let deadline_us = reader.u64("deadline_us")?;
        let client = reader.u64("client")?;
        let tags_present = reader.u64("tags_present")?;
        let mut tags = [0.0; TAGS_MAX];
        for (index, tag) in tags.iter_mut().enumerate() {
            let offset = reader.at;
            *tag = f64::from_le_bytes(reader.take("tags")?);
            if tags_present >> index & 1 == 1 && !tag.is_finite() {
                return Err(FrameError::Field { field: "tags", offset });
            }
        }
        let sentence = reader.text("sentence")?;
        Ok(Self { epoch, deadline_us, client, tags, tags_present, sentence, dry_run, stream })
    }
}

impl Outcome {
    /// What a frame may hold; a plan's step never comes from a brain.
    const ALL: [Self; 5] = [Self::Model, Self::Cache, Self::Completion, Self::Rule, Self::Safe];

    fn code(self) -> u8 {
        match self {
            Self::Model => 0,
            Self::Cache => 1,
            Self::Completion => 2,
            Self::Rule => 3,
            Self::Safe => 4,
            Self::Plan => 5,
        }
    }
}

impl Decision {
    /// Writes the frame; fields of any value are written as they are, [`decode`](Self::decode) judges them.
    pub fn encode(&self, frame: &mut [u8; DECISION_FRAME_BYTES]) {
        let mut writer = Writer { bytes: frame, at: 0 };
        writer.put(&DECISION_MAGIC.to_le_bytes());
        writer.put(&VERSION.to_le_bytes());
        writer.put(&[u8::from(self.command.is_some()), self.outcome.code()]);
        writer.put(&self.epoch.to_le_bytes());
        writer.put(&self.confidence.to_le_bytes());
        let t = &self.timings;
        let times = [t.prefill_us, t.decode_us, t.mask_us];
        let tokens = [t.cache_n, t.prompt_n, t.predicted_n, t.forced_n, t.draft_n, t.accepted_n, t.passes_n];
        times.iter().chain(&tokens).for_each(|count| writer.put(&count.to_le_bytes()));
        let nothing = Command { verb: 0, values: [Value::Absent; ARGUMENTS_MAX] };
        let command = self.command.as_ref().unwrap_or(&nothing);
        writer.put(&command.verb.to_le_bytes());
        command.values.iter().for_each(|value| write_value(&mut writer, value));
        writer.text(&self.reason);
        writer.finish();
    }

    /// Reads a frame. No heap. The command is well-formed, but only [`Command::check`] tells whether it is one of the
    /// site's.
    ///
    /// # Errors
    /// [`FrameError`] for a wrong size, magic, version, checksum, or a field that holds what it cannot.
    pub fn decode(frame: &[u8]) -> Result<Self, FrameError> {
        let mut reader = Reader::open(frame, DECISION_FRAME_BYTES, DECISION_MAGIC)?;
        let present = reader.u8("command")?;
        if present > 1 {
            return Err(FrameError::Field { field: "command", offset: reader.at - 1 });
        }
        let outcome = Outcome::ALL.get(usize::from(reader.u8("outcome")?)).copied();
        let outcome = outcome.ok_or(FrameError::Field { field: "outcome", offset: reader.at - 1 })?;
        let epoch = reader.u64("epoch")?;
        let offset = reader.at;
        let confidence = f32::from_le_bytes(reader.take("confidence")?);
        if !(0.0..=1.0).contains(&confidence) {
            return Err(FrameError::Field { field: "confidence", offset });
        }
        let timings = Timings {
            prefill_us: reader.u32("prefill_us")?,
            decode_us: reader.u32("decode_us")?,
            mask_us: reader.u32("mask_us")?,
            cache_n: reader.u32("cache_n")?,
            prompt_n: reader.u32("prompt_n")?,
            predicted_n: reader.u32("predicted_n")?,
            forced_n: reader.u32("forced_n")?,
            draft_n: reader.u32("draft_n")?,
            accepted_n: reader.u32("accepted_n")?,
            passes_n: reader.u32("passes_n")?,
        };
        let offset = reader.at;
        let mut command = Command { verb: reader.u16("verb")?, values: [Value::Absent; ARGUMENTS_MAX] };
        for value in &mut command.values {
            *value = read_value(&mut reader)?;
        }
        let is_empty = command.verb == 0 && command.values.iter().all(|value| *value == Value::Absent);
        if present == 0 && !is_empty {
            return Err(FrameError::Field { field: "verb", offset });
        }
        let reason = reader.text("reason")?;
        let command = (present == 1).then_some(command);
        Ok(Self { epoch, command, outcome, confidence, timings, reason })
    }
}

impl Progress {
    /// Writes the frame; fields of any value are written as they are, [`decode`](Self::decode) judges them.
    pub fn encode(&self, frame: &mut [u8; PROGRESS_FRAME_BYTES]) {
        let mut writer = Writer { bytes: frame, at: 0 };
        writer.put(&PROGRESS_MAGIC.to_le_bytes());
        writer.put(&VERSION.to_le_bytes());
        let argument = self.argument.map_or(Some(0), |index| u16::try_from(index).ok()?.checked_add(1));
        writer.put(&argument.unwrap_or(u16::MAX).to_le_bytes());
        writer.put(&self.epoch.to_le_bytes());
        writer.put(&self.verb.to_le_bytes());
        write_value(&mut writer, &self.value);
        writer.finish();
    }

    /// Reads a frame. No heap. Whether verb and value are the site's is not known here.
    ///
    /// # Errors
    /// [`FrameError`] for a wrong size, magic, version, checksum, or a field that holds what it cannot.
    pub fn decode(frame: &[u8]) -> Result<Self, FrameError> {
        let mut reader = Reader::open(frame, PROGRESS_FRAME_BYTES, PROGRESS_MAGIC)?;
        let offset = reader.at;
        let argument = usize::from(reader.u16("argument")?).checked_sub(1);
        if argument.is_some_and(|index| index >= ARGUMENTS_MAX) {
            return Err(FrameError::Field { field: "argument", offset });
        }
        let epoch = reader.u64("epoch")?;
        let verb = reader.u16("verb")?;
        let offset = reader.at;
        let value = read_value(&mut reader)?;
        if argument.is_none() != (value == Value::Absent) {
            return Err(FrameError::Field { field: "value", offset });
        }
        Ok(Self { epoch, verb, argument, value })
    }
}

impl BrainMessage {
    /// Reads whichever frame it is, by its size. No heap.
    ///
    /// # Errors
    /// [`FrameError`], as [`Decision::decode`] and [`Progress::decode`].
    pub fn decode(frame: &[u8]) -> Result<Self, FrameError> {
        match frame.len() {
            PROGRESS_FRAME_BYTES => Progress::decode(frame).map(Self::Progress),
            _ => Decision::decode(frame).map(Self::Decision),
        }
    }
}

/// One value: a byte for its kind, one for its size, and its bytes with zeros behind.
fn write_value(writer: &mut Writer<'_>, value: &Value) {
    let mut put = |kind: u8, bytes: &[u8]| {
        writer.put(&[kind, u8::try_from(bytes.len()).unwrap_or(0)]);
        writer.put(bytes);
        writer.zeros(TEXT_ARGUMENT_BYTES_MAX - bytes.len());
    };
    match value {
        Value::Absent => put(0, &[]),
        Value::Choice(index) => put(1, &index.to_le_bytes()),
        Value::Integer(value) => put(2, &value.to_le_bytes()),
        Value::Number(value) => put(3, &value.to_le_bytes()),
        Value::Bool(value) => put(4, &[u8::from(*value)]),
        Value::Text(text) => put(5, text.as_str().as_bytes()),
    }
}

fn read_value(reader: &mut Reader<'_>) -> Result<Value, FrameError> {
    let offset = reader.at;
    let wrong = FrameError::Field { field: "values", offset };
    let [kind, size] = reader.take("values")?;
    let bytes = reader.slice(TEXT_ARGUMENT_BYTES_MAX, "values")?;
    let (bytes, rest) = bytes.split_at_checked(usize::from(size)).ok_or(wrong)?;
    if rest.iter().any(|byte| *byte != 0) {
        return Err(wrong);
    }
    let eight = || <[u8; 8]>::try_from(bytes).map_err(|_| wrong);
    match (kind, bytes) {
        (0, []) => Ok(Value::Absent),
        (1, [low, high]) => Ok(Value::Choice(u16::from_le_bytes([*low, *high]))),
        (2, _) => Ok(Value::Integer(i64::from_le_bytes(eight()?))),
        (3, _) => Some(f64::from_le_bytes(eight()?))
            .filter(|value| value.is_finite())
            .map(Value::Number)
            .ok_or(wrong),
        (4, [flag @ (0 | 1)]) => Ok(Value::Bool(*flag == 1)),
        (5, _) => {
            let text = std::str::from_utf8(bytes).ok().and_then(InlineText::new);
            text.map(Value::Text).ok_or(wrong)
        }
        _ => Err(wrong),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksum_is_the_usual_one() {
        assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
    }

    #[test]
    fn sizes_are_as_documented() {
        assert_eq!((EVENT_FRAME_BYTES, DECISION_FRAME_BYTES, PROGRESS_FRAME_BYTES), (1070, 756, 88));
    }
}
