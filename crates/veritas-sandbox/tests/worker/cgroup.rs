//! The control group of a worker.
//!
//! Few machines on which tests run delegate one, so what is expected stands in `VERITAS_TEST_CGROUP`: `required`, or a
//! part of the reason why there is none. Without the variable, a machine that has none says so in the test's line.
//! `tools/cgroup-vm` runs these tests in a machine that has control groups, once for each expectation.

use std::fs;
use std::path::PathBuf;

use veritas_sandbox::{Exit, Layer, Limits, Policy, State};

use crate::start::Confined;

pub(crate) const TESTS: &[(&str, fn())] = &[
    (
        "a_control_group_limits_memory_threads_and_processors",
        a_control_group_limits_memory_threads_and_processors,
    ),
    (
        "a_strict_policy_starts_where_there_is_a_control_group",
        a_strict_policy_starts_where_there_is_a_control_group,
    ),
];

/// A worker in a control group, or `None` where the machine has none and none is expected.
fn in_group(policy: &Policy, deed: &str) -> Option<Confined> {
    let expected = std::env::var("VERITAS_TEST_CGROUP").ok();
    let confined = Confined::start(policy, Limits::default(), Vec::new(), deed).unwrap();
    let reason = confined.report.reason(Layer::Cgroup).map(str::to_owned);
    match (confined.report.state(Layer::Cgroup), reason, expected.as_deref()) {
        (State::Enforced, None, None | Some("required")) => Some(confined),
        (State::Unavailable, Some(reason), None) => {
            print!("({reason}) ");
            None
        }
        (State::Unavailable, Some(reason), Some(part)) if reason.contains(part) => None,
        other => panic!("{other:?}"),
    }
}

/// The folder of a worker's group.
fn folder_of(pid: u32) -> PathBuf {
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let group = groups.lines().find_map(|line| line.strip_prefix("0::/")).unwrap().to_owned();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mount = mounts.lines().find(|line| line.contains(" - cgroup2 ")).unwrap();
    PathBuf::from(mount.split(' ').nth(4).unwrap()).join(group)
}

fn a_control_group_limits_memory_threads_and_processors() {
    let text = "[cgroup]\nmemory_bytes = \"48MiB\"\nprocesses = 8\ncpus = 0.5\n";
    let policy = Policy::parse(text).unwrap();
    let Some(confined) = in_group(&policy, "wait") else { return };
    let folder = folder_of(confined.worker.pid());
    let name = folder.file_name().unwrap().to_str().unwrap();
    assert!(name.starts_with(&format!("veritas-worker-{}-", std::process::id())), "{name}");
    let limit = |file: &str| fs::read_to_string(folder.join(file)).unwrap().trim().to_owned();
    assert_eq!(limit("memory.max"), (48 << 20).to_string());
    assert_eq!(limit("pids.max"), "8");
    assert_eq!(limit("cpu.max"), "50000 100000");
    assert_eq!(limit("cgroup.procs"), confined.worker.pid().to_string());
    drop(confined);
    assert!(!folder.exists(), "the group is removed with its worker");

    // The limit of what is mapped is higher than that of what is used, so it is the group's that ends the worker.
    let mut greedy = in_group(&policy, "exhaust").unwrap();
    assert_eq!(greedy.worker.wait().unwrap(), Exit::Signal(libc::SIGKILL));
    let crowded = Confined::start(&policy, Limits::default(), Vec::new(), "crowd").err().unwrap();
    assert!(crowded.contains("cannot start the worker's threads"), "{crowded}");
}

fn a_strict_policy_starts_where_there_is_a_control_group() {
    if in_group(&Policy::default(), "wait").is_none() {
        let error = Confined::start(&Policy::strict(), Limits::default(), Vec::new(), "wait").err().unwrap();
        assert!(error.contains("requires the layer cgroup"), "{error}");
        return;
    }
    let confined = Confined::start(&Policy::strict(), Limits::default(), Vec::new(), "wait").unwrap();
    assert_eq!(confined.report.missing(Layer::ALL).count(), 0, "{:?}", confined.report);
}
