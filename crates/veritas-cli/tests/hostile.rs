//! Clients that mean no good, or know no better, against the real daemon: it stays, and serves the others all the while.
#![cfg(target_os = "linux")]

mod common;
#[path = "common/daemon.rs"]
mod harness;

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use harness::{BINARY, Daemon, Launch, eventually, signal};
use veritas_proto::v1::generate_request::Prompt;
use veritas_proto::{Frame, FrameDecoder, Header, Kind, Message, encode, encode_body, limits, v1};

/// A connection on which a test says what it likes.
struct Session {
    stream: UnixStream,
    decoder: FrameDecoder,
}

impl Session {
    /// Connects, and is let in.
    fn open(daemon: &Daemon) -> (Self, v1::Welcome) {
        let mut session =
            Self { stream: daemon.connect(), decoder: FrameDecoder::new(limits::BODY_BYTES_MAX) };
        session.send(Kind::HELLO, 0, &v1::Hello { versions: vec![1], ..v1::Hello::default() });
        let welcome = session.frame();
        assert_eq!((welcome.kind, welcome.request_id), (Kind::WELCOME, 0));
        (session, welcome.message().unwrap())
    }

    fn send(&mut self, kind: Kind, id: u64, message: &impl Message) {
        let mut bytes = Vec::new();
        encode(&mut bytes, kind, id, message);
        self.stream.write_all(&bytes).unwrap();
    }

    /// The next frame; `None` at the end of the connection.
    fn next(&mut self) -> Option<Frame> {
        let mut buffer = vec![0; 1 << 16];
        loop {
            if let Some(frame) = self.decoder.next_frame().expect("a frame") {
                return Some(frame);
            }
            match self.stream.read(&mut buffer) {
                Ok(0) => return None,
                Ok(n) => self.decoder.push(&buffer[..n]),
                // A daemon that closes with bytes of ours unread.
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("no answer came: {error}"),
            }
        }
    }

    fn frame(&mut self) -> Frame {
        self.next().expect("another frame")
    }

    /// The end of a request: its code, or `None` if it was answered.
    fn end_of(&mut self, id: u64) -> Option<v1::Code> {
        loop {
            let frame = self.frame();
            match frame.kind {
                Kind::DELTA => {}
                Kind::ERROR if frame.request_id == id => {
                    return Some(frame.message::<v1::Error>().unwrap().code());
                }
                _ if frame.request_id == id => return None,
                kind => panic!("{kind} for request {} came in place of the end of {id}", frame.request_id),
            }
        }
    }
}

fn generate(text: &str, n: u32, stream: bool) -> v1::GenerateRequest {
    v1::GenerateRequest {
        prompt: Some(Prompt::Text(v1::TextPrompt { text: text.to_owned(), parse_special: false })),
        sampling: Some(v1::Sampling {
            max_tokens: Some(n),
            seed: Some(7),
            ignore_eos: true,
            ..v1::Sampling::default()
        }),
        stream,
        ..v1::GenerateRequest::default()
    }
}

/// The numbers of a seed: SplitMix64, by Steele, Lea and Flood.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`, which is not 0.
    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    fn bytes(&mut self, n: usize) -> Vec<u8> {
        (0..n).map(|_| self.next() as u8).collect()
    }
}

