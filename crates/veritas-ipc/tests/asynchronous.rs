//! The client for tokio, against a daemon that keeps to the protocol and against others that do not. The runtime has
//! threads of its own, since the tests wait for what the daemons see.
#![cfg(unix)]

mod daemon;

use std::io::Write;
use std::sync::mpsc::channel;
use std::time::Duration;

use daemon::{Daemon, Scripted, Seen, busy, expected, reason_of, stream, text_of};
use veritas_ipc::asynchronous::{Client, Event, Generation};
use veritas_ipc::{ClientOptions, Error};
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

async fn connect(daemon: &Daemon) -> Client {
    Client::connect(&daemon.path, &patient()).await.unwrap()
}

/// The texts of all deltas, and the reason of the end.
async fn collect(mut generation: Generation) -> Result<(Vec<String>, FinishReason), Error> {
    let mut texts = Vec::new();
    loop {
        match generation.next().await?.expect("an end") {
            Event::Delta(delta) => texts.push(text_of(&delta)),
            Event::Finish(finish) => {
                assert_eq!(generation.next().await.unwrap(), None, "nothing comes after the end");
                return Ok((texts, reason_of(&finish)));
            }
        }
    }
}

async fn next_text(generation: &mut Generation) -> String {
    match generation.next().await.unwrap().unwrap() {
        Event::Delta(delta) => text_of(&delta),
        Event::Finish(finish) => panic!("{finish:?}"),
    }
}

async fn is_ready(client: &Client) -> bool {
    client.call(&v1::ReadyRequest {}).await.unwrap().ready
}

