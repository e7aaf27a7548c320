//! The heart of the supervisor, without I/O: sessions, requests, models, and what each owes the others.
//!
//! Bytes for a client or a worker are appended to an outbox here; whose outbox is to be sent is listed in
//! [`Core::take_wakes`]. Time is passed in. The shell and the tasks around it (`session`, `keeper`) move the bytes.
//!
//! A request is *queued* until its model's worker has room, then *running* until the worker's last word about it. Its
//! client may be gone by then: the request stays until the worker has let go of it, so that what a worker has in hand is
//! always known here.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::time::{Duration, Instant};

use veritas_proto::{Frame, Kind, Message, encode, encode_body, limits, v1};

use super::counters::Counters;
use super::model_state::{ModelState, Phase, Stop};
use super::outbox::{Outbox, Written};
use super::request::{Ask, Request, Stage};
use crate::config::{SharingGroup, Weight};
use crate::failure::{Code, Failure};
use crate::link::{Admission, Loaded, Pong, decode_json, encode_json};

/// Names a session; never used twice.
pub(crate) type SessionKey = u64;

/// Bytes that may wait for a client before its streams are held back.
const OUTBOX_BYTES_MAX: usize = 1 << 20;

/// Bytes of text and tokens of one stream that may wait for its client before the worker pauses it.
const PENDING_BYTES_MAX: usize = 256 << 10;

/// Answers to one prompt, as everywhere.
const CHOICES_MAX: u32 = 256;

/// When a client that was refused for a full queue may try again.
const RETRY_AFTER_MS: u64 = 1000;

/// Bounds and times that the core goes by.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) queue_max: usize,
    pub(crate) queue_per_principal_max: usize,
    pub(crate) requests_per_principal_max: usize,
    /// Users who share cached prefixes with each other.
    pub(crate) sharing_groups: Vec<SharingGroup>,
    /// Users whose share of the computation is another than 1.
    pub(crate) weights: Vec<Weight>,
    pub(crate) request_timeout: Option<Duration>,
    pub(crate) slow_client_timeout: Duration,
    pub(crate) quarantine_after: u32,
    pub(crate) restart_backoff: Duration,
    pub(crate) restart_backoff_max: Duration,
}

/// A client's connection.
pub(crate) struct Session {
    pub(crate) principal: String,
    pub(crate) is_admin: bool,
    /// Open requests by the client's numbers.
    open: BTreeMap<u64, u64>,
    outbox: Outbox,
    /// Whether a stream waits for room in the outbox.
    is_full: bool,
}

/// What a session's task is to do besides: the core cannot do it itself.
#[derive(Debug, PartialEq)]
pub(crate) enum Errand {
    /// Nothing.
    None,
    /// Answer from the state of the daemon: the kind of the request, and its number.
    Report(Kind, u64),
    /// Load, unload or drain: for those who may.
    Administer(Kind, u64, Vec<u8>),
}

/// Who has bytes to send or a change of state to see.
#[derive(Default)]
pub(crate) struct Wakes {
    pub(crate) sessions: Vec<SessionKey>,
    pub(crate) models: BTreeSet<String>,
    /// Whether something waits for a time since now.
    pub(crate) clock: bool,
}

pub(crate) struct Core {
    pub(crate) settings: Settings,
    pub(crate) models: BTreeMap<String, ModelState>,
    pub(crate) sessions: HashMap<SessionKey, Session>,
    pub(crate) requests: HashMap<u64, Request>,
    pub(crate) counters: Counters,
    pub(crate) started: Instant,
    draining: bool,
    next_session: SessionKey,
    next_request: u64,
    /// What principals and groups are called towards workers.
    numbers: BTreeMap<String, u32>,
    wakes: Wakes,
}

impl Core {
    pub(crate) fn new(settings: Settings, now: Instant) -> Self {
        Self {
            settings,
            models: BTreeMap::new(),
            sessions: HashMap::new(),
            requests: HashMap::new(),
            counters: Counters::default(),
            started: now,
            draining: false,
            next_session: 1,
            next_request: 1,
            numbers: BTreeMap::new(),
            wakes: Wakes::default(),
        }
    }

    /// Who has bytes to send, each once and in the order of their numbers, and whose state has changed.
    pub(crate) fn take_wakes(&mut self) -> Wakes {
        let mut wakes = std::mem::take(&mut self.wakes);
        wakes.sessions.sort_unstable();
        wakes.sessions.dedup();
        wakes
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining
    }

