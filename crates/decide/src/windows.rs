//! A text of any length, cut into events: windows of a sentence's size that overlap.
//!
//! A window ends at the end of a line, else of a sentence, else of a word, and the next one begins up to a quarter of a window
//! before that, at the beginning of one: what stands across a cut is whole in one of the two. The text is read as it is
//! needed; what is held of it is one window at most, whatever its length.

use crate::limits::WINDOW_BYTES_MIN;
use ganglion_site::Sentence;
use ganglion_site::limits::SENTENCE_BYTES_MAX;
use std::io::{BufRead, Result};
use std::ops::Range;

// A window ends in its second half and overlaps by a quarter, give or take a character: every one gets further.
const _: () = assert!(WINDOW_BYTES_MIN / 4 > 8 && WINDOW_BYTES_MIN < SENTENCE_BYTES_MAX);

/// A piece of a text.
#[derive(Debug, Clone, PartialEq)]
pub struct Window {
    /// Which bytes of the text it is made of.
    pub range: Range<u64>,
    /// Its text on one line: control characters, and bytes that are no UTF-8, are spaces.
    pub sentence: Sentence,
}

/// The windows of a text.
#[derive(Debug)]
pub struct Windows<R> {
    reader: R,
    /// Bytes read and not yet done with.
    held: Vec<u8>,
    /// Where they begin in the text.
    start: u64,
    /// End of the window before.
    done: u64,
    ended: bool,
    /// Bytes of a window.
    size: usize,
}

impl<R: BufRead> Windows<R> {
    /// Windows of what `reader` gives, as large as a sentence may be.
    pub fn new(reader: R) -> Self {
        Self::with_size(reader, SENTENCE_BYTES_MAX)
    }

    /// Windows of at most `size` bytes; less than [`WINDOW_BYTES_MIN`] and more than [`SENTENCE_BYTES_MAX`] are read as these.
    /// A model that was trained on short sentences is surer of short windows.
    pub fn with_size(reader: R, size: usize) -> Self {
        let size = size.clamp(WINDOW_BYTES_MIN, SENTENCE_BYTES_MAX);
        Self { reader, held: Vec::with_capacity(size + 1), start: 0, done: 0, ended: false, size }
    }

    /// Bytes read so far.
    pub fn read_bytes(&self) -> u64 {
        self.start + self.held.len() as u64
    }

    /// Reads until a window and one more byte are held, or the text ends.
    fn fill(&mut self) -> Result<()> {
        while !self.ended && self.held.len() <= self.size {
            let room = self.size + 1 - self.held.len();
            let bytes = match self.reader.fill_buf() {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                read => read?,
            };
            let count = bytes.len().min(room);
            self.ended = count == 0;
            self.held.extend_from_slice(bytes.get(..count).unwrap_or(&[]));
            self.reader.consume(count);
        }
        Ok(())
    }

    /// Drops `count` bytes from the front.
    fn drop_front(&mut self, count: usize) {
        self.held.drain(..count.min(self.held.len()));
        self.start += count as u64;
    }

    fn advance(&mut self) -> Result<Option<Window>> {
        loop {
            self.fill()?;
            let blank = self.held.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
            if blank == 0 || self.held.is_empty() {
                break;
            }
            self.drop_front(blank);
        }
        // What is left over is the end of the window before.
        if self.held.is_empty() || (self.ended && self.read_bytes() <= self.done) {
            return Ok(None);
        }
        let whole = self.ended && self.held.len() <= self.size;
        let end = if whole { self.held.len() } else { cut(&self.held, self.size) };
        let text = self.held.get(..end).unwrap_or(&[]);
        let window =
            Window { range: self.start..self.start + end as u64, sentence: Sentence::cut(&one_line(text)) };
        self.done = window.range.end;
        let next = if whole { end } else { overlap(text, self.size / 4) };
        self.drop_front(next);
        Ok(Some(window))
    }
}

impl<R: BufRead> Iterator for Windows<R> {
    type Item = Result<Window>;

    fn next(&mut self) -> Option<Self::Item> {
        self.advance().transpose()
    }
}

/// Where a window of a longer text ends: in its second half, at the best place there is.
fn cut(text: &[u8], size: usize) -> usize {
    let places = || (size / 2..=size).rev();
    let best = Place::ALL.into_iter().find_map(|place| places().find(|at| place.is_at(text, *at)));
    best.unwrap_or(size)
}

/// Where the window after this one begins.
fn overlap(text: &[u8], bytes: usize) -> usize {
    let places = || text.len().saturating_sub(bytes)..text.len();
    let best = Place::ALL.into_iter().find_map(|place| places().find(|at| place.is_at(text, *at)));
    best.unwrap_or(text.len())
}

/// Where a text may be cut, the best first.
#[derive(Debug, Clone, Copy)]
enum Place {
    Line,
    Sentence,
    Word,
    Character,
}

impl Place {
    const ALL: [Self; 4] = [Self::Line, Self::Sentence, Self::Word, Self::Character];

