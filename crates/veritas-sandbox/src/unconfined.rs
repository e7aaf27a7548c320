//! Unix systems without a sandbox yet. What would confine is an error, so that nothing runs unconfined by mistake; where
//! the operator has allowed it, a worker is an ordinary process that is given what a confined one is given.

use std::ffi::c_int;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};

use crate::limits::FILES_MAX;
use crate::no_sandbox::unsupported;
use crate::{Error, Exit, Inherited, Limits, Policy, Report, SpawnFacts, SpawnSpec, missing};

pub(crate) use crate::no_sandbox::HAS_SANDBOX;
pub use crate::no_sandbox::{give_way, network_refused, probes, refuse_network};

/// The worker's end of the connection. The files follow.
const SOCKET_FD: RawFd = 3;

/// Starts a worker without a sandbox, where [`missing`](crate::missing()) says that it may: the same program with the
/// arguments given, an empty environment, `/dev/null` as standard input, output and error, its end of a new connection as
/// descriptor 3 and the descriptors given after it, in a session of its own. It ends when its connection is closed.
///
/// # Errors
/// As [`missing`](crate::missing()); the variants that name a step where the system refuses it.
pub fn spawn(spec: SpawnSpec<'_>) -> Result<Worker, Error> {
    let unconfined = missing::judge(HAS_SANDBOX, spec.policy, spec.allow_missing)?;
    if spec.descriptors.len() > FILES_MAX {
        return Err(Error::TooManyDescriptors { count: spec.descriptors.len(), max: FILES_MAX });
    }
    let (own_end, worker_end) = UnixStream::pair().map_err(|source| Error::Connect { source })?;
    let given = std::iter::once(OwnedFd::from(worker_end)).chain(spec.descriptors).collect::<Vec<_>>();
    // First beyond the numbers that they are to have, so that none is overwritten before it has been moved.
    let beyond = SOCKET_FD + given.len() as c_int;
    let raised = given.iter().map(|fd| duplicate(fd, beyond)).collect::<Result<Vec<_>, _>>()?;
    let moves = raised.iter().map(AsRawFd::as_raw_fd).collect::<Vec<_>>();
    let program = std::env::current_exe().map_err(|source| Error::OpenProgram { source })?;
    let mut command = Command::new(program);
    command.args(spec.args).env_clear();
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    // SAFETY: between the fork and the execution only setsid and dup2 are called, which may be; `raised` keeps the
    // descriptors open until the program runs.
    unsafe {
        command.pre_exec(move || {
            libc::setsid();
            for (number, &fd) in (SOCKET_FD..).zip(&moves) {
                if libc::dup2(fd, number) < 0 {
                    return Err(std::io::Error::last_os_error());
                }
            }
            Ok(())
        });
    }
    let child = command.spawn().map_err(|source| Error::Clone { source })?;
    drop((raised, given));
    let facts = SpawnFacts { unconfined, ..SpawnFacts::default() };
    Ok(Worker { child, socket: Some(own_end), facts, exit: None })
}

/// A copy of a descriptor with a number from `least` on, which no program inherits.
fn duplicate(fd: &OwnedFd, least: c_int) -> Result<OwnedFd, Error> {
    // SAFETY: the descriptor is open; the call makes another.
    let copy = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, least) };
    if copy < 0 {
        return Err(Error::Connect { source: std::io::Error::last_os_error() });
    }
    // SAFETY: the system has just made it for us.
    Ok(unsafe { OwnedFd::from_raw_fd(copy) })
}

/// A worker's process, as its supervisor holds it. Dropping it kills the worker and waits for its end.
#[derive(Debug)]
pub struct Worker {
    child: Child,
    socket: Option<UnixStream>,
    facts: SpawnFacts,
    exit: Option<Exit>,
}

impl Worker {
    /// The process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The supervisor's end of the connection, once.
    pub fn take_socket(&mut self) -> Option<UnixStream> {
        self.socket.take()
    }

    /// What the supervisor did before the worker ran.
    #[must_use]
    pub fn facts(&self) -> &SpawnFacts {
        &self.facts
    }

    /// Ends the worker at once. One that has ended already is left alone.
    pub fn kill(&self) {
        if self.exit.is_none() {
            // SAFETY: the process was not waited for, so that the number is still its own.
            unsafe { libc::kill(self.child.id().cast_signed(), libc::SIGKILL) };
        }
    }

    /// How the worker ended, or `None` while it runs.
    ///
    /// # Errors
    /// [`Error::Wait`], where something else in this process waits for all children.
    pub fn try_wait(&mut self) -> Result<Option<Exit>, Error> {
        if self.exit.is_none() {
            let status = self.child.try_wait().map_err(|source| Error::Wait { source })?;
            self.exit = status.map(exit_of);
        }
        Ok(self.exit)
    }

    /// Waits for the worker's end.
    ///
    /// # Errors
    /// As [`Worker::try_wait`].
    pub fn wait(&mut self) -> Result<Exit, Error> {
        if let Some(exit) = self.exit {
            return Ok(exit);
        }
        let exit = exit_of(self.child.wait().map_err(|source| Error::Wait { source })?);
        self.exit = Some(exit);
        Ok(exit)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.kill();
        // Where it cannot be waited for, somebody else has done so.
        let _ = self.wait();
    }
}

fn exit_of(status: ExitStatus) -> Exit {
    status.signal().map_or_else(|| Exit::Code(status.code().unwrap_or_default()), Exit::Signal)
}

