//! The cycles of a recording, run again and compared.

use crate::error::RecordError;
use crate::frame::{Adopt, Before, Given, Kind, OwnedBegin, OwnedEnd, read_begin, unfold, write_end};
use crate::limits::{CYCLE_BYTES_MAX, LISTED_MAX, STATE_BYTES_MAX};
use crate::reader::{Header, Piece, Recording, first_frame};
use crate::tape::Fault;
use crate::writer::fingerprint;
use ganglion_guard::{Fingerprint, Notice, Policy, Replica, Seen, Verdict};
use ganglion_site::{Decision, Event, Micros, Site};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::path::PathBuf;
use std::sync::Arc;

/// Decides a recorded event again: the site, the SHA-256 of the model that was asked, the event, what came of it then.
pub type Decides<'d> = dyn FnMut(&Arc<Site>, &str, &Event, &Decision) -> Again + 'd;

/// What a model says to a recorded event.
#[derive(Debug, Clone, Copy, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "one at a time, and decisions are Copy everywhere")]
pub enum Again {
    /// The same question, decided without a deadline.
    Decided(Decision),
    /// The recorded decision was cut off by its deadline; time is not replayed.
    CutByDeadline,
    /// There is no such model here.
    NotHere,
}

/// The first thing that came out differently.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The file.
    pub file: PathBuf,
    /// Number of the cycle, counted from the guard's start.
    pub cycle: u64,
    /// Its monotonic time there.
    pub time_us: Micros,
    /// What differs.
    pub what: String,
    /// As it was recorded.
    pub recorded: String,
    /// As it came out now.
    pub replayed: String,
}

/// How the brain's decisions compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ModelReport {
    /// Decided again, and the same bit for bit.
    pub same: u64,
    /// Not compared: a deadline had cut them off, and time is not replayed.
    pub cut_by_deadline: u64,
    /// Not compared: the sentence was not kept.
    pub without_text: u64,
    /// Not compared: the variant is not here.
    pub without_model: u64,
    /// Not compared: asked before the recording began.
    pub without_event: u64,
}

/// What a replay found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    /// Files read.
    pub files: u64,
    /// Runs that they are of.
    pub runs: u64,
    /// Cycles run again.
    pub cycles: u64,
    /// Saved states that the replay's own was compared with.
    pub states: u64,
    /// Events that were given to the guard.
    pub events: u64,
    /// Records of decisions, by verdict: approved, clamped, rejected.
    pub verdicts: [u64; 3],
    /// Commands handed to the driver.
    pub actuated: u64,
    /// Policies taken over.
    pub policies: u64,
    /// Places where cycles are missing; the replay went on at the next saved state.
    pub gaps: u64,
    /// Cycles that are missing there, as far as the recording knows.
    pub lost_cycles: u64,
    /// Files whose end is torn: the writer was interrupted.
    pub torn: u64,
    /// Places where a file is not what was written; the replay went on at the next saved state.
    pub damaged: u64,
    /// The first of them.
    pub damages: Vec<Damage>,
    /// Faults, the first ones by cycle and kind.
    pub faults: Vec<(u64, &'static str)>,
    /// With a model: how its decisions compared.
    pub model: Option<ModelReport>,
    /// The first thing that was not the same, bit for bit.
    pub difference: Option<Difference>,
}

/// A place where a file is not what was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The file.
    pub file: PathBuf,
    /// Where the piece begins.
    pub offset: u64,
    /// What cannot be read there.
    pub what: &'static str,
}

impl Report {
    /// Something was compared, nothing was different, and no file was damaged.
    pub fn is_same(&self) -> bool {
        self.difference.is_none() && self.damaged == 0 && self.cycles > 0
    }
}

