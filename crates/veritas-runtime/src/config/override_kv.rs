//! Changes of a model's metadata, as `--override-kv` writes them.

use std::fmt;
use std::str::FromStr;

use veritas_engine::MetadataOverride;

use super::limits::OVERRIDE_BYTES_MAX;

/// What can be written, for people.
pub(super) const FORM: &str = MetadataOverride::FORM;

/// A change of a model's metadata, `KEY=TYPE:VALUE`, as it was written: it can be read as a [`MetadataOverride`], which
/// the worker does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OverrideKv(String);

impl FromStr for OverrideKv {
    type Err = String;

    /// The error says what is allowed.
    fn from_str(text: &str) -> Result<Self, String> {
        if text.len() > OVERRIDE_BYTES_MAX {
            return Err(format!("{FORM}, of at most {OVERRIDE_BYTES_MAX} bytes"));
        }
        text.parse::<MetadataOverride>().map(|_| Self(text.to_owned()))
    }
}

impl fmt::Display for OverrideKv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_stays_as_it_is() {
        for text in ["a.b=int:-8", "a=float:1.5", "a=bool:true", "a=str:", "a=str:b=c:d", "a=float:0.1"] {
            assert_eq!(text.parse::<OverrideKv>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_cannot_be_read_or_is_too_long_is_refused() {
        assert!("a=u8:1".parse::<OverrideKv>().is_err());
        assert!(format!("a=str:{}", "x".repeat(OVERRIDE_BYTES_MAX)).parse::<OverrideKv>().is_err());
    }
}