/// A session as a client may lead it: some frames, with their bodies.
fn session(random: &mut Random) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    let mut add = |kind, id, message: &dyn Fn(&mut Vec<u8>)| {
        let mut body = Vec::new();
        message(&mut body);
        let mut frame = Vec::new();
        encode_body(&mut frame, kind, id, &body);
        frames.push(frame);
    };
    macro_rules! add {
        ($kind:expr, $id:expr, $message:expr) => {
            add($kind, $id, &|body| $message.encode(body).unwrap())
        };
    }
    let client_name = "fuzz".to_owned();
    add!(
        Kind::HELLO,
        0,
        v1::Hello { versions: vec![1], client_name: client_name.clone(), ..v1::Hello::default() }
    );
    for id in 1..=1 + random.below(8) as u64 {
        match random.below(11) {
            0 => add!(Kind::GENERATE, id, generate("Once upon a time", 4, true)),
            1 => add!(
                Kind::GENERATE,
                id,
                v1::GenerateRequest { n_choices: 3, credit: 1, ..generate("Mira", 3, true) }
            ),
            2 => add!(Kind::GENERATE, id, generate("In a little village", 2, false)),
            3 => {
                add!(Kind::GENERATE, id, generate("Once", 500, true));
                add!(Kind::CREDIT, id, v1::Credit { deltas: u32::MAX });
                add!(Kind::CANCEL, id, v1::Cancel {});
            }
            4 => {
                let text = "a text".to_owned();
                add!(
                    Kind::TOKENIZE,
                    id,
                    v1::TokenizeRequest { text: text.clone(), ..v1::TokenizeRequest::default() }
                );
            }
            5 => add!(
                Kind::DETOKENIZE,
                id,
                v1::DetokenizeRequest { ids: vec![300, 301, 5], ..Default::default() }
            ),
            6 => add!(Kind::MODEL_INFO, id, v1::ModelInfoRequest { name: "story".to_owned() }),
            7 => {
                let (name, path) = ("nothing".to_owned(), "/no/such/model.gguf".to_owned());
                add!(Kind::MODEL_LOAD, id, v1::ModelLoadRequest { name: name.clone(), path: path.clone() });
            }
            8 => add!(Kind::MODEL_UNLOAD, id, v1::ModelUnloadRequest { name: "nothing".to_owned() }),
            9 => {
                let kinds =
                    [Kind::LIVE, Kind::READY, Kind::HEALTH, Kind::STATUS, Kind::METRICS, Kind::MODEL_LIST];
                let kind = kinds[random.below(kinds.len())];
                add!(kind, id, v1::LiveRequest {});
            }
            _ => add!(Kind::CANCEL, random.next() % 4, v1::Cancel {}),
        }
    }
    frames
}

/// Changes a session in one of the ways in which a client goes wrong.
fn mutate(mut frames: Vec<Vec<u8>>, random: &mut Random) -> Vec<u8> {
    const HOSTILE: [u32; 7] = [0, 1, 16 << 10, (16 << 10) + 1, (1 << 20) + 1, (64 << 20) + 1, u32::MAX];
    for _ in 0..random.below(4) {
        let (at, n) = (random.below(frames.len()), frames.len());
        match random.below(10) {
            0 => frames.swap(at, n - 1),
            1 => frames.insert(at, frames[n - 1].clone()),
            2 => frames[at][12..16].copy_from_slice(&HOSTILE[random.below(HOSTILE.len())].to_le_bytes()),
            3 => frames[at][6..8].copy_from_slice(&(random.next() as u16 % 100).to_le_bytes()),
            4 => {
                // A body of any bytes, with a header that fits them.
                let n_bytes = random.below(300);
                let body = random.bytes(n_bytes);
                let (kind, id) = (frames[at][6], u64::from(frames[at][16]));
                frames[at].clear();
                encode_body(&mut frames[at], Kind(kind.into()), id, &body);
            }
            5 => {
                let cut = random.below(frames[at].len());
                frames[at].truncate(cut);
            }
            6 => {
                let n_bytes = 1 + random.below(40);
                let bytes = random.bytes(n_bytes);
                let place = random.below(frames[at].len() + 1);
                frames[at].splice(place..place, bytes);
            }
            _ => {
                let byte = random.below(frames[at].len());
                frames[at][byte] ^= 1 << random.below(8);
            }
        }
        // Further changes need a header to change.
        frames.retain(|frame| frame.len() >= Header::BYTES);
        if frames.is_empty() {
            break;
        }
    }
    frames.concat()
}

/// Whether the daemon would be told to end, or to give up its model, which it may: the test is an administrator.
fn is_an_order(bytes: &[u8]) -> bool {
    let mut decoder = FrameDecoder::new(u32::MAX);
    decoder.push(bytes);
    while let Ok(Some(frame)) = decoder.next_frame() {
        if frame.kind == Kind::DRAIN || frame.kind == Kind::MODEL_UNLOAD && frame.body.ends_with(b"story") {
            return true;
        }
    }
    false
}

