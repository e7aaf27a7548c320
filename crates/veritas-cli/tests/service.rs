//! The daemon under a service manager: sockets that are handed over, and what the manager is told. The test takes the
//! manager's part, by systemd's protocols.
#![cfg(target_os = "linux")]

mod common;
#[path = "common/daemon.rs"]
mod harness;

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use common::{folder, path_text, veritas};
use harness::{BINARY, MODEL, eventually, signal};
use veritas_proto::{FrameDecoder, Kind, encode, v1};

/// A service manager with one service.
struct Manager {
    folder: tempfile::TempDir,
    listener: UnixListener,
    notify: UnixDatagram,
}

impl Manager {
    fn new() -> Self {
        let folder = folder();
        let listener = UnixListener::bind(folder.path().join("veritas-sdr.sock")).unwrap();
        let notify = UnixDatagram::bind(folder.path().join("notify")).unwrap();
        notify.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        Self { folder, listener, notify }
    }

    fn socket(&self) -> String {
        path_text(self.folder.path().join("veritas-sdr.sock"))
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    /// Starts the service with the socket as descriptor 3. A shell passes it on, and so the number of the process is known
    /// before it starts.
    fn start(&self, flags: &[&str]) -> Service {
        self.start_with(flags, &[])
    }

    fn start_with(&self, flags: &[&str], variables: &[(&str, &str)]) -> Service {
        let log = File::options().create(true).append(true).open(self.log()).unwrap();
        let script = "LISTEN_PID=$$ LISTEN_FDS=1 WATCHDOG_PID=$$ exec \"$0\" \"$@\" 3<&0 </dev/null";
        let child = Command::new("/bin/sh")
            .args(["-c", script, BINARY, "serve", "--model", &format!("story={MODEL}")])
            .args(flags)
            .envs(variables.iter().copied())
            .env("NOTIFY_SOCKET", self.folder.path().join("notify"))
            .env("WATCHDOG_USEC", "200000")
            .env("VERITAS_WORKER_START_TIMEOUT_MS", "90000")
            .env("VERITAS_SHUTDOWN_TIMEOUT_MS", "40000")
            .stdin(Stdio::from(OwnedFd::from(self.listener.try_clone().unwrap())))
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        Service(child)
    }

    /// The next message of the service, with its assignments in their order.
    fn told(&self) -> Vec<String> {
        let mut buffer = [0; 4096];
        let n = self.notify.recv(&mut buffer).expect("a message to the service manager");
        std::str::from_utf8(&buffer[..n]).unwrap().lines().map(str::to_owned).collect()
    }

    /// Waits for a message with an assignment; gives what came before it and the message itself.
    fn told_until(&self, assignment: &str) -> Vec<Vec<String>> {
        let mut messages = Vec::new();
        loop {
            messages.push(self.told());
            if messages.last().is_some_and(|last| last.iter().any(|line| line == assignment)) {
                return messages;
            }
        }
    }
}

struct Service(Child);

impl Drop for Service {
    fn drop(&mut self) {
        // One that has ended already is only waited for.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_socket_that_was_handed_over_is_served_and_stays() {
    let manager = Manager::new();
    let socket = manager.socket();
    // A client that comes first waits in the queue of the socket until the daemon is there.
    let mut early = UnixStream::connect(&socket).unwrap();
    early.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let mut hello = Vec::new();
    encode(&mut hello, Kind::HELLO, 0, &v1::Hello { versions: vec![1], ..v1::Hello::default() });
    early.write_all(&hello).unwrap();
    for round in 0..2 {
        let mut service = manager.start(&["--socket", "/no/such/folder/of/its/own.sock"]);
        eventually("it serves", || {
            assert!(
                service.0.try_wait().unwrap().is_none(),
                "{}",
                std::fs::read_to_string(manager.log()).unwrap()
            );
            veritas(&["ready", "--socket", &socket], b"").code == Some(0)
        });
        let outcome = veritas(&["generate", "--raw", "Once", "-n", "3", "--socket", &socket], b"");
        assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
        signal(service.0.id(), "TERM");
        assert_eq!(service.0.wait().unwrap().code(), Some(0), "round {round}");
        // The manager made the file, and starts the service again when somebody connects.
        assert!(Path::new(&socket).exists());
    }
    let mut said = Vec::new();
    early.read_to_end(&mut said).unwrap();
    let mut decoder = FrameDecoder::new(u32::MAX);
    decoder.push(&said);
    assert_eq!(decoder.next_frame().unwrap().map(|frame| frame.kind), Some(Kind::WELCOME));
}

#[test]
fn the_service_manager_is_told_what_becomes_of_the_daemon() {
    let manager = Manager::new();
    let mut service = manager.start(&[]);
    let extended = |line: &String| -> Option<u64> { line.strip_prefix("EXTEND_TIMEOUT_USEC=")?.parse().ok() };

    // While it loads: what it does, and that it needs as long as its configuration allows a worker.
    let start = manager.told_until("READY=1");
    let (ready, loading) = start.split_last().unwrap();
    assert!(loading.iter().flatten().any(|line| line == "STATUS=loading story"), "{start:?}");
    let longest = loading.iter().flatten().filter_map(extended).max();
    assert_eq!(longest, Some(90_000_000), "{start:?}");
    assert!(ready.contains(&"STATUS=serving".to_owned()), "{ready:?}");
    assert_eq!(veritas(&["ready", "--socket", &manager.socket()], b"").code, Some(0));

    // While it serves: that it lives, again and again; while it stands still, nothing.
    for _ in 0..3 {
        manager.told_until("WATCHDOG=1");
    }
    signal(service.0.id(), "STOP");
    manager.notify.set_nonblocking(true).unwrap();
    let mut buffer = [0; 4096];
    while manager.notify.recv(&mut buffer).is_ok() {}
    manager.notify.set_nonblocking(false).unwrap();
    manager.notify.set_read_timeout(Some(Duration::from_millis(600))).unwrap();
    assert!(manager.notify.recv(&mut buffer).is_err(), "a daemon that stands still says that it lives");
    manager.notify.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    signal(service.0.id(), "CONT");
    manager.told_until("WATCHDOG=1");

    // When it ends: that it does, and how long that may take.
    signal(service.0.id(), "TERM");
    let end = manager.told_until("STOPPING=1");
    let longest = end.last().unwrap().iter().filter_map(extended).max();
    assert!(longest.is_some_and(|usec| usec >= 40_000_000), "{end:?}");
    assert_eq!(service.0.wait().unwrap().code(), Some(0));
}

#[test]
fn the_token_can_come_as_a_credential_of_the_service() {
    let manager = Manager::new();
    let credentials = path_text(manager.folder.path().join("credentials"));
    std::fs::create_dir(&credentials).unwrap();
    let token = format!("{credentials}/veritas-token");
    std::fs::write(&token, "correct horse battery staple\n").unwrap();
    let variables = [("CREDENTIALS_DIRECTORY", credentials.as_str())];
    let mut service = manager.start_with(&[], &variables);
    manager.told_until("READY=1");
    let socket = manager.socket();
    assert_eq!(veritas(&["live", "--socket", &socket, "--token-file", &token], b"").code, Some(0));
    assert_eq!(veritas(&["live", "--socket", &socket], b"").code, Some(5));
    signal(service.0.id(), "TERM");
    assert_eq!(service.0.wait().unwrap().code(), Some(0));
    // A credential that is empty protects nothing, and is not taken for none.
    std::fs::write(&token, "\n").unwrap();
    assert_eq!(manager.start_with(&[], &variables).0.wait().unwrap().code(), Some(2));
}

#[test]
fn a_service_that_cannot_start_never_says_that_it_is_ready() {
    let manager = Manager::new();
    let bad = manager.folder.path().join("bad.gguf");
    File::create(&bad).unwrap().write_all(b"GGUF and nothing else").unwrap();
    let mut service = manager.start(&["--model", &format!("bad={}", bad.display())]);
    assert_eq!(service.0.wait().unwrap().code(), Some(4));
    manager.notify.set_nonblocking(true).unwrap();
    let mut buffer = [0; 4096];
    while let Ok(n) = manager.notify.recv(&mut buffer) {
        assert!(!String::from_utf8_lossy(&buffer[..n]).contains("READY=1"));
    }
}
