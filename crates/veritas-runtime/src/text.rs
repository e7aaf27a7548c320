//! Text for terminals and for lines: colours, and what may not reach a terminal.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// How texts are set: with colours or without.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Paint {
    enabled: bool,
}

impl Paint {
    /// With colours, or without.
    pub fn new(enabled: bool) -> Self {
        Self { enabled }
    }

    /// Whether there are colours.
    pub fn is_enabled(self) -> bool {
        self.enabled
    }

    /// A heading.
    pub fn bold(self, text: &str) -> String {
        self.set("1", text)
    }

    /// What matters less.
    pub fn dim(self, text: &str) -> String {
        self.set("2", text)
    }

    /// What is in order.
    pub fn green(self, text: &str) -> String {
        self.set("32", text)
    }

    /// What is not.
    pub fn red(self, text: &str) -> String {
        self.set("31", text)
    }

    fn set(self, code: &str, text: &str) -> String {
        if self.enabled { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// An object as one line. Characters that some readers take for the end of a line, or that command a terminal (DEL and
/// the C1 controls), are escaped; in JSON they can stand in strings alone.
pub fn json_line(value: &Value) -> String {
    let text = value.to_string();
    let is_escaped = |c: char| matches!(c, '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{2029}');
    if !text.contains(is_escaped) {
        return text;
    }
    let mut line = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_escaped(c) {
            line.push_str(&format!("\\u{:04x}", u32::from(c)));
        } else {
            line.push(c);
        }
    }
    line
}

/// Text of unknown origin, such that it cannot command a terminal: control characters, and those that change the
/// direction of writing, are escaped.
pub fn harmless(text: &str) -> String {
    let escape = |c: char| {
        c.is_control()
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars().map(|c| if escape(c) { c.escape_default().to_string() } else { c.to_string() }).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_object_stays_on_one_line_for_every_reader() {
        let value = json!({"text": "a\u{85}b\u{2028}c\u{2029}d\u{9b}e\nf ü 🦀"});
        let line = json_line(&value);
        assert_eq!(line, r#"{"text":"a\u0085b\u2028c\u2029d\u009be\nf ü 🦀"}"#);
        assert_eq!(serde_json::from_str::<Value>(&line).unwrap(), value);
    }

    #[test]
    fn text_of_a_file_cannot_command_a_terminal() {
        assert_eq!(harmless("a\x1b[31m\u{202e}b\n"), "a\\u{1b}[31m\\u{202e}b\\n");
        assert_eq!(harmless("naïve ▁ 日本"), "naïve ▁ 日本");
    }

    #[test]
    fn colours_are_set_only_where_they_are_wanted() {
        assert_eq!(Paint::new(true).bold("x"), "\x1b[1mx\x1b[0m");
        assert_eq!(Paint::new(false).red("x"), "x");
    }
}
