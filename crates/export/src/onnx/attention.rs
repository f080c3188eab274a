//! Grouped-query attention over past keys and values, from plain operators.

use ganglion_llm::{Attention, LayerSpec, MatrixPart, QueryKeyNorm};

use super::decoder::Decoder;
use super::graph::{Attribute, Dimension, Type};
use crate::error::Result;

/// Values that every layer shares.
pub(super) struct Shared {
    /// For each rotation: cosines and sines, (batch, sequence, 1, pairs).
    pub(super) angles: Vec<(String, String)>,
    /// For each window: what is added to scores, (batch, 1, 1, sequence, total).
    pub(super) masks: Vec<(Option<usize>, String)>,
}

/// Far below every score, and finite: a row without any visible position must not become NaN.
const HIDDEN: f32 = -3.0e38;

impl<'a> Decoder<'a> {
    /// The angles and masks of the graph's positions.
    pub(super) fn shared(&mut self, context: usize) -> Shared {
        self.graph.enter("positions");
        let mut angles = Vec::new();
        for (index, table) in self.anatomy.rope_tables(context).iter().enumerate() {
            let pairs = table.angles(0).len();
            let rows = || (0..context).flat_map(|position| table.angles(position));
            let cosines: Vec<f32> = rows().map(|(cos, _)| *cos).collect();
            let sines: Vec<f32> = rows().map(|(_, sin)| *sin).collect();
            let axis = self.graph.ints(&[2]);
            let mut looked_up = |name: &str, values| {
                let name = self.graph.floats(&format!("rope.{index}.{name}"), &[context, pairs], values);
                let rows = self.graph.node("Gather", &[&name, "position_ids"], &[]);
                self.graph.node("Unsqueeze", &[&rows, &axis], &[])
            };
            angles.push((looked_up("cos", cosines), looked_up("sin", sines)));
        }
        let mut windows: Vec<Option<usize>> =
            self.anatomy.config.layers.iter().map(|spec| spec.window).collect();
        windows.sort_unstable();
        windows.dedup();
        let (keys, queries, given) = self.places();
        let masks = windows
            .into_iter()
            .map(|window| (window, self.mask(window, (&keys, &queries, &given))))
            .collect();
        Shared { angles, masks }
    }

    /// Places of keys (total), of queries (sequence, 1), and which keys the caller's mask shows, (batch, 1, total).
    fn places(&mut self) -> (String, String, String) {
        let graph = &mut self.graph;
        let (zero, one) = (graph.int(0), graph.int(1));
        let mut length = |value: &str| {
            let shape = graph.node("Shape", &[value], &[]);
            graph.node("Gather", &[&shape, &one], &[])
        };
        let (total, sequence) = (length("attention_mask"), length("input_ids"));
        let past = graph.node("Sub", &[&total, &sequence], &[]);
        let keys = graph.node("Range", &[&zero, &total, &one], &[]);
        let queries = graph.node("Range", &[&past, &total, &one], &[]);
        let axis = graph.ints(&[1]);
        let queries = graph.node("Unsqueeze", &[&queries, &axis], &[]);
        let given = graph.node("Cast", &["attention_mask"], &[Attribute::Int("to", Type::Bool as i64)]);
        let given = graph.node("Unsqueeze", &[&given, &axis], &[]);
        (keys, queries, given)
    }

    fn mask(&mut self, window: Option<usize>, (keys, queries, given): (&str, &str, &str)) -> String {
        let graph = &mut self.graph;
        let mut seen = graph.node("LessOrEqual", &[keys, queries], &[]);
        if let Some(window) = window {
            let window = graph.int(window as i64);
            let before = graph.node("Sub", &[queries, &window], &[]);
            let inside = graph.node("Greater", &[keys, &before], &[]);
            seen = graph.node("And", &[&seen, &inside], &[]);
        }
        let seen = graph.node("And", &[&seen, given], &[]);
        let (shown, hidden) = (graph.float(0.0), graph.float(HIDDEN));
        let mask = graph.node("Where", &[&seen, &shown, &hidden], &[]);
        let axes = graph.ints(&[1, 2]);
        graph.node("Unsqueeze", &[&mask, &axes], &[])
    }

