//! The client for threads, against a daemon that keeps to the protocol and against others that do not.
#![cfg(unix)]

mod daemon;

use std::io::Write;
use std::os::unix::net::UnixListener;
use std::sync::mpsc::channel;
use std::time::Duration;

use daemon::{Daemon, Scripted, Seen, busy, expected, reason_of, stream, text_of};
use veritas_ipc::blocking::{Client, Flow};
use veritas_ipc::{ClientOptions, Error, Token};
use veritas_proto::v1::{self, Code, FinishReason};
use veritas_proto::{Header, Kind};

/// Long enough for a slow machine: no test waits for it unless it fails.
fn patient() -> ClientOptions {
    ClientOptions {
        name: "test".to_owned(),
        timeout: Some(Duration::from_secs(60)),
        ..ClientOptions::default()
    }
}

/// For what never comes.
fn impatient() -> ClientOptions {
    ClientOptions { timeout: Some(Duration::from_millis(100)), ..patient() }
}

fn no_delta(delta: v1::Delta) -> Flow {
    panic!("no delta was asked for: {delta:?}")
}

#[test]
fn requests_are_answered_one_after_the_other() {
    let daemon = Daemon::start();
    let mut client = Client::connect(&daemon.path, &patient()).unwrap();
    assert_eq!(client.welcome().server_version, "test");
    assert_eq!(client.welcome().session_id.len(), 32);
    assert_eq!(client.live().unwrap().uptime_ms, 1);
    assert!(client.ready().unwrap().ready);
    let request = v1::TokenizeRequest { text: "abc".to_owned(), ..Default::default() };
    assert_eq!(client.tokenize(&request).unwrap(), [97, 98, 99]);
    let request = v1::DetokenizeRequest { ids: vec![0xe2, 0x82], ..Default::default() };
    assert_eq!(client.detokenize(&request).unwrap(), [0xe2, 0x82]);
}

#[test]
fn a_probe_sends_its_request_without_waiting_to_be_let_in() {
    let daemon = Scripted::start(|mut script| {
        script.expect(Kind::HELLO);
        let id = script.expect(Kind::LIVE);
        script.send(Kind::WELCOME, 0, &v1::Welcome { version: 1, ..Default::default() });
        script.send(Kind::LIVE_REPLY, id, &v1::LiveReply { uptime_ms: 9 });
    });
    let reply = Client::probe(&daemon.path, &patient(), &v1::LiveRequest {}).unwrap();
    assert_eq!(reply.uptime_ms, 9);
}

#[test]
fn a_probe_works_with_a_daemon_that_asks_for_a_token() {
    let token = Token::new("secret").unwrap();
    let daemon = Daemon::start_with(|config| config.token = Some(token.hash()));
    let options = ClientOptions { token: Some(token), ..patient() };
    assert!(Client::probe(&daemon.path, &options, &v1::ReadyRequest {}).unwrap().ready);
    for wrong in [None, Some(Token::new("Secret").unwrap())] {
        let options = ClientOptions { token: wrong, ..patient() };
        match Client::probe(&daemon.path, &options, &v1::ReadyRequest {}) {
            Err(Error::Refused(error)) => assert_eq!(error.code(), Code::Unauthenticated),
            other => panic!("{other:?}"),
        }
    }
}

/// Hunts for a token that is shown to whoever listens: the client must ask the kernel first.
#[test]
fn a_daemon_of_a_user_who_is_not_trusted_is_told_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let own = rustix::process::geteuid().as_raw();
    let token = Some(Token::new("secret").unwrap());
    let options = ClientOptions { trusted_uids: [own ^ 1].into(), token, ..patient() };
    for outcome in [
        Client::connect(&path, &options).map(drop),
        Client::probe(&path, &options, &v1::LiveRequest {}).map(drop),
    ] {
        match outcome {
            Err(error @ Error::UntrustedServer { uid, .. }) => {
                assert_eq!((uid, error.code()), (own, Code::Forbidden));
            }
            other => panic!("{other:?}"),
        }
        let mut said = Vec::new();
        std::io::Read::read_to_end(&mut listener.accept().unwrap().0, &mut said).unwrap();
        assert_eq!(said, b"");
    }
    assert!(ClientOptions::default().trusted_uids.is_superset(&[own, 0].into()));
}

