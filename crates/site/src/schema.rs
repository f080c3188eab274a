//! The site's commands as a JSON Schema (draft 2020-12): what grammar, validator and API clients go by.

use crate::command::{ArgumentKind, CommandSpec};
use crate::number;
use crate::site::Site;
use serde_json::{Map, Value as Json, json};
use sha2::{Digest, Sha256};

impl Site {
    /// The JSON Schema that every command of the site satisfies and nothing else does: `anyOf` with one object per
    /// command, `action` first, arguments in order, all required, no others. (A text argument's bound is in bytes, and
    /// `maxLength` counts characters; [`Command::from_json`](crate::Command::from_json) checks the bytes.)
    pub fn schema(&self) -> Json {
        let commands: Vec<Json> = self.commands.iter().map(command_schema).collect();
        json!({ "$schema": "https://json-schema.org/draft/2020-12/schema", "anyOf": commands })
    }

    /// SHA-256 of the schema's compact JSON, as 64 hexadecimal digits.
    pub fn schema_sha256(&self) -> String {
        let digest = Sha256::digest(self.schema().to_string().as_bytes());
        digest.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

fn command_schema(spec: &CommandSpec) -> Json {
    let mut properties = Map::new();
    properties.insert("action".into(), json!({ "const": spec.name }));
    for argument in &spec.arguments {
        properties.insert(argument.name.clone(), argument_schema(&argument.kind));
    }
    let required: Vec<&String> = properties.keys().collect();
    let required = json!(required);
    json!({ "type": "object", "properties": properties, "required": required, "additionalProperties": false })
}

fn argument_schema(kind: &ArgumentKind) -> Json {
    match kind {
        ArgumentKind::Enum(choices) => json!({ "enum": choices }),
        ArgumentKind::Integer { lo, hi } => json!({ "type": "integer", "minimum": lo, "maximum": hi }),
        ArgumentKind::Number { lo, hi, step } => json!({
            "type": "number",
            "minimum": number::json(*lo),
            "maximum": number::json(*hi),
            "multipleOf": number::json(*step),
        }),
        ArgumentKind::Bool => json!({ "type": "boolean" }),
        ArgumentKind::Text { bytes_max } => json!({ "type": "string", "maxLength": bytes_max }),
    }
}