/// Takes what this worker was given: the connection, descriptor 3, and `n_files` files, descriptors 4 and up.
///
/// Call it first in a worker, before anything else is opened, and once.
///
/// # Errors
/// [`Error::NotInherited`] where a descriptor is not what it should be: the process was not started by [`spawn`];
/// [`Error::TooManyDescriptors`].
pub fn inherited(n_files: usize) -> Result<Inherited, Error> {
    if n_files > FILES_MAX {
        return Err(Error::TooManyDescriptors { count: n_files, max: FILES_MAX });
    }
    let numbers = SOCKET_FD..=SOCKET_FD + n_files as c_int;
    for fd in numbers.clone() {
        // SAFETY: the number is only looked at; where it is not open, the call says so.
        if unsafe { libc::fcntl(fd, libc::F_GETFD) } < 0 {
            return Err(Error::NotInherited { fd, expected: "open" });
        }
    }
    // SAFETY: the descriptors are open, and were passed to this process for this purpose.
    let mut given = numbers.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) });
    let socket = given.next().map(UnixStream::from);
    let socket = socket.filter(|socket| socket.peer_addr().is_ok());
    let socket = socket.ok_or(Error::NotInherited { fd: SOCKET_FD, expected: "a connection of AF_UNIX" })?;
    Ok(Inherited { socket, files: given.map(File::from).collect() })
}

/// Starts the worker's threads; nothing confines it. The report says so, layer by layer.
///
/// # Errors
/// [`Error::Unsupported`] where the supervisor has not allowed it, and `start_threads` is not called then;
/// [`Error::StartThreads`].
pub fn confine<T, E, F>(
    _policy: &Policy,
    _limits: &Limits,
    before: &SpawnFacts,
    start_threads: F,
) -> Result<(T, Report), Error>
where
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
    F: FnOnce() -> Result<T, E>,
{
    let reason = before.unconfined.as_deref().ok_or_else(unsupported)?;
    let threads = start_threads().map_err(|error| Error::StartThreads { source: error.into() })?;
    Ok((threads, Report::off(reason)))
}

/// Reads what there is, waiting for it if need be. 0 is the end.
///
/// # Errors
/// What `read` answers; an interruption by a signal is none.
pub fn receive(mut socket: &UnixStream, buffer: &mut [u8]) -> std::io::Result<usize> {
    loop {
        match socket.read(buffer) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            outcome => return outcome,
        }
    }
}

/// On Linux, where this module serves no other purpose.
#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;
    use crate::{Layer, State};

    fn start(policy: &Policy, allow_missing: bool, descriptors: Vec<OwnedFd>) -> Result<Worker, Error> {
        // The test of this name and no other, as the test harness reads the arguments of a worker.
        let (_, module) = module_path!().split_once("::").unwrap();
        let child = format!("{module}::child_that_is_a_worker");
        spawn(SpawnSpec { args: &["--exact", &child], descriptors, policy, allow_missing })
    }

    #[test]
    fn no_worker_starts_unless_it_was_allowed() {
        let policy = Policy::default();
        assert!(matches!(start(&policy, false, Vec::new()), Err(Error::Unsupported { .. })));
        let strict = Policy::strict();
        assert!(matches!(start(&strict, true, Vec::new()), Err(Error::Required { .. })));
        let confined =
            confine(&policy, &Limits::default(), &SpawnFacts::default(), || Ok::<_, std::io::Error>(()));
        assert!(matches!(confined, Err(Error::Unsupported { .. })));
    }

    #[test]
    fn a_worker_that_was_allowed_gets_its_files_and_says_that_nothing_confines_it() {
        let policy = Policy::default();
        let mut files = Vec::new();
        for text in ["first", "second"] {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(text.as_bytes()).unwrap();
            std::io::Seek::rewind(&mut file).unwrap();
            files.push(OwnedFd::from(file));
        }
        let mut worker = start(&policy, true, files).unwrap();
        let mut socket = worker.take_socket().unwrap();
        socket.set_read_timeout(Some(std::time::Duration::from_secs(60))).unwrap();
        socket.write_all(serde_json::to_string(worker.facts()).unwrap().as_bytes()).unwrap();
        socket.shutdown(std::net::Shutdown::Write).unwrap();
        let mut said = String::new();
        socket.read_to_string(&mut said).unwrap();
        assert_eq!(worker.wait().unwrap(), Exit::Code(0), "{said}");
        let (texts, report) = said.split_once('\n').unwrap();
        assert_eq!(texts, "first second 0");
        let report: Report = serde_json::from_str(report).unwrap();
        for layer in Layer::ALL {
            assert_eq!(report.state(layer), State::Off, "{layer}");
            assert!(report.reason(layer).is_some_and(|reason| reason.contains("allowed")), "{layer}");
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_worker_that_is_dropped_is_gone() {
        let worker = start(&Policy::default(), true, Vec::new()).unwrap();
        let pid = worker.pid();
        drop(worker);
        assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
    }

    /// A worker if it was started as one, and nothing otherwise: the environment of a worker is empty.
    #[test]
    fn child_that_is_a_worker() {
        if std::env::vars_os().next().is_some() {
            return;
        }
        let Inherited { mut socket, files } = inherited(2).unwrap();
        let mut facts = String::new();
        socket.read_to_string(&mut facts).unwrap();
        let facts: SpawnFacts = serde_json::from_str(&facts).unwrap();
        let mut texts = files.into_iter().map(|mut file| {
            let mut text = String::new();
            file.read_to_string(&mut text).unwrap();
            text
        });
        let texts = [texts.next().unwrap(), texts.next().unwrap()].join(" ");
        let confined = confine(&Policy::default(), &Limits::default(), &facts, || Ok::<_, std::io::Error>(0));
        let (threads, report) = confined.unwrap();
        let said = format!("{texts} {threads}\n{}", serde_json::to_string(&report).unwrap());
        socket.write_all(said.as_bytes()).unwrap();
        // The harness would say more on a standard output that leads nowhere; the answer is all.
        std::process::exit(0);
    }
}
