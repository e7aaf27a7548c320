//! The rules of the configuration, each with an input that would break it.

mod documents;
mod precedence;
mod refusals;
mod robustness;
mod token;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;

use super::*;

/// The surroundings of a process of which nothing is known.
pub(super) fn environment_of_nobody() -> Environment<'static> {
    Environment { uid: None, variable: &|_| None }
}

/// A resolution to be tried: a file, variables and flags of user 1000.
#[derive(Default)]
struct Case {
    text: Option<String>,
    variables: BTreeMap<String, OsString>,
    flags: Overrides,
    is_root: bool,
}

impl Case {
    fn file(text: &str) -> Self {
        Self { text: Some(text.to_owned()), ..Self::default() }
    }

    fn variable(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.variables.insert(name.to_owned(), value.into());
        self
    }

    fn flags(mut self, flags: Overrides) -> Self {
        self.flags = flags;
        self
    }

    fn root(mut self) -> Self {
        self.is_root = true;
        self
    }

    fn resolve(&self) -> Result<Resolved, Errors> {
        let variable = |name: &str| self.variables.get(name).cloned();
        let environment = Environment { uid: Some(if self.is_root { 0 } else { 1000 }), variable: &variable };
        let file = self.text.as_deref().map(|text| (Path::new("/c/veritas-sdr.toml"), text));
        resolve(file, &environment, &self.flags)
    }

    fn config(&self) -> Config {
        self.resolve().unwrap_or_else(|errors| panic!("{errors}")).config
    }

    /// The errors, one text each.
    fn errors(&self) -> Vec<String> {
        match self.resolve() {
            Ok(_) => Vec::new(),
            Err(errors) => errors.iter().map(ToString::to_string).collect(),
        }
    }

    fn origin(&self, path: &str) -> String {
        let resolved = self.resolve().unwrap_or_else(|errors| panic!("{errors}"));
        resolved.effective.iter().find(|setting| setting.path() == path).unwrap().origin.to_string()
    }
}
