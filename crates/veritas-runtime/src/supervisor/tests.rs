//! Tests of the core: what clients and workers send is made up here, and what the core owes each of them is read from its
//! outboxes.

use std::time::{Duration, Instant};

use veritas_proto::{Frame, FrameDecoder, Kind, Message, v1};

use super::core::{Core, Errand, SessionKey, Settings};
use super::model_state::{ModelState, Phase};
use super::outbox::Written;
use crate::failure::{Code, Failure};
use crate::link::{Admission, Loaded, decode_json};

const MODEL: &str = "story";
const QUEUE_MAX: usize = 4;
const SEQUENCES_MAX: usize = 2;

struct Bench {
    core: Core,
    now: Instant,
}

impl Bench {
    fn new() -> Self {
        let now = Instant::now();
        let settings = Settings {
            queue_max: QUEUE_MAX,
            queue_per_principal_max: 0,
            requests_per_principal_max: 0,
            sharing_groups: vec!["8+9".parse().unwrap()],
            weights: vec!["9=3".parse().unwrap()],
            request_timeout: None,
            slow_client_timeout: Duration::from_secs(30),
            quarantine_after: 3,
            restart_backoff: Duration::from_millis(100),
            restart_backoff_max: Duration::from_secs(1),
        };
        let mut core = Core::new(settings, now);
        core.models.insert(MODEL.to_owned(), ModelState::new(None, 0, SEQUENCES_MAX, None, true, now));
        let mut bench = Self { core, now };
        bench.start_worker();
        bench
    }

    fn start_worker(&mut self) {
        self.core.worker_loaded(MODEL, Loaded::default(), self.now);
        assert_eq!(self.model().phase, Phase::Ready);
    }

    fn model(&self) -> &ModelState {
        &self.core.models[MODEL]
    }

    fn client(&mut self) -> SessionKey {
        self.client_of(7)
    }

    fn client_of(&mut self, uid: u32) -> SessionKey {
        self.core.open_session(format!("uid:{uid}"), false)
    }

    fn send(
        &mut self,
        key: SessionKey,
        kind: Kind,
        id: u64,
        message: &impl Message,
    ) -> Result<Errand, Failure> {
        let frame = Frame { kind, request_id: id, body: message.encode_to_vec() };
        self.core.take_client_frame(key, frame, self.now)
    }

    fn generate(&mut self, key: SessionKey, id: u64, request: v1::GenerateRequest) {
        assert_eq!(self.send(key, Kind::GENERATE, id, &request).unwrap(), Errand::None);
    }

    /// What waits for a client.
    fn sent_to_client(&mut self, key: SessionKey) -> Vec<Frame> {
        let bytes = self.core.take_outbox(key);
        self.core.has_room(key, self.now);
        frames(&bytes)
    }

    /// What waits for the worker: kinds and ids, without what is said of clients.
    fn sent_to_worker(&mut self) -> Vec<(Kind, u64)> {
        let frames = self.frames_to_worker();
        let frames = frames.into_iter().filter(|frame| frame.kind != Kind::WORKER_CLIENT);
        frames.map(|frame| (frame.kind, frame.request_id)).collect()
    }

    fn frames_to_worker(&mut self) -> Vec<Frame> {
        frames(&std::mem::take(&mut self.core.models.get_mut(MODEL).unwrap().outbox))
    }

    fn worker_says(&mut self, kind: Kind, id: u64, message: &impl Message) -> Result<(), Failure> {
        let frame = Frame { kind, request_id: id, body: message.encode_to_vec() };
        self.core.take_worker_frame(MODEL, frame, self.now)
    }

    fn delta(&mut self, id: u64, text: &str) {
        let choice = v1::ChoiceDelta { text: text.to_owned(), ids: vec![1], ..v1::ChoiceDelta::default() };
        self.worker_says(Kind::DELTA, id, &v1::Delta { choices: vec![choice] }).unwrap();
    }

    fn finish(&mut self, id: u64) {
        let choice = v1::Choice { finish_reason: v1::FinishReason::Stop.into(), ..v1::Choice::default() };
        let finish = v1::Finish { choices: vec![choice], ..v1::Finish::default() };
        self.worker_says(Kind::FINISH, id, &finish).unwrap();
    }

    fn die(&mut self) -> Option<Duration> {
        self.core.worker_died(MODEL, &Failure::new(Code::WorkerLost, "killed"), self.now)
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.core.tick(self.now);
    }
}

