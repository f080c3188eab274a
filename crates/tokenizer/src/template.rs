//! Chat templates: the text a model expects around the messages of a conversation.

use std::io;

use minijinja::value::Value;
use minijinja::{Environment, Error, ErrorKind, context};

use crate::error::{Result, TokenizerError};
use crate::limits;
use crate::time::format_time;

/// One message of a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// `system`, `user` or `assistant`.
    pub role: &'a str,
    /// The text.
    pub content: &'a str,
}

/// What a template may ask for besides the messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RenderOptions<'a> {
    /// End with the header of an answer by the assistant.
    pub add_generation_prompt: bool,
    /// Text of the BOS token; empty if the tokenizer adds it.
    pub bos_token: &'a str,
    /// Text of the EOS token.
    pub eos_token: &'a str,
    /// What `strftime_now` takes for now, in seconds since 1970-01-01T00:00:00Z. Without it the function does not
    /// exist, which templates that ask for it have a default for; so the same messages give the same text each day.
    pub now_unix_s: Option<i64>,
}

/// A parsed Jinja chat template, as `tokenizer.chat_template` holds it.
///
/// Whitespace control, Python's string methods, `raise_exception` and `strftime_now` are those that
/// `transformers.apply_chat_template` provides.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
}

const NAME: &str = "chat_template";

impl ChatTemplate {
    /// Parses a template.
    ///
    /// # Errors
    /// [`TokenizerError::Template`] with the line, or [`TokenizerError::LimitExceeded`].
    pub fn new(source: &str) -> Result<ChatTemplate> {
        if source.len() > limits::TEMPLATE_BYTES_MAX {
            return Err(TokenizerError::LimitExceeded {
                what: "length of the chat template in bytes",
                found: source.len(),
                limit: limits::TEMPLATE_BYTES_MAX,
            });
        }
        let mut environment = Environment::new();
        environment.set_syntax(syntax()?);
        environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.set_fuel(Some(limits::TEMPLATE_FUEL_MAX));
        environment.add_function("raise_exception", |message: String| -> Result<Value, Error> {
            Err(Error::new(ErrorKind::InvalidOperation, message))
        });
        environment
            .add_template_owned(NAME, source.to_owned())
            .map_err(|error| template_error("parse", &error))?;
        Ok(ChatTemplate { environment })
    }

    /// Renders a conversation.
    ///
    /// The text is to be encoded with [`crate::EncodeOptions::parse_special`]; check contents from outside with
    /// [`crate::Tokenizer::find_special`] first.
    ///
    /// # Errors
    /// [`TokenizerError::Template`] when the template refuses the messages (`raise_exception`), fails, runs too
    /// long or renders more than [`limits::RENDERED_BYTES_MAX`].
    pub fn render(&self, messages: &[Message<'_>], options: RenderOptions<'_>) -> Result<String> {
        if messages.len() > limits::MESSAGE_COUNT_MAX {
            return Err(TokenizerError::LimitExceeded {
                what: "number of messages",
                found: messages.len(),
                limit: limits::MESSAGE_COUNT_MAX,
            });
        }
        let messages: Vec<Value> = messages
            .iter()
            .map(|message| context! { role => message.role, content => message.content })
            .collect();
        let mut context = context! {
            messages,
            add_generation_prompt => options.add_generation_prompt,
            bos_token => options.bos_token,
            eos_token => options.eos_token,
        };
        if let Some(now_unix_s) = options.now_unix_s {
            let strftime_now = Value::from_function(move |format: String| {
                format_time(now_unix_s, &format)
                    .map_err(|reason| Error::new(ErrorKind::InvalidOperation, reason))
            });
            context = context! { strftime_now, ..context };
        }
        let mut out = Bounded(Vec::new());
        self.environment
            .get_template(NAME)
            .and_then(|template| template.render_captured_to(context, &mut out).map(drop))
            .map_err(|error| template_error("render", &error))?;
        String::from_utf8(out.0)
            .map_err(|error| TokenizerError::Template { action: "render", reason: error.to_string() })
    }
}

/// `transformers` sets `trim_blocks` and `lstrip_blocks`.
fn syntax() -> Result<minijinja::syntax::SyntaxConfig> {
    minijinja::syntax::SyntaxConfig::builder()
        .trim_blocks(true)
        .lstrip_blocks(true)
        .build()
        .map_err(|error| template_error("parse", &error))
}

fn template_error(action: &'static str, error: &Error) -> TokenizerError {
    let mut reason = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        reason.push_str(": ");
        reason.push_str(&cause.to_string());
        source = cause.source();
    }
    TokenizerError::Template { action, reason }
}

/// Collects output up to [`limits::RENDERED_BYTES_MAX`].
struct Bounded(Vec<u8>);

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() > limits::RENDERED_BYTES_MAX - self.0.len() {
            let limit = limits::RENDERED_BYTES_MAX;
            return Err(io::Error::other(format!("the text exceeds the limit of {limit} bytes")));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
