//! The schema keywords that are enforced. Everything else is refused by name: fail closed.

use crate::error::{GrammarError, Result};
use crate::limits::{SCHEMA_DEPTH_MAX, SCHEMA_NODES_MAX};
use serde_json::Value;

const ENFORCED: [&str; 19] = [
    "type",
    "const",
    "enum",
    "anyOf",
    "oneOf",
    "properties",
    "required",
    "additionalProperties",
    "items",
    "minItems",
    "maxItems",
    "minLength",
    "maxLength",
    "pattern",
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "multipleOf",
];
const ANNOTATIONS: [&str; 6] = ["$schema", "$id", "$comment", "title", "description", "default"];

/// The enforced keywords, for messages.
pub(crate) fn supported() -> String {
    ENFORCED.join(", ")
}

/// Whether a keyword only describes.
pub(crate) fn is_annotation(keyword: &str) -> bool {
    ANNOTATIONS.contains(&keyword)
}

/// Checks every node of a schema.
///
/// # Errors
/// Names the first keyword that is not enforced, unbounded string or array, or excess of depth or size, with its path.
pub(crate) fn check(schema: &Value) -> Result<()> {
    let mut nodes = 0;
    node(schema, "#", 0, &mut nodes)
}

fn node(schema: &Value, path: &str, depth: usize, nodes: &mut usize) -> Result<()> {
    *nodes += 1;
    if depth > SCHEMA_DEPTH_MAX {
        return Err(GrammarError::TooLarge { what: "deep", path: path.into(), limit: SCHEMA_DEPTH_MAX });
    }
    if *nodes > SCHEMA_NODES_MAX {
        return Err(GrammarError::TooLarge { what: "large", path: path.into(), limit: SCHEMA_NODES_MAX });
    }
    let Value::Object(map) = schema else {
        return match schema {
            Value::Bool(_) => Ok(()),
            other => Err(GrammarError::Schema(format!("{path}: expected a schema object, found {other}"))),
        };
    };
    for (keyword, value) in map {
        let here = || format!("{path}/{keyword}");
        match keyword.as_str() {
            "properties" => {
                for (name, child) in value.as_object().into_iter().flatten() {
                    node(child, &format!("{path}/properties/{name}"), depth + 1, nodes)?;
                }
            }
            "anyOf" | "oneOf" => {
                for (index, child) in value.as_array().into_iter().flatten().enumerate() {
                    node(child, &format!("{}/{index}", here()), depth + 1, nodes)?;
                }
            }
            "items" | "additionalProperties" => node(value, &here(), depth + 1, nodes)?,
            k if ENFORCED.contains(&k) || ANNOTATIONS.contains(&k) => {}
            k => return Err(GrammarError::UnsupportedKeyword { keyword: k.into(), path: path.into() }),
        }
    }
    bounded(map, path)
}

fn bounded(map: &serde_json::Map<String, Value>, path: &str) -> Result<()> {
    let fixed = map.contains_key("const") || map.contains_key("enum");
    match map.get("type").and_then(Value::as_str) {
        Some("string") if !fixed && !map.contains_key("maxLength") && !map.contains_key("pattern") => {
            Err(GrammarError::Unbounded { kind: "string", path: path.into(), bound: "maxLength" })
        }
        Some("array") if !fixed && !map.contains_key("maxItems") => {
            Err(GrammarError::Unbounded { kind: "array", path: path.into(), bound: "maxItems" })
        }
        _ => Ok(()),
    }
}
