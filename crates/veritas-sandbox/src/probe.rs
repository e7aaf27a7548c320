//! An attempt to break out, and what it saw.

use serde::{Deserialize, Serialize};

/// What one attempt to break out saw. It passes only if it failed exactly as the policy says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// The attempt, by the name that the policy's `[probes]` uses.
    pub name: String,
    /// What the policy expects: the name of an error number, or a word such as `none`.
    pub expected: String,
    /// What was seen: the name of an error number, or what succeeded.
    pub observed: String,
    /// The error number that the kernel answered; `None` where the attempt succeeded.
    pub errno: Option<i32>,
    /// Whether `observed` is `expected`.
    pub pass: bool,
}

/// What the probes need to know of the world outside.
#[derive(Debug, Clone, Copy, Default)]
pub struct ProbeContext {
    /// The supervisor's process id as the host sees it: the target of signals, of ptrace and of a look into `/proc`.
    pub supervisor_pid: u32,
    /// Index, among the inherited files, of one that is open for writing: the probe of the file-size limit writes to
    /// it. Without one that probe reports that it had nothing to write to, and fails.
    pub writable_file: Option<usize>,
}

/// The probes, in the order in which they run. Each has an expectation in the default policy.
pub(crate) const PROBES: [&str; 40] = [
    "open_for_reading",
    "open_for_writing",
    "create_file",
    "stat_path",
    "change_root",
    "connect_tcp",
    "send_udp",
    "connect_unix",
    "socket_netlink",
    "socket_pair",
    "execute",
    "fork",
    "vfork",
    "thread_clone",
    "thread_clone3",
    "ptrace_supervisor",
    "read_memory_of_supervisor",
    "read_proc_of_supervisor",
    "signal_supervisor",
    "add_key",
    "load_bpf",
    "perf_event",
    "userfaultfd",
    "io_uring",
    "mount",
    "unshare_namespace",
    "enter_namespace",
    "change_user",
    "raise_limit",
    "become_dumpable",
    "map_writable_and_executable",
    "make_executable",
    "map_shared_memory",
    "map_growing_stack",
    "control_terminal",
    "memory_file",
    "exceed_memory",
    "exceed_threads",
    "exceed_descriptors",
    "exceed_file_size",
];
