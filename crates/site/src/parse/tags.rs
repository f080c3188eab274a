//! `[[tag]]`.

use super::reader::{self, Fields, Item, Report};
use super::{place_of, read_name, read_unit};
use crate::limits::{DECIMALS_MAX, NUMBER_MAX, TAGS_MAX, TIME_MS};
use crate::number::decimals_of;
use crate::site::{ReadTable, RegisterRead, Tag, TagKind};

/// The tags of a file; those in `broken` exist by name, but their range or unit is not what the file means.
pub(super) struct Tags {
    pub(super) list: Vec<Tag>,
    pub(super) broken: Vec<bool>,
}

impl Tags {
    pub(super) fn find(&self, name: &str) -> Option<usize> {
        self.list.iter().position(|tag| tag.name == name)
    }
}

pub(super) fn read_tags(root: &mut Fields<'_>, report: &mut Report<'_>) -> Tags {
    let mut tags = Tags { list: Vec::new(), broken: Vec::new() };
    let items = root.array("tag", "[[tag]] tables", TAGS_MAX, report).unwrap_or_default();
    for (index, item) in items.iter().enumerate() {
        let Some(mut fields) = Fields::of(item, "tag", "a [[tag]] table", report) else { continue };
        fields.place = place_of("tag", index, &fields);
        let before = report.count();
        let taken: Vec<&str> = tags.list.iter().map(|tag| tag.name.as_str()).collect();
        let name = read_name(&mut fields, &taken, report).unwrap_or_default();
        let tag = read_tag(name, &mut fields, report);
        fields.finish(report);
        tags.list.push(tag);
        tags.broken.push(report.count() > before);
    }
    tags
}

fn read_tag(name: String, fields: &mut Fields<'_>, report: &mut Report<'_>) -> Tag {
    let kind = match fields.item("kind") {
        None => TagKind::Number,
        Some(item) => match item.get_ref().as_str() {
            Some("number") => TagKind::Number,
            Some("bool") => TagKind::Bool,
            _ => {
                report.reject(item, fields.field("kind"), "\"number\" or \"bool\"");
                TagKind::Number
            }
        },
    };
    let unit = read_unit(fields, report);
    if kind == TagKind::Bool
        && !unit.is_empty()
        && let Some(item) = fields.item("unit")
    {
        report.reject(item, fields.field("unit"), "no unit on a bool tag");
    }
    let (range_lo, range_hi) = read_range(kind, fields, report);
    let read = match fields.item("read") {
        Some(item) => read_register(item, kind, fields.field("read"), report),
        None => None,
    };
    let default = match (kind, read) {
        (TagKind::Number, Some(read)) => decimals_of(read.scale),
        _ => 0,
    };
    let decimals = fields.integer("decimals", 0, DECIMALS_MAX.into(), report);
    let decimals = decimals.and_then(|decimals| u8::try_from(decimals).ok()).unwrap_or(default);
    let stale_ms = fields.count("stale_ms", TIME_MS, 2000, report);
    let frozen_ms = fields.integer("frozen_ms", TIME_MS.0.into(), TIME_MS.1.into(), report);
    let frozen_ms = frozen_ms.and_then(|ms| u32::try_from(ms).ok());
    if kind == TagKind::Bool
        && let Some(item) = fields.item("frozen_ms")
    {
        report.reject(
            item,
            fields.field("frozen_ms"),
            "no frozen_ms on a bool tag, which may well stay as it is",
        );
    }
    Tag { name, unit, kind, range_lo, range_hi, decimals, stale_ms, frozen_ms, read }
}

fn read_range(kind: TagKind, fields: &mut Fields<'_>, report: &mut Report<'_>) -> (f64, f64) {
    const ANY: (f64, f64) = (-NUMBER_MAX, NUMBER_MAX);
    match (kind, fields.item("range")) {
        (TagKind::Bool, None) => (0.0, 1.0),
        (TagKind::Bool, Some(item)) => {
            if reader::range(item, false) != Some((0.0, 1.0)) {
                report.reject(item, fields.field("range"), "no range on a bool tag, or [0, 1]");
            }
            (0.0, 1.0)
        }
        (TagKind::Number, None) => {
            fields.missing("range", "[lo, hi], the believable values", report);
            ANY
        }
        (TagKind::Number, Some(item)) => reader::range(item, false).unwrap_or_else(|| {
            report.reject(item, fields.field("range"), "[lo, hi] with finite lo < hi");
            ANY
        }),
    }
}

/// `{ input | holding | discrete | coil = ADDRESS, scale = F? }`.
fn read_register(
    item: &Item<'_>,
    kind: TagKind,
    place: String,
    report: &mut Report<'_>,
) -> Option<RegisterRead> {
    const TABLES: [(&str, ReadTable); 4] = [
        ("input", ReadTable::Input),
        ("holding", ReadTable::Holding),
        ("discrete", ReadTable::Discrete),
        ("coil", ReadTable::Coil),
    ];
    let expected = "one of input, holding, discrete or coil with a register address";
    let mut fields = Fields::of(item, place, "a table { input = ADDRESS, scale = F }", report)?;
    let given: Vec<_> = TABLES.into_iter().filter(|(key, _)| fields.item(key).is_some()).collect();
    let [(key, table)] = given[..] else {
        fields.item("scale");
        fields.finish(report);
        report.reject(item, fields.place, expected);
        return None;
    };
    let address = fields.address(key, report);
    let is_bit = matches!(table, ReadTable::Discrete | ReadTable::Coil);
    if is_bit && kind == TagKind::Number {
        report.reject(item, fields.place.clone(), "input or holding for a number (or kind = \"bool\")");
    }
    let scale = fields.scale(report);
    if (is_bit || kind == TagKind::Bool)
        && let Some(item) = fields.item("scale")
    {
        report.reject(item, fields.field("scale"), "no scale on a bool");
    }
    fields.finish(report);
    Some(RegisterRead { table, address, scale })
}
