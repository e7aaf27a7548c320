//! What every system without a sandbox answers, whether or not a worker can be started there.

use crate::{Error, Policy, Probe, ProbeContext};

/// Whether a worker can be confined here.
pub(crate) const HAS_SANDBOX: bool = false;

/// The error of what would confine.
pub(crate) fn unsupported() -> Error {
    Error::Unsupported { platform: format!("{} on {}", std::env::consts::OS, std::env::consts::ARCH) }
}

/// Refuses sockets that could reach a network, for this process and all that it starts.
///
/// # Errors
/// [`Error::Unsupported`], on this platform.
pub fn refuse_network() -> Result<(), Error> {
    Err(unsupported())
}

/// Whether a socket that could reach a network is refused: not on this platform.
#[must_use]
pub fn network_refused() -> bool {
    false
}

/// Tries to break out: there is nothing to try on this platform.
#[must_use]
pub fn probes(_policy: &Policy, _context: &ProbeContext) -> Vec<Probe> {
    Vec::new()
}

/// Lets other threads go first: not on this platform.
///
/// # Errors
/// [`std::io::ErrorKind::Unsupported`].
pub fn give_way() -> std::io::Result<()> {
    Err(std::io::ErrorKind::Unsupported.into())
}
