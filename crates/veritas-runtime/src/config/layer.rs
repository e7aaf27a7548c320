//! The layers of a worker's sandbox, as settings name them.

use std::fmt;

/// One layer of the sandbox. The order is that of the reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Layer {
    /// No program that is executed can raise its privileges.
    NoNewPrivs,
    /// All sets of capabilities are empty.
    NoCapabilities,
    /// System calls that are not on the allow-list are refused.
    Seccomp,
    /// Resources are limited.
    Rlimits,
    /// No descriptor is open but those that the supervisor gave.
    ClosedFds,
    /// Memory is never written to a file.
    NoCoreDump,
    /// Namespaces of its own.
    Namespaces,
    /// No path may be opened, by a rule of the kernel's besides seccomp.
    Landlock,
    /// Memory, threads and processor time are limited by a control group.
    Cgroup,
}

impl Layer {
    /// All layers, in the order of reports.
    pub const ALL: [Self; 9] = [
        Self::NoNewPrivs,
        Self::NoCapabilities,
        Self::Seccomp,
        Self::Rlimits,
        Self::ClosedFds,
        Self::NoCoreDump,
        Self::Namespaces,
        Self::Landlock,
        Self::Cgroup,
    ];

    /// The name in reports, policies and settings.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NoNewPrivs => "no_new_privs",
            Self::NoCapabilities => "no_capabilities",
            Self::Seccomp => "seccomp",
            Self::Rlimits => "rlimits",
            Self::ClosedFds => "closed_fds",
            Self::NoCoreDump => "no_core_dump",
            Self::Namespaces => "namespaces",
            Self::Landlock => "landlock",
            Self::Cgroup => "cgroup",
        }
    }

    /// The layer of a name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|layer| layer.name() == name)
    }
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
