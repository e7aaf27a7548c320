//! The socket of a daemon: bound here behind a lock, or handed over by the service manager.

use std::fs::{File, OpenOptions, Permissions, TryLockError};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use rustix::fs::Mode;

use crate::limits::BACKLOG;
use crate::socket::{address, is_served, new_socket};
use crate::{Connection, Error, Peer, SocketMode};

mod activation;
mod folder;

/// A socket that listens.
///
/// Of one that was bound here, the file goes when the value is dropped. Of one that the service manager handed over,
/// the file is the manager's.
#[derive(Debug)]
pub struct Listener {
    // Fields are dropped in this order: the name goes before the socket, and the lock last, so that no other daemon can
    // meet a name that is about to go.
    bound: Option<BoundFile>,
    socket: UnixListener,
    path: Option<PathBuf>,
    _lock: Option<File>,
}

impl Listener {
    /// Binds a socket at `path` and listens on it.
    ///
    /// The folder is made if it is missing (and those above it), for the owner alone. A lock beside the socket,
    /// `PATH.lock`, is held for as long as the listener lives and stays behind as an empty file: removing it could take
    /// it from under another daemon. What a daemon that was killed has left behind is removed.
    ///
    /// # Errors
    /// [`Error::AlreadyRunning`] if another process holds the lock or serves the socket; [`Error::NotASocket`] if
    /// something else stands there; [`Error::FolderUnsafe`] if others can write to the folder; [`Error::PathTooLong`],
    /// [`Error::AbstractAddress`] and [`Error::PathInvalid`] for paths that cannot be served.
    pub fn bind(path: &Path, mode: SocketMode) -> Result<Self, Error> {
        let address = address(path)?;
        folder::prepare(path, mode)?;
        let lock = lock(path)?;
        remove_stale(path)?;
        let socket = new_socket()?;
        restrict_before_bind(&socket);
        rustix::net::bind(&socket, &address)
            .map_err(|source| Error::file("bind a socket at", path, source))?;
        let bound = BoundFile::of(path)?;
        // Nobody can connect before `listen`, so there is no moment at which the permissions are too wide.
        open_to(path, mode)?;
        rustix::net::listen(&socket, BACKLOG)
            .map_err(|source| Error::socket("listen on a socket", source))?;
        let socket = UnixListener::from(socket);
        Ok(Self { bound: Some(bound), socket, path: Some(path.to_owned()), _lock: Some(lock) })
    }

    /// The socket that the service manager handed over by systemd's protocol, if it has. The variables that say so are
    /// removed from the environment.
    ///
    /// Call it once, at the start, while the process has a single thread: removing variables races with whoever reads
    /// the environment without Rust's lock.
    ///
    /// # Errors
    /// [`Error::Activation`] if what was handed over is not exactly one Unix stream socket that listens.
    pub fn from_activation() -> Result<Option<Self>, Error> {
        let Some(socket) = activation::take()? else { return Ok(None) };
        let path = socket.local_addr().ok().and_then(|address| address.as_pathname().map(Path::to_owned));
        Ok(Some(Self { bound: None, socket, path, _lock: None }))
    }

    /// The path of the socket; `None` for one that was handed over without a name.
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// Whether the service manager handed the socket over.
    pub fn is_activated(&self) -> bool {
        self.bound.is_none()
    }

    /// Makes the listener ready for the tokio runtime that this is called in.
    ///
    /// # Errors
    /// If there is no runtime, or it cannot watch the socket.
    pub fn incoming(self) -> Result<Incoming, Error> {
        let what = "watch the socket";
        if tokio::runtime::Handle::try_current().is_err() {
            return Err(Error::socket(what, io::Error::other("there is no tokio runtime here")));
        }
        let duplicate = self.socket.try_clone().map_err(|source| Error::socket(what, source))?;
        duplicate.set_nonblocking(true).map_err(|source| Error::socket(what, source))?;
        let socket =
            tokio::net::UnixListener::from_std(duplicate).map_err(|source| Error::socket(what, source))?;
        Ok(Incoming { socket, listener: self })
    }
}

