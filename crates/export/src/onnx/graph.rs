//! An ONNX graph (onnx.proto3, IR version 10, opset 21) as it grows, and how it becomes a file.

use std::collections::HashSet;
use std::path::Path;

use crate::Progress;
use crate::error::Result;
use crate::limits::{ONNX_EXTERNAL_ALIGNMENT, ONNX_EXTERNAL_BYTES_MIN, ONNX_INLINE_BYTES_MAX};
use crate::onnx::proto::Message;
use crate::output::{Output, beside, remove_if_there};

const IR_VERSION: i64 = 10;
const OPSET: i64 = 21;
/// The domain of ONNX Runtime's own operators, and its version.
const RUNTIME_DOMAIN: &str = "com.microsoft";
const RUNTIME_VERSION: i64 = 1;

/// Fields of the messages, by their names in onnx.proto3.
mod field {
    pub(super) mod model {
        pub(crate) const IR_VERSION: u32 = 1;
        pub(crate) const PRODUCER_NAME: u32 = 2;
        pub(crate) const PRODUCER_VERSION: u32 = 3;
        pub(crate) const GRAPH: u32 = 7;
        pub(crate) const OPSET_IMPORT: u32 = 8;
    }
    pub(super) mod graph {
        pub(crate) const NODE: u32 = 1;
        pub(crate) const NAME: u32 = 2;
        pub(crate) const INITIALIZER: u32 = 5;
        pub(crate) const INPUT: u32 = 11;
        pub(crate) const OUTPUT: u32 = 12;
    }
    pub(super) mod node {
        pub(crate) const INPUT: u32 = 1;
        pub(crate) const OUTPUT: u32 = 2;
        pub(crate) const NAME: u32 = 3;
        pub(crate) const OP_TYPE: u32 = 4;
        pub(crate) const ATTRIBUTE: u32 = 5;
        pub(crate) const DOMAIN: u32 = 7;
    }
    pub(super) mod attribute {
        pub(crate) const NAME: u32 = 1;
        pub(crate) const FLOAT: u32 = 2;
        pub(crate) const INT: u32 = 3;
        pub(crate) const STRING: u32 = 4;
        pub(crate) const INTS: u32 = 8;
        pub(crate) const TYPE: u32 = 20;
    }
    pub(super) mod tensor {
        pub(crate) const DIMS: u32 = 1;
        pub(crate) const DATA_TYPE: u32 = 2;
        pub(crate) const NAME: u32 = 8;
        pub(crate) const RAW_DATA: u32 = 9;
        pub(crate) const EXTERNAL_DATA: u32 = 13;
        pub(crate) const DATA_LOCATION: u32 = 14;
    }
}

/// Element types, by their numbers in onnx.proto3.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Type {
    Float = 1,
    Uint8 = 2,
    Int64 = 7,
    Bool = 9,
    Float16 = 10,
}

/// An attribute of a node.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Attribute<'a> {
    Int(&'a str, i64),
    Float(&'a str, f32),
    Text(&'a str, &'a str),
    Ints(&'a str, &'a [i64]),
}

impl Attribute<'_> {
    fn message(&self) -> Message {
        use field::attribute::*;
        let named = |name: &str, kind: i64| Message::new().text(NAME, name).int(TYPE, kind);
        match *self {
            Self::Float(name, value) => named(name, 1).float(FLOAT, value),
            Self::Int(name, value) => named(name, 2).int(INT, value),
            Self::Text(name, value) => named(name, 3).text(STRING, value),
            Self::Ints(name, values) => named(name, 7).ints(INTS, values),
        }
    }
}

/// Writes the bytes of an initialiser.
type Producer<'a> = Box<dyn Fn(&mut Output) -> Result<()> + 'a>;

struct Initializer<'a> {
    /// Name, type and shape.
    head: Message,
    size_bytes: u64,
    produce: Producer<'a>,
}

/// A dimension of an input or output.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Dimension<'a> {
    Named(&'a str),
    Fixed(usize),
}

/// Nodes in the order of their evaluation, and what they read.
#[derive(Default)]
pub(crate) struct Graph<'a> {
    nodes: Vec<Message>,
    inputs: Vec<Message>,
    outputs: Vec<Message>,
    initializers: Vec<Initializer<'a>>,
    constants: HashSet<String>,
    /// Stands before the names of new values.
    scope: String,
    /// Whether operators of ONNX Runtime's own are used.
    extended: bool,
}

impl<'a> Graph<'a> {
    pub(crate) fn enter(&mut self, scope: impl Into<String>) {
        self.scope = scope.into();
    }

    fn named(&self, name: &str) -> String {
        if self.scope.is_empty() { name.to_owned() } else { format!("{}/{name}", self.scope) }
    }

