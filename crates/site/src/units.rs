//! The units a site may use, each with its UNECE Recommendation 20 common code where one exists (OPC UA's
//! `EUInformation` uses the same codes).

/// A unit of measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unit {
    /// As written in the site file and in the prompt.
    pub symbol: &'static str,
    /// UNECE Rec 20 common code.
    pub code: Option<&'static str>,
    /// Its English name.
    pub name: &'static str,
}

const fn unit(symbol: &'static str, code: &'static str, name: &'static str) -> Unit {
    Unit { symbol, code: Some(code), name }
}

const fn uncoded(symbol: &'static str, name: &'static str) -> Unit {
    Unit { symbol, code: None, name }
}

/// All units, grouped by quantity.
pub const UNITS: &[Unit] = &[
    unit("C", "CEL", "degree celsius"),
    unit("K", "KEL", "kelvin"),
    unit("F", "FAH", "degree fahrenheit"),
    unit("%", "P1", "percent"),
    unit("ppm", "59", "part per million"),
    unit("rpm", "RPM", "revolution per minute"),
    unit("Hz", "HTZ", "hertz"),
    unit("kHz", "KHZ", "kilohertz"),
    unit("deg", "DD", "degree"),
    unit("rad", "C81", "radian"),
    unit("deg/s", "E96", "degree per second"),
    unit("rad/s", "2A", "radian per second"),
    unit("us", "B98", "microsecond"),
    unit("ms", "C26", "millisecond"),
    unit("s", "SEC", "second"),
    unit("min", "MIN", "minute"),
    unit("h", "HUR", "hour"),
    unit("d", "DAY", "day"),
    unit("um", "4H", "micrometre"),
    unit("mm", "MMT", "millimetre"),
    unit("cm", "CMT", "centimetre"),
    unit("m", "MTR", "metre"),
    unit("km", "KMT", "kilometre"),
    unit("m2", "MTK", "square metre"),
    unit("l", "LTR", "litre"),
    unit("m3", "MTQ", "cubic metre"),
    unit("mm/s", "C16", "millimetre per second"),
    unit("m/s", "MTS", "metre per second"),
    unit("km/h", "KMH", "kilometre per hour"),
    unit("m/s2", "MSK", "metre per second squared"),
    unit("l/min", "L2", "litre per minute"),
    unit("m3/h", "MQH", "cubic metre per hour"),
    unit("mg", "MGM", "milligram"),
    unit("g", "GRM", "gram"),
    unit("kg", "KGM", "kilogram"),
    unit("t", "TNE", "tonne"),
    unit("N", "NEW", "newton"),
    unit("kN", "B47", "kilonewton"),
    unit("Nm", "NU", "newton metre"),
    unit("Pa", "PAL", "pascal"),
    unit("hPa", "A97", "hectopascal"),
    unit("kPa", "KPA", "kilopascal"),
    unit("MPa", "MPA", "megapascal"),
    unit("mbar", "MBR", "millibar"),
    unit("bar", "BAR", "bar"),
    unit("mV", "2Z", "millivolt"),
    unit("V", "VLT", "volt"),
    unit("mA", "4K", "milliampere"),
    unit("A", "AMP", "ampere"),
    unit("W", "WTT", "watt"),
    unit("kW", "KWT", "kilowatt"),
    unit("Wh", "WHR", "watt hour"),
    unit("kWh", "KWH", "kilowatt hour"),
    unit("J", "JOU", "joule"),
    unit("lx", "LUX", "lux"),
    unit("dB", "2N", "decibel"),
    uncoded("ct/kWh", "cent per kilowatt hour"),
];

/// The unit with this symbol; `None` for an unknown one and for the empty string, which means "no unit".
pub fn find_unit(symbol: &str) -> Option<&'static Unit> {
    UNITS.iter().find(|unit| unit.symbol == symbol)
}

