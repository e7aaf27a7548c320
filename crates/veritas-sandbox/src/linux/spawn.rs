//! Starting a worker.
//!
//! All workers are made by one thread of the process, which never ends: the kernel binds a worker's life to the thread
//! that made it, and a caller's thread may be one of a pool that shrinks.

use std::ffi::{CStr, CString, c_int};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Sender, SyncSender, channel, sync_channel};
use std::sync::{Mutex, OnceLock, PoisonError};

use rustix::fs::{Mode, OFlags};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::{Signal, WaitId, WaitIdOptions, pidfd_send_signal, waitid};

use super::cgroup::Group;
use super::child::{self, FAILURE_BYTES, STEPS};
use super::id_map::{self, Ids};
use super::{namespaces, worker::Worker};
use crate::limits::{ARGS_BYTES_MAX, FILES_MAX};
use crate::{Error, Layer, Policy, SpawnFacts, SpawnSpec};

/// A worker to be started, owned, so that it can go to the thread.
struct Job {
    args: Vec<CString>,
    descriptors: Vec<OwnedFd>,
    policy: Policy,
    answer: SyncSender<Result<Worker, Error>>,
}

/// The thread's queue. It cannot fill: whoever sends waits for the answer.
static JOBS: OnceLock<Mutex<Sender<Job>>> = OnceLock::new();

/// Starts a worker: the same program, with the arguments given, an empty environment, `/dev/null` as standard input,
/// output and error, its end of a new connection as descriptor 3 and the descriptors given after it; nothing else is
/// open. It is in a session of its own and, where the kernel allows and the policy does not say otherwise, in its own
/// user, mount, net, pid, ipc and uts namespaces and in a control group with limits. It is not confined yet: that is
/// its own first act ([`inherited`](crate::inherited), [`confine`](crate::confine)).
///
/// The worker is killed when this process ends. It may be called from any thread.
///
/// # Errors
/// [`Error::Required`] where the policy requires namespaces or a control group that cannot be had; the variants that
/// name a step where the system refuses it.
pub fn spawn(spec: SpawnSpec<'_>) -> Result<Worker, Error> {
    if spec.descriptors.len() > FILES_MAX {
        return Err(Error::TooManyDescriptors { count: spec.descriptors.len(), max: FILES_MAX });
    }
    let args = arguments(spec.args)?;
    let (answer, answered) = sync_channel(1);
    let job = Job { args, descriptors: spec.descriptors, policy: spec.policy.clone(), answer };
    let gone = || Error::SpawnThread { reason: "it has ended".to_owned() };
    let queue = queue()?.lock().unwrap_or_else(PoisonError::into_inner).clone();
    queue.send(job).map_err(|_| gone())?;
    answered.recv().map_err(|_| gone())?
}

fn queue() -> Result<&'static Mutex<Sender<Job>>, Error> {
    static STARTING: Mutex<()> = Mutex::new(());
    let _one_at_a_time = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(queue) = JOBS.get() {
        return Ok(queue);
    }
    let (sender, jobs) = channel::<Job>();
    let work = move || {
        block_signals();
        for job in jobs {
            let Job { args, descriptors, policy, answer } = job;
            // Whoever asked waits, unless its thread was ended; then the worker is dropped, and ends.
            let _ = answer.send(start(&args, &descriptors, &policy));
        }
    };
    let thread = std::thread::Builder::new().name("sandbox-spawn".to_owned()).spawn(work);
    thread.map_err(|error| Error::SpawnThread { reason: error.to_string() })?;
    Ok(JOBS.get_or_init(|| Mutex::new(sender)))
}

/// Signals to the process go to its other threads, and none runs a handler in a process that is being made.
fn block_signals() {
    // SAFETY: the set is written by sigfillset before it is read; the mask is this thread's alone.
    unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, std::ptr::null_mut());
    }
}

/// The arguments with the program's name, as the supervisor was called.
fn arguments(args: &[&str]) -> Result<Vec<CString>, Error> {
    let bytes = args.iter().map(|arg| arg.len() + 1).sum::<usize>();
    let error = || Error::Arguments { bytes, max: ARGS_BYTES_MAX };
    if bytes > ARGS_BYTES_MAX {
        return Err(error());
    }
    let name = std::env::args_os().next().map(OsStringExt::into_vec).unwrap_or_default();
    let name = CString::new(name).map_err(|_| error())?;
    let rest = args.iter().map(|arg| CString::new(*arg).map_err(|_| error()));
    std::iter::once(Ok(name)).chain(rest).collect()
}

