//! What becomes of a command that the model was not sure of: `none`, and the reason.

use crate::choice::Confidence;
use ganglion_site::{Command, ConfidenceSpec, Reason, Site};
use std::fmt::Write;

/// The command, or `none` with the reason where a score is below what the site asks for. Allocates nothing.
pub(crate) fn settle(site: &Site, confidence: Confidence, command: Command) -> (Command, Reason) {
    match shortfall(site.model.confidence, confidence) {
        None => (command, Reason::EMPTY),
        Some((score, found, least)) => {
            let mut reason = Reason::EMPTY;
            let name = if score == "margin" { "" } else { score };
            let (dot, found) = (if name.is_empty() { "" } else { "." }, floor(found));
            // An error only says that the text was cut.
            let _ = write!(
                reason,
                "the model is unsure: confidence{dot}{name} {found} is below model.confidence{dot}{name} = {least}"
            );
            (Command::none(site), reason)
        }
    }
}

/// Whether every score is what the site asks for, so far.
pub(crate) fn is_sure(site: &Site, confidence: Confidence) -> bool {
    shortfall(site.model.confidence, confidence).is_none()
}

/// The first score that is too low: its name, what it is, and what was asked for.
fn shortfall(asked: ConfidenceSpec, found: Confidence) -> Option<(&'static str, f32, f64)> {
    [
        ("margin", found.margin, asked.margin),
        ("certainty", found.certainty, asked.certainty),
        ("feasible_mass", found.feasible_mass.unwrap_or(1.0), asked.feasible_mass),
    ]
    .into_iter()
    .find(|&(_, found, least)| f64::from(found) < least)
}

/// With four decimals, never rounded up to what it is below.
fn floor(share: f32) -> f64 {
    (f64::from(share) * 1e4).floor() / 1e4
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn settled(asked: &str, found: Confidence) -> (bool, String) {
        let text = format!("name = \"t\"\n[model]\npath = \"m.gguf\"\n{asked}\n[[command]]\nname = \"go\"\n");
        let site = Site::parse(&text, Path::new("site.toml")).unwrap();
        let go = Command { verb: 0, ..Command::none(&site) };
        let (command, reason) = settle(&site, found, go);
        assert!(command == go || command == Command::none(&site));
        (command == go, reason.as_str().to_owned())
    }

    #[test]
    fn a_score_below_its_threshold_makes_it_none_with_the_reason() {
        let found = Confidence { margin: 0.25, certainty: 0.5, feasible_mass: Some(0.75) };
        let goes = (true, String::new());
        assert_eq!(settled("", found), goes);
        assert_eq!(settled("confidence = 0.25", found), goes);
        assert_eq!(
            settled("confidence = 0.35", Confidence { margin: 0.349_999, ..found }),
            (false, "the model is unsure: confidence 0.3499 is below model.confidence = 0.35".into())
        );
        assert_eq!(
            settled("confidence = { margin = 0.2, certainty = 0.51 }", found).1,
            "the model is unsure: confidence.certainty 0.5 is below model.confidence.certainty = 0.51"
        );
        assert!(!settled("confidence = { feasible_mass = 0.8 }", found).0);
        assert!(settled("confidence = { feasible_mass = 0.7 }", found).0);
        let unmeasured = Confidence { feasible_mass: None, ..found };
        assert!(settled("confidence = { feasible_mass = 1 }", unmeasured).0, "nothing was to be chosen");
    }
}
