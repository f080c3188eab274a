//! Plain generation, token by token.

use std::ops::ControlFlow;

use ganglion_tokenizer::{Detokenizer, EncodeOptions, Tokenizer};

use crate::TokenId;
use crate::error::{LlmError, Result};
use crate::sampling::Sampler;
use crate::session::Session;

/// Why a generation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The model chose a stop token (which is not handed on).
    Stop(TokenId),
    /// `tokens_max` tokens were generated.
    Length,
    /// The context is full.
    Context,
    /// The receiver broke off.
    Receiver,
}

/// [`generate`] with the best token each time.
///
/// # Errors
/// As there.
pub fn generate_greedy(
    session: &mut Session,
    prompt: &[TokenId],
    tokens_max: usize,
    stop: &[TokenId],
    expired: &mut dyn FnMut() -> bool,
    receive: &mut dyn FnMut(TokenId) -> ControlFlow<()>,
) -> Result<Ending> {
    generate(session, prompt, tokens_max, &mut Sampler::greedy(), stop, expired, receive)
}

/// Evaluates `prompt` and hands every token that `sampler` chooses to `receive` as it comes.
///
/// # Errors
/// As [`Session::prefill`] and [`Session::logits_all`]; on [`LlmError::Expired`] the tokens handed on stay valid. An empty
/// prompt needs a session with logits to continue from.
pub fn generate(
    session: &mut Session,
    prompt: &[TokenId],
    tokens_max: usize,
    sampler: &mut Sampler,
    stop: &[TokenId],
    expired: &mut dyn FnMut() -> bool,
    receive: &mut dyn FnMut(TokenId) -> ControlFlow<()>,
) -> Result<Ending> {
    let mut logits = vec![0.0; session.model().config().vocab_size];
    session.prefill(prompt, expired)?;
    for token in prompt {
        sampler.observe(*token);
    }
    for generated in 0..tokens_max {
        session.logits_all(&mut logits)?;
        let token = sampler.choose(&logits).ok_or(LlmError::NotANumber { position: session.position() })?;
        if stop.contains(&token) {
            return Ok(Ending::Stop(token));
        }
        sampler.observe(token);
        if receive(token).is_break() {
            return Ok(Ending::Receiver);
        }
        if generated + 1 == tokens_max {
            break;
        }
        if session.remaining() == 0 {
            return Ok(Ending::Context);
        }
        session.step(token, expired)?;
    }
    Ok(Ending::Length)
}

/// [`generate`] for text: encodes `prompt` (with its BOS as the vocabulary says), evaluates what the session does not
/// already hold of it ([`Session::reuse`]), stops at the vocabulary's end tokens, and hands on whole UTF-8 characters as
/// they complete.
///
/// # Errors
/// As [`generate`].
pub fn generate_text(
    session: &mut Session,
    tokenizer: &Tokenizer,
    prompt: &str,
    tokens_max: usize,
    sampler: &mut Sampler,
    expired: &mut dyn FnMut() -> bool,
    receive: &mut dyn FnMut(&str) -> ControlFlow<()>,
) -> Result<Ending> {
    let tokens = encode_prompt(tokenizer, prompt);
    let (held, rest) = tokens.split_at(session.reuse(&tokens)?);
    for token in held {
        sampler.observe(*token);
    }
    let mut detokenizer = if prompt.is_empty() { Detokenizer::new() } else { Detokenizer::continuing() };
    let stop = tokenizer.end_of_generation();
    let ending = generate(session, rest, tokens_max, sampler, stop, expired, &mut |token| match detokenizer
        .push(tokenizer, token)
    {
        "" => ControlFlow::Continue(()),
        text => receive(text),
    })?;
    let rest = detokenizer.finish();
    if !rest.is_empty() && ending != Ending::Receiver {
        // The generation is over either way: what the receiver answers to its last piece changes nothing.
        let _ = receive(rest);
    }
    Ok(ending)
}

/// The tokens that [`generate_text`] evaluates for `prompt`.
pub fn encode_prompt(tokenizer: &Tokenizer, prompt: &str) -> Vec<TokenId> {
    tokenizer.encode(prompt, EncodeOptions { add_bos: tokenizer.add_bos_token(), parse_special: false })
}
