//! What a worker was given.

use std::fs::File;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use rustix::net::{AddressFamily, SocketType, sockopt};

use super::SOCKET_FD;
use crate::limits::FILES_MAX;
use crate::{Error, Inherited};

static IS_TAKEN: AtomicBool = AtomicBool::new(false);
static N_FILES: AtomicUsize = AtomicUsize::new(0);

/// Takes what this worker was given: the connection, descriptor 3, and `n_files` files, descriptors 4 and up.
///
/// Call it first in a worker, before anything else is opened. It can be called once.
///
/// # Errors
/// [`Error::AlreadyTaken`]; [`Error::NotInherited`] where a descriptor is not what it should be: the process was not
/// started by [`spawn`](crate::spawn); [`Error::TooManyDescriptors`].
pub fn inherited(n_files: usize) -> Result<Inherited, Error> {
    if n_files > FILES_MAX {
        return Err(Error::TooManyDescriptors { count: n_files, max: FILES_MAX });
    }
    // SAFETY: the number is only looked at; where it is not open, the calls say so.
    let socket = unsafe { BorrowedFd::borrow_raw(SOCKET_FD) };
    let is_unix = sockopt::socket_domain(socket) == Ok(AddressFamily::UNIX);
    if !is_unix || sockopt::socket_type(socket) != Ok(SocketType::STREAM) {
        return Err(Error::NotInherited { fd: SOCKET_FD, expected: "a stream socket of AF_UNIX" });
    }
    // At most FILES_MAX.
    let numbers = SOCKET_FD + 1..SOCKET_FD + 1 + n_files as i32;
    for fd in numbers.clone() {
        // SAFETY: as above.
        if unsafe { libc::fcntl(fd, libc::F_GETFD) } < 0 {
            return Err(Error::NotInherited { fd, expected: "open" });
        }
    }
    if IS_TAKEN.swap(true, Ordering::SeqCst) {
        return Err(Error::AlreadyTaken);
    }
    N_FILES.store(n_files, Ordering::SeqCst);
    // SAFETY: the descriptor is open, it was passed to this process for this purpose, and IS_TAKEN makes sure that
    // nobody takes it twice.
    let take = |fd| unsafe { OwnedFd::from_raw_fd(fd) };
    let files = numbers.map(|fd| File::from(take(fd))).collect();
    Ok(Inherited { socket: UnixStream::from(take(SOCKET_FD)), files })
}

/// The number of files that were taken; 0 before.
pub(super) fn n_inherited_files() -> usize {
    N_FILES.load(Ordering::SeqCst)
}

/// Whether what was inherited has been taken.
pub(super) fn is_taken() -> bool {
    IS_TAKEN.load(Ordering::SeqCst)
}