    // ------------------------------------------------------------------------------------------------- sessions

    pub(crate) fn open_session(&mut self, principal: String, is_admin: bool) -> SessionKey {
        let key = self.next_session;
        self.next_session += 1;
        let session =
            Session { principal, is_admin, open: BTreeMap::new(), outbox: Outbox::default(), is_full: false };
        self.sessions.insert(key, session);
        key
    }

    /// A client is gone: its requests end.
    pub(crate) fn close_session(&mut self, key: SessionKey, now: Instant) {
        let Some(session) = self.sessions.remove(&key) else { return };
        for id in session.open.into_values() {
            self.abandon(id, now);
        }
    }

    /// Bytes that a client has yet to take.
    pub(crate) fn waiting_bytes(&self, key: SessionKey) -> usize {
        self.sessions.get(&key).map_or(0, |session| session.outbox.len())
    }

    /// Takes what waits for a client, to write it elsewhere.
    pub(crate) fn take_outbox(&mut self, key: SessionKey) -> Vec<u8> {
        self.sessions.get_mut(&key).map(|session| session.outbox.take()).unwrap_or_default()
    }

    /// Writes what waits for a client as far as `write` takes it. Streams that waited for room go on.
    pub(crate) fn send(
        &mut self,
        key: SessionKey,
        now: Instant,
        write: &mut dyn FnMut(&[u8]) -> io::Result<usize>,
    ) -> Written {
        loop {
            let Some(session) = self.sessions.get_mut(&key) else { return Written::Gone };
            let written = session.outbox.write(write);
            if written != Written::All || !session.is_full {
                return written;
            }
            self.has_room(key, now);
        }
    }

    /// Sends a message to a client.
    pub(crate) fn reply(&mut self, key: SessionKey, kind: Kind, client_id: u64, message: &impl Message) {
        if let Some(session) = self.sessions.get_mut(&key) {
            encode(session.outbox.frames(), kind, client_id, message);
            self.wakes.sessions.push(key);
        }
    }

    pub(crate) fn reply_failure(&mut self, key: SessionKey, client_id: u64, failure: &Failure) {
        self.reply(key, Kind::ERROR, client_id, &failure.to_wire());
    }

    /// A client's outbox is empty again: streams that were held back go on.
    pub(crate) fn has_room(&mut self, key: SessionKey, now: Instant) {
        let Some(session) = self.sessions.get_mut(&key) else { return };
        session.is_full = false;
        for id in session.open.values().copied().collect::<Vec<_>>() {
            self.pump(id, now);
        }
    }

    /// Takes a frame of a client.
    ///
    /// # Errors
    /// What ends the session.
    pub(crate) fn take_client_frame(
        &mut self,
        key: SessionKey,
        frame: Frame,
        now: Instant,
    ) -> Result<Errand, Failure> {
        let id = frame.request_id;
        if frame.kind.is_internal() {
            return Err(Failure::usage(format!("{} is not for clients", frame.kind)));
        }
        match frame.kind {
            Kind::CANCEL => {
                frame.check()?;
                self.cancel(key, id, now);
                return Ok(Errand::None);
            }
            Kind::CREDIT => {
                let credit: v1::Credit = frame.message()?;
                self.give_credit(key, id, credit.deltas, now);
                return Ok(Errand::None);
            }
            _ => {}
        }
        if id == 0 {
            return Err(Failure::usage(format!("{} needs a request id other than 0", frame.kind)));
        }
        let Some(session) = self.sessions.get(&key) else { return Ok(Errand::None) };
        if session.open.contains_key(&id) {
            return Err(Failure::usage(format!("the request id {id} is in use")));
        }
        if matches!(frame.kind, Kind::GENERATE | Kind::TOKENIZE | Kind::DETOKENIZE | Kind::EMBED) {
            if let Err(failure) = self.submit(key, frame, now) {
                self.counters.rejected(&self.sessions[&key].principal);
                self.reply_failure(key, id, &failure);
            }
            return Ok(Errand::None);
        }
        if !frame.kind.is_from_client() || frame.kind == Kind::HELLO {
            return Err(Failure::usage(format!("a client does not send {} here", frame.kind)));
        }
        if let Err(error) = frame.check() {
            self.reply_failure(key, id, &error.into());
            return Ok(Errand::None);
        }
        match frame.kind {
            Kind::LIVE | Kind::READY | Kind::HEALTH | Kind::STATUS | Kind::METRICS | Kind::MODEL_LIST => {
                Ok(Errand::Report(frame.kind, id))
            }
            Kind::MODEL_INFO => Ok(Errand::Administer(frame.kind, id, frame.body)),
            Kind::MODEL_LOAD | Kind::MODEL_UNLOAD | Kind::DRAIN | Kind::RELOAD => {
                if session.is_admin {
                    return Ok(Errand::Administer(frame.kind, id, frame.body));
                }
                let message = format!("{} may not do that: it is for administrators", session.principal);
                self.reply_failure(key, id, &Failure::new(Code::Forbidden, message));
                Ok(Errand::None)
            }
            other => Err(Failure::internal(format!("{other} has no place in this daemon"))),
        }
    }

