//! The folder that a socket stands in: who can write to it can put their own socket there.

use std::fs::{DirBuilder, Metadata};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::{Error, SocketMode};

/// Makes the folder of the socket at `path` if it is missing, and checks it if it is there.
pub(super) fn prepare(path: &Path, mode: SocketMode) -> Result<(), Error> {
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    };
    match folder.metadata() {
        Ok(metadata) => check(&folder, &metadata),
        Err(error) if error.kind() == io::ErrorKind::NotFound => make(&folder, mode),
        Err(source) => Err(Error::file("look at the folder", &folder, source)),
    }
}

fn make(folder: &Path, mode: SocketMode) -> Result<(), Error> {
    // A group must be able to pass through, but need not see what else is there.
    let bits = if mode == SocketMode::Owner { 0o700 } else { 0o710 };
    DirBuilder::new()
        .recursive(true)
        .mode(bits)
        .create(folder)
        .map_err(|source| Error::file("make the folder", folder, source))?;
    // Another process may have made it in the meantime.
    let metadata = folder.metadata().map_err(|source| Error::file("look at the folder", folder, source))?;
    check(folder, &metadata)?;
    match mode {
        SocketMode::Owner => Ok(()),
        SocketMode::Group { gid } => give_to_group(folder, gid),
    }
}

fn check(folder: &Path, metadata: &Metadata) -> Result<(), Error> {
    let unsafe_because = |reason: String| Error::FolderUnsafe { path: folder.to_owned(), reason };
    if !metadata.is_dir() {
        return Err(unsafe_because("it is not a folder".to_owned()));
    }
    let (owner, own) = (metadata.uid(), rustix::process::geteuid().as_raw());
    if owner != own && owner != 0 {
        let reason = format!("it belongs to user {owner}, neither to user {own}, who serves, nor to root");
        return Err(unsafe_because(reason));
    }
    let mode = metadata.mode() & 0o7777;
    if mode & 0o022 != 0 {
        let who = if mode & 0o002 != 0 { "everybody" } else { "its group" };
        let reason =
            format!("{who} can write to it (mode {mode:04o}); use a folder of your own, of mode 0700");
        return Err(unsafe_because(reason));
    }
    check_above(folder)
}

/// Whoever can rename what lies in a folder above can put a whole folder in this one's place. The sticky bit prevents it.
fn check_above(folder: &Path) -> Result<(), Error> {
    let whole = folder.canonicalize().map_err(|source| Error::file("find the folder", folder, source))?;
    for above in whole.ancestors().skip(1) {
        let metadata = above.metadata().map_err(|source| Error::file("look at the folder", above, source))?;
        let mode = metadata.mode() & 0o7777;
        if mode & 0o1002 == 0o002 {
            let reason = format!("everybody can rename what lies in {} (mode {mode:04o})", above.display());
            return Err(Error::FolderUnsafe { path: folder.to_owned(), reason });
        }
    }
    Ok(())
}

/// Gives a file to a group, if one is named.
pub(super) fn give_to_group(path: &Path, gid: Option<u32>) -> Result<(), Error> {
    match gid {
        Some(_) => std::os::unix::fs::chown(path, None, gid)
            .map_err(|source| Error::file("give to the group", path, source)),
        None => Ok(()),
    }
}
