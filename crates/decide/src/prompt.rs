//! Event to token ids behind the pinned prefix.
//!
//! Models trained on the canonical form (`ganglion.prompt_form` in their metadata) get it; all others get their own chat
//! template, with the site's facts as the system message. Either way the static part comes first and is the same for every
//! event. An event's text can never contain a control token: it is tokenised as plain text.

use crate::error::{DecideError, Result};
use crate::loaded::LoadedModel;
use ganglion_site::limits::{NUMBER_MAX, SENTENCE_BYTES_MAX};
use ganglion_site::{Event, PROMPT_FORM, Sentence, Site};
use ganglion_tokenizer::{
    ChatTemplate, EncodeOptions, EncodeScratch, Message, RenderOptions, TokenId, Tokenizer,
};

/// Stands for the event in a rendered template; no site text can hold it, since names and sentences have no such bytes.
const EVENT_MARK: &str = "\u{2}event\u{3}";

/// Decimals for a value that is as long as one can be.
const WARM_FRACTION: f64 = 0.123_456;

/// How a site speaks to its model.
pub struct Prompt {
    form: &'static str,
    prefix_text: String,
    prefix: Vec<TokenId>,
    suffix: Vec<TokenId>,
    event_text: String,
    scratch: EncodeScratch,
}

impl Prompt {
    /// Builds the static part.
    ///
    /// # Errors
    /// A chat template that does not render, or does not keep the static part in front.
    pub fn new(site: &Site, loaded: &LoadedModel) -> Result<Self> {
        Self::build(site, &loaded.tokenizer, loaded.speaks_canonical_form)
    }

    pub(crate) fn build(site: &Site, tokenizer: &Tokenizer, canonical: bool) -> Result<Self> {
        let bos = tokenizer.bos().filter(|_| tokenizer.add_bos_token());
        let (form, prefix_text, suffix_text) = match tokenizer.chat_template() {
            Some(source) if !canonical => {
                let (head, tail) = render_around_event(site, source, tokenizer)?;
                ("chat template", head, tail)
            }
            _ => (PROMPT_FORM, site.prompt_prefix(), String::new()),
        };
        let plain = form == PROMPT_FORM;
        let options = EncodeOptions { add_bos: false, parse_special: !plain };
        let mut prefix = tokenizer.encode(&prefix_text, options);
        if let Some(bos) = bos.filter(|&bos| prefix.first() != Some(&bos)) {
            prefix.insert(0, bos);
        }
        Ok(Self {
            form,
            suffix: tokenizer.encode(&suffix_text, options),
            prefix_text,
            prefix,
            event_text: String::new(),
            scratch: EncodeScratch::default(),
        })
    }

    /// `ganglion-1`, or `chat template`.
    pub fn form(&self) -> &'static str {
        self.form
    }

    /// The static text, as the model sees it.
    pub fn prefix_text(&self) -> &str {
        &self.prefix_text
    }

    /// The static tokens.
    pub fn prefix(&self) -> &[TokenId] {
        &self.prefix
    }

    /// The event's text in its canonical form.
    pub fn event_text(&mut self, site: &Site, event: &Event) -> &str {
        self.event_text.clear();
        site.write_prompt_event(event, &mut self.event_text);
        &self.event_text
    }

    /// Lets all working memory grow to what the longest events take, so that no event allocates; returns the bytes of the
    /// longest text.
    pub(crate) fn warm(&mut self, site: &Site, tokenizer: &Tokenizer, out: &mut Vec<TokenId>) -> usize {
        let mut longest_bytes = 0;
        let mut event = Event::new(0, 0);
        (0..site.tags.len()).for_each(|tag| event.set_tag(tag, -NUMBER_MAX + WARM_FRACTION));
        // Long words, short words, and bytes that stand alone make the tokenizer work in different places.
        for words in ["a", "the ", "1", "{\"", "ä", "厨", "q z"] {
            event.sentence = Sentence::cut(&words.repeat(SENTENCE_BYTES_MAX));
            let size_bytes = self.event_text(site, &event).len();
            longest_bytes = longest_bytes.max(size_bytes);
            self.event_tokens(tokenizer, out);
            // A token is a byte at least; one more for the space that some vocabularies put in front.
            out.reserve((size_bytes + 1 + self.suffix.len()).saturating_sub(out.len()));
        }
        out.clear();
        longest_bytes
    }

    /// Tokens of the text last made by [`Self::event_text`], and of what the template puts behind it, into `out`.
    pub fn event_tokens(&mut self, tokenizer: &Tokenizer, out: &mut Vec<TokenId>) {
        out.clear();
        let options = EncodeOptions { add_bos: false, parse_special: false };
        let text = if self.suffix.is_empty() { self.event_text.as_str() } else { self.event_text.trim_end() };
        tokenizer.encode_into(text.as_bytes(), options, &mut self.scratch, out);
        out.extend_from_slice(&self.suffix);
    }
}

fn render_around_event(site: &Site, source: &str, tokenizer: &Tokenizer) -> Result<(String, String)> {
    let template = ChatTemplate::new(source)?;
    let spell = |id: Option<TokenId>| {
        id.map(|id| String::from_utf8_lossy(tokenizer.token_bytes(id)).into_owned()).unwrap_or_default()
    };
    let (bos, eos) = (spell(tokenizer.bos()), spell(tokenizer.eos()));
    let options =
        RenderOptions { add_generation_prompt: true, bos_token: &bos, eos_token: &eos, now_unix_s: None };
    let system = site.system_text();
    let user = Message { role: "user", content: EVENT_MARK };
    let rendered =
        template.render(&[Message { role: "system", content: &system }, user], options).or_else(|_| {
            // Some families have no system role; their users put such text in front of the first message.
            let joined = format!("{system}\n\n{EVENT_MARK}");
            template.render(&[Message { role: "user", content: &joined }], options)
        })?;
    let (head, tail) = rendered.split_once(EVENT_MARK).ok_or(DecideError::TemplateNotStatic)?;
    if !head.contains(system.trim()) || tail.contains(EVENT_MARK) {
        return Err(DecideError::TemplateNotStatic);
    }
    Ok((head.to_owned(), tail.to_owned()))
}
