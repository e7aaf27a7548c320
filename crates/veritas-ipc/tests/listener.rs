//! What a listener does with the file system, held to with real sockets and locks. No test here starts a process: a copy
//! of this one would for a moment keep open what a test has just closed.
#![cfg(unix)]

use std::fs::Permissions;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::Path;
use std::sync::Barrier;

use veritas_ipc::{Error, Listener, SocketMode};

fn mode_of(path: &Path) -> u32 {
    path.symlink_metadata().unwrap().mode() & 0o7777
}

fn bind(path: &Path) -> Result<Listener, Error> {
    Listener::bind(path, SocketMode::Owner)
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A folder that nobody else can write to, whatever the umask of the tests is.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
    folder
}

#[test]
fn the_socket_is_for_its_owner_alone_and_so_is_a_folder_that_had_to_be_made() {
    let folder = folder();
    let path = folder.path().join("run").join("veritas").join("veritas-sdr.sock");
    let listener = bind(&path).unwrap();
    assert_eq!(mode_of(&path), 0o600);
    assert!(path.symlink_metadata().unwrap().file_type().is_socket());
    assert_eq!(mode_of(path.parent().unwrap()), 0o700);
    assert_eq!(mode_of(&folder.path().join("run")), 0o700);
    assert_eq!(mode_of(folder.path()), 0o755, "a folder that was there is left as it is");
    assert_eq!(listener.path(), Some(path.as_path()));
    assert!(!listener.is_activated());
    UnixStream::connect(&path).unwrap();
}

#[test]
fn a_group_gets_the_socket_and_a_way_to_it_and_nothing_else() {
    let folder = folder();
    let path = folder.path().join("run").join("veritas-sdr.sock");
    let own = rustix::process::getegid().as_raw();
    let gid = if is_root() { 4242 } else { own };
    let _listener = Listener::bind(&path, SocketMode::Group { gid: Some(gid) }).unwrap();
    let socket = path.symlink_metadata().unwrap();
    let run = path.parent().unwrap().metadata().unwrap();
    assert_eq!((socket.mode() & 0o7777, socket.gid()), (0o660, gid));
    assert_eq!((run.mode() & 0o7777, run.gid()), (0o710, gid));
    assert_eq!(mode_of(&folder.path().join("run/veritas-sdr.sock.lock")), 0o600);
}

#[test]
fn the_socket_goes_with_the_listener_and_can_be_bound_again() {
    let folder = folder();
    let path = folder.path().join("veritas-sdr.sock");
    for _ in 0..3 {
        let listener = bind(&path).unwrap();
        assert!(path.exists());
        drop(listener);
        assert!(!path.exists());
    }
}

#[test]
fn a_socket_that_is_not_ours_any_more_is_left_alone() {
    let folder = folder();
    let path = folder.path().join("veritas-sdr.sock");
    let listener = bind(&path).unwrap();
    std::fs::rename(&path, folder.path().join("moved.sock")).unwrap();
    let _other = UnixListener::bind(&path).unwrap();
    drop(listener);
    assert!(path.exists());
}

#[test]
fn a_live_daemon_is_never_displaced() {
    let folder = folder();
    let path = folder.path().join("veritas-sdr.sock");
    let _listener = bind(&path).unwrap();
    let inode = path.metadata().unwrap().ino();
    for _ in 0..3 {
        assert!(matches!(bind(&path), Err(Error::AlreadyRunning { path: found }) if found == path));
    }
    assert_eq!(path.metadata().unwrap().ino(), inode);
    UnixStream::connect(&path).unwrap();
}

#[test]
fn a_daemon_that_lost_its_lock_is_not_displaced_either() {
    let folder = folder();
    let path = folder.path().join("veritas-sdr.sock");
    let _listener = bind(&path).unwrap();
    std::fs::remove_file(folder.path().join("veritas-sdr.sock.lock")).unwrap();
    assert!(matches!(bind(&path), Err(Error::AlreadyRunning { .. })));
    UnixStream::connect(&path).unwrap();
}

#[test]
fn another_program_that_listens_is_not_displaced_even_if_it_accepts_nothing() {
    let folder = folder();
    let path = folder.path().join("veritas-sdr.sock");
    let other =
        rustix::net::socket(rustix::net::AddressFamily::UNIX, rustix::net::SocketType::STREAM, None).unwrap();
    rustix::net::bind(&other, &rustix::net::SocketAddrUnix::new(&path).unwrap()).unwrap();
    rustix::net::listen(&other, 0).unwrap();
    // The first attempts take the places of its queue; none of them may wait for more.
    for _ in 0..5 {
        assert!(matches!(bind(&path), Err(Error::AlreadyRunning { .. })));
    }
}

#[test]
fn a_socket_that_nobody_serves_is_replaced() {
    let folder = folder();
    let path = folder.path().join("veritas-sdr.sock");
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists(), "the standard library leaves the file behind");
    let _listener = bind(&path).unwrap();
    UnixStream::connect(&path).unwrap();
    assert_eq!(mode_of(&path), 0o600);
}