fn start(args: &[CString], descriptors: &[OwnedFd], policy: &Policy) -> Result<Worker, Error> {
    let program = program()?;
    let group = Group::prepare(policy);
    if let (Err(reason), true) = (&group, policy.requires(Layer::Cgroup)) {
        return Err(Error::Required { layer: Layer::Cgroup, reason: reason.clone() });
    }
    let (group, cgroup_missing) = match group {
        Ok(group) => (Some(group), None),
        Err(reason) => (None, Some(reason)),
    };
    let supervisor_namespaces = namespaces::ids();
    let attempt = |ids| Attempt { args, descriptors, program: &program, group: group.as_ref(), ids }.run();
    let made = if policy.is_off(Layer::Namespaces) {
        attempt(None).map(|made| (made, None, Some("the policy says off".to_owned())))
    } else {
        match with_namespaces(&program, attempt) {
            Ok((made, ids)) => Ok((made, Some(ids), None)),
            Err(error) if is_about_namespaces(&error) => {
                let reason = error.to_string();
                if policy.requires(Layer::Namespaces) {
                    return Err(Error::Required { layer: Layer::Namespaces, reason });
                }
                attempt(None).map(|made| (made, None, Some(reason)))
            }
            Err(error) => Err(error),
        }
    };
    match made {
        Ok((Made { pid, pidfd, socket }, ids, namespaces_missing)) => {
            let host_uid = ids.map(|ids| ids.uid);
            let facts = SpawnFacts {
                namespaces_missing,
                cgroup_missing,
                host_uid,
                supervisor_namespaces,
                unconfined: None,
            };
            Ok(Worker { pid, pidfd, socket: Some(socket), facts, cgroup: group, exit: None })
        }
        Err(error) => {
            if let Some(group) = group {
                group.remove();
            }
            Err(error)
        }
    }
}

/// The running program. `/proc/self/exe` is this very file, whatever stands at its path by now.
fn program() -> Result<OwnedFd, Error> {
    static PROGRAM: OnceLock<OwnedFd> = OnceLock::new();
    let open_error = |source: std::io::Error| Error::OpenProgram { source };
    if let Some(program) = PROGRAM.get() {
        return program.try_clone().map_err(open_error);
    }
    let opened = rustix::fs::open("/proc/self/exe", OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
    let opened = opened.map_err(|error| open_error(error.into()))?;
    PROGRAM.get_or_init(|| opened).try_clone().map_err(open_error)
}

/// Tries the ids in their order. The first that the system takes is the worker's.
fn with_namespaces(
    program: &OwnedFd,
    attempt: impl Fn(Option<Ids>) -> Result<Made, Error>,
) -> Result<(Made, Ids), Error> {
    let mode =
        rustix::fs::fstat(program).map_err(|error| Error::OpenProgram { source: error.into() })?.st_mode;
    let mut first_error = None;
    for ids in id_map::candidates(mode) {
        match attempt(Some(ids)) {
            Ok(made) => return Ok((made, ids)),
            Err(error) if is_about_namespaces(&error) => {
                first_error.get_or_insert(error);
            }
            Err(error) => return Err(error),
        }
    }
    // There is always a candidate.
    Err(first_error
        .unwrap_or_else(|| Error::Clone { source: std::io::Error::from_raw_os_error(libc::EINVAL) }))
}

/// Whether the same start might succeed without namespaces, or with other ids in them.
fn is_about_namespaces(error: &Error) -> bool {
    match error {
        Error::Clone { .. } | Error::IdMaps { .. } => true,
        Error::Child { step, .. } => *step == STEPS[2],
        _ => false,
    }
}

/// A process that runs the program.
struct Made {
    pid: u32,
    pidfd: OwnedFd,
    socket: UnixStream,
}

/// One attempt to make the process.
struct Attempt<'a> {
    args: &'a [CString],
    descriptors: &'a [OwnedFd],
    program: &'a OwnedFd,
    group: Option<&'a Group>,
    /// The worker's ids where it gets namespaces.
    ids: Option<Ids>,
}