    // ------------------------------------------------------------------------------------------------- requests

    fn submit(&mut self, key: SessionKey, frame: Frame, now: Instant) -> Result<(), Failure> {
        let session = &self.sessions[&key];
        if self.draining {
            return Err(Failure::new(Code::ShuttingDown, "the daemon is shutting down"));
        }
        let principal = session.principal.clone();
        if session.open.len() >= limits::REQUESTS_PER_SESSION_MAX as usize {
            let message = format!("{} requests are open on this connection", session.open.len());
            return Err(Failure::new(Code::RateLimited, message).retry_after_ms(RETRY_AFTER_MS));
        }
        let most = self.settings.requests_per_principal_max;
        if most > 0 && self.counters.open_of(&principal) >= most {
            let message = format!("{principal} has {most} requests open, which is its limit");
            return Err(Failure::new(Code::RateLimited, message).retry_after_ms(RETRY_AFTER_MS));
        }
        let client_id = frame.request_id;
        let ask = Ask::read(&frame)?;
        let name = self.resolve(ask.model())?;
        let queue_max = self.settings.queue_max;
        let queue_per_principal_max = self.settings.queue_per_principal_max;
        let model = self.models.get_mut(&name).ok_or_else(|| no_such_model(&name))?;
        model.accepts()?;
        let n_sequences = ask.n_sequences();
        if n_sequences > CHOICES_MAX || n_sequences as usize > model.max_sequences {
            let most = model.max_sequences.min(CHOICES_MAX as usize);
            return Err(Failure::usage(format!("{n_sequences} answers are asked for, {most} can be given")));
        }
        let n_own = model.n_queued_of(&principal);
        // Whoever has nothing here is let in, so that no principal can fill the queue for others.
        if model.n_queued() >= queue_max && (n_own > 0 || model.has_work_of(&principal)) {
            let message = format!("{queue_max} requests wait for {name} already");
            return Err(Failure::new(Code::QueueFull, message).retry_after_ms(RETRY_AFTER_MS));
        }
        if queue_per_principal_max > 0 && n_own >= queue_per_principal_max {
            let message = format!("{n_own} requests of {principal} wait for {name}, which is its limit");
            return Err(Failure::new(Code::QueueFull, message).retry_after_ms(RETRY_AFTER_MS));
        }
        let id = self.next_request;
        self.next_request += 1;
        let timeout = ask.deadline().or(self.settings.request_timeout);
        let request = Request::new(key, client_id, name.clone(), principal, ask, frame, timeout, now);
        self.wakes.clock |= request.deadline.is_some();
        self.counters.opened(&request.principal);
        model.enqueue(id, request.work());
        self.requests.insert(id, request);
        if let Some(session) = self.sessions.get_mut(&key) {
            session.open.insert(client_id, id);
        }
        self.dispatch(&name, now);
        Ok(())
    }

    /// The model that a request names; without a name the only one.
    pub(crate) fn resolve(&self, name: &str) -> Result<String, Failure> {
        if !name.is_empty() {
            return Ok(name.to_owned());
        }
        let mut names = self.models.keys();
        match (names.next(), names.next()) {
            (Some(only), None) => Ok(only.clone()),
            (None, _) => Err(Failure::new(Code::NotFound, "no model is loaded")),
            (Some(_), Some(_)) => {
                let names = self.models.keys().cloned().collect::<Vec<_>>().join(", ");
                Err(Failure::usage("several models are loaded, and the request names none")
                    .hint(format!("name one with --model: {names}")))
            }
        }
    }