/// Quantities with their units, each as (symbol, factor, offset): value in the quantity's base = value × factor + offset.
#[rustfmt::skip]
const QUANTITIES: &[&[(&str, f64, f64)]] = &[
    &[("C", 1.0, 273.15), ("K", 1.0, 0.0), ("F", 5.0 / 9.0, 459.67 * 5.0 / 9.0)],
    &[("%", 1e4, 0.0), ("ppm", 1.0, 0.0)],
    &[("rpm", 6.0, 0.0), ("deg/s", 1.0, 0.0), ("rad/s", 180.0 / std::f64::consts::PI, 0.0)],
    &[("Hz", 1.0, 0.0), ("kHz", 1e3, 0.0)],
    &[("deg", 1.0, 0.0), ("rad", 180.0 / std::f64::consts::PI, 0.0)],
    &[("us", 1.0, 0.0), ("ms", 1e3, 0.0), ("s", 1e6, 0.0), ("min", 6e7, 0.0), ("h", 3.6e9, 0.0), ("d", 8.64e10, 0.0)],
    &[("um", 1.0, 0.0), ("mm", 1e3, 0.0), ("cm", 1e4, 0.0), ("m", 1e6, 0.0), ("km", 1e9, 0.0)],
    &[("m2", 1.0, 0.0)],
    &[("l", 1.0, 0.0), ("m3", 1e3, 0.0)],
    &[("mm/s", 1.0, 0.0), ("m/s", 1e3, 0.0), ("km/h", 1e6 / 3600.0, 0.0)],
    &[("m/s2", 1.0, 0.0)],
    &[("l/min", 0.06, 0.0), ("m3/h", 1.0, 0.0)],
    &[("mg", 1.0, 0.0), ("g", 1e3, 0.0), ("kg", 1e6, 0.0), ("t", 1e9, 0.0)],
    &[("N", 1.0, 0.0), ("kN", 1e3, 0.0)],
    &[("Nm", 1.0, 0.0)],
    &[("Pa", 1.0, 0.0), ("hPa", 1e2, 0.0), ("kPa", 1e3, 0.0), ("MPa", 1e6, 0.0), ("mbar", 1e2, 0.0), ("bar", 1e5, 0.0)],
    &[("mV", 1.0, 0.0), ("V", 1e3, 0.0)],
    &[("mA", 1.0, 0.0), ("A", 1e3, 0.0)],
    &[("W", 1.0, 0.0), ("kW", 1e3, 0.0)],
    &[("J", 1.0, 0.0), ("Wh", 3.6e3, 0.0), ("kWh", 3.6e6, 0.0)],
    &[("lx", 1.0, 0.0)],
    &[("dB", 1.0, 0.0)],
    &[("ct/kWh", 1.0, 0.0)],
];

/// Factor and offset of two units of one quantity.
fn pair(from: &str, to: &str) -> Option<[(f64, f64); 2]> {
    QUANTITIES.iter().find_map(|quantity| {
        let find = |symbol: &str| quantity.iter().find(|(s, ..)| *s == symbol).map(|(_, f, o)| (*f, *o));
        Some([find(from)?, find(to)?])
    })
}

/// `value` in unit `from`, in unit `to`; `None` when they are not of one quantity. Equal symbols change nothing. What
/// differs from a number of nine decimals only by the conversion's rounding is that number.
pub(crate) fn convert(value: f64, from: &str, to: &str) -> Option<f64> {
    if from == to {
        return Some(value);
    }
    let [(from_factor, from_offset), (to_factor, to_offset)] = pair(from, to)?;
    Some(tidy((value * from_factor + from_offset - to_offset) / to_factor))
}

/// Like [`convert`], for differences: 1 K is 1.8 F.
pub(crate) fn convert_step(value: f64, from: &str, to: &str) -> Option<f64> {
    if from == to {
        return Some(value);
    }
    let [(from_factor, _), (to_factor, _)] = pair(from, to)?;
    Some(tidy(value * from_factor / to_factor))
}

fn tidy(value: f64) -> f64 {
    let rounded = (value * 1e9).round() / 1e9;
    if rounded.is_finite() && (rounded - value).abs() <= value.abs() * 1e-12 { rounded } else { value }
}

/// Up to four symbols that someone who wrote `symbol` may have meant, best first.
pub(crate) fn close_units(symbol: &str) -> Vec<&'static str> {
    let wanted = symbol.trim_start_matches('°').to_ascii_lowercase();
    let mut ranked: Vec<(usize, &'static str)> = UNITS
        .iter()
        .filter_map(|unit| {
            let same = unit.symbol.to_ascii_lowercase() == wanted;
            let named = wanted.len() > 2 && unit.name.contains(wanted.trim_end_matches('s'));
            let distance = edit_distance(&unit.symbol.to_ascii_lowercase(), &wanted);
            let near = distance == 1 && wanted.chars().count() > 1;
            let rank = if same {
                0
            } else if named {
                1
            } else {
                1 + distance
            };
            (same || named || near).then_some((rank, unit.symbol))
        })
        .collect();
    ranked.sort_by_key(|(rank, _)| *rank);
    // Other case only: nothing else can be meant.
    if ranked.first().is_some_and(|(rank, _)| *rank == 0) {
        ranked.retain(|(rank, _)| *rank == 0);
    }
    ranked.into_iter().take(4).map(|(_, symbol)| symbol).collect()
}