fn frames(bytes: &[u8]) -> Vec<Frame> {
    let mut decoder = FrameDecoder::new(u32::MAX);
    decoder.push(bytes);
    std::iter::from_fn(|| decoder.next_frame().unwrap()).collect()
}

fn kinds(frames: &[Frame]) -> Vec<(Kind, u64)> {
    frames.iter().map(|frame| (frame.kind, frame.request_id)).collect()
}

fn error_of(frame: &Frame) -> Failure {
    assert_eq!(frame.kind, Kind::ERROR);
    Failure::from_wire(frame.message().unwrap())
}

fn stream() -> v1::GenerateRequest {
    v1::GenerateRequest { stream: true, ..v1::GenerateRequest::default() }
}

fn whole() -> v1::GenerateRequest {
    v1::GenerateRequest::default()
}

#[test]
fn a_stream_passes_through_and_its_request_is_counted() {
    let mut bench = Bench::new();
    let client = bench.client();
    bench.generate(client, 9, stream());
    assert_eq!(bench.sent_to_worker(), [(Kind::GENERATE, 1)]);
    bench.delta(1, "a");
    bench.delta(1, "b");
    bench.finish(1);
    let frames = bench.sent_to_client(client);
    assert_eq!(kinds(&frames), [(Kind::DELTA, 9), (Kind::DELTA, 9), (Kind::FINISH, 9)]);
    assert_eq!((bench.core.counters.finished, bench.core.counters.tokens.generated), (1, 2));
    assert_eq!((bench.core.n_open(), bench.model().n_in_hand()), (0, 0));
}

#[test]
fn a_client_without_credit_holds_up_its_own_stream_alone() {
    let mut bench = Bench::new();
    let (slow, quick) = (bench.client(), bench.client());
    bench.generate(slow, 1, v1::GenerateRequest { credit: 1, ..stream() });
    bench.generate(quick, 1, stream());
    for _ in 0..3 {
        bench.delta(1, "s");
        bench.delta(2, "q");
    }
    bench.finish(1);
    bench.finish(2);
    assert_eq!(kinds(&bench.sent_to_client(slow)), [(Kind::DELTA, 1)]);
    assert_eq!(bench.sent_to_client(quick).len(), 4);
    // What waited comes as one delta, then the end.
    bench.send(slow, Kind::CREDIT, 1, &v1::Credit { deltas: 1 }).unwrap();
    let frames = bench.sent_to_client(slow);
    assert_eq!(kinds(&frames), [(Kind::DELTA, 1), (Kind::FINISH, 1)]);
    assert_eq!(frames[0].message::<v1::Delta>().unwrap().choices[0].text, "ss");
}

#[test]
fn a_stream_that_nobody_reads_is_paused_and_then_cut_off() {
    let mut bench = Bench::new();
    let client = bench.client();
    bench.generate(client, 1, v1::GenerateRequest { credit: 1, ..stream() });
    bench.sent_to_worker();
    let piece = "x".repeat(100_000);
    for _ in 0..4 {
        bench.delta(1, &piece);
    }
    assert_eq!(bench.sent_to_worker(), [(Kind::WORKER_PAUSE, 1)]);
    bench.send(client, Kind::CREDIT, 1, &v1::Credit { deltas: 1 }).unwrap();
    assert_eq!(bench.sent_to_worker(), [(Kind::WORKER_RESUME, 1)]);
    bench.delta(1, "y");
    bench.sent_to_client(client);
    bench.pass(Duration::from_secs(29));
    assert!(bench.sent_to_client(client).is_empty());
    bench.pass(Duration::from_secs(2));
    assert_eq!(error_of(&bench.sent_to_client(client)[0]).code, Code::Timeout);
    assert_eq!(bench.sent_to_worker(), [(Kind::CANCEL, 1)]);
    bench.finish(1);
    assert_eq!((bench.model().n_in_hand(), bench.core.requests.len(), bench.core.counters.failed), (0, 0, 1));
}

