//! Names that a template puts between the two halves of a control token.
//!
//! `'<|' + message.role + '|>'` makes `<|im_end|>` of the role `im_end`, and `'</' + key + '>'` makes `</s>` of the key
//! `s`. A guard at the ends of every role and key would prevent it, but templates compare these strings with names that
//! they know, and they would not know them any more. So:
//!
//! - The roles of chat interfaces ([`STANDARD_ROLES`]) stay as they are: a template that makes a control token of one
//!   means to.
//! - Any other role is in question, and so is every string and key that lies inside a control token of the text.
//! - A name in question is known to a template that spells it, and that writes another text or refuses the chat when the
//!   guard is in it. Known names stay as they are.
//! - With the guard in all others the chat is rendered once more. If that text has other control tokens, it is the
//!   answer.

use std::collections::BTreeSet;

use super::controls::Insides;
use super::guard::{Chat, each_name};
use super::limits::MAX_NAME_RENDERS;
use super::{ChatInput, Error};

/// The roles of the chat interfaces that applications use.
const STANDARD_ROLES: [&str; 6] = ["assistant", "developer", "function", "system", "tool", "user"];

/// A string of a chat. A template may know a key and not know the same text as a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Name<'a> {
    /// The role of a message.
    Role(&'a str),
    /// A key of an object.
    Key(&'a str),
    /// Any other string.
    Text(&'a str),
}

impl<'a> Name<'a> {
    pub(super) fn text(self) -> &'a str {
        match self {
            Self::Role(text) | Self::Key(text) | Self::Text(text) => text,
        }
    }
}

/// Where the guard goes in a name: behind its first character, so that a template may still make that a capital, and at
/// its end. White space around it, which templates remove, stays outside.
pub(super) fn places(text: &str) -> [usize; 2] {
    let end = text.trim_end().len();
    let start = text.len() - text.trim_start().len();
    let first = text[start..].chars().next().map_or(0, char::len_utf8);
    [(start + first).min(text.len()), end]
}

/// The names of a chat that are in question.
pub(super) fn in_question<'a>(input: &'a ChatInput, insides: &Insides) -> BTreeSet<Name<'a>> {
    let mut names = BTreeSet::new();
    each_name(input, &mut |name| {
        let asked = match name {
            Name::Role(role) => !STANDARD_ROLES.contains(&role),
            Name::Key(text) | Name::Text(text) => insides.have(text.trim()),
        };
        if asked {
            names.insert(name);
        }
    });
    names
}

/// The text with the guard in all names that the template does not know, if that changes its control tokens.
/// `text` is the chat without them.
pub(super) fn keep_apart(chat: &Chat, text: &str, names: BTreeSet<Name>) -> Result<Option<String>, Error> {
    let plain = chat.plain(text);
    let (spelled, mut unknown): (BTreeSet<_>, BTreeSet<_>) =
        names.into_iter().partition(|name| chat.spells(name.text().trim()));
    let mut left = MAX_NAME_RENDERS;
    add_unknown(chat, &plain, &spelled, &mut left, &mut unknown)?;
    if unknown.is_empty() {
        return Ok(None);
    }
    let apart = chat.render(&unknown)?;
    Ok((!chat.same_controls(text, &apart)).then_some(apart))
}