#[test]
fn a_user_who_is_not_listed_is_refused() {
    let daemon = Daemon::start_with(|config| config.allow = veritas_ipc::AllowList::default());
    match Client::connect(&daemon.path, &patient()) {
        Err(Error::Refused(error)) => assert_eq!(error.code(), Code::Forbidden),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_stream_comes_in_order_whatever_the_credit() {
    let daemon = Daemon::start();
    let mut client = Client::connect(&daemon.path, &patient()).unwrap();
    for credit in [1, 2, 3, 7, 0, 1000] {
        let mut texts = Vec::new();
        let finish = client
            .generate(stream("a", Some(100), credit), &mut |delta| {
                texts.push(text_of(&delta));
                Flow::Continue
            })
            .unwrap();
        assert_eq!(texts, expected("a", 100), "credit {credit}");
        assert_eq!(reason_of(&finish), FinishReason::Stop);
    }
}

#[test]
fn an_answer_that_is_not_streamed_comes_whole() {
    let daemon = Daemon::start();
    let mut client = Client::connect(&daemon.path, &patient()).unwrap();
    let request = v1::GenerateRequest { stream: false, ..stream("whole", Some(3), 0) };
    let finish = client.generate(request, &mut no_delta).unwrap();
    assert_eq!(finish.choices[0].text, "whole");
}

#[test]
fn a_stream_can_be_cancelled_where_it_is_consumed() {
    let daemon = Daemon::start();
    let mut client = Client::connect(&daemon.path, &patient()).unwrap();
    for _ in 0..2 {
        let mut texts = Vec::new();
        let finish = client
            .generate(stream("a", None, 4), &mut |delta| {
                texts.push(text_of(&delta));
                if texts.len() == 10 { Flow::Cancel } else { Flow::Continue }
            })
            .unwrap();
        assert_eq!(texts, expected("a", 10), "nothing is handed out after that");
        assert_eq!(reason_of(&finish), FinishReason::FinishCancelled);
    }
    assert!(client.ready().unwrap().ready, "the connection goes on");
}

#[test]
fn a_silent_request_can_be_cancelled_from_another_thread() {
    let daemon = Daemon::start();
    let mut client = Client::connect(&daemon.path, &patient()).unwrap();
    let handle = client.cancel_handle();
    let finish = std::thread::scope(|scope| {
        scope.spawn(|| {
            daemon.wait(|seen| matches!(seen, Seen::Request(Kind::GENERATE, _)));
            handle.cancel().unwrap();
            handle.cancel().unwrap();
        });
        let request = v1::GenerateRequest { model: "silent".to_owned(), ..stream("a", None, 0) };
        client.generate(request, &mut no_delta).unwrap()
    });
    assert_eq!(reason_of(&finish), FinishReason::FinishCancelled);
    let n_cancelled = daemon.seen().iter().filter(|seen| matches!(seen, Seen::Cancelled(_))).count();
    assert_eq!(n_cancelled, 1, "it is said once");
}

#[test]
fn a_cancellation_that_comes_early_is_not_missed_and_can_be_forgotten() {
    let daemon = Daemon::start();
    let mut client = Client::connect(&daemon.path, &patient()).unwrap();
    let handle = client.cancel_handle();
    handle.cancel().unwrap();
    let silent = || v1::GenerateRequest { model: "silent".to_owned(), ..stream("a", None, 0) };
    let finish = client.generate(silent(), &mut no_delta).unwrap();
    assert_eq!(reason_of(&finish), FinishReason::FinishCancelled);

    // It is used up, and of another, which is forgotten, nothing is left.
    handle.cancel().unwrap();
    handle.reset();
    let finish = client.generate(stream("a", Some(3), 0), &mut |_| Flow::Continue).unwrap();
    assert_eq!(reason_of(&finish), FinishReason::Stop);
}

#[test]
fn a_daemon_that_does_not_end_a_cancelled_request_is_given_up() {
    let daemon = Scripted::start(|mut script| {
        script.welcome();
        script.expect(Kind::GENERATE);
        script.expect(Kind::CANCEL);
        script.wait_for_the_end();
    });
    let mut client = Client::connect(&daemon.path, &impatient()).unwrap();
    client.cancel_handle().cancel().unwrap();
    let outcome = client.generate(stream("a", None, 0), &mut no_delta);
    assert!(matches!(outcome, Err(Error::Timeout { .. })), "{outcome:?}");
    drop(client);
}

#[test]
fn a_daemon_that_goes_on_for_ever_after_a_cancellation_is_given_up() {
    let daemon = Scripted::start(|mut script| {
        script.welcome();
        let id = script.expect(Kind::GENERATE);
        // Deltas within the credit, so that the client is never left without one until it has gone.
        let mut credit = 4;
        while (0..credit).all(|_| script.try_send(Kind::DELTA, id, &v1::Delta::default()).is_ok()) {
            let Ok(frame) = script.try_frame() else { return };
            credit = match frame.kind {
                Kind::CREDIT => frame.message::<v1::Credit>().unwrap().deltas,
                _ => 0,
            };
        }
    });
    let mut client = Client::connect(&daemon.path, &impatient()).unwrap();
    let outcome = client.generate(stream("a", None, 4), &mut |_| Flow::Cancel);
    assert!(matches!(outcome, Err(Error::Timeout { .. })), "{outcome:?}");
    drop(client);
}

#[test]
fn a_generation_that_is_silent_for_too_long_is_given_up_and_cancelled() {
    let daemon = Daemon::start();
    let options = ClientOptions { silence_timeout: Some(Duration::from_millis(50)), ..patient() };
    let mut client = Client::connect(&daemon.path, &options).unwrap();
    let request = v1::GenerateRequest { model: "silent".to_owned(), ..stream("a", None, 0) };
    let outcome = client.generate(request, &mut no_delta);
    assert!(matches!(outcome, Err(Error::Timeout { .. })), "{outcome:?}");
    daemon.wait_for(&Seen::Cancelled(1));
    // Its end comes late and is passed over.
    assert!(client.ready().unwrap().ready);
    let finish = client.generate(stream("a", Some(3), 0), &mut |_| Flow::Continue).unwrap();
    assert_eq!(reason_of(&finish), FinishReason::Stop);
}

#[test]
fn a_daemon_that_is_not_there_is_unreachable() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("veritas-sdr.sock");
    let message = |what: &str| match Client::connect(&path, &patient()) {
        Err(error @ Error::Unreachable { .. }) => {
            assert_eq!(error.code(), Code::Unreachable);
            assert!(error.to_string().contains(what), "{error}");
        }
        other => panic!("{other:?}"),
    };
    message("there is no socket");
    drop(UnixListener::bind(&path).unwrap());
    message("nothing listens");
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, "").unwrap();
    message("nothing listens");
    let long = folder.path().join("a".repeat(200));
    assert!(matches!(Client::connect(&long, &patient()), Err(Error::PathTooLong { .. })));
}

