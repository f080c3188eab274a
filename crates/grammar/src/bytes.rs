//! The texts that a bounded schema allows, as an acyclic automaton over bytes.
//!
//! Built from the end to the start, each node interned: equal remainders are one node, so the automaton is minimal by
//! construction (Daciuk et al. 2000 do the same for sorted words). Numbers have at most the decimals of their step, trailing
//! zeros among them: a model that copies "21.0" and could not write it would end up at 21.5. No leading zeros, no exponent.

use crate::decimal::{Decimal, Multiples};
use crate::limits::{BYTE_NODES_MAX, OUTPUT_BYTES_MAX, SCHEMA_DEPTH_MAX};
use serde_json::{Map, Value};
use std::collections::HashMap;

/// Index of a node.
pub(crate) type NodeId = u32;

/// Why a schema gets no automaton of its own; the general masks serve it then.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotBounded {
    /// Something that is not of the bounded kinds.
    #[error(
        "{path}: {what} is not one of: object with all properties required, const, enum, boolean, integer with range, number with range and multipleOf"
    )]
    Kind {
        /// JSON pointer.
        path: String,
        /// What was found.
        what: String,
    },
    /// A text that the vocabulary has no tokens for.
    #[error("the vocabulary has no token to go on with where one of the outputs has to")]
    Spelling,
    /// Larger than a limit allows.
    #[error("it takes more than {limit} {what}")]
    TooLarge {
        /// What there is too much of.
        what: &'static str,
        /// The limit met.
        limit: usize,
    },
}

/// A node: whether the text may end here, and what may follow, ascending by byte.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Node {
    is_end: bool,
    edges: Box<[(u8, NodeId)]>,
}

/// All nodes of one automaton.
#[derive(Debug, Default)]
pub(crate) struct ByteGraph {
    nodes: Vec<Node>,
    /// By node: bytes of the longest text from it on. What recurses along texts goes no deeper.
    sizes: Vec<usize>,
    known: HashMap<Node, NodeId>,
    unions: HashMap<(NodeId, NodeId), NodeId>,
}

type Built<T> = Result<T, NotBounded>;

impl ByteGraph {
    /// The automaton of a schema and its first node.
    pub(crate) fn new(schema: &Value) -> Built<(Self, NodeId)> {
        let mut graph = Self::default();
        let end = graph.node(true, Vec::new())?;
        let start = graph.value(schema, "#", 0, end)?;
        // What may end and may go on needs an end token to tell; only an object closes itself.
        if graph.edges(start).iter().any(|&(byte, _)| byte != b'{') {
            return Err(refuse("#", "a value that is not an object"));
        }
        (graph.known, graph.unions) = Default::default();
        Ok((graph, start))
    }

    /// What may follow, ascending by byte.
    pub(crate) fn edges(&self, node: NodeId) -> &[(u8, NodeId)] {
        self.nodes.get(node as usize).map_or(&[], |node| &node.edges)
    }

    /// The node behind one byte.
    pub(crate) fn step(&self, node: NodeId, byte: u8) -> Option<NodeId> {
        let edges = self.edges(node);
        let index = edges.binary_search_by_key(&byte, |edge| edge.0).ok()?;
        edges.get(index).map(|edge| edge.1)
    }

    /// The only byte that can follow, where the text cannot end.
    pub(crate) fn forced(&self, node: NodeId) -> Option<(u8, NodeId)> {
        match self.nodes.get(node as usize) {
            Some(Node { is_end: false, edges }) if edges.len() == 1 => edges.first().copied(),
            _ => None,
        }
    }

    /// Whether the text is whole and nothing can be added.
    pub(crate) fn is_final(&self, node: NodeId) -> bool {
        self.nodes.get(node as usize).is_some_and(|node| node.is_end && node.edges.is_empty())
    }

    /// The node with these edges.
    pub(crate) fn node(&mut self, is_end: bool, mut edges: Vec<(u8, NodeId)>) -> Built<NodeId> {
        edges.sort_unstable();
        let node = Node { is_end, edges: edges.into() };
        if let Some(&id) = self.known.get(&node) {
            return Ok(id);
        }
        if self.nodes.len() >= BYTE_NODES_MAX {
            return Err(NotBounded::TooLarge { what: "byte states", limit: BYTE_NODES_MAX });
        }
        let behind = node.edges.iter().filter_map(|edge| self.sizes.get(edge.1 as usize));
        let size = behind.max().map_or(0, |size| size + 1);
        if size > OUTPUT_BYTES_MAX {
            return Err(NotBounded::TooLarge { what: "bytes of one output", limit: OUTPUT_BYTES_MAX });
        }
        self.sizes.push(size);
        // In range by the limit.
        let id = self.nodes.len() as NodeId;
        self.nodes.push(node.clone());
        self.known.insert(node, id);
        Ok(id)
    }

    /// `text`, then `next`.
    fn literal(&mut self, text: &str, next: NodeId) -> Built<NodeId> {
        text.bytes().rev().try_fold(next, |next, byte| self.node(false, vec![(byte, next)]))
    }

    /// What either of two nodes allows.
    pub(crate) fn union(&mut self, a: NodeId, b: NodeId) -> Built<NodeId> {
        if a == b {
            return Ok(a);
        }
        let key = (a.min(b), a.max(b));
        if let Some(&known) = self.unions.get(&key) {
            return Ok(known);
        }
        let is_end = [a, b].iter().any(|&node| self.nodes.get(node as usize).is_some_and(|node| node.is_end));
        let mut edges = self.edges(a).to_vec();
        for (byte, other) in self.edges(b).to_vec() {
            match edges.iter().position(|edge| edge.0 == byte) {
                None => edges.push((byte, other)),
                Some(index) => {
                    let joined = self.union(edges[index].1, other)?;
                    edges[index].1 = joined;
                }
            }
        }
        let joined = self.node(is_end, edges)?;
        self.unions.insert(key, joined);
        Ok(joined)
    }