/// Hunts for a deadline that nobody looks at, since the clock stands still while nothing waits for a time.
#[test]
fn the_clock_is_wanted_for_deadlines_and_stalled_streams_and_for_nothing_else() {
    let mut bench = Bench::new();
    let client = bench.client();
    let wants_clock = |bench: &mut Bench| (bench.core.take_wakes().clock, bench.core.waits_for_time());
    bench.generate(client, 1, stream());
    bench.delta(1, "a");
    assert_eq!(wants_clock(&mut bench), (false, false));
    bench.finish(1);
    bench.generate(client, 2, v1::GenerateRequest { deadline_ms: 100, ..stream() });
    assert_eq!(wants_clock(&mut bench), (true, true));
    bench.finish(2);
    bench.generate(client, 3, v1::GenerateRequest { credit: 1, ..stream() });
    bench.delta(3, "a");
    assert_eq!(wants_clock(&mut bench), (false, false));
    bench.delta(3, "b");
    assert_eq!(wants_clock(&mut bench), (true, true));
    bench.send(client, Kind::CREDIT, 3, &v1::Credit { deltas: 5 }).unwrap();
    assert_eq!(wants_clock(&mut bench), (false, false));
    let state = ModelState::new(None, 0, SEQUENCES_MAX, Some(Duration::from_secs(1)), true, bench.now);
    bench.core.models.insert("kept".to_owned(), state);
    assert_eq!(wants_clock(&mut bench), (false, true));
}

/// Hunts for a stream that stands still for good after its client had let the outbox fill up.
#[test]
fn streams_that_waited_for_room_go_on_when_the_outbox_is_empty() {
    let mut bench = Bench::new();
    let client = bench.client();
    bench.generate(client, 1, stream());
    let piece = "x".repeat(600_000);
    for _ in 0..3 {
        bench.delta(1, &piece);
    }
    bench.finish(1);
    let mut taken = Vec::new();
    let full = bench.core.send(client, bench.now, &mut |bytes| {
        if taken.len() >= 1_000_000 {
            return Err(std::io::ErrorKind::WouldBlock.into());
        }
        let n = bytes.len().min(100_000);
        taken.extend_from_slice(&bytes[..n]);
        Ok(n)
    });
    assert_eq!((full, frames(&taken).len()), (Written::Full, 1));
    let all = bench.core.send(client, bench.now, &mut |bytes| {
        taken.extend_from_slice(bytes);
        Ok(bytes.len())
    });
    assert_eq!((all, bench.core.waiting_bytes(client)), (Written::All, 0));
    let frames = frames(&taken);
    assert_eq!(kinds(&frames), [(Kind::DELTA, 1), (Kind::DELTA, 1), (Kind::DELTA, 1), (Kind::FINISH, 1)]);
    let n_bytes = frames[..3].iter().map(|frame| frame.message::<v1::Delta>().unwrap().choices[0].text.len());
    assert_eq!(n_bytes.sum::<usize>(), 1_800_000);
}

#[test]
fn the_worker_gets_as_many_sequences_as_it_has_room_for_and_the_urgent_ones_first() {
    let mut bench = Bench::new();
    let client = bench.client();
    for (id, priority) in [
        (1, v1::Priority::Normal),
        (2, v1::Priority::Normal),
        (3, v1::Priority::Low),
        (4, v1::Priority::High),
    ] {
        bench.generate(client, id, v1::GenerateRequest { priority: priority.into(), ..whole() });
    }
    // Those of lower priority do not count against an urgent one: the worker's scheduler decides which of them runs.
    let first = [(Kind::GENERATE, 1), (Kind::GENERATE, 2), (Kind::GENERATE, 4)];
    assert_eq!(bench.sent_to_worker(), first);
    bench.finish(1);
    assert_eq!(bench.sent_to_worker(), []);
    bench.finish(2);
    assert_eq!(bench.sent_to_worker(), [(Kind::GENERATE, 3)]);
}

#[test]
fn a_request_for_several_answers_waits_for_all_its_places() {
    let mut bench = Bench::new();
    let client = bench.client();
    bench.generate(client, 1, whole());
    bench.generate(client, 2, v1::GenerateRequest { n_choices: 2, ..whole() });
    assert_eq!(bench.sent_to_worker(), [(Kind::GENERATE, 1)]);
    bench.finish(1);
    assert_eq!(bench.sent_to_worker(), [(Kind::GENERATE, 2)]);
    bench.generate(client, 3, v1::GenerateRequest { n_choices: 3, ..whole() });
    let frames = bench.sent_to_client(client);
    assert_eq!(error_of(frames.last().unwrap()).code, Code::Usage);
}

#[test]
fn a_full_queue_refuses_with_a_time_to_try_again() {
    let mut bench = Bench::new();
    let client = bench.client();
    for id in 1..=(SEQUENCES_MAX + QUEUE_MAX) as u64 {
        bench.generate(client, id, whole());
    }
    assert!(bench.sent_to_client(client).is_empty());
    bench.generate(client, 100, whole());
    let failure = error_of(&bench.sent_to_client(client)[0]);
    assert!(failure.code == Code::QueueFull && failure.retry_after_ms.is_some(), "{failure:?}");
    assert_eq!(bench.core.counters.rejected, 1);
}

