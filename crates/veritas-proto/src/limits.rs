//! The bounds of the wire, each with its reason.

/// Bytes of a body that a daemon accepts unless it is configured otherwise: a prompt of some 200 000 words.
pub const BODY_BYTES_DEFAULT: u32 = 1 << 20;

/// The most that can be configured: beyond any context that a CPU computes in a day.
pub const BODY_BYTES_MAX: u32 = 64 << 20;

/// Bytes of the body of a frame before the handshake is done: a token and a name, nothing that costs memory.
pub const HANDSHAKE_BODY_BYTES_MAX: u32 = 16 << 10;

/// Bytes of a token: longer secrets are no better ones.
pub const TOKEN_BYTES_MAX: usize = 4096;

/// Bytes of a client's name: it stands in logs.
pub const CLIENT_NAME_BYTES_MAX: usize = 64;

/// Requests that a connection may have open at once: enough for a pool of workers behind one socket.
pub const REQUESTS_PER_SESSION_MAX: u32 = 256;

/// Delta frames that may be sent before a client gives more credit: some seconds of text.
pub const CREDIT_DEFAULT: u32 = 64;

/// Credit that a request may have at most: more would only move the queue into the socket.
pub const CREDIT_MAX: u32 = 65_536;