    /// What attention adds for the normed stream `x`, (batch, sequence, embedding).
    pub(super) fn attention(
        &mut self,
        layer: usize,
        weights: &'a Attention<MatrixPart, Vec<f32>>,
        x: &str,
        shared: &Shared,
    ) -> Result<String> {
        let config = &self.anatomy.config;
        let spec = config.layers[layer];
        let (heads, kv_heads, dim) =
            (config.head_count as i64, config.head_count_kv as i64, config.head_dim as i64);
        let name = |part: &str| format!("blk.{layer}.{part}");
        let order = self.row_order(spec);
        let query = self.linear_of(x, &weights.query, &name("attn_q"), order);
        let key = self.linear_of(x, &weights.key, &name("attn_k"), order);
        let value = self.linear(x, &weights.value, &name("attn_v"));
        let query =
            self.heads(&query, weights.query_norm.as_deref(), &name("attn_q_norm"), spec, shared, heads);
        let key = self.heads(&key, weights.key_norm.as_deref(), &name("attn_k_norm"), spec, shared, kv_heads);

        let graph = &mut self.graph;
        let groups = graph.ints(&[0, 0, kv_heads, heads / kv_heads, dim]);
        let query = graph.node("Reshape", &[&query, &groups], &[]);
        let query = graph.node("Transpose", &[&query], &[Attribute::Ints("perm", &[0, 2, 3, 1, 4])]);
        let split = graph.ints(&[0, 0, kv_heads, dim]);
        let value = graph.node("Reshape", &[&value, &split], &[]);
        let keys = self.with_past(layer, "key", &key);
        let values = self.with_past(layer, "value", &value);

        let graph = &mut self.graph;
        let group_axis = graph.ints(&[2]);
        let keys = graph.node("Transpose", &[&keys], &[Attribute::Ints("perm", &[0, 1, 3, 2])]);
        let keys = graph.node("Unsqueeze", &[&keys, &group_axis], &[]);
        let values = graph.node("Unsqueeze", &[&values, &group_axis], &[]);
        let scores = graph.node("MatMul", &[&query, &keys], &[]);
        let scale = graph.float(config.attention_scale);
        let mut scores = graph.node("Mul", &[&scores, &scale], &[]);
        if let Some(cap) = config.attention_softcap {
            scores = self.soft_cap(&scores, cap);
        }
        let graph = &mut self.graph;
        let mask = shared.masks.iter().find(|(window, _)| *window == spec.window);
        let (_, mask) = mask.unwrap_or_else(|| unreachable!("a mask for every window"));
        let scores = graph.node("Add", &[&scores, mask], &[]);
        let shares = graph.node("Softmax", &[&scores], &[Attribute::Int("axis", -1)]);
        let attended = graph.node("MatMul", &[&shares, &values], &[]);
        let attended = graph.node("Transpose", &[&attended], &[Attribute::Ints("perm", &[0, 3, 1, 2, 4])]);
        let flat = graph.ints(&[0, 0, heads * dim]);
        let attended = graph.node("Reshape", &[&attended, &flat], &[]);
        Ok(self.linear(&attended, &weights.output, &name("attn_output")))
    }

    /// (batch, sequence, heads, head_dim), normed and rotated.
    fn heads(
        &mut self,
        x: &str,
        norm: Option<&[f32]>,
        norm_name: &str,
        spec: LayerSpec,
        shared: &Shared,
        heads: i64,
    ) -> String {
        let config = &self.anatomy.config;
        let order = self.row_order(spec);
        let mut x = x.to_owned();
        let whole = config.design.query_key_norm == QueryKeyNorm::Whole;
        if let Some(weight) = norm.filter(|_| whole) {
            x = self.rms(&x, norm_name, order.vector(weight));
        }
        let split = self.graph.ints(&[0, 0, heads, config.head_dim as i64]);
        x = self.graph.node("Reshape", &[&x, &split], &[]);
        if let Some(weight) = norm.filter(|_| !whole) {
            x = self.rms(&x, norm_name, order.vector(weight));
        }
        match spec.rope {
            Some(rope) => self.rotated(&x, &shared.angles[rope], rope),
            None => x,
        }
    }

    /// The first values of each head, rotated in pairs half of them apart.
    fn rotated(&mut self, x: &str, (cos, sin): &(String, String), rope: usize) -> String {
        let head_dim = self.anatomy.config.head_dim;
        let pairs = self.pairs[rope];
        let rest = head_dim - 2 * pairs;
        let graph = &mut self.graph;
        let parts = if rest == 0 { vec![pairs, pairs] } else { vec![pairs, pairs, rest] };
        let parts = graph.split(x, &parts);
        let mut times = |value: &str, by: &str| graph.node("Mul", &[value, by], &[]);
        let (a_cos, b_sin) = (times(&parts[0], cos), times(&parts[1], sin));
        let (b_cos, a_sin) = (times(&parts[1], cos), times(&parts[0], sin));
        let first = graph.node("Sub", &[&a_cos, &b_sin], &[]);
        let second = graph.node("Add", &[&b_cos, &a_sin], &[]);
        let mut joined = vec![first.as_str(), second.as_str()];
        joined.extend(parts.get(2).map(String::as_str));
        graph.node("Concat", &joined, &[Attribute::Int("axis", -1)])
    }

    /// Past and present (batch, kv heads, total, head_dim); declares both.
    fn with_past(&mut self, layer: usize, kind: &str, present: &str) -> String {
        let config = &self.anatomy.config;
        let shape = |length| {
            [
                Dimension::Named("batch_size"),
                Dimension::Fixed(config.head_count_kv),
                Dimension::Named(length),
                Dimension::Fixed(config.head_dim),
            ]
        };
        let (past, whole) = (format!("past_key_values.{layer}.{kind}"), format!("present.{layer}.{kind}"));
        let graph = &mut self.graph;
        graph.input(&past, Type::Float, &shape("past_sequence_length"));
        graph.output(&whole, Type::Float, &shape("past_sequence_length + sequence_length"));
        let present = graph.node("Transpose", &[present], &[Attribute::Ints("perm", &[0, 2, 1, 3])]);
        graph.node_to("Concat", &[&past, &present], &[Attribute::Int("axis", 2)], &whole);
        whole
    }
}
