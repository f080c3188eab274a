//! `[[model.variant]]` and `[model.switch]`: smaller models, and when they take over.

use super::reader::{Fields, Report};
use super::{is_line, place_of, read_name};
use crate::kept::{SwitchSpec, Variant};
use crate::limits::{BREAKER_COUNT_MAX, PATH_BYTES_MAX, SWITCH_DWELL_S, VARIANTS_MAX};
use std::path::Path;

pub(super) fn read_variants(model: &mut Fields<'_>, file: &Path, report: &mut Report<'_>) -> Vec<Variant> {
    let mut variants: Vec<Variant> = Vec::new();
    let expected = "tables [[model.variant]]";
    for (index, item) in
        model.array("variant", expected, VARIANTS_MAX, report).unwrap_or_default().iter().enumerate()
    {
        let Some(mut fields) = Fields::of(item, "model.variant", "a table [[model.variant]]", report) else {
            continue;
        };
        fields.place = place_of("model.variant", index, &fields);
        let taken: Vec<&str> = variants.iter().map(|variant| variant.name.as_str()).collect();
        let name = read_name(&mut fields, &taken, report);
        let expected = "the path of a GGUF file, relative to the site's folder";
        let path = fields.required("path", expected, report);
        let text = path.and_then(|item| item.get_ref().as_str());
        let text = text.filter(|text| !text.is_empty() && is_line(text, PATH_BYTES_MAX));
        if let (Some(item), None) = (path, text) {
            report.reject(item, fields.field("path"), expected);
        }
        fields.finish(report);
        if let (Some(name), Some(text)) = (name, text) {
            variants.push(Variant { name, path: file.parent().unwrap_or(Path::new("")).join(text) });
        }
    }
    variants
}

/// Thresholds come in pairs, so that what was left is not gone back to at once.
pub(super) fn read_switch(model: &mut Fields<'_>, variants: usize, report: &mut Report<'_>) -> SwitchSpec {
    let mut switch = SwitchSpec::NEVER;
    let Some(item) = model.item("switch") else { return switch };
    if variants == 0 {
        report.reject(item, "[model.switch]", "a [[model.variant]] to switch to");
    }
    let Some(mut fields) = Fields::of(item, "[model.switch]", "a table [model.switch]", report) else {
        return switch;
    };
    let mut pair = |key, falling: bool, report: &mut Report<'_>| {
        let item = fields.item(key)?;
        let found = range_of(item, falling);
        if found.is_none() {
            let order = if falling { "lower" } else { "higher" };
            let expected = format!("[leave, return]: two numbers from 0 up, the first one {order}");
            report.reject(item, fields.field(key), expected);
        }
        found
    };
    switch.temperature_c = pair("temperature_c", false, report);
    switch.load = pair("load", false, report);
    switch.battery_percent = pair("battery_percent", true, report);
    if fields.item("misses").is_some() {
        switch.misses = Some(fields.count("misses", (1, BREAKER_COUNT_MAX), 1, report));
    }
    switch.dwell_s = fields.count("dwell_s", SWITCH_DWELL_S, switch.dwell_s, report);
    let nothing = switch.temperature_c.is_none()
        && switch.load.is_none()
        && switch.battery_percent.is_none()
        && switch.misses.is_none();
    if nothing && report.is_clean() {
        report.add(
            item.span(),
            "[model.switch]",
            "one of temperature_c, load, battery_percent, misses",
            "none of them",
        );
    }
    fields.finish(report);
    switch
}

fn range_of(item: &super::reader::Item<'_>, falling: bool) -> Option<(f64, f64)> {
    let [first, second] = item.get_ref().as_array().map(AsRef::as_ref)? else { return None };
    let (first, second) = (super::reader::number(first)?, super::reader::number(second)?);
    let ordered = if falling { first < second } else { first > second };
    (ordered && first >= 0.0 && second >= 0.0).then_some((first, second))
}
