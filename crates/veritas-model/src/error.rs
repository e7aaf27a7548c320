//! Why no plan could be made.

use thiserror::Error;

/// Why the metadata and tensors of a file do not give a plan.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// The metadata lack a key, or it has another type.
    #[error(transparent)]
    Metadata(#[from] veritas_gguf::Error),
    /// `general.architecture` names an architecture that is not known here.
    #[error("the architecture `{name}` is not supported; supported are {supported}")]
    UnknownArchitecture {
        /// The name in the file.
        name: String,
        /// The names that are supported, with commas.
        supported: String,
    },
    /// The architecture is known, but the file uses a part of it that is not supported.
    #[error("the model needs {what}, which is not supported")]
    Unsupported {
        /// What is missing.
        what: String,
    },
    /// A value of the metadata makes no sense.
    #[error("`{key}` is {found}, but must be {expected}")]
    Value {
        /// The metadata key.
        key: String,
        /// The value in the file.
        found: String,
        /// What would be right.
        expected: String,
    },
    /// A tensor that the architecture needs is not in the file.
    #[error("the tensor `{name}` is missing")]
    MissingTensor {
        /// The tensor's name.
        name: String,
    },
    /// A tensor has another shape than the metadata say.
    #[error("the tensor `{name}` has the shape {found}, but the metadata ask for {expected}")]
    Shape {
        /// The tensor's name.
        name: String,
        /// The shape in the file, row length first.
        found: String,
        /// The shape that the metadata ask for.
        expected: String,
    },
    /// A tensor has a type that its place does not allow.
    #[error("the tensor `{name}` has the type {found}, but must be {expected}")]
    Type {
        /// The tensor's name.
        name: String,
        /// The type in the file.
        found: veritas_quant::GgmlType,
        /// The types that are allowed.
        expected: &'static str,
    },
}

impl Error {
    /// Whether the file may be in order and only this program cannot run it.
    pub fn is_unsupported(&self) -> bool {
        matches!(self, Self::UnknownArchitecture { .. } | Self::Unsupported { .. })
    }
}
