"""Write all mutants of a source file into it at once, each behind a switch (mutant schemata: Untch, Offutt and Harrold,
"Mutation analysis using mutant schemata", ISSTA 1993).

Needs PyPI: tree-sitter, tree-sitter-rust.
"""

import tree_sitter
import tree_sitter_rust

ON = "crate::mutant_switch::on"

# A number out of the environment, read once, so that a cycle that must not allocate does not. With a trace file, every
# mutant's number whose place is reached is written there, once per process.
SWITCH = """\
//! Which mutant is on.
use std::io::Write as _;
use std::sync::OnceLock;
use std::sync::atomic::{{AtomicBool, Ordering}};

struct Chosen {{
    mutant: u32,
    trace: Option<std::fs::File>,
}}

static CHOSEN: OnceLock<Chosen> = OnceLock::new();
static SEEN: [AtomicBool; {count}] = [const {{ AtomicBool::new(false) }}; {count}];

pub(crate) fn on(mutant: u32) -> bool {{
    let chosen = CHOSEN.get_or_init(|| Chosen {{
        mutant: std::env::var("MUTANT").ok().and_then(|text| text.parse().ok()).unwrap_or(0),
        trace: std::env::var("MUTANT_TRACE")
            .ok()
            .and_then(|file| std::fs::OpenOptions::new().append(true).create(true).open(file).ok()),
    }});
    if let Some(mut file) = chosen.trace.as_ref() {{
        if !SEEN[mutant as usize].swap(true, Ordering::Relaxed) {{
            let _ = file.write_all(format!("{{mutant}}\\n").as_bytes());
        }}
    }}
    chosen.mutant == mutant
}}

/// What a function gives that promises some iterator and does not say which.
pub(crate) enum Either<A, B> {{
    Mutant(A),
    Plain(B),
}}

impl<B: Iterator, A: Iterator<Item = B::Item>> Iterator for Either<A, B> {{
    type Item = B::Item;

    fn next(&mut self) -> Option<B::Item> {{
        match self {{
            Self::Mutant(mutant) => mutant.next(),
            Self::Plain(plain) => plain.next(),
        }}
    }}

    fn size_hint(&self) -> (usize, Option<usize>) {{
        match self {{
            Self::Mutant(mutant) => mutant.size_hint(),
            Self::Plain(plain) => plain.size_hint(),
        }}
    }}
}}

impl<B: ExactSizeIterator, A: ExactSizeIterator<Item = B::Item>> ExactSizeIterator for Either<A, B> {{}}
"""


def switch(count):
    """The module that every rewritten file asks; numbers go from 1 to `count`."""
    return SWITCH.format(count=count + 1)


def begin(number):
    return f"/*<{number}*/"


def end(number):
    return f"/*{number}>*/"