#[test]
fn a_daemon_that_accepts_nothing_is_a_timeout() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("veritas-sdr.sock");
    let _listener = UnixListener::bind(&path).unwrap();
    let outcome = Client::connect(&path, &impatient());
    assert!(matches!(outcome, Err(Error::Timeout { .. })), "{outcome:?}");
}

#[test]
fn a_daemon_whose_queue_is_full_is_a_timeout() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("veritas-sdr.sock");
    let listener =
        rustix::net::socket(rustix::net::AddressFamily::UNIX, rustix::net::SocketType::STREAM, None).unwrap();
    let address = rustix::net::SocketAddrUnix::new(&path).unwrap();
    rustix::net::bind(&listener, &address).unwrap();
    rustix::net::listen(&listener, 0).unwrap();
    let mut waiting = Vec::new();
    loop {
        let socket =
            rustix::net::socket(rustix::net::AddressFamily::UNIX, rustix::net::SocketType::STREAM, None)
                .unwrap();
        rustix::io::ioctl_fionbio(&socket, true).unwrap();
        match rustix::net::connect(&socket, &address) {
            Ok(()) => waiting.push(socket),
            Err(error) => break assert_eq!(error, rustix::io::Errno::AGAIN),
        }
    }
    let outcome = Client::connect(&path, &impatient());
    assert!(matches!(outcome, Err(Error::Timeout { .. })), "{outcome:?}");
    let outcome = Client::probe(&path, &impatient(), &v1::LiveRequest {});
    assert!(matches!(outcome, Err(Error::Timeout { .. })), "{outcome:?}");
}

