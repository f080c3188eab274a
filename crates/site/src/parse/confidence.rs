//! `[model] confidence`: how sure the model must be of a command. A number is the least margin; a table names each score.

use super::reader::{Fields, Item, Report, number};
use crate::site::ConfidenceSpec;

const EXPECTED: &str = "a share from 0 to 1, or a table { margin, certainty, feasible_mass } of such";
const SHARE: &str = "a share from 0 to 1";

/// What the site asks for; nothing where `fields` do not say.
pub(super) fn read_confidence(fields: &mut Fields<'_>, report: &mut Report<'_>) -> ConfidenceSpec {
    let mut spec = ConfidenceSpec::default();
    let Some(item) = fields.item("confidence") else { return spec };
    let field = fields.field("confidence");
    if item.get_ref().is_table() {
        let Some(mut table) = Fields::of(item, field, EXPECTED, report) else { return spec };
        for (key, place) in [
            ("margin", &mut spec.margin),
            ("certainty", &mut spec.certainty),
            ("feasible_mass", &mut spec.feasible_mass),
        ] {
            if let Some(item) = table.item(key) {
                match share(item) {
                    Some(value) => *place = value,
                    None => report.reject(item, table.field(key), SHARE),
                }
            }
        }
        table.finish(report);
        return spec;
    }
    match share(item) {
        Some(value) => spec.margin = value,
        None => report.reject(item, field, EXPECTED),
    }
    spec
}

fn share(item: &Item<'_>) -> Option<f64> {
    number(item).filter(|value| (0.0..=1.0).contains(value))
}