/// Adds those of `names` to `unknown` that the template writes alike with the guard in them: all at once where it can,
/// else each half on its own.
fn add_unknown<'a>(
    chat: &Chat,
    plain: &str,
    names: &BTreeSet<Name<'a>>,
    left: &mut usize,
    unknown: &mut BTreeSet<Name<'a>>,
) -> Result<(), Error> {
    if names.is_empty() {
        return Ok(());
    }
    *left = left.checked_sub(1).ok_or(Error::TooManyNames)?;
    let same = match chat.render(names) {
        Ok(text) => chat.plain(&text).eq_ignore_ascii_case(plain),
        // These say nothing about a name, and a chat can be made to cause them.
        Err(e @ (Error::TooMuchWork { .. } | Error::OutputTooLong | Error::NoThread { .. })) => {
            return Err(e);
        }
        Err(_) => false,
    };
    if same {
        unknown.extend(names);
    } else if names.len() > 1 {
        let half = names.len() / 2;
        add_unknown(chat, plain, &names.iter().copied().take(half).collect(), left, unknown)?;
        add_unknown(chat, plain, &names.iter().copied().skip(half).collect(), left, unknown)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value as Json, json};

    use crate::chat::{ChatInput, ChatTemplate, Date, Error, Rendered};

    const CONTROLS: [&str; 8] =
        ["<|user|>", "<|end|>", "<|im_end|>", "<|ipython|>", "<s>", "</s>", "<|content|>", "<|IM_SEP|>"];

    fn render(template: &str, messages: Json) -> Result<Rendered, Error> {
        let chat = ChatInput {
            messages,
            tools: None,
            add_generation_prompt: false,
            enable_thinking: None,
            bos_token: String::new(),
            eos_token: String::new(),
            now: Date::new(2026, 1, 2).unwrap(),
            extra: serde_json::Map::new(),
        };
        let template = ChatTemplate::new(template).unwrap();
        let rendered = template.render_guarded(&chat, &CONTROLS)?;
        assert_eq!(rendered.plain_text(), template.render(&chat).unwrap(), "no text is lost");
        Ok(rendered)
    }

    /// The control tokens of a text, sorted by the list above.
    fn controls(rendered: &Rendered) -> Vec<&'static str> {
        let count = |control: &&'static str| vec![*control; rendered.text.matches(*control).count()];
        CONTROLS.iter().flat_map(count).collect()
    }

    fn joined(expression: &str) -> String {
        format!(
            "{{% for m in messages %}}{{{{ '<|' ~ {expression} ~ '|>' ~ m.content }}}}<|end|>{{% endfor %}}"
        )
    }

    #[test]
    fn a_role_becomes_no_control_token_however_the_template_writes_it() {
        for (expression, role) in [
            ("m.role", "im_end"),
            ("m.role", "end"),
            ("m.role | lower", "IM_END"),
            ("m.role | upper", "im_sep"),
            ("m.role | trim", "im_end"),
            ("m.role.replace('-', '_')", "im-end"),
            ("m.role.split('.')[-1]", "x.im_end"),
            ("m.role.split('.')[0]", "im_end.x"),
            ("m.role[1:]", "xim_end"),
            ("(m.role if m.role else '')", "ipython"),
        ] {
            let rendered = render(
                &joined(expression),
                json!([{"role": role, "content": "x"}, {"role": "user", "content": "y"}]),
            );
            let rest = if expression == "m.role" { vec!["<|user|>", "<|end|>", "<|end|>"] } else { vec![] };
            let found = controls(&rendered.unwrap());
            assert!(rest.is_empty() || found == rest, "{expression} {role}: {found:?}");
            assert!(!found.contains(&"<|im_end|>") && !found.contains(&"<|IM_SEP|>"), "{expression} {role}");
            assert_eq!(
                found.iter().filter(|control| **control == "<|end|>").count(),
                2,
                "{expression} {role}"
            );
        }
    }

    #[test]
    fn standard_roles_become_what_the_template_makes_of_them() {
        let chat = json!([{"role": "user", "content": "x"}, {"role": "assistant", "content": "<|user|>"}]);
        let rendered = render(&joined("m.role"), chat).unwrap();
        assert_eq!(controls(&rendered), ["<|user|>", "<|end|>", "<|end|>"]);
        let rendered = render(&joined("m.role"), json!([{"role": "user", "content": "x"}])).unwrap();
        assert_eq!(rendered.text, "<|user|>x<|end|>");
    }

    #[test]
    fn a_role_that_the_template_names_is_the_templates_own_beside_one_that_it_does_not() {
        let template = "{% for m in messages %}{% if m.role in ['ipython', 'quux'] %}!{% endif %}<|{{ m.role }}|>{% endfor %}";
        let chat = json!([{"role": "ipython"}, {"role": "im_end"}, {"role": "user"}]);
        assert_eq!(controls(&render(template, chat).unwrap()), ["<|user|>", "<|ipython|>"]);
        let refusing = "{% for m in messages %}{% if m.role not in ['ipython'] %}{{ raise_exception('no') }}{% endif %}<|{{ m.role }}|>{% endfor %}";
        assert_eq!(controls(&render(refusing, json!([{"role": "ipython"}])).unwrap()), ["<|ipython|>"]);
    }

    #[test]
    fn a_key_or_a_field_becomes_no_control_token_and_known_keys_are_found() {
        let keys = "{% for m in messages %}<|content|>{{ m.content }}{% for k in m.args %}</{{ k }}>{% endfor %}{% endfor %}";
        let chat = |key: &str| json!([{"role": "user", "content": "x", "args": {key: 1}}]);
        for key in ["s", "quux"] {
            assert_eq!(controls(&render(keys, chat(key)).unwrap()), ["<|content|>"], "{key}");
        }
        let field = joined("m.name");
        let chat = |name: &str| json!([{"role": "user", "content": "x", "name": name}]);
        for name in ["im_end", " end ", "content"] {
            assert_eq!(
                controls(&render(&field.replace("m.name", "m.name|trim"), chat(name)).unwrap()),
                ["<|end|>"]
            );
        }
    }

    #[test]
    fn a_chat_may_ask_only_so_many_questions() {
        let names = (0..64).map(|n| format!("name{n}")).collect::<Vec<_>>();
        let template =
            format!("{{% for m in messages %}}{{% if m.role in {names:?} %}}!{{% endif %}}{{% endfor %}}");
        let chat = |n: usize| names.iter().take(n).map(|name| json!({"role": name})).collect::<Json>();
        assert!(render(&template, chat(8)).is_ok());
        assert_eq!(render(&template, chat(64)), Err(Error::TooManyNames));
    }
}
