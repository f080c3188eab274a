//! What a matrix product costs on a device: times that were measured there, for each type, shape and number of tokens.

use ganglion_kernels::BlockFormat;

/// One measured product, `(tokens, columns) · (rows, columns)ᵀ`, activations quantised before.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ProductTime {
    /// Type of the weights.
    pub format: BlockFormat,
    /// Output rows.
    pub rows: usize,
    /// Values of a row.
    pub columns: usize,
    /// Rows of activations: 1 in decoding.
    pub tokens: usize,
    /// Whether the weights came from memory, as those of a model larger than the cache do, or from the cache.
    pub from_memory: bool,
    /// Nanoseconds.
    pub ns: f64,
}

/// What a layer takes beside its matrix products: norms, attention, activation function, and what products that share an input or
/// follow each other take less than each by itself; less than nothing if that is more.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LayerTime {
    /// Values of the residual stream.
    pub embedding_length: usize,
    /// Tokens of the pass.
    pub tokens: usize,
    /// Nanoseconds.
    pub ns: f64,
}

/// A device, as `ganglion bench device` measures it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Device {
    /// What its processor calls itself.
    pub name: String,
    /// Threads that the products ran on.
    pub threads: usize,
    /// Memory that a process could have.
    pub available_bytes: u64,
    /// The largest cache: a model beyond it streams from memory.
    pub cache_bytes: u64,
    /// Bytes a second that all threads read from memory.
    pub read_bytes_per_s: f64,
    /// int8 multiply-adds a second of all threads.
    pub int8_macs_per_s: f64,
    /// What was measured.
    pub products: Vec<ProductTime>,
    /// Beside them.
    pub layers: Vec<LayerTime>,
}

/// How much a shape of other proportions counts as farther away than one of another size.
const PROPORTION_WEIGHT: f64 = 0.25;

impl Device {
    /// Nanoseconds of a product; `None` if nothing of this type was measured.
    ///
    /// A shape that was not measured takes the time of the nearest one by the number of weights; a number of tokens between two
    /// measured ones lies on the line through them.
    pub fn product_ns(
        &self,
        format: BlockFormat,
        (rows, columns): (usize, usize),
        tokens: usize,
        from_memory: bool,
    ) -> Option<f64> {
        let here = |product: &&ProductTime| product.format == format && product.from_memory == from_memory;
        let area = |rows: usize, columns: usize| rows as f64 * columns as f64;
        let distance = |product: &ProductTime| {
            let size = (area(product.rows, product.columns) / area(rows, columns)).ln().abs();
            let proportion = (product.columns as f64 / columns as f64).ln().abs();
            size + PROPORTION_WEIGHT * proportion
        };
        let nearest = self.products.iter().filter(here).min_by(|a, b| distance(a).total_cmp(&distance(b)))?;
        let same = |product: &&ProductTime| {
            here(product) && (product.rows, product.columns) == (nearest.rows, nearest.columns)
        };
        let scale = area(rows, columns) / area(nearest.rows, nearest.columns);
        let mut points: Vec<(usize, f64)> =
            self.products.iter().filter(same).map(|p| (p.tokens, p.ns * scale)).collect();
        points.sort_by_key(|point| point.0);
        points.dedup_by_key(|point| point.0);
        Some(on_line(&points, tokens))
    }

    /// Nanoseconds of a layer beside its products; 0 if nothing of that kind was measured.
    ///
    /// Between two measured widths, and two numbers of tokens, the time lies on the line through them; beyond the widest it is in its
    /// proportion.
    pub fn other_ns(&self, embedding_length: usize, tokens: usize) -> f64 {
        let mut widths: Vec<usize> = self.layers.iter().map(|layer| layer.embedding_length).collect();
        widths.sort_unstable();
        widths.dedup();
        let at = |width: usize| {
            let same = self.layers.iter().filter(|layer| layer.embedding_length == width);
            let mut points: Vec<(usize, f64)> = same.map(|layer| (layer.tokens, layer.ns)).collect();
            points.sort_by_key(|point| point.0);
            points.dedup_by_key(|point| point.0);
            on_line(&points, tokens)
        };
        let points: Vec<(usize, f64)> = widths.into_iter().map(|width| (width, at(width))).collect();
        on_line(&points, embedding_length)
    }

    /// Types that were measured, in the order in which they occur.
    pub fn formats(&self) -> Vec<BlockFormat> {
        let mut formats = Vec::new();
        for product in &self.products {
            if !formats.contains(&product.format) {
                formats.push(product.format);
            }
        }
        formats
    }
}

/// The value at `x` on the lines through points of ascending x; beyond the last one, in its proportion.
fn on_line(points: &[(usize, f64)], x: usize) -> f64 {
    let proportional = |(at, value): (usize, f64)| value * x as f64 / at as f64;
    match points.iter().position(|point| point.0 >= x) {
        Some(0) => points[0].1,
        Some(after) => {
            let ((x0, y0), (x1, y1)) = (points[after - 1], points[after]);
            y0 + (y1 - y0) * (x - x0) as f64 / (x1 - x0) as f64
        }
        None => points.last().map_or(0.0, |last| proportional(*last)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(format: BlockFormat, shape: (usize, usize), tokens: usize, ns: f64) -> ProductTime {
        ProductTime { format, rows: shape.0, columns: shape.1, tokens, from_memory: false, ns }
    }

    #[test]
    fn times_between_the_measured_ones_lie_between_them() {
        let q4 = BlockFormat::Q4_0;
        let products = vec![
            time(q4, (256, 256), 1, 1000.0),
            time(q4, (256, 256), 9, 5000.0),
            time(q4, (1024, 1024), 1, 20_000.0),
            time(BlockFormat::Q8_0, (256, 256), 1, 7.0),
        ];
        let device = Device { products, ..Device::default() };
        let ns = |shape, tokens| device.product_ns(q4, shape, tokens, false).unwrap();
        assert_eq!(ns((256, 256), 1), 1000.0);
        assert_eq!(ns((256, 256), 5), 3000.0);
        assert_eq!(ns((256, 256), 18), 10_000.0);
        assert_eq!(ns((512, 256), 1), 2000.0);
        assert_eq!(ns((1024, 2048), 1), 40_000.0);
        assert_eq!(device.product_ns(q4, (256, 256), 1, true), None);
        assert_eq!(device.product_ns(BlockFormat::Q6_K, (256, 256), 1, false), None);
        assert_eq!(device.formats(), [q4, BlockFormat::Q8_0]);
    }

    #[test]
    fn what_a_layer_takes_beside_products_grows_with_width_and_tokens() {
        let layer = |embedding_length, tokens, ns| LayerTime { embedding_length, tokens, ns };
        let layers = vec![
            layer(1024, 1, 400.0),
            layer(256, 1, 100.0),
            layer(256, 65, 6500.0),
            layer(1024, 65, 26_000.0),
        ];
        let device = Device { layers, ..Device::default() };
        assert_eq!(device.other_ns(256, 1), 100.0);
        assert_eq!(device.other_ns(256, 33), 3300.0);
        assert_eq!(device.other_ns(640, 1), 250.0);
        assert_eq!(device.other_ns(640, 33), (3300.0 + 13_200.0) / 2.0);
        assert_eq!(device.other_ns(2048, 1), 800.0);
        assert_eq!(Device::default().other_ns(256, 1), 0.0);
    }
}
