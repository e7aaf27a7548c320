//! Sockets that a service manager hands over: each test starts a process with a descriptor 3, as systemd does.
#![cfg(unix)]

use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::Path;
use std::process::{Command, Stdio};

use veritas_ipc::{Error, Listener};

/// Runs the test called `name` in a process whose descriptor 3 is `fd`. A shell passes it on, and so the number of the
/// process is known before it starts.
fn activated(name: &str, fd: impl Into<OwnedFd>, variables: &str) -> bool {
    let script = format!("{variables} exec \"$0\" --exact {name} 3<&0");
    let output = Command::new("/bin/sh")
        .args(["-c", &script])
        .arg(std::env::current_exe().unwrap())
        .env("VERITAS_IPC_TEST_CHILD", "1")
        .stdin(Stdio::from(fd.into()))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("running 1 test\n"), "there is no test called {name}");
    output.status.success()
}

const FOR_US: &str = "LISTEN_PID=$$ LISTEN_FDS=1";

fn is_child() -> bool {
    std::env::var_os("VERITAS_IPC_TEST_CHILD").is_some()
}

fn socket(folder: &Path) -> UnixListener {
    UnixListener::bind(folder.join("veritas-sdr.sock")).unwrap()
}

#[test]
fn a_socket_that_was_handed_over_is_served_and_its_file_is_left_to_the_manager() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("veritas-sdr.sock");
    let listener = socket(folder.path());
    // It waits in the queue of the socket, as the connection that made the manager start the daemon does.
    let _client = UnixStream::connect(&path).unwrap();
    assert!(activated("child_that_serves_what_it_was_given", listener, FOR_US));
    assert!(path.exists());
}

#[test]
fn child_that_serves_what_it_was_given() {
    if !is_child() {
        return;
    }
    let listener = Listener::from_activation().unwrap().expect("a socket");
    assert!(listener.is_activated());
    assert_eq!(listener.path().unwrap().file_name().unwrap(), "veritas-sdr.sock");
    for name in ["LISTEN_PID", "LISTEN_FDS"] {
        assert!(std::env::var_os(name).is_none(), "{name} would lead a child of ours astray");
    }
    assert!(Listener::from_activation().unwrap().is_none(), "it is handed over once");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
    let peer = runtime.block_on(async { listener.incoming().unwrap().accept().await.unwrap().1 });
    assert_eq!(peer.uid, rustix::process::geteuid().as_raw());
}

#[test]
fn what_cannot_be_served_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |fd: OwnedFd, variables: &str| activated("child_that_is_given_nonsense", fd, variables);
    let datagrams = UnixDatagram::bind(folder.path().join("datagrams")).unwrap();
    assert!(refused(datagrams.into(), FOR_US), "a socket of datagrams");
    let (connected, _far) = UnixStream::pair().unwrap();
    assert!(refused(connected.into(), FOR_US), "a connection");
    let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    assert!(refused(tcp.into(), FOR_US), "an internet socket");
    let file = std::fs::File::create(folder.path().join("file")).unwrap();
    assert!(refused(file.into(), FOR_US), "a file");
    for count in ["2", "4000000000", "-1", "many", "18446744073709551616"] {
        let variables = format!("LISTEN_PID=$$ LISTEN_FDS={count}");
        let file = std::fs::File::open("/dev/null").unwrap();
        assert!(refused(file.into(), &variables), "LISTEN_FDS={count}");
    }
}

#[test]
fn child_that_is_given_nonsense() {
    if is_child() {
        let outcome = Listener::from_activation();
        assert!(matches!(outcome, Err(Error::Activation { .. })), "{outcome:?}");
    }
}

#[test]
fn a_socket_for_another_process_is_not_taken() {
    let folder = tempfile::tempdir().unwrap();
    let listener = socket(folder.path());
    for variables in [
        "",
        "LISTEN_FDS=1",
        "LISTEN_PID=1 LISTEN_FDS=1",
        "LISTEN_PID=1 LISTEN_FDS=4000000000",
        "LISTEN_PID=$$ LISTEN_FDS=0",
    ] {
        let fd = listener.try_clone().unwrap();
        assert!(activated("child_that_is_given_nothing", fd, variables), "{variables}");
    }
}

#[test]
fn child_that_is_given_nothing() {
    if is_child() {
        assert!(Listener::from_activation().unwrap().is_none());
    }
}
