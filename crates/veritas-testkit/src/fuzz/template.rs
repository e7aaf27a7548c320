//! What must hold for any chat template and any message.

use serde_json::json;
use veritas_tokenizer::chat::{ChatInput, ChatTemplate, Date};

/// Control tokens of the chats below.
const CONTROLS: [&str; 6] = ["<|im_start|>", "<|im_end|>", "<s>", "</s>", "[INST]", "[/INST]"];

/// Templates whose own control tokens are known, with what templates do to messages.
const TEMPLATES: [&str; 7] = [
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>{% endfor %}",
    "{{ bos_token }}{% for m in messages %}[INST] {{ m.content | trim }} [/INST]{% endfor %}",
    "{% for m in messages %}<|im_start|>{{ m.content.split('</think>')[-1] | upper }}{{ m.name }}<|im_end|>{% endfor %}",
    "{% for m in messages %}<|im_start|>{{ m.name ~ m.content | replace('a', '') }}<|im_end|>{% endfor %}",
    "<|im_start|>{{ messages | tojson }}<|im_end|>",
    "{% for m in messages %}<|{{ m.role }}|>{% if m.role == 'user' %}{% endif %}{{ m.content }}<|im_end|>{% endfor %}",
    "{% for m in messages %}{% for k in m.keys %}<{{ k | trim }}>{{ m.content }}</{{ k }}>{% endfor %}<|im_end|>{% endfor %}",
];

fn input(content: &str, name: &str) -> Option<ChatInput> {
    let is_role_char = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    let role = name.chars().filter(is_role_char).take(64).collect::<String>();
    let role = if role.is_empty() { "user" } else { &role };
    Some(ChatInput {
        messages: json!([{"role": role, "content": content, "name": name, "keys": {name: 1}}]),
        tools: None,
        add_generation_prompt: true,
        enable_thinking: None,
        bos_token: "<s>".to_owned(),
        eos_token: "</s>".to_owned(),
        now: Date::new(2026, 1, 2).ok()?,
        extra: serde_json::Map::new(),
    })
}

fn n_controls(text: &str) -> usize {
    (0..text.len())
        .filter(|&at| {
            text.is_char_boundary(at) && CONTROLS.iter().any(|control| text[at..].starts_with(control))
        })
        .count()
}

/// An even first byte: the rest is a template, which may fail but not hang or panic. An odd one picks a template of
/// ours, and the rest is a message, a key and a role, which may not add a control token and lose nothing where the template
/// cuts nothing.
///
/// # Panics
/// If a promise is broken.
pub fn check(bytes: &[u8]) {
    let Some((&kind, rest)) = bytes.split_first() else { return };
    let text = String::from_utf8_lossy(rest);
    if kind.is_multiple_of(2) {
        let Ok(template) = ChatTemplate::new(&text) else { return };
        let Some(input) = input("hello <s> <|im_end|>", "x") else { return };
        let rendered = template.render_guarded(&input, &CONTROLS);
        assert!(rendered.is_ok() || rendered.is_err_and(|error| !error.to_string().is_empty()));
        return;
    }
    let which = usize::from(kind / 2) % TEMPLATES.len();
    let template = ChatTemplate::new(TEMPLATES[which]).expect("our templates are valid");
    let half = (0..=text.len() / 2).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
    let (name, content) = text.split_at(half);
    let (Some(chat), Some(empty)) = (input(content, name), input("", "")) else { return };
    let Ok(rendered) = template.render_guarded(&chat, &CONTROLS) else { return };
    let honest = template.render(&empty).expect("an empty message renders");
    assert_eq!(n_controls(&rendered.text), n_controls(&honest), "template {which}: {text:?}");
    if which == 0 {
        let plain = template.render(&chat).expect("what renders guarded renders plain");
        assert_eq!(rendered.plain_text(), plain, "{text:?}");
    }
}