#[tokio::test(flavor = "multi_thread")]
async fn many_requests_share_a_connection_and_each_stream_is_in_order() {
    let daemon = Daemon::start();
    let client = connect(&daemon).await;
    let tasks = (0..20).map(|i| {
        let client = client.clone();
        tokio::spawn(async move {
            let prompt = format!("p{i}-");
            let generation = client.generate(stream(&prompt, Some(50), 1 + i % 7)).await.unwrap();
            let text = format!("text {i}");
            let request = v1::TokenizeRequest { text: text.clone(), ..Default::default() };
            let ids = client.call(&request).await.unwrap().ids;
            assert_eq!(ids, text.bytes().map(u32::from).collect::<Vec<_>>());
            assert_eq!(collect(generation).await.unwrap(), (expected(&prompt, 50), FinishReason::Stop));
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    let n_sessions = daemon.seen().iter().filter(|seen| matches!(seen, Seen::Session(_))).count();
    assert_eq!(n_sessions, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_stops_when_its_credit_is_used_up_and_goes_on_when_it_is_given() {
    let daemon = Daemon::start();
    let client = connect(&daemon).await;
    let generation = client.generate(stream("a", Some(20), 4)).await.unwrap();
    daemon.wait_for(&Seen::Starved(1, 4));
    // The connection is not held up by it.
    assert!(is_ready(&client).await);
    assert_eq!(daemon.seen(), [Seen::Request(Kind::READY, 2)], "no more has been sent");
    assert_eq!(collect(generation).await.unwrap(), (expected("a", 20), FinishReason::Stop));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_dropped_is_cancelled_and_the_others_go_on() {
    let daemon = Daemon::start();
    let client = connect(&daemon).await;
    let mut dropped = client.generate(stream("a", None, 4)).await.unwrap();
    let kept = client.generate(stream("b", Some(30), 4)).await.unwrap();
    assert_eq!(next_text(&mut dropped).await, "a0");
    drop(dropped);
    daemon.wait_for(&Seen::Cancelled(1));
    assert_eq!(collect(kept).await.unwrap(), (expected("b", 30), FinishReason::Stop));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_has_ended_is_not_cancelled_when_it_is_dropped() {
    let daemon = Daemon::start();
    let client = connect(&daemon).await;
    let generation = client.generate(stream("a", Some(3), 0)).await.unwrap();
    collect(generation).await.unwrap();
    assert!(is_ready(&client).await);
    assert!(!daemon.seen().iter().any(|seen| matches!(seen, Seen::Cancelled(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_can_be_cancelled_and_then_ends() {
    let daemon = Daemon::start();
    let client = connect(&daemon).await;
    let mut generation = client.generate(stream("a", None, 4)).await.unwrap();
    assert_eq!(next_text(&mut generation).await, "a0");
    generation.cancel();
    generation.cancel();
    let (_, reason) = collect(generation).await.unwrap();
    assert_eq!(reason, FinishReason::FinishCancelled);
    let n_cancelled = daemon.seen().iter().filter(|seen| matches!(seen, Seen::Cancelled(_))).count();
    assert_eq!(n_cancelled, 1, "it is said once");
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_for_a_part_can_be_given_up_and_loses_nothing() {
    let daemon = Daemon::start();
    let client = connect(&daemon).await;
    let mut generation = client.generate(stream("a", Some(200), 3)).await.unwrap();
    let mut texts = Vec::new();
    while texts.len() < 200 {
        tokio::select! {
            biased;
            event = generation.next() => match event.unwrap().unwrap() {
                Event::Delta(delta) => texts.push(text_of(&delta)),
                Event::Finish(finish) => panic!("{finish:?}"),
            },
            () = tokio::task::yield_now() => {}
        }
    }
    assert_eq!(texts, expected("a", 200));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_does_not_end_a_cancelled_stream_is_given_up() {
    let daemon = Scripted::start(|mut script| {
        script.welcome();
        script.expect(Kind::GENERATE);
        script.expect(Kind::CANCEL);
        script.wait_for_the_end();
    });
    let client = Client::connect(&daemon.path, &impatient()).await.unwrap();
    let mut generation = client.generate(stream("a", None, 0)).await.unwrap();
    generation.cancel();
    let outcome = generation.next().await;
    assert!(matches!(outcome, Err(Error::Timeout { .. })), "{outcome:?}");
    assert_eq!(generation.next().await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_silent_for_too_long_is_given_up_and_cancelled() {
    let daemon = Daemon::start();
    let options = ClientOptions { silence_timeout: Some(Duration::from_millis(50)), ..patient() };
    let client = Client::connect(&daemon.path, &options).await.unwrap();
    let request = v1::GenerateRequest { model: "silent".to_owned(), ..stream("a", None, 0) };
    let outcome = collect(client.generate(request).await.unwrap()).await;
    assert!(matches!(outcome, Err(Error::Timeout { .. })), "{outcome:?}");
    daemon.wait_for(&Seen::Cancelled(1));
    assert!(is_ready(&client).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_beyond_what_the_daemon_allows_wait_for_one_to_end() {
    let daemon = Daemon::start_with(|config| config.limits.requests_max = 2);
    let client = Client::connect(&daemon.path, &impatient()).await.unwrap();
    let first = client.generate(stream("a", None, 4)).await.unwrap();
    let _second = client.generate(stream("b", None, 4)).await.unwrap();
    let third = client.generate(stream("c", Some(3), 4)).await;
    assert!(matches!(third, Err(Error::Timeout { .. })), "{third:?}");
    drop(first);
    let third = loop {
        // How soon the daemon ends what was dropped is its affair.
        match client.generate(stream("c", Some(3), 4)).await {
            Err(Error::Timeout { .. }) => {}
            outcome => break outcome.unwrap(),
        }
    };
    assert_eq!(collect(third).await.unwrap(), (expected("c", 3), FinishReason::Stop));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_fails_says_why_and_the_connection_goes_on() {
    let daemon = Daemon::start();
    let client = connect(&daemon).await;
    let request = v1::GenerateRequest { model: "busy".to_owned(), ..stream("a", None, 0) };
    let outcome = collect(client.generate(request).await.unwrap()).await;
    assert!(matches!(outcome, Err(Error::Refused(error)) if error == busy()));
    assert!(is_ready(&client).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_beyond_the_limit_of_the_daemon_is_not_sent() {
    let daemon = Daemon::start_with(|config| config.limits.body_bytes_max = 100);
    let client = connect(&daemon).await;
    let request = v1::TokenizeRequest { text: "a".repeat(100), ..Default::default() };
    let outcome = client.call(&request).await;
    assert!(matches!(outcome, Err(Error::RequestTooLong { found: 102, limit: 100 })), "{outcome:?}");
    let outcome = client.generate(stream(&"a".repeat(100), None, 0)).await;
    assert!(matches!(outcome, Err(Error::RequestTooLong { .. })), "{outcome:?}");
    assert!(is_ready(&client).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_without_the_token_is_refused() {
    let hash = veritas_ipc::Token::new("secret").unwrap().hash();
    let daemon = Daemon::start_with(|config| config.token = Some(hash));
    match Client::connect(&daemon.path, &patient()).await {
        Err(Error::Refused(error)) => assert_eq!(error.code(), Code::Unauthenticated),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_of_a_user_who_is_not_trusted_is_told_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let options = ClientOptions { trusted_uids: [].into(), ..patient() };
    let outcome = Client::connect(&path, &options).await;
    assert!(matches!(outcome, Err(Error::UntrustedServer { .. })), "{outcome:?}");
    let mut said = Vec::new();
    std::io::Read::read_to_end(&mut listener.accept().unwrap().0, &mut said).unwrap();
    assert_eq!(said, b"");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_is_not_there_is_unreachable_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let outcome = Client::connect(&folder.path().join("veritas-sdr.sock"), &patient()).await;
    assert!(matches!(outcome, Err(Error::Unreachable { .. })), "{outcome:?}");
    let outcome = Client::connect("@abstract".as_ref(), &patient()).await;
    assert!(matches!(outcome, Err(Error::AbstractAddress { .. })), "{outcome:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_accepts_nothing_is_a_timeout_and_so_is_a_full_queue() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("veritas-sdr.sock");
    let listener =
        rustix::net::socket(rustix::net::AddressFamily::UNIX, rustix::net::SocketType::STREAM, None).unwrap();
    rustix::net::bind(&listener, &rustix::net::SocketAddrUnix::new(&path).unwrap()).unwrap();
    rustix::net::listen(&listener, 0).unwrap();
    let mut waiting = Vec::new();
    for _ in 0..3 {
        // The first is let into the queue and never greeted; the last does not even get there.
        let outcome = Client::connect(&path, &impatient()).await;
        assert!(matches!(outcome, Err(Error::Timeout { .. })), "{outcome:?}");
        waiting.extend(tokio::net::UnixStream::connect(&path).await);
    }
    let outcome = tokio::net::UnixStream::connect(&path).await;
    assert_eq!(outcome.unwrap_err().kind(), std::io::ErrorKind::WouldBlock, "the queue is full");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_does_not_come_is_a_timeout_and_the_connection_goes_on() {
    let daemon = Daemon::start();
    let client = Client::connect(&daemon.path, &impatient()).await.unwrap();
    let outcome = client.call(&v1::DrainRequest {}).await;
    assert!(matches!(outcome, Err(Error::Timeout { .. })), "{outcome:?}");
    assert!(is_ready(&client).await);
    let n_sessions = daemon.seen().iter().filter(|seen| matches!(seen, Seen::Session(_))).count();
    assert_eq!(n_sessions, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_answer_is_passed_over() {
    let (timed_out, is_timed_out) = channel();
    let daemon = Scripted::start(move |mut script| {
        script.welcome();
        let first = script.expect(Kind::LIVE);
        is_timed_out.recv().unwrap();
        script.send(Kind::LIVE_REPLY, first, &v1::LiveReply { uptime_ms: 1 });
        let second = script.expect(Kind::LIVE);
        script.send(Kind::LIVE_REPLY, second, &v1::LiveReply { uptime_ms: 2 });
        script.wait_for_the_end();
    });
    let client = Client::connect(&daemon.path, &patient()).await.unwrap();
    let call = client.call(&v1::LiveRequest {});
    assert!(tokio::time::timeout(Duration::from_millis(50), call).await.is_err());
    timed_out.send(()).unwrap();
    assert_eq!(client.call(&v1::LiveRequest {}).await.unwrap().uptime_ms, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idempotent_request_is_sent_again_over_a_new_connection_and_no_other_is() {
    let daemon = Daemon::start();
    let client = connect(&daemon).await;
    client.call(&v1::StatusRequest {}).await.unwrap();
    let seen = daemon.seen();
    let count = |is_it: fn(&Seen) -> bool| seen.iter().filter(|seen| is_it(seen)).count();
    assert_eq!(count(|seen| matches!(seen, Seen::Session(_))), 2, "{seen:?}");
    assert_eq!(count(|seen| matches!(seen, Seen::Request(Kind::STATUS, _))), 2, "{seen:?}");

    let daemon = Daemon::start();
    let client = connect(&daemon).await;
    let outcome = client.call(&v1::ReloadRequest {}).await;
    assert!(matches!(outcome, Err(Error::Disconnected)), "{outcome:?}");
    let n_reloads =
        daemon.seen().iter().filter(|seen| matches!(seen, Seen::Request(Kind::RELOAD, _))).count();
    assert_eq!(n_reloads, 1);
    // What has not been sent yet can be sent over a new connection, whatever it is.
    client.call(&v1::ReloadRequest {}).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_outlives_its_daemon() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run").join("veritas-sdr.sock");
    let daemon = Daemon::start_at(&path, |_| {});
    let client = connect(&daemon).await;
    let first = client.welcome().await.unwrap().session_id;
    let generation = client.generate(stream("a", None, 4)).await.unwrap();
    daemon.wait_for(&Seen::Starved(1, 4));
    drop(daemon);
    let outcome = collect(generation).await;
    assert!(matches!(outcome, Err(Error::Disconnected)), "{outcome:?}");

    // While it is gone, a request waits for it, and is sent once it is back.
    let call = tokio::spawn({
        let client = client.clone();
        async move { client.call(&v1::ReadyRequest {}).await }
    });
    tokio::task::yield_now().await;
    let _daemon = Daemon::start_at(&path, |_| {});
    assert!(call.await.unwrap().unwrap().ready);
    assert_ne!(client.welcome().await.unwrap().session_id, first, "a session is not taken up again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_does_not_come_back_is_unreachable_in_the_end() {
    let daemon = Daemon::start();
    let path = daemon.path.clone();
    let client = Client::connect(&path, &impatient()).await.unwrap();
    drop(daemon);
    let outcome = client.call(&v1::ReadyRequest {}).await;
    assert!(matches!(outcome, Err(Error::Unreachable { .. } | Error::Disconnected)), "{outcome:?}");
    let outcome = client.generate(stream("a", None, 4)).await;
    assert!(matches!(outcome, Err(Error::Unreachable { .. } | Error::Disconnected)), "{outcome:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn everybody_who_waits_is_told_when_the_daemon_vanishes() {
    let daemon = Scripted::start(|mut script| {
        script.welcome();
        for _ in 0..4 {
            script.frame();
        }
        script.stream.write_all(b"VSDR").unwrap();
    });
    let client = Client::connect(&daemon.path, &patient()).await.unwrap();
    let first = client.generate(stream("a", None, 4)).await.unwrap();
    let second = client.generate(stream("b", None, 4)).await.unwrap();
    let (first, second, drain, reload) = tokio::join!(
        collect(first),
        collect(second),
        client.call(&v1::DrainRequest {}),
        client.call(&v1::ReloadRequest {}),
    );
    assert!(matches!(first, Err(Error::Disconnected)), "{first:?}");
    assert!(matches!(second, Err(Error::Disconnected)), "{second:?}");
    assert!(matches!(drain, Err(Error::Disconnected)), "{drain:?}");
    assert!(matches!(reload, Err(Error::Disconnected)), "{reload:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_of_the_session_is_told_to_everybody() {
    let daemon = Scripted::start(|mut script| {
        script.welcome();
        script.frame();
        script.frame();
        script.send(Kind::ERROR, 0, &busy());
    });
    let client = Client::connect(&daemon.path, &patient()).await.unwrap();
    let generation = client.generate(stream("a", None, 4)).await.unwrap();
    let (generated, live) = tokio::join!(collect(generation), client.call(&v1::LiveRequest {}));
    assert!(matches!(generated, Err(Error::Refused(error)) if error == busy()));
    assert!(matches!(live, Err(Error::Refused(error)) if error == busy()));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_the_protocol_is_a_violation() {
    type Answer = Box<dyn FnOnce(&mut daemon::Script, u64) + Send>;
    let answers: [(&str, Answer); 6] = [
        (
            "another protocol",
            Box::new(|script, _| script.stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap()),
        ),
        (
            "another kind",
            Box::new(|script, id| script.send(Kind::READY_REPLY, id, &v1::ReadyReply::default())),
        ),
        ("another request", Box::new(|script, id| script.send(Kind::DELTA, id + 1, &v1::Delta::default()))),
        ("no request", Box::new(|script, _| script.send(Kind::DELTA, 0, &v1::Delta::default()))),
        (
            "a body that is none",
            Box::new(|script, id| {
                let mut bytes = Vec::new();
                veritas_proto::encode_body(&mut bytes, Kind::DELTA, id, &[0xff; 9]);
                script.stream.write_all(&bytes).unwrap();
            }),
        ),
        (
            "a body of four gigabytes",
            Box::new(|script, id| {
                let header = Header { kind: Kind::DELTA, body_bytes: u32::MAX, request_id: id };
                script.stream.write_all(&header.to_bytes()).unwrap();
            }),
        ),
    ];
    for (name, answer) in answers {
        let daemon = Scripted::start(|mut script| {
            script.welcome();
            let id = script.expect(Kind::GENERATE);
            answer(&mut script, id);
            script.wait_for_the_end();
        });
        let client = Client::connect(&daemon.path, &patient()).await.unwrap();
        let mut generation = client.generate(stream("a", None, 4)).await.unwrap();
        let outcome = generation.next().await;
        assert!(matches!(outcome, Err(Error::Protocol { .. })), "{name}: {outcome:?}");
        drop((generation, client));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_sends_more_deltas_than_it_has_credit_for_is_a_violation() {
    let daemon = Scripted::start(|mut script| {
        script.welcome();
        let id = script.expect(Kind::GENERATE);
        script.expect(Kind::RELOAD);
        (0..5).for_each(|_| script.send(Kind::DELTA, id, &v1::Delta::default()));
        script.wait_for_the_end();
    });
    let client = Client::connect(&daemon.path, &patient()).await.unwrap();
    let mut generation = client.generate(stream("a", None, 4)).await.unwrap();
    // It ends when the connection does. Until then no delta is consumed, so no credit is given.
    let outcome = client.call(&v1::ReloadRequest {}).await;
    assert!(matches!(outcome, Err(Error::Protocol { .. })), "{outcome:?}");
    for _ in 0..4 {
        let event = generation.next().await;
        assert!(matches!(event, Ok(Some(Event::Delta(_)))), "what had credit is not lost: {event:?}");
    }
    let outcome = generation.next().await;
    assert!(matches!(outcome, Err(Error::Protocol { .. })), "{outcome:?}");
}
