//! Evaluation suites: JSON Lines files of sites and cases, and the score of a model on them.
//!
//! A line is a site, `{"site": NAME, "toml": TEXT}`, or a case of one above it:
//! `{"site": NAME, "kind": KIND, "text": SENTENCE, "tags": {NAME: VALUE}, "expect": COMMAND}`.

use crate::choice::Confidence;
use crate::decider::{Decider, Options};
use crate::error::{DecideError, Result};
use crate::limits::SUITE_CASES_MAX;
use crate::loaded::LoadedModel;
use ganglion_site::{ArgumentKind, Command, ConfidenceSpec, Event, Sentence, Site, Value};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// One suite file.
#[derive(Debug)]
pub struct Suite {
    /// File name without its ending.
    pub name: String,
    /// Sites by first mention.
    pub sites: Vec<Arc<Site>>,
    /// Cases in file order.
    pub cases: Vec<Case>,
}

/// One question with its right answer.
#[derive(Debug, Clone)]
pub struct Case {
    /// Index into the suite's sites.
    pub site: usize,
    /// What kind of case it is, for the breakdown.
    pub kind: String,
    /// The event; its epoch is the case's line.
    pub event: Event,
    /// The right command.
    pub expect: Command,
}

/// How many answers were right.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Score {
    /// Exactly the expected command.
    pub right: usize,
    /// Asked.
    pub total: usize,
}

impl Score {
    /// Share of right answers, 0 to 1; 1 of nothing.
    pub fn share(self) -> f64 {
        if self.total == 0 { 1.0 } else { self.right as f64 / self.total as f64 }
    }

    fn add(&mut self, right: bool) {
        self.total += 1;
        self.right += usize::from(right);
    }
}

/// Result of one suite.
#[derive(Debug, Clone, Default)]
pub struct SuiteScore {
    /// All cases.
    pub exact: Score,
    /// By kind of case.
    pub kinds: BTreeMap<String, Score>,
    /// Cases whose expected command has numbers and whose answer has the right action: all its numbers right.
    pub numbers: Score,
    /// Wrong answers: (site, event text, expected, found or reason).
    pub wrong: Vec<[String; 4]>,
}

/// One answer to a case.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Index into the suite's cases.
    pub case: usize,
    /// What the decider said, whatever the site's own threshold is.
    pub command: Option<Command>,
    /// How sure the model was, feasible mass included.
    pub confidence: Confidence,
}

/// Reads a `.jsonl` file, or every one of a folder, by name. Cases may be of `known` without defining it again.
///
/// # Errors
/// Names file, line and problem.
pub fn load_for(known: &Arc<Site>, path: &Path) -> Result<Vec<Suite>> {
    if path.is_dir() {
        return load_dir(path, Some(known));
    }
    Ok(vec![load_file(path, Some(known))?])
}

/// Reads every `.jsonl` file of a folder, by name.
///
/// # Errors
/// Names file, line and problem.
pub fn load(dir: &Path) -> Result<Vec<Suite>> {
    load_dir(dir, None)
}

fn load_dir(dir: &Path, known: Option<&Arc<Site>>) -> Result<Vec<Suite>> {
    let read = |source| DecideError::Read { file: dir.to_owned(), source };
    let mut files: Vec<_> = std::fs::read_dir(dir)
        .map_err(read)?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.extension().is_some_and(|ending| ending == "jsonl"))
        .collect();
    files.sort();
    if files.is_empty() {
        return Err(read(std::io::Error::other("the folder holds no .jsonl suite")));
    }
    files.iter().map(|file| load_file(file, known)).collect()
}

fn load_file(file: &Path, known: Option<&Arc<Site>>) -> Result<Suite> {
    let text = std::fs::read_to_string(file)
        .map_err(|source| DecideError::Read { file: file.to_owned(), source })?;
    let mut suite = Suite {
        name: file.file_stem().unwrap_or_default().to_string_lossy().into_owned(),
        sites: known.into_iter().cloned().collect(),
        cases: Vec::new(),
    };
    let mut names: Vec<String> = known.iter().map(|site| site.name.clone()).collect();
    for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        parse_line(&mut suite, &mut names, file, index as u64 + 1, line)
            .map_err(|problem| DecideError::Suite { file: file.to_owned(), line: index + 1, problem })?;
    }
    Ok(suite)
}

