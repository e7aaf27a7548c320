//! What listener and client do where another process is needed: one that is killed or stopped, has a umask or a directory
//! of its own, or belongs to another user.
#![cfg(unix)]

use std::fs::Permissions;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use veritas_ipc::blocking::Client;
use veritas_ipc::{
    ClientOptions, Connection, Error, FrameReader, FrameWriter, Handshake, HandshakeConfig, Listener, Peer,
    SocketMode, session_id,
};
use veritas_proto::{Kind, v1};

fn mode_of(path: &Path) -> u32 {
    path.symlink_metadata().unwrap().mode() & 0o7777
}

fn bind(path: &Path) -> Result<Listener, Error> {
    Listener::bind(path, SocketMode::Owner)
}

/// A folder that nobody else can write to, whatever the umask of the tests is.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
    folder
}

#[test]
fn a_relative_path_is_removed_where_it_was_bound() {
    // The working directory belongs to the whole process, so this happens in one of its own.
    let folder = folder();
    let mut child = child("child_that_changes_its_directory", folder.path());
    expect_success(child.current_dir(folder.path()));
    assert!(!folder.path().join("veritas-sdr.sock").exists());
}

#[test]
fn child_that_changes_its_directory() {
    if argument().is_none() {
        return;
    }
    let listener = bind(Path::new("veritas-sdr.sock")).unwrap();
    std::env::set_current_dir("/").unwrap();
    drop(listener);
}

#[test]
fn what_a_killed_daemon_left_behind_is_replaced() {
    let folder = folder();
    let path = folder.path().join("veritas-sdr.sock");
    let mut daemon =
        child("child_that_serves", &path).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    wait_for_line(&mut daemon, "bound");
    assert!(matches!(bind(&path), Err(Error::AlreadyRunning { .. })));
    daemon.kill().unwrap();
    daemon.wait().unwrap();
    assert!(path.exists(), "a process that is killed cleans up nothing");
    let _listener = bind(&path).unwrap();
    UnixStream::connect(&path).unwrap();
}

#[test]
fn child_that_serves() {
    let Some(path) = argument() else { return };
    let _listener = bind(&path).unwrap();
    say("bound");
    // Until it is killed, or the test that waits for it is gone.
    let _ = std::io::stdin().lines().next();
}

#[test]
fn a_daemon_that_is_stopped_cannot_hold_a_client_and_answers_when_it_goes_on() {
    let folder = folder();
    let path = folder.path().join("veritas-sdr.sock");
    let mut daemon =
        child("child_that_answers", &path).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    wait_for_line(&mut daemon, "bound");
    let pid = Pid::from_child(&daemon);
    kill_process(pid, Signal::STOP).unwrap();
    let (_, status) = waitpid(Some(pid), WaitOptions::UNTRACED).unwrap().unwrap();
    assert!(status.stopped());
    let options = |limit| ClientOptions { timeout: Some(limit), ..ClientOptions::default() };
    let probe = |limit| Client::probe(&path, &options(limit), &v1::LiveRequest {});
    let outcome = probe(Duration::from_millis(100));
    assert!(matches!(outcome, Err(Error::Timeout { .. })), "{outcome:?}");
    kill_process(pid, Signal::CONT).unwrap();
    assert_eq!(probe(Duration::from_secs(60)).unwrap().uptime_ms, 5);
    drop(daemon.stdin.take());
    daemon.kill().unwrap();
    daemon.wait().unwrap();
}

#[test]
fn child_that_answers() {
    let Some(path) = argument() else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
    runtime.block_on(async {
        let incoming = bind(&path).unwrap().incoming().unwrap();
        say("bound");
        loop {
            let (connection, peer) = incoming.accept().await.unwrap();
            // A client that has given up in the meantime is no reason to stop.
            let _ = answer(connection, &peer).await;
        }
    });
}

