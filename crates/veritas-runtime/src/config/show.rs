//! The settings that are in force, as a file that could be read again.

use std::fmt::Write;
use std::path::Path;

use serde_json::Value as Json;

use super::load::model_keys;
use super::{Effective, Origin, Resolved, TokenSource};

/// The column at which origins begin, where values are short.
const ORIGIN_COLUMN: usize = 48;

/// A path as a value.
pub(super) fn path(path: &Path) -> Json {
    Json::String(path.to_string_lossy().into_owned())
}

/// A value as TOML writes it; `null` is no value in TOML and has no text here.
pub(super) fn toml(value: &Json) -> String {
    match value {
        Json::Array(elements) => format!("[{}]", elements.iter().map(toml).collect::<Vec<_>>().join(", ")),
        // TOML escapes texts as JSON does, and DEL besides.
        other => other.to_string().replace('\u{7f}', "\\u007f"),
    }
}

impl Resolved {
    /// The settings that are in force as the text of a file; with `origins`, each with where it comes from. What is not
    /// set is a comment. Tokens are not shown, only where they are.
    pub fn show(&self, origins: bool) -> String {
        let mut text = match &self.file {
            Some(file) => format!("# from {}\n", one_line(&file.to_string_lossy())),
            None => "# no file was found\n".to_owned(),
        };
        let mut table = "";
        let first = model_keys().next().map_or("", |key| key.name);
        for setting in &self.effective {
            if setting.model.is_some() && setting.key.name == first {
                text.push_str("\n[[models]]\n");
            } else if setting.model.is_none() && setting.key.table != table {
                table = setting.key.table;
                // Writing to a text does not fail.
                let _ = write!(text, "\n[{table}]\n");
            }
            self.show_setting(setting, origins, &mut text);
        }
        text
    }

    fn show_setting(&self, setting: &Effective, origins: bool, text: &mut String) {
        let name = setting.key.name;
        let mut line = match (&setting.value, &self.config.auth.token) {
            (Json::Null, TokenSource::Variable) if name == "token_file" => {
                "# the token is in a variable".to_owned()
            }
            (Json::Null, TokenSource::Credential(_)) if name == "token_file" => {
                "# the token is the credential veritas-token, if there is one".to_owned()
            }
            (Json::Null, _) => format!("# {name} is not set"),
            (value, _) => format!("{name} = {}", toml(value)),
        };
        if origins {
            let origin = match &setting.origin {
                Origin::File { path, line, .. } => format!("{}:{line}", path.display()),
                other => other.to_string(),
            };
            let width = ORIGIN_COLUMN;
            line = format!("{line:<width$}  # {}", one_line(&origin));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
}

/// A text that ends no comment.
fn one_line(text: &str) -> String {
    text.escape_debug().to_string()
}
