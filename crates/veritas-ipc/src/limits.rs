//! The bounds of this crate, each with its reason. Those of the wire itself stand in [`veritas_proto::limits`].

use std::time::Duration;

/// Bytes of a socket's path: `sun_path` of `sockaddr_un` without the byte that ends it.
#[cfg(not(any(
    target_vendor = "apple",
    target_os = "freebsd",
    target_os = "openbsd",
    target_os = "netbsd"
)))]
pub const SOCKET_PATH_BYTES_MAX: usize = 107;

/// Bytes of a socket's path: `sun_path` of `sockaddr_un` without the byte that ends it.
#[cfg(any(target_vendor = "apple", target_os = "freebsd", target_os = "openbsd", target_os = "netbsd"))]
pub const SOCKET_PATH_BYTES_MAX: usize = 103;

/// Connections that may wait to be accepted: a burst of probes; the kernel lowers it to its own bound.
pub const BACKLOG: i32 = 1024;

/// Bytes that are read at once: many deltas, or the whole of most requests.
pub const READ_BYTES: usize = 32 << 10;

/// Bytes of capacity that a connection keeps for writing once all is sent: enough for what is common.
pub const WRITE_BYTES_KEPT: usize = 64 << 10;

/// How long a client waits for a connection and for an answer, unless it is told otherwise.
pub const TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);

/// How often a call that waits without a bound looks whether it has been cancelled: soon enough for a person.
pub const CANCEL_POLL: Duration = Duration::from_millis(100);

/// The pause before a connection is tried again while the daemon's queue is full.
pub const QUEUE_POLL: Duration = Duration::from_millis(5);

/// The first pause before a client connects again: a daemon that restarts needs about as long.
pub const BACKOFF_FIRST: Duration = Duration::from_millis(20);

/// The longest pause before a client connects again.
pub const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// Connections that are tried for one request before it fails, the first one included: about two seconds of pauses.
pub const ATTEMPTS_MAX: u32 = 8;

/// Bytes of a message to the service manager: a status line is read by a person.
pub const NOTIFY_BYTES_MAX: usize = 4096;

/// Descriptors that a service manager may hand over: there is one socket.
pub const ACTIVATION_FDS_MAX: usize = 1;
