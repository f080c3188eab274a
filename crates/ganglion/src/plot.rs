//! Line plots as SVG: axes with ticks, a legend, and nothing else.

use std::fmt::Write;

/// Colours that people with any colour vision can tell apart (Okabe and Ito, 2008).
const COLOURS: [&str; 6] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"];
const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 360.0;
const LEFT: f64 = 78.0;
const RIGHT: f64 = 24.0;
const TOP: f64 = 58.0;
const BOTTOM: f64 = 52.0;

/// How values become places.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Scale {
    /// Equal differences take equal room.
    Linear,
    /// Equal ratios take equal room; values are above 0.
    Log,
    /// Shares below 1 by the logarithm of their distance from it, as percentile plots have them.
    Tail,
}

/// One axis.
#[derive(Debug, Clone)]
pub struct Axis {
    /// What it shows, with the unit.
    pub label: String,
    /// How.
    pub scale: Scale,
    /// From and to.
    pub range: (f64, f64),
    /// Values that get a line, and what stands there.
    pub ticks: Vec<(f64, String)>,
}

/// One line.
#[derive(Debug, Clone)]
pub struct Series {
    /// In the legend.
    pub name: String,
    /// From left to right.
    pub points: Vec<(f64, f64)>,
    /// Whether the area below it is shaded.
    pub filled: bool,
}

/// Axes and the lines in them.
#[derive(Debug, Clone)]
pub struct Plot {
    /// Above all.
    pub title: String,
    /// Horizontal.
    pub x: Axis,
    /// Vertical.
    pub y: Axis,
    /// Drawn in this order.
    pub series: Vec<Series>,
}

impl Axis {
    /// With ticks at 1, 2 and 5 times the powers of ten; `range` grows to such ticks.
    pub fn log(label: &str, range: (f64, f64)) -> Self {
        let steps: Vec<f64> =
            (-9..=12).flat_map(|power| [1.0, 2.0, 5.0].map(|digit| digit * 10_f64.powi(power))).collect();
        let lo = steps.iter().rev().find(|step| **step <= range.0).copied().unwrap_or(range.0);
        let hi = steps.iter().find(|step| **step >= range.1 && **step > lo).copied().unwrap_or(range.1);
        let ticks = steps.iter().filter(|step| (lo..=hi).contains(*step));
        let ticks = ticks.map(|step| (*step, short(*step))).collect();
        Self { label: label.into(), scale: Scale::Log, range: (lo, hi), ticks }
    }

    /// From 0 with about five ticks; `hi` grows to a tick. `percent` shows shares as such.
    pub fn linear(label: &str, hi: f64, percent: bool) -> Self {
        let step = nice_step(hi.max(1e-9) / 5.0);
        let count = (hi / step - 1e-9).ceil().max(1.0);
        let show = |value: f64| if percent { format!("{} %", short(value * 100.0)) } else { short(value) };
        // Five to ten ticks.
        let ticks = (0..=count as u32).map(|i| f64::from(i) * step).map(|at| (at, show(at))).collect();
        Self { label: label.into(), scale: Scale::Linear, range: (0.0, count * step), ticks }
    }

    /// Percentiles up to the one that `count` values show.
    pub fn percentiles(label: &str, count: u64) -> Self {
        let all = [0.0, 0.5, 0.9, 0.99, 0.999, 0.9999, 0.99999, 0.999_999];
        let last = 1.0 - 1.0 / (count.max(2) as f64);
        let ticks = all.iter().filter(|share| **share <= last + 1e-12);
        let ticks = ticks.map(|share| (*share, format!("{} %", short(share * 100.0)))).collect();
        Self { label: label.into(), scale: Scale::Tail, range: (0.0, last), ticks }
    }

    /// Where a value lies between the ends, 0 to 1.
    fn place(&self, value: f64) -> f64 {
        let at = |value: f64| match self.scale {
            Scale::Linear => value,
            Scale::Log => value.max(f64::MIN_POSITIVE).log10(),
            Scale::Tail => -(1.0 - value).max(1e-12).log10(),
        };
        let (lo, hi) = (at(self.range.0), at(self.range.1));
        ((at(value) - lo) / (hi - lo).max(f64::MIN_POSITIVE)).clamp(0.0, 1.0)
    }
}

/// 1, 2, 2.5 or 5 times a power of ten, at least `least`.
fn nice_step(least: f64) -> f64 {
    let power = 10_f64.powf(least.log10().floor());
    let digits = [1.0, 2.0, 2.5, 5.0, 10.0];
    digits.iter().map(|digit| digit * power).find(|step| *step >= least * (1.0 - 1e-9)).unwrap_or(least)
}

/// A number without the noise of binary fractions.
fn short(value: f64) -> String {
    let text = format!("{value:.6}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text.is_empty() || text == "-0" { "0".into() } else { text.into() }
}

/// The plots below each other, as one SVG document.
pub fn svg(plots: &[Plot]) -> String {
    let height = HEIGHT * plots.len() as f64;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#ffffff\"/>\n"
    );
    for (index, plot) in plots.iter().enumerate() {
        let _ = writeln!(out, "<g transform=\"translate(0 {})\">", HEIGHT * index as f64);
        draw(&mut out, plot);
        out.push_str("</g>\n");
    }
    out.push_str("</svg>\n");
    out
}