#[test]
fn cancelling_ends_a_request_wherever_it_is() {
    let mut bench = Bench::new();
    let client = bench.client();
    (1..=3).for_each(|id| bench.generate(client, id, whole()));
    bench.sent_to_worker();
    bench.send(client, Kind::CANCEL, 3, &v1::Cancel {}).unwrap();
    let frames = bench.sent_to_client(client);
    let finish: v1::Finish = frames[0].message().unwrap();
    assert_eq!(finish.choices[0].finish_reason(), v1::FinishReason::FinishCancelled);
    bench.send(client, Kind::CANCEL, 1, &v1::Cancel {}).unwrap();
    assert_eq!(bench.sent_to_worker(), [(Kind::CANCEL, 1)]);
    bench.finish(1);
    assert_eq!(kinds(&bench.sent_to_client(client)), [(Kind::FINISH, 1)]);
}

#[test]
fn a_client_that_vanishes_leaves_nothing_behind() {
    let mut bench = Bench::new();
    let (gone, other) = (bench.client(), bench.client());
    (1..=3).for_each(|id| bench.generate(gone, id, stream()));
    bench.generate(other, 1, whole());
    bench.sent_to_worker();
    bench.core.close_session(gone, bench.now);
    assert_eq!(bench.sent_to_worker(), [(Kind::CANCEL, 1), (Kind::CANCEL, 2)]);
    bench.delta(1, "late");
    bench.finish(1);
    bench.finish(2);
    assert_eq!(bench.sent_to_worker(), [(Kind::GENERATE, 4)]);
    assert_eq!((bench.core.requests.len(), bench.core.counters.failed), (1, 3));
}

#[test]
fn what_a_dead_worker_had_is_tried_once_more_unless_something_was_sent() {
    let mut bench = Bench::new();
    let client = bench.client();
    bench.generate(client, 1, stream());
    bench.generate(client, 2, stream());
    bench.generate(client, 3, whole());
    bench.sent_to_worker();
    bench.delta(1, "seen");
    assert_eq!(bench.die(), Some(Duration::from_millis(100)));
    let frames = bench.sent_to_client(client);
    assert_eq!(kinds(&frames), [(Kind::DELTA, 1), (Kind::ERROR, 1)]);
    assert_eq!(error_of(&frames[1]).code, Code::WorkerLost);
    bench.start_worker();
    assert_eq!(bench.sent_to_worker(), [(Kind::GENERATE, 2), (Kind::GENERATE, 3)]);
    // The second loss is told.
    assert_eq!(bench.die(), Some(Duration::from_millis(200)));
    let frames = bench.sent_to_client(client);
    assert_eq!(kinds(&frames), [(Kind::ERROR, 2)]);
    bench.start_worker();
    assert_eq!(bench.sent_to_worker(), [(Kind::GENERATE, 3)]);
}

#[test]
fn a_model_whose_workers_die_in_a_row_is_quarantined_and_a_good_answer_ends_the_row() {
    let mut bench = Bench::new();
    let client = bench.client();
    bench.die();
    bench.start_worker();
    bench.die();
    bench.start_worker();
    bench.generate(client, 1, whole());
    bench.finish(1);
    assert!(bench.die().is_some(), "the row has ended with the answer");
    bench.start_worker();
    assert!(bench.die().is_some());
    bench.generate(client, 2, whole());
    assert_eq!(bench.die(), None);
    assert_eq!(bench.model().phase, Phase::Quarantined);
    let frames = bench.sent_to_client(client);
    assert_eq!(error_of(frames.last().unwrap()).code, Code::ModelQuarantined);
    bench.generate(client, 3, whole());
    assert_eq!(error_of(&bench.sent_to_client(client)[0]).code, Code::ModelQuarantined);
}

#[test]
fn a_deadline_ends_a_request_that_waits_and_one_that_runs() {
    let mut bench = Bench::new();
    let client = bench.client();
    (1..=3).for_each(|id| bench.generate(client, id, v1::GenerateRequest { deadline_ms: 500, ..whole() }));
    bench.sent_to_worker();
    bench.pass(Duration::from_millis(499));
    assert!(bench.sent_to_client(client).is_empty());
    bench.pass(Duration::from_millis(1));
    let frames = bench.sent_to_client(client);
    assert!(frames.len() == 3 && frames.iter().all(|frame| error_of(frame).code == Code::Timeout));
    assert_eq!(bench.sent_to_worker(), [(Kind::CANCEL, 1), (Kind::CANCEL, 2)]);
}