#[test]
fn a_late_answer_is_passed_over() {
    let (timed_out, is_timed_out) = channel();
    let daemon = Scripted::start(move |mut script| {
        script.welcome();
        let first = script.expect(Kind::LIVE);
        is_timed_out.recv().unwrap();
        script.send(Kind::LIVE_REPLY, first, &v1::LiveReply { uptime_ms: 1 });
        let second = script.expect(Kind::LIVE);
        assert_ne!(first, second);
        script.send(Kind::LIVE_REPLY, second, &v1::LiveReply { uptime_ms: 2 });
    });
    let mut client = Client::connect(&daemon.path, &patient()).unwrap();
    client.set_timeout(Some(Duration::from_millis(50)));
    assert!(matches!(client.live(), Err(Error::Timeout { .. })));
    timed_out.send(()).unwrap();
    client.set_timeout(patient().timeout);
    assert_eq!(client.live().unwrap().uptime_ms, 2);
}

#[test]
fn a_daemon_that_drips_cannot_hold_a_client() {
    let daemon = Scripted::start(|mut script| {
        script.welcome();
        let id = script.expect(Kind::LIVE);
        let header = Header { kind: Kind::LIVE_REPLY, body_bytes: 1 << 20, request_id: id };
        script.stream.write_all(&header.to_bytes()).unwrap();
        // Each byte comes well within the timeout; all of them do not.
        while script.stream.write_all(&[0]).is_ok() {
            std::thread::sleep(Duration::from_millis(5));
        }
    });
    let mut client = Client::connect(&daemon.path, &impatient()).unwrap();
    let outcome = client.live();
    assert!(matches!(outcome, Err(Error::Timeout { .. })), "{outcome:?}");
    drop(client);
}

#[test]
fn a_daemon_that_reads_nothing_cannot_hold_a_client() {
    let (read, is_given_up) = channel::<()>();
    let daemon = Scripted::start(move |mut script| {
        script.welcome();
        let _ = is_given_up.recv();
    });
    let mut client = Client::connect(&daemon.path, &impatient()).unwrap();
    let request = v1::TokenizeRequest { text: "a".repeat(8 << 20), ..Default::default() };
    let outcome = client.call(&request);
    assert!(matches!(outcome, Err(Error::Timeout { .. })), "{outcome:?}");
    // Half a frame has left: nothing sensible can follow it, and nothing does.
    let outcome = client.live();
    assert!(outcome.is_err());
    drop(read);
}

#[test]
fn a_request_that_fails_says_why_and_the_connection_goes_on() {
    let daemon = Daemon::start();
    let mut client = Client::connect(&daemon.path, &patient()).unwrap();
    let request = v1::GenerateRequest { model: "busy".to_owned(), ..stream("a", None, 0) };
    match client.generate(request, &mut no_delta) {
        Err(Error::Refused(error)) => assert_eq!(error, busy()),
        other => panic!("{other:?}"),
    }
    assert!(client.ready().unwrap().ready);
}

#[test]
fn a_request_beyond_the_limit_of_the_daemon_is_not_sent() {
    let daemon = Daemon::start_with(|config| config.limits.body_bytes_max = 100);
    let mut client = Client::connect(&daemon.path, &patient()).unwrap();
    let request = v1::TokenizeRequest { text: "a".repeat(100), ..Default::default() };
    assert!(matches!(client.call(&request), Err(Error::RequestTooLong { found: 102, limit: 100 })));
    let outcome = client.generate(stream(&"a".repeat(100), None, 0), &mut no_delta);
    assert!(matches!(outcome, Err(Error::RequestTooLong { .. })));
    let request = v1::TokenizeRequest { text: "a".repeat(98), ..Default::default() };
    assert_eq!(client.tokenize(&request).unwrap().len(), 98, "what fits is sent");
}

