//! A worker's process, as its supervisor holds it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::io::Errno;
use rustix::process::{Signal, WaitId, WaitIdOptions, WaitIdStatus, pidfd_send_signal, waitid};

use super::cgroup::Group;
use super::signals::ABORTED;
use crate::{Error, Exit, SpawnFacts};

/// A worker's process, as its supervisor holds it. Dropping it kills the worker, waits for its end and removes its
/// control group.
#[derive(Debug)]
pub struct Worker {
    pub(super) pid: u32,
    pub(super) pidfd: OwnedFd,
    pub(super) socket: Option<UnixStream>,
    pub(super) facts: SpawnFacts,
    pub(super) cgroup: Option<Group>,
    pub(super) exit: Option<Exit>,
}

impl Worker {
    /// The process id as the supervisor's system sees it; inside its namespace the worker is process 1.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// The supervisor's end of the connection, once.
    pub fn take_socket(&mut self) -> Option<UnixStream> {
        self.socket.take()
    }

    /// What the supervisor did before the worker ran. Send it to the worker for [`confine`](crate::confine).
    #[must_use]
    pub fn facts(&self) -> &SpawnFacts {
        &self.facts
    }

    /// A descriptor that becomes readable when the worker ends.
    #[must_use]
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Ends the worker at once. One that has ended already is left alone.
    pub fn kill(&self) {
        if self.exit.is_none() {
            // The only failure is that the process has ended.
            let _ = pidfd_send_signal(&self.pidfd, Signal::KILL);
        }
    }

    /// How the worker ended, or `None` while it runs.
    ///
    /// # Errors
    /// [`Error::Wait`], where something else in this process waits for all children.
    pub fn try_wait(&mut self) -> Result<Option<Exit>, Error> {
        self.wait_with(WaitIdOptions::EXITED | WaitIdOptions::NOHANG)
    }

    /// Waits for the worker's end.
    ///
    /// # Errors
    /// As [`Worker::try_wait`].
    pub fn wait(&mut self) -> Result<Exit, Error> {
        loop {
            if let Some(exit) = self.wait_with(WaitIdOptions::EXITED)? {
                return Ok(exit);
            }
        }
    }

    fn wait_with(&mut self, options: WaitIdOptions) -> Result<Option<Exit>, Error> {
        if self.exit.is_some() {
            return Ok(self.exit);
        }
        let status = loop {
            match waitid(WaitId::PidFd(self.pidfd.as_fd()), options) {
                Err(Errno::INTR) => {}
                Err(source) => return Err(Error::Wait { source: source.into() }),
                Ok(status) => break status,
            }
        };
        let Some(status) = status else { return Ok(None) };
        self.exit = Some(self.exit_of(&status));
        if let Some(group) = self.cgroup.take() {
            group.remove();
        }
        Ok(self.exit)
    }

    fn exit_of(&self, status: &WaitIdStatus) -> Exit {
        if let Some(signal) = status.terminating_signal() {
            return Exit::Signal(signal);
        }
        let code = status.exit_status().unwrap_or_default();
        let is_process_1 = self.facts.namespaces_missing.is_none();
        if is_process_1 && code == ABORTED { Exit::Signal(libc::SIGABRT) } else { Exit::Code(code) }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.kill();
        // Where it cannot be waited for, somebody else has done so.
        let _ = self.wait();
        if let Some(group) = self.cgroup.take() {
            group.remove();
        }
    }
}