#[test]
fn of_many_that_bind_at_once_one_wins() {
    const N: usize = 8;
    let folder = folder();
    for round in 0..20 {
        let path = folder.path().join(format!("run{round}")).join("veritas-sdr.sock");
        if round % 2 == 0 {
            bind(&path).unwrap();
            drop(UnixListener::bind(&path).unwrap());
        }
        let barrier = Barrier::new(N);
        let outcomes = std::thread::scope(|scope| {
            let threads = (0..N).map(|_| {
                scope.spawn(|| {
                    barrier.wait();
                    bind(&path)
                })
            });
            let threads = threads.collect::<Vec<_>>();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
        });
        let (won, lost): (Vec<_>, Vec<_>) = outcomes.into_iter().partition(Result::is_ok);
        assert_eq!((won.len(), lost.len()), (1, N - 1), "{lost:?}");
        let is_expected =
            |outcome: &Result<Listener, Error>| matches!(outcome, Err(Error::AlreadyRunning { .. }));
        assert!(lost.iter().all(is_expected), "{lost:?}");
        UnixStream::connect(&path).unwrap();
    }
}

#[test]
fn what_is_no_socket_is_never_removed() {
    let folder = folder();
    let path = folder.path().join("veritas-sdr.sock");
    let refused = || match bind(&path) {
        Err(Error::NotASocket { found, .. }) => found,
        other => panic!("{other:?}"),
    };

    std::fs::write(&path, "precious").unwrap();
    assert_eq!(refused(), "a file");
    assert_eq!(std::fs::read(&path).unwrap(), b"precious");
    std::fs::remove_file(&path).unwrap();

    std::fs::create_dir(&path).unwrap();
    assert_eq!(refused(), "a folder");
    std::fs::remove_dir(&path).unwrap();

    // A link to a stale socket would lead the removal, or the new socket, elsewhere.
    let target = folder.path().join("target.sock");
    drop(UnixListener::bind(&target).unwrap());
    symlink(&target, &path).unwrap();
    assert_eq!(refused(), "a symbolic link");
    assert!(target.exists());
    std::fs::remove_file(&path).unwrap();

    // A socket of datagrams that is in use: connecting says that it is of another type.
    let _other = UnixDatagram::bind(&path).unwrap();
    assert!(matches!(bind(&path), Err(Error::File { .. })));
    assert!(path.exists());
}

#[test]
fn a_lock_that_is_a_link_is_refused() {
    let folder = folder();
    let path = folder.path().join("veritas-sdr.sock");
    let target = folder.path().join("target");
    symlink(&target, folder.path().join("veritas-sdr.sock.lock")).unwrap();
    assert!(matches!(bind(&path), Err(Error::File { what: "open the lock", .. })));
    assert!(!target.exists());
}

#[test]
fn a_folder_that_others_can_write_to_is_refused() {
    let folder = folder();
    let run = folder.path().join("run");
    std::fs::create_dir(&run).unwrap();
    let path = run.join("veritas-sdr.sock");
    for (mode, is_safe) in [
        (0o700, true),
        (0o755, true),
        (0o711, true),
        (0o770, false),
        (0o777, false),
        (0o1777, false),
        (0o702, false),
    ] {
        std::fs::set_permissions(&run, Permissions::from_mode(mode)).unwrap();
        match bind(&path) {
            Ok(_) => assert!(is_safe, "{mode:o}"),
            Err(Error::FolderUnsafe { path: found, .. }) => {
                assert!(!is_safe, "{mode:o}");
                assert_eq!(found, run);
            }
            Err(other) => panic!("{mode:o}: {other}"),
        }
        assert!(!path.exists());
    }
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    assert!(bind(&file.join("veritas-sdr.sock")).is_err());
}

#[test]
fn a_folder_that_others_could_put_another_in_place_of_is_refused() {
    let folder = folder();
    let path = folder.path().join("outer").join("run").join("veritas-sdr.sock");
    let outer = folder.path().join("outer");
    std::fs::create_dir(&outer).unwrap();
    for (mode, is_safe) in [(0o755, true), (0o1777, true), (0o777, false)] {
        std::fs::set_permissions(&outer, Permissions::from_mode(mode)).unwrap();
        let outcome = bind(&path);
        let is_refused = matches!(outcome, Err(Error::FolderUnsafe { .. }));
        assert_eq!((outcome.is_ok(), is_refused), (is_safe, !is_safe), "{mode:o}: {outcome:?}");
    }
}

#[test]
fn a_folder_of_another_user_is_refused() {
    if !is_root() {
        return not_run("only root can give a folder away");
    }
    let folder = folder();
    std::os::unix::fs::chown(folder.path(), Some(4242), None).unwrap();
    let outcome = bind(&folder.path().join("veritas-sdr.sock"));
    assert!(matches!(outcome, Err(Error::FolderUnsafe { .. })), "{outcome:?}");
}

#[test]
fn a_listener_outside_a_runtime_says_so() {
    let folder = folder();
    let listener = bind(&folder.path().join("veritas-sdr.sock")).unwrap();
    assert!(matches!(listener.incoming(), Err(Error::Socket { .. })));
}

/// Tells the person who reads the output why a test has shown nothing.
#[allow(clippy::print_stderr, reason = "that is its purpose")]
fn not_run(why: &str) {
    eprintln!("not run: {why}");
}
