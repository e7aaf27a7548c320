//! What can be wrong with bytes from the other side.

use thiserror::Error;

use crate::Kind;

/// Why bytes are not a frame, or a body is not the message that its kind says.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Error {
    /// The first four bytes are not those of a frame.
    #[error("the bytes do not begin with a frame: the magic is {found:02x?}, not \"VSDR\"")]
    Magic {
        /// The four bytes.
        found: [u8; 4],
    },
    /// Another version of the protocol.
    #[error("version {found} of the protocol is not spoken here, only version {expected}")]
    Version {
        /// What the header says.
        found: u16,
        /// What this crate speaks.
        expected: u16,
    },
    /// Bits that must be zero are not.
    #[error("the reserved flags are {found:#x}, but must be zero")]
    Flags {
        /// What the header says.
        found: u32,
    },
    /// The kind of the frame is not known.
    #[error("a frame of kind {found} is not known")]
    UnknownKind {
        /// The number.
        found: u16,
    },
    /// The body is longer than is accepted.
    #[error("a body of {found} bytes is longer than the {limit} that are accepted")]
    BodyTooLong {
        /// Bytes that the header announces.
        found: u32,
        /// Bytes that are accepted.
        limit: u32,
    },
    /// The body is not the message that its kind says.
    #[error("the body of {kind} is malformed: {reason}")]
    Body {
        /// The kind.
        kind: Kind,
        /// What the decoder says.
        reason: String,
    },
    /// The bytes end within a frame.
    #[error("the connection ended within a frame, after {found} of its bytes")]
    Truncated {
        /// Bytes of the frame that came.
        found: usize,
    },
}
