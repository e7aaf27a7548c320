//! The example client in Python, which is written from `docs/formats/wire.md` alone, against a daemon that is not one:
//! it speaks real frames over a real socket, and its answers are made up by each test.
#![cfg(unix)]

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use veritas_proto::{Frame, FrameDecoder, Kind, Message, encode, limits, v1};

/// A client that hangs ends its test after so long, instead of never.
const PATIENCE: Duration = Duration::from_secs(300);

/// The socket of a daemon that is not one.
struct Daemon {
    folder: tempfile::TempDir,
    listener: UnixListener,
}

/// A connection as the daemon sees it.
struct Connection {
    stream: UnixStream,
    decoder: FrameDecoder,
}

impl Daemon {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let listener = UnixListener::bind(folder.path().join("s")).expect("a socket");
        Self { folder, listener }
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("s")
    }

    /// The connection of the client, and its `Hello`.
    fn accept(&self) -> (Connection, v1::Hello) {
        let (stream, _) = self.listener.accept().expect("a connection");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let decoder = FrameDecoder::new(limits::HANDSHAKE_BODY_BYTES_MAX);
        let mut connection = Connection { stream, decoder };
        let frame = connection.next();
        assert_eq!((frame.kind, frame.request_id), (Kind::HELLO, 0));
        connection.decoder.set_body_bytes_max(limits::BODY_BYTES_DEFAULT);
        (connection, frame.message().expect("a Hello"))
    }

    /// As [`Self::accept`], and answers; then the request.
    fn accept_request(&self) -> (Connection, v1::GenerateRequest) {
        let (mut connection, _) = self.accept();
        connection.send(Kind::WELCOME, 0, &welcome());
        let frame = connection.next();
        assert_eq!((frame.kind, frame.request_id), (Kind::GENERATE, 1));
        (connection, frame.message().expect("a GenerateRequest"))
    }
}

impl Connection {
    fn next(&mut self) -> Frame {
        self.next_or_end().expect("a frame, not the end of the connection")
    }

    fn next_or_end(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = self.decoder.next_frame().expect("frames") {
                return Some(frame);
            }
            let mut piece = [0; 1000];
            match self.stream.read(&mut piece).expect("bytes within the time") {
                0 => return None,
                n => self.decoder.push(&piece[..n]),
            }
        }
    }

    /// Sends a frame in pieces of one byte, or of some.
    fn send(&mut self, kind: Kind, request_id: u64, message: &impl Message) {
        let mut bytes = Vec::new();
        encode(&mut bytes, kind, request_id, message);
        for piece in bytes.chunks(if bytes.len() < 100 { 1 } else { 1000 }) {
            self.stream.write_all(piece).expect("the client reads");
        }
    }

    fn delta(&mut self, text: &str) {
        let choice = v1::ChoiceDelta { text: text.to_owned(), ids: vec![7, 300], ..Default::default() };
        self.send(Kind::DELTA, 1, &v1::Delta { choices: vec![choice] });
    }

    fn finish(&mut self, reason: v1::FinishReason, seed: u64) {
        let choice = v1::Choice { finish_reason: reason.into(), ..Default::default() };
        // A client reads past what it does not use: numbers with 8 bytes, a map, a message within.
        let timings = v1::Timings { load_ms: 1.5, ttft_ms: Some(0.25), ..Default::default() };
        let effective =
            v1::Effective { sandbox: [("seccomp".into(), "enforced".into())].into(), ..Default::default() };
        let finish = v1::Finish {
            choices: vec![choice],
            seed,
            timings: Some(timings),
            effective: Some(effective),
            ..Default::default()
        };
        self.send(Kind::FINISH, 1, &finish);
    }
}

fn welcome() -> v1::Welcome {
    let limits = v1::Limits {
        body_bytes_max: limits::BODY_BYTES_DEFAULT.into(),
        requests_max: limits::REQUESTS_PER_SESSION_MAX,
        credit_max: limits::CREDIT_MAX,
    };
    v1::Welcome { version: 1, session_id: vec![9; 32], limits: Some(limits), ..Default::default() }
}

fn error(code: v1::Code, message: &str, hint: Option<&str>) -> v1::Error {
    v1::Error {
        code: code.into(),
        message: message.to_owned(),
        hint: hint.map(str::to_owned),
        ..Default::default()
    }
}