fn draw(out: &mut String, plot: &Plot) {
    let x = |value: f64| LEFT + plot.x.place(value) * (WIDTH - LEFT - RIGHT);
    let y = |value: f64| HEIGHT - BOTTOM - plot.y.place(value) * (HEIGHT - TOP - BOTTOM);
    let (left, right, top, bottom) = (LEFT, WIDTH - RIGHT, TOP, HEIGHT - BOTTOM);
    let _ = writeln!(
        out,
        "<text x=\"{left}\" y=\"22\" font-size=\"14\" font-weight=\"bold\">{}</text>",
        escape(&plot.title)
    );
    for (value, label) in &plot.x.ticks {
        let at = x(*value);
        let _ = writeln!(
            out,
            "<path d=\"M{at:.1} {top}V{bottom}\" stroke=\"#e3e3e3\"/><text x=\"{at:.1}\" y=\"{:.1}\" \
             text-anchor=\"middle\">{}</text>",
            bottom + 17.0,
            escape(label)
        );
    }
    for (value, label) in &plot.y.ticks {
        let at = y(*value);
        let _ = writeln!(
            out,
            "<path d=\"M{left} {at:.1}H{right}\" stroke=\"#e3e3e3\"/><text x=\"{:.1}\" y=\"{:.1}\" \
             text-anchor=\"end\">{}</text>",
            left - 6.0,
            at + 4.0,
            escape(label)
        );
    }
    let _ = writeln!(out, "<path d=\"M{left} {top}V{bottom}H{right}\" fill=\"none\" stroke=\"#444444\"/>");
    let middle = f64::midpoint(left, right);
    let _ = writeln!(
        out,
        "<text x=\"{middle:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
        bottom + 38.0,
        escape(&plot.x.label)
    );
    let middle = f64::midpoint(top, bottom);
    let _ = writeln!(
        out,
        "<text transform=\"translate(18 {middle:.1}) rotate(-90)\" text-anchor=\"middle\">{}</text>",
        escape(&plot.y.label)
    );
    let mut legend = left;
    for (series, colour) in plot.series.iter().zip(COLOURS.iter().cycle()) {
        line(out, series, colour, &x, &y, bottom);
        let _ = writeln!(
            out,
            "<path d=\"M{legend:.1} 40h18\" stroke=\"{colour}\" stroke-width=\"3\"/><text x=\"{:.1}\" y=\"44\">{}</text>",
            legend + 23.0,
            escape(&series.name)
        );
        // About as wide as the text is.
        legend += 45.0 + 6.4 * series.name.chars().count() as f64;
    }
}

fn line(
    out: &mut String,
    series: &Series,
    colour: &str,
    x: &impl Fn(f64) -> f64,
    y: &impl Fn(f64) -> f64,
    bottom: f64,
) {
    let mut path = String::new();
    for (index, point) in series.points.iter().enumerate() {
        let _ = write!(path, "{}{:.1} {:.1}", if index == 0 { 'M' } else { 'L' }, x(point.0), y(point.1));
    }
    let (Some(first), Some(last)) = (series.points.first(), series.points.last()) else { return };
    if series.filled {
        let _ = writeln!(
            out,
            "<path d=\"{path}L{:.1} {bottom}L{:.1} {bottom}Z\" fill=\"{colour}\" fill-opacity=\"0.2\" stroke=\"none\"/>",
            x(last.0),
            x(first.0)
        );
    }
    let _ = writeln!(
        out,
        "<path d=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.8\" stroke-linejoin=\"round\"/>"
    );
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_place_their_values() {
        let log = Axis::log("ms", (1.3, 310.0));
        assert_eq!(log.range, (1.0, 500.0));
        assert_eq!(
            log.ticks.iter().map(|tick| tick.1.as_str()).collect::<Vec<_>>().join(" "),
            "1 2 5 10 20 50 100 200 500"
        );
        let ten = log.place(10.0) - log.place(1.0);
        assert!((ten - (log.place(100.0) - log.place(10.0))).abs() < 1e-12);
        let tail = Axis::percentiles("", 1000);
        assert_eq!(
            tail.ticks.iter().map(|tick| tick.1.as_str()).collect::<Vec<_>>().join(" "),
            "0 % 50 % 90 % 99 % 99.9 %"
        );
        assert!((tail.place(0.9) - 1.0 / 3.0).abs() < 1e-9);
        assert!((tail.place(1.0) - 1.0).abs() < 1e-9, "the largest value stands at the end");
        let share = Axis::linear("", 0.23, true);
        assert_eq!(share.ticks.last().unwrap().1, "25 %");
        assert_eq!(share.place(0.125), 0.5);
        assert_eq!(Axis::linear("", 1.0, true).ticks.len(), 6);
    }

    #[test]
    fn a_plot_is_well_formed_and_keeps_within_its_frame() {
        let plot = Plot {
            title: "a < b & c".into(),
            x: Axis::percentiles("share", 100),
            y: Axis::log("ms", (1.0, 10.0)),
            series: vec![Series {
                name: "s".into(),
                points: vec![(0.0, 0.1), (0.5, 3.0), (1.0, 1e9)],
                filled: true,
            }],
        };
        let text = svg(&[plot.clone(), plot]);
        assert!(text.contains("a &lt; b &amp; c") && !text.contains("NaN") && !text.contains("inf"));
        assert_eq!(text.matches("<g ").count(), text.matches("</g>").count());
        let path = text.lines().find(|line| line.contains("stroke-linejoin")).unwrap();
        let numbers = path.split(['"', 'M', 'L', ' ']).filter_map(|part| part.parse::<f64>().ok());
        assert!(numbers.into_iter().all(|n| (0.0..=WIDTH).contains(&n)), "{path}");
    }
}
