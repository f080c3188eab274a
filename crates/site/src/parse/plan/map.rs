//! `[plan.map]`: places, roads, and where a command is carried out.

use super::super::reader::{self, Fields, Item, Report};
use super::super::{is_name, place_of, read_name};
use super::{SPAN, number_tag, read_span, read_terms, scaled};
use crate::command::{ArgumentKind, CommandSpec};
use crate::limits::{PLAN_PLACES_MAX, PLAN_ROADS_MAX};
use crate::plan::{Map, Place, Road, Whereabouts};
use crate::site::{Tag, TagKind};
use crate::units::close_name;

pub(super) fn read_map(plan: &mut Fields<'_>, tags: &[Tag], report: &mut Report<'_>) -> Option<Map> {
    let item = plan.item("map")?;
    let before = report.count();
    let mut fields = Fields::of(item, "[plan.map]", "a table [plan.map]", report)?;
    let tag = fields.required("tag", "the tag that reads the place's number", report).and_then(|item| {
        let name = item.get_ref().as_str().unwrap_or_default();
        let index = tags.iter().position(|tag| tag.name == name && tag.kind == TagKind::Number);
        if index.is_none() {
            report.reject(item, fields.field("tag"), number_tag(name, tags));
        }
        index
    });
    let speed = fields.required("m_per_min", "a speed in metres per minute", report).and_then(|item| {
        let span = read_span(item).filter(|span| span.lo > 0.0);
        if span.is_none() {
            report.reject(item, fields.field("m_per_min"), format!("{SPAN}, above 0"));
        }
        span
    });
    let places = read_places(&mut fields, tag.and_then(|tag| tags.get(tag)), tags, report);
    let roads = read_roads(&mut fields, &places, tags, report);
    fields.finish(report);
    (report.count() == before).then_some(Map {
        tag: tag?,
        places,
        roads,
        m_per_s: scaled(speed?, 1.0 / 60.0),
    })
}

fn read_places(
    fields: &mut Fields<'_>,
    tag: Option<&Tag>,
    tags: &[Tag],
    report: &mut Report<'_>,
) -> Vec<Place> {
    let expected = "a list of { name, number, at = [x, y] } tables";
    let items = fields.array("places", expected, PLAN_PLACES_MAX, report).unwrap_or_default();
    if items.is_empty() {
        fields.missing("places", expected, report);
    }
    let mut places: Vec<Place> = Vec::new();
    for (index, item) in items.iter().enumerate() {
        let Some(mut table) = Fields::of(item, "place", expected, report) else { continue };
        table.place = place_of("place", index, &table);
        let taken: Vec<&str> = places.iter().map(|place| place.name.as_str()).collect();
        let name = read_name(&mut table, &taken, report);
        table.required("number", "what the map's tag reads there", report);
        let number = table.number("number", report);
        if let (Some(number), Some(item)) = (number, table.item("number"))
            && (places.iter().any(|place| place.number == number)
                || tag.is_some_and(|tag| !(tag.range_lo..=tag.range_hi).contains(&number)))
        {
            report.reject(
                item,
                table.field("number"),
                "another number for each place, in the range of the map's tag",
            );
        }
        let at = table.required("at", "[x, y] in metres", report).and_then(|item| {
            let point = item.get_ref().as_array().and_then(|array| match array.as_ref() {
                [x, y] => Some([reader::number(x)?, reader::number(y)?]),
                _ => None,
            });
            if point.is_none() {
                report.reject(item, table.field("at"), "[x, y] in metres");
            }
            point
        });
        let avoid = match table.item("avoid") {
            Some(item) => read_terms(item, table.field("avoid"), tags, report).unwrap_or_default(),
            None => Vec::new(),
        };
        table.finish(report);
        if let (Some(name), Some(number), Some(at_m)) = (name, number, at) {
            places.push(Place { name, number, at_m, avoid });
        }
    }
    places
}

