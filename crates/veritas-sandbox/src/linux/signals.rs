//! What signals do in a worker.
//!
//! A worker with namespaces is process 1 of its own. The kernel ignores signals to such a process that it has no
//! handler for, even those that it sends itself, so that `abort` would end in the wrong signal. A fault (SIGSEGV,
//! SIGBUS, SIGILL) is forced by the kernel and ends it all the same.

use crate::Error;

/// The exit code that stands for SIGABRT of a process 1; it is what a shell shows for that signal. No other use of the
/// code is known to `Worker`.
pub(super) const ABORTED: i32 = 128 + libc::SIGABRT;

/// Lets `abort` end a process 1, and turns a write beyond the limit of a file's size into an error.
pub(super) fn prepare() -> Result<(), Error> {
    set(libc::SIGXFSZ, libc::SIG_IGN)?;
    if std::process::id() == 1 {
        let handler: extern "C" fn(libc::c_int) = aborted;
        set(libc::SIGABRT, handler as libc::sighandler_t)?;
    }
    Ok(())
}

extern "C" fn aborted(_signal: libc::c_int) {
    // SAFETY: _exit may be called in a handler, and does not return.
    unsafe { libc::_exit(ABORTED) }
}

fn set(signal: libc::c_int, handler: libc::sighandler_t) -> Result<(), Error> {
    // SAFETY: all-zero bytes are a sigaction: no flags, an empty mask.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handler;
    // SAFETY: the handler is SIG_IGN or a function of the right type that only calls _exit.
    if unsafe { libc::sigaction(signal, &raw const action, std::ptr::null_mut()) } != 0 {
        return Err(Error::Signals { source: std::io::Error::last_os_error() });
    }
    Ok(())
}