class Rewriter:
    """One file. `mutants` are (number, mutant as `cargo mutants --list --json` tells it)."""

    def __init__(self, source, mutants):
        self.source = source
        lines = source.decode().splitlines(keepends=True)
        starts = [0]
        for line in lines:
            starts.append(starts[-1] + len(line.encode()))

        def place(point):
            line = point["line"] - 1
            before = lines[line][: point["column"] - 1] if line < len(lines) else ""
            return starts[line] + len(before.encode())

        self.at = {}
        for number, mutant in mutants:
            span = (place(mutant["span"]["start"]), place(mutant["span"]["end"]))
            self.at.setdefault((mutant["genre"], span[0]), []).append((number, mutant, span))
        self.spans = sorted(span[0] for group in self.at.values() for _, _, span in group)
        self.done = set()
        self.functions = []
        language = tree_sitter.Language(tree_sitter_rust.language())
        self.tree = tree_sitter.Parser(language).parse(source)

    def rewrite(self):
        """The file with every mutant that a switch can express, and the numbers of those."""
        self.find_functions(self.tree.root_node)
        return self.render(self.tree.root_node), self.done

    def find_functions(self, node):
        if node.type == "function_item" and node.child_by_field_name("body"):
            self.functions.append(node)
        for child in node.children:
            self.find_functions(child)

    def text(self, node):
        return self.source[node.start_byte : node.end_byte].decode()

    def take(self, genre, start):
        """The mutants of one kind at one place."""
        group = self.at.get((genre, start), [])
        self.done.update(number for number, _, _ in group)
        return group

    def render(self, node):
        inside = any(node.start_byte <= start < node.end_byte for start in self.spans)
        # What is computed when the program is compiled knows no switch.
        if not inside or node.type in ("const_item", "static_item", "macro_invocation", "macro_definition"):
            return self.text(node)
        if node.type == "function_item":
            modifiers = [self.text(child) for child in node.children if child.type == "function_modifiers"]
            if any("const" in words.split() for words in modifiers):
                return self.text(node)
        write = {
            "binary_expression": self.binary,
            "compound_assignment_expr": self.binary,
            "unary_expression": self.unary,
            "match_arm": self.arm,
            "field_initializer": self.field,
            "shorthand_field_initializer": self.field,
            "function_item": self.function,
        }.get(node.type, self.children)
        return write(node)

    def children(self, node, instead=None):
        """The node's text with its children rewritten; `instead` gives some of them."""
        out, at = [], node.start_byte
        for child in node.children:
            out.append(self.source[at : child.start_byte].decode())
            given = instead.get(child.id) if instead else None
            out.append(self.render(child) if given is None else given)
            at = child.end_byte
        out.append(self.source[at : node.end_byte].decode())
        return "".join(out)

    @staticmethod
    def either(choices, inner):
        """One mutant of several, or what stands there."""
        if not choices:
            return inner
        out = "".join(
            f"if {ON}({number}) {{ {begin(number)}({text}){end(number)} }} else " for number, text in choices
        )
        return f"({out}{{ ({inner}) }})"

    def binary(self, node):
        operator = node.child_by_field_name("operator")
        left, right = (self.text(node.child_by_field_name(side)) for side in ("left", "right"))
        group = self.take("BinaryOperator", operator.start_byte)
        choices = [(number, f"{left} {mutant['replacement']} {right}") for number, mutant, _ in group]
        return self.either(choices, self.children(node))

    def unary(self, node):
        operand = self.text(node.children[-1])
        group = self.take("UnaryOperator", node.start_byte)
        return self.either([(number, operand) for number, _, _ in group], self.children(node))

    def arm(self, node):
        pattern = node.child_by_field_name("pattern")
        condition = pattern.child_by_field_name("condition")
        instead = {}
        if condition is not None:
            group = self.take("MatchArmGuard", condition.start_byte)
            choices = [(number, mutant["replacement"]) for number, mutant, _ in group]
            guarded = self.either(choices, self.render(condition))
            instead[pattern.id] = self.children(pattern, {condition.id: guarded})
        else:
            group = self.take("MatchArm", node.start_byte)
            guards = "".join(f" if {begin(number)}!{ON}({number}){end(number)}" for number, _, _ in group)
            if guards:
                instead[pattern.id] = self.render(pattern) + guards
        return self.children(node, instead)

    def field(self, node):
        group = self.take("StructField", node.start_byte)
        base = next((child for child in node.parent.children if child.type == "base_field_initializer"), None)
        if not group or base is None:
            return self.children(node)
        base = self.text(base.children[-1])
        if node.type == "shorthand_field_initializer":
            name = self.text(node)
            value = name
        else:
            name = self.text(node.child_by_field_name("field"))
            value = self.render(node.child_by_field_name("value"))
        choices = [(number, f"({base}).{name}") for number, _, _ in group]
        return f"{name}: {self.either(choices, value)}"

    def function(self, node):
        body = node.child_by_field_name("body")
        result = node.child_by_field_name("return_type")
        opaque = result is not None and self.text(result).startswith("impl ")
        iterates = opaque and "Iterator<" in self.text(result)
        returns, values = [], []
        for (genre, start), group in self.at.items():
            if genre != "FnValue" or not body.start_byte < start < body.end_byte:
                continue
            within = [f for f in self.functions if f.start_byte <= start < f.end_byte]
            if min(within, key=lambda f: f.end_byte - f.start_byte).id != node.id:
                continue
            for number, mutant, _ in group:
                value = mutant["replacement"]
                # Two returns of different types cannot stand in one function, but for iterators.
                if opaque and not iterates:
                    continue
                self.done.add(number)
                values.append((number, value))
                returns.append(f" if {ON}({number}) {{ {begin(number)}return {value};{end(number)} }}")
        rendered = self.children(body)
        if iterates:
            for number, value in values:
                mutant, plain = (f"crate::mutant_switch::Either::{side}" for side in ("Mutant", "Plain"))
                chosen = f"{mutant}({begin(number)}{value}{end(number)})"
                rendered = f"{{ if {ON}({number}) {{ {chosen} }} else {{ {plain}({rendered}) }} }}"
            return self.children(node, {body.id: rendered})
        # Behind the brace and what belongs to the block as a whole.
        at = 1
        inner = [child for child in body.children if child.type == "inner_attribute_item"]
        if inner:
            at = self.children(body).index(self.text(inner[-1])) + len(self.text(inner[-1]))
        return self.children(node, {body.id: rendered[:at] + "".join(returns) + rendered[at:]})