/// Runs the recordings again, in this order. Stops at the first difference.
///
/// # Errors
/// Recordings that cannot be read or taken up.
pub fn replay(files: &[Recording], decides: Option<&mut Decides<'_>>) -> Result<Report, RecordError> {
    let mut player = Player {
        report: Report { model: decides.is_some().then(ModelReport::default), ..Report::default() },
        decides,
        sites: BTreeMap::new(),
        site: None,
        replica: None,
        whole: false,
        damaged: false,
        at_border: true,
        run: None,
        runs: BTreeSet::new(),
        before: Before::NOTHING,
        given: None,
        level: 0,
        asked: BTreeMap::new(),
        encoded: Vec::new(),
    };
    for file in files {
        player.enter(file.header());
        let mut pieces = file.pieces()?;
        while let Some((offset, piece)) = pieces.next()? {
            if let Some(difference) = player.take_piece(&Place { file, offset }, piece)? {
                player.report.difference = Some(difference);
                return Ok(player.report);
            }
        }
    }
    Ok(player.report)
}

struct Place<'f> {
    file: &'f Recording,
    /// Of the block.
    offset: u64,
}

impl Place<'_> {
    fn broken(&self, what: impl Into<String>) -> RecordError {
        RecordError::Broken { path: self.file.path().to_owned(), offset: self.offset, what: what.into() }
    }

    fn header(&self) -> &Header {
        self.file.header()
    }
}

struct Player<'d, 'f> {
    decides: Option<&'d mut Decides<'f>>,
    report: Report,
    sites: BTreeMap<Fingerprint, Arc<Site>>,
    site: Option<(Fingerprint, Arc<Site>)>,
    replica: Option<Replica>,
    /// No cycle is missing since the last saved state.
    whole: bool,
    /// A piece of a file could not be read.
    damaged: bool,
    /// No state of this file was read yet.
    at_border: bool,
    /// Of the file before, unless the flight recorder wrote it.
    run: Option<String>,
    runs: BTreeSet<String>,
    before: Before,
    given: Option<Given>,
    level: u8,
    /// What the brain was asked and has not answered.
    asked: BTreeMap<u64, (u8, Event)>,
    encoded: Vec<u8>,
}

type Found = Result<Option<Difference>, RecordError>;

impl Player<'_, '_> {
    /// Another file: it goes on from the one before, or has a beginning of its own.
    fn enter(&mut self, header: &Header) {
        self.report.files += 1;
        self.at_border = true;
        // What the flight recorder wrote down may overlap with the file before.
        let goes_on = header.fault.is_none() && self.run.as_ref() == Some(&header.run);
        if !goes_on {
            (self.replica, self.whole) = (None, false);
        }
        self.run = header.fault.is_none().then(|| header.run.clone());
        self.runs.insert(header.run.clone());
        self.report.runs = self.runs.len() as u64;
    }

    fn take_piece(&mut self, place: &Place<'_>, piece: Piece) -> Found {
        let content = match piece {
            Piece::Block(content) => content,
            Piece::Damaged(what) => {
                self.report.damaged += 1;
                if self.report.damages.len() < LISTED_MAX {
                    let file = place.file.path().to_owned();
                    self.report.damages.push(Damage { file, offset: place.offset, what });
                }
                (self.whole, self.damaged) = (false, true);
                return Ok(None);
            }
            Piece::Torn => {
                self.report.torn += 1;
                self.whole = false;
                return Ok(None);
            }
        };
        let mut rest = content.as_slice();
        while !rest.is_empty() {
            let ((kind, body), after) = first_frame(rest).ok_or_else(|| place.broken("no frame"))?;
            if let Some(difference) = self.take(place, kind, body)? {
                return Ok(Some(difference));
            }
            rest = after;
        }
        Ok(None)
    }

