//! The wire between clients, supervisor and workers: frames, messages, limits. Pure: no socket, no clock.
//!
//! A frame is a header of 24 bytes ([`Header`]) and a body, which is a message of [`v1`] in protobuf. `docs/formats/wire.md`
//! has every offset and number.
#![forbid(unsafe_code)]

mod body;
mod error;
mod frame;
mod kind;
pub mod limits;
mod redact;
mod shape;

pub use error::Error;
pub use frame::{Frame, FrameDecoder, Header, encode, encode_body};
pub use kind::Kind;
pub use prost::{Message, Name};

/// The messages, generated from `proto/veritas/v1/veritas.proto`, whose comments document them.
#[allow(missing_docs, clippy::all, clippy::pedantic, unreachable_pub)]
pub mod v1 {
    include!("generated/veritas.v1.rs");
}

/// The version of the protocol that this crate speaks.
pub const VERSION: u16 = 1;
