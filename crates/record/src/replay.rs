//! The cycles of a recording, run again and compared.

use crate::error::RecordError;
use crate::frame::{Adopt, Before, Given, Kind, OwnedBegin, OwnedEnd, read_begin, unfold, write_end};
use crate::limits::{CYCLE_BYTES_MAX, LISTED_MAX, STATE_BYTES_MAX};
use crate::reader::{Header, Recording};
use crate::tape::Fault;
use crate::writer::fingerprint;
use ganglion_guard::{Fingerprint, Notice, Policy, Replica, Seen, Verdict};
use ganglion_site::{Decision, Event, Micros, Site};
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::path::PathBuf;
use std::sync::Arc;

/// Decides a recorded event again: the site, the place of the variant that was asked, the event, what came of it then.
pub type Decides<'d> = dyn FnMut(&Arc<Site>, u8, &Event, &Decision) -> Again + 'd;

/// What a model says to a recorded event.
#[derive(Debug, Clone, Copy, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "one at a time, and decisions are Copy everywhere")]
pub enum Again {
    /// The same question, decided without a deadline.
    Decided(Decision),
    /// The recorded decision was cut off by its deadline; time is not replayed.
    CutByDeadline,
    /// There is no such variant here.
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
    /// Faults, the first ones by cycle and kind.
    pub faults: Vec<(u64, &'static str)>,
    /// With a model: how its decisions compared.
    pub model: Option<ModelReport>,
    /// `None`: everything was the same, bit for bit.
    pub difference: Option<Difference>,
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
        before: Before::NOTHING,
        given: None,
        level: 0,
        asked: BTreeMap::new(),
        encoded: Vec::new(),
    };
    for file in files {
        player.report.files += 1;
        let (frames, torn) = file.frames();
        for (kind, body) in frames {
            let place = Place { file };
            if let Some(difference) = player.take(&place, kind, body)? {
                player.report.difference = Some(difference);
                return Ok(player.report);
            }
        }
        if torn.is_some() {
            player.report.torn += 1;
            player.whole = false;
        }
    }
    Ok(player.report)
}

struct Place<'f> {
    file: &'f Recording,
}

impl Place<'_> {
    fn broken(&self, what: impl Into<String>) -> RecordError {
        RecordError::Broken { path: self.file.path().to_owned(), offset: 0, what: what.into() }
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
    before: Before,
    given: Option<Given>,
    level: u8,
    /// What the brain was asked and has not answered.
    asked: BTreeMap<u64, (u8, Event)>,
    encoded: Vec<u8>,
}

type Found = Result<Option<Difference>, RecordError>;

impl Player<'_, '_> {
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
                let lost: u64 = read(place, &body)?;
                self.report.gaps += 1;
                self.report.lost_cycles += lost;
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
        let (print, state) = body.split_first_chunk::<32>().ok_or_else(|| place.broken("no state"))?;
        self.before = Before::NOTHING;
        if self.whole
            && let Some(replica) = &self.replica
        {
            self.encoded.resize(replica.state_bytes_max(), 0);
            let size = replica.save(&mut self.encoded, place.header().keep_text).unwrap_or(0);
            let own = self.encoded.get(..size).unwrap_or(&[]);
            self.report.states += 1;
            if own != state || self.site.as_ref().is_none_or(|(of, _)| of != print) {
                let at = own.iter().zip(state).position(|(a, b)| a != b).unwrap_or(size.min(state.len()));
                return Ok(Some(Difference {
                    file: place.file.path().to_owned(),
                    cycle: self.cycle(),
                    time_us: replica.status().time_us,
                    what: "the guard's state after this cycle".into(),
                    recorded: format!("{} bytes, at {at}: {:?}", state.len(), state.get(at)),
                    replayed: format!("{size} bytes, at {at}: {:?}", own.get(at)),
                }));
            }
            return Ok(None);
        }
        let site = self.site_of(place, print)?;
        let restored = Replica::restore(&site, state)
            .map_err(|source| RecordError::Guard { path: place.file.path().to_owned(), source })?;
        if self.replica.is_none() || !self.whole {
            self.asked.clear();
        }
        (self.replica, self.site, self.whole) = (Some(restored), Some((*print, site)), true);
        Ok(None)
    }

    fn at_adopt(&mut self, place: &Place<'_>, body: &[u8]) -> Result<(), RecordError> {
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
        let again = match decides(site, level, &event, recorded) {
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
