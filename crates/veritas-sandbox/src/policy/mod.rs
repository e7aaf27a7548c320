//! The policy: what a worker may do, and which layers it may not be without.
//!
//! It is data. The default is `policy/default.toml`, embedded; a user's file is laid over it. Reading the text, with
//! errors that name the line, is [`file`]'s business; here are the values.

mod file;
mod size;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

pub use size::Size;

use crate::syscalls::Arch;
use crate::{Error, Layer};

/// The text of the default policy.
const DEFAULT: &str = include_str!("../../policy/default.toml");

/// What a worker may do, and which layers it may not be without.
///
/// It can be sent to a worker in any form that serde knows. What is deserialised is trusted as far as its sender is:
/// names that nobody knows come to light when the filter is built.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    required: BTreeSet<Layer>,
    off: BTreeSet<Layer>,
    /// Resource limits.
    pub rlimits: Rlimits,
    /// Limits of the worker's control group.
    pub cgroup: CgroupLimits,
    /// System calls.
    pub seccomp: Seccomp,
    probes: BTreeMap<String, String>,
}

/// Resource limits of a worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rlimits {
    /// Memory that is mapped privately and writable.
    pub data_bytes: Size,
    /// The size to which a file may grow.
    pub file_bytes: u64,
    /// The stack of the first thread.
    pub stack_bytes: u64,
    /// Memory that may be locked.
    pub locked_bytes: u64,
    /// Open descriptors.
    pub descriptors: u64,
}

/// Limits of the worker's control group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CgroupLimits {
    /// `memory.max`.
    pub memory_bytes: Size,
    /// `pids.max`.
    pub processes: u64,
    /// `cpu.max` in thousandths of a processor; `None` is unlimited.
    pub cpus_milli: Option<u64>,
}

/// Which system calls are allowed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Seccomp {
    /// The name of the error number that everything answers which is not allowed.
    pub refused: String,
    /// Calls that are refused with another answer.
    pub refuse: Vec<Refusal>,
    /// Groups of calls that are allowed.
    pub allow: Vec<Group>,
}

/// Calls that are refused with an answer of their own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Refusal {
    /// The reason, for people.
    pub why: String,
    /// Names of system calls.
    pub calls: Vec<String>,
    /// The name of the error number that they answer.
    pub errno: String,
}

/// Calls that are allowed, for one reason and under the same conditions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// The reason, for people.
    pub why: String,
    /// Names of system calls.
    pub calls: Vec<String>,
    /// The only architecture that the group is for; `None` is both.
    pub only: Option<String>,
    /// Conditions that all must hold; none means always.
    pub when: Vec<Condition>,
}

/// A condition on one argument of a system call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Condition {
    /// Which argument, from 0.
    pub arg: u8,
    /// How many of its lower bits are looked at: 32 or 64.
    pub bits: u8,
    /// What must hold of it.
    pub test: Test,
}

/// What must hold of an argument.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Test {
    /// It is one of these values.
    Is(Vec<Operand>),
    /// All bits of these values are set.
    With(Vec<Operand>),
    /// No bit of these values is set.
    Without(Vec<Operand>),
}

/// A value in a condition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Operand {
    /// The name of a constant, or `SELF`: the worker's own process id.
    Name(String),
    /// A number.
    Number(u64),
}

impl Operand {
    /// Its value in a process with the id `own_pid`; `None` where nobody knows the name.
    #[must_use]
    pub fn value(&self, own_pid: u32) -> Option<u64> {
        match self {
            Self::Number(number) => Some(*number),
            Self::Name(name) if name == "SELF" => Some(u64::from(own_pid)),
            Self::Name(name) => crate::constants::argument(name),
        }
    }
}

impl Default for Policy {
    /// The policy of `policy/default.toml`: namespaces, Landlock and control group where the kernel allows.
    fn default() -> Self {
        file::parse_whole(DEFAULT).expect("the embedded policy is complete and correct; a test reads it")
    }
}

impl Policy {
    /// The default policy with every layer required.
    #[must_use]
    pub fn strict() -> Self {
        let mut policy = Self::default();
        policy.require(Layer::ALL);
        policy
    }

