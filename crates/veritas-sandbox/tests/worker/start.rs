//! The supervisor's side of a test: start a worker, tell it what to be, hear what it saw.

use std::io::{BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use veritas_sandbox::{Error, Limits, Policy, Probe, Report, SpawnFacts, SpawnSpec, Worker, spawn};

/// A worker that does not answer within this time is taken for hung. Nothing here takes a thousandth of it, but in an
/// emulated machine on a busy host.
const HUNG: Duration = Duration::from_secs(600);

/// What a worker is told first.
#[derive(Serialize, Deserialize)]
pub(crate) struct Orders {
    pub(crate) policy: Policy,
    pub(crate) limits: Limits,
    pub(crate) facts: SpawnFacts,
    pub(crate) supervisor_pid: u32,
    pub(crate) deed: String,
}

/// A worker that has confined itself, and its connection.
pub(crate) struct Confined {
    pub(crate) worker: Worker,
    pub(crate) report: Report,
    lines: BufReader<UnixStream>,
}

impl Confined {
    /// Starts a worker that is to do `deed`, and waits until it is confined.
    pub(crate) fn start(
        policy: &Policy,
        limits: Limits,
        files: Vec<OwnedFd>,
        deed: &str,
    ) -> Result<Self, String> {
        let count = files.len().to_string();
        let spec = SpawnSpec { args: &["worker", &count], descriptors: files, policy, allow_missing: false };
        let worker = spawn(spec).map_err(|error: Error| error.to_string())?;
        Self::order(worker, policy, limits, deed)
    }

    /// Gives a worker its orders, and waits until it is confined.
    pub(crate) fn order(
        mut worker: Worker,
        policy: &Policy,
        limits: Limits,
        deed: &str,
    ) -> Result<Self, String> {
        let socket = worker.take_socket().expect("the connection is taken once");
        socket.set_read_timeout(Some(HUNG)).unwrap();
        let orders = Orders {
            policy: policy.clone(),
            limits,
            facts: worker.facts().clone(),
            supervisor_pid: std::process::id(),
            deed: deed.to_owned(),
        };
        let mut confined = Self { worker, report: Report::default(), lines: BufReader::new(socket) };
        confined.say(&serde_json::to_string(&orders).unwrap());
        confined.report = confined.hear::<Result<Report, String>>()?;
        Ok(confined)
    }

    /// A worker with the default policy and no files.
    pub(crate) fn plain(deed: &str) -> Self {
        Self::start(&Policy::default(), Limits::default(), Vec::new(), deed).unwrap()
    }

    pub(crate) fn say(&mut self, line: &str) {
        self.lines.get_mut().write_all(format!("{line}\n").as_bytes()).unwrap();
    }

    pub(crate) fn hear<T: DeserializeOwned>(&mut self) -> T {
        let mut line = String::new();
        if self.lines.read_line(&mut line).unwrap() == 0 {
            panic!("the worker said nothing and {}", self.worker.wait().unwrap());
        }
        serde_json::from_str(&line).unwrap_or_else(|_| panic!("the worker said: {line}"))
    }

    /// Whether the connection has ended.
    pub(crate) fn is_silent(&mut self) -> bool {
        self.lines.read_line(&mut String::new()).is_ok_and(|length| length == 0)
    }

    /// The probes of a worker whose deed is to probe.
    pub(crate) fn probes(&mut self) -> Vec<Probe> {
        self.hear()
    }
}

/// A temporary file with these bytes, open for reading and writing.
pub(crate) fn file_with(bytes: &[u8]) -> std::fs::File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file
}

/// This program, copied to a place from which every user may execute it.
pub(crate) fn copied_program() -> (tempfile::TempDir, std::path::PathBuf) {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let everybody = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(folder.path(), everybody.clone()).unwrap();
    let program = folder.path().join("copied-program");
    std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    std::fs::set_permissions(&program, everybody).unwrap();
    (folder, program)
}

/// Whether this machine lets this user have all the namespaces: asked with a call of its own.
pub(crate) fn machine_has_namespaces() -> bool {
    let asked = std::process::Command::new("/proc/self/exe").arg("try-namespaces").status().unwrap();
    asked.success()
}

/// Whether this kernel has Landlock: asked with a call of its own.
pub(crate) fn machine_has_landlock() -> bool {
    const VERSION: libc::c_int = 1;
    // SAFETY: a null pointer of length zero and this flag ask for the version.
    let version =
        unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<u8>(), 0_usize, VERSION) };
    version >= 1
}
