//! A worker never outlives its supervisor.

use std::os::fd::BorrowedFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Signal, set_parent_process_death_signal};

use super::SOCKET_FD;
use crate::Error;

/// Asks the kernel for SIGKILL when the supervisor ends, and makes sure that it has not ended already.
///
/// It comes after the credentials are final, because a change of them cancels it. The signal comes when the *thread*
/// ends that made this process; `spawn` uses one that never does.
pub(super) fn die_with() -> Result<(), Error> {
    set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(|source| Error::ParentDeath { source: source.into() })?;
    // The supervisor may have ended before the line above. Its process id tells nothing inside a namespace, but its
    // end of the connection closes with it.
    // SAFETY: `inherited` found a socket at this number, and the worker keeps it open as long as it lives.
    let socket = unsafe { BorrowedFd::borrow_raw(SOCKET_FD) };
    let mut wanted = [PollFd::new(&socket, PollFlags::empty())];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut wanted, Some(&now)).map_err(|source| Error::ParentDeath { source: source.into() })?;
    let seen = wanted[0].revents();
    if seen.contains(PollFlags::NVAL) {
        return Err(Error::NotInherited { fd: SOCKET_FD, expected: "the connection to the supervisor" });
    }
    if seen.intersects(PollFlags::HUP | PollFlags::ERR) {
        return Err(Error::ParentGone);
    }
    Ok(())
}