    /// Hands queued requests to the worker while it has room.
    pub(crate) fn dispatch(&mut self, name: &str, now: Instant) {
        let Some(model) = self.models.get_mut(name) else { return };
        model.last_used = now;
        if !matches!(model.phase, Phase::Ready) {
            // A model that was unloaded for want of requests is asked for again: its task sees the queue.
            self.wakes.models.insert(name.to_owned());
            return;
        }
        while let Some(id) = model.next_queued() {
            model.drop_queued(id);
            let Some(request) = self.requests.get_mut(&id) else { continue };
            if request.kind == Kind::GENERATE {
                let admission =
                    admission(&mut self.numbers, &self.settings, &request.principal, request.deadline, now);
                if let Err(failure) = encode_json(&mut model.outbox, Kind::WORKER_CLIENT, id, &admission) {
                    return self.fail(id, &failure, now);
                }
            }
            model.start(id, request.work());
            request.stage = Stage::Running;
            request.sent = Some(now);
            encode_body(&mut model.outbox, request.kind, id, &request.body);
            self.wakes.models.insert(name.to_owned());
        }
    }

    fn request_of(&self, key: SessionKey, client_id: u64) -> Option<u64> {
        self.sessions.get(&key)?.open.get(&client_id).copied()
    }

    fn give_credit(&mut self, key: SessionKey, client_id: u64, deltas: u32, now: Instant) {
        // A request that has ended meanwhile needs none.
        let Some(id) = self.request_of(key, client_id) else { return };
        if let Some(request) = self.requests.get_mut(&id) {
            request.credit = request.credit.saturating_add(deltas).min(limits::CREDIT_MAX);
            self.pump(id, now);
        }
    }

    /// A client cancels: what there is is its answer.
    fn cancel(&mut self, key: SessionKey, client_id: u64, now: Instant) {
        let Some(id) = self.request_of(key, client_id) else { return };
        let Some(request) = self.requests.get_mut(&id) else { return };
        request.cancelled = true;
        match request.stage {
            // The worker has let go of it, and the client has yet to take the rest.
            Stage::Queued if request.finish.is_some() => {}
            Stage::Queued => {
                let finish = request.cancelled_finish();
                self.finish(id, finish, now);
            }
            Stage::Running => self.tell_worker(id, Kind::CANCEL),
        }
    }

    /// Ends a request whose client is gone.
    fn abandon(&mut self, id: u64, now: Instant) {
        let Some(request) = self.requests.get_mut(&id) else { return };
        request.session = None;
        request.pending = v1::Delta::default();
        match request.stage {
            Stage::Queued => {
                self.counters.failed(&request.principal.clone());
                self.forget(id, now);
            }
            Stage::Running => self.tell_worker(id, Kind::CANCEL),
        }
    }

    /// Ends a request with an error. A worker that has it is told to let go.
    pub(crate) fn fail(&mut self, id: u64, failure: &Failure, now: Instant) {
        let Some(request) = self.requests.get_mut(&id) else { return };
        let session = request.session.take();
        let (client_id, principal, stage) = (request.client_id, request.principal.clone(), request.stage);
        request.pending = v1::Delta::default();
        if let Some(key) = session {
            self.reply_failure(key, client_id, failure);
            self.close_request_of(key, client_id);
        }
        self.counters.failed(&principal);
        match stage {
            Stage::Queued => self.forget(id, now),
            Stage::Running => {
                if let Some(request) = self.requests.get_mut(&id) {
                    request.counted = true;
                }
                self.tell_worker(id, Kind::CANCEL);
            }
        }
    }

    fn close_request_of(&mut self, key: SessionKey, client_id: u64) {
        if let Some(session) = self.sessions.get_mut(&key) {
            session.open.remove(&client_id);
        }
    }

    /// Takes a request off the books: neither client nor worker has it any more.
    fn forget(&mut self, id: u64, now: Instant) {
        let Some(request) = self.requests.remove(&id) else { return };
        self.counters.closed(&request.principal);
        if let Some(key) = request.session {
            self.close_request_of(key, request.client_id);
        }
        if let Some(model) = self.models.get_mut(&request.model) {
            model.drop_queued(id);
            model.end(id);
        }
        self.dispatch(&request.model, now);
    }

