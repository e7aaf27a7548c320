//! The worker's control group, where version 2 is delegated to the supervisor.
//!
//! A group with processes of its own cannot hand limits to groups below it, so a supervisor that is alone in its group
//! moves itself into a group below (`veritas-supervisor`) and makes one for each worker beside that. It stays inside
//! its own group, and does nothing where other processes share it or where nobody said that it is delegated.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustix::fs::Access;

use super::physical_bytes;
use crate::{CgroupLimits, Error, Layer, Policy};

const SUPERVISOR: &str = "veritas-supervisor";
const WORKER_PREFIX: &str = "veritas-worker-";

/// The controllers that a worker's limits need.
const CONTROLLERS: [&str; 2] = ["memory", "pids"];

/// The period of `cpu.max` in microseconds: the kernel's own default.
const CPU_PERIOD_US: u64 = 100_000;

/// A control group of one worker. It must be removed when the worker has ended.
#[derive(Debug)]
pub(super) struct Group {
    folder: PathBuf,
}

impl Group {
    /// Makes a group with the policy's limits, or says why there can be none.
    pub(super) fn prepare(policy: &Policy) -> Result<Self, String> {
        if policy.is_off(Layer::Cgroup) {
            return Err("the policy says off".to_owned());
        }
        let parent = parent(&policy.cgroup)?;
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let folder = parent.join(format!("{WORKER_PREFIX}{}-{number}", std::process::id()));
        fs::create_dir(&folder).map_err(|error| format!("cannot make {}: {error}", folder.display()))?;
        let group = Self { folder };
        if let Err(reason) = group.limit(&policy.cgroup) {
            group.remove();
            return Err(reason);
        }
        Ok(group)
    }

    /// Sets the limits and reads them back.
    fn limit(&self, limits: &CgroupLimits) -> Result<(), String> {
        let page = rustix::param::page_size() as u64;
        let memory_bytes = limits.memory_bytes.bytes(physical_bytes()) / page * page;
        self.set("memory.max", &memory_bytes.to_string())?;
        self.set("pids.max", &limits.processes.to_string())?;
        if let Some(milli) = limits.cpus_milli {
            let quota_us = milli.saturating_mul(CPU_PERIOD_US / 1000);
            self.set("cpu.max", &format!("{quota_us} {CPU_PERIOD_US}"))?;
        }
        // A kernel without swap has no such file. All threads of a worker are one process, so the group dies as one.
        match fs::write(self.folder.join("memory.swap.max"), "0") {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(format!("memory.swap.max: {error}")),
            _ => Ok(()),
        }
    }

    fn set(&self, file: &str, value: &str) -> Result<(), String> {
        let path = self.folder.join(file);
        fs::write(&path, value).map_err(|error| format!("{file}: {error}"))?;
        let found = read(&path)?;
        if found == value { Ok(()) } else { Err(format!("{file} is {found}, not {value}")) }
    }

    /// Puts a process into the group.
    pub(super) fn add(&self, pid: u32) -> Result<(), Error> {
        fs::write(self.folder.join("cgroup.procs"), pid.to_string())
            .map_err(|source| Error::Child { step: "enter its control group", source })
    }

    /// Removes the group. Its process has ended; the kernel may need a moment to see it.
    pub(super) fn remove(self) {
        const TRIES: u32 = 50;
        for _ in 0..TRIES {
            match fs::remove_dir(&self.folder) {
                Err(error) if error.kind() == ErrorKind::ResourceBusy => {
                    std::thread::sleep(Duration::from_millis(2));
                }
                // Removed, or gone already. What else may happen leaves an empty folder, which the next start removes.
                _ => return,
            }
        }
    }
}

/// The group in which workers' groups are made. It is found, and the supervisor moved, once.
fn parent(limits: &CgroupLimits) -> Result<PathBuf, String> {
    static PARENT: Mutex<Option<PathBuf>> = Mutex::new(None);
    let mut known = PARENT.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(parent) = known.as_ref() {
        return Ok(parent.clone());
    }
    let wanted = CONTROLLERS.into_iter().chain(limits.cpus_milli.map(|_| "cpu")).collect::<Vec<_>>();
    let own = own_folder()?;
    let is_ours = own.file_name().is_some_and(|name| name == SUPERVISOR);
    let parent = match own.parent() {
        // This program was executed again by a supervisor that had moved itself.
        Some(parent) if is_ours => parent.to_owned(),
        _ => own,
    };
    let available = read(&parent.join("cgroup.controllers"))?;
    if let Some(missing) = wanted.iter().find(|name| !has_word(&available, name)) {
        return Err(format!(
            "control groups of version 2 have no {missing} controller in {}",
            parent.display()
        ));
    }
    if !is_delegated(&parent) {
        return Err(format!("the control group {} is not delegated to this process", parent.display()));
    }
    enable(&parent, &wanted)?;
    remove_left_over(&parent);
    *known = Some(parent.clone());
    Ok(parent)
}

