//! Changes of a model's metadata, as `--override-kv` writes them.

use std::fmt;
use std::str::FromStr;

use super::limits::OVERRIDE_BYTES_MAX;

/// What can be written, for people.
pub(super) const FORM: &str = "KEY=TYPE:VALUE with the type int, float, bool or str";

/// A change of a model's metadata: `KEY=TYPE:VALUE`. Its display is the form that [`FromStr`] reads back.
#[derive(Clone, Debug, PartialEq)]
pub struct OverrideKv {
    /// The metadata key to set; not empty.
    pub key: String,
    /// Its value.
    pub value: OverrideValue,
}

/// The value of an [`OverrideKv`].
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum OverrideValue {
    /// `int:`
    Int(i64),
    /// `float:`; finite.
    Float(f32),
    /// `bool:`
    Bool(bool),
    /// `str:`, everything after the colon.
    Str(String),
}

impl FromStr for OverrideKv {
    type Err = String;

    /// The error says what is allowed.
    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || FORM.to_owned();
        if text.len() > OVERRIDE_BYTES_MAX {
            return Err(format!("{FORM}, of at most {OVERRIDE_BYTES_MAX} bytes"));
        }
        let (key, typed) = text.split_once('=').ok_or_else(expected)?;
        let (kind, value) = typed.split_once(':').ok_or_else(expected)?;
        if key.is_empty() {
            return Err(expected());
        }
        let value = match kind {
            "int" => OverrideValue::Int(
                value.parse().map_err(|_| "after int: a whole number of 64 bits".to_owned())?,
            ),
            "float" => {
                let number = value.parse::<f32>().ok().filter(|number| number.is_finite());
                OverrideValue::Float(number.ok_or("after float: a finite number")?)
            }
            "bool" => OverrideValue::Bool(value.parse().map_err(|_| "after bool: true or false".to_owned())?),
            "str" => OverrideValue::Str(value.to_owned()),
            _ => return Err(expected()),
        };
        Ok(Self { key: key.to_owned(), value })
    }
}

impl fmt::Display for OverrideKv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = &self.key;
        match &self.value {
            OverrideValue::Int(value) => write!(f, "{key}=int:{value}"),
            OverrideValue::Float(value) => write!(f, "{key}=float:{value}"),
            OverrideValue::Bool(value) => write!(f, "{key}=bool:{value}"),
            OverrideValue::Str(value) => write!(f, "{key}=str:{value}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_displayed_is_read_back() {
        for text in ["a.b=int:-8", "a=float:1.5", "a=bool:true", "a=str:", "a=str:b=c:d", "a=float:0.1"] {
            assert_eq!(text.parse::<OverrideKv>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_has_no_key_no_type_or_another_value_is_refused() {
        for text in ["", "a", "a=1", "=int:1", "a=int:1.5", "a=float:inf", "a=bool:yes", "a=u8:1", "a:int=1"]
        {
            assert!(text.parse::<OverrideKv>().is_err(), "{text}");
        }
        assert!(format!("a=str:{}", "x".repeat(OVERRIDE_BYTES_MAX)).parse::<OverrideKv>().is_err());
    }
}
