//! Chat templates of real models render; hostile ones end.

mod common;

use common::{Xorshift, shared};
use ganglion_tokenizer::{ChatTemplate, Message, RenderOptions, TokenizerError, limits};

const OPTIONS: RenderOptions<'_> =
    RenderOptions { add_generation_prompt: true, bos_token: "<s>", eos_token: "</s>", now_unix_s: None };
const SYSTEM: Message<'_> = Message { role: "system", content: "You run a building." };
const USER: Message<'_> = Message { role: "user", content: "warmer, please" };

fn render(
    source: &str,
    messages: &[Message<'_>],
    options: RenderOptions<'_>,
) -> Result<String, TokenizerError> {
    ChatTemplate::new(source)?.render(messages, options)
}

#[test]
fn every_shared_template_renders() {
    let Some(shared) = shared() else { return };
    let mut count = 0;
    for entry in std::fs::read_dir(shared.join("data/chat_templates")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.extension().is_none_or(|extension| extension != "jinja") {
            continue;
        }
        count += 1;
        let template = ChatTemplate::new(&std::fs::read_to_string(&path).unwrap()).unwrap();
        let is_gemma = name.contains("gemma");
        let messages = if is_gemma { vec![USER] } else { vec![SYSTEM, USER] };
        // SmolLM3's template asks for the date unconditionally.
        let now = RenderOptions { now_unix_s: Some(1_700_000_000), ..OPTIONS };
        let text = template.render(&messages, now).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(text.contains(USER.content), "{name}: {text}");
        assert!(is_gemma || text.contains(SYSTEM.content), "{name}: {text}");
        let without = RenderOptions { add_generation_prompt: false, ..now };
        let shorter = template.render(&messages, without).unwrap();
        assert_ne!(text, shorter, "{name}");
        if is_gemma {
            let error = template.render(&[SYSTEM, USER], now).unwrap_err().to_string();
            assert!(error.contains("System role not supported"), "{error}");
        }
    }
    assert_eq!(count, 6);
}

#[test]
fn known_renderings() {
    let Some(shared) = shared() else { return };
    let check = |file: &str, messages: &[Message<'_>], options, expected: &str| {
        let source = std::fs::read_to_string(shared.join("data/chat_templates").join(file)).unwrap();
        assert_eq!(render(&source, messages, options).unwrap(), expected, "{file}");
    };
    check(
        "Qwen-Qwen2.5-7B-Instruct.jinja",
        &[SYSTEM, USER],
        OPTIONS,
        "<|im_start|>system\nYou run a building.<|im_end|>\n<|im_start|>user\nwarmer, please<|im_end|>\n\
         <|im_start|>assistant\n",
    );
    check(
        "google-gemma-2-2b-it.jinja",
        &[USER],
        OPTIONS,
        "<s><start_of_turn>user\nwarmer, please<end_of_turn>\n<start_of_turn>model\n",
    );
    check(
        "microsoft-Phi-3.5-mini-instruct.jinja",
        &[SYSTEM, USER],
        OPTIONS,
        "<|system|>\nYou run a building.<|end|>\n<|user|>\nwarmer, please<|end|>\n<|assistant|>\n",
    );
    let llama = |date: &str| {
        format!(
            "<s><|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December 2023\nToday Date: \
             {date}\n\nYou run a building.<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nwarmer, \
             please<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
        )
    };
    let file = "meta-llama-Llama-3.2-3B-Instruct.jinja";
    check(file, &[SYSTEM, USER], OPTIONS, &llama("26 Jul 2024"));
    let now = RenderOptions { now_unix_s: Some(1_700_000_000), ..OPTIONS };
    check(file, &[SYSTEM, USER], now, &llama("14 Nov 2023"));
}

#[test]
fn refusals_name_the_reason() {
    let check = |source: &str, expected: &str| {
        let error = render(source, &[USER], OPTIONS).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    };
    check("{% for %}", "cannot parse the chat template: syntax error");
    check(
        "\n{{ raise_exception('no roles') }}",
        "cannot render the chat template: invalid operation: no roles",
    );
    check("{{ strftime_now('%Y') }}", "strftime_now");
    check(
        "{% for a in range(9999) %}{% for b in range(9999) %}{{ a }}{% endfor %}{% endfor %}",
        "engine ran out of fuel",
    );
    let message = Message { role: "user", content: &"x".repeat(limits::RENDERED_BYTES_MAX) };
    let template = ChatTemplate::new("{{ messages[0].content }}{{ messages[0].content }}").unwrap();
    let error = template.render(&[message], OPTIONS).unwrap_err().to_string();
    assert!(error.contains("exceeds the limit of 4194304 bytes"), "{error}");
    assert!(ChatTemplate::new(&" ".repeat(limits::TEMPLATE_BYTES_MAX + 1)).is_err());
    assert!(template.render(&vec![USER; limits::MESSAGE_COUNT_MAX + 1], OPTIONS).is_err());
}

#[test]
fn contents_are_not_escaped_or_evaluated() {
    let message = Message { role: "user", content: "<b>&\"'{{ 7 * 7 }}{% raw %}" };
    let text = render("{{ messages[0]['content'] }}", &[message], OPTIONS).unwrap();
    assert_eq!(text, message.content);
}

#[test]
fn random_templates_and_messages_end() {
    const PARTS: &[&str] = &[
        "{{",
        "}}",
        "{%",
        "%}",
        " for m in messages ",
        " endfor ",
        " if ",
        " endif ",
        "m",
        ".content",
        "['role']",
        "|trim",
        "(",
        ")",
        "'",
        " ~ ",
        "raise_exception",
        "namespace",
        " set x = ",
        "x",
        "{#",
        "#}",
        "\n",
        "-",
        "1",
        "[",
        "]",
    ];
    let mut random = Xorshift(0xDEAD_BEEF_0BAD_F00D);
    for _ in 0..10_000 {
        let source: String = (0..random.below(12)).map(|_| PARTS[random.below(PARTS.len())]).collect();
        let content = random.text(4);
        let _ = render(&source, &[Message { role: "user", content: &content }], OPTIONS);
    }
}
