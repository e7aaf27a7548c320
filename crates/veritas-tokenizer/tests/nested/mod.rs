//! Templates that nest without end, for tests with and without the thread of `start_render_thread`.

use serde_json::json;
use veritas_tokenizer::chat::limits::MAX_TEMPLATE_BYTES;
use veritas_tokenizer::chat::{ChatInput, ChatTemplate, Date, Error};

/// A chat with one short message.
pub(crate) fn chat() -> ChatInput {
    ChatInput {
        messages: json!([{"role": "user", "content": "Hi"}]),
        tools: None,
        add_generation_prompt: true,
        enable_thinking: None,
        bos_token: String::new(),
        eos_token: String::new(),
        now: Date::new(2026, 1, 2).unwrap(),
        extra: serde_json::Map::new(),
    }
}

/// Compiles and renders.
pub(crate) fn render(source: &str) -> Result<String, Error> {
    ChatTemplate::new(source)?.render(&chat())
}

/// Nests lists as deep as the budget allows if they are printed, too, which takes the most stack for what it costs.
pub(crate) fn deep_list() -> String {
    let nested = format!("{}ns.x{}", "[".repeat(60), "]".repeat(60));
    format!(
        "{{% set ns = namespace(x=[]) %}}{{% for i in range(1500) %}}{{% set ns.x = {nested} %}}{{% endfor %}}{{{{ ns.x }}}}"
    )
}

/// Renders templates whose expressions, blocks and values nest without end. That each is answered at all is the test: an
/// overflow of the stack would end the process.
pub(crate) fn hostile_templates_are_answered() {
    let n = 60_000;
    for source in [
        format!("{{{{ {}1 }}}}", "-".repeat(n)),
        format!("{{{{ {}1{} }}}}", "(".repeat(n), ")".repeat(n)),
        format!("{{{{ {}1{} }}}}", "[".repeat(n), "]".repeat(n)),
        format!("{{{{ {}x }}}}", "not ".repeat(n / 4)),
        format!("{{{{ x{} }}}}", ".a".repeat(n / 2)),
        format!("{{{{ x{} }}}}", "|e".repeat(n / 2)),
        "{% if x %}".repeat(n / 10),
        deep_list().replace("1500", "100000"),
    ] {
        if let Err(error) = render(&source) {
            assert!(!error.to_string().is_empty(), "{:?}", &source[..20]);
        }
    }
    let depth = 60 * 1500;
    let printed = render(&deep_list()).unwrap();
    assert_eq!(printed.matches('[').count(), depth + 1);
    let too_long = "x".repeat(MAX_TEMPLATE_BYTES + 1);
    assert!(matches!(ChatTemplate::new(&too_long), Err(Error::TemplateTooLong { .. })));
    assert_eq!(render("{{ messages[0].content }}"), Ok("Hi".to_owned()));
}
