//! The place of a setting in the configuration, and what can be put there.

use std::ffi::OsStr;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value as Json, json};
use toml::Spanned;
use toml::de::{DeArray, DeValue};
use veritas_base::Sha256Digest;

use super::choice::{Choice, SandboxPolicy};
use super::error::quoted;
use super::limits::{LIST_MAX, PATH_BYTES_MAX};
use super::override_kv::{self, OverrideKv};
use super::principals::{SharingGroup, Weight};
use super::token::TokenSource;
use super::{model, show};
use veritas_sandbox::Layer;

/// The place of a setting, with the kind of its values and their bounds.
pub(super) enum Slot<'a> {
    Bool(&'a mut bool),
    /// A number of things.
    Count(&'a mut dyn Count, Bounds),
    /// Bytes: a number, or a text such as `512MiB`.
    Bytes(&'a mut dyn Count, Bounds),
    /// A time in the unit that the key's name ends with.
    Time(&'a mut dyn Time, Unit, Bounds),
    Choice(&'a mut dyn Choice),
    /// A path of at most so many bytes.
    Path(&'a mut PathBuf, usize),
    OptionalPath(&'a mut Option<PathBuf>),
    TokenFile(&'a mut TokenSource),
    Policy(&'a mut SandboxPolicy),
    /// User or group ids.
    Ids(&'a mut Vec<u32>, Root),
    Layers(&'a mut Vec<Layer>),
    Name(&'a mut String),
    Digest(&'a mut Option<Sha256Digest>),
    Overrides(&'a mut Vec<OverrideKv>),
    Groups(&'a mut Vec<SharingGroup>),
    Weights(&'a mut Vec<Weight>),
}

/// Whether a list of ids always has 0 in it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Root {
    Always,
    IfListed,
}

/// The unit of a time.
#[derive(Clone, Copy)]
pub(super) enum Unit {
    Milliseconds,
    Seconds,
}

/// The numbers that a setting takes: `min` to `max`, and 0 where that has a meaning of its own.
#[derive(Clone, Copy)]
pub(super) struct Bounds {
    pub(super) min: u64,
    pub(super) max: u64,
    /// What 0 means, where 0 is not a number like any other.
    pub(super) zero: Option<&'static str>,
}

impl Bounds {
    pub(super) const fn new(min: u64, max: u64) -> Self {
        Self { min, max, zero: None }
    }

    pub(super) const fn or_zero(min: u64, max: u64, meaning: &'static str) -> Self {
        Self { min, max, zero: Some(meaning) }
    }

    fn has(self, number: u64) -> bool {
        (self.min..=self.max).contains(&number) || (number == 0 && self.zero.is_some())
    }
}

/// A number in the configuration. What bounds allow fits into it.
pub(super) trait Count {
    fn put(&mut self, number: u64);
    fn number(&self) -> u64;
}

/// A time in the configuration.
pub(super) trait Time {
    fn put(&mut self, time: Duration);
    fn time(&self) -> Duration;
}

macro_rules! count {
    ($($type:ty),+) => {$(
        impl Count for $type {
            fn put(&mut self, number: u64) {
                *self = number.try_into().unwrap_or(<$type>::MAX);
            }

            fn number(&self) -> u64 {
                (*self).into()
            }
        }

        /// Zero is `None`.
        impl Count for Option<$type> {
            fn put(&mut self, number: u64) {
                *self = (number != 0).then(|| number.try_into().unwrap_or(<$type>::MAX));
            }

            fn number(&self) -> u64 {
                self.map_or(0, u64::from)
            }
        }
    )+};
}

count!(u16, u32, u64);

impl Time for Duration {
    fn put(&mut self, time: Duration) {
        *self = time;
    }

    fn time(&self) -> Duration {
        *self
    }
}

/// Zero is `None`.
impl Time for Option<Duration> {
    fn put(&mut self, time: Duration) {
        *self = (!time.is_zero()).then_some(time);
    }

    fn time(&self) -> Duration {
        self.unwrap_or_default()
    }
}

/// A value that somebody gives for a setting.
#[derive(Clone, Copy)]
pub(super) enum Given<'a> {
    /// In the file; relative paths start at `folder`.
    Toml { value: &'a Spanned<DeValue<'a>>, folder: &'a Path },
    /// In a variable or a flag: a text, whatever the setting is.
    Text(&'a OsStr),
}

/// Why a value is not taken.
pub(super) struct Refused {
    /// The value, or the element of the list, as a message shows it.
    pub(super) found: String,
    /// What is allowed instead.
    pub(super) allowed: String,
    /// Its bytes in the file.
    pub(super) span: Option<Range<usize>>,
}

impl Slot<'_> {
    /// What can be given, for people: "allowed is …".
    pub(super) fn allowed(&self) -> String {
        match self {
            Self::Bool(_) => "true or false".to_owned(),
            Self::Count(_, bounds) => numbers("a whole number", *bounds),
            Self::Bytes(_, bounds) => {
                numbers("bytes as a whole number or a text such as \"512MiB\",", *bounds)
            }
            Self::Time(_, Unit::Milliseconds, bounds) => numbers("milliseconds as a whole number", *bounds),
            Self::Time(_, Unit::Seconds, bounds) => numbers("seconds as a whole number", *bounds),
            Self::Choice(choice) => names(choice.names()),
            Self::Path(_, max) => format!("a path of 1 to {max} bytes"),
            Self::OptionalPath(_) | Self::TokenFile(_) => format!("a path of 1 to {PATH_BYTES_MAX} bytes"),
            Self::Policy(_) => "\"default\", \"strict\" or the path of a policy file".to_owned(),
            Self::Ids(..) => format!("a list of at most {LIST_MAX} ids from 0 to {}", u32::MAX - 1),
            Self::Layers(_) => format!("a list of {}", names(&Layer::ALL.map(Layer::name))),
            Self::Name(_) => format!("a text of {}", model::NAME_FORM),
            Self::Digest(_) => "\"sha256:\" and 64 hexadecimal digits".to_owned(),
            Self::Overrides(_) => format!("a list of {}", override_kv::FORM),
            Self::Groups(_) => format!("a list of {}", SharingGroup::FORM),
            Self::Weights(_) => format!("a list of {}", Weight::FORM),
        }
    }

    /// The value as it would be written; `null` where nothing is set.
    pub(super) fn shown(&self) -> Json {
        match self {
            Self::Bool(value) => json!(**value),
            Self::Count(value, _) | Self::Bytes(value, _) => json!(value.number()),
            Self::Time(value, Unit::Milliseconds, _) => json!(value.time().as_millis() as u64),
            Self::Time(value, Unit::Seconds, _) => json!(value.time().as_secs()),
            Self::Choice(value) => json!(value.name()),
            Self::Path(path, _) => show::path(path),
            Self::OptionalPath(path) => path.as_deref().map_or(Json::Null, show::path),
            Self::TokenFile(TokenSource::File(path)) => show::path(path),
            Self::TokenFile(_) => Json::Null,
            Self::Policy(SandboxPolicy::Default) => json!("default"),
            Self::Policy(SandboxPolicy::Strict) => json!("strict"),
            Self::Policy(SandboxPolicy::File(path)) => show::path(path),
            Self::Ids(ids, _) => json!(**ids),
            Self::Layers(layers) => layers.iter().map(|layer| json!(layer.name())).collect(),
            Self::Name(name) => json!(**name),
            Self::Digest(digest) => digest.map_or(Json::Null, |digest| json!(digest.to_string())),
            Self::Overrides(changes) => changes.iter().map(|change| json!(change.to_string())).collect(),
            Self::Groups(groups) => groups.iter().map(|group| json!(group.to_string())).collect(),
            Self::Weights(weights) => weights.iter().map(|weight| json!(weight.to_string())).collect(),
        }
    }

    /// Takes a value, or leaves the old one and says why not.
    pub(super) fn put(&mut self, given: Given<'_>) -> Result<(), Refused> {
        let allowed = self.allowed();
        let refuse = || Refused { found: given.shown(), allowed: allowed.clone(), span: given.span() };
        match self {
            Self::Bool(value) => **value = given.bool().ok_or_else(refuse)?,
            Self::Count(value, bounds) => {
                value.put(given.integer().filter(|number| bounds.has(*number)).ok_or_else(refuse)?);
            }
            Self::Bytes(value, bounds) => {
                let bytes = given.integer().or_else(|| given.str().and_then(size));
                value.put(bytes.filter(|bytes| bounds.has(*bytes)).ok_or_else(refuse)?);
            }
            Self::Time(value, unit, bounds) => {
                let number = given.integer().filter(|number| bounds.has(*number)).ok_or_else(refuse)?;
                value.put(match unit {
                    Unit::Milliseconds => Duration::from_millis(number),
                    Unit::Seconds => Duration::from_secs(number),
                });
            }
            Self::Choice(value) => {
                let is_chosen = given.str().is_some_and(|name| value.choose(name));
                return if is_chosen { Ok(()) } else { Err(refuse()) };
            }
            Self::Path(path, max) => **path = given.path(*max).ok_or_else(refuse)?,
            Self::OptionalPath(path) => **path = Some(given.path(PATH_BYTES_MAX).ok_or_else(refuse)?),
            Self::TokenFile(source) => {
                **source = TokenSource::File(given.path(PATH_BYTES_MAX).ok_or_else(refuse)?);
            }
            Self::Policy(policy) => {
                **policy = match given.str() {
                    Some("default") => SandboxPolicy::Default,
                    Some("strict") => SandboxPolicy::Strict,
                    _ => SandboxPolicy::File(given.path(PATH_BYTES_MAX).ok_or_else(refuse)?),
                };
            }
            Self::Name(name) => {
                **name = given.str().filter(|name| model::is_name(name)).ok_or_else(refuse)?.to_owned();
            }
            Self::Digest(digest) => **digest = Some(given.str().and_then(digest_of).ok_or_else(refuse)?),
            Self::Ids(..) | Self::Layers(_) | Self::Overrides(_) | Self::Groups(_) | Self::Weights(_) => {
                return self.put_list(given, &allowed);
            }
        }
        Ok(())
    }

    fn put_list(&mut self, given: Given<'_>, allowed: &str) -> Result<(), Refused> {
        let elements = given.elements().ok_or_else(|| given.refused(allowed))?;
        if elements.len() > LIST_MAX {
            return Err(Refused { found: format!("a list of {}", elements.len()), ..given.refused(allowed) });
        }
        match self {
            Self::Ids(ids, root) => {
                // The last id is what system calls take for "none".
                let id = |element: &Given<'_>| element.integer().and_then(|id| u32::try_from(id).ok());
                let id = |element: &Given<'_>| id(element).filter(|id| *id != u32::MAX);
                let mut listed = each(&elements, allowed, id)?;
                listed.extend((*root == Root::Always).then_some(0));
                listed.sort_unstable();
                listed.dedup();
                **ids = listed;
            }
            Self::Layers(layers) => {
                let mut listed =
                    each(&elements, allowed, |element| element.str().and_then(Layer::from_name))?;
                listed.sort_unstable();
                listed.dedup();
                **layers = listed;
            }
            Self::Overrides(changes) => {
                let mut listed = Vec::with_capacity(elements.len());
                for element in &elements {
                    let text = element.str().ok_or_else(|| element.refused(allowed))?;
                    listed.push(text.parse::<OverrideKv>().map_err(|allowed| element.refused(&allowed))?);
                }
                **changes = listed;
            }
            Self::Groups(groups) => {
                **groups = each(&elements, allowed, |element| element.str()?.parse().ok())?;
            }
            Self::Weights(weights) => {
                **weights = each(&elements, allowed, |element| element.str()?.parse().ok())?;
            }
            _ => return Err(given.refused(allowed)),
        }
        Ok(())
    }
}

/// What `read` makes of each element; the first that it makes nothing of is refused.
fn each<T>(
    elements: &[Given<'_>],
    allowed: &str,
    read: impl Fn(&Given<'_>) -> Option<T>,
) -> Result<Vec<T>, Refused> {
    elements.iter().map(|element| read(element).ok_or_else(|| element.refused(allowed))).collect()
}

impl<'a> Given<'a> {
    fn refused(&self, allowed: &str) -> Refused {
        Refused { found: self.shown(), allowed: allowed.to_owned(), span: self.span() }
    }

    fn span(&self) -> Option<Range<usize>> {
        match self {
            Self::Toml { value, .. } => Some(value.span()),
            Self::Text(_) => None,
        }
    }

    /// The value in a message.
    fn shown(&self) -> String {
        match self {
            Self::Text(text) => quoted(&text.to_string_lossy()),
            Self::Toml { value, .. } => match value.get_ref() {
                DeValue::String(text) => quoted(text),
                DeValue::Integer(number) => shortened(&number.to_string()),
                DeValue::Float(number) => shortened(number.as_str()),
                DeValue::Boolean(value) => value.to_string(),
                DeValue::Datetime(value) => value.to_string(),
                DeValue::Array(_) => "a list".to_owned(),
                DeValue::Table(_) => "a table".to_owned(),
            },
        }
    }

    fn bool(&self) -> Option<bool> {
        match self {
            Self::Text(text) => text.to_str()?.parse().ok(),
            Self::Toml { value, .. } => value.get_ref().as_bool(),
        }
    }

    fn integer(&self) -> Option<u64> {
        match self {
            Self::Text(text) => digits(text.to_str()?),
            Self::Toml { value, .. } => {
                let number = value.get_ref().as_integer()?;
                u64::from_str_radix(number.as_str(), number.radix()).ok()
            }
        }
    }

    fn str(&self) -> Option<&'a str> {
        match self {
            Self::Text(text) => text.to_str(),
            Self::Toml { value, .. } => value.get_ref().as_str(),
        }
    }

    fn path(&self, bytes_max: usize) -> Option<PathBuf> {
        let is_possible = |text: &OsStr| !text.is_empty() && !text.as_encoded_bytes().contains(&0);
        let path = match self {
            Self::Text(text) => is_possible(text).then(|| PathBuf::from(text))?,
            Self::Toml { value, folder } => {
                let text = value.get_ref().as_str()?;
                is_possible(text.as_ref()).then(|| folder.join(text))?
            }
        };
        (path.as_os_str().len() <= bytes_max).then_some(path)
    }

    /// The elements of a list; those of a text are separated by commas, and the empty text is the empty list.
    fn elements(&self) -> Option<Vec<Self>> {
        match self {
            Self::Text(text) if text.is_empty() => Some(Vec::new()),
            Self::Text(text) => {
                Some(text.to_str()?.split(',').map(|part| Self::Text(part.trim().as_ref())).collect())
            }
            Self::Toml { value, folder } => {
                let array: &DeArray<'_> = value.get_ref().as_array()?;
                Some(array.iter().map(|value| Given::Toml { value, folder }).collect())
            }
        }
    }
}

fn shortened(number: &str) -> String {
    match number.char_indices().nth(super::limits::SHOWN_MAX) {
        None => number.to_owned(),
        Some((end, _)) => format!("{}…", &number[..end]),
    }
}

/// A number of digits alone: no sign, no spaces.
fn digits(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

/// Bytes of a text such as `512MiB` or `8 GiB`.
fn size(text: &str) -> Option<u64> {
    const UNITS: [(&str, u64); 4] = [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1 << 40)];
    let (number, factor) =
        UNITS.into_iter().find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, factor)))?;
    digits(number.trim_end_matches(' '))?.checked_mul(factor)
}

fn digest_of(text: &str) -> Option<Sha256Digest> {
    let digits = text.strip_prefix("sha256:")?.as_bytes();
    if digits.len() != 64 || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    let mut digest = [0; 32];
    for (byte, pair) in digest.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(Sha256Digest(digest))
}

fn numbers(what: &str, bounds: Bounds) -> String {
    let Bounds { min, max, zero } = bounds;
    match zero {
        None => format!("{what} from {min} to {max}"),
        Some(meaning) => format!("{what} from {min} to {max}, or 0 for {meaning}"),
    }
}

fn names(names: &[&str]) -> String {
    match names {
        [] => String::new(),
        [only] => format!("{only:?}"),
        [first @ .., last] => {
            let first = first.iter().map(|name| format!("{name:?}")).collect::<Vec<_>>();
            format!("{} or {last:?}", first.join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_binary_units_and_no_signs() {
        assert_eq!(size("512MiB"), Some(512 << 20));
        assert_eq!(size("8 GiB"), Some(8 << 30));
        for wrong in ["", "MiB", "8GB", "+1MiB", "-1MiB", "1.5GiB", "99999999999999TiB", "512", "1 MiB "] {
            assert_eq!(size(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn digests_are_read_as_they_are_printed() {
        let digest = Sha256Digest::of(b"abc");
        assert_eq!(digest_of(&digest.to_string()), Some(digest));
        for wrong in ["", "sha256:", "sha256:+1", &format!("sha256:{}", "g".repeat(64)), &"0".repeat(64)] {
            assert_eq!(digest_of(wrong), None, "{wrong}");
        }
    }
}
