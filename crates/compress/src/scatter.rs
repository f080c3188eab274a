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

const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 600.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 24.0;
const TOP: f64 = 20.0;
const BOTTOM: f64 = 50.0;
/// Lines of the grid that an axis has at most.
const TICKS: usize = 8;
/// Share of the range that is left free around the points.
const MARGIN: f64 = 0.08;
/// Sizes further apart than this are drawn on a logarithmic axis.
const LOGARITHMIC_FROM: f64 = 4.0;
const RADIUS: f64 = 4.0;
/// Height of a label's line and width of its characters, on average.
const LINE: f64 = 13.0;
const CHARACTER: f64 = 6.8;
/// Distances from its point at which a label is tried, in lines.
const DISTANCES: i32 = 24;

/// Draws the points; those on the front (nothing smaller is as accurate) are filled and joined. Labels give way to each
/// other, with a thin line to their points.
pub fn scatter(points: &[Point], label: &str) -> String {
    let percent = |point: &Point| point.accuracy * 100.0;
    let x_axis = Axis::of_sizes(points);
    let (y_low, y_high) = range(points.iter().map(percent));
    let y_high = y_high.min(100.0);
    let x = |point: &Point| LEFT + x_axis.share(point.size_bytes as f64 / 1e6) * (WIDTH - LEFT - RIGHT);
    let y = |value: f64| HEIGHT - BOTTOM - (value - y_low) / (y_high - y_low) * (HEIGHT - TOP - BOTTOM);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    let (bottom, right) = (HEIGHT - BOTTOM, WIDTH - RIGHT);
    for size in x_axis.ticks() {
        svg += &format!(
            "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{size}</text>\n",
            LEFT + x_axis.share(size) * (right - LEFT),
            bottom + 18.0,
        );
    }
    for accuracy in round_values(y_low, y_high) {
        svg += &format!(
            "<line x1=\"{LEFT}\" x2=\"{right}\" y1=\"{0:.1}\" y2=\"{0:.1}\" stroke=\"#e4e4e4\"/>\n\
             <text x=\"{1}\" y=\"{2:.1}\" text-anchor=\"end\">{accuracy}</text>\n",
            y(accuracy),
            LEFT - 8.0,
            y(accuracy) + 4.0,
        );
    }
    svg += &format!(
        "<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">size, MB{}</text>\n\
         <text transform=\"translate(16 {}) rotate(-90)\" text-anchor=\"middle\">{}</text>\n",
        (LEFT + right) / 2.0,
        HEIGHT - 12.0,
        if x_axis.logarithmic { " (logarithmic)" } else { "" },
        (TOP + bottom) / 2.0,
        escaped(label),
    );
    let front = front(points);
    let places: Vec<_> = points.iter().map(|point| (x(point), y(percent(point)))).collect();
    let line: Vec<_> = front.iter().map(|i| format!("{:.1},{:.1}", places[*i].0, places[*i].1)).collect();
    svg += &format!("<polyline points=\"{}\" fill=\"none\" stroke=\"#2a6\"/>\n", line.join(" "));
    let labels = labels(points, &places, &front);
    for (index, (x, y)) in places.iter().enumerate() {
        let on_front = front.contains(&index);
        let (fill, weight) = if on_front { ("#2a6", "bold") } else { ("white", "normal") };
        let place = &labels[index];
        let middle = place.top + LINE / 2.0;
        if (middle - y).abs() > LINE {
            let edge = if place.left > *x { place.left - 1.0 } else { place.left + place.width + 1.0 };
            svg += &format!(
                "<line x1=\"{x:.1}\" y1=\"{y:.1}\" x2=\"{edge:.1}\" y2=\"{middle:.1}\" stroke=\"#bbb\" stroke-width=\"0.7\"/>\n"
            );
        }
        svg += &format!(
            "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{RADIUS}\" fill=\"{fill}\" stroke=\"#2a6\"/>\n\
             <text x=\"{:.1}\" y=\"{:.1}\" font-size=\"11\" font-weight=\"{weight}\">{}</text>\n",
            place.left,
            place.top + LINE - 3.0,
            escaped(&points[index].name),
        );
    }
    svg + "</svg>\n"
}

/// The axis of sizes, in megabytes.
struct Axis {
    low: f64,
    high: f64,
    logarithmic: bool,
}

impl Axis {
    fn of_sizes(points: &[Point]) -> Self {
        let sizes = || points.iter().map(|point| point.size_bytes.max(1) as f64 / 1e6);
        let (least, most) = (sizes().fold(f64::MAX, f64::min), sizes().fold(0.0, f64::max));
        let logarithmic = most > LOGARITHMIC_FROM * least;
        let (low, high) = range(sizes().map(|size| if logarithmic { size.ln() } else { size }));
        Self { low, high, logarithmic }
    }

    fn share(&self, size: f64) -> f64 {
        let value = if self.logarithmic { size.max(1e-6).ln() } else { size };
        (value - self.low) / (self.high - self.low)
    }

    /// Round sizes within the axis.
    fn ticks(&self) -> Vec<f64> {
        if !self.logarithmic {
            return round_values(self.low, self.high);
        }
        let (low, high) = (self.low.exp(), self.high.exp());
        let decades = low.log10().floor() as i32..=high.log10().floor() as i32;
        let of = |digits: &[u8]| -> Vec<f64> {
            let all = decades
                .clone()
                .flat_map(|decade| digits.iter().map(move |digit| rounded(f64::from(*digit), decade)));
            all.filter(|size| (low..=high).contains(size)).collect()
        };
        let few = of(&[1, 2, 5]);
        if few.len() >= TICKS / 2 { few } else { of(&[1, 2, 3, 4, 5, 6, 7, 8, 9]) }
    }
}

