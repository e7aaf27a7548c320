//! Namespaces: which, whether a process has its own, and the empty root folder.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;

use rustix::io::Errno;
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, mount_remount, unmount,
};

use crate::{Error, SpawnFacts};

/// The flags of clone for the namespaces of a worker.
pub(super) const FLAGS: libc::c_int = libc::CLONE_NEWUSER
    | libc::CLONE_NEWNS
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUTS;

/// Their names in `/proc/self/ns`.
const NAMES: [&str; 6] = ["user", "mnt", "net", "pid", "ipc", "uts"];

/// Folders of which every system has one: an empty file system is mounted over the first that takes it.
const MOUNT_POINTS: [&str; 4] = ["/proc", "/tmp", "/dev", "/usr"];

/// The ids of this process's namespaces, by name; those that `/proc` does not show are missing.
pub(super) fn ids() -> BTreeMap<String, u64> {
    let id =
        |name: &str| Some((name.to_owned(), std::fs::metadata(format!("/proc/self/ns/{name}")).ok()?.ino()));
    NAMES.into_iter().filter_map(id).collect()
}

/// Exchanges the root folder for an empty one that nobody can write to. The old one is out of reach afterwards.
pub(super) fn empty_root() -> Result<(), Error> {
    let error = |step| move |source: Errno| Error::EmptyRoot { step, source: source.into() };
    // What is mounted here stays here.
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .map_err(error("make the mounts private"))?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    let options = c"size=4k,nr_inodes=2,mode=0555";
    let mut mounted = Err(Errno::NOENT);
    for folder in MOUNT_POINTS {
        mounted = mount("veritas-empty", folder, "tmpfs", flags, options).map(|()| folder);
        if mounted.is_ok() {
            break;
        }
    }
    let folder = mounted.map_err(error("mount an empty file system"))?;
    rustix::process::chdir(folder).map_err(error("enter the empty file system"))?;
    // The old root is put on top of the new one, where it is taken away again.
    rustix::process::pivot_root(".", ".").map_err(error("exchange the root folder"))?;
    unmount(".", UnmountFlags::DETACH).map_err(error("let go of the old root folder"))?;
    rustix::process::chdir("/").map_err(error("enter the root folder"))?;
    mount_remount("/", flags | MountFlags::BIND | MountFlags::RDONLY, "")
        .map_err(error("make the root folder read-only"))
}

/// Compares namespaces with the supervisor's, where `/proc` still shows them: before the root folder is exchanged.
pub(super) fn observe_in_proc(before: &SpawnFacts) -> Result<(), String> {
    let own = ids();
    let shared = before.supervisor_namespaces.iter().filter(|(name, id)| own.get(*name) == Some(*id));
    let shared = shared.map(|(name, _)| name.as_str()).collect::<Vec<_>>();
    if shared.is_empty() { Ok(()) } else { Err(format!("the namespaces {shared:?} are the supervisor's")) }
}

/// Looks at what only a process in namespaces of its own sees, and tries to write to the root folder.
pub(super) fn observe() -> Result<(), String> {
    if std::process::id() != 1 {
        return Err(format!("the process id is {}, not 1", std::process::id()));
    }
    if let Some(parent) = rustix::process::getppid() {
        return Err(format!("the parent {} can be seen", parent.as_raw_pid()));
    }
    let entries = std::fs::read_dir("/").map_err(|error| format!("the root folder: {error}"))?;
    let n_entries = entries.count();
    if n_entries != 0 {
        return Err(format!("the root folder has {n_entries} entries"));
    }
    match rustix::fs::mkdir("/x", rustix::fs::Mode::RWXU) {
        Err(Errno::ROFS | Errno::ACCESS | Errno::PERM) => Ok(()),
        other => Err(format!("making a folder gives {other:?}, not EROFS")),
    }
}