/// Leads one mutated session, in pieces of any length. What comes back must be frames of the daemon, whatever was sent.
/// Gives how many came.
fn lead(daemon: &Daemon, random: &mut Random) -> usize {
    let bytes = mutate(session(random), random);
    if is_an_order(&bytes) {
        return 0;
    }
    let mut stream = daemon.connect();
    let mut rest = &bytes[..];
    while !rest.is_empty() {
        let n = if random.below(3) == 0 { 1 + random.below(rest.len().min(40)) } else { rest.len() };
        // A daemon that has heard enough does not read the rest.
        if stream.write_all(&rest[..n]).is_err() {
            break;
        }
        rest = &rest[n..];
    }
    // Some vanish without a look at the answers, others with their requests still running.
    let looks_for = random.below(3);
    if looks_for == 0 {
        return 0;
    }
    if looks_for == 1 {
        let _ = stream.shutdown(std::net::Shutdown::Write);
    }
    stream.set_read_timeout(Some(Duration::from_millis(if looks_for == 1 { 2000 } else { 20 }))).unwrap();
    let (mut decoder, mut buffer, mut n_frames) =
        (FrameDecoder::new(limits::BODY_BYTES_MAX), vec![0; 1 << 16], 0);
    while let Ok(n @ 1..) = stream.read(&mut buffer) {
        decoder.push(&buffer[..n]);
        while let Some(frame) = decoder.next_frame().expect("what the daemon sends is frames") {
            assert!(!frame.kind.is_from_client() && !frame.kind.is_internal(), "{frame:?}");
            frame.check().expect("with bodies that can be read");
            n_frames += 1;
        }
    }
    n_frames
}

/// Sessions of one seed that are led before and after the memory is looked at for the first time.
const SESSIONS: usize = 400;

#[test]
fn fuzzed_sessions_hurt_nobody_but_themselves() {
    let daemon = Daemon::start(&[]);
    let flags = ["generate", "--json", "--raw", "Once upon a time", "-n", "12", "--seed", "3"];
    let expected = daemon.run(&flags).json();
    let n_frames = AtomicUsize::new(0);
    let mut holdings = Vec::new();
    for round in 0..2 {
        let n_left = AtomicUsize::new(4);
        std::thread::scope(|scope| {
            for seed in 0..4 {
                let (daemon, n_frames, n_left) = (&daemon, &n_frames, &n_left);
                scope.spawn(move || {
                    let mut random = Random(1000 * round + seed);
                    for _ in 0..SESSIONS {
                        n_frames.fetch_add(lead(daemon, &mut random), Ordering::Relaxed);
                    }
                    n_left.fetch_sub(1, Ordering::Relaxed);
                });
            }
            let mut n_answers = 0;
            while n_left.load(Ordering::Relaxed) > 0 || n_answers == 0 {
                let answer = daemon.run(&flags).json();
                for field in ["text", "ids", "logprobs", "finish_reason"] {
                    assert_eq!(answer[field], expected[field], "{field}");
                }
                n_answers += 1;
            }
        });
        eventually("nothing runs", || daemon.status()["requests"]["running"] == 0);
        eventually("nobody is connected", || daemon.status()["sessions"] == 1);
        let worker = daemon.worker_pid("story");
        holdings.push([Daemon::holdings(daemon.pid()), Daemon::holdings(worker)]);
    }
    // If nothing came back, nothing was understood, and the test would show nothing.
    assert!(n_frames.load(Ordering::Relaxed) > SESSIONS, "{n_frames:?}");
    for (before, after) in holdings[0].into_iter().zip(holdings[1]) {
        assert!(after.0 <= before.0 + 2, "descriptors: {before:?} became {after:?}");
        assert!(after.1 <= before.1 + 1, "threads: {before:?} became {after:?}");
        assert!(after.2 <= before.2 + (8 << 20), "memory: {before:?} became {after:?}");
    }
    let model = daemon.model("story");
    assert_eq!((&model["state"], &model["worker"]["restarts"]), (&"ready".into(), &0.into()), "{model}");
    assert!(!daemon.log().contains("panicked"), "{}", daemon.log());
}

/// Hunts for memory that is reserved for what a header announces.
#[test]
fn headers_that_announce_much_reserve_nothing() {
    let daemon = Daemon::with_config("[socket]\nbody_bytes_max = \"64MiB\"\n", &[]);
    let before = Daemon::holdings(daemon.pid()).2;
    let sessions = (0..64).map(|_| {
        let (mut session, welcome) = Session::open(&daemon);
        assert_eq!(welcome.limits.unwrap().body_bytes_max, 64 << 20);
        let header = Header { kind: Kind::GENERATE, body_bytes: 64 << 20, request_id: 1 };
        session.stream.write_all(&header.to_bytes()).unwrap();
        session.stream.write_all(&[0; 1000]).unwrap();
        session
    });
    let sessions = sessions.collect::<Vec<_>>();
    assert_eq!(daemon.run(&["live"]).code, Some(0));
    let after = Daemon::holdings(daemon.pid()).2;
    assert!(after < before + (48 << 20), "{before} became {after} for {} sessions", sessions.len());
}