#[test]
fn a_daemon_that_refuses_before_it_has_read_is_still_heard() {
    for _ in 0..20 {
        let daemon = Scripted::start(|mut script| script.send(Kind::ERROR, 0, &busy()));
        match Client::probe(&daemon.path, &patient(), &v1::LiveRequest {}) {
            Err(Error::Refused(error)) => assert_eq!(error, busy()),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn an_error_of_the_session_ends_whatever_runs() {
    let daemon = Scripted::start(|mut script| {
        script.welcome();
        script.expect(Kind::GENERATE);
        script.send(Kind::ERROR, 0, &busy());
    });
    let mut client = Client::connect(&daemon.path, &patient()).unwrap();
    let outcome = client.generate(stream("a", None, 0), &mut no_delta);
    assert!(matches!(outcome, Err(Error::Refused(error)) if error == busy()));
    assert!(matches!(client.live(), Err(Error::Disconnected)));
}

#[test]
fn a_daemon_that_vanishes_is_a_lost_connection() {
    let daemon = Scripted::start(drop);
    let outcome = Client::connect(&daemon.path, &patient());
    assert!(matches!(outcome, Err(Error::Disconnected)), "before the handshake: {outcome:?}");

    let daemon = Scripted::start(|mut script| {
        script.welcome();
        script.expect(Kind::LIVE);
        script.stream.write_all(b"VSD").unwrap();
    });
    let mut client = Client::connect(&daemon.path, &patient()).unwrap();
    assert!(matches!(client.live(), Err(Error::Disconnected)), "within a frame");

    let daemon = Scripted::start(|mut script| {
        script.welcome();
        let id = script.expect(Kind::GENERATE);
        script.send(Kind::DELTA, id, &v1::Delta::default());
    });
    let mut client = Client::connect(&daemon.path, &patient()).unwrap();
    let mut n_deltas = 0;
    let outcome = client.generate(stream("a", None, 0), &mut |_| {
        n_deltas += 1;
        Flow::Continue
    });
    assert!(matches!(outcome, Err(Error::Disconnected)), "within a stream: {outcome:?}");
    assert_eq!(n_deltas, 1, "what came before is not lost");
}

#[test]
fn what_is_not_the_protocol_is_a_violation() {
    type Answer = Box<dyn FnOnce(&mut daemon::Script, u64) + Send>;
    let answers: [(&str, Answer); 7] = [
        (
            "another protocol",
            Box::new(|script, _| script.stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap()),
        ),
        (
            "another kind",
            Box::new(|script, id| script.send(Kind::READY_REPLY, id, &v1::ReadyReply::default())),
        ),
        (
            "another request",
            Box::new(|script, id| script.send(Kind::LIVE_REPLY, id + 1, &v1::LiveReply::default())),
        ),
        ("no request", Box::new(|script, _| script.send(Kind::LIVE_REPLY, 0, &v1::LiveReply::default()))),
        ("a kind of the inside", Box::new(|script, id| script.send(Kind::WORKER_PONG, id, &v1::Cancel {}))),
        (
            "a body that is none",
            Box::new(|script, id| {
                let mut bytes = Vec::new();
                veritas_proto::encode_body(&mut bytes, Kind::LIVE_REPLY, id, &[0xff; 9]);
                script.stream.write_all(&bytes).unwrap();
            }),
        ),
        (
            "a body of four gigabytes",
            Box::new(|script, id| {
                let header = Header { kind: Kind::LIVE_REPLY, body_bytes: u32::MAX, request_id: id };
                script.stream.write_all(&header.to_bytes()).unwrap();
            }),
        ),
    ];
    for (name, answer) in answers {
        let daemon = Scripted::start(|mut script| {
            script.welcome();
            let id = script.expect(Kind::LIVE);
            answer(&mut script, id);
            script.wait_for_the_end();
        });
        let mut client = Client::connect(&daemon.path, &patient()).unwrap();
        let outcome = client.live();
        assert!(matches!(outcome, Err(Error::Protocol { .. })), "{name}: {outcome:?}");
        drop(client);
    }
}

#[test]
fn a_handshake_that_is_none_is_a_violation() {
    let welcome = v1::Welcome { version: 2, ..Default::default() };
    for (kind, id, welcome) in [
        (Kind::WELCOME, 0, welcome),
        (Kind::WELCOME, 1, v1::Welcome { version: 1, ..Default::default() }),
        (Kind::LIVE_REPLY, 0, v1::Welcome::default()),
    ] {
        let daemon = Scripted::start(move |mut script| {
            script.expect(Kind::HELLO);
            script.send(kind, id, &welcome);
            script.wait_for_the_end();
        });
        let outcome = Client::connect(&daemon.path, &patient());
        assert!(matches!(outcome, Err(Error::Protocol { .. })), "{kind} {id}: {outcome:?}");
    }
}
