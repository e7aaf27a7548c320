//! Systems without a sandbox and without the sockets that a worker is given: nothing can be started there yet.

use crate::no_sandbox::unsupported;
use crate::{Error, Exit, Inherited, Limits, Policy, Report, Socket, SpawnFacts, SpawnSpec};

pub(crate) use crate::no_sandbox::HAS_SANDBOX;
pub use crate::no_sandbox::{give_way, network_refused, probes, refuse_network};

/// Starts a worker.
///
/// # Errors
/// [`Error::Unsupported`], on this platform.
pub fn spawn(_spec: SpawnSpec<'_>) -> Result<Worker, Error> {
    Err(unsupported())
}

/// A worker's process, as its supervisor holds it. None exists on this platform.
#[derive(Debug)]
pub struct Worker {
    never: std::convert::Infallible,
}

impl Worker {
    /// The process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        match self.never {}
    }

    /// The supervisor's end of the connection, once.
    pub fn take_socket(&mut self) -> Option<Socket> {
        match self.never {}
    }

    /// What the supervisor did before the worker ran.
    #[must_use]
    pub fn facts(&self) -> &SpawnFacts {
        match self.never {}
    }

    /// Ends the worker at once.
    pub fn kill(&self) {
        match self.never {}
    }

    /// How the worker ended, or `None` while it runs.
    ///
    /// # Errors
    /// None, on this platform.
    pub fn try_wait(&mut self) -> Result<Option<Exit>, Error> {
        match self.never {}
    }

    /// Waits for the worker's end.
    ///
    /// # Errors
    /// None, on this platform.
    pub fn wait(&mut self) -> Result<Exit, Error> {
        match self.never {}
    }
}

/// Takes what this worker was given.
///
/// # Errors
/// [`Error::Unsupported`], on this platform.
pub fn inherited(_n_files: usize) -> Result<Inherited, Error> {
    Err(unsupported())
}

/// Confines this process for good.
///
/// # Errors
/// [`Error::Unsupported`], on this platform; `start_threads` is not called.
pub fn confine<T, E, F>(
    _policy: &Policy,
    _limits: &Limits,
    _before: &SpawnFacts,
    _start_threads: F,
) -> Result<(T, Report), Error>
where
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
    F: FnOnce() -> Result<T, E>,
{
    Err(unsupported())
}

/// Reads from the connection to a supervisor: there is none on this platform.
///
/// # Errors
/// [`std::io::ErrorKind::Unsupported`].
pub fn receive(_socket: &Socket, _buffer: &mut [u8]) -> std::io::Result<usize> {
    Err(std::io::ErrorKind::Unsupported.into())
}