/// The message of so many bytes, of those that `make` makes with a text of a given length.
fn with_length<M: Message>(bytes: usize, make: impl Fn(usize) -> M) -> M {
    let n = (0..bytes).rev().find(|&n| make(n).encoded_len() <= bytes).expect("a length that fits");
    let message = make(n);
    assert_eq!(message.encoded_len(), bytes);
    message
}

#[test]
fn a_body_of_the_greatest_length_is_taken_and_one_byte_more_ends_the_session() {
    let of_length = |n: usize| v1::TokenizeRequest { text: "a".repeat(n), ..v1::TokenizeRequest::default() };
    for (config, limit) in [("", 1 << 20), ("[socket]\nbody_bytes_max = \"2MiB\"\n", 2 << 20)] {
        let daemon = Daemon::with_config(config, &[]);
        let (mut session, welcome) = Session::open(&daemon);
        assert_eq!(welcome.limits.unwrap().body_bytes_max, limit as u64);
        session.send(Kind::TOKENIZE, 1, &with_length(limit, of_length));
        let reply = session.frame();
        assert_eq!((reply.kind, reply.request_id), (Kind::TOKENIZE_REPLY, 1), "{reply:?}");
        // The header is enough to be refused.
        let header = Header { kind: Kind::TOKENIZE, body_bytes: limit as u32 + 1, request_id: 2 };
        session.stream.write_all(&header.to_bytes()).unwrap();
        let error = session.frame();
        assert_eq!((error.kind, error.request_id), (Kind::ERROR, 0));
        assert_eq!(error.message::<v1::Error>().unwrap().code(), v1::Code::Usage);
        assert!(session.next().is_none());
    }
}

#[test]
fn a_greeting_may_have_sixteen_kibibytes_and_no_more() {
    let daemon = Daemon::start(&[]);
    let most = limits::HANDSHAKE_BODY_BYTES_MAX;
    for (body_bytes, is_taken) in [(most, true), (most + 1, false)] {
        let mut stream = daemon.connect();
        let hello = with_length(body_bytes as usize, |n| v1::Hello {
            versions: vec![1],
            features: vec!["x".repeat(n)],
            ..v1::Hello::default()
        });
        let mut bytes = Vec::new();
        encode(&mut bytes, Kind::HELLO, 0, &hello);
        // What is refused is refused for its header.
        let n_sent = if is_taken { bytes.len() } else { Header::BYTES };
        stream.write_all(&bytes[..n_sent]).unwrap();
        let mut session = Session { stream, decoder: FrameDecoder::new(limits::BODY_BYTES_MAX) };
        let kind = if is_taken { Kind::WELCOME } else { Kind::ERROR };
        assert_eq!(session.frame().kind, kind);
    }
}

#[test]
fn a_connection_has_as_many_open_requests_as_it_was_told_and_no_more() {
    let daemon = Daemon::with_config("[worker]\nheartbeat_timeout_ms = 600000\n", &[]);
    let worker = daemon.worker_pid("story");
    signal(worker, "STOP");
    let (mut session, welcome) = Session::open(&daemon);
    let most = u64::from(welcome.limits.unwrap().requests_max);
    assert_eq!(most, 256);
    for id in 1..=most {
        session.send(Kind::GENERATE, id, &generate("Once", 2, false));
    }
    session.send(Kind::GENERATE, most + 1, &generate("Once", 2, false));
    let refusal = session.frame();
    assert_eq!((refusal.kind, refusal.request_id), (Kind::ERROR, most + 1));
    let error: v1::Error = refusal.message().unwrap();
    assert_eq!(error.code(), v1::Code::RateLimited);
    assert!(error.retry_after_ms.is_some());
    // Questions to the daemon itself are answered all the same.
    session.send(Kind::LIVE, most + 2, &v1::LiveRequest {});
    assert_eq!(session.frame().kind, Kind::LIVE_REPLY);
    signal(worker, "CONT");
    // Each of the others gets its answer, in whichever order.
    let mut answers = BTreeMap::new();
    while answers.len() < most as usize {
        let frame = session.frame();
        assert_eq!(frame.kind, Kind::FINISH, "{frame:?}");
        let finish: v1::Finish = frame.message().unwrap();
        assert!(answers.insert(frame.request_id, finish.choices[0].text.clone()).is_none());
    }
    assert!(answers.values().all(|text| *text == answers[&1]));
    session.send(Kind::GENERATE, most + 1, &generate("Once", 2, false));
    assert_eq!(session.end_of(most + 1), None);
}