/// The folder of this process's own group in the version-2 hierarchy.
fn own_folder() -> Result<PathBuf, String> {
    let mounts = read(Path::new("/proc/self/mountinfo"))?;
    // Fields: id, parent, device, root of the mount, mount point, …, then "-", type. Spaces in paths are escaped, and
    // nobody mounts control groups at such a path.
    let mount = mounts.lines().find_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        let mut fields = before.split(' ').skip(3);
        let (root, point) = (fields.next()?, fields.next()?);
        after.starts_with("cgroup2 ").then(|| (root.to_owned(), PathBuf::from(point)))
    });
    let (root, point) = mount.ok_or("control groups of version 2 are not mounted")?;
    let groups = read(Path::new("/proc/self/cgroup"))?;
    let own = groups
        .lines()
        .find_map(|line| line.strip_prefix("0::"))
        .ok_or("this process is in no control group")?;
    let below =
        Path::new(own).strip_prefix(&root).map_err(|_| format!("{own} is not below the mount of {root}"))?;
    if below.components().any(|part| part == std::path::Component::ParentDir) {
        return Err(format!("the control group {own} is outside of what is mounted"));
    }
    Ok(point.join(below))
}

/// Whether this process may make groups below `folder`. For a user, the permission says so. Root may always, so
/// something else must: the mark that systemd puts on what it delegates, or that there is no systemd whose tree it is.
fn is_delegated(folder: &Path) -> bool {
    if rustix::fs::access(folder, Access::WRITE_OK).is_err() {
        return false;
    }
    if rustix::fs::access(folder.join("cgroup.subtree_control"), Access::WRITE_OK).is_err() {
        return false;
    }
    let is_marked = ["user.delegate", "trusted.delegate"].into_iter().any(|name| {
        let mut value = [0_u8; 8];
        rustix::fs::getxattr(folder, name, &mut value).is_ok_and(|length| value[..length] == *b"1")
    });
    !rustix::process::geteuid().is_root() || is_marked || !Path::new("/run/systemd/system").exists()
}

/// Makes the controllers available to groups below `folder`.
fn enable(folder: &Path, controllers: &[&str]) -> Result<(), String> {
    let control = folder.join("cgroup.subtree_control");
    let enabled = read(&control)?;
    let missing = controllers.iter().filter(|name| !has_word(&enabled, name)).collect::<Vec<_>>();
    if missing.is_empty() {
        return Ok(());
    }
    let text = missing.iter().map(|name| format!("+{name}")).collect::<Vec<_>>().join(" ");
    let write = || fs::write(&control, &text).map_err(|error| format!("{}: {error}", control.display()));
    let Err(first) = write() else { return Ok(()) };
    let own = std::process::id().to_string();
    let processes = read(&folder.join("cgroup.procs"))?;
    if processes.lines().any(|pid| pid != own) {
        return Err(format!("other processes share the control group {}", folder.display()));
    }
    if !processes.lines().any(|pid| pid == own) {
        return Err(first);
    }
    let below = folder.join(SUPERVISOR);
    match fs::create_dir(&below) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => {
            return Err(format!("{}: {error}", below.display()));
        }
        _ => {}
    }
    let moved =
        fs::write(below.join("cgroup.procs"), &own).map_err(|error| format!("{}: {error}", below.display()));
    moved.and_then(|()| write()).inspect_err(|_| {
        // Back, so that a start without a control group leaves everything as it was.
        let _ = fs::write(folder.join("cgroup.procs"), &own);
        let _ = fs::remove_dir(&below);
    })
}

/// Removes groups of workers whose supervisor was killed. A group that is in use cannot be removed.
fn remove_left_over(folder: &Path) {
    let own = format!("{WORKER_PREFIX}{}-", std::process::id());
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with(WORKER_PREFIX) && !name.starts_with(&own) {
            let _ = fs::remove_dir(entry.path());
        }
    }
}

fn has_word(text: &str, word: &str) -> bool {
    text.split_whitespace().any(|other| other == word)
}

fn read(path: &Path) -> Result<String, String> {
    let text = fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(text.trim_end().to_owned())
}