    /// Whether one of these begins at byte `at`.
    fn is_at(self, text: &[u8], at: usize) -> bool {
        let byte = |at: usize| text.get(at).copied().unwrap_or(b' ');
        let Some(last) = at.checked_sub(1).map(byte) else { return true };
        let before_last = at.checked_sub(2).map_or(b' ', byte);
        match self {
            Self::Line => last == b'\n',
            Self::Sentence => {
                let ends = matches!(before_last, b'.' | b'!' | b'?' | b';') && last.is_ascii_whitespace();
                // 。！？ end a sentence without a space behind.
                let three = at.checked_sub(3).and_then(|from| text.get(from..at)).unwrap_or(&[]);
                ends || ["\u{3002}", "\u{ff01}", "\u{ff1f}"].iter().any(|mark| mark.as_bytes() == three)
            }
            Self::Word => last.is_ascii_whitespace() && !byte(at).is_ascii_whitespace(),
            // A continuation byte of UTF-8 begins nothing.
            Self::Character => byte(at) & 0xC0 != 0x80,
        }
    }
}

/// As many bytes at most.
fn one_line(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        out.extend(chunk.valid().chars().map(|c| if c.is_control() { ' ' } else { c }));
        out.extend(chunk.invalid().iter().map(|_| ' '));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufReader, Read};

    fn windows(text: &[u8]) -> Vec<Window> {
        Windows::new(text).map(Result::unwrap).collect()
    }

    #[test]
    fn a_short_text_is_one_window() {
        for text in ["set the kitchen to 21", "  a\nb\t", "x"] {
            let found = windows(text.as_bytes());
            assert_eq!(found.len(), 1, "{text}");
            assert_eq!(found[0].sentence.as_str().trim(), text.trim().replace(['\n', '\t'], " "));
        }
        assert!(windows(b"").is_empty() && windows(b" \n\n\t ").is_empty());
    }

    #[test]
    fn whole_lines_are_whole_in_some_window() {
        let lines: Vec<String> =
            (0..500).map(|i| format!("{i:04} pump {} has {} bar", i % 7, i * 37 % 90)).collect();
        let text = lines.join("\n");
        let found = windows(text.as_bytes());
        for line in &lines {
            assert!(found.iter().any(|w| w.sentence.as_str().contains(line.as_str())), "{line}");
        }
        for pair in found.windows(2) {
            let (first, second) = (&pair[0].range, &pair[1].range);
            assert!(second.start > first.start && second.start <= first.end, "{first:?} {second:?}");
            assert!(first.end - second.start <= SENTENCE_BYTES_MAX as u64 / 4);
            assert_eq!(text.as_bytes()[first.end as usize - 1], b'\n');
            assert!(second.start == 0 || text.as_bytes()[second.start as usize - 1] == b'\n');
        }
        assert_eq!(found.last().unwrap().range.end, text.len() as u64);
    }

    /// Any bytes: nothing but blanks is left out, every window fits, and says where it is from.
    #[test]
    fn any_bytes_are_covered() {
        let mut state = 0x1234_5678_9abc_def1_u64;
        let mut random = move |below: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state % below
        };
        for round in 0..200 {
            let size = random(5000) as usize;
            let size_max =
                WINDOW_BYTES_MIN + random((SENTENCE_BYTES_MAX - WINDOW_BYTES_MIN) as u64 + 1) as usize;
            let alphabet: &[&str] =
                [&["a", "ü", " ", ".", "\n", "厨", ". "][..], &["x"], &["é"], &["\n", "ab "]][round % 4];
            let mut text: Vec<u8> = Vec::new();
            while text.len() < size {
                text.extend(alphabet[random(alphabet.len() as u64) as usize].as_bytes());
            }
            for _ in 0..random(20) {
                let at = random(text.len().max(1) as u64) as usize;
                if let Some(byte) = text.get_mut(at) {
                    *byte = random(256) as u8;
                }
            }
            let found: Vec<Window> =
                Windows::with_size(BufReader::with_capacity(1 + round, &text[..]), size_max)
                    .map(Result::unwrap)
                    .collect();
            let mut covered = 0;
            for window in &found {
                let range = window.range.start as usize..window.range.end as usize;
                assert!(range.len() <= size_max && !range.is_empty());
                let between = text.get(covered.min(range.start)..range.start).unwrap();
                assert!(between.iter().all(u8::is_ascii_whitespace), "{between:?}");
                assert_eq!(window.sentence.as_str(), one_line(&text[range.clone()]));
                assert!(range.end > covered, "each brings something new");
                covered = range.end;
            }
            assert!(text[covered..].iter().all(u8::is_ascii_whitespace));
        }
    }

    /// 100 MB, of which a window is held at a time.
    #[test]
    fn a_long_log_streams_through() {
        struct Log(u64);
        impl Read for Log {
            fn read(&mut self, out: &mut [u8]) -> Result<usize> {
                let line = b"2026-11-21 12:00:00 pump 3: pressure 4.2 bar, flow 12 l/min, all well\n";
                let count = out.len().min(usize::try_from(self.0).unwrap_or(usize::MAX));
                for (place, byte) in out.iter_mut().take(count).zip(line.iter().cycle()) {
                    *place = *byte;
                }
                self.0 -= count as u64;
                Ok(count)
            }
        }
        let size = if cfg!(debug_assertions) { 100_000_000 } else { 400_000_000 };
        let mut windows = Windows::new(BufReader::new(Log(size)));
        let mut count = 0u64;
        while let Some(window) = windows.next() {
            assert!(window.unwrap().sentence.as_str().len() <= SENTENCE_BYTES_MAX);
            assert!(windows.held.capacity() <= 2 * (SENTENCE_BYTES_MAX + 1));
            count += 1;
        }
        assert_eq!(windows.read_bytes(), size);
        assert!(count >= size / SENTENCE_BYTES_MAX as u64 && count <= size / 200, "{count}");
    }
}
