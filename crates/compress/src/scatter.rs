//! A scatter plot of variants of a model as SVG: accuracy against size, and which variants no other one beats.

/// One variant.
#[derive(Debug, Clone, PartialEq)]
pub struct Point {
    /// What it is called.
    pub name: String,
    /// Bytes of its file.
    pub size_bytes: u64,
    /// 0 to 1.
    pub accuracy: f64,
}

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 460.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 150.0;
const TOP: f64 = 20.0;
const BOTTOM: f64 = 50.0;
const TICKS: usize = 5;
/// Share of the range that is left free around the points.
const MARGIN: f64 = 0.06;

/// Draws the points; those on the front (nothing smaller is as accurate) are filled and joined.
pub fn scatter(points: &[Point], label: &str) -> String {
    let megabytes = |point: &Point| point.size_bytes as f64 / 1e6;
    let percent = |point: &Point| point.accuracy * 100.0;
    let (x_low, x_high) = range(points.iter().map(megabytes));
    let (y_low, y_high) = range(points.iter().map(percent));
    let x = |value: f64| LEFT + (value - x_low) / (x_high - x_low) * (WIDTH - LEFT - RIGHT);
    let y = |value: f64| HEIGHT - BOTTOM - (value - y_low) / (y_high - y_low) * (HEIGHT - TOP - BOTTOM);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    let (bottom, right) = (HEIGHT - BOTTOM, WIDTH - RIGHT);
    for tick in 0..=TICKS {
        let share = tick as f64 / TICKS as f64;
        let (size, accuracy) = (x_low + share * (x_high - x_low), y_low + share * (y_high - y_low));
        svg += &format!(
            "<line x1=\"{LEFT}\" x2=\"{right}\" y1=\"{0:.1}\" y2=\"{0:.1}\" stroke=\"#ddd\"/>\n\
             <text x=\"{1}\" y=\"{2:.1}\" text-anchor=\"end\">{accuracy:.1}</text>\n\
             <text x=\"{3:.1}\" y=\"{4}\" text-anchor=\"middle\">{size:.2}</text>\n",
            y(accuracy),
            LEFT - 8.0,
            y(accuracy) + 4.0,
            x(size),
            bottom + 18.0,
        );
    }
    svg += &format!(
        "<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">size, MB</text>\n\
         <text transform=\"translate(16 {}) rotate(-90)\" text-anchor=\"middle\">{}</text>\n",
        (LEFT + right) / 2.0,
        HEIGHT - 12.0,
        (TOP + bottom) / 2.0,
        escaped(label),
    );
    let front = front(points);
    let line: Vec<_> = front
        .iter()
        .map(|i| format!("{:.1},{:.1}", x(megabytes(&points[*i])), y(percent(&points[*i]))))
        .collect();
    svg += &format!("<polyline points=\"{}\" fill=\"none\" stroke=\"#2a6\"/>\n", line.join(" "));
    for (index, point) in points.iter().enumerate() {
        let fill = if front.contains(&index) { "#2a6" } else { "white" };
        let (x, y) = (x(megabytes(point)), y(percent(point)));
        svg += &format!(
            "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4\" fill=\"{fill}\" stroke=\"#2a6\"/>\n\
             <text x=\"{:.1}\" y=\"{:.1}\">{}</text>\n",
            x + 7.0,
            y + 4.0,
            escaped(&point.name),
        );
    }
    svg + "</svg>\n"
}

/// The variants that no other one beats in size without losing accuracy, the smallest first.
pub fn front(points: &[Point]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..points.len()).collect();
    order.sort_by(|a, b| {
        let (a, b) = (&points[*a], &points[*b]);
        a.size_bytes.cmp(&b.size_bytes).then(b.accuracy.total_cmp(&a.accuracy))
    });
    let mut best = f64::NEG_INFINITY;
    order.retain(|i| {
        let better = points[*i].accuracy > best;
        best = best.max(points[*i].accuracy);
        better
    });
    order
}

fn range(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (low, high) = values.fold((f64::MAX, f64::MIN), |(low, high), v| (low.min(v), high.max(v)));
    if low > high {
        return (0.0, 1.0);
    }
    let margin = ((high - low) * MARGIN).max(low.abs() * 1e-3).max(1e-3);
    (low - margin, high + margin)
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(name: &str, size_bytes: u64, accuracy: f64) -> Point {
        Point { name: name.to_owned(), size_bytes, accuracy }
    }

    #[test]
    fn the_front_holds_what_nothing_beats() {
        let points = [
            point("large", 100, 0.9),
            point("worse", 80, 0.6),
            point("small", 50, 0.7),
            point("same size", 50, 0.65),
            point("as good, larger", 90, 0.7),
        ];
        assert_eq!(front(&points), [2, 0]);
        assert!(front(&[]).is_empty());
    }

    #[test]
    fn every_point_is_drawn_inside_and_names_are_escaped() {
        let points = [point("a<b", 1_000_000, 0.5), point("c", 2_000_000, 0.5)];
        let svg = scatter(&points, "right & wrong");
        assert_eq!(svg.matches("<circle").count(), 2);
        assert!(svg.contains("a&lt;b") && svg.contains("right &amp; wrong"));
        for part in svg.split("cx=\"").skip(1) {
            let x: f64 = part.split('"').next().unwrap().parse().unwrap();
            assert!((LEFT..=WIDTH - RIGHT).contains(&x), "{x}");
        }
        assert!(!scatter(&[], "none").contains("NaN"));
    }
}