/// The candidate that `word` is most likely a slip of, if any is near enough.
pub(crate) fn close_name<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let allowed = ((word.chars().count() + 1) / 3).clamp(1, 3);
    candidates
        .into_iter()
        .map(|candidate| (edit_distance(word, candidate), candidate))
        .filter(|(distance, candidate)| {
            *distance <= allowed
                || (word.len() > 2 && (candidate.starts_with(word) || word.starts_with(candidate)))
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Insertions, deletions, substitutions and swaps of neighbours between two words (optimal string alignment), over at
/// most 64 characters of each.
fn edit_distance(left: &str, right: &str) -> usize {
    let left: Vec<char> = left.chars().take(64).collect();
    let right: Vec<char> = right.chars().take(64).collect();
    // rows[i][j]: distance of the first i characters of `left` to the first j of `right`.
    let mut rows: Vec<Vec<usize>> = vec![(0..=right.len()).collect()];
    for (i, a) in left.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, b) in right.iter().enumerate() {
            let mut best = (rows[i][j] + usize::from(a != b)).min(rows[i][j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *a == right[j - 1] && left[i - 1] == *b {
                best = best.min(rows[i - 1][j - 1] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows.last().and_then(|row| row.last()).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn symbols_and_codes_are_unique_and_ascii() {
        for (index, unit) in UNITS.iter().enumerate() {
            assert!(unit.symbol.is_ascii() && !unit.symbol.contains(char::is_whitespace), "{}", unit.symbol);
            let later = UNITS.get(index + 1..).unwrap_or_default();
            assert!(later.iter().all(|other| other.symbol != unit.symbol), "{}", unit.symbol);
            assert!(
                later.iter().all(|other| other.code.is_none() || other.code != unit.code),
                "{}",
                unit.symbol
            );
        }
    }

    #[test]
    fn every_unit_converts_within_its_quantity_and_nowhere_else() {
        for unit in UNITS {
            let own = QUANTITIES.iter().filter(|q| q.iter().any(|(s, ..)| *s == unit.symbol)).count();
            assert_eq!(own, 1, "{}", unit.symbol);
            for other in UNITS {
                let there = convert(12.5, unit.symbol, other.symbol);
                let back = there.and_then(|value| convert(value, other.symbol, unit.symbol));
                assert_eq!(there.is_some(), convert(1.0, other.symbol, unit.symbol).is_some());
                assert!(back.is_none_or(|b| (b - 12.5).abs() < 1e-6), "{} {}", unit.symbol, other.symbol);
            }
        }
        for (value, from, to, expected) in [
            (68.0, "F", "C", 20.0),
            (0.0, "C", "K", 273.15),
            (212.0, "F", "K", 373.15),
            (1.0, "bar", "kPa", 100.0),
            (36.0, "km/h", "m/s", 10.0),
            (90.0, "s", "min", 1.5),
            (1.0, "kWh", "J", 3.6e6),
            (60.0, "l/min", "m3/h", 3.6),
            (1.0, "rpm", "deg/s", 6.0),
        ] {
            assert_eq!(convert(value, from, to), Some(expected), "{value} {from} in {to}");
        }
        assert_eq!(convert_step(9.0, "F", "C"), Some(5.0), "a difference has no zero point");
        assert_eq!(convert(1.0, "C", "bar"), None);
        assert_eq!(convert(1.0, "", "bar"), None);
    }

    #[test]
    fn suggestions() {
        assert_eq!(close_units("°C").first(), Some(&"C"));
        assert_eq!(close_units("celsius"), ["C"]);
        assert_eq!(close_units("RPM"), ["rpm"]);
        assert!(close_units("parsec").is_empty());
        assert_eq!(close_name("untis", ["unit", "range"]), Some("unit"));
        assert_eq!(close_name("scale_factor", ["scale", "range"]), Some("scale"));
        assert_eq!(close_name("colour", ["unit", "range"]), None);
    }
}