/// The connections that come in.
#[derive(Debug)]
pub struct Incoming {
    // Dropped before the listener, which keeps the socket open until its name is gone.
    socket: tokio::net::UnixListener,
    listener: Listener,
}

impl Incoming {
    /// The next connection, and who has made it. A call that is dropped loses no connection.
    ///
    /// # Errors
    /// If a connection could not be taken. The listener stays in order; where descriptors or memory are short, pause
    /// before the next call.
    pub async fn accept(&self) -> Result<(Connection, Peer), Error> {
        loop {
            match self.socket.accept().await {
                Ok((connection, _)) => {
                    let peer = Peer::of(&connection)?;
                    return Ok((connection, peer));
                }
                // The client has gone while it waited.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(source) => return Err(Error::socket("accept a connection", source)),
            }
        }
    }

    /// The listener.
    pub fn listener(&self) -> &Listener {
        &self.listener
    }
}

/// The file of a socket, known by its number, so that another's is never removed.
#[derive(Debug)]
struct BoundFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl BoundFile {
    fn of(path: &Path) -> Result<Self, Error> {
        // Without the folder's own path a change of the working directory would lead elsewhere when the file is removed.
        let path = std::path::absolute(path).map_err(|source| Error::file("find", path, source))?;
        let metadata = path.symlink_metadata().map_err(|source| Error::file("look at", &path, source))?;
        Ok(Self { device: metadata.dev(), inode: metadata.ino(), path })
    }
}

impl Drop for BoundFile {
    fn drop(&mut self) {
        let is_ours =
            self.path.symlink_metadata().is_ok_and(|m| (m.dev(), m.ino()) == (self.device, self.inode));
        if is_ours {
            // Nobody is left to tell. The next daemon sees that nothing listens, and removes it.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Takes the lock that a live daemon holds.
fn lock(path: &Path) -> Result<File, Error> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let lock_path = PathBuf::from(name);
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed())
        .open(&lock_path)
        .map_err(|source| Error::file("open the lock", &lock_path, source))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Error::AlreadyRunning { path: path.to_owned() }),
        Err(TryLockError::Error(source)) => Err(Error::file("take the lock", &lock_path, source)),
    }
}

/// Removes a socket on which nothing listens.
fn remove_stale(path: &Path) -> Result<(), Error> {
    let kind = match path.symlink_metadata() {
        Ok(metadata) => metadata.file_type(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(Error::file("look at", path, source)),
    };
    if !kind.is_socket() {
        let found = match kind {
            _ if kind.is_dir() => "a folder",
            _ if kind.is_symlink() => "a symbolic link",
            _ if kind.is_file() => "a file",
            _ => "a device or pipe",
        };
        return Err(Error::NotASocket { path: path.to_owned(), found });
    }
    // A daemon without our lock: one that the service manager started, or another program.
    match is_served(path)? {
        Some(true) => Err(Error::AlreadyRunning { path: path.to_owned() }),
        Some(false) => {
            std::fs::remove_file(path).map_err(|source| Error::file("remove the stale socket", path, source))
        }
        None => Ok(()),
    }
}

/// On Linux the file of a socket gets the mode that the socket has when it is bound. Elsewhere that is an error, which
/// does no harm: the mode is set before anybody can connect.
fn restrict_before_bind(socket: impl AsFd) {
    let _ = rustix::fs::fchmod(socket, Mode::RUSR | Mode::WUSR);
}

/// Sets the permissions of a socket that does not listen yet.
fn open_to(path: &Path, mode: SocketMode) -> Result<(), Error> {
    let bits = match mode {
        SocketMode::Owner => 0o600,
        SocketMode::Group { gid } => {
            folder::give_to_group(path, gid)?;
            0o660
        }
    };
    std::fs::set_permissions(path, Permissions::from_mode(bits))
        .map_err(|source| Error::file("set the permissions of", path, source))
}
