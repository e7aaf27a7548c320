//! The key-value pairs of a file, in their order, with typed access.

use std::cmp::Ordering;

use crate::error::{Error, shown};
use crate::value::{Array, Value};

/// The key-value pairs of a file. Keys are unique; the order of the file is kept.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metadata {
    entries: Vec<(String, Value)>,
    /// Places in `entries`, in the order of the keys.
    by_key: Vec<u32>,
}

impl Metadata {
    /// No pairs.
    pub fn new() -> Self {
        Self::default()
    }

    /// The pairs in their order.
    ///
    /// # Errors
    /// [`Error::DuplicateKey`] if a key stands twice, [`Error::Limit`] beyond 2³² pairs.
    pub fn from_entries(entries: Vec<(String, Value)>) -> Result<Self, Error> {
        let by_key = sorted_places(entries.len(), "metadata count", |a, b| entries[a].0.cmp(&entries[b].0))?;
        if let Some(place) = first_equal(&by_key, |a, b| entries[a].0 == entries[b].0) {
            return Err(Error::DuplicateKey { key: shown(&entries[place].0) });
        }
        Ok(Self { entries, by_key })
    }

    /// The number of pairs.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are no pairs.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The pairs in the order of the file.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Value)> {
        self.entries.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&Value> {
        let place = self.search(key).ok()?;
        Some(&self.entries[self.by_key[place] as usize].1)
    }

    /// Whether the key is there.
    pub fn contains(&self, key: &str) -> bool {
        self.search(key).is_ok()
    }

    /// Sets the value of a key, in its place if it is there already, else at the end.
    ///
    /// # Errors
    /// [`Error::Limit`] beyond 2³² pairs.
    pub fn insert(&mut self, key: impl Into<String>, value: impl Into<Value>) -> Result<(), Error> {
        let key = key.into();
        match self.search(&key) {
            Ok(place) => self.entries[self.by_key[place] as usize].1 = value.into(),
            Err(place) => {
                let entry = place_u32(self.entries.len(), "metadata count")?;
                self.by_key.insert(place, entry);
                self.entries.push((key, value.into()));
            }
        }
        Ok(())
    }

    /// Removes a key and gives its value.
    pub fn remove(&mut self, key: &str) -> Option<Value> {
        let place = self.search(key).ok()?;
        let removed = self.by_key.remove(place);
        for entry in &mut self.by_key {
            *entry -= u32::from(*entry > removed);
        }
        Some(self.entries.remove(removed as usize).1)
    }

    fn search(&self, key: &str) -> Result<usize, usize> {
        self.by_key.binary_search_by(|&place| self.entries[place as usize].0.as_str().cmp(key))
    }

    fn required<T>(&self, key: &str, value: Option<T>) -> Result<T, Error> {
        value.ok_or_else(|| Error::MissingKey { key: shown(key) })
    }

    fn opt<'a, T>(
        &'a self,
        key: &str,
        expected: &'static str,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, Error> {
        let Some(value) = self.get(key) else { return Ok(None) };
        read(value).map(Some).ok_or_else(|| Error::WrongType {
            key: shown(key),
            expected,
            found: value.value_type(),
        })
    }

    fn opt_integer<T: TryFrom<i128>>(&self, key: &str, expected: &'static str) -> Result<Option<T>, Error> {
        let Some(value) = self.opt(key, expected, Value::as_integer)? else { return Ok(None) };
        fit(key, expected, value).map(Some)
    }
}

/// A required getter and its optional twin for each type.
macro_rules! getters {
    ($($name:ident, $opt:ident, $type:ty, $what:literal, |$self:ident, $key:ident| $body:expr;)*) => {
        impl Metadata {$(
            #[doc = concat!("The value of a key as ", $what, ".")]
            ///
            /// # Errors
            /// [`Error::MissingKey`] if the key is absent; [`Error::WrongType`] and, for integers,
            /// [`Error::OutOfRange`] if its value is something else.
            pub fn $name(&self, key: &str) -> Result<$type, Error> {
                self.required(key, self.$opt(key)?)
            }

            #[doc = concat!("The value of a key as ", $what, ", or `None` if the key is absent.")]
            ///
            /// # Errors
            /// [`Error::WrongType`] and, for integers, [`Error::OutOfRange`] if its value is something else.
            pub fn $opt(&self, key: &str) -> Result<Option<$type>, Error> {
                let ($self, $key) = (self, key);
                $body
            }
        )*}
    };
}