    /// The answer to a client is whole; it is sent after what waits before it.
    fn finish(&mut self, id: u64, finish: v1::Finish, now: Instant) {
        if let Some(request) = self.requests.get_mut(&id) {
            request.finish = Some(finish);
            if request.session.is_some() {
                self.pump(id, now);
            } else {
                if !request.counted {
                    let principal = request.principal.clone();
                    self.counters.failed(&principal);
                }
                self.forget(id, now);
            }
        }
    }

    fn tell_worker(&mut self, id: u64, kind: Kind) {
        let Some(request) = self.requests.get(&id) else { return };
        if let Some(model) = self.models.get_mut(&request.model)
            && model.has(id)
        {
            encode(&mut model.outbox, kind, id, &v1::Cancel {});
            self.wakes.models.insert(request.model.clone());
        }
    }

    /// Sends what waits of a stream, as far as its client's credit goes, and then its end.
    fn pump(&mut self, id: u64, now: Instant) {
        let Some(request) = self.requests.get_mut(&id) else { return };
        let Some(key) = request.session else { return };
        let Some(session) = self.sessions.get_mut(&key) else { return };
        let has_room = session.outbox.len() < OUTBOX_BYTES_MAX;
        if !request.pending.choices.is_empty() {
            if request.credit == 0 || !has_room {
                session.is_full |= !has_room;
                self.wakes.clock |= request.stalled_since.is_none();
                request.stalled_since.get_or_insert(now);
                if !request.paused && request.finish.is_none() && request.pending_bytes() > PENDING_BYTES_MAX
                {
                    request.paused = true;
                    self.tell_worker(id, Kind::WORKER_PAUSE);
                }
                return;
            }
            request.credit -= 1;
            let delta = std::mem::take(&mut request.pending);
            encode(session.outbox.frames(), Kind::DELTA, request.client_id, &delta);
            self.wakes.sessions.push(key);
        }
        request.stalled_since = None;
        let client_id = request.client_id;
        let finish = request.finish.take();
        if std::mem::take(&mut request.paused) && finish.is_none() {
            self.tell_worker(id, Kind::WORKER_RESUME);
        }
        if let Some(finish) = finish {
            self.reply(key, Kind::FINISH, client_id, &finish);
            let request = &self.requests[&id];
            self.counters.finished(request, &finish, now);
            self.forget(id, now);
        }
    }

    // -------------------------------------------------------------------------------------------------- workers

    /// A worker has loaded its model.
    pub(crate) fn worker_loaded(&mut self, name: &str, loaded: Loaded, now: Instant) {
        if let Some(model) = self.models.get_mut(name) {
            model.loaded = Some(loaded);
            model.is_loaded = true;
            self.serve_if_complete(name, now);
        }
    }

    /// The digest of a model's files is computed.
    pub(crate) fn digest_known(&mut self, name: &str, digest: String, now: Instant) {
        if let Some(model) = self.models.get_mut(name) {
            model.digest = Some(digest);
            self.serve_if_complete(name, now);
        }
    }

    fn serve_if_complete(&mut self, name: &str, now: Instant) {
        let Some(model) = self.models.get_mut(name) else { return };
        if model.is_loaded && !model.lacks_digest() && model.ready_since.is_none() {
            model.phase = Phase::Ready;
            model.ready_since = Some(now);
            self.dispatch(name, now);
        }
    }

