//! A sparse mixture of experts from plain operators.
//!
//! Every expert is in the graph, and each sees the tokens that chose it: none, for most experts at most steps, and then its products
//! have no rows. As in the engine, a token's sum runs over its experts by their numbers, and the shared expert comes last.

use ganglion_llm::{Experts, MatrixPart};

use super::decoder::Decoder;
use super::graph::Attribute;

impl<'a> Decoder<'a> {
    /// What the mixture adds for the normed stream `x`, (batch, sequence, embedding).
    pub(super) fn mixture(
        &mut self,
        layer: usize,
        experts: &'a Experts<MatrixPart, Vec<f32>>,
        x: &str,
    ) -> String {
        let flat = [-1, self.anatomy.config.embedding_length as i64];
        let shape = self.graph.node("Shape", &[x], &[]);
        let flat = self.graph.ints(&flat);
        let tokens = self.graph.node("Reshape", &[x, &flat], &[]);
        let router = self.exact(&tokens, &experts.router, &format!("blk.{layer}.ffn_gate_inp.weight"));
        let shares = self.shares(&router);
        let shares = self.graph.split(&shares, &vec![1; experts.routed.len()]);
        let mut sum = self.zeros_like(&tokens);
        let (first, column) = (self.graph.int(0), self.graph.ints(&[1]));
        for (expert, (dense, share)) in experts.routed.iter().zip(&shares).enumerate() {
            let along_rows = [Attribute::Int("axis", 0)];
            let graph = &mut self.graph;
            let places = graph.node("NonZero", &[share], &[]);
            let members = graph.node("Gather", &[&places, &first], &along_rows);
            let rows = graph.node("Gather", &[&tokens, &members], &along_rows);
            let share = graph.node("Gather", &[share, &members], &along_rows);
            let out =
                self.feed_forward(dense, &rows, &|part| format!("blk.{layer}.ffn_{part}_exps.{expert}"));
            let graph = &mut self.graph;
            let out = graph.node("Mul", &[&out, &share], &[]);
            let members = graph.node("Unsqueeze", &[&members, &column], &[]);
            let add = [Attribute::Text("reduction", "add")];
            sum = graph.node("ScatterND", &[&sum, &members, &out], &add);
        }
        if let Some(shared) = &experts.shared {
            let gate = self.exact(&tokens, &shared.gate, &format!("blk.{layer}.ffn_gate_inp_shexp.weight"));
            let share = self.graph.node("Sigmoid", &[&gate], &[]);
            let out =
                self.feed_forward(&shared.dense, &tokens, &|part| format!("blk.{layer}.ffn_{part}_shexp"));
            let out = self.graph.node("Mul", &[&out, &share], &[]);
            sum = self.graph.node("Add", &[&sum, &out], &[]);
        }
        self.graph.node("Reshape", &[&sum, &shape], &[])
    }

    /// Each expert's share of each token, (tokens, experts): 0 for those that the token did not choose.
    fn shares(&mut self, router: &str) -> String {
        let experts = self.anatomy.config.experts;
        let graph = &mut self.graph;
        let all = graph.node("Softmax", &[router], &[Attribute::Int("axis", -1)]);
        let used = graph.ints(&[experts.used as i64]);
        // Of equals, the one with the lower number.
        let best = graph.nodes("TopK", &[&all, &used], &[Attribute::Int("axis", -1)], 2);
        let [share, chosen] = [&best[0], &best[1]];
        let mut share = share.clone();
        if experts.normalise_shares {
            let last = graph.ints(&[-1]);
            let total = graph.node("ReduceSum", &[&share, &last], &[Attribute::Int("keepdims", 1)]);
            share = graph.node("Div", &[&share, &total], &[]);
        }
        let none = self.zeros_like(&all);
        self.graph.node("ScatterElements", &[&none, chosen, &share], &[Attribute::Int("axis", 1)])
    }

    fn zeros_like(&mut self, x: &str) -> String {
        let shape = self.graph.node("Shape", &[x], &[]);
        self.graph.node("ConstantOfShape", &[&shape], &[])
    }
}