getters! {
    u32, opt_u32, u32, "an integer, stored in any width",
        |this, key| this.opt_integer(key, "a 32-bit unsigned integer");
    i32, opt_i32, i32, "an integer, stored in any width",
        |this, key| this.opt_integer(key, "a 32-bit integer");
    u64, opt_u64, u64, "an integer, stored in any width",
        |this, key| this.opt_integer(key, "a 64-bit unsigned integer");
    f32, opt_f32, f32, "a number (a stored f64 is rounded)",
        |this, key| this.opt(key, "a floating-point number", |value| match *value {
            Value::F32(x) => Some(x),
            Value::F64(x) => Some(x as f32),
            _ => None,
        });
    bool, opt_bool, bool, "a truth value",
        |this, key| this.opt(key, "a bool", |value| match *value {
            Value::Bool(x) => Some(x),
            _ => None,
        });
    str, opt_str, &str, "a text",
        |this, key| this.opt(key, "a string", Value::as_str);
    array, opt_array, &Array, "an array of any kind",
        |this, key| this.opt(key, "an array", |value| match value {
            Value::Array(x) => Some(x),
            _ => None,
        });
    strings, opt_strings, &[String], "an array of strings",
        |this, key| this.opt(key, "an array of strings", |value| match value {
            Value::Array(Array::String(x)) => Some(x.as_slice()),
            _ => None,
        });
    f32s, opt_f32s, &[f32], "an array of f32",
        |this, key| this.opt(key, "an array of f32", |value| match value {
            Value::Array(Array::F32(x)) => Some(x.as_slice()),
            _ => None,
        });
    i32s, opt_i32s, &[i32], "an array of i32",
        |this, key| this.opt(key, "an array of i32", |value| match value {
            Value::Array(Array::I32(x)) => Some(x.as_slice()),
            _ => None,
        });
    bools, opt_bools, &[bool], "an array of bools",
        |this, key| this.opt(key, "an array of bools", |value| match value {
            Value::Array(Array::Bool(x)) => Some(x.as_slice()),
            _ => None,
        });
    bytes, opt_bytes, &[u8], "an array of u8",
        |this, key| this.opt(key, "an array of u8", |value| match value {
            Value::Array(Array::U8(x)) => Some(x.as_slice()),
            _ => None,
        });
    u32s, opt_u32s, Vec<u32>, "an array of integers, stored in any width",
        |this, key| {
            let expected = "an array of 32-bit unsigned integers";
            let Some(values) = this.opt(key, expected, |value| match value {
                Value::Array(array) => array.integers(),
                _ => None,
            })? else { return Ok(None) };
            values.map(|value| fit(key, expected, value)).collect::<Result<_, _>>().map(Some)
        };
    u32s_or_scalar, opt_u32s_or_scalar, Vec<u32>,
        "an array of integers; a single integer, which stands for every layer, comes back alone",
        |this, key| {
            let expected = "a 32-bit unsigned integer or an array of them";
            let Some(values) = this.opt(key, expected, integers)? else { return Ok(None) };
            values.map(|value| fit(key, expected, value)).collect::<Result<_, _>>().map(Some)
        };
    u64s_or_scalar, opt_u64s_or_scalar, Vec<u64>,
        "an array of integers; a single integer, which stands for every layer, comes back alone",
        |this, key| {
            let expected = "a 64-bit unsigned integer or an array of them";
            let Some(values) = this.opt(key, expected, integers)? else { return Ok(None) };
            values.map(|value| fit(key, expected, value)).collect::<Result<_, _>>().map(Some)
        };
}

/// The integers of an array, or the one that stands alone.
fn integers(value: &Value) -> Option<Box<dyn Iterator<Item = i128> + '_>> {
    match value {
        Value::Array(array) => array.integers(),
        scalar => Some(Box::new(std::iter::once(scalar.as_integer()?))),
    }
}