    /// Any of several texts, then `next`.
    fn texts(&mut self, texts: &[String], next: NodeId) -> Built<NodeId> {
        let mut all: Option<NodeId> = None;
        for text in texts {
            let one = self.literal(text, next)?;
            all = Some(match all {
                Some(before) => self.union(before, one)?,
                None => one,
            });
        }
        all.ok_or_else(|| refuse("#", "an empty enum"))
    }

    fn value(&mut self, schema: &Value, path: &str, depth: usize, next: NodeId) -> Built<NodeId> {
        let Value::Object(map) = schema else { return Err(refuse(path, "a schema that is true or false")) };
        if depth > SCHEMA_DEPTH_MAX {
            return Err(NotBounded::TooLarge { what: "levels", limit: SCHEMA_DEPTH_MAX });
        }
        let only = |keys: &[&str]| {
            keywords(map).find(|key| !keys.contains(key)).map_or(Ok(()), |key| Err(refuse(path, key)))
        };
        if let Some(choices) = map.get("anyOf") {
            only(&["anyOf"])?;
            return self.any_of(choices, path, depth, next);
        }
        if let Some(value) = map.get("const") {
            only(&["const"])?;
            return self.texts(&[spelling(value, path)?], next);
        }
        if let Some(values) = map.get("enum").and_then(Value::as_array) {
            only(&["enum"])?;
            let texts: Built<Vec<String>> = values.iter().map(|value| spelling(value, path)).collect();
            return self.texts(&texts?, next);
        }
        match map.get("type").and_then(Value::as_str) {
            Some("object") => {
                only(&["type", "properties", "required", "additionalProperties"])?;
                self.object(map, path, depth, next)
            }
            Some("boolean") => {
                only(&["type"])?;
                self.texts(&["false".into(), "true".into()], next)
            }
            Some(kind @ ("integer" | "number")) => {
                only(&["type", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"])?;
                let multiples = multiples(map, kind == "integer")
                    .ok_or_else(|| refuse(path, "a number without range or step, or with too many digits"))?;
                multiples.build(self, next)?.ok_or_else(|| refuse(path, "an empty range"))
            }
            other => Err(refuse(path, other.unwrap_or("a schema without type"))),
        }
    }

    fn any_of(&mut self, choices: &Value, path: &str, depth: usize, next: NodeId) -> Built<NodeId> {
        let mut all: Option<NodeId> = None;
        for (index, choice) in choices.as_array().into_iter().flatten().enumerate() {
            let one = self.value(choice, &format!("{path}/anyOf/{index}"), depth + 1, next)?;
            all = Some(match all {
                Some(before) => self.union(before, one)?,
                None => one,
            });
        }
        all.ok_or_else(|| refuse(path, "an empty anyOf"))
    }

    fn object(&mut self, map: &Map<String, Value>, path: &str, depth: usize, next: NodeId) -> Built<NodeId> {
        let none = Map::new();
        let properties = map.get("properties").and_then(Value::as_object).unwrap_or(&none);
        let required: Vec<&str> = map
            .get("required")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        if map.get("additionalProperties") != Some(&Value::Bool(false)) {
            return Err(refuse(path, "an object with additionalProperties"));
        }
        if required.len() != properties.len()
            || !properties.keys().all(|key| required.contains(&key.as_str()))
        {
            return Err(refuse(path, "an object with optional properties"));
        }
        let mut node = self.literal("}", next)?;
        for (index, (key, schema)) in properties.iter().enumerate().rev() {
            node = self.value(schema, &format!("{path}/properties/{key}"), depth + 1, node)?;
            let lead = if index == 0 { "" } else { "," };
            let key = spelling(&Value::String(key.clone()), path)?;
            node = self.literal(&format!("{lead}{key}:"), node)?;
        }
        self.literal("{", node)
    }
}

fn refuse(path: &str, what: impl Into<String>) -> NotBounded {
    NotBounded::Kind { path: path.into(), what: what.into() }
}

/// The keywords that bind.
fn keywords(map: &Map<String, Value>) -> impl Iterator<Item = &str> {
    map.keys().map(String::as_str).filter(|key| !crate::schema::is_annotation(key))
}

/// The one way to write a constant; strings that JSON could write in several ways have none.
fn spelling(value: &Value, path: &str) -> Built<String> {
    match value {
        Value::String(text) if !text.chars().any(|c| c.is_control() || c == '"' || c == '\\') => {
            Ok(format!("\"{text}\""))
        }
        Value::Bool(_) | Value::Null => Ok(value.to_string()),
        Value::Number(number) if number.is_i64() => Ok(number.to_string()),
        other => Err(refuse(path, format!("the constant {other}"))),
    }
}

/// The numbers of a numeric schema; `None` when there is no end to them or to their digits.
fn multiples(map: &Map<String, Value>, is_integer: bool) -> Option<Multiples> {
    let bound = |key: &str| match map.get(key) {
        None => Some(None),
        Some(value) => Decimal::of(value).map(Some),
    };
    let step = match (bound("multipleOf")?, is_integer) {
        (Some(step), true) if step.is_whole() => step,
        (None, true) => Decimal::ONE,
        (Some(step), false) => step,
        _ => return None,
    };
    Multiples::new(
        (bound("minimum")?, bound("exclusiveMinimum")?),
        (bound("maximum")?, bound("exclusiveMaximum")?),
        step,
        is_integer,
    )
}