#[test]
fn frames_that_break_the_protocol_end_the_session() {
    let mut bench = Bench::new();
    let client = bench.client();
    bench.generate(client, 1, whole());
    let wrong: [(Kind, u64); 6] = [
        (Kind::GENERATE, 0),
        (Kind::GENERATE, 1),
        (Kind::HELLO, 2),
        (Kind::DELTA, 2),
        (Kind::WORKER_ORDER, 2),
        (Kind::WORKER_PONG, 2),
    ];
    for (kind, id) in wrong {
        assert!(bench.send(client, kind, id, &whole()).is_err(), "{kind} {id}");
    }
    // A body that is malformed concerns its request alone.
    let frame = Frame { kind: Kind::GENERATE, request_id: 5, body: vec![0xff; 9] };
    assert_eq!(bench.core.take_client_frame(client, frame, bench.now).unwrap(), Errand::None);
    assert_eq!(error_of(&bench.sent_to_client(client)[0]).code, Code::Usage);
}

/// Hunts for a question that is answered although a part of it was not understood.
#[test]
fn a_body_with_a_field_that_is_not_known_is_refused_whatever_it_asks() {
    let mut bench = Bench::new();
    let admin = bench.core.open_session("uid:0".to_owned(), true);
    // Field 15, of wire type 0, with the value 1: no message of a client but Sampling has so many.
    let unknown = vec![15 << 3, 1];
    for (id, &kind) in (1..).zip(Kind::ALL.iter().filter(|kind| kind.is_from_client())) {
        let frame = Frame { kind, request_id: id, body: unknown.clone() };
        let taken = bench.core.take_client_frame(admin, frame, bench.now);
        if [Kind::HELLO, Kind::CANCEL, Kind::CREDIT].contains(&kind) {
            assert_eq!(taken.unwrap_err().code, Code::Usage, "{kind}");
            continue;
        }
        assert_eq!(taken.unwrap(), Errand::None, "{kind}");
        let sent = bench.sent_to_client(admin);
        assert_eq!(kinds(&sent), [(Kind::ERROR, id)], "{kind}");
        assert_eq!(error_of(&sent[0]).code, Code::Usage, "{kind}");
    }
    assert!(bench.sent_to_worker().is_empty());
}

#[test]
fn what_concerns_a_request_that_has_ended_is_passed_over() {
    let mut bench = Bench::new();
    let client = bench.client();
    bench.generate(client, 1, stream());
    bench.finish(1);
    bench.sent_to_worker();
    bench.sent_to_client(client);
    for id in [1, 7, 0] {
        bench.send(client, Kind::CANCEL, id, &v1::Cancel {}).unwrap();
        bench.send(client, Kind::CREDIT, id, &v1::Credit { deltas: 5 }).unwrap();
    }
    assert!(bench.sent_to_worker().is_empty() && bench.sent_to_client(client).is_empty());
}

#[test]
fn a_worker_that_answers_what_it_was_not_asked_is_broken() {
    let mut bench = Bench::new();
    let client = bench.client();
    bench.generate(client, 1, whole());
    assert!(bench.worker_says(Kind::FINISH, 7, &v1::Finish::default()).is_err());
    assert!(bench.worker_says(Kind::TOKENIZE_REPLY, 1, &v1::TokenizeReply::default()).is_err());
    assert!(bench.worker_says(Kind::DELTA, 1, &v1::Delta::default()).is_err(), "it was not asked to stream");
    bench.generate(client, 2, stream());
    let choice = v1::ChoiceDelta { index: 5, ..v1::ChoiceDelta::default() };
    assert!(bench.worker_says(Kind::DELTA, 2, &v1::Delta { choices: vec![choice] }).is_err());
}

#[test]
fn only_administrators_may_change_the_daemon() {
    let mut bench = Bench::new();
    let (client, admin) = (bench.client(), bench.core.open_session("uid:0".to_owned(), true));
    for (id, kind) in
        [Kind::MODEL_LOAD, Kind::MODEL_UNLOAD, Kind::DRAIN, Kind::RELOAD].into_iter().enumerate()
    {
        let id = id as u64 + 1;
        assert_eq!(bench.send(client, kind, id, &v1::DrainRequest {}).unwrap(), Errand::None);
        assert_eq!(error_of(&bench.sent_to_client(client)[0]).code, Code::Forbidden);
        let errand = bench.send(admin, kind, id, &v1::DrainRequest {}).unwrap();
        assert_eq!(errand, Errand::Administer(kind, id, Vec::new()));
    }
}

