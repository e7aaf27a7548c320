//! What `--json` prints: objects of one line, and how a command ran.

use serde_json::{Map, Value, json};
use veritas_engine::RunnerConfig;

/// The layers of the sandbox, by the names that reports use.
const SANDBOX_LAYERS: [&str; 9] = [
    "no_new_privs",
    "no_capabilities",
    "seccomp",
    "rlimits",
    "closed_fds",
    "no_core_dump",
    "namespaces",
    "landlock",
    "cgroup",
];

/// The settings that were in force. The model runs in this process, so every layer of the sandbox is off.
pub(crate) fn effective(config: &RunnerConfig) -> Value {
    let sandbox =
        SANDBOX_LAYERS.iter().map(|layer| ((*layer).to_owned(), json!("off"))).collect::<Map<_, _>>();
    json!({"isa": config.isa.to_string(), "threads": config.n_threads, "sandbox": sandbox})
}

/// An object as one line. Characters that some readers take for the end of a line, or that command a terminal (DEL and
/// the C1 controls), are escaped; in JSON they can stand in strings alone.
pub(crate) fn line(value: &Value) -> String {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_stays_on_one_line_for_every_reader() {
        let value = json!({"text": "a\u{85}b\u{2028}c\u{2029}d\u{9b}e\nf ü 🦀"});
        let line = line(&value);
        assert_eq!(line, r#"{"text":"a\u0085b\u2028c\u2029d\u009be\nf ü 🦀"}"#);
        assert_eq!(serde_json::from_str::<Value>(&line).unwrap(), value);
    }
}
