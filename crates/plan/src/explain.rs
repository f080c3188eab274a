//! Sentences for operators.

use crate::check::{Rule, Step, Violation, bound_of};
use ganglion_site::plan::Span;
use ganglion_site::{Compare, Limit, Site, TagKind, Term};
use std::fmt::Write;

/// A number as people write it: at most two decimals.
pub(crate) fn short(value: f64) -> String {
    let rounded = (value * 100.0).round() / 100.0;
    format!("{}", if rounded == 0.0 { 0.0 } else { rounded })
}

/// Seconds for people.
pub fn time(seconds: f64) -> String {
    match seconds {
        s if s < 120.0 => format!("{} s", short(s)),
        s => format!("{} min", short(s / 60.0)),
    }
}

/// An interval of time for people, both ends in one unit.
pub fn times(seconds: Span) -> String {
    let hi = time(seconds.hi);
    let lo = short(if seconds.hi < 120.0 { seconds.lo } else { seconds.lo / 60.0 });
    if hi.split(' ').next() == Some(lo.as_str()) { hi } else { format!("{lo} to {hi}") }
}

fn with_unit(site: &Site, tag: usize, value: f64) -> String {
    match site.tags.get(tag) {
        Some(tag) if tag.kind == TagKind::Bool => if value == 0.0 { "no" } else { "yes" }.to_string(),
        Some(tag) if !tag.unit.is_empty() => format!("{} {}", short(value), tag.unit),
        _ => short(value),
    }
}

/// A tag's interval: one value, or from … to ….
pub fn span(site: &Site, tag: usize, found: Span) -> String {
    let (lo, hi) = (with_unit(site, tag, found.lo), with_unit(site, tag, found.hi));
    if lo == hi { hi } else { format!("{} to {hi}", short(found.lo)) }
}

fn tag_name(site: &Site, tag: usize) -> &str {
    site.tags.get(tag).map_or("?", |tag| tag.name.as_str())
}

impl Violation {
    /// What would go wrong, in one sentence without a full stop.
    pub fn sentence(&self, site: &Site, steps: &[Step]) -> String {
        let subject = match steps.get(self.step) {
            Some(step) => format!("step {} {}", self.step + 1, step.command.describe(site)),
            None if steps.is_empty() => "the present state".to_string(),
            None => "the end of the plan".to_string(),
        };
        let mut out = subject;
        self.write_predicate(site, steps.get(self.step), &mut out);
        out
    }

    fn write_predicate(&self, site: &Site, step: Option<&Step>, out: &mut String) {
        let Some(spec) = &site.plan else { return };
        let place = |index: usize| {
            spec.map.as_ref().and_then(|map| map.places.get(index)).map_or("?", |place| place.name.as_str())
        };
        let rule = |terms: &[Term]| site.condition(terms).to_string();
        // Writing to a String cannot fail.
        let _ = match self.rule {
            Rule::Steps => {
                write!(
                    out,
                    ": a plan has at most {} steps, this one {}",
                    crate::limits::STEPS_MAX,
                    self.found.hi
                )
            }
            Rule::NotPlannable => {
                write!(out, " cannot be part of a plan: the command has no `plan` in the site file")
            }
            Rule::Unknown { tag } => {
                write!(out, " cannot be judged: tag {} has no usable reading", tag_name(site, tag))
            }
            Rule::Nowhere => write!(
                out,
                " cannot be judged: {} reads {}, which is no place of the map",
                spec.map.as_ref().map_or("?", |map| tag_name(site, map.tag)),
                short(self.found.lo)
            ),
            Rule::NotAt { place: at } => write!(out, " can only be done at {}", place(at)),
            Rule::NoRoad { place: to } => write!(out, ": no direct road leads to {}", place(to)),
            Rule::AvoidPlace { place: at } => {
                let avoid =
                    spec.map.as_ref().and_then(|map| map.places.get(at)).map(|place| rule(&place.avoid));
                write!(out, " would be at {} while {}", place(at), avoid.unwrap_or_default())
                    .and_then(|()| self.write_found(site, out))
            }
            Rule::AvoidRoad { road } => {
                let road = spec.map.as_ref().and_then(|map| map.roads.get(road));
                let [a, b] = road.map_or([0, 0], |road| road.between).map(place);
                let avoid = road.map(|road| rule(&road.avoid)).unwrap_or_default();
                write!(out, " would take the road from {a} to {b} while {avoid}")
                    .and_then(|()| self.write_found(site, out))
            }
            Rule::TooShort => write!(out, " has too little time: it takes at least {}", time(self.found.lo)),
            Rule::Time => {
                let max = spec.time_s_max.unwrap_or(0.0);
                let longer = time(self.found.hi - max);
                write!(
                    out,
                    " would end after {}, {longer} beyond the {} of a plan",
                    time(self.found.hi),
                    time(max)
                )
            }
            Rule::Always(index) => {
                let terms = spec.always.get(index..=index).unwrap_or_default();
                terms.iter().try_for_each(|term| self.write_shortfall(site, &term.compare, &rule(terms), out))
            }
            Rule::Never(index) => {
                write!(out, " could bring about {}", rule(spec.never.get(index).map_or(&[], Vec::as_slice)))
            }
            Rule::Needs(index) => {
                let needs = step.and_then(|step| spec.action(&step.command)?.needs.of(&step.command));
                let terms = needs.and_then(|terms| terms.get(index..=index)).unwrap_or_default();
                let tag = terms.first().map_or(0, |term| term.compare.tag);
                let found = span(site, tag, self.found);
                write!(out, " needs {}, and {} would be {found}", rule(terms), tag_name(site, tag))
            }
            Rule::End(index) => {
                let terms = spec.end.get(index..=index).unwrap_or_default();
                terms.iter().try_for_each(|term| self.write_shortfall(site, &term.compare, &rule(terms), out))
            }
            Rule::TagLimit { limit, below } => {
                site.limits.get(limit).map_or(Ok(()), |limit| self.write_limit(site, limit, below, out))
            }
            Rule::ArgumentLimit { limit } => {
                let on = site.limits.get(limit).map(|limit| site.target_name(limit.on)).unwrap_or_default();
                write!(out, " is outside the limit on {on}: {}", short(self.found.lo))
            }
            Rule::Slew { limit } | Rule::Dwell { limit } => {
                let on = site.limits.get(limit).map(|limit| site.target_name(limit.on)).unwrap_or_default();
                write!(out, " would change {on} too soon after the step that set it")
            }
        };
    }