/// Whether Python can be started. Prints one line where it cannot, so that a skipped test is seen.
fn has_python() -> bool {
    let found = Command::new("python3").arg("--version").output().is_ok_and(|output| output.status.success());
    if !found {
        let required = std::env::var_os("VERITAS_REQUIRE_TEST_DATA").is_some_and(|value| value == "1");
        assert!(!required, "VERITAS_REQUIRE_TEST_DATA=1, but there is no python3");
        #[allow(clippy::print_stderr)] // The line is for the person who reads the test's output.
        {
            eprintln!("skipped: there is no python3");
        }
    }
    found
}

fn client(socket: &Path, args: &[&str]) -> Child {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/python/veritas_client.py");
    let mut command = Command::new("python3");
    command.arg(script).args(args).env("VERITAS_SOCKET_PATH", socket);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("python3 starts")
}

/// What the client printed, and its exit code.
fn end(client: Child) -> (String, String, Option<i32>) {
    let Output { status, stdout, stderr } = client.wait_with_output().expect("the client ends");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    (text(stdout), text(stderr), status.code())
}

/// The answer is longer than the credit that the request gave, and longer than what a socket holds.
#[test]
fn an_answer_comes_whole_and_is_given_credit_for() {
    if !has_python() {
        return;
    }
    let daemon = Daemon::new();
    let client = client(&daemon.socket(), &["Grüße, 世界"]);
    // What the client prints is longer than what a pipe holds.
    let client = std::thread::spawn(move || end(client));
    let (mut connection, request) = daemon.accept_request();
    let message = v1::Message { role: "user".to_owned(), content: "Grüße, 世界".to_owned() };
    let chat = v1::ChatPrompt { messages: vec![message], raw_without_template: true, enable_thinking: None };
    assert_eq!(request.prompt, Some(v1::generate_request::Prompt::Chat(chat)));
    assert_eq!(
        (request.model.as_str(), request.stream, request.sampling),
        ("", true, Some(v1::Sampling::default()))
    );

    let mut credit = request.credit;
    let mut expected = String::new();
    for index in 0..300 {
        while credit == 0 {
            let frame = connection.next();
            assert_eq!((frame.kind, frame.request_id), (Kind::CREDIT, 1));
            credit += frame.message::<v1::Credit>().expect("a Credit").deltas;
        }
        credit -= 1;
        let text = format!("{index} 世界{}\n", "x".repeat(index * 3));
        connection.delta(&text);
        expected.push_str(&text);
    }
    connection.finish(v1::FinishReason::Stop, u64::MAX);
    let (stdout, stderr, code) = client.join().expect("the client's output");
    assert_eq!(stdout, expected);
    assert_eq!((stderr.as_str(), code), ("\n[stop, seed 18446744073709551615]\n", Some(0)));
}

#[test]
fn flags_become_the_fields_of_the_request() {
    if !has_python() {
        return;
    }
    let daemon = Daemon::new();
    let token = daemon.folder.path().join("token");
    std::fs::write(&token, b"\xffsecret\n").expect("a file");
    let token = token.to_str().expect("a path in UTF-8");
    let flags =
        ["--raw", "--model", "m", "-n", "300", "--seed", "18446744073709551615", "--token-file", token];
    let client = client(&daemon.socket(), &[&flags[..], &["Hi"]].concat());
    let (mut connection, hello) = daemon.accept();
    assert_eq!((hello.versions, hello.session_id), (vec![1], vec![]));
    assert_eq!(
        (hello.client_name.as_str(), hello.token.as_slice()),
        ("veritas_client.py", &b"\xffsecret"[..])
    );
    connection.send(Kind::WELCOME, 0, &welcome());
    let request = connection.next().message::<v1::GenerateRequest>().expect("a GenerateRequest");
    let prompt = v1::TextPrompt { text: "Hi".to_owned(), parse_special: false };
    assert_eq!(request.prompt, Some(v1::generate_request::Prompt::Text(prompt)));
    let sampling = v1::Sampling { seed: Some(u64::MAX), max_tokens: Some(300), ..Default::default() };
    assert_eq!((request.model.as_str(), request.sampling), ("m", Some(sampling)));
    connection.finish(v1::FinishReason::Length, 3);
    assert_eq!(end(client), (String::new(), "\n[length, seed 3]\n".to_owned(), Some(0)));
}

