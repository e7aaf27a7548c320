//! A model of the configuration: its name, its file, how it is run.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::time::Duration;

use veritas_base::Sha256Digest;

use super::limits::MODEL_NAME_MAX;
use super::{Config, Engine, Error, Origin, OverrideKv};

/// What can be a name, for people.
pub(super) const NAME_FORM: &str = "1 to 64 of the characters A-Z a-z 0-9 . _ - (but not \".\" or \"..\")";

/// A model that the daemon serves.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    /// What clients call it: 1 to 64 of `A-Z a-z 0-9 . _ -`, neither `.` nor `..`.
    pub name: String,
    /// The file.
    pub path: PathBuf,
    /// What it runs with: its own settings over those of `[engine]`.
    pub engine: Engine,
    /// Changes of its metadata.
    pub override_kv: Vec<OverrideKv>,
    /// The digest that its file must have.
    pub digest: Option<Sha256Digest>,
    /// Whether its digest is not computed. Never together with `digest`.
    pub no_digest: bool,
    /// Time without a request after which its worker ends until the next one; `None` is never.
    pub idle_unload: Option<Duration>,
    /// Whether it is loaded when the daemon starts, not at its first request.
    pub preload: bool,
}

impl ModelConfig {
    /// A model with nothing of its own but a name and a file.
    pub(super) fn new(name: String, path: PathBuf, engine: Engine) -> Self {
        Self {
            name,
            path,
            engine,
            override_kv: Vec::new(),
            digest: None,
            no_digest: false,
            idle_unload: None,
            preload: true,
        }
    }
}

impl Config {
    /// The settings of a model that a client asks to load while the daemon runs.
    ///
    /// # Errors
    /// If `name` cannot be a name.
    pub fn model(&self, name: &str, path: &Path) -> Result<ModelConfig, Error> {
        if !is_name(name) {
            return Err(Error::value(Origin::Request, "models.name", name, NAME_FORM));
        }
        Ok(ModelConfig::new(name.to_owned(), path.to_owned(), self.engine.clone()))
    }
}

/// Whether a text can name a model.
pub(super) fn is_name(text: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    (1..=MODEL_NAME_MAX).contains(&text.len()) && text.bytes().all(is_allowed) && text != "." && text != ".."
}

/// `[NAME=]PATH`, as `--model` and `models load` take it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelFlag {
    /// The name: that which is given, else the file's name without its last extension.
    pub name: String,
    /// The file.
    pub path: PathBuf,
}

impl ModelFlag {
    /// Reads `[NAME=]PATH`. What stands before the first `=` is a name if it can be one, else part of the path; a path
    /// that looks like a name and holds a `=` is written `./PATH`.
    ///
    /// # Errors
    /// If the path is empty, or no name is given and that of the file cannot be one.
    pub fn parse(text: &OsStr) -> Result<Self, Error> {
        let refuse =
            |allowed: &str| Error::value(Origin::flag("--model"), "models", &text.to_string_lossy(), allowed);
        let (name, path) = split(text);
        if path.as_os_str().is_empty() {
            return Err(refuse("[NAME=]PATH with a path that is not empty"));
        }
        if let Some(name) = name {
            return Ok(Self { name, path });
        }
        let stem = path.file_stem().and_then(OsStr::to_str).filter(|stem| is_name(stem));
        match stem.map(str::to_owned) {
            Some(name) => Ok(Self { name, path }),
            None => Err(refuse(&format!("NAME=PATH, since the file's name is not {NAME_FORM}"))),
        }
    }
}

fn split(text: &OsStr) -> (Option<String>, PathBuf) {
    let whole = || (None, PathBuf::from(text));
    let bytes = text.as_encoded_bytes();
    let Some(at) = bytes.iter().position(|byte| *byte == b'=') else { return whole() };
    let Some(name) = std::str::from_utf8(&bytes[..at]).ok().filter(|name| is_name(name)) else {
        return whole();
    };
    (Some(name.to_owned()), PathBuf::from(after_ascii(text, at + 1)))
}

/// `text` from the byte `start` on, before which everything is ASCII.
fn after_ascii(text: &OsStr, start: usize) -> OsString {
    #[cfg(unix)]
    {
        use std::os::unix::ffi::OsStrExt;
        OsStr::from_bytes(&text.as_bytes()[start..]).to_owned()
    }
    #[cfg(windows)]
    {
        use std::os::windows::ffi::{OsStrExt, OsStringExt};
        // One unit of UTF-16 is one ASCII character.
        OsString::from_wide(&text.encode_wide().skip(start).collect::<Vec<_>>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<(String, String), String> {
        let flag = ModelFlag::parse(OsStr::new(text)).map_err(|error| error.to_string())?;
        Ok((flag.name, flag.path.to_str().unwrap().to_owned()))
    }

    #[test]
    fn a_model_flag_has_a_name_of_its_own_or_that_of_its_file() {
        let pair = |name: &str, path: &str| Ok((name.to_owned(), path.to_owned()));
        assert_eq!(parse("story=/m/a.gguf"), pair("story", "/m/a.gguf"));
        assert_eq!(parse("/m/qwen-3.q8_0.gguf"), pair("qwen-3.q8_0", "/m/qwen-3.q8_0.gguf"));
        assert!(parse("./a=b.gguf").unwrap_err().contains("NAME=PATH"));
        assert_eq!(parse("x=./a=b.gguf"), pair("x", "./a=b.gguf"));
        assert_eq!(parse("/m/a=b/c.gguf"), pair("c", "/m/a=b/c.gguf"));
    }

    #[test]
    fn a_model_flag_without_a_path_or_without_a_possible_name_is_refused() {
        for text in ["", "story=", "/m/my model.gguf", "/", "..", "/m/é.gguf"] {
            let message = parse(text).unwrap_err();
            assert!(message.starts_with("flag --model: "), "{message}");
        }
    }

    #[test]
    fn names_cannot_lead_out_of_a_folder() {
        for name in ["a", "A-1_b.c", "...", "-x", &"n".repeat(64)] {
            assert!(is_name(name), "{name}");
        }
        for name in ["", ".", "..", "a/b", "a b", "é", "a\0", &"n".repeat(65)] {
            assert!(!is_name(name), "{name}");
        }
    }
}