    fn take(&mut self, place: &Place<'_>, kind: Kind, folded: &[u8]) -> Found {
        let bytes_max = if kind == Kind::State { STATE_BYTES_MAX } else { CYCLE_BYTES_MAX * 4 };
        let body = unfold(folded, bytes_max).ok_or_else(|| place.broken("a frame that does not unfold"))?;
        match kind {
            Kind::Site => self.at_site(place, &body).map(|()| None),
            Kind::State => self.at_state(place, &body),
            Kind::Begin => self.at_begin(place, &body),
            Kind::End => self.at_end(place, &body),
            Kind::Adopt => self.at_adopt(place, &body).map(|()| None),
            Kind::Note => {
                let notice: Notice = read(place, &body)?;
                if let Some(replica) = &mut self.replica {
                    replica.note(notice);
                }
                Ok(None)
            }
            Kind::Variant => {
                self.level = read(place, &body)?;
                Ok(None)
            }
            Kind::Gap => {
                // The state behind it says how many cycles are missing.
                let _: u64 = read(place, &body)?;
                self.whole = false;
                Ok(None)
            }
            Kind::Fault => {
                let fault: Fault = read(place, &body)?;
                if self.report.faults.len() < LISTED_MAX {
                    self.report.faults.push((self.cycle(), fault.as_str()));
                }
                Ok(None)
            }
        }
    }

    fn cycle(&self) -> u64 {
        self.replica.as_ref().map_or(0, |replica| replica.status().counters.cycles)
    }

    fn at_site(&mut self, place: &Place<'_>, body: &[u8]) -> Result<(), RecordError> {
        let (print, text) = body.split_first_chunk::<32>().ok_or_else(|| place.broken("no site"))?;
        let text = std::str::from_utf8(text).map_err(|_| place.broken("a site that is no text"))?;
        if fingerprint(text) != *print {
            return Err(place.broken("a site whose text is not the one of its fingerprint"));
        }
        if self.sites.contains_key(print) {
            return Ok(());
        }
        let site = Site::parse(text, &place.header().site_file)
            .map_err(|source| RecordError::Site { path: place.file.path().to_owned(), source })?;
        self.sites.insert(*print, Arc::new(site));
        Ok(())
    }

    fn site_of(&self, place: &Place<'_>, print: &Fingerprint) -> Result<Arc<Site>, RecordError> {
        let site = self.sites.get(print).map(Arc::clone);
        site.ok_or_else(|| place.broken("a state or policy whose site is not in the recording"))
    }

    fn at_state(&mut self, place: &Place<'_>, body: &[u8]) -> Found {
        let parts = body.split_first_chunk::<32>().and_then(|(p, rest)| Some((p, rest.split_first()?)));
        let (print, (level, state)) = parts.ok_or_else(|| place.broken("no state"))?;
        self.level = *level;
        self.before = Before::NOTHING;
        self.given = None;
        if self.damaged && !self.sites.contains_key(print) {
            // Its text was in what is damaged.
            self.whole = false;
            return Ok(None);
        }
        let site = self.site_of(place, print)?;
        let restored = Replica::restore(&site, state)
            .map_err(|source| RecordError::Guard { path: place.file.path().to_owned(), source })?;
        let cycles = restored.status().counters.cycles;
        // What could not be written between two files is missing there without a word.
        let at_border = std::mem::take(&mut self.at_border);
        if self.whole && !(at_border && cycles != self.cycle()) {
            return Ok(self.compare_state(place, print, state));
        }
        if self.replica.is_some() {
            let missing = cycles.saturating_sub(self.cycle());
            self.report.gaps += u64::from(missing > 0);
            self.report.lost_cycles += missing;
        }
        self.asked.clear();
        (self.replica, self.site, self.whole) = (Some(restored), Some((*print, site)), true);
        Ok(None)
    }

