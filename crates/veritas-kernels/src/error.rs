//! What can go wrong when kernels are asked for something.

use veritas_quant::GgmlType;
use veritas_simd::Isa;

/// A request that this machine or this crate cannot serve.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The machine lacks the instruction-set level.
    #[error("this machine has no {isa}; the best that it has is {best}")]
    IsaUnavailable {
        /// The level that was asked for.
        isa: Isa,
        /// The best level of this machine.
        best: Isa,
    },
    /// No product exists for weights of this type.
    #[error("no matrix product exists for weights of type {ty}")]
    UnsupportedType {
        /// The type of the weights.
        ty: GgmlType,
    },
    /// A buffer or a dimension does not have the size that the others imply.
    #[error("{what}: expected {expected}, found {found}")]
    Shape {
        /// Which size it is.
        what: &'static str,
        /// What the other arguments imply.
        expected: usize,
        /// What was given.
        found: usize,
    },
    /// The activations were prepared in another format than the weights need.
    #[error("weights of type {ty} need activations as {expected}, found {found}")]
    Format {
        /// The type of the weights.
        ty: GgmlType,
        /// The format that its products read.
        expected: String,
        /// The format that was prepared.
        found: String,
    },
}
