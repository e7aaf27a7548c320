//! No descriptor is open but those that the supervisor gave.

use std::os::fd::BorrowedFd;

use rustix::fs::{FileType, fstat, major, minor};

use super::SOCKET_FD;
use super::inherited::n_inherited_files;
use crate::Error;

/// Numbers that the second look tries one by one. The first look, at `/proc`, has no such bound.
const SCANNED: i32 = 1024;

/// The first number that is not the worker's.
fn first_foreign() -> u32 {
    // At most FILES_MAX files.
    SOCKET_FD as u32 + 1 + n_inherited_files() as u32
}

/// Closes every descriptor that the supervisor did not give.
pub(super) fn close_foreign() -> Result<(), Error> {
    // SAFETY: numbers alone are passed. What is closed is owned by nobody: the process has one thread and has just
    // begun, and what `inherited` handed out lies below.
    let answer = unsafe { libc::syscall(libc::SYS_close_range, first_foreign(), u32::MAX, 0) };
    if answer != 0 {
        return Err(Error::CloseDescriptors { source: std::io::Error::last_os_error() });
    }
    Ok(())
}

/// Looks into `/proc/self/fd`, where it can be seen: while the root folder is still the machine's.
pub(super) fn observe_in_proc() -> Result<(), String> {
    let Ok(entries) = std::fs::read_dir("/proc/self/fd") else { return Ok(()) };
    let open = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    // The look itself has one descriptor open, which takes the lowest free number.
    let foreign = open.filter(|fd| *fd > first_foreign()).collect::<Vec<_>>();
    if !foreign.is_empty() {
        return Err(format!("the descriptors {foreign:?} are open"));
    }
    Ok(())
}

/// Tries the numbers after the worker's own, and looks at what its first three are.
pub(super) fn observe() -> Result<(), String> {
    // At most FILES_MAX + 4.
    for fd in first_foreign() as i32..SCANNED {
        // SAFETY: the number need not be open: the call says so.
        if unsafe { libc::fcntl(fd, libc::F_GETFD) } >= 0 {
            return Err(format!("the descriptor {fd} is open"));
        }
    }
    for fd in 0..SOCKET_FD {
        // SAFETY: standard input, output and error; where one is closed, fstat says so.
        let standard = unsafe { BorrowedFd::borrow_raw(fd) };
        let found = fstat(standard).map_err(|error| format!("descriptor {fd}: {error}"))?;
        let is_null = FileType::from_raw_mode(found.st_mode) == FileType::CharacterDevice
            && (major(found.st_rdev), minor(found.st_rdev)) == (1, 3);
        if !is_null {
            return Err(format!("descriptor {fd} is not /dev/null"));
        }
    }
    Ok(())
}
