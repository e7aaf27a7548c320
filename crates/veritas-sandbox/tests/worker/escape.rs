//! A worker tries to break out.

use std::collections::BTreeSet;

use veritas_sandbox::{Limits, Policy, Probe};

use crate::start::{Confined, file_with};

pub(crate) const TESTS: &[(&str, fn())] = &[
    ("every_probe_fails_as_the_policy_says", every_probe_fails_as_the_policy_says),
    ("every_probe_fails_where_only_the_six_layers_are", every_probe_fails_where_only_the_six_layers_are),
    (
        "a_probe_that_the_policy_expects_otherwise_does_not_pass",
        a_probe_that_the_policy_expects_otherwise_does_not_pass,
    ),
    ("a_policy_that_lets_files_be_opened_does_not_start", a_policy_that_lets_files_be_opened_does_not_start),
    ("a_file_grows_to_its_limit_and_no_further", a_file_grows_to_its_limit_and_no_further),
    ("memory_is_limited_to_what_the_supervisor_says", memory_is_limited_to_what_the_supervisor_says),
    ("a_worker_cannot_start_a_worker", a_worker_cannot_start_a_worker),
];

fn probes_of(policy: &Policy, limits: Limits) -> Vec<Probe> {
    let file = file_with(b"");
    Confined::start(policy, limits, vec![file.into()], "probe").unwrap().probes()
}

fn assert_all_pass(probes: &[Probe]) {
    assert!(probes.len() >= 22);
    let failed = probes.iter().filter(|probe| !probe.pass).collect::<Vec<_>>();
    assert!(failed.is_empty(), "{failed:#?}");
    let names = probes.iter().map(|probe| probe.name.as_str()).collect::<BTreeSet<_>>();
    assert_eq!(names.len(), probes.len());
}

fn every_probe_fails_as_the_policy_says() {
    assert_all_pass(&probes_of(&Policy::default(), Limits::default()));
}

fn every_probe_fails_where_only_the_six_layers_are() {
    let policy = Policy::parse("[layers]\noff = [\"namespaces\", \"landlock\", \"cgroup\"]\n").unwrap();
    assert_all_pass(&probes_of(&policy, Limits::default()));
}

fn a_probe_that_the_policy_expects_otherwise_does_not_pass() {
    let policy = Policy::parse("[probes]\nfork = \"EACCES\"\nthread_clone3 = \"EPERM\"\n").unwrap();
    let probes = probes_of(&policy, Limits::default());
    let failed = probes.iter().filter(|probe| !probe.pass);
    let seen = failed.map(|probe| (probe.name.as_str(), probe.expected.as_str(), probe.observed.as_str()));
    assert_eq!(seen.collect::<Vec<_>>(), [("fork", "EACCES", "EPERM"), ("thread_clone3", "EPERM", "ENOSYS")]);
    // Without a file to write to, the limit of a file's size is not proven, and so does not pass.
    let probes = Confined::plain("probe").probes();
    let failed = probes.iter().filter(|probe| !probe.pass).map(|probe| probe.name.as_str());
    assert_eq!(failed.collect::<Vec<_>>(), ["exceed_file_size"]);
}

fn a_policy_that_lets_files_be_opened_does_not_start() {
    let open = "[[seccomp.allow]]\nwhy = \"a mistake\"\ncalls = [\"openat\"]\n\n[probes]";
    let policy = Policy::parse(&Policy::default_text().replacen("[probes]", open, 1)).unwrap();
    let error = Confined::start(&policy, Limits::default(), Vec::new(), "wait").err().unwrap();
    assert!(error.contains("seccomp was applied and is not in force"), "{error}");
}

fn a_file_grows_to_its_limit_and_no_further() {
    let limits = Limits { file_bytes: Some(10_500), ..Limits::default() };
    let file = file_with(b"");
    let copy = file.try_clone().unwrap();
    let mut confined = Confined::start(&Policy::default(), limits, vec![file.into()], "grow").unwrap();
    assert_eq!(confined.hear::<(u64, Option<i32>)>(), (10_500, Some(libc::EFBIG)));
    assert_eq!(copy.metadata().unwrap().len(), 10_500);
}

fn memory_is_limited_to_what_the_supervisor_says() {
    // The probe maps a page more than the limit; that the limit is this one is read from outside.
    let limits = Limits { data_bytes: Some(64 << 20), ..Limits::default() };
    let file = file_with(b"");
    let mut confined = Confined::start(&Policy::default(), limits, vec![file.into()], "probe").unwrap();
    assert_all_pass(&confined.probes());
    let confined = Confined::start(&Policy::default(), limits, Vec::new(), "wait").unwrap();
    let text = std::fs::read_to_string(format!("/proc/{}/limits", confined.worker.pid())).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("Max data size")).unwrap();
    assert_eq!(line.split_whitespace().next(), Some((64 << 20).to_string().as_str()));
}

fn a_worker_cannot_start_a_worker() {
    let error = Confined::plain("spawn").hear::<String>();
    assert!(error.contains("the thread that starts workers cannot run"), "{error}");
}
