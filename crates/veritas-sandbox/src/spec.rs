//! What passes between the supervisor and a worker when it is started.

use std::collections::BTreeMap;
use std::fs::File;

use serde::{Deserialize, Serialize};

use crate::Policy;

/// An open descriptor that a worker can be given.
#[cfg(unix)]
pub type Descriptor = std::os::fd::OwnedFd;
/// An open handle that a worker can be given.
#[cfg(windows)]
pub type Descriptor = std::os::windows::io::OwnedHandle;

/// One end of the connection between a supervisor and a worker.
#[cfg(unix)]
pub type Socket = std::os::unix::net::UnixStream;
/// One end of the connection between a supervisor and a worker.
#[cfg(windows)]
pub type Socket = File;

/// A worker that is to be started.
#[derive(Debug)]
pub struct SpawnSpec<'a> {
    /// The arguments, without the program's name.
    pub args: &'a [&'a str],
    /// Descriptors that become number 4, 5, … of the worker, in this order. The supervisor's copies are closed.
    pub descriptors: Vec<Descriptor>,
    /// The policy: which layers are required, and the limits of the control group.
    pub policy: &'a Policy,
    /// Whether the worker may run without a sandbox where there is none for the system. Elsewhere it changes nothing.
    pub allow_missing: bool,
}

/// What the supervisor did before the worker ran, for the worker's report: it can see neither why namespaces were
/// refused nor its own control group. The supervisor sends it with its first message.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SpawnFacts {
    /// Why the worker has no namespaces of its own; `None` where it has.
    pub namespaces_missing: Option<String>,
    /// Why the worker is in no control group; `None` where it is, and its limits were read back.
    pub cgroup_missing: Option<String>,
    /// The worker's user id as the supervisor's system sees it, where the worker has a user namespace.
    pub host_uid: Option<u32>,
    /// The ids of the supervisor's own namespaces by name, from which the worker's must differ.
    pub supervisor_namespaces: BTreeMap<String, u64>,
    /// Why nothing confines the worker at all, where the system has no sandbox and that was allowed. Where there is a
    /// sandbox, the worker confines itself whatever stands here.
    pub unconfined: Option<String>,
}

/// What a worker was given, besides its arguments.
#[derive(Debug)]
pub struct Inherited {
    /// The connection to the supervisor: descriptor 3.
    pub socket: Socket,
    /// The files: descriptors 4, 5, …
    pub files: Vec<File>,
}

/// Limits that one worker has in place of the policy's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Bytes of memory, where it is not the policy's `data_bytes`. The kernel counts what is mapped privately and
    /// writable: the heap, the stacks, the KV cache; not the mapped model.
    pub data_bytes: Option<u64>,
    /// Bytes to which a file that was given open for writing may grow, where it is not the policy's `file_bytes` (0).
    pub file_bytes: Option<u64>,
}
