//! What can be wrong with a file, a key or a write.

use veritas_quant::GgmlType;

use crate::limits::{MAX_ALIGNMENT, MIN_ALIGNMENT};
use crate::value::ValueType;

/// Why a file was refused, a key could not be read, or a file could not be written.
///
/// Names in it come from the file: they are cut to 80 characters, and messages print them escaped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file does not begin with `GGUF`.
    #[error("not a GGUF file: it begins with \"{}\" instead of \"GGUF\"", found.escape_ascii())]
    Magic {
        /// The first four bytes.
        found: [u8; 4],
    },
    /// The file was written in big-endian byte order.
    #[error(
        "a big-endian GGUF file (version {version}): only little-endian files are read; convert it first"
    )]
    BigEndian {
        /// The version that the file states, in its own byte order.
        version: u32,
    },
    /// A version that is not read.
    #[error("GGUF version {found}: only versions 2 and 3 are read")]
    Version {
        /// The version that the file states.
        found: u32,
    },
    /// The file ends inside something, or a count needs more bytes than are left besides those that are spoken
    /// for already.
    #[error("the file is truncated: {what} at byte {offset}: at least {needed} bytes must follow, {left} do")]
    Truncated {
        /// What was being read.
        what: &'static str,
        /// Where in the file.
        offset: u64,
        /// Bytes that it needs at least.
        needed: u64,
        /// Bytes that are left.
        left: u64,
    },
    /// A count or a length above its limit.
    #[error("{what}: {found} is above the limit of {max}")]
    Limit {
        /// What was counted.
        what: &'static str,
        /// The value in the file.
        found: u64,
        /// The limit.
        max: u64,
    },
    /// A string is no UTF-8.
    #[error("{what} at byte {offset} is not UTF-8")]
    NotUtf8 {
        /// Which string.
        what: &'static str,
        /// Where its text begins.
        offset: u64,
    },
    /// A key or a tensor's name has no characters.
    #[error("{what} at byte {offset} is empty")]
    EmptyName {
        /// Which name.
        what: &'static str,
        /// Where its text would begin.
        offset: u64,
    },
    /// The same key twice.
    #[error("the key {key:?} stands twice in the metadata")]
    DuplicateKey {
        /// The key.
        key: String,
    },
    /// A value type that the format does not know.
    #[error("the value of {key:?} has type {found}: the types of the format are 0 to 12")]
    UnknownValueType {
        /// The key.
        key: String,
        /// The type in the file.
        found: u32,
    },
    /// A truth value that is neither 0 nor 1.
    #[error("the value of {key:?} is a bool with the byte {found}: only 0 and 1 are bools")]
    NotBool {
        /// The key.
        key: String,
        /// The byte in the file.
        found: u8,
    },
    /// An alignment that the format forbids.
    #[error(
        "general.alignment is {found}: it must be a power of two from {MIN_ALIGNMENT} to {MAX_ALIGNMENT}"
    )]
    Alignment {
        /// The alignment in the file.
        found: u64,
    },
    /// A key that is needed is absent.
    #[error("the metadata has no key {key:?}")]
    MissingKey {
        /// The key.
        key: String,
    },
    /// A value has another type than the key needs.
    #[error("{key:?} must be {expected}, but the file has {found}")]
    WrongType {
        /// The key.
        key: String,
        /// The type that is needed.
        expected: &'static str,
        /// The type in the file.
        found: ValueType,
    },
    /// A number does not fit the type that the key needs.
    #[error("{key:?} is {found}, which does not fit {expected}")]
    OutOfRange {
        /// The key.
        key: String,
        /// The type that is needed.
        expected: &'static str,
        /// The number in the file.
        found: i128,
    },
    /// The same tensor twice.
    #[error("the tensor {name:?} stands twice in the file")]
    DuplicateTensor {
        /// The tensor.
        name: String,
    },
    /// A tensor type that is unknown or was withdrawn.
    #[error("the tensor {name:?} has type {found} ({}), which is not supported", type_name(*found))]
    UnknownTensorType {
        /// The tensor.
        name: String,
        /// The type's id in the file.
        found: u32,
    },
    /// A number of dimensions out of range.
    #[error("the tensor {name:?} has {found} dimensions: at most {max} are allowed")]
    DimensionCount {
        /// The tensor.
        name: String,
        /// The number in the file.
        found: u32,
        /// The limit.
        max: u32,
    },
    /// A dimension that is zero, or negative as the signed number that ggml reads.
    #[error("dimension {index} of the tensor {name:?} is {}: it must be at least 1", *found as i64)]
    Dimension {
        /// The tensor.
        name: String,
        /// Which dimension, from 0.
        index: usize,
        /// The value in the file, unsigned.
        found: u64,
    },
    /// The number of elements or bytes of a tensor does not fit 63 bits.
    #[error("the tensor {name:?} with dimensions {dims:?} has more elements than can be counted")]
    ElementOverflow {
        /// The tensor.
        name: String,
        /// Its dimensions.
        dims: Vec<u64>,
    },
    /// A row is no whole number of blocks.
    #[error("rows of the tensor {name:?} have {row_len} elements: {ty} needs a multiple of {}", ty.block_len())]
    RowLength {
        /// The tensor.
        name: String,
        /// Its type.
        ty: GgmlType,
        /// Elements of a row.
        row_len: u64,
    },
    /// A tensor's data does not begin at a multiple of the alignment.
    #[error(
        "the data of the tensor {name:?} begins at offset {offset}, no multiple of the alignment {alignment}"
    )]
    Unaligned {
        /// The tensor.
        name: String,
        /// The offset in the data section.
        offset: u64,
        /// The file's alignment.
        alignment: u64,
    },
    /// A tensor's data ends after the file.
    #[error(
        "the data of the tensor {name:?} ({bytes} bytes at offset {offset} of the data section) ends after the \
         file, whose data section has {left} bytes"
    )]
    PastEnd {
        /// The tensor.
        name: String,
        /// The offset in the data section.
        offset: u64,
        /// Bytes of the tensor.
        bytes: u64,
        /// Bytes of the data section.
        left: u64,
    },
    /// Two tensors share bytes.
    #[error("the data of the tensors {first:?} and {second:?} overlap")]
    Overlap {
        /// The tensor that begins first.
        first: String,
        /// The tensor that begins before the first ends.
        second: String,
    },
    /// A part of a split file was given alone, or parts are missing.
    #[error(
        "the model is split into {expected} files, but {found} were given: open the first, with the others beside it"
    )]
    SplitCount {
        /// Parts according to the file.
        expected: u64,
        /// Parts given.
        found: usize,
    },
    /// A part of a split file stands at another place than it says.
    #[error("part {expected} of the split model says that it is part {found} (counted from 0)")]
    SplitOrder {
        /// The place, from 0.
        expected: usize,
        /// `split.no` of the part.
        found: u64,
    },
    /// The parts of a split file hold another number of tensors than they say.
    #[error(
        "the parts of the split model hold {found} tensors, but part {part} says {expected} (counted from 0)"
    )]
    SplitTensors {
        /// The part whose count is wrong.
        part: usize,
        /// `split.tensors.count` of the part.
        expected: u64,
        /// Tensors of all parts.
        found: usize,
    },
    /// The bytes written for a tensor are not those that were announced.
    #[error("the tensor {name:?} was announced with {expected} bytes, but {found} were written")]
    TensorBytes {
        /// The tensor.
        name: String,
        /// Bytes announced.
        expected: u64,
        /// Bytes written, or that would have been.
        found: u64,
    },
    /// Bytes were written after the last tensor.
    #[error("{found} bytes were written after the last tensor")]
    AfterLastTensor {
        /// How many.
        found: u64,
    },
    /// The destination refused bytes.
    #[error("the file could not be written")]
    Write(#[from] std::io::Error),
}

/// The names of the types that once had these ids, for a message that can be looked up.
fn type_name(id: u32) -> &'static str {
    match id {
        4 => "Q4_2, withdrawn",
        5 => "Q4_3, withdrawn",
        31 => "Q4_0_4_4, withdrawn: use Q4_0",
        32 => "Q4_0_4_8, withdrawn: use Q4_0",
        33 => "Q4_0_8_8, withdrawn: use Q4_0",
        36 => "IQ4_NL_4_4, withdrawn: use IQ4_NL",
        37 => "IQ4_NL_4_8, withdrawn: use IQ4_NL",
        38 => "IQ4_NL_8_8, withdrawn: use IQ4_NL",
        _ => "unknown",
    }
}

/// A name from the file, short enough for a message.
pub(crate) fn shown(name: &str) -> String {
    const MAX_CHARS: usize = 80;
    match name.char_indices().nth(MAX_CHARS) {
        None => name.to_owned(),
        Some((end, _)) => format!("{}…", &name[..end]),
    }
}
