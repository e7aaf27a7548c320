//! No process of the binary can make a socket that reaches a network.

use std::collections::BTreeMap;

use seccompiler::{SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompRule};

use super::{ARCH, filter};
use crate::Error;
use crate::syscalls::{self, Arch};

/// Refuses, for this process and all that it will start, every socket but those of AF_UNIX.
///
/// `socket` and `socketpair` of another family answer `EAFNOSUPPORT`, which is what a kernel without that family
/// answers, so that libraries take it for what it is. `io_uring_setup` answers `ENOSYS`, because a ring makes sockets
/// without these calls. Calls of the x32 ABI answer `ENOSYS`, and 32-bit code is killed. It sets `no_new_privs`, holds
/// for all threads, and cannot be undone.
///
/// Call it first in `main`.
///
/// # Errors
/// [`Error::BuildFilter`], [`Error::InstallFilter`].
pub fn refuse_network() -> Result<(), Error> {
    filter::install(&program(ARCH)?)
}

pub(super) fn program(arch: Arch) -> Result<seccompiler::BpfProgram, Error> {
    let build_error = |error: seccompiler::BackendError| Error::BuildFilter { reason: error.to_string() };
    let number = |name: &str| {
        let reason = format!("{} has no {name}", arch.name());
        syscalls::number(name, arch).ok_or(Error::BuildFilter { reason })
    };
    let mut rules = BTreeMap::new();
    for call in ["socket", "socketpair"] {
        // The family is an int, of which the kernel reads the lower half.
        let is_foreign =
            SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, libc::AF_UNIX as u64)
                .map_err(build_error)?;
        let rule = SeccompRule::new(vec![is_foreign]).map_err(build_error)?;
        rules.insert(i64::from(number(call)?), vec![rule]);
    }
    let answers = [(number("io_uring_setup")?, libc::ENOSYS as u32)];
    filter::refusing(rules, libc::EAFNOSUPPORT as u32, arch, &answers)
}

/// Whether a socket that could reach a network is refused. It tries, for both versions of the internet protocol.
#[must_use]
pub fn network_refused() -> bool {
    [libc::AF_INET, libc::AF_INET6].into_iter().all(|family| {
        // SAFETY: no pointer is passed; a descriptor that comes back is closed at once and nobody else knows it.
        let fd = unsafe { libc::socket(family, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) };
        if fd >= 0 {
            // SAFETY: as above.
            unsafe { libc::close(fd) };
            return false;
        }
        let errno = std::io::Error::last_os_error().raw_os_error();
        // The first is ours, the second a worker's, where the policy says so; others say that nothing was decided.
        matches!(errno, Some(libc::EAFNOSUPPORT | libc::EPERM | libc::EACCES | libc::ENOSYS))
    })
}