#[test]
fn a_user_has_as_many_requests_as_the_operator_allows() {
    let config = "[limits]\nrequests_per_principal_max = 2\n[worker]\nheartbeat_timeout_ms = 600000\n";
    let daemon = Daemon::with_config(config, &[]);
    let worker = daemon.worker_pid("story");
    signal(worker, "STOP");
    let waiting = [(); 2].map(|()| daemon.spawn(&["generate", "--json", "--raw", "Once", "-n", "2"]));
    eventually("both are there", || daemon.status()["requests"]["running"] == 2);
    let (code, name, _) = daemon.run(&["generate", "--json", "--raw", "Once", "-n", "2"]).error();
    assert_eq!((code, name.as_str()), (5, "rate_limited"));
    signal(worker, "CONT");
    for client in waiting {
        assert!(client.wait_with_output().unwrap().status.success());
    }
    assert_eq!(daemon.run(&["generate", "--raw", "Once", "-n", "2"]).code, Some(0));
}

#[test]
fn credit_beyond_all_bounds_does_no_harm_and_what_comes_too_late_is_passed_over() {
    let daemon = Daemon::start(&[]);
    let (mut session, _) = Session::open(&daemon);
    let plain = |session: &mut Session, id, extra: bool| {
        session.send(Kind::GENERATE, id, &v1::GenerateRequest { credit: 1, ..generate("Once", 60, true) });
        if extra {
            for _ in 0..4 {
                session.send(Kind::CREDIT, id, &v1::Credit { deltas: u32::MAX });
            }
        }
        let (mut text, mut n_deltas) = (String::new(), 0);
        loop {
            let frame = session.frame();
            assert_eq!(frame.request_id, id, "{frame:?}");
            match frame.kind {
                Kind::DELTA => {
                    n_deltas += 1;
                    let delta: v1::Delta = frame.message().unwrap();
                    text.extend(delta.choices.into_iter().map(|choice| choice.text));
                    if !extra {
                        session.send(Kind::CREDIT, id, &v1::Credit { deltas: 1 });
                    }
                }
                Kind::FINISH => return (text, n_deltas),
                kind => panic!("{kind}"),
            }
        }
    };
    let (rich, n_rich) = plain(&mut session, 1, true);
    let (poor, n_poor) = plain(&mut session, 2, false);
    assert_eq!(rich, poor);
    assert!(n_rich > 1 && n_poor > 1, "{n_rich}, {n_poor}");
    // Both have ended, 9 never was, 0 is no request.
    for id in [1, 2, 9, 0] {
        session.send(Kind::CREDIT, id, &v1::Credit { deltas: 1 });
        session.send(Kind::CANCEL, id, &v1::Cancel {});
    }
    session.send(Kind::LIVE, 3, &v1::LiveRequest {});
    assert_eq!(session.frame().kind, Kind::LIVE_REPLY, "nothing was said of them");
    // An id can be used again once its request has ended.
    assert_eq!(plain(&mut session, 1, true).0, rich);
}

#[test]
fn what_is_not_understood_is_refused_and_the_session_goes_on() {
    let daemon = Daemon::start(&[]);
    let (mut session, _) = Session::open(&daemon);
    // A field that nobody knows, in a question that has none.
    let mut bytes = Vec::new();
    encode_body(&mut bytes, Kind::LIVE, 1, &[15 << 3, 1]);
    encode_body(&mut bytes, Kind::MODEL_INFO, 2, &[0xff; 9]);
    encode_body(&mut bytes, Kind::GENERATE, 3, &[15 << 3, 1]);
    session.stream.write_all(&bytes).unwrap();
    for id in 1..=3 {
        assert_eq!(session.end_of(id), Some(v1::Code::Usage), "{id}");
    }
    session.send(Kind::LIVE, 4, &v1::LiveRequest {});
    assert_eq!(session.end_of(4), None);
}

/// A user other than the one that runs the tests, who has no rights.
const NOBODY: u32 = 65534;

