//! Plain greedy generation, token by token.

use std::ops::ControlFlow;

use ganglion_kernels::argmax;
use ganglion_tokenizer::{Detokenizer, EncodeOptions, Tokenizer};

use crate::TokenId;
use crate::error::{LlmError, Result};
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

/// Evaluates `prompt` and hands every greedily chosen token to `receive` as it comes.
///
/// # Errors
/// As [`Session::prefill`] and [`Session::logits_all`]; on [`LlmError::Expired`] the tokens handed on stay valid. An empty
/// prompt needs a session with logits to continue from.
pub fn generate_greedy(
    session: &mut Session,
    prompt: &[TokenId],
    tokens_max: usize,
    stop: &[TokenId],
    expired: &mut dyn FnMut() -> bool,
    receive: &mut dyn FnMut(TokenId) -> ControlFlow<()>,
) -> Result<Ending> {
    let mut logits = vec![0.0; session.model().config().vocab_size];
    session.prefill(prompt, expired)?;
    for generated in 0..tokens_max {
        session.logits_all(&mut logits)?;
        let best = argmax(&logits).ok_or(LlmError::NotANumber { position: session.position() })?;
        let token = best as TokenId;
        if stop.contains(&token) {
            return Ok(Ending::Stop(token));
        }
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

/// [`generate_greedy`] for text: encodes `prompt` (with its BOS as the vocabulary says), stops at the vocabulary's end
/// tokens, and hands on whole UTF-8 characters as they complete.
///
/// # Errors
/// As [`generate_greedy`].
pub fn generate_text(
    session: &mut Session,
    tokenizer: &Tokenizer,
    prompt: &str,
    tokens_max: usize,
    expired: &mut dyn FnMut() -> bool,
    receive: &mut dyn FnMut(&str) -> ControlFlow<()>,
) -> Result<Ending> {
    let tokens =
        tokenizer.encode(prompt, EncodeOptions { add_bos: tokenizer.add_bos_token(), parse_special: false });
    let mut detokenizer = if prompt.is_empty() { Detokenizer::new() } else { Detokenizer::continuing() };
    let ending = generate_greedy(
        session,
        &tokens,
        tokens_max,
        tokenizer.end_of_generation(),
        expired,
        &mut |token| match detokenizer.push(tokenizer, token) {
            "" => ControlFlow::Continue(()),
            text => receive(text),
        },
    )?;
    let rest = detokenizer.finish();
    if !rest.is_empty() && ending != Ending::Receiver {
        // The generation is over either way: what the receiver answers to its last piece changes nothing.
        let _ = receive(rest);
    }
    Ok(ending)
}
