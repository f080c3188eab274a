//! `ganglion model calibrate`: how sure a model must be so that what it commands is seldom wrong.

use crate::load;
use crate::plot::{Axis, Plot, Series, svg};
use anyhow::{Context, Result, ensure};
use clap::Args;
use ganglion_decide::calibrate::{Choice, Curve, Point, Sample};
use ganglion_decide::suite::{self, Suite};
use ganglion_decide::{Confidence, LoadedModel};
use ganglion_gguf::Gguf;
use ganglion_site::{Command, Site};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Reads one score.
type Score = fn(&Confidence) -> f64;

/// The scores of a command, by their names in the site file.
const SCORES: [(&str, Score); 3] = [
    ("margin", |found| f64::from(found.margin)),
    ("certainty", |found| f64::from(found.certainty)),
    ("feasible_mass", |found| f64::from(found.feasible_mass.unwrap_or(1.0))),
];
/// With fewer sites than this, the two halves share them.
const SITES_TO_SPLIT_MIN: usize = 10;
/// Coverages of the printed curve.
const COVERAGES: [f64; 9] = [1.0, 0.95, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.2];
/// Steps of the thresholds that are proposed; they are rounded up to one.
const THRESHOLD_STEPS: f64 = 1e4;
/// Points of a curve in JSON and in the picture.
const CURVE_POINTS_MAX: usize = 400;

/// Find how sure the model must be: a risk-coverage curve, and the threshold for a wanted risk
#[derive(Args)]
#[command(after_help = "Example:
  ganglion model calibrate examples/hvac --suite models/nano/suites --risk 0.05 --svg risk.svg

