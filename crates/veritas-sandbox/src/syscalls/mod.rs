//! Names and numbers of system calls, of both architectures on every machine, so that a policy that is read on one
//! can be checked for the other.

mod data;

use data::SYSCALLS;

/// A processor architecture that the seccomp filter knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arch {
    /// x86-64, in its 64-bit mode; the x32 ABI is a foreign one.
    X86_64,
    /// AArch64, in its 64-bit mode.
    Aarch64,
}

impl Arch {
    /// Both, for checks of a policy.
    pub const ALL: [Self; 2] = [Self::X86_64, Self::Aarch64];

    /// The name that a policy's `only` uses.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Aarch64 => "aarch64",
        }
    }

    /// The architecture that a policy's `only` names.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|arch| arch.name() == name)
    }
}

/// The number of the system call `name` on `arch`, or `None` where that architecture, or Linux, has none of the name.
#[must_use]
pub fn number(name: &str, arch: Arch) -> Option<u32> {
    let index = SYSCALLS.binary_search_by(|(other, ..)| (*other).cmp(name)).ok()?;
    let (_, x86_64, aarch64) = SYSCALLS[index];
    match arch {
        Arch::X86_64 => x86_64,
        Arch::Aarch64 => aarch64,
    }
}

/// Whether any architecture has a system call of the name.
pub(crate) fn is_known(name: &str) -> bool {
    Arch::ALL.into_iter().any(|arch| number(name, arch).is_some())
}

/// Names with their numbers on `arch`, for tests that walk through all of them.
#[cfg(test)]
pub(crate) fn all(arch: Arch) -> impl Iterator<Item = (&'static str, u32)> {
    SYSCALLS.iter().filter_map(move |(name, ..)| Some((*name, number(name, arch)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_so_that_every_name_is_found() {
        assert!(SYSCALLS.is_sorted_by(|a, b| a.0 < b.0));
        for (name, ..) in SYSCALLS {
            assert!(is_known(name), "{name}");
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_numbers_are_those_of_the_platforms_own_headers() {
        let here = if cfg!(target_arch = "x86_64") { Arch::X86_64 } else { Arch::Aarch64 };
        let expected = [
            ("read", libc::SYS_read),
            ("clone3", libc::SYS_clone3),
            ("socket", libc::SYS_socket),
            ("prlimit64", libc::SYS_prlimit64),
            ("io_uring_setup", libc::SYS_io_uring_setup),
            ("tgkill", libc::SYS_tgkill),
        ];
        for (name, value) in expected {
            assert_eq!(number(name, here).map(i64::from), Some(value), "{name}");
        }
    }

    #[test]
    fn a_call_of_one_architecture_is_none_on_the_other() {
        assert_eq!(number("fork", Arch::X86_64), Some(57));
        assert_eq!(number("fork", Arch::Aarch64), None);
        assert!(is_known("fork"));
        assert!(!is_known("frok"));
    }
}