    /// Takes a frame of a worker.
    ///
    /// # Errors
    /// If it makes no sense: the worker is broken, or not ours any more, and must end.
    pub(crate) fn take_worker_frame(
        &mut self,
        name: &str,
        frame: Frame,
        now: Instant,
    ) -> Result<(), Failure> {
        let id = frame.request_id;
        let Some(model) = self.models.get_mut(name) else { return Ok(()) };
        if frame.kind == Kind::WORKER_PONG {
            model.pong = decode_json::<Pong>(&frame)?;
            model.pong_at = now;
            return Ok(());
        }
        if !model.has(id) {
            return Err(Failure::internal(format!(
                "the worker sent {} for a request that it does not have",
                frame.kind
            )));
        }
        let Some(request) = self.requests.get_mut(&id) else { return Ok(()) };
        match frame.kind {
            Kind::DELTA if request.ask.streams() => {
                let delta: v1::Delta = frame.message()?;
                self.counters.delta(request, &delta, now);
                if request.session.is_some() {
                    request.streamed = true;
                    request.merge(delta)?;
                    self.pump(id, now);
                }
                Ok(())
            }
            Kind::FINISH if request.kind == Kind::GENERATE => {
                let mut finish: v1::Finish = frame.message()?;
                model.deaths_in_row = 0;
                model.complete(&mut finish, request);
                self.release(name, id);
                self.finish(id, finish, now);
                self.dispatch(name, now);
                Ok(())
            }
            Kind::ERROR => {
                let failure = Failure::from_wire(frame.message()?);
                self.release(name, id);
                self.fail_released(id, &failure, now);
                Ok(())
            }
            Kind::TOKENIZE_REPLY | Kind::DETOKENIZE_REPLY if frame.kind.0 == request.kind.0 + 1 => {
                let (session, client_id, principal) =
                    (request.session, request.client_id, request.principal.clone());
                self.counters.answered(&principal);
                self.release(name, id);
                if let Some(key) = session
                    && let Some(session) = self.sessions.get_mut(&key)
                {
                    encode_body(session.outbox.frames(), frame.kind, client_id, &frame.body);
                    self.wakes.sessions.push(key);
                }
                self.forget(id, now);
                Ok(())
            }
            other => Err(Failure::internal(format!("the worker sent {other}, which is not due"))),
        }
    }

    /// The worker has let go of a request.
    fn release(&mut self, name: &str, id: u64) {
        if let (Some(model), Some(request)) = (self.models.get_mut(name), self.requests.get_mut(&id)) {
            model.end(id);
            request.stage = Stage::Queued;
        }
    }

    fn fail_released(&mut self, id: u64, failure: &Failure, now: Instant) {
        match self.requests.get(&id) {
            Some(request) if request.session.is_none() => {
                if !request.counted {
                    let principal = request.principal.clone();
                    self.counters.failed(&principal);
                }
                self.forget(id, now);
            }
            Some(_) => self.fail(id, failure, now),
            None => {}
        }
    }

    /// A worker has ended. Requests of which nothing was sent are tried once more; the others fail. Returns how long to
    /// wait before another worker is started; `None` if none is to be.
    pub(crate) fn worker_died(&mut self, name: &str, failure: &Failure, now: Instant) -> Option<Duration> {
        let quarantine_after = self.settings.quarantine_after;
        let model = self.models.get_mut(name)?;
        let in_hand = model.lose_worker(failure, now);
        model.deaths_in_row += 1;
        model.restarts += 1;
        let is_out = model.deaths_in_row >= quarantine_after;
        let back_off = self.settings.restart_backoff
            * 2_u32.saturating_pow(model.deaths_in_row.saturating_sub(1).min(16));
        let back_off = back_off.min(self.settings.restart_backoff_max);
        model.phase = if is_out { Phase::Quarantined } else { Phase::Restarting };
        // Backwards, so that they stand in the queue in the order in which they came.
        for id in in_hand.into_iter().rev() {
            let Some(request) = self.requests.get_mut(&id) else { continue };
            request.stage = Stage::Queued;
            request.paused = false;
            if request.session.is_none() {
                self.fail_released(id, failure, now);
            } else if request.cancelled {
                let finish = request.cancelled_finish();
                self.finish(id, finish, now);
            } else if request.streamed || request.retried {
                let failure = Failure { code: Code::WorkerLost, ..failure.clone() };
                self.fail(id, &failure, now);
            } else if let Some(model) = self.models.get_mut(name) {
                request.retried = true;
                model.requeue(id, request.work());
            }
        }
        if is_out {
            let message = format!("{name} is quarantined: its worker died {quarantine_after} times in a row");
            let failure = Failure::new(Code::ModelQuarantined, message)
                .hint(format!("{failure}; `veritas-sdr models load {name}=PATH` tries again"));
            self.fail_queue(name, &failure, now);
            return None;
        }
        (!self.draining).then_some(back_off)
    }

    /// A worker could not load its model: trying again would give the same.
    pub(crate) fn worker_refused(&mut self, name: &str, failure: &Failure, now: Instant) {
        let Some(model) = self.models.get_mut(name) else { return };
        model.lose_worker(failure, now);
        model.phase = Phase::Failed;
        self.fail_queue(name, failure, now);
    }

