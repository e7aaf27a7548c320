//! The file: reading it, its places, and putting what it says into the configuration.

use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use super::error::quoted;
use super::keys::{Key, TABLES, keys};
use super::limits::{FILE_BYTES_MAX, MODELS_MAX};
use super::slot::{Given, Slot};
use super::{Error, Origin};

/// Reads the file.
pub(super) fn read(path: &Path) -> Result<String, Error> {
    let unreadable = |reason: String| Error::Read { path: path.to_owned(), reason };
    let file = File::open(path).map_err(|error| unreadable(error.to_string()))?;
    let mut bytes = Vec::new();
    // One byte more than is allowed, so that a file that is too long shows.
    let read = file.take(FILE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes);
    read.map_err(|error| unreadable(error.to_string()))?;
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        unreadable(format!("it is not UTF-8 from byte {at} on"))
    })
}

/// A text in TOML, and where it stands.
pub(super) struct Source<'a> {
    path: Arc<Path>,
    text: &'a str,
    /// Offsets of the first bytes of the lines.
    line_starts: Vec<usize>,
}

impl<'a> Source<'a> {
    pub(super) fn new(path: &Path, text: &'a str) -> Self {
        let starts = text.match_indices('\n').map(|(at, _)| at + 1);
        Self { path: path.into(), text, line_starts: std::iter::once(0).chain(starts).collect() }
    }

    /// The place of a byte.
    fn origin(&self, span: Range<usize>) -> Origin {
        let line = self.line_starts.partition_point(|start| *start <= span.start);
        let start = self.line_starts[line - 1];
        let column = self.text.get(start..span.start).map_or(0, |before| before.chars().count()) + 1;
        Origin::File { path: Arc::clone(&self.path), line, column }
    }

    /// Parses the text. Where it is not TOML, everything that the parser found is listed.
    pub(super) fn parse(&self) -> Result<DeTable<'a>, Vec<Error>> {
        if self.text.len() > FILE_BYTES_MAX {
            return Err(vec![Error::FileTooLong { path: self.path.to_path_buf(), limit: FILE_BYTES_MAX }]);
        }
        let (table, errors) = DeTable::parse_recoverable(self.text);
        if errors.is_empty() {
            return Ok(table.into_inner());
        }
        let error = |error: toml::de::Error| {
            let origin = self.origin(error.span().unwrap_or_default());
            Error::Syntax { origin, message: error.message().to_owned() }
        };
        Err(errors.into_iter().map(error).collect())
    }

    /// The folder at which relative paths start.
    pub(super) fn folder(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new(""))
    }

    /// Puts a value into its slot; gives its place.
    pub(super) fn put(
        &self,
        path: &str,
        mut slot: Slot<'_>,
        value: &Spanned<DeValue<'_>>,
    ) -> Result<Origin, Error> {
        match slot.put(Given::Toml { value, folder: self.folder() }) {
            Ok(()) => Ok(self.origin(value.span())),
            Err(refused) => Err(Error::Value {
                origin: self.origin(refused.span.unwrap_or(value.span())),
                key: path.to_owned(),
                found: refused.found,
                allowed: refused.allowed,
            }),
        }
    }

    fn wrong_table(&self, name: &str, value: &Spanned<DeValue<'_>>, allowed: String) -> Error {
        let found = format!("of the type {}", value.get_ref().type_str());
        Error::Value { origin: self.origin(value.span()), key: name.to_owned(), found, allowed }
    }

    fn unknown(&self, table: Option<&str>, key: &Spanned<DeString<'_>>, allowed: String) -> Error {
        let name = quoted(key.get_ref());
        // A name without anything odd needs no quotes.
        let name = name.trim_matches('"');
        let key_path = table.map_or_else(|| name.to_owned(), |table| format!("{table}.{name}"));
        Error::UnknownKey { origin: self.origin(key.span()), key: key_path, allowed }
    }
}

/// What the file says, checked for keys that there are, but not yet for values.
pub(super) struct Contents<'a> {
    /// What stands in the tables but `[[models]]`.
    pub(super) settings: Vec<(&'static Key, &'a Spanned<DeValue<'a>>)>,
    /// The models.
    pub(super) models: Vec<ModelTable<'a>>,
}

/// A table of `[[models]]`.
pub(super) struct ModelTable<'a> {
    pub(super) origin: Origin,
    pub(super) settings: Vec<(&'static Key, &'a Spanned<DeValue<'a>>)>,
}

impl<'a> Contents<'a> {
    /// Sorts what the file says by keys; what is no key is added to `errors`.
    pub(super) fn of(source: &Source<'_>, tables: &'a DeTable<'a>, errors: &mut Vec<Error>) -> Self {
        let mut contents = Self { settings: Vec::new(), models: Vec::new() };
        for (name, value) in tables {
            let table =
                TABLES.iter().map(|(table, _)| *table).find(|table| *table == name.get_ref().as_ref());
            match (table, value.get_ref()) {
                (None, _) => errors.push(source.unknown(None, name, tables_listed())),
                (Some("models"), DeValue::Array(models)) if models.len() <= MODELS_MAX => {
                    for model in models {
                        contents.models.extend(model_table(source, model, errors));
                    }
                }
                (Some("models"), _) => {
                    let allowed = format!("a list of at most {MODELS_MAX} tables, each under [[models]]");
                    errors.push(source.wrong_table("models", value, allowed));
                }
                (Some(table), DeValue::Table(entries)) => {
                    contents.settings.extend(settings(source, table, entries, errors));
                }
                (Some(table), _) => {
                    errors.push(source.wrong_table(table, value, format!("a table under [{table}]")));
                }
            }
        }
        contents
    }
}

fn model_table<'a>(
    source: &Source<'_>,
    model: &'a Spanned<DeValue<'a>>,
    errors: &mut Vec<Error>,
) -> Option<ModelTable<'a>> {
    let DeValue::Table(entries) = model.get_ref() else {
        errors.push(source.wrong_table(
            "models",
            model,
            "a list of tables, each under [[models]]".to_owned(),
        ));
        return None;
    };
    let origin = source.origin(model.span());
    Some(ModelTable { origin, settings: settings(source, "models", entries, errors) })
}

fn settings<'a>(
    source: &Source<'_>,
    table: &str,
    entries: &'a DeTable<'a>,
    errors: &mut Vec<Error>,
) -> Vec<(&'static Key, &'a Spanned<DeValue<'a>>)> {
    let mut settings = Vec::with_capacity(entries.len());
    for (name, value) in entries {
        match keys().iter().find(|key| is_in(key, table) && key.name == name.get_ref().as_ref()) {
            Some(key) => settings.push((key, value)),
            None => errors.push(source.unknown(Some(table), name, keys_listed(table, name.get_ref()))),
        }
    }
    settings
}

fn is_in(key: &Key, table: &str) -> bool {
    if table == "models" { key.is_of_models() } else { key.table == table }
}

fn tables_listed() -> String {
    let tables = TABLES
        .map(|(table, _)| if table == "models" { "[[models]]".to_owned() } else { format!("[{table}]") });
    tables.join(", ")
}

fn keys_listed(table: &str, name: &str) -> String {
    if (table, name) == ("auth", "token") {
        return "auth.token_file: a token never stands in the configuration, but in a file of its own"
            .to_owned();
    }
    let names = keys().iter().filter(|key| is_in(key, table)).map(|key| key.name).collect::<Vec<_>>();
    names.join(", ")
}