#[test]
fn a_draining_daemon_finishes_what_it_has_and_takes_nothing_new() {
    let mut bench = Bench::new();
    let client = bench.client();
    bench.generate(client, 1, whole());
    bench.core.drain();
    bench.generate(client, 2, whole());
    assert_eq!(error_of(&bench.sent_to_client(client)[0]).code, Code::ShuttingDown);
    assert!(!bench.core.is_drained());
    bench.finish(1);
    assert!(!bench.core.is_drained(), "the answer has not been written yet");
    bench.sent_to_client(client);
    assert!(bench.core.is_drained());
}

#[test]
fn a_model_that_nobody_asks_for_is_unloaded_and_comes_back() {
    let mut bench = Bench::new();
    bench.core.models.get_mut(MODEL).unwrap().idle_unload = Some(Duration::from_secs(5));
    let client = bench.client();
    bench.generate(client, 1, whole());
    bench.pass(Duration::from_secs(60));
    assert_eq!(bench.model().stop, None, "it is in use");
    bench.finish(1);
    bench.pass(Duration::from_secs(4));
    assert_eq!(bench.model().stop, None);
    bench.pass(Duration::from_secs(1));
    assert_eq!(bench.model().stop, Some(super::model_state::Stop::Unload));
    bench.core.worker_stopped(MODEL, bench.now);
    bench.core.take_wakes();
    bench.sent_to_worker();
    bench.generate(client, 2, whole());
    assert!(bench.core.take_wakes().models.contains(MODEL), "its task sees that it is asked for");
    bench.start_worker();
    assert_eq!(bench.sent_to_worker(), [(Kind::GENERATE, 2)]);
}

#[test]
fn a_worker_is_told_for_whom_a_request_is_and_clients_cannot_say_it() {
    let mut bench = Bench::new();
    let mut admissions = Vec::new();
    for (id, uid) in [(1, 7), (2, 8), (3, 9), (4, 7)] {
        let client = bench.client_of(uid);
        bench.generate(client, 5, v1::GenerateRequest { deadline_ms: 500, ..whole() });
        let frames = bench.frames_to_worker();
        assert_eq!(kinds(&frames), [(Kind::WORKER_CLIENT, id), (Kind::GENERATE, id)]);
        admissions.push(decode_json::<Admission>(&frames[0]).unwrap());
        bench.finish(id);
    }
    let [seven, eight, nine, again] = admissions[..] else { panic!("four requests") };
    assert_eq!(seven, again);
    assert_eq!((seven.weight, nine.weight, seven.deadline_ms), (1, 3, Some(500)));
    assert_eq!(eight.group, nine.group, "the configuration lets them share");
    assert_ne!(eight.principal, nine.principal);
    assert_ne!(seven.group, eight.group);
    let client = bench.client_of(7);
    let forged = Frame { kind: Kind::WORKER_CLIENT, request_id: 1, body: b"{}".to_vec() };
    assert!(bench.core.take_client_frame(client, forged, bench.now).is_err());
}

#[test]
fn what_one_user_asks_for_keeps_no_other_from_the_worker_and_from_the_queue() {
    let mut bench = Bench::new();
    let flood = bench.client();
    for id in 1..=SEQUENCES_MAX + QUEUE_MAX {
        bench.generate(flood, id as u64, whole());
    }
    assert_eq!(bench.sent_to_worker().len(), SEQUENCES_MAX);
    bench.generate(flood, 99, whole());
    assert_eq!(error_of(&bench.sent_to_client(flood)[0]).code, Code::QueueFull);
    let other = bench.client_of(8);
    bench.generate(other, 1, whole());
    assert_eq!(bench.sent_to_worker(), [(Kind::GENERATE, 7)], "the worker gets it at once");
    // Of one user the more urgent requests reach the worker beside those that it has.
    let urgent = v1::GenerateRequest { priority: v1::Priority::High.into(), ..whole() };
    bench.core.settings.queue_max = 100;
    bench.generate(flood, 100, urgent);
    assert_eq!(bench.sent_to_worker(), [(Kind::GENERATE, 8)]);
    bench.finish(1);
    assert_eq!(bench.sent_to_worker(), [], "the urgent one counts");
    bench.finish(8);
    assert_eq!(bench.sent_to_worker(), [(Kind::GENERATE, 3)]);
}
