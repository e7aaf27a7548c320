//! Names of error numbers and of arguments of system calls that a policy may use, with their values on Linux. They are
//! the same on x86-64 and AArch64, and stand here so that a policy can be checked on any system.

/// Error numbers, by name.
const ERRNOS: [(&str, i32); 34] = [
    ("EPERM", 1),
    ("ENOENT", 2),
    ("ESRCH", 3),
    ("EINTR", 4),
    ("EIO", 5),
    ("ENXIO", 6),
    ("E2BIG", 7),
    ("ENOEXEC", 8),
    ("EBADF", 9),
    ("ECHILD", 10),
    ("EAGAIN", 11),
    ("ENOMEM", 12),
    ("EACCES", 13),
    ("EFAULT", 14),
    ("EBUSY", 16),
    ("EEXIST", 17),
    ("EXDEV", 18),
    ("ENODEV", 19),
    ("ENOTDIR", 20),
    ("EISDIR", 21),
    ("EINVAL", 22),
    ("ENFILE", 23),
    ("EMFILE", 24),
    ("ENOTTY", 25),
    ("EFBIG", 27),
    ("ENOSPC", 28),
    ("EROFS", 30),
    ("EPIPE", 32),
    ("ENOSYS", 38),
    ("EPROTONOSUPPORT", 93),
    ("EOPNOTSUPP", 95),
    ("EAFNOSUPPORT", 97),
    ("ENETUNREACH", 101),
    ("ECONNREFUSED", 111),
];

/// Arguments, by name.
const ARGUMENTS: [(&str, u64); 45] = [
    ("AT_EMPTY_PATH", 0x1000),
    ("F_DUPFD_CLOEXEC", 1030),
    ("F_GETFD", 1),
    ("F_GETFL", 3),
    ("F_GET_SEALS", 1034),
    ("F_SETFD", 2),
    ("F_SETFL", 4),
    ("MADV_COLD", 20),
    ("MADV_COLLAPSE", 25),
    ("MADV_DONTDUMP", 16),
    ("MADV_DONTNEED", 4),
    ("MADV_FREE", 8),
    ("MADV_GUARD_INSTALL", 102),
    ("MADV_GUARD_REMOVE", 103),
    ("MADV_HUGEPAGE", 14),
    ("MADV_NOHUGEPAGE", 15),
    ("MADV_NORMAL", 0),
    ("MADV_PAGEOUT", 21),
    ("MADV_POPULATE_READ", 22),
    ("MADV_POPULATE_WRITE", 23),
    ("MADV_RANDOM", 1),
    ("MADV_SEQUENTIAL", 2),
    ("MADV_WILLNEED", 3),
    ("MADV_WIPEONFORK", 18),
    ("MAP_ANONYMOUS", 0x20),
    ("MAP_GROWSDOWN", 0x100),
    ("MAP_PRIVATE", 2),
    ("MAP_SHARED", 1),
    ("O_NONBLOCK", 0o4000),
    ("PROT_EXEC", 4),
    ("PROT_READ", 1),
    ("PROT_WRITE", 2),
    ("PR_GET_DUMPABLE", 3),
    ("PR_GET_NAME", 16),
    ("PR_GET_NO_NEW_PRIVS", 39),
    ("PR_GET_PDEATHSIG", 2),
    ("PR_GET_SECCOMP", 21),
    ("PR_SET_NAME", 15),
    ("SHUT_RD", 0),
    ("SHUT_RDWR", 2),
    ("SHUT_WR", 1),
    ("SIGABRT", 6),
    ("SIGBUS", 7),
    ("SIGSEGV", 11),
    ("SOL_SOCKET", 1),
];

/// The error number of a name.
pub(crate) fn errno(name: &str) -> Option<i32> {
    ERRNOS.iter().find(|(other, _)| *other == name).map(|(_, value)| *value)
}

/// The name of an error number, or the number where it has none here.
pub(crate) fn errno_name(errno: i32) -> String {
    let found = ERRNOS.iter().find(|(_, value)| *value == errno);
    found.map_or_else(|| format!("errno {errno}"), |(name, _)| (*name).to_owned())
}

/// The value of the argument of a name.
pub(crate) fn argument(name: &str) -> Option<u64> {
    ARGUMENTS.iter().find(|(other, _)| *other == name).map(|(_, value)| *value)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn names_have_the_values_of_the_platforms_own_headers() {
        macro_rules! same {
            ($of:ident: $($name:ident)*) => { $(
                assert_eq!($of(stringify!($name)).unwrap() as i64, i64::from(libc::$name), stringify!($name));
            )* };
        }
        same!(errno: EPERM ENOMEM EACCES EMFILE EFBIG ENOSYS EAFNOSUPPORT ENETUNREACH ECONNREFUSED EPROTONOSUPPORT);
        same!(argument: AT_EMPTY_PATH F_DUPFD_CLOEXEC F_GETFD F_GETFL F_SETFD F_SETFL F_GET_SEALS);
        same!(argument: MADV_COLD MADV_COLLAPSE MADV_DONTDUMP MADV_DONTNEED MADV_FREE MADV_HUGEPAGE MADV_NOHUGEPAGE);
        same!(argument: MADV_NORMAL MADV_PAGEOUT MADV_POPULATE_READ MADV_POPULATE_WRITE MADV_RANDOM MADV_SEQUENTIAL);
        same!(argument: MADV_WILLNEED MADV_WIPEONFORK MAP_ANONYMOUS MAP_GROWSDOWN MAP_PRIVATE MAP_SHARED O_NONBLOCK);
        same!(argument: PROT_EXEC PROT_READ PROT_WRITE PR_GET_DUMPABLE PR_GET_NAME PR_GET_NO_NEW_PRIVS PR_GET_SECCOMP);
        same!(argument: PR_SET_NAME PR_GET_PDEATHSIG SHUT_RD SHUT_WR SHUT_RDWR SIGABRT SIGBUS SIGSEGV SOL_SOCKET);
    }

    #[test]
    fn an_errno_without_a_name_is_shown_as_its_number() {
        assert_eq!(errno_name(1), "EPERM");
        assert_eq!(errno_name(133), "errno 133");
    }
}