fn fit<T: TryFrom<i128>>(key: &str, expected: &'static str, value: i128) -> Result<T, Error> {
    T::try_from(value).map_err(|_| Error::OutOfRange { key: shown(key), expected, found: value })
}

/// The places `0..n` in the order of `compare`.
pub(crate) fn sorted_places(
    n: usize,
    what: &'static str,
    compare: impl Fn(usize, usize) -> Ordering,
) -> Result<Vec<u32>, Error> {
    let mut places: Vec<u32> = (0..place_u32(n, what)?).collect();
    places.sort_unstable_by(|&a, &b| compare(a as usize, b as usize));
    Ok(places)
}

/// The second of the first two neighbours that are equal.
pub(crate) fn first_equal(places: &[u32], equal: impl Fn(usize, usize) -> bool) -> Option<usize> {
    places.windows(2).find(|pair| equal(pair[0] as usize, pair[1] as usize)).map(|pair| pair[1] as usize)
}

fn place_u32(n: usize, what: &'static str) -> Result<u32, Error> {
    u32::try_from(n).map_err(|_| Error::Limit { what, found: n as u64, max: u32::MAX.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Metadata {
        let mut metadata = Metadata::new();
        metadata.insert("b", 7u64).unwrap();
        metadata.insert("a", "text").unwrap();
        metadata.insert("c", vec![1i32, -2]).unwrap();
        metadata.insert("d", 1e40f64).unwrap();
        metadata
    }

    #[test]
    fn an_integer_of_any_width_is_read_if_it_fits() {
        let mut metadata = sample();
        assert_eq!(metadata.u32("b").unwrap(), 7);
        metadata.insert("b", -1i8).unwrap();
        assert!(matches!(metadata.u32("b"), Err(Error::OutOfRange { found: -1, .. })));
        assert!(matches!(metadata.opt_u32("b"), Err(Error::OutOfRange { .. })));
        metadata.insert("b", u64::MAX).unwrap();
        assert!(matches!(metadata.u32("b"), Err(Error::OutOfRange { .. })));
        assert_eq!(metadata.u64("b").unwrap(), u64::MAX);
    }

    #[test]
    fn a_missing_key_and_a_wrong_type_are_different_errors() {
        let metadata = sample();
        assert!(matches!(metadata.u32("none"), Err(Error::MissingKey { .. })));
        assert_eq!(metadata.opt_u32("none").unwrap(), None);
        let error = metadata.u32("c").unwrap_err();
        assert_eq!(
            error.to_string(),
            "\"c\" must be a 32-bit unsigned integer, but the file has array of i32"
        );
        assert!(matches!(metadata.opt_strings("c"), Err(Error::WrongType { .. })));
        assert!(matches!(metadata.bool("b"), Err(Error::WrongType { .. })));
        assert!(matches!(metadata.f32("b"), Err(Error::WrongType { .. })));
    }

    #[test]
    fn a_scalar_stands_for_an_array_where_the_key_allows_it() {
        let metadata = sample();
        assert_eq!(metadata.u32s_or_scalar("b").unwrap(), [7]);
        assert!(matches!(metadata.u32s_or_scalar("c"), Err(Error::OutOfRange { found: -2, .. })));
        assert!(matches!(metadata.u32s_or_scalar("a"), Err(Error::WrongType { .. })));
        assert_eq!(metadata.opt_u32s_or_scalar("none").unwrap(), None);
        assert_eq!(metadata.i32s("c").unwrap(), [1, -2]);
    }

    #[test]
    fn the_order_of_the_file_survives_changes() {
        let mut metadata = sample();
        metadata.insert("a", 1u8).unwrap();
        assert_eq!(metadata.remove("b"), Some(Value::U64(7)));
        assert_eq!(metadata.remove("b"), None);
        metadata.insert("0", true).unwrap();
        assert_eq!(metadata.iter().map(|(key, _)| key).collect::<Vec<_>>(), ["a", "c", "d", "0"]);
        for (key, value) in metadata.iter() {
            assert_eq!(metadata.get(key), Some(value));
        }
    }
}