    /// `would leave battery 4 % below 20 % (battery >= 20 %)`.
    fn write_shortfall(
        &self,
        site: &Site,
        compare: &Compare,
        rule: &str,
        out: &mut String,
    ) -> std::fmt::Result {
        let tag = compare.tag;
        let name = tag_name(site, tag);
        match bound_of(compare).filter(|_| site.tags.get(tag).is_some_and(|tag| tag.kind == TagKind::Number))
        {
            Some((bound, true)) if bound > self.found.lo => {
                let by = with_unit(site, tag, bound - self.found.lo);
                write!(
                    out,
                    " would leave {name} {by} below the {} it has to keep",
                    with_unit(site, tag, bound)
                )
            }
            Some((bound, false)) if bound < self.found.hi => {
                let by = with_unit(site, tag, self.found.hi - bound);
                write!(
                    out,
                    " would bring {name} {by} above the {} it has to keep",
                    with_unit(site, tag, bound)
                )
            }
            _ => {
                write!(out, " would leave {name} at {} where {rule} has to hold", span(site, tag, self.found))
            }
        }
    }

    fn write_limit(&self, site: &Site, limit: &Limit, below: bool, out: &mut String) -> std::fmt::Result {
        let ganglion_site::LimitTarget::Tag(tag) = limit.on else { return Ok(()) };
        let (name, bounds) =
            (tag_name(site, tag), if below { [limit.lo, limit.lolo] } else { [limit.hi, limit.hihi] });
        let bound =
            bounds.into_iter().flatten().reduce(if below { f64::max } else { f64::min }).unwrap_or(0.0);
        let (reached, word) = if below { (self.found.lo, "below") } else { (self.found.hi, "above") };
        let by = with_unit(site, tag, (reached - bound).abs());
        write!(out, " would leave {name} {by} {word} its limit of {}", with_unit(site, tag, bound))
    }

    fn write_found(&self, site: &Site, out: &mut String) -> std::fmt::Result {
        let Some(tag) = self.tag_of_avoid(site) else { return Ok(()) };
        write!(out, " (it may read {})", span(site, tag, self.found))
    }

    /// The tag that `found` is about: that of the last term.
    fn tag_of_avoid(&self, site: &Site) -> Option<usize> {
        let map = site.plan.as_ref()?.map.as_ref()?;
        let terms = match self.rule {
            Rule::AvoidPlace { place } => &map.places.get(place)?.avoid,
            Rule::AvoidRoad { road } => &map.roads.get(road)?.avoid,
            _ => return None,
        };
        Some(terms.last()?.compare.tag)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_of_a_time_have_one_unit() {
        for (lo, hi, shown) in [
            (20.0, 45.0, "20 to 45 s"),
            (120.0, 133.2, "2 to 2.22 min"),
            (90.0, 180.0, "1.5 to 3 min"),
            (480.0, 480.0, "8 min"),
            (60.0, 60.001, "60 s"),
        ] {
            assert_eq!(times(Span { lo, hi }), shown);
        }
    }
}