/// Lets a client in and answers one LIVE.
async fn answer(connection: Connection, peer: &Peer) -> Result<(), Error> {
    let (read, write) = connection.into_split();
    let (mut reader, mut writer) = (FrameReader::new(read, 1 << 20), FrameWriter::new(write));
    let handshake = Handshake::new(HandshakeConfig::new("test"));
    let hello = reader.next().await?.ok_or(Error::Disconnected)?;
    let accepted = handshake.frame(hello, peer, session_id()?).unwrap();
    writer.put(Kind::WELCOME, 0, &handshake.welcome(&accepted, Vec::new()));
    writer.flush().await?;
    let live = reader.next().await?.ok_or(Error::Disconnected)?;
    assert_eq!(live.kind, Kind::LIVE);
    writer.put(Kind::LIVE_REPLY, live.request_id, &v1::LiveReply { uptime_ms: 5 });
    writer.flush().await
}

#[test]
fn a_strange_umask_neither_opens_the_socket_nor_closes_it() {
    // The umask belongs to the whole process, so this happens in one of its own.
    let folder = folder();
    expect_success(&mut child("child_with_a_strange_umask", folder.path()));
}

#[test]
fn child_with_a_strange_umask() {
    let Some(folder) = argument() else { return };
    for (name, umask) in [("open", 0o000), ("closed", 0o077), ("odd", 0o027)] {
        rustix::process::umask(rustix::fs::Mode::from_raw_mode(umask));
        let path = folder.join(name).join("veritas-sdr.sock");
        let _listener = bind(&path).unwrap();
        assert_eq!(mode_of(&path), 0o600, "{umask:o}");
        assert_eq!(mode_of(path.parent().unwrap()), 0o700, "{umask:o}");
        let path = folder.join(name).join("group.sock");
        let _listener = Listener::bind(&path, SocketMode::Group { gid: None }).unwrap();
        assert_eq!(mode_of(&path), 0o660, "{umask:o}");
    }
}

#[tokio::test(flavor = "current_thread")]
async fn a_stranger_is_known_as_such() {
    if !rustix::process::geteuid().is_root() {
        return not_run("only root can start a process of another user");
    }
    let folder = folder();
    let path = folder.path().join("veritas-sdr.sock");
    let incoming = bind(&path).unwrap().incoming().unwrap();
    assert_eq!(incoming.listener().path(), Some(path.as_path()));
    // The socket's own permissions would keep the stranger out.
    std::fs::set_permissions(&path, Permissions::from_mode(0o666)).unwrap();
    let mut stranger = child("child_that_connects", &path).uid(4242).gid(4343).spawn().unwrap();
    let (_connection, peer) = incoming.accept().await.unwrap();
    assert_eq!((peer.uid, peer.gid, peer.pid), (4242, 4343, Some(stranger.id())));
    assert!(!veritas_ipc::AllowList::own_user().allows(&peer));
    assert!(stranger.wait().unwrap().success());
    drop(incoming);
    assert!(!path.exists(), "the file goes with the incoming connections, too");
}

#[test]
fn child_that_connects() {
    if let Some(path) = argument() {
        UnixStream::connect(path).unwrap();
    }
}

/// This test program again, as a process that does only what the test called `name` does with an argument.
fn child(name: &str, argument: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", name, "--nocapture"]).env("VERITAS_IPC_TEST_ARGUMENT", argument);
    command
}

fn expect_success(child: &mut Command) {
    let output = child.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("running 1 test\n"), "there is no such test: {child:?}");
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
}

fn argument() -> Option<PathBuf> {
    std::env::var_os("VERITAS_IPC_TEST_ARGUMENT").map(PathBuf::from)
}

fn say(line: &str) {
    let mut out = std::io::stdout();
    writeln!(out, "{line}").and_then(|()| out.flush()).unwrap();
}

/// Waits until the child has said `line`, which may stand after what the test harness says on the same one.
fn wait_for_line(child: &mut Child, line: &str) {
    let out = BufReader::new(child.stdout.as_mut().unwrap());
    let is_said = out.lines().map_while(Result::ok).any(|found| found.ends_with(line));
    assert!(is_said, "the child ended before it said {line}");
}

/// Tells the person who reads the output why a test has shown nothing.
#[allow(clippy::print_stderr, reason = "that is its purpose")]
fn not_run(why: &str) {
    eprintln!("not run: {why}");
}
