//! What can be wrong with bytes from the other side.
//!
//! Errors end in logs, so none holds bytes of a body: what they say of one is a constant text.

use thiserror::Error;

use crate::Kind;

/// Why bytes are not a frame, or a body is not the message that its kind says.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Error {
    /// The first four bytes are not those of a frame.
    #[error("the bytes are not a frame: they do not begin with \"VSDR\"{}", http_hint(*is_http))]
    Magic {
        /// Whether they begin as a request of HTTP does. They are not shown: where a length before them was wrong, they
        /// are part of a body.
        is_http: bool,
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
    /// A frame of another kind was expected.
    #[error("a frame {found} came, whose body is not {expected}")]
    Unexpected {
        /// The kind that came.
        found: Kind,
        /// The name of the message that was expected.
        expected: &'static str,
    },
    /// The body is not the message that its kind says.
    #[error("the body of {kind} is malformed: {at} {reason}")]
    Body {
        /// The kind.
        kind: Kind,
        /// The message, or the field of it, where the fault is.
        at: &'static str,
        /// What is wrong there.
        reason: &'static str,
    },
    /// The body of a request has a field that would be ignored.
    #[error("the body of {kind} has a field of {at} that is not known here")]
    UnknownField {
        /// The kind.
        kind: Kind,
        /// The message that has the field.
        at: &'static str,
    },
    /// The body would take too much memory, as only a body of very many empty parts does.
    #[error("the body of {kind} would take more than the {limit} bytes of memory that its length allows")]
    TooMuchMemory {
        /// The kind.
        kind: Kind,
        /// Bytes that are allowed.
        limit: u64,
    },
    /// The bytes end within a frame.
    #[error("the connection ended within a frame, after {found} of its bytes")]
    Truncated {
        /// Bytes of the frame that came.
        found: usize,
    },
}

fn http_hint(is_http: bool) -> &'static str {
    if is_http { "; this looks like HTTP, which is not spoken here" } else { "" }
}
