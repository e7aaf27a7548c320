//! Settings that take one of a few names.

use std::path::PathBuf;

use veritas_kernels::CacheType;
use veritas_simd::Isa;

/// A setting that takes one of a few names.
pub(super) trait Choice {
    /// The names, in the order in which they are offered.
    fn names(&self) -> &'static [&'static str];

    /// The name of the value.
    fn name(&self) -> &'static str;

    /// Takes the value that a name stands for; `false` for a name that is none of [`Choice::names`].
    fn choose(&mut self, name: &str) -> bool;
}

/// An enum of which every value has one name: `choice!(Type: "name" => value, …)`.
macro_rules! choice {
    ($type:ty: $($name:literal => $value:path),+ $(,)?) => {
        impl Choice for $type {
            fn names(&self) -> &'static [&'static str] {
                &[$($name),+]
            }

            fn name(&self) -> &'static str {
                match self {
                    $($value => $name),+
                }
            }

            fn choose(&mut self, name: &str) -> bool {
                *self = match name {
                    $($name => $value,)+
                    _ => return false,
                };
                true
            }
        }
    };
}

/// The mode of the socket's file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SocketMode {
    /// 0600: the daemon's user, and root.
    Owner,
    /// 0660: the socket's group besides.
    Group,
}

impl SocketMode {
    /// The bits, as `chmod` takes them.
    pub const fn bits(self) -> u32 {
        match self {
            Self::Owner => 0o600,
            Self::Group => 0o660,
        }
    }
}

choice!(SocketMode: "0600" => Self::Owner, "0660" => Self::Group);

/// The form of a line of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

choice!(LogFormat: "text" => Self::Text, "json" => Self::Json);

/// How important a message of the log is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// Something failed.
    Error,
    /// Something may be wrong.
    Warn,
    /// What an operator wants to know.
    Info,
    /// What explains a behaviour.
    Debug,
    /// Everything.
    Trace,
}

choice!(
    LogLevel:
    "error" => Self::Error,
    "warn" => Self::Warn,
    "info" => Self::Info,
    "debug" => Self::Debug,
    "trace" => Self::Trace,
);

impl LogLevel {
    /// The name in the configuration and in the log.
    pub fn name(self) -> &'static str {
        Choice::name(&self)
    }
}

impl Choice for Option<Isa> {
    fn names(&self) -> &'static [&'static str] {
        &["auto", "portable", "avx2", "avx512", "neon"]
    }

    fn name(&self) -> &'static str {
        self.map_or("auto", Isa::name)
    }

    fn choose(&mut self, name: &str) -> bool {
        let isa = Isa::ALL.into_iter().find(|isa| isa.name() == name);
        if isa.is_none() && name != "auto" {
            return false;
        }
        *self = isa;
        true
    }
}

impl Choice for CacheType {
    fn names(&self) -> &'static [&'static str] {
        &Self::NAMES
    }

    fn name(&self) -> &'static str {
        Self::name(*self)
    }

    fn choose(&mut self, name: &str) -> bool {
        let named = Self::from_name(name);
        *self = named.unwrap_or(*self);
        named.is_some()
    }
}

/// The policy of the sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SandboxPolicy {
    /// The built-in policy.
    Default,
    /// The built-in policy with every layer required.
    Strict,
    /// The built-in policy with what a file says instead.
    File(PathBuf),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assert_names_are_read_back(mut choice: impl Choice) {
        for name in choice.names() {
            assert!(choice.choose(name), "{name}");
            assert_eq!(choice.name(), *name);
        }
        assert!(!choice.choose("of-no-kind") && !choice.choose(""));
    }

    #[test]
    fn every_choice_reads_its_names_back_and_no_other() {
        assert_names_are_read_back(SocketMode::Owner);
        assert_names_are_read_back(LogFormat::Text);
        assert_names_are_read_back(LogLevel::Info);
        assert_names_are_read_back(None::<Isa>);
        assert_names_are_read_back(CacheType::F16);
    }

    #[test]
    fn every_instruction_set_of_the_kernels_can_be_chosen() {
        let names = None::<Isa>.names();
        assert!(Isa::ALL.into_iter().all(|isa| names.contains(&isa.name())));
        assert_eq!(names.len(), Isa::ALL.len() + 1);
    }
}