    /// A worker has ended because it was asked to.
    pub(crate) fn worker_stopped(&mut self, name: &str, now: Instant) {
        let Some(model) = self.models.get_mut(name) else { return };
        let stopped = Failure::new(Code::ShuttingDown, format!("{name} was unloaded"));
        let in_hand = model.lose_worker(&stopped, now);
        model.deaths_in_row = 0;
        model.phase = Phase::Unloaded;
        for id in in_hand {
            if let Some(request) = self.requests.get_mut(&id) {
                request.stage = Stage::Queued;
                self.fail_released(id, &stopped, now);
            }
        }
    }

    /// Fails everything that waits for a model.
    pub(crate) fn fail_queue(&mut self, name: &str, failure: &Failure, now: Instant) {
        let queued = self.models.get_mut(name).map(ModelState::take_queue).unwrap_or_default();
        queued.into_iter().for_each(|id| self.fail(id, failure, now));
    }

    // ----------------------------------------------------------------------------------------------------- time

    /// Whether [`tick`](Self::tick) has something to wait for.
    pub(crate) fn waits_for_time(&self) -> bool {
        let waits = |request: &Request| request.deadline.is_some() || request.stalled_since.is_some();
        self.requests.values().any(|request| request.session.is_some() && waits(request))
            || self.models.values().any(ModelState::may_be_unloaded)
    }

    /// Looks after deadlines, clients that do not read, and models that nobody asks for.
    pub(crate) fn tick(&mut self, now: Instant) {
        let slow = self.settings.slow_client_timeout;
        for (name, model) in &mut self.models {
            if model.is_idle(now) && model.stop.is_none() {
                model.stop = Some(Stop::Unload);
                self.wakes.models.insert(name.clone());
            }
        }
        let mut late = Vec::new();
        for (&id, request) in self.requests.iter().filter(|(_, request)| request.session.is_some()) {
            if request.deadline.is_some_and(|deadline| deadline <= now) {
                let ms = request.timeout.unwrap_or_default().as_millis();
                late.push((id, format!("the request was not answered within its {ms} ms")));
            } else if request.stalled_since.is_some_and(|since| now - since >= slow) {
                late.push((id, format!("the client took nothing of its stream for {} ms", slow.as_millis())));
            }
        }
        // In the order in which they came, so that what follows does not depend on a hash.
        late.sort_unstable_by_key(|(id, _)| *id);
        for (id, message) in late {
            self.fail(id, &Failure::new(Code::Timeout, message), now);
        }
    }

    /// No request is taken from now on.
    pub(crate) fn drain(&mut self) {
        self.draining = true;
    }

    /// Requests that clients wait for.
    pub(crate) fn n_open(&self) -> usize {
        self.requests.values().filter(|request| request.session.is_some()).count()
    }

    /// Whether every client has got all that it is owed.
    pub(crate) fn is_drained(&self) -> bool {
        self.n_open() == 0 && self.sessions.values().all(|session| session.outbox.is_empty())
    }

    /// Ends every request with an error.
    pub(crate) fn fail_all(&mut self, failure: &Failure, now: Instant) {
        for id in self.requests.keys().copied().collect::<Vec<_>>() {
            self.fail(id, failure, now);
        }
    }
}

/// What a worker is told of the client of a request.
fn admission(
    numbers: &mut BTreeMap<String, u32>,
    settings: &Settings,
    principal: &str,
    deadline: Option<Instant>,
    now: Instant,
) -> Admission {
    let uid = principal.strip_prefix("uid:").and_then(|uid| uid.parse::<u32>().ok());
    let group = settings.sharing_groups.iter().find(|group| uid.is_some_and(|uid| group.has(uid)));
    let weight = settings.weights.iter().find(|weight| Some(weight.uid) == uid);
    let mut number_of = |name: String| {
        let next = numbers.len() as u32 + 1;
        *numbers.entry(name).or_insert(next)
    };
    Admission {
        // A group is called by its members: one that has changed shares nothing with what it was.
        group: number_of(group.map_or_else(|| principal.to_owned(), |group| format!("group {group}"))),
        principal: number_of(principal.to_owned()),
        weight: weight.map_or(1, |weight| weight.weight),
        deadline_ms: deadline.map(|deadline| (deadline.saturating_duration_since(now)).as_millis() as u64),
    }
}

pub(crate) fn no_such_model(name: &str) -> Failure {
    Failure::new(Code::NotFound, format!("no model is called {name:?}"))
        .hint("`veritas-sdr models list` shows those that are there")
}