/// Whether processes of another user can be started that execute the binary; says so if they cannot.
fn can_be_another_user() -> bool {
    let child = Command::new(BINARY).arg("--version").uid(NOBODY).gid(NOBODY).stdout(Stdio::null()).status();
    let can = child.is_ok_and(|status| status.success());
    if !can {
        // Past the test harness, which keeps what a passing test prints.
        let mut stderr = std::io::stderr();
        writeln!(stderr, "skipped: only root can be another user, who must reach the binary").unwrap();
    }
    can
}

#[test]
fn a_user_who_is_not_listed_is_refused_even_with_the_token() {
    if !can_be_another_user() {
        return;
    }
    let files = common::folder();
    let token = common::in_folder(&files, "token");
    std::fs::write(&token, "correct horse battery staple\n").unwrap();
    let daemon = Daemon::start_with_token(&token);
    // Only what the daemon itself looks at keeps them out.
    daemon.open_to_everybody();
    let call = |uid, args: &[&str]| {
        let mut command = Command::new(BINARY);
        command.args(args).args(["--json", "--socket", daemon.socket()]);
        command.env("VERITAS_TOKEN", "correct horse battery staple").stdin(Stdio::null());
        let output = command.uid(uid).gid(uid).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    for args in [&["live"][..], &["status"], &["generate", "--raw", "Once", "-n", "1"], &["drain"]] {
        let (code, errors) = call(NOBODY, args);
        assert!(code == Some(5) && errors.contains("forbidden"), "{args:?}: {code:?} {errors}");
        if args != ["drain"] {
            assert_eq!(call(0, args).0, Some(0), "{args:?}");
        }
    }
    assert!(daemon.run(&["ready", "--token-file", &token]).code == Some(0));
}

#[test]
fn a_user_who_is_listed_is_served_but_does_not_rule() {
    if !can_be_another_user() {
        return;
    }
    let daemon = Daemon::with_config(&format!("[socket]\nallowed_uids = [{NOBODY}]\n"), &[]);
    daemon.open_to_everybody();
    let call = |args: &[&str]| {
        let mut command = Command::new(BINARY);
        command.args(args).args(["--json", "--socket", daemon.socket()]).stdin(Stdio::null());
        let output = command.uid(NOBODY).gid(NOBODY).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    assert_eq!(call(&["generate", "--raw", "Once", "-n", "1"]).0, Some(0));
    for args in [&["drain"][..], &["reload"], &["models", "unload", "story"]] {
        let (code, errors) = call(args);
        assert!(code == Some(5) && errors.contains("forbidden"), "{args:?}: {code:?} {errors}");
    }
    assert_eq!(daemon.status()["principals"][format!("uid:{NOBODY}")]["finished"], 1);
}

/// Hunts for a client that gives its token, and its prompt, to whoever has put a socket at the daemon's place.
#[test]
fn a_daemon_of_another_user_is_believed_only_if_the_client_was_told_so() {
    if !can_be_another_user() {
        return;
    }
    let uid = NOBODY.to_string();
    let launch = Launch { uid: Some(NOBODY), ..Launch::default() };
    // Root is always allowed, so that only the client can refuse.
    let daemon = Daemon::start_as(&[], &["--trust-uid", &uid], &launch);
    for args in [
        &["live"][..],
        &["generate", "--raw", "Once", "-n", "1"],
        &["models", "list"],
        &["chat", "--connect"],
    ] {
        let outcome = daemon.run(&[args, &["--json"]].concat());
        let (code, name, message) = outcome.error();
        assert_eq!((code, name.as_str()), (5, "forbidden"), "{args:?}: {message}");
        assert!(
            message.contains(&format!("user {uid}")) && outcome.stderr.contains("--trust-uid"),
            "{message}"
        );
        assert_eq!(
            daemon.run(&[args, &["--trust-uid", "1", "--trust-uid", &uid]].concat()).code,
            Some(0),
            "{args:?}"
        );
    }
    let with_variable = |value: &str| {
        let mut command = Command::new(BINARY);
        command.args(["live", "--socket", daemon.socket()]).env("VERITAS_TRUSTED_UIDS", value);
        command.output().unwrap().status.code()
    };
    assert_eq!(with_variable(&format!("1000,{uid}")), Some(0));
    assert_eq!(with_variable("1000"), Some(5));
    assert_eq!(with_variable("nobody"), Some(2));
}