    /// The default policy with what `text`, a policy file in TOML, says instead.
    ///
    /// # Errors
    /// [`Error::Policy`] with the line, for text that is not TOML, for keys, names and values that are not known, and
    /// for what contradicts itself.
    pub fn parse(text: &str) -> Result<Self, Error> {
        file::parse_over(Self::default(), text)
    }

    /// The text of the default policy, as an example for a file of one's own.
    #[must_use]
    pub const fn default_text() -> &'static str {
        DEFAULT
    }

    /// Requires more layers.
    pub fn require(&mut self, layers: impl IntoIterator<Item = Layer>) {
        for layer in layers {
            self.off.remove(&layer);
            self.required.insert(layer);
        }
    }

    /// The layers without which a worker does not start, in their order; [`Layer::ALWAYS_REQUIRED`] are among them.
    pub fn required(&self) -> impl Iterator<Item = Layer> {
        Layer::ALL.into_iter().filter(|layer| self.requires(*layer))
    }

    /// Whether a worker does not start without the layer.
    #[must_use]
    pub fn requires(&self, layer: Layer) -> bool {
        Layer::ALWAYS_REQUIRED.contains(&layer) || self.required.contains(&layer)
    }

    /// Whether the layer is not even tried.
    #[must_use]
    pub fn is_off(&self, layer: Layer) -> bool {
        self.off.contains(&layer) && !self.requires(layer)
    }

    /// The error that a probe must see; `None` where the policy has no such probe.
    #[must_use]
    pub fn expected(&self, probe: &str) -> Option<&str> {
        self.probes.get(probe).map(String::as_str)
    }

    /// The groups that hold on `arch`.
    pub fn groups(&self, arch: Arch) -> impl Iterator<Item = &Group> {
        self.seccomp
            .allow
            .iter()
            .filter(move |group| group.only.as_deref().is_none_or(|only| only == arch.name()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::PROBES;

    #[test]
    fn the_default_policy_is_complete_and_requires_the_six_layers() {
        let policy = Policy::default();
        assert_eq!(policy.required().collect::<Vec<_>>(), Layer::ALWAYS_REQUIRED);
        assert_eq!(policy.rlimits.file_bytes, 0);
        assert_eq!(policy.rlimits.data_bytes, Size::Auto);
        assert!(policy.seccomp.allow.len() > 20);
    }

    #[test]
    fn the_strict_policy_requires_every_layer() {
        assert_eq!(Policy::strict().required().collect::<Vec<_>>(), Layer::ALL);
    }

    #[test]
    fn every_probe_has_an_expectation_in_the_default_policy_and_every_expectation_a_probe() {
        let policy = Policy::default();
        let expected = policy.probes.keys().map(String::as_str).collect::<BTreeSet<_>>();
        assert_eq!(expected, PROBES.into_iter().collect());
    }

    #[test]
    fn a_policy_survives_being_sent_to_a_worker() {
        let mut policy = Policy::parse("[cgroup]\ncpus = 2.5\nmemory_bytes = \"3GiB\"\n").unwrap();
        policy.require([Layer::Landlock]);
        let text = serde_json::to_string(&policy).unwrap();
        assert_eq!(serde_json::from_str::<Policy>(&text).unwrap(), policy);
    }

    #[test]
    fn requiring_a_layer_that_was_off_switches_it_on() {
        let mut policy = Policy::parse("[layers]\noff = [\"landlock\"]\n").unwrap();
        assert!(policy.is_off(Layer::Landlock));
        policy.require([Layer::Landlock]);
        assert!(!policy.is_off(Layer::Landlock) && policy.requires(Layer::Landlock));
    }

    #[test]
    fn a_deserialised_policy_cannot_do_without_the_six_layers() {
        let mut value = serde_json::to_value(Policy::default()).unwrap();
        value["required"] = serde_json::json!([]);
        value["off"] = serde_json::json!(["seccomp"]);
        let policy = serde_json::from_value::<Policy>(value).unwrap();
        assert!(policy.requires(Layer::Seccomp) && !policy.is_off(Layer::Seccomp));
    }
}