    /// The state that the cycles led to, against the recorded one.
    fn compare_state(&mut self, place: &Place<'_>, print: &Fingerprint, state: &[u8]) -> Option<Difference> {
        let replica = self.replica.as_ref()?;
        self.encoded.resize(replica.state_bytes_max(), 0);
        let size = replica.save(&mut self.encoded, place.header().keep_text).unwrap_or(0);
        let own = self.encoded.get(..size).unwrap_or(&[]);
        self.report.states += 1;
        if own == state && self.site.as_ref().is_some_and(|(of, _)| of == print) {
            return None;
        }
        let at = own.iter().zip(state).position(|(a, b)| a != b).unwrap_or(size.min(state.len()));
        Some(Difference {
            file: place.file.path().to_owned(),
            cycle: self.cycle(),
            time_us: replica.status().time_us,
            what: "the guard's state after this cycle".into(),
            recorded: format!("{} bytes, at {at}: {:?}", state.len(), state.get(at)),
            replayed: format!("{size} bytes, at {at}: {:?}", own.get(at)),
        })
    }

    fn at_adopt(&mut self, place: &Place<'_>, body: &[u8]) -> Result<(), RecordError> {
        if !self.whole {
            return Ok(());
        }
        let Adopt { before, after } = read(place, body)?;
        let (old, new) = (self.site_of(place, &before)?, self.site_of(place, &after)?);
        let policy = Policy::new((&old, before), (&new, after));
        let mut policy =
            policy.map_err(|source| RecordError::Guard { path: place.file.path().to_owned(), source })?;
        if let Some(replica) = &mut self.replica {
            replica.adopt(&mut policy);
            self.report.policies += 1;
        }
        self.site = Some((after, new));
        Ok(())
    }

    fn at_begin(&mut self, place: &Place<'_>, body: &[u8]) -> Found {
        if !self.whole {
            return Ok(None);
        }
        let begin: OwnedBegin = read(place, body)?;
        let given = read_begin(&mut self.before, begin).ok_or_else(|| place.broken("a cycle's input"))?;
        self.report.events += u64::from(given.event.is_some());
        for decision in given.decisions.iter().filter(|decision| decision.epoch != 0) {
            if let Some(difference) = self.decide_again(place, given.now, decision) {
                return Ok(Some(difference));
            }
        }
        self.given = Some(given);
        Ok(None)
    }

    fn at_end(&mut self, place: &Place<'_>, body: &[u8]) -> Found {
        let (Some(given), Some(replica), true) = (self.given.take(), &mut self.replica, self.whole) else {
            return Ok(None);
        };
        self.encoded.resize(CYCLE_BYTES_MAX, 0);
        let seen = replica.cycle(given.now, &given.input());
        self.report.cycles += 1;
        self.report.actuated += u64::from(seen.actuated.is_some());
        for verdict in seen.records.iter().filter_map(|record| record.verdict) {
            let [approved, clamped, rejected] = &mut self.report.verdicts;
            *match verdict {
                Verdict::Approved => approved,
                Verdict::Clamped => clamped,
                Verdict::Rejected => rejected,
            } += 1;
        }
        if let Some(event) = seen.event {
            self.asked.insert(event.epoch, (self.level, *event));
            // Unanswered questions do not pile up.
            while self.asked.len() > LISTED_MAX * 8 {
                self.asked.pop_first();
            }
        }
        let own = write_end(&seen, place.header().keep_text, &mut self.encoded);
        if own.is_some_and(|own| own == body) {
            return Ok(None);
        }
        let recorded: OwnedEnd = read(place, body)?;
        let (what, recorded, replayed) = first_difference(&recorded, &seen);
        let (cycle, time_us) = (seen.status.counters.cycles, given.now);
        let file = place.file.path().to_owned();
        Ok(Some(Difference { file, cycle, time_us, what, recorded, replayed }))
    }