impl Attempt<'_> {
    fn run(&self) -> Result<Made, Error> {
        let connect_error = |error: rustix::io::Errno| Error::Connect { source: error.into() };
        let pair = || socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None);
        let (own_end, worker_end) = pair().map_err(connect_error)?;
        let (control, child_control) = pair().map_err(connect_error)?;
        let null = File::options().read(true).write(true).open("/dev/null");
        let null = null.map_err(|source| Error::Connect { source })?;
        let mut targets = vec![null.as_raw_fd(); 3];
        targets.push(worker_end.as_raw_fd());
        targets.extend(self.descriptors.iter().map(AsRawFd::as_raw_fd));
        let pointers = self.args.iter().map(|arg| CStr::as_ptr(arg)).chain([std::ptr::null()]);
        let plan = child::Plan {
            argv: pointers.collect(),
            copies: vec![-1; targets.len()],
            descriptors: targets,
            program: self.program.as_raw_fd(),
            control: child_control.as_raw_fd(),
            becomes_user_0: self.ids.is_some(),
            drops_groups: self.ids.is_some_and(|ids| ids.drops_groups),
        };
        let (pid, pidfd) = clone_process(plan, self.ids.is_some())?;
        drop((child_control, worker_end, null));
        match self.release(pid, UnixStream::from(control)) {
            Ok(()) => Ok(Made { pid, pidfd, socket: UnixStream::from(own_end) }),
            Err(error) => {
                end(&pidfd);
                Err(error)
            }
        }
    }

    /// Gives the waiting process its ids and its group, lets it go on, and hears whether it runs the program.
    fn release(&self, pid: u32, mut control: UnixStream) -> Result<(), Error> {
        if let Some(ids) = self.ids {
            id_map::write(pid, ids)?;
        }
        if let Some(group) = self.group {
            group.add(pid)?;
        }
        let child_error =
            |step: usize, source| Error::Child { step: STEPS[step.min(STEPS.len() - 1)], source };
        control.write_all(&[1]).map_err(|source| child_error(0, source))?;
        let mut message = Vec::with_capacity(FAILURE_BYTES);
        // The end comes with the execution of the program, which closes the socket, or with the process.
        control
            .take(FAILURE_BYTES as u64)
            .read_to_end(&mut message)
            .map_err(|source| child_error(0, source))?;
        match message.as_chunks::<4>() {
            ([], []) => Ok(()),
            ([step, errno], []) => {
                let step = usize::try_from(u32::from_ne_bytes(*step)).unwrap_or(usize::MAX);
                Err(child_error(step, std::io::Error::from_raw_os_error(i32::from_ne_bytes(*errno))))
            }
            _ => Err(child_error(0, std::io::ErrorKind::UnexpectedEof.into())),
        }
    }
}

/// Kills a process that did not become a worker, and waits for its end, so that none is left behind.
fn end(pidfd: &OwnedFd) {
    // It fails only if the process has ended already.
    let _ = pidfd_send_signal(pidfd, Signal::KILL);
    while let Err(rustix::io::Errno::INTR) = waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED) {}
}

/// Makes a process, which runs `plan`.
fn clone_process(mut plan: child::Plan, has_namespaces: bool) -> Result<(u32, OwnedFd), Error> {
    let flags = libc::SIGCHLD | libc::CLONE_PIDFD | if has_namespaces { namespaces::FLAGS } else { 0 };
    let mut pidfd: c_int = -1;
    let no_stack = std::ptr::null_mut::<u8>();
    // SAFETY: without CLONE_VM the new process has a copy of this one's memory and goes on on a copy of this stack.
    // With CLONE_PIDFD the third argument receives a descriptor; the last two are not used with these flags.
    let pid = unsafe { libc::syscall(libc::SYS_clone, flags, no_stack, &raw mut pidfd, 0_usize, 0_usize) };
    match pid {
        // SAFETY: this is the new process, which nobody else uses. `plan` was made by `run`: its strings are alive in
        // this copy of the memory, the list ends with a null pointer, and both lists have one length.
        0 => unsafe { child::run(&mut plan) },
        // SAFETY: the kernel has just made the descriptor for us.
        1.. => Ok((pid as u32, unsafe { OwnedFd::from_raw_fd(pidfd) })),
        _ => Err(Error::Clone { source: std::io::Error::last_os_error() }),
    }
}
