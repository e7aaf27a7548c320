//! The layers of the sandbox, and the state that each is in.

use std::fmt;

use serde::{Deserialize, Serialize};

/// One layer of the sandbox. The order is that of the reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Layer {
    /// No program that is executed can raise its privileges.
    NoNewPrivs,
    /// All sets of capabilities are empty.
    NoCapabilities,
    /// System calls that are not on the allow-list are refused, for every thread.
    Seccomp,
    /// Memory, descriptors and sizes of files are limited.
    Rlimits,
    /// No descriptor is open but those that the supervisor gave.
    ClosedFds,
    /// The memory of the worker is never written to a file, and cannot be read by other processes of its user.
    NoCoreDump,
    /// User, mount, net, pid, ipc and uts namespaces of its own, with an empty root folder.
    Namespaces,
    /// No path may be opened, no TCP port bound or connected, by a rule of the kernel's besides seccomp.
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

    /// Layers that every kernel we run on has, so that every policy requires them.
    pub const ALWAYS_REQUIRED: [Self; 6] = [
        Self::NoNewPrivs,
        Self::NoCapabilities,
        Self::Seccomp,
        Self::Rlimits,
        Self::ClosedFds,
        Self::NoCoreDump,
    ];

    /// The name in reports, policies and metrics.
    #[must_use]
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
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|layer| layer.name() == name)
    }
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What became of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It is in force, and the worker has seen that it is.
    Enforced,
    /// The machine does not allow it, and the policy does not require it.
    Unavailable,
    /// It was not asked for.
    Off,
}

impl State {
    /// The name in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Enforced => "enforced",
            Self::Unavailable => "unavailable",
            Self::Off => "off",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_of_layers_and_states_are_those_that_serde_writes() {
        for layer in Layer::ALL {
            assert_eq!(serde_json::to_string(&layer).unwrap(), format!("\"{layer}\""));
            assert_eq!(Layer::from_name(layer.name()), Some(layer));
        }
        for state in [State::Enforced, State::Unavailable, State::Off] {
            assert_eq!(serde_json::to_string(&state).unwrap(), format!("\"{state}\""));
        }
    }

    #[test]
    fn all_lists_the_layers_in_their_order() {
        assert!(Layer::ALL.is_sorted());
    }
}