    /// Has the model decide what it decided then.
    fn decide_again(&mut self, place: &Place<'_>, now: Micros, recorded: &Decision) -> Option<Difference> {
        let cycle = self.cycle() + 1;
        let (Some(report), Some(decides)) = (&mut self.report.model, &mut self.decides) else { return None };
        let Some((level, event)) = self.asked.remove(&recorded.epoch) else {
            report.without_event += 1;
            return None;
        };
        if !place.header().keep_text && !event.sentence.as_str().is_empty() {
            report.without_text += 1;
            return None;
        }
        let (_, site) = self.site.as_ref()?;
        let model = place.header().models.get(usize::from(level)).map_or("", String::as_str);
        let again = match decides(site, model, &event, recorded) {
            Again::Decided(again) => again,
            Again::CutByDeadline => {
                report.cut_by_deadline += 1;
                return None;
            }
            Again::NotHere => {
                report.without_model += 1;
                return None;
            }
        };
        let told = |d: &Decision| {
            let command = d.command.as_ref().map_or_else(|| "no command".into(), |c| c.to_json(site));
            format!(
                "{command}, confidence {} ({:#010x}) {}",
                d.confidence,
                d.confidence.to_bits(),
                d.reason.as_str()
            )
        };
        let same = again.command == recorded.command
            && again.confidence.to_bits() == recorded.confidence.to_bits()
            && again.reason == recorded.reason;
        if same {
            report.same += 1;
            return None;
        }
        Some(Difference {
            file: place.file.path().to_owned(),
            cycle,
            time_us: now,
            what: format!("the model's decision of epoch {}", recorded.epoch),
            recorded: told(recorded),
            replayed: told(&again),
        })
    }
}

fn read<'b, T: serde::Deserialize<'b>>(place: &Place<'_>, body: &'b [u8]) -> Result<T, RecordError> {
    postcard::from_bytes(body).map_err(|error| place.broken(format!("a frame that does not decode: {error}")))
}

/// Where two outputs part, in the order in which a cycle makes them.
fn first_difference(recorded: &OwnedEnd, seen: &Seen<'_>) -> (String, String, String) {
    let mut found = None;
    let mut compare = |what: &str, recorded: &dyn Debug, replayed: &dyn Debug| {
        let (recorded, replayed) = (format!("{recorded:?}"), format!("{replayed:?}"));
        if found.is_none() && recorded != replayed {
            found = Some((what.to_owned(), recorded, replayed));
        }
    };
    for index in 0..recorded.records.len().max(seen.records.len()) {
        let (old, new) = (recorded.records.get(index), seen.records.get(index));
        if let (Some(old), Some(new)) = (old, new) {
            let name = |part: &str| format!("record {}, {part}", index + 1);
            compare(&name("kind"), &old.kind, &new.kind);
            compare(&name("verdict"), &old.verdict, &new.verdict);
            compare(&name("outcome"), &old.outcome, &new.outcome);
            compare(&name("command"), &old.command, &new.command);
            compare(&name("clamped command"), &old.clamped, &new.clamped);
            compare(&name("reason"), &old.reason, &new.reason);
            compare(&name("actuated"), &old.actuated, &new.actuated);
            compare(&name("request"), &old.request, &new.request);
            compare(&name("latency"), &old.latency_us, &new.latency_us);
        } else {
            let told = |r: Option<&ganglion_guard::Record>| r.map(|r| (r.kind, r.verdict, r.reason));
            compare(&format!("record {}", index + 1), &told(old), &told(new));
        }
    }
    compare("the command for the plant", &recorded.actuated, &seen.actuated);
    compare("the parts of answers", &recorded.fields, &seen.fields);
    compare("what the brain is asked", &recorded.event.map(|e| e.epoch), &seen.event.map(|e| e.epoch));
    compare("what is done with the brain's process", &recorded.brain, &seen.brain);
    compare("the heartbeat", &recorded.heartbeat, &seen.heartbeat);
    found.unwrap_or_else(|| {
        let status = seen.status;
        let replayed = format!(
            "{}, breaker {}, brain {}, {}, {:?}",
            status.mode.as_str(),
            status.breaker.as_str(),
            status.brain.as_str(),
            status.severity.as_str(),
            status.counters
        );
        let what = "the state, or a detail of a record or event, after this cycle";
        (what.to_owned(), format!("status checksum {:#010x}", recorded.status_crc), replayed)
    })
}