A case counts where the model acts, that is, commands anything but none. Its score covers it when it is at least the
threshold; the risk is the share of covered commands that are wrong. The threshold is chosen on one half of the cases and
judged on the other.")]
pub struct Arguments {
    /// Folder with site.toml, or the file: names the model, and is known to the suite by its name
    site: PathBuf,
    /// Suite of cases with their right commands, .jsonl, or a folder of them
    #[arg(long, value_name = "PATH")]
    suite: PathBuf,
    /// Largest share of wrong commands
    #[arg(long, default_value_t = 0.02, value_parser = share)]
    risk: f64,
    /// How certain it should be that the risk of new cases is no larger
    #[arg(long, default_value_t = 0.95, value_parser = share)]
    level: f64,
    /// Another model than the site's
    #[arg(long, value_name = "FILE")]
    model: Option<PathBuf>,
    /// Draw the curves
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

fn share(text: &str) -> Result<f64, String> {
    let value = text.parse::<f64>().ok().filter(|value| *value > 0.0 && *value < 1.0);
    value.ok_or_else(|| "expected a number between 0 and 1".into())
}

/// One case and its answer.
struct Row {
    acts: bool,
    right: bool,
    expects_none: bool,
    confidence: Confidence,
    /// Whether it is in the half that thresholds are chosen on.
    chosen_on: bool,
}

/// One score: its curve on the other half, and the threshold that was chosen.
struct Scored {
    name: &'static str,
    curve: Curve,
    choice: Option<(Choice, f64)>,
}

/// What the cases of the other half come to.
#[derive(Debug, Clone, Copy, Default)]
struct Effect {
    cases: usize,
    acts: usize,
    wrong: usize,
    exact: usize,
}

pub fn run(arguments: &Arguments) -> Result<()> {
    let mut site = Site::load(&arguments.site)?;
    if let Some(model) = &arguments.model {
        site.model.path.clone_from(model);
    }
    let site = Arc::new(site);
    let suites = suite::load_for(&site, &arguments.suite)?;
    let gguf = Gguf::open(&site.model.path).context("model")?;
    let (model, loaded) =
        LoadedModel::with_folder(&gguf, site.model.threads, load::packed_folder().as_ref())?;
    load::announce(&loaded);
    let (rows, by_site) = answer(&model, &suites)?;
    let acting = rows.iter().filter(|row| row.acts).count();
    ensure!(acting > 1, "the model acts in {acting} of {} cases: there is nothing to calibrate", rows.len());
    let scores: Vec<_> = SCORES.iter().map(|score| scored(&rows, *score, arguments)).collect();
    let best = scores
        .iter()
        .filter(|score| score.choice.is_some())
        .max_by(|a, b| coverage(a).total_cmp(&coverage(b)));
    if let Some(file) = &arguments.svg {
        std::fs::write(file, picture(&scores, arguments)).with_context(|| file.display().to_string())?;
    }
    let report = Report { rows: &rows, by_site, scores: &scores, best, model: gguf.sha256().to_string() };
    let mut out = std::io::stdout().lock();
    if arguments.json {
        writeln!(out, "{}", report.to_json(arguments))?;
    } else {
        write!(out, "{}", report.text(arguments))?;
    }
    Ok(())
}

/// Asks the model all cases, and splits them in two; whether by sites.
fn answer(model: &LoadedModel, suites: &[Suite]) -> Result<(Vec<Row>, bool)> {
    let sites = suites.iter().map(|suite| {
        let mut used: Vec<_> = suite.cases.iter().map(|case| case.site).collect();
        used.sort_unstable();
        used.dedup();
        used.len()
    });
    let by_site = sites.sum::<usize>() >= SITES_TO_SPLIT_MIN;
    let tell = std::io::stderr().is_terminal();
    let mut rows = Vec::new();
    for suite in suites {
        let total = suite.cases.len();
        let answers = suite::answers(model, suite, &mut |done| {
            if tell && done % 50 == 0 {
                eprint!("\r{} {done}/{total} ", suite.name);
            }
        })?;
        for answer in answers {
            let Some(case) = suite.cases.get(answer.case) else { continue };
            let Some(site) = suite.sites.get(case.site) else { continue };
            let none = Command::none(site);
            rows.push(Row {
                acts: answer.command.is_some_and(|command| command != none),
                right: answer.command.as_ref() == Some(&case.expect),
                expects_none: case.expect == none,
                confidence: answer.confidence,
                chosen_on: (if by_site { case.site } else { answer.case }) % 2 == 0,
            });
        }
    }
    if tell {
        eprint!("\r{:40}\r", "");
    }
    Ok((rows, by_site))
}

fn curve(rows: &[Row], chosen_on: bool, score: Score) -> Curve {
    let rows = rows.iter().filter(|row| row.acts && row.chosen_on == chosen_on);
    let samples: Vec<_> =
        rows.map(|row| Sample { score: score(&row.confidence), right: row.right }).collect();
    Curve::new(&samples)
}

fn scored(rows: &[Row], (name, score): (&'static str, Score), arguments: &Arguments) -> Scored {
    let choice = curve(rows, true, score).choose(arguments.risk, arguments.level);
    let choice = choice.map(|choice| {
        let threshold = (choice.point.threshold * THRESHOLD_STEPS).ceil() / THRESHOLD_STEPS;
        (choice, threshold.clamp(0.0, 1.0))
    });
    Scored { name, curve: curve(rows, false, score), choice }
}

/// Share of the other half's commands that the chosen threshold covers.
fn coverage(score: &Scored) -> f64 {
    score.choice.map_or(0.0, |(_, threshold)| score.curve.at_threshold(threshold).coverage)
}

struct Report<'a> {
    rows: &'a [Row],
    by_site: bool,
    scores: &'a [Scored],
    best: Option<&'a Scored>,
    model: String,
}

impl Report<'_> {
    /// The other half's cases, with a threshold on a score or without.
    fn effect(&self, threshold: Option<(&str, f64)>) -> Effect {
        let passes = |row: &Row| {
            threshold.is_none_or(|(name, least)| {
                SCORES.iter().filter(|score| score.0 == name).all(|score| score.1(&row.confidence) >= least)
            })
        };
        let mut effect = Effect::default();
        for row in self.rows.iter().filter(|row| !row.chosen_on) {
            let acts = row.acts && passes(row);
            effect.cases += 1;
            effect.acts += usize::from(acts);
            effect.wrong += usize::from(acts && !row.right);
            let declined = row.acts && !acts;
            effect.exact += usize::from(if declined { row.expects_none } else { row.right });
        }
        effect
    }

    fn text(&self, arguments: &Arguments) -> String {
        let mut out = String::new();
        let before = self.effect(None);
        let _ = writeln!(
            out,
            "{} cases; thresholds are chosen on one half of the {} and judged on the other, of {} cases: the model acts in {}, \
             and {} of those commands are wrong ({})\n",
            self.rows.len(),
            if self.by_site { "sites" } else { "cases" },
            before.cases,
            before.acts,
            before.wrong,
            percent(before.wrong, before.acts)
        );
        let _ = write!(out, "{:<12}", "coverage");
        for score in self.scores {
            let _ = write!(out, " {:>24}", score.name);
        }
        out.push('\n');
        for wanted in COVERAGES {
            let _ = write!(out, "{:>6.0} %    ", wanted * 100.0);
            for score in self.scores {
                let point = score.curve.at_coverage(wanted);
                let cell = point.map_or_else(String::new, |point| {
                    format!("risk {:>5.2} % from {:.4}", point.risk * 100.0, point.threshold)
                });
                let _ = write!(out, " {cell:>24}");
            }
            out.push('\n');
        }
        let _ = write!(out, "{:<12}", "AURC");
        for score in self.scores {
            let _ = write!(out, " {:>24.4}", score.curve.area());
        }
        out.push_str("\n\n");
        let goal = format!(
            "no more than {:.4} % wrong, {:.4} % certain",
            arguments.risk * 100.0,
            arguments.level * 100.0
        )
        .replace(".0000", "");
        for score in self.scores {
            let _ = match score.choice {
                None => writeln!(out, "{:<14} no threshold gives {goal}", score.name),
                Some((choice, threshold)) => writeln!(
                    out,
                    "{:<14} {threshold:.4} gives {goal} (bound {:.2} %); on the other half {}",
                    score.name,
                    choice.risk_bound * 100.0,
                    of_point(&score.curve.at_threshold(threshold))
                ),
            };
        }
        let Some((best, line, threshold)) = self.line() else {
            out.push_str(
                "\nThe surest commands are wrong too often for that, or the cases are too few to tell.\n",
            );
            return out;
        };
        let after = self.effect(Some((best, threshold)));
        let _ = writeln!(
            out,
            "\nwith it the model acts in {} of {} cases instead of {}, {} of them wrongly ({}) instead of {} ({}); exactly right, \
             none included, in {} instead of {}\n\nin site.toml:\n\n[model]\n{line}",
            after.acts,
            after.cases,
            before.acts,
            after.wrong,
            percent(after.wrong, after.acts),
            before.wrong,
            percent(before.wrong, before.acts),
            after.exact,
            before.exact
        );
        out
    }

