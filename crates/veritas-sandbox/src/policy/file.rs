//! The text of a policy: what may stand in it, and where it is wrong.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use toml::Spanned;

use super::size::{Cpus, Size};
use super::{CgroupLimits, Condition, Group, Operand, Policy, Refusal, Rlimits, Seccomp, Test};
use crate::constants::errno;
use crate::limits::{POLICY_BYTES_MAX, VALUES_MAX};
use crate::probe::PROBES;
use crate::syscalls::{self, Arch};
use crate::{Error, Layer};

/// The form of the files that this version reads.
const VERSION: u64 = 1;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PolicyFile {
    version: Option<Spanned<u64>>,
    #[serde(default)]
    layers: LayersFile,
    #[serde(default)]
    limits: LimitsFile,
    #[serde(default)]
    cgroup: CgroupFile,
    #[serde(default)]
    seccomp: SeccompFile,
    #[serde(default)]
    probes: BTreeMap<Spanned<String>, Spanned<String>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct LayersFile {
    required: Option<Vec<Spanned<String>>>,
    off: Option<Vec<Spanned<String>>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct LimitsFile {
    data_bytes: Option<Size>,
    file_bytes: Option<Spanned<Size>>,
    stack_bytes: Option<Spanned<Size>>,
    locked_bytes: Option<Spanned<Size>>,
    descriptors: Option<Spanned<u64>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct CgroupFile {
    memory_bytes: Option<Size>,
    processes: Option<u64>,
    cpus: Option<Cpus>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct SeccompFile {
    refused: Option<Spanned<String>>,
    refuse: Option<Vec<RefuseFile>>,
    allow: Option<Vec<AllowFile>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RefuseFile {
    why: Spanned<String>,
    calls: Vec<Spanned<String>>,
    errno: Spanned<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AllowFile {
    why: Spanned<String>,
    calls: Vec<Spanned<String>>,
    only: Option<Spanned<String>>,
    #[serde(default)]
    when: Vec<ConditionFile>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ConditionFile {
    arg: Spanned<u8>,
    bits: Option<Spanned<u8>>,
    is: Option<Vec<Spanned<Operand>>>,
    with: Option<Vec<Spanned<Operand>>>,
    without: Option<Vec<Spanned<Operand>>>,
}

/// A policy file that says everything: the default one.
pub(super) fn parse_whole(text: &str) -> Result<Policy, Error> {
    let nothing = Policy {
        required: BTreeSet::new(),
        off: BTreeSet::new(),
        rlimits: Rlimits {
            data_bytes: Size::Bytes(0),
            file_bytes: 0,
            stack_bytes: 0,
            locked_bytes: 0,
            descriptors: 0,
        },
        cgroup: CgroupLimits { memory_bytes: Size::Bytes(0), processes: 0, cpus_milli: None },
        seccomp: Seccomp { refused: String::new(), refuse: Vec::new(), allow: Vec::new() },
        probes: BTreeMap::new(),
    };
    parse_over(nothing, text)
}

/// `base`, with what `text` says instead.
pub(super) fn parse_over(mut base: Policy, text: &str) -> Result<Policy, Error> {
    if text.len() > POLICY_BYTES_MAX {
        let message = format!("the file has {} bytes; at most {POLICY_BYTES_MAX}", text.len());
        return Err(Error::Policy { line: 1, message });
    }
    let file = toml::from_str::<PolicyFile>(text).map_err(|error| {
        let line = line_of(text, error.span().map_or(0, |span| span.start));
        Error::Policy { line, message: error.message().to_owned() }
    })?;
    let source = Source { text };
    if let Some(version) = &file.version
        && *version.get_ref() != VERSION
    {
        return Err(
            source.error(version, format!("version {}; this program reads {VERSION}", version.get_ref()))
        );
    }
    source.layers(file.layers, &mut base)?;
    source.limits(file.limits, &mut base.rlimits)?;
    let CgroupFile { memory_bytes, processes, cpus } = file.cgroup;
    base.cgroup.memory_bytes = memory_bytes.unwrap_or(base.cgroup.memory_bytes);
    base.cgroup.processes = processes.unwrap_or(base.cgroup.processes);
    base.cgroup.cpus_milli = cpus.map_or(base.cgroup.cpus_milli, |cpus| cpus.0);
    source.seccomp(file.seccomp, &mut base.seccomp)?;
    for (name, expected) in file.probes {
        if !PROBES.contains(&name.get_ref().as_str()) {
            return Err(source.error(&name, format!("no probe is called {:?}", name.get_ref())));
        }
        source.errno(&expected)?;
        base.probes.insert(name.into_inner(), expected.into_inner());
    }
    Ok(base)
}

fn line_of(text: &str, offset: usize) -> usize {
    let before = &text.as_bytes()[..offset.min(text.len())];
    before.iter().filter(|byte| **byte == b'\n').count() + 1
}

/// The text, for the line of what is wrong.
struct Source<'a> {
    text: &'a str,
}

impl Source<'_> {
    fn error<T>(&self, at: &Spanned<T>, message: String) -> Error {
        Error::Policy { line: line_of(self.text, at.span().start), message }
    }

    fn layers(&self, file: LayersFile, policy: &mut Policy) -> Result<(), Error> {
        if let Some(off) = file.off {
            policy.off.clear();
            for name in off {
                let layer = self.layer(&name)?;
                if Layer::ALWAYS_REQUIRED.contains(&layer) {
                    return Err(self.error(&name, format!("{layer} is always required and cannot be off")));
                }
                policy.off.insert(layer);
            }
        }
        if let Some(required) = file.required {
            policy.required.clear();
            for name in required {
                let layer = self.layer(&name)?;
                if policy.off.contains(&layer) {
                    return Err(self.error(&name, format!("{layer} cannot be required and off")));
                }
                policy.required.insert(layer);
            }
        }
        Ok(())
    }

    fn layer(&self, name: &Spanned<String>) -> Result<Layer, Error> {
        Layer::from_name(name.get_ref()).ok_or_else(|| {
            let known = Layer::ALL.map(Layer::name).join(", ");
            self.error(name, format!("no layer is called {:?}; there are {known}", name.get_ref()))
        })
    }

    fn limits(&self, file: LimitsFile, rlimits: &mut Rlimits) -> Result<(), Error> {
        rlimits.data_bytes = file.data_bytes.unwrap_or(rlimits.data_bytes);
        let places = [
            (file.file_bytes, &mut rlimits.file_bytes),
            (file.stack_bytes, &mut rlimits.stack_bytes),
            (file.locked_bytes, &mut rlimits.locked_bytes),
        ];
        for (size, place) in places {
            match size {
                None => {}
                Some(size) => match size.get_ref() {
                    Size::Bytes(bytes) => *place = *bytes,
                    Size::Auto => {
                        return Err(
                            self.error(&size, "only data_bytes and memory_bytes can be auto".to_owned())
                        );
                    }
                },
            }
        }
        if let Some(descriptors) = file.descriptors {
            // Standard input, output and error, the connection, and one for the descriptor of a copy.
            if *descriptors.get_ref() < 5 {
                return Err(self.error(&descriptors, "a worker needs at least 5 descriptors".to_owned()));
            }
            rlimits.descriptors = descriptors.into_inner();
        }
        Ok(())
    }

    fn seccomp(&self, file: SeccompFile, seccomp: &mut Seccomp) -> Result<(), Error> {
        if let Some(refused) = file.refused {
            self.errno(&refused)?;
            seccomp.refused = refused.into_inner();
        }
        if let Some(refuse) = file.refuse {
            seccomp.refuse = refuse.into_iter().map(|entry| self.refusal(entry)).collect::<Result<_, _>>()?;
        }
        if let Some(allow) = file.allow {
            seccomp.allow = allow.into_iter().map(|entry| self.group(entry)).collect::<Result<_, _>>()?;
        }
        Ok(())
    }

    fn refusal(&self, entry: RefuseFile) -> Result<Refusal, Error> {
        self.errno(&entry.errno)?;
        let calls = self.calls(entry.calls, &entry.why, None)?;
        Ok(Refusal { why: self.why(entry.why)?, calls, errno: entry.errno.into_inner() })
    }

    fn group(&self, entry: AllowFile) -> Result<Group, Error> {
        let only = match &entry.only {
            None => None,
            Some(name) => Some(Arch::from_name(name.get_ref()).ok_or_else(|| {
                self.error(name, format!("no architecture is called {:?}; x86_64 or aarch64", name.get_ref()))
            })?),
        };
        let calls = self.calls(entry.calls, &entry.why, only)?;
        let when = entry.when.into_iter().map(|test| self.condition(test)).collect::<Result<_, _>>()?;
        Ok(Group { why: self.why(entry.why)?, calls, only: entry.only.map(Spanned::into_inner), when })
    }

    fn why(&self, why: Spanned<String>) -> Result<String, Error> {
        if why.get_ref().trim().is_empty() {
            return Err(self.error(&why, "a group of system calls says why".to_owned()));
        }
        Ok(why.into_inner())
    }

    fn calls(
        &self,
        calls: Vec<Spanned<String>>,
        why: &Spanned<String>,
        only: Option<Arch>,
    ) -> Result<Vec<String>, Error> {
        if calls.is_empty() {
            return Err(self.error(why, "a group without a system call".to_owned()));
        }
        for call in &calls {
            if !syscalls::is_known(call.get_ref()) {
                return Err(self.error(call, format!("no system call is called {:?}", call.get_ref())));
            }
            let arches = only.map_or(Arch::ALL.to_vec(), |only| vec![only]);
            if let Some(arch) =
                arches.into_iter().find(|arch| syscalls::number(call.get_ref(), *arch).is_none())
            {
                let message = format!("{} has no system call {:?}: use `only`", arch.name(), call.get_ref());
                return Err(self.error(call, message));
            }
        }
        Ok(calls.into_iter().map(Spanned::into_inner).collect())
    }

    fn condition(&self, file: ConditionFile) -> Result<Condition, Error> {
        if *file.arg.get_ref() > 5 {
            return Err(self.error(&file.arg, "a system call has the arguments 0 to 5".to_owned()));
        }
        let bits = file.bits.as_ref().map_or(64, |bits| *bits.get_ref());
        if let Some(wrong) = file.bits.as_ref().filter(|bits| ![32, 64].contains(bits.get_ref())) {
            return Err(self.error(wrong, "bits is 32 or 64".to_owned()));
        }
        let test = match (file.is, file.with, file.without) {
            (Some(values), None, None) => Test::Is(self.operands(values, &file.arg, bits)?),
            (None, Some(values), None) => Test::With(self.operands(values, &file.arg, bits)?),
            (None, None, Some(values)) => Test::Without(self.operands(values, &file.arg, bits)?),
            _ => {
                let message = "a test has exactly one of `is`, `with` and `without`".to_owned();
                return Err(self.error(&file.arg, message));
            }
        };
        Ok(Condition { arg: file.arg.into_inner(), bits, test })
    }

    fn operands(
        &self,
        values: Vec<Spanned<Operand>>,
        arg: &Spanned<u8>,
        bits: u8,
    ) -> Result<Vec<Operand>, Error> {
        if values.is_empty() || values.len() > VALUES_MAX {
            return Err(self.error(arg, format!("a test has 1 to {VALUES_MAX} values")));
        }
        for value in &values {
            match value.get_ref().value(0) {
                None => return Err(self.error(value, format!("no constant is called {:?}", value.get_ref()))),
                Some(number) if bits == 32 && number > u64::from(u32::MAX) => {
                    return Err(self.error(value, format!("{number} does not fit in 32 bits")));
                }
                Some(_) => {}
            }
        }
        Ok(values.into_iter().map(Spanned::into_inner).collect())
    }

    fn errno(&self, name: &Spanned<String>) -> Result<i32, Error> {
        errno(name.get_ref())
            .ok_or_else(|| self.error(name, format!("no error number is called {:?}", name.get_ref())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error_of(text: &str) -> (usize, String) {
        match Policy::parse(text) {
            Err(Error::Policy { line, message }) => (line, message),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_file_that_says_little_leaves_the_rest_as_it_is() {
        let policy = Policy::parse("[limits]\ndata_bytes = \"8GiB\"\n[probes]\nfork = \"ENOSYS\"\n").unwrap();
        let default = Policy::default();
        assert_eq!(policy.rlimits.data_bytes, Size::Bytes(8 << 30));
        assert_eq!(policy.rlimits.descriptors, default.rlimits.descriptors);
        assert_eq!(policy.seccomp, default.seccomp);
        assert_eq!(policy.expected("fork"), Some("ENOSYS"));
        assert_eq!(policy.expected("vfork"), Some("EPERM"));
    }

    #[test]
    fn an_empty_file_is_the_default_policy() {
        assert_eq!(Policy::parse("").unwrap(), Policy::default());
    }

    #[test]
    fn every_mistake_names_its_line() {
        let cases = [
            ("version = 1\nlevel = 3\n", 2, "unknown field"),
            ("[layers]\n\nrequired = [\"moat\"]\n", 3, "no layer"),
            ("[layers]\noff = [\"seccomp\"]\n", 2, "always required"),
            ("[layers]\noff = [\"landlock\"]\nrequired = [\"landlock\"]\n", 3, "required and off"),
            ("[limits]\nstack_bytes = \"auto\"\n", 2, "only data_bytes"),
            ("[limits]\ndata_bytes = \"8GB\"\n", 2, "invalid value"),
            ("[limits]\ndata_bytes = -1\n", 2, "invalid value"),
            ("[limits]\ndescriptors = 3\n", 2, "at least 5"),
            ("[limits]\nfiles = 3\n", 2, "unknown field"),
            ("[cgroup]\ncpus = 0\n", 2, "invalid value"),
            ("[seccomp]\nrefused = \"ENOPE\"\n", 2, "no error number"),
            ("[[seccomp.allow]]\nwhy = \"x\"\ncalls = [\"read\",\n \"raed\"]\n", 4, "no system call"),
            ("[[seccomp.allow]]\nwhy = \"x\"\ncalls = [\"fork\"]\n", 3, "aarch64 has no system call"),
            ("[[seccomp.allow]]\nwhy = \" \"\ncalls = [\"read\"]\n", 2, "says why"),
            ("[[seccomp.allow]]\nwhy = \"x\"\ncalls = []\n", 2, "without a system call"),
            ("[[seccomp.allow]]\nwhy = \"x\"\nonly = \"vax\"\ncalls = [\"read\"]\n", 3, "no architecture"),
            (
                "[[seccomp.allow]]\nwhy = \"x\"\ncalls = [\"read\"]\nwhen = [{ arg = 6, is = [1] }]\n",
                4,
                "0 to 5",
            ),
            ("[[seccomp.allow]]\nwhy = \"x\"\ncalls = [\"read\"]\nwhen = [{ arg = 1 }]\n", 4, "exactly one"),
            (
                "[[seccomp.allow]]\nwhy = \"x\"\ncalls = [\"read\"]\nwhen = [\n{ arg = 1, is = [\"X\"] }]\n",
                5,
                "no constant",
            ),
            (
                "[[seccomp.allow]]\nwhy = \"x\"\ncalls = [\"read\"]\nwhen = [{ arg = 1, bits = 16, is = [1] }]\n",
                4,
                "32 or 64",
            ),
            (
                "[[seccomp.allow]]\nwhy = \"x\"\ncalls = [\"read\"]\nwhen = [{ arg = 1, is = [1], if = 2 }]\n",
                4,
                "unknown field",
            ),
            ("[probes]\nfrok = \"EPERM\"\n", 2, "no probe"),
            ("[probes]\nfork = \"EPREM\"\n", 2, "no error number"),
            ("version = 2\n", 1, "this program reads 1"),
            ("version = 1\n[layers\n", 2, ""),
        ];
        for (text, line, part) in cases {
            let (found, message) = error_of(text);
            assert_eq!(found, line, "{text}: {message}");
            assert!(message.contains(part), "{text}: {message}");
        }
    }

    #[test]
    fn a_file_that_is_too_long_is_refused_before_it_is_read() {
        assert!(error_of(&"#".repeat(POLICY_BYTES_MAX + 1)).1.contains("bytes"));
    }
}
