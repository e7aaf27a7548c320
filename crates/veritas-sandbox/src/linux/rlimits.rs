//! Resource limits.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::physical_bytes;
use crate::{Error, Limits, Policy};

/// The limits of this worker: name in the policy, the kernel's resource, value.
fn wanted(policy: &Policy, limits: &Limits) -> [(&'static str, Resource, u64); 7] {
    let rlimits = &policy.rlimits;
    let data_bytes = limits.data_bytes.unwrap_or_else(|| rlimits.data_bytes.bytes(physical_bytes()));
    [
        ("data_bytes", Resource::Data, data_bytes),
        ("file_bytes", Resource::Fsize, limits.file_bytes.unwrap_or(rlimits.file_bytes)),
        ("stack_bytes", Resource::Stack, rlimits.stack_bytes),
        ("locked_bytes", Resource::Memlock, rlimits.locked_bytes),
        ("descriptors", Resource::Nofile, rlimits.descriptors),
        // No worker sends messages through the kernel's queues or asks for real-time scheduling.
        ("message queues", Resource::Msgqueue, 0),
        ("real-time priority", Resource::Rtprio, 0),
    ]
}

/// Sets the limits, soft and hard. One that is lower already stays as it is.
pub(super) fn apply(policy: &Policy, limits: &Limits) -> Result<(), Error> {
    for (name, resource, value) in wanted(policy, limits) {
        let value = getrlimit(resource).maximum.map_or(value, |hard| hard.min(value));
        let both = Rlimit { current: Some(value), maximum: Some(value) };
        setrlimit(resource, both).map_err(|source| Error::Rlimit { name, value, source: source.into() })?;
    }
    Ok(())
}

/// Reads the limits back, and tries to exceed those of memory and of descriptors.
pub(super) fn observe(policy: &Policy, limits: &Limits) -> Result<(), String> {
    for (name, resource, value) in wanted(policy, limits) {
        let found = getrlimit(resource);
        let is_at_most = |bound: Option<u64>| bound.is_some_and(|bound| bound <= value);
        if !is_at_most(found.current) || !is_at_most(found.maximum) {
            return Err(format!("{name} is {:?}, not at most {value}", found.maximum));
        }
    }
    if let Ok(()) = exceed_memory() {
        return Err("memory beyond data_bytes can be mapped".to_owned());
    }
    match exceed_descriptors() {
        Err(rustix::io::Errno::MFILE) => Ok(()),
        other => Err(format!("more descriptors than the limit: {other:?}, not EMFILE")),
    }
}

/// Maps one page more than the limit of memory allows in all. `MAP_NORESERVE` leaves the decision to the limit: the
/// kernel's own guess at what is too much does not come in.
pub(super) fn exceed_memory() -> Result<(), rustix::io::Errno> {
    use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};
    let page = rustix::param::page_size();
    let limit = getrlimit(Resource::Data).current.and_then(|bytes| usize::try_from(bytes).ok());
    let length = limit.and_then(|bytes| bytes.checked_add(page)).ok_or(rustix::io::Errno::OVERFLOW)?;
    let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
    // SAFETY: a new mapping at an address that the kernel chooses; nobody uses it.
    let start =
        unsafe { mmap_anonymous(std::ptr::null_mut(), length, ProtFlags::READ | ProtFlags::WRITE, flags) }?;
    // SAFETY: the mapping above, of this length, which nobody else knows.
    unsafe { munmap(start, length) }
}

/// Copies a descriptor until the limit is reached, and closes the copies.
pub(super) fn exceed_descriptors() -> Result<(), rustix::io::Errno> {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let mut copies = Vec::new();
    for _ in 0..=limit.min(1 << 16) {
        copies.push(rustix::io::fcntl_dupfd_cloexec(std::io::stderr(), 0)?);
    }
    Ok(())
}