    /// The best score, its line for the site file, and its threshold.
    fn line(&self) -> Option<(&'static str, String, f64)> {
        let best = self.best?;
        let (_, threshold) = best.choice?;
        let line = match best.name {
            "margin" => format!("confidence = {threshold}"),
            name => format!("confidence = {{ {name} = {threshold} }}"),
        };
        Some((best.name, line, threshold))
    }

    fn to_json(&self, arguments: &Arguments) -> Value {
        let scores: serde_json::Map<_, _> = self
            .scores
            .iter()
            .map(|score| {
                let chosen = score.choice.map(|(choice, threshold)| {
                    json!({"threshold": threshold, "risk_bound": choice.risk_bound,
                        "held_out": of(&score.curve.at_threshold(threshold))})
                });
                let curve: Vec<_> = thin(score.curve.points()).map(of).collect();
                (score.name.to_owned(), json!({"aurc": score.curve.area(), "choice": chosen, "curve": curve}))
            })
            .collect();
        let effect = |effect: Effect| json!({"cases": effect.cases, "acts": effect.acts, "wrong": effect.wrong, "exact": effect.exact});
        let line = self.line();
        let after = line.as_ref().map(|(name, _, threshold)| effect(self.effect(Some((name, *threshold)))));
        json!({
            "model": self.model, "cases": self.rows.len(), "split_by": if self.by_site { "site" } else { "case" },
            "risk": arguments.risk, "level": arguments.level, "scores": scores, "before": effect(self.effect(None)),
            "after": after, "best": line.as_ref().map(|line| line.0), "line": line.map(|line| line.1),
        })
    }
}

fn of(point: &Point) -> Value {
    json!({"coverage": point.coverage, "risk": point.risk, "threshold": point.threshold, "covered": point.covered, "wrong": point.wrong})
}

fn of_point(point: &Point) -> String {
    format!(
        "it covers {:.1} % with {} of {} wrong ({:.2} %)",
        point.coverage * 100.0,
        point.wrong,
        point.covered,
        point.risk * 100.0
    )
}

fn percent(part: usize, whole: usize) -> String {
    format!("{:.2} %", 100.0 * part as f64 / whole.max(1) as f64)
}

/// At most [`CURVE_POINTS_MAX`] of the points, the last one always.
fn thin(points: &[Point]) -> impl Iterator<Item = &Point> {
    let every = points.len().div_ceil(CURVE_POINTS_MAX).max(1);
    let last = points.len().saturating_sub(1);
    points
        .iter()
        .enumerate()
        .filter(move |(index, _)| index % every == 0 || *index == last)
        .map(|(_, point)| point)
}

fn picture(scores: &[Scored], arguments: &Arguments) -> String {
    // The first few commands make a curve that is all noise.
    let points = |score: &Scored| -> Vec<(f64, f64)> {
        thin(score.curve.points()).filter(|p| p.coverage >= 0.02).map(|p| (p.coverage, p.risk)).collect()
    };
    let mut series: Vec<_> = scores
        .iter()
        .map(|score| Series {
            name: format!("{} (AURC {:.4})", score.name, score.curve.area()),
            points: points(score),
            filled: false,
        })
        .collect();
    let top =
        series.iter().flat_map(|series| &series.points).map(|point| point.1).fold(arguments.risk, f64::max);
    series.push(Series {
        name: "wanted risk".into(),
        points: vec![(0.0, arguments.risk), (1.0, arguments.risk)],
        filled: false,
    });
    let name = Path::file_name(&arguments.suite).unwrap_or_default().to_string_lossy();
    svg(&[Plot {
        title: format!("Risk by coverage: {name}"),
        x: Axis::linear("coverage: share of the model's commands that are let through", 1.0, true),
        y: Axis::linear("risk: share of them that are wrong", top, true),
        series,
    }])
}
