//! A worker confines itself.

use super::filter;
use super::{
    ARCH, capabilities, core_dump, descriptors, inherited, landlock, namespaces, parent, rlimits, signals,
};
use crate::{Error, Layer, Limits, Policy, Report, SpawnFacts, State};

/// Confines this process for good, in this order: descriptors, root folder, environment, limits, signals,
/// capabilities, core dumps, `no_new_privs`, Landlock, the supervisor's life; then `start_threads` runs; then seccomp
/// for every thread. Afterwards no thread can be made.
///
/// Call it right after [`inherited`](crate::inherited), before the process has a second thread and before it reads a
/// byte that an enemy may have written. `before` is what [`Worker::facts`](crate::Worker::facts) said.
///
/// The report says what was observed, by reading back and by trying. Whatever fails for a layer that the policy
/// requires is an error; the process must then end.
///
/// # Errors
/// [`Error::Required`] for namespaces, Landlock or control group; the step's own variant for the other layers;
/// [`Error::NotInForce`] where a layer was applied and is not seen to be in force; [`Error::Threads`],
/// [`Error::ParentGone`], [`Error::StartThreads`].
pub fn confine<T, E, F>(
    policy: &Policy,
    limits: &Limits,
    before: &SpawnFacts,
    start_threads: F,
) -> Result<(T, Report), Error>
where
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
    F: FnOnce() -> Result<T, E>,
{
    let mut report = Report::default();
    has_one_thread()?;
    if !inherited::is_taken() {
        return Err(Error::NotInherited { fd: super::SOCKET_FD, expected: "taken by `inherited`" });
    }
    // A name for tools that list processes. It is no layer; a failure costs nothing.
    let _ = rustix::thread::set_name(c"veritas-worker");

    descriptors::close_foreign()?;
    in_force(Layer::ClosedFds, descriptors::observe_in_proc())?;
    let has_namespaces = before.namespaces_missing.is_none();
    optional(&mut report, policy, Layer::Namespaces, before.namespaces_missing.as_deref(), || {
        namespaces::observe_in_proc(before)?;
        namespaces::empty_root().map_err(|error| error.to_string())?;
        namespaces::observe()
    })?;
    clear_environment()?;
    rlimits::apply(policy, limits)?;
    signals::prepare()?;
    capabilities::drop_all(has_namespaces)?;
    core_dump::refuse()?;
    rustix::thread::set_no_new_privs(true).map_err(|source| Error::NoNewPrivs { source: source.into() })?;
    optional(&mut report, policy, Layer::Landlock, None, || {
        landlock::apply().map_err(|error| error.to_string())?;
        landlock::observe()
    })?;
    optional(&mut report, policy, Layer::Cgroup, before.cgroup_missing.as_deref(), || Ok(()))?;
    parent::die_with()?;

    let observed = [
        (Layer::NoNewPrivs, no_new_privs()),
        (Layer::NoCapabilities, capabilities::observe()),
        (Layer::Rlimits, rlimits::observe(policy, limits)),
        (Layer::ClosedFds, descriptors::observe()),
        (Layer::NoCoreDump, core_dump::observe()),
    ];
    for (layer, seen) in observed {
        in_force(layer, seen)?;
        report.set(layer, State::Enforced, None);
    }

    let program = filter::of_policy(policy, ARCH, std::process::id())?;
    let threads = start_threads().map_err(|error| Error::StartThreads { source: error.into() })?;
    filter::install(&program)?;
    in_force(Layer::Seccomp, filter::observe(policy))?;
    report.set(Layer::Seccomp, State::Enforced, None);
    Ok((threads, report))
}

/// A layer that was applied must be seen to be in force.
fn in_force(layer: Layer, observed: Result<(), String>) -> Result<(), Error> {
    observed.map_err(|reason| Error::NotInForce { layer, reason })
}

/// Applies a layer that not every kernel has. `missing` is a reason that is known beforehand.
fn optional(
    report: &mut Report,
    policy: &Policy,
    layer: Layer,
    missing: Option<&str>,
    apply: impl FnOnce() -> Result<(), String>,
) -> Result<(), Error> {
    if policy.is_off(layer) {
        report.set(layer, State::Off, Some("the policy says off".to_owned()));
        return Ok(());
    }
    match missing.map_or_else(apply, |reason| Err(reason.to_owned())) {
        Ok(()) => report.set(layer, State::Enforced, None),
        Err(reason) if policy.requires(layer) => return Err(Error::Required { layer, reason }),
        Err(reason) => report.set(layer, State::Unavailable, Some(reason)),
    }
    Ok(())
}

/// What is confined here is this thread, until seccomp: another one would keep its capabilities.
fn has_one_thread() -> Result<(), Error> {
    // SAFETY: the flag changes nothing for a process with one thread, and is refused for one with several.
    if unsafe { libc::unshare(libc::CLONE_THREAD) } == 0 {
        return Ok(());
    }
    let is_forbidden = std::io::Error::last_os_error().raw_os_error() != Some(libc::EINVAL);
    // Where the call is forbidden altogether, as in many containers, the list of threads says the same.
    let n_threads = std::fs::read_dir("/proc/self/task").map_or(0, Iterator::count);
    if is_forbidden && n_threads == 1 { Ok(()) } else { Err(Error::Threads) }
}

/// The supervisor passes no environment; what the start of the program may have added goes.
fn clear_environment() -> Result<(), Error> {
    // SAFETY: there is one thread, and nobody holds a pointer into the environment.
    let cleared = unsafe { libc::clearenv() } == 0;
    if cleared && std::env::vars_os().next().is_none() { Ok(()) } else { Err(Error::Environment) }
}

fn no_new_privs() -> Result<(), String> {
    match rustix::thread::no_new_privs() {
        Ok(true) => Ok(()),
        other => Err(format!("no_new_privs reads back as {other:?}")),
    }
}
