//! What can go wrong with rows of block formats.

use crate::GgmlType;

/// An error of this crate.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The row does not consist of whole blocks.
    #[error("a row of {found} weights is no multiple of the {block_len} weights in a block of {ty}")]
    RowLength {
        /// The type of the row.
        ty: GgmlType,
        /// Weights in a block.
        block_len: usize,
        /// Weights in the row.
        found: usize,
    },
    /// The bytes of a row do not match its number of weights.
    #[error("a row of {weights} weights of {ty} takes {expected} bytes, not {found}")]
    RowBytes {
        /// The type of the row.
        ty: GgmlType,
        /// Weights in the row.
        weights: usize,
        /// Bytes that this many weights take.
        expected: usize,
        /// Bytes given.
        found: usize,
    },
    /// The type cannot be dequantised: it holds integers or is no format for weights.
    #[error("rows of {ty} cannot be converted to F32")]
    NotDequantizable {
        /// The type.
        ty: GgmlType,
    },
    /// The type cannot be written by this quantiser.
    #[error(
        "cannot quantise to {ty}: use F16, BF16, Q8_0, Q4_0 to Q5_1, Q2_K to Q6_K, IQ4_NL, IQ4_XS or MXFP4"
    )]
    NotQuantizable {
        /// The type.
        ty: GgmlType,
    },
    /// A weight is infinite or not a number.
    #[error("weight {index} of the row is {value}: only finite weights can be quantised to {ty}")]
    NotFinite {
        /// The type asked for.
        ty: GgmlType,
        /// Place of the first such weight in the row.
        index: usize,
        /// The weight.
        value: f32,
    },
    /// A weight is too large for the scales of the type.
    #[error("weight {index} of the row is {value}: {ty} reaches {limit} at most")]
    TooLarge {
        /// The type asked for.
        ty: GgmlType,
        /// Place of the first such weight in the row.
        index: usize,
        /// The weight.
        value: f32,
        /// The largest magnitude that the type can hold.
        limit: f32,
    },
    /// The importance vector does not fit the row.
    #[error("{found} importances for a row of {expected} weights")]
    ImportanceLength {
        /// Weights in the row.
        expected: usize,
        /// Importances given.
        found: usize,
    },
    /// An importance is negative, infinite or not a number.
    #[error("importance {index} is {value}, but importances are finite and not negative")]
    Importance {
        /// Its place.
        index: usize,
        /// Its value.
        value: f32,
    },
    /// A file of importances ends too early.
    #[error(
        "the importance matrix is truncated: {what} at byte {offset} needs {needed} bytes, {left} are left"
    )]
    ImportanceTruncated {
        /// What was being read.
        what: &'static str,
        /// Where in the file.
        offset: usize,
        /// Bytes that it needs.
        needed: usize,
        /// Bytes that are left.
        left: usize,
    },
    /// A file of importances holds something that cannot be.
    #[error("the importance matrix has {what}: {name:?}")]
    ImportanceFile {
        /// What is wrong.
        what: &'static str,
        /// The entry or the value.
        name: String,
    },
    /// The importances of a tensor were measured on a model with another shape.
    #[error(
        "the importance matrix has {found} values for {name:?}, but the tensor needs {expected}: was it made for another model?"
    )]
    ImportanceShape {
        /// The tensor.
        name: String,
        /// Values that its shape needs.
        expected: usize,
        /// Values in the file.
        found: usize,
    },
}