fn read_roads(fields: &mut Fields<'_>, places: &[Place], tags: &[Tag], report: &mut Report<'_>) -> Vec<Road> {
    let expected = "a list of [\"place\", \"place\"] or { between = [\"place\", \"place\"], … }";
    let items = fields.array("roads", expected, PLAN_ROADS_MAX, report).unwrap_or_default();
    let mut roads: Vec<Road> = Vec::new();
    for (index, item) in items.iter().enumerate() {
        let place = format!("road number {}", index + 1);
        let (between, length_m, avoid) = if item.get_ref().as_array().is_some() {
            (read_between(item, places), None, Vec::new())
        } else {
            let Some(mut table) = Fields::of(item, place.clone(), expected, report) else { continue };
            let between =
                table.required("between", expected, report).and_then(|item| read_between(item, places));
            let length_m = table.quantity("length", "m", true, report);
            let avoid = match table.item("avoid") {
                Some(item) => read_terms(item, table.field("avoid"), tags, report).unwrap_or_default(),
                None => Vec::new(),
            };
            table.finish(report);
            (between, length_m, avoid)
        };
        let Some(between) = between else {
            let expected = format!("{expected}, two different places of the map");
            report.reject(item, place, expected);
            continue;
        };
        let [from, to] = between.map(|index| places.get(index).map_or([0.0; 2], |place| place.at_m));
        let straight = (from[0] - to[0]).hypot(from[1] - to[1]);
        let length_m = length_m.unwrap_or(straight);
        let twice = |road: &Road| road.between == between || road.between == [between[1], between[0]];
        if roads.iter().any(twice) {
            report.reject(item, place, "one road between two places");
        } else if length_m < straight * (1.0 - 1e-9) || length_m <= 0.0 {
            let expected =
                format!("a length of at least the {} m between the places", reader::show(straight));
            report.reject(item, place, expected);
        }
        roads.push(Road { between, length_m, avoid });
    }
    roads
}

fn read_between(item: &Item<'_>, places: &[Place]) -> Option<[usize; 2]> {
    let [from, to] = item.get_ref().as_array().map(AsRef::as_ref)? else { return None };
    let find = |item: &Item<'_>| {
        let name = item.get_ref().as_str()?;
        places.iter().position(|place| place.name == name)
    };
    let (from, to) = (find(from)?, find(to)?);
    (from != to).then_some([from, to])
}

/// `at` and `moves`: the name of an argument whose choices are places, or of a place.
pub(super) fn read_whereabouts(
    fields: &mut Fields<'_>,
    key: &'static str,
    spec: &CommandSpec,
    map: Option<&Map>,
    report: &mut Report<'_>,
) -> Option<Whereabouts> {
    let item = fields.item(key)?;
    let name = item.get_ref().as_str().filter(|name| is_name(name)).unwrap_or_default();
    let Some(map) = map else {
        // A broken map has been reported already.
        report.reject(item, fields.field(key), "a sound [plan.map] before a command can be somewhere");
        return None;
    };
    let place = |name: &str| map.places.iter().position(|place| place.name == name);
    let argument = spec.arguments.iter().position(|argument| argument.name == name);
    let found = match argument.and_then(|index| Some((index, spec.arguments.get(index)?))) {
        Some((index, argument)) => match &argument.kind {
            ArgumentKind::Enum(choices) => {
                let places: Option<Vec<usize>> = choices.iter().map(|choice| place(choice)).collect();
                places.map(|places| Whereabouts::Argument { index, places })
            }
            _ => None,
        },
        None => place(name).map(Whereabouts::Place),
    };
    if found.is_none() {
        let names = map.places.iter().map(|place| place.name.as_str());
        let close = close_name(name, names.chain(spec.arguments.iter().map(|a| a.name.as_str())));
        let hint = close.map(|close| format!(" (did you mean {close}?)")).unwrap_or_default();
        let expected = format!("a place of the map, or an argument all of whose choices are places{hint}");
        report.reject(item, fields.field(key), expected);
    }
    found
}
