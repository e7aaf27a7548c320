//! The bounds of the wire, each with its reason.

/// Bytes of a body that a daemon accepts unless it is configured otherwise: a prompt of some 200 000 words.
pub const BODY_BYTES_DEFAULT: u32 = 1 << 20;

/// The most that can be configured: beyond any context that a CPU computes in a day.
pub const BODY_BYTES_MAX: u32 = 64 << 20;

/// Bytes of the body of a frame before the handshake is done: a token and a name, nothing that costs memory.
pub const HANDSHAKE_BODY_BYTES_MAX: u32 = 16 << 10;

/// Bytes of memory that a message may take for each byte of its body. A list of texts of two letters takes seven, and all
/// that is sent in earnest takes less; an empty text takes twelve, an empty message in a list up to a hundred and more.
pub const DECODED_BYTES_PER_BYTE: u64 = 8;

/// Bytes of memory that a message may take besides, so that short lists of short things are never refused.
pub const DECODED_BYTES_FREE: u64 = 1 << 20;

/// Milliseconds from the connection to the end of the handshake: a client that is slower is not one.
pub const HANDSHAKE_MS_MAX: u64 = 5_000;

/// Milliseconds that a request waits for credit before it ends with `TIMEOUT`: its memory is not kept for a client that
/// has stopped to read.
pub const CREDIT_WAIT_MS_MAX: u64 = 30_000;

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