    /// A node with one output, whose name comes back.
    pub(crate) fn node(&mut self, operator: &str, inputs: &[&str], attributes: &[Attribute<'_>]) -> String {
        let name = self.named(&format!("{operator}_{}", self.nodes.len()));
        self.node_to(operator, inputs, attributes, &name);
        name
    }

    /// A node whose output has a name of its own.
    pub(crate) fn node_to(
        &mut self,
        operator: &str,
        inputs: &[&str],
        attributes: &[Attribute<'_>],
        output: &str,
    ) {
        self.push(operator, "", inputs, attributes, &[output]);
    }

    /// A node of ONNX Runtime's own operators.
    pub(crate) fn runtime_node(
        &mut self,
        operator: &str,
        inputs: &[&str],
        attributes: &[Attribute<'_>],
    ) -> String {
        self.extended = true;
        let name = self.named(&format!("{operator}_{}", self.nodes.len()));
        self.push(operator, RUNTIME_DOMAIN, inputs, attributes, &[&name]);
        name
    }

    /// The parts of a value along its last axis.
    pub(crate) fn split(&mut self, value: &str, lengths: &[usize]) -> Vec<String> {
        let lengths: Vec<i64> = lengths.iter().map(|length| *length as i64).collect();
        let sizes = self.ints(&lengths);
        self.nodes("Split", &[value, &sizes], &[Attribute::Int("axis", -1)], lengths.len())
    }

    /// A node with several outputs, whose names come back.
    pub(crate) fn nodes(
        &mut self,
        operator: &str,
        inputs: &[&str],
        attributes: &[Attribute<'_>],
        outputs: usize,
    ) -> Vec<String> {
        let base = self.named(&format!("{operator}_{}", self.nodes.len()));
        let names: Vec<String> = (0..outputs).map(|index| format!("{base}_{index}")).collect();
        let outputs: Vec<&str> = names.iter().map(String::as_str).collect();
        self.push(operator, "", inputs, attributes, &outputs);
        names
    }

    fn push(
        &mut self,
        operator: &str,
        domain: &str,
        inputs: &[&str],
        attributes: &[Attribute<'_>],
        outputs: &[&str],
    ) {
        use field::node::*;
        let mut node = Message::new();
        for input in inputs {
            node = node.text(INPUT, input);
        }
        for output in outputs {
            node = node.text(OUTPUT, output);
        }
        node = node.text(NAME, &format!("{}:{operator}", outputs[0])).text(OP_TYPE, operator);
        if !domain.is_empty() {
            node = node.text(DOMAIN, domain);
        }
        let attributes: Vec<Message> = attributes.iter().map(Attribute::message).collect();
        self.nodes.push(node.messages(ATTRIBUTE, &attributes));
    }

    /// A list of numbers, once for each content.
    pub(crate) fn ints(&mut self, values: &[i64]) -> String {
        let list: Vec<String> = values.iter().map(i64::to_string).collect();
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.constant(format!("ints_{}", list.join("_")), Type::Int64, &[values.len()], bytes)
    }

    /// A whole number without dimensions.
    pub(crate) fn int(&mut self, value: i64) -> String {
        self.constant(format!("int_{value}"), Type::Int64, &[], value.to_le_bytes().to_vec())
    }

    /// A number without dimensions.
    pub(crate) fn float(&mut self, value: f32) -> String {
        let bytes = value.to_le_bytes().to_vec();
        self.constant(format!("float_{:08x}", value.to_bits()), Type::Float, &[], bytes)
    }

    fn constant(&mut self, name: String, kind: Type, shape: &[usize], bytes: Vec<u8>) -> String {
        if self.constants.insert(name.clone()) {
            let size = bytes.len() as u64;
            self.initializer(&name, kind, shape, size, move |out| out.write(&bytes));
        }
        name
    }

    /// Floats under a name of their own.
    pub(crate) fn floats(&mut self, name: &str, shape: &[usize], values: Vec<f32>) -> String {
        let size = values.len() as u64 * 4;
        self.initializer(name, Type::Float, shape, size, move |out| {
            values.iter().try_for_each(|value| out.write(&value.to_le_bytes()))
        });
        name.to_owned()
    }

    /// A tensor whose bytes are made when the file is written.
    pub(crate) fn initializer(
        &mut self,
        name: &str,
        kind: Type,
        shape: &[usize],
        size_bytes: u64,
        produce: impl Fn(&mut Output) -> Result<()> + 'a,
    ) {
        use field::tensor::*;
        let shape: Vec<i64> = shape.iter().map(|n| *n as i64).collect();
        let head = Message::new().ints(DIMS, &shape).int(DATA_TYPE, kind as i64).text(NAME, name);
        self.initializers.push(Initializer { head, size_bytes, produce: Box::new(produce) });
    }

    pub(crate) fn input(&mut self, name: &str, kind: Type, shape: &[Dimension<'_>]) {
        self.inputs.push(value_info(name, kind, shape));
    }

    pub(crate) fn output(&mut self, name: &str, kind: Type, shape: &[Dimension<'_>]) {
        self.outputs.push(value_info(name, kind, shape));
    }

    /// Writes `path`, and the file of weights beside it if that is wished or one protocol buffer cannot hold them; the bytes of
    /// both.
    pub(crate) fn write(
        &self,
        path: &Path,
        external: bool,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<u64> {
        let total_bytes = self.initializers.iter().map(|tensor| tensor.size_bytes).sum();
        let external = external || total_bytes > ONNX_INLINE_BYTES_MAX;
        let mut done_bytes = 0;
        let mut tell = |size_bytes: u64| {
            done_bytes += size_bytes;
            progress(Progress { done_bytes, total_bytes });
        };
        let data = if external { Some(self.write_data(path, &mut tell)?) } else { None };
        let heads = self.heads(path, data.as_ref().map(|(_, places)| places.as_slice()));
        let inner = self.inner();
        // A tensor's message is its head, and its data if that stands in the graph.
        let lengths: Vec<u64> = heads.iter().map(|(head, data)| head.len() + data.unwrap_or(0)).collect();
        let openings: Vec<Message> =
            lengths.iter().map(|length| Message::new().opening(field::graph::INITIALIZER, *length)).collect();
        let tensors: u64 = openings.iter().map(Message::len).sum::<u64>() + lengths.iter().sum::<u64>();
        let mut out = Output::create(path)?;
        out.write(self.model_head().opening(field::model::GRAPH, inner.len() + tensors).as_bytes())?;
        out.write(inner.as_bytes())?;
        for ((tensor, opening), (head, inline)) in self.initializers.iter().zip(&openings).zip(&heads) {
            out.write(opening.as_bytes())?;
            out.write(head.as_bytes())?;
            if inline.is_some() {
                produce(tensor, &mut out)?;
                tell(tensor.size_bytes);
            }
        }
        let size_bytes = out.written() + data.as_ref().map_or(0, |(file, _)| file.written());
        // The graph appears last: what it points to is there then. An older one would point into the new data.
        if let Some((file, _)) = data {
            remove_if_there(path)?;
            file.finish()?;
        }
        out.finish()?;
        Ok(size_bytes)
    }

    /// The file beside the graph, and where each initialiser begins in it.
    fn write_data(&self, path: &Path, tell: &mut dyn FnMut(u64)) -> Result<(Output, Vec<Option<u64>>)> {
        let mut out = Output::create(&beside(path, ".data"))?;
        let mut places = Vec::new();
        for tensor in &self.initializers {
            if tensor.size_bytes < ONNX_EXTERNAL_BYTES_MIN {
                places.push(None);
                continue;
            }
            out.align(ONNX_EXTERNAL_ALIGNMENT)?;
            places.push(Some(out.written()));
            produce(tensor, &mut out)?;
            tell(tensor.size_bytes);
        }
        Ok((out, places))
    }

    /// What stands before each initialiser's data, and how many bytes of data follow it in the graph.
    fn heads(&self, path: &Path, places: Option<&[Option<u64>]>) -> Vec<(Message, Option<u64>)> {
        use field::tensor::*;
        let location = path.file_name().unwrap_or_default().to_string_lossy().into_owned() + ".data";
        let entry = |key: &str, value: &str| Message::new().text(1, key).text(2, value);
        let head = |(index, tensor): (usize, &Initializer<'_>)| {
            let head = tensor.head.clone();
            match places.and_then(|places| places[index]) {
                Some(offset) => {
                    let entries = [
                        entry("location", &location),
                        entry("offset", &offset.to_string()),
                        entry("length", &tensor.size_bytes.to_string()),
                    ];
                    (head.messages(EXTERNAL_DATA, &entries).int(DATA_LOCATION, 1), None)
                }
                None => (head.opening(RAW_DATA, tensor.size_bytes), Some(tensor.size_bytes)),
            }
        };
        self.initializers.iter().enumerate().map(head).collect()
    }

    fn model_head(&self) -> Message {
        use field::model::*;
        let opset = |domain: &str, version| Message::new().text(1, domain).int(2, version);
        let message = Message::new()
            .int(IR_VERSION, self::IR_VERSION)
            .text(PRODUCER_NAME, "ganglion")
            .text(PRODUCER_VERSION, env!("CARGO_PKG_VERSION"))
            .message(OPSET_IMPORT, &opset("", OPSET));
        if self.extended {
            return message.message(OPSET_IMPORT, &opset(RUNTIME_DOMAIN, RUNTIME_VERSION));
        }
        message
    }

    /// The graph but for its initialisers.
    fn inner(&self) -> Message {
        use field::graph::*;
        Message::new()
            .messages(NODE, &self.nodes)
            .text(NAME, "decoder")
            .messages(INPUT, &self.inputs)
            .messages(OUTPUT, &self.outputs)
    }
}

fn produce(tensor: &Initializer<'_>, out: &mut Output) -> Result<()> {
    let before = out.written();
    (tensor.produce)(out)?;
    assert_eq!(out.written() - before, tensor.size_bytes, "a tensor is as long as its shape says");
    Ok(())
}

fn value_info(name: &str, kind: Type, shape: &[Dimension<'_>]) -> Message {
    let dimensions: Vec<Message> = shape
        .iter()
        .map(|dimension| match dimension {
            Dimension::Fixed(size) => Message::new().int(1, *size as i64),
            Dimension::Named(name) => Message::new().text(2, name),
        })
        .collect();
    let shape = Message::new().messages(1, &dimensions);
    let tensor = Message::new().int(1, kind as i64).message(2, &shape);
    Message::new().text(1, name).message(2, &Message::new().message(1, &tensor))
}