/// Multiples of 1, 2 or 5 times a power of ten within a range, [`TICKS`] at most.
fn round_values(low: f64, high: f64) -> Vec<f64> {
    let least = (high - low) / TICKS as f64;
    let decade = least.log10().floor() as i32;
    let step = [(1.0, decade), (2.0, decade), (5.0, decade), (1.0, decade + 1)];
    let (digit, decade) =
        step.into_iter().find(|(d, e)| rounded(*d, *e) >= least).unwrap_or((1.0, decade + 1));
    let step = rounded(digit, decade);
    let indices = (low / step).ceil() as i64..=(high / step).floor() as i64;
    indices.map(|index| rounded(index as f64 * digit, decade)).collect()
}

/// `value · 10^decade`, as near to its decimal form as a float gets: prints without a tail of digits.
fn rounded(value: f64, decade: i32) -> f64 {
    if decade < 0 { value / 10f64.powi(-decade) } else { value * 10f64.powi(decade) }
}

/// Where a label stands.
#[derive(Clone)]
struct Label {
    left: f64,
    top: f64,
    width: f64,
}

impl Label {
    fn meets(&self, other: &Self) -> bool {
        self.left < other.left + other.width
            && other.left < self.left + self.width
            && (self.top - other.top).abs() < LINE
    }
}

/// A place for each label, as near to its point as the others leave: those of the front choose first.
fn labels(points: &[Point], places: &[(f64, f64)], front: &[usize]) -> Vec<Label> {
    let dot = |(x, y): &(f64, f64)| Label { left: x - RADIUS, top: y - LINE / 2.0, width: 2.0 * RADIUS };
    let mut taken: Vec<Label> = places.iter().map(dot).collect();
    let mut labels = vec![Label { left: 0.0, top: 0.0, width: 0.0 }; points.len()];
    let mut order: Vec<usize> = (0..points.len()).collect();
    order.sort_by(|a, b| {
        let key = |i: &usize| (!front.contains(i), places[*i].1);
        let (a, b) = (key(a), key(b));
        a.0.cmp(&b.0).then(a.1.total_cmp(&b.1))
    });
    for index in order {
        let (x, y) = places[index];
        let width = points[index].name.chars().count() as f64 * CHARACTER;
        let at = |step: i32, to_the_left: bool| {
            // 0, −1, 1, −2, 2, … lines up and down, and a little further away with each.
            let lines = f64::from((step + 1) / 2 * if step % 2 == 0 { 1 } else { -1 });
            let away = RADIUS + 4.0 + lines.abs() * 4.0;
            let left = if to_the_left { x - away - width } else { x + away };
            Label { left, top: y - LINE / 2.0 + lines * LINE, width }
        };
        let inside = |label: &Label| {
            label.left >= LEFT
                && label.left + label.width <= WIDTH - RIGHT
                && label.top >= 0.0
                && label.top + LINE <= HEIGHT - BOTTOM
        };
        let mut tries = (0..DISTANCES).flat_map(|step| [at(step, false), at(step, true)]);
        let free = tries.find(|label| inside(label) && !taken.iter().any(|other| other.meets(label)));
        let label = free.unwrap_or_else(|| at(0, x > WIDTH / 2.0));
        taken.push(label.clone());
        labels[index] = label;
    }
    labels
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
        assert!(!svg.contains("logarithmic"));
        for part in svg.split("cx=\"").skip(1) {
            let x: f64 = part.split('"').next().unwrap().parse().unwrap();
            assert!((LEFT..=WIDTH - RIGHT).contains(&x), "{x}");
        }
        assert!(!scatter(&[], "none").contains("NaN"));
    }

    #[test]
    fn axes_have_round_numbers() {
        assert_eq!(round_values(70.3, 73.1), [70.5, 71.0, 71.5, 72.0, 72.5, 73.0]);
        assert_eq!(round_values(0.0, 1.0), [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]);
        assert_eq!(round_values(-0.31, 0.29), [-0.3, -0.2, -0.1, 0.0, 0.1, 0.2]);
        let axis = Axis { low: 0.9f64.ln(), high: 30f64.ln(), logarithmic: true };
        assert_eq!(axis.ticks(), [1.0, 2.0, 5.0, 10.0, 20.0]);
        let axis = Axis { low: 2.1f64.ln(), high: 11f64.ln(), logarithmic: true };
        assert_eq!(axis.ticks(), [3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0]);
    }

    #[test]
    fn labels_of_points_in_one_place_stand_apart() {
        let points: Vec<_> = (0..14)
            .map(|i| point(&format!("q4_k_m-method{i}"), 3_000_000, 0.8 + f64::from(i) * 1e-4))
            .collect();
        let svg = scatter(&points, "x");
        let mut tops: Vec<f64> = svg
            .lines()
            .filter(|line| line.contains("q4_k_m"))
            .map(|line| line.split("y=\"").nth(1).unwrap().split('"').next().unwrap().parse().unwrap())
            .collect();
        tops.sort_by(f64::total_cmp);
        assert_eq!(tops.len(), 14);
        // At most two of them, left and right, share a line.
        assert!(tops.windows(3).all(|three| three[2] - three[0] >= LINE - 0.2), "{tops:?}");
    }

    #[test]
    fn very_different_sizes_are_drawn_on_a_logarithmic_axis() {
        let points = [point("a", 1_000_000, 0.5), point("b", 4_000_000, 0.6), point("c", 16_000_000, 0.7)];
        let svg = scatter(&points, "x");
        assert!(svg.contains("logarithmic"));
        let x: Vec<f64> =
            svg.split("cx=\"").skip(1).map(|part| part.split('"').next().unwrap().parse().unwrap()).collect();
        assert!((x[1] - x[0] - (x[2] - x[1])).abs() < 0.2, "{x:?}");
    }
}