#[test]
fn an_error_is_shown_with_its_hint_and_gives_the_exit_code_of_its_class() {
    if !has_python() {
        return;
    }
    let daemon = Daemon::new();
    let turned_away = client(&daemon.socket(), &["Hi"]);
    let (mut connection, _) = daemon.accept();
    let why = error(v1::Code::Unauthenticated, "the token is missing or wrong", Some("give one"));
    connection.send(Kind::ERROR, 0, &why);
    drop(connection);
    let shown = "error: the token is missing or wrong\nhint: give one\n".to_owned();
    assert_eq!(end(turned_away), (String::new(), shown, Some(5)));

    for (code, exit_code) in [
        (v1::Code::Internal, 1),
        (v1::Code::ContextExceeded, 2),
        (v1::Code::Timeout, 3),
        (v1::Code::UnsupportedModel, 4),
        (v1::Code::ModelQuarantined, 5),
        (v1::Code::Cancelled, 130),
    ] {
        let client = client(&daemon.socket(), &["Hi"]);
        let (mut connection, _) = daemon.accept_request();
        connection.delta("so far");
        connection.send(Kind::ERROR, 1, &error(code, "why", None));
        assert_eq!(
            end(client),
            ("so far".to_owned(), "error: why\n".to_owned(), Some(exit_code)),
            "{code:?}"
        );
    }
}

#[test]
fn a_daemon_that_is_not_there_or_breaks_off_or_talks_nonsense_is_an_error() {
    if !has_python() {
        return;
    }
    let daemon = Daemon::new();
    let (_, stderr, code) = end(client(&daemon.folder.path().join("none"), &["Hi"]));
    assert!(stderr.starts_with("error: ") && code == Some(3), "{stderr}");

    let cut_off = client(&daemon.socket(), &["Hi"]);
    let (mut connection, _) = daemon.accept_request();
    connection.delta("half an ans");
    connection.stream.write_all(b"VSDR").expect("the client reads");
    drop(connection);
    let (stdout, stderr, code) = end(cut_off);
    assert_eq!((stdout.as_str(), code), ("half an ans", Some(3)), "{stderr}");

    let nonsense = [&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], &[255; 40]];
    let malformed = [&[0x0a, 5, 1][..], &[0x0a, 0x80], &[0x0b, 1, 2], &[0x0d, 1]].map(|body| {
        let mut bytes = Vec::new();
        veritas_proto::encode_body(&mut bytes, Kind::DELTA, 1, body);
        bytes
    });
    for bytes in nonsense.iter().copied().chain(malformed.iter().map(Vec::as_slice)) {
        let client = client(&daemon.socket(), &["Hi"]);
        let (mut connection, _) = daemon.accept_request();
        connection.stream.write_all(bytes).expect("the client reads");
        let (_, stderr, code) = end(client);
        assert!(stderr.starts_with("error: ") && !stderr.contains("Traceback"), "{stderr}");
        assert_eq!(code, Some(1), "{bytes:?}: {stderr}");
    }
}

#[test]
fn an_interrupt_cancels_the_request_and_waits_for_its_end() {
    if !has_python() {
        return;
    }
    let daemon = Daemon::new();
    let mut client = client(&daemon.socket(), &["Hi"]);
    let (mut connection, _) = daemon.accept_request();
    connection.delta("so");
    // The delta has been printed, so the client waits for the next frame.
    let mut printed = [0; 2];
    client.stdout.as_mut().expect("a pipe").read_exact(&mut printed).expect("the delta is printed");
    let kill = Command::new("kill").args(["-INT", &client.id().to_string()]).status();
    assert!(kill.expect("kill starts").success());
    loop {
        let frame = connection.next();
        assert_eq!(frame.request_id, 1);
        match frame.kind {
            Kind::CREDIT => {}
            Kind::CANCEL => break,
            other => panic!("{other}"),
        }
    }
    connection.delta(" far");
    connection.finish(v1::FinishReason::FinishCancelled, 3);
    let (stdout, stderr, code) = end(client);
    assert_eq!((stdout.as_str(), code), (" far", Some(130)), "{stderr}");
    assert!(connection.next_or_end().is_none_or(|frame| frame.kind == Kind::CREDIT));
}
