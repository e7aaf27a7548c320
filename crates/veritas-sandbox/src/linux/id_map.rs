//! Who the worker is, inside its user namespace and outside.
//!
//! Inside it is user and group 0, because only that user keeps, over the execution of the program, the capabilities
//! that it needs to exchange its root folder. Outside, these are:
//! - for a supervisor that is root, and a program that others may execute: 65534 (nobody), so that an escape finds no
//!   file of root's. A program that others may not execute could not be run by that user; then, and where 65534 does
//!   not exist in the supervisor's own namespace, it is the supervisor's user;
//! - for everybody else the supervisor's own user and group, which is all that the kernel lets them map.

use std::fs::OpenOptions;
use std::io::{self, Write};

use crate::Error;

/// The user and the group that own nothing, by convention.
pub(super) const NOBODY: u32 = 65534;

/// The ids of a worker as the host sees them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ids {
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// Whether the worker gives up the supplementary groups. Who is not root cannot, and must say so to the kernel.
    pub(super) drops_groups: bool,
}

/// The ids to try, best first.
pub(super) fn candidates(program_mode: u32) -> Vec<Ids> {
    let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
    let own = Ids { uid: uid.as_raw(), gid: gid.as_raw(), drops_groups: false };
    let mut ids = Vec::new();
    if uid.is_root() {
        if program_mode & 0o001 != 0 {
            ids.push(Ids { uid: NOBODY, gid: NOBODY, drops_groups: true });
        }
        ids.push(Ids { drops_groups: true, ..own });
    }
    ids.push(own);
    ids
}

/// Writes the maps of the process `pid`.
pub(super) fn write(pid: u32, ids: Ids) -> Result<(), Error> {
    if !ids.drops_groups {
        write_file(pid, "setgroups", "deny")?;
    }
    write_file(pid, "uid_map", &format!("0 {} 1\n", ids.uid))?;
    write_file(pid, "gid_map", &format!("0 {} 1\n", ids.gid))
}

fn write_file(pid: u32, file: &'static str, text: &str) -> Result<(), Error> {
    let write = || -> io::Result<()> {
        let mut map = OpenOptions::new().write(true).open(format!("/proc/{pid}/{file}"))?;
        // The kernel takes the whole map in one write.
        map.write_all(text.as_bytes())
    };
    write().map_err(|source| Error::IdMaps { file, source })
}
