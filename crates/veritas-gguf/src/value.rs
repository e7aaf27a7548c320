//! Values of the metadata, as the format types them.

use std::fmt;

/// A value of the metadata.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)] // The variants are the types of the format, one each.
pub enum Value {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    U64(u64),
    I64(i64),
    F32(f32),
    F64(f64),
    Bool(bool),
    String(String),
    Array(Array),
}

/// An array of the metadata: all elements have one type, which an empty array keeps too.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)] // The variants are the types of the format, one each.
pub enum Array {
    U8(Vec<u8>),
    I8(Vec<i8>),
    U16(Vec<u16>),
    I16(Vec<i16>),
    U32(Vec<u32>),
    I32(Vec<i32>),
    U64(Vec<u64>),
    I64(Vec<i64>),
    F32(Vec<f32>),
    F64(Vec<f64>),
    Bool(Vec<bool>),
    String(Vec<String>),
    Array(Vec<Array>),
}

/// The type of a value; prints as `u32`, `string`, `array of f32`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueType {
    /// A single value.
    Scalar(Kind),
    /// An array with elements of this kind.
    Array(Kind),
}

/// The thirteen kinds of value of the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // The names are the documentation.
pub enum Kind {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    F32,
    Bool,
    String,
    Array,
    U64,
    I64,
    F64,
}

/// The kinds in the order of their ids in a file.
const KINDS: [(Kind, &str); 13] = [
    (Kind::U8, "u8"),
    (Kind::I8, "i8"),
    (Kind::U16, "u16"),
    (Kind::I16, "i16"),
    (Kind::U32, "u32"),
    (Kind::I32, "i32"),
    (Kind::F32, "f32"),
    (Kind::Bool, "bool"),
    (Kind::String, "string"),
    (Kind::Array, "array"),
    (Kind::U64, "u64"),
    (Kind::I64, "i64"),
    (Kind::F64, "f64"),
];

impl Kind {
    /// The kind with this id in a file.
    pub fn from_id(id: u32) -> Option<Self> {
        KINDS.get(usize::try_from(id).ok()?).map(|row| row.0)
    }

    /// The id in a file.
    pub fn id(self) -> u32 {
        self as u32
    }

    /// The name in lower case.
    pub fn name(self) -> &'static str {
        KINDS[self as usize].1
    }
}

impl fmt::Display for ValueType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Scalar(kind) => f.write_str(kind.name()),
            Self::Array(kind) => write!(f, "array of {}", kind.name()),
        }
    }
}

impl Value {
    /// The kind of the value; `Kind::Array` for an array.
    pub fn kind(&self) -> Kind {
        match self {
            Self::U8(_) => Kind::U8,
            Self::I8(_) => Kind::I8,
            Self::U16(_) => Kind::U16,
            Self::I16(_) => Kind::I16,
            Self::U32(_) => Kind::U32,
            Self::I32(_) => Kind::I32,
            Self::U64(_) => Kind::U64,
            Self::I64(_) => Kind::I64,
            Self::F32(_) => Kind::F32,
            Self::F64(_) => Kind::F64,
            Self::Bool(_) => Kind::Bool,
            Self::String(_) => Kind::String,
            Self::Array(_) => Kind::Array,
        }
    }

    /// The type of the value, with the kind of the elements for an array.
    pub fn value_type(&self) -> ValueType {
        match self {
            Self::Array(array) => ValueType::Array(array.kind()),
            _ => ValueType::Scalar(self.kind()),
        }
    }

    /// The value as an integer, if it is one of any width.
    pub fn as_integer(&self) -> Option<i128> {
        Some(match *self {
            Self::U8(x) => x.into(),
            Self::I8(x) => x.into(),
            Self::U16(x) => x.into(),
            Self::I16(x) => x.into(),
            Self::U32(x) => x.into(),
            Self::I32(x) => x.into(),
            Self::U64(x) => x.into(),
            Self::I64(x) => x.into(),
            _ => return None,
        })
    }

    /// The text, if the value is a string.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            _ => None,
        }
    }
}

impl Array {
    /// The kind of the elements.
    pub fn kind(&self) -> Kind {
        match self {
            Self::U8(_) => Kind::U8,
            Self::I8(_) => Kind::I8,
            Self::U16(_) => Kind::U16,
            Self::I16(_) => Kind::I16,
            Self::U32(_) => Kind::U32,
            Self::I32(_) => Kind::I32,
            Self::U64(_) => Kind::U64,
            Self::I64(_) => Kind::I64,
            Self::F32(_) => Kind::F32,
            Self::F64(_) => Kind::F64,
            Self::Bool(_) => Kind::Bool,
            Self::String(_) => Kind::String,
            Self::Array(_) => Kind::Array,
        }
    }

    /// The number of elements.
    pub fn len(&self) -> usize {
        match self {
            Self::U8(x) => x.len(),
            Self::I8(x) => x.len(),
            Self::U16(x) => x.len(),
            Self::I16(x) => x.len(),
            Self::U32(x) => x.len(),
            Self::I32(x) => x.len(),
            Self::U64(x) => x.len(),
            Self::I64(x) => x.len(),
            Self::F32(x) => x.len(),
            Self::F64(x) => x.len(),
            Self::Bool(x) => x.len(),
            Self::String(x) => x.len(),
            Self::Array(x) => x.len(),
        }
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The elements as integers, if they are integers of any width.
    pub fn integers(&self) -> Option<Box<dyn Iterator<Item = i128> + '_>> {
        fn wide<T: Copy + Into<i128>>(slice: &[T]) -> Option<Box<dyn Iterator<Item = i128> + '_>> {
            Some(Box::new(slice.iter().map(|&x| x.into())))
        }
        match self {
            Self::U8(x) => wide(x),
            Self::I8(x) => wide(x),
            Self::U16(x) => wide(x),
            Self::I16(x) => wide(x),
            Self::U32(x) => wide(x),
            Self::I32(x) => wide(x),
            Self::U64(x) => wide(x),
            Self::I64(x) => wide(x),
            _ => None,
        }
    }
}

macro_rules! from {
    ($($variant:ident $type:ty),*) => {$(
        impl From<$type> for Value {
            fn from(value: $type) -> Self {
                Self::$variant(value)
            }
        }
        impl From<Vec<$type>> for Value {
            fn from(values: Vec<$type>) -> Self {
                Self::Array(Array::$variant(values))
            }
        }
    )*};
}
from!(U8 u8, I8 i8, U16 u16, I16 i16, U32 u32, I32 i32, U64 u64, I64 i64, F32 f32, F64 f64, Bool bool, String String);

impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Self::String(value.to_owned())
    }
}

impl From<Array> for Value {
    fn from(value: Array) -> Self {
        Self::Array(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_stands_in_the_table_at_its_id() {
        for (place, row) in KINDS.iter().enumerate() {
            assert_eq!(row.0.id() as usize, place);
            assert_eq!(Kind::from_id(row.0.id()), Some(row.0));
        }
        assert_eq!(Kind::from_id(13), None);
    }
}