fn parse_line(
    suite: &mut Suite,
    names: &mut Vec<String>,
    file: &Path,
    line: u64,
    text: &str,
) -> std::result::Result<(), String> {
    let value: serde_json::Value = serde_json::from_str(text).map_err(|e| e.to_string())?;
    let field = |key: &str| {
        value.get(key).and_then(|v| v.as_str()).ok_or_else(|| format!("field \"{key}\" is missing"))
    };
    let name = field("site")?;
    if let Ok(toml) = field("toml") {
        names.push(name.to_owned());
        suite.sites.push(Arc::new(Site::parse(toml, file).map_err(|e| e.to_string())?));
        return Ok(());
    }
    let index = names
        .iter()
        .rposition(|n| n == name)
        .ok_or_else(|| format!("site \"{name}\" is not defined above"))?;
    let site = suite.sites.get(index).ok_or("no site")?;
    let mut event = Event::new(line, u64::MAX);
    event.sentence = Sentence::new(field("text").unwrap_or("")).ok_or("\"text\" is too long")?;
    for (tag, value) in value.get("tags").and_then(|v| v.as_object()).into_iter().flatten() {
        let index = site.find_tag(tag).ok_or_else(|| format!("site has no tag \"{tag}\""))?;
        let number = value.as_f64().or(value.as_bool().map(f64::from));
        event.set_tag(
            index,
            number.ok_or_else(|| format!("tag \"{tag}\": expected a number or bool, found {value}"))?,
        );
    }
    let expect = value.get("expect").ok_or("field \"expect\" is missing")?.to_string();
    let expect = Command::from_json(site, &expect).map_err(|e| e.to_string())?;
    if suite.cases.len() >= SUITE_CASES_MAX {
        return Err(format!("more than {SUITE_CASES_MAX} cases"));
    }
    suite.cases.push(Case {
        site: index,
        kind: field("kind").unwrap_or("command").to_owned(),
        event,
        expect,
    });
    Ok(())
}

/// Runs a suite; `progress` is told after every case how many are done.
///
/// # Errors
/// A site that the model cannot serve.
pub fn run(loaded: &LoadedModel, suite: &Suite, progress: &mut dyn FnMut(usize)) -> Result<SuiteScore> {
    let mut score = SuiteScore::default();
    let mut done = 0;
    for (index, site) in suite.sites.iter().enumerate() {
        for_each_case(loaded, suite, index, site, |_, case, decider| {
            let decision = decider.decide(&case.event, &mut || 0);
            let right = decision.command.as_ref() == Some(&case.expect);
            score.exact.add(right);
            score.kinds.entry(case.kind.clone()).or_default().add(right);
            if let Some(found) = decision.command
                && found.verb == case.expect.verb
                && let Some(equal) = numbers_equal(site, &found, &case.expect)
            {
                score.numbers.add(equal);
            }
            if !right {
                let found =
                    decision.command.map_or_else(|| decision.reason.as_str().to_owned(), |c| c.to_json(site));
                let text = site.prompt_event(&case.event);
                score.wrong.push([site.name.clone(), text, case.expect.to_json(site), found]);
            }
            done += 1;
            progress(done);
        })?;
    }
    Ok(score)
}

/// Runs a suite for what the model says and how sure it is, without the sites' own thresholds; `progress` is told after
/// every case how many are done.
///
/// # Errors
/// A site that the model cannot serve.
pub fn answers(loaded: &LoadedModel, suite: &Suite, progress: &mut dyn FnMut(usize)) -> Result<Vec<Answer>> {
    let mut answers = Vec::with_capacity(suite.cases.len());
    for (index, site) in suite.sites.iter().enumerate() {
        let mut site = Site::clone(site);
        site.model.confidence = ConfidenceSpec::default();
        for_each_case(loaded, suite, index, &Arc::new(site), |case, Case { event, .. }, decider| {
            decider.measure_feasible_mass(true);
            let command = decider.decide(event, &mut || 0).command;
            answers.push(Answer { case, command, confidence: decider.confidence() });
            progress(answers.len());
        })?;
    }
    Ok(answers)
}

/// Hands every case of a site to `ask`, with its place in the suite and a decider that remembers nothing.
fn for_each_case(
    loaded: &LoadedModel,
    suite: &Suite,
    index: usize,
    site: &Arc<Site>,
    mut ask: impl FnMut(usize, &Case, &mut Decider),
) -> Result<()> {
    let mut cases = suite.cases.iter().enumerate().filter(|(_, case)| case.site == index).peekable();
    if cases.peek().is_none() {
        return Ok(());
    }
    let mut decider = Decider::new(Arc::clone(site), loaded, Options { memo: false, ..Options::default() })?;
    cases.for_each(|(place, case)| ask(place, case, &mut decider));
    Ok(())
}

/// Whether all numbers of two commands of one verb agree; `None` when it has none.
fn numbers_equal(site: &Site, found: &Command, expect: &Command) -> Option<bool> {
    let arguments = &expect.spec(site)?.arguments;
    let mut numeric = arguments
        .iter()
        .zip(found.values.iter().zip(&expect.values))
        .filter(|(a, _)| matches!(a.kind, ArgumentKind::Integer { .. } | ArgumentKind::Number { .. }))
        .map(|(_, (x, y)): (_, (&Value, &Value))| x == y)
        .peekable();
    numeric.peek()?;
    Some(numeric.all(|equal| equal))
}
