//! A client for threads, without a runtime: connecting, asking and reading the answer are a handful of system calls.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use veritas_proto::limits::BODY_BYTES_MAX;
use veritas_proto::{Frame, FrameDecoder, Kind, v1};

use super::{ClientOptions, Credit, check_length, check_welcome};
use crate::deadline::Deadline;
use crate::limits::{CANCEL_POLL, READ_BYTES};
use crate::platform::{Stream, connect};
use crate::{Error, Unary};

/// What [`Client::generate`] does after a delta.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// Goes on.
    Continue,
    /// Cancels the request and waits for its end, without another delta.
    Cancel,
}

/// A connection to a daemon, with one request at a time.
///
/// After [`Error::Timeout`] of an answer the connection can still be used: the late answer is passed over. After
/// [`Error::Protocol`] and [`Error::Disconnected`] it cannot.
#[derive(Debug)]
pub struct Client {
    reader: Reader,
    shared: Arc<Shared>,
    options: ClientOptions,
    welcome: v1::Welcome,
    /// The id of the last request.
    last_id: u64,
}

impl Client {
    /// Connects to the daemon at `path` and presents itself.
    ///
    /// # Errors
    /// [`Error::Unreachable`] if there is no daemon or it may not be reached, [`Error::Timeout`] if all this takes longer
    /// than the options say, [`Error::Refused`] if the daemon does not let the client in.
    pub fn connect(path: &Path, options: &ClientOptions) -> Result<Self, Error> {
        let deadline = Deadline::new("connecting to the daemon", options.timeout);
        Self::open(path, options, &[], deadline)
    }

    /// Connects, asks and reads the answer, all within the options' timeout. The request leaves together with the
    /// greeting, so that the daemon is waited for once.
    ///
    /// # Errors
    /// As [`Self::connect`] and [`Self::call`].
    pub fn probe<R: Unary>(path: &Path, options: &ClientOptions, request: &R) -> Result<R::Reply, Error> {
        let deadline = Deadline::new(R::WHAT, options.timeout);
        let mut frames = Vec::new();
        let id = 1;
        veritas_proto::encode(&mut frames, R::KIND, id, request);
        let mut client = Self::open(path, options, &frames, deadline)?;
        client.last_id = id;
        client.reply::<R>(id, deadline)
    }

    fn open(
        path: &Path,
        options: &ClientOptions,
        requests: &[u8],
        deadline: Deadline,
    ) -> Result<Self, Error> {
        let stream = connect(path, &|uid| options.check_server(path, uid), deadline)?;
        let written = stream.write_all(&options.greeting(requests), deadline);
        let shared = Arc::new(Shared { stream, state: Mutex::default() });
        let mut reader = Reader::new(Arc::clone(&shared));
        // A daemon that refuses may have closed the connection before the greeting was written; why, it has said.
        let frame = match (reader.frame(deadline), written) {
            (Err(Error::Disconnected), Err(error)) => return Err(error),
            (frame, _) => frame?,
        };
        let welcome = check_welcome(&frame)?;
        Ok(Self { reader, shared, options: options.clone(), welcome, last_id: 0 })
    }

    /// What the daemon said when it let the client in.
    pub fn welcome(&self) -> &v1::Welcome {
        &self.welcome
    }

    /// Changes how long the next answers may take.
    pub fn set_timeout(&mut self, timeout: Option<std::time::Duration>) {
        self.options.timeout = timeout;
    }

    /// A handle that cancels generations of this client from another thread.
    pub fn cancel_handle(&self) -> CancelHandle {
        CancelHandle { shared: Arc::clone(&self.shared), options: self.options.clone() }
    }

    /// Asks, and waits for the answer.
    ///
    /// # Errors
    /// [`Error::Refused`] with what the daemon says, [`Error::Timeout`], [`Error::Disconnected`], [`Error::Protocol`];
    /// [`Error::RequestTooLong`] before anything is sent.
    pub fn call<R: Unary>(&mut self, request: &R) -> Result<R::Reply, Error> {
        check_length(request, &self.welcome)?;
        let deadline = Deadline::new(R::WHAT, self.options.timeout);
        let id = self.next_id();
        let mut bytes = Vec::new();
        veritas_proto::encode(&mut bytes, R::KIND, id, request);
        self.shared.send(&bytes, deadline).or_else(reading_tells)?;
        self.reply::<R>(id, deadline)
    }

    fn reply<R: Unary>(&mut self, id: u64, deadline: Deadline) -> Result<R::Reply, Error> {
        let frame = self.reader.frame_of(id, deadline)?;
        if frame.kind == R::REPLY_KIND {
            return Ok(frame.message()?);
        }
        Err(Error::protocol(format!("it answers {} with {}", R::KIND, frame.kind)))
    }

    fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    /// Generates. Each delta goes to `on_delta`, if the request asks for a stream; the daemon may be ahead of it by the
    /// credit of the request (or of the options, if the request has none) and then waits.
    ///
    /// A request that is cancelled, by `on_delta` or by a [`CancelHandle`], ends as every other, with `FINISH_CANCELLED`
    /// as its reason.
    ///
    /// # Errors
    /// As [`Self::call`]. [`Error::Timeout`] if the daemon is silent for longer than the options' `silence_timeout`, or
    /// does not end within `timeout` after a cancellation.
    pub fn generate(
        &mut self,
        mut request: v1::GenerateRequest,
        on_delta: &mut dyn FnMut(v1::Delta) -> Flow,
    ) -> Result<v1::Finish, Error> {
        let credit = Credit::of(&mut request, &self.options, &self.welcome);
        check_length(&request, &self.welcome)?;
        let id = self.next_id();
        let mut bytes = Vec::new();
        veritas_proto::encode(&mut bytes, Kind::GENERATE, id, &request);
        drop(request);
        let deadline = Deadline::new("sending the request", self.options.timeout);
        let sent = self.shared.begin(id, &bytes, deadline).or_else(reading_tells);
        drop(bytes);
        let outcome = sent.and_then(|()| self.consume(id, credit, on_delta));
        if matches!(outcome, Err(Error::Timeout { .. })) {
            // The daemon need not compute what nobody waits for. If it cannot be told, nothing is worse than before.
            let _ = self.shared.cancel(Deadline::new("cancelling", Some(CANCEL_POLL)));
        }
        self.shared.end();
        outcome
    }

    fn consume(
        &mut self,
        id: u64,
        mut credit: Credit,
        on_delta: &mut dyn FnMut(v1::Delta) -> Flow,
    ) -> Result<v1::Finish, Error> {
        let mut is_wanted = true;
        loop {
            let frame = self.generation_frame(id)?;
            match frame.kind {
                Kind::DELTA => {
                    credit.take()?;
                    let delta = frame.message()?;
                    if is_wanted && on_delta(delta) == Flow::Cancel {
                        is_wanted = false;
                        let deadline = Deadline::new("cancelling", self.options.timeout);
                        self.shared.cancel(deadline).or_else(reading_tells)?;
                    }
                    if let Some(given) = credit.consume() {
                        let mut bytes = Vec::new();
                        veritas_proto::encode(&mut bytes, Kind::CREDIT, id, &given);
                        let deadline = Deadline::new("giving credit", self.options.timeout);
                        self.shared.send(&bytes, deadline).or_else(reading_tells)?;
                    }
                }
                Kind::FINISH => return Ok(frame.message()?),
                kind => return Err(Error::protocol(format!("it answers GENERATE with {kind}"))),
            }
        }
    }

    /// The next frame of a generation. While nothing bounds the wait, it is looked now and then whether somebody has
    /// cancelled, from when on the options' timeout does.
    fn generation_frame(&mut self, id: u64) -> Result<Frame, Error> {
        let silence = Deadline::new("the next part of the answer", self.options.silence_timeout);
        loop {
            let bound = match self.shared.cancelled_at() {
                Some(at) => Deadline::since(at, "the end of the cancelled request", self.options.timeout),
                None => silence,
            };
            let slice = bound.left()?.map_or(CANCEL_POLL, |left| left.min(CANCEL_POLL));
            match self.reader.frame_of(id, Deadline::new("a part of the answer", Some(slice))) {
                Err(Error::Timeout { .. }) => {}
                outcome => return outcome,
            }
        }
    }
}

/// Where writing fails since the daemon has gone, it may have said why before it went: reading on tells.
fn reading_tells(error: Error) -> Result<(), Error> {
    if matches!(error, Error::Disconnected) { Ok(()) } else { Err(error) }
}

/// Requests by name.
impl Client {
    /// Whether the daemon runs at all.
    ///
    /// # Errors
    /// As [`Self::call`], and so for all of these.
    pub fn live(&mut self) -> Result<v1::LiveReply, Error> {
        self.call(&v1::LiveRequest {})
    }

    /// Whether the daemon serves.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub fn ready(&mut self) -> Result<v1::ReadyReply, Error> {
        self.call(&v1::ReadyRequest {})
    }

    /// How the daemon and its models are.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub fn health(&mut self) -> Result<v1::HealthReply, Error> {
        self.call(&v1::HealthRequest {})
    }

    /// What the daemon is doing, in numbers.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub fn status(&mut self) -> Result<v1::StatusReply, Error> {
        self.call(&v1::StatusRequest {})
    }

    /// The metrics, in Prometheus' text format.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub fn metrics(&mut self) -> Result<String, Error> {
        self.call(&v1::MetricsRequest {}).map(|reply| reply.text)
    }

    /// The ids of a text's tokens.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub fn tokenize(&mut self, request: &v1::TokenizeRequest) -> Result<Vec<u32>, Error> {
        self.call(request).map(|reply| reply.ids)
    }

    /// The bytes of the text that tokens stand for.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub fn detokenize(&mut self, request: &v1::DetokenizeRequest) -> Result<Vec<u8>, Error> {
        self.call(request).map(|reply| reply.text)
    }

    /// Loads a model.
    ///
    /// # Errors
    /// As [`Self::call`]. Reading a large file takes its time: see [`Self::set_timeout`].
    pub fn model_load(&mut self, name: &str, path: &str) -> Result<Vec<v1::Model>, Error> {
        let request = v1::ModelLoadRequest { name: name.to_owned(), path: path.to_owned() };
        self.call(&request).map(|reply| reply.models)
    }

    /// Unloads a model.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub fn model_unload(&mut self, name: &str) -> Result<Vec<v1::Model>, Error> {
        self.call(&v1::ModelUnloadRequest { name: name.to_owned() }).map(|reply| reply.models)
    }

    /// All models.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub fn model_list(&mut self) -> Result<Vec<v1::Model>, Error> {
        self.call(&v1::ModelListRequest {}).map(|reply| reply.models)
    }

    /// One model.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub fn model_info(&mut self, name: &str) -> Result<Vec<v1::Model>, Error> {
        self.call(&v1::ModelInfoRequest { name: name.to_owned() }).map(|reply| reply.models)
    }

    /// Lets the daemon end what runs and take nothing new.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub fn drain(&mut self) -> Result<v1::DrainReply, Error> {
        self.call(&v1::DrainRequest {})
    }

    /// Lets the daemon read its configuration again.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub fn reload(&mut self) -> Result<v1::ReloadReply, Error> {
        self.call(&v1::ReloadRequest {})
    }
}

/// Cancels the generation of a [`Client`] from another thread: of Ctrl-C, for instance. It takes a lock, and so must not
/// be used within a signal handler itself.
#[derive(Clone, Debug)]
pub struct CancelHandle {
    shared: Arc<Shared>,
    options: ClientOptions,
}

impl CancelHandle {
    /// Cancels the generation that runs; if none does, the next one as soon as it has begun, so that a request which is
    /// just being sent is not missed.
    ///
    /// # Errors
    /// If the daemon could not be told.
    pub fn cancel(&self) -> Result<(), Error> {
        self.shared.cancel(Deadline::new("cancelling", self.options.timeout))
    }

    /// Forgets a cancellation that came when nothing ran.
    pub fn reset(&self) {
        self.shared.lock().is_asked = false;
    }
}

/// A connection: one thread reads from it, several may write to it.
#[derive(Debug)]
struct Shared {
    stream: Stream,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Part of a frame may have been written: nothing sensible can follow it.
    is_broken: bool,
    /// The generation that runs.
    running: Option<u64>,
    /// Whether somebody wants the generation that runs, or the next one, to end.
    is_asked: bool,
    /// When the daemon was told.
    cancelled_at: Option<Instant>,
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        // The state is whole after every statement, so a panic elsewhere does no harm to it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn send(&self, bytes: &[u8], deadline: Deadline) -> Result<(), Error> {
        self.send_locked(&mut self.lock(), bytes, deadline)
    }

    fn send_locked(&self, state: &mut State, bytes: &[u8], deadline: Deadline) -> Result<(), Error> {
        if state.is_broken {
            return Err(Error::Disconnected);
        }
        self.stream.write_all(bytes, deadline).inspect_err(|_| state.is_broken = true)
    }

    /// Sends the request of a generation, which can be cancelled from now on.
    fn begin(&self, id: u64, bytes: &[u8], deadline: Deadline) -> Result<(), Error> {
        let mut state = self.lock();
        state.cancelled_at = None;
        self.send_locked(&mut state, bytes, deadline)?;
        state.running = Some(id);
        if state.is_asked { self.cancel_locked(&mut state, deadline) } else { Ok(()) }
    }

    fn end(&self) {
        let mut state = self.lock();
        // A cancellation is used up by the generation that it has ended.
        if state.running.take().is_some() {
            state.is_asked = false;
        }
        state.cancelled_at = None;
    }

    fn cancel(&self, deadline: Deadline) -> Result<(), Error> {
        let mut state = self.lock();
        state.is_asked = true;
        self.cancel_locked(&mut state, deadline)
    }

    fn cancel_locked(&self, state: &mut State, deadline: Deadline) -> Result<(), Error> {
        let (Some(id), None) = (state.running, state.cancelled_at) else { return Ok(()) };
        let mut bytes = Vec::new();
        veritas_proto::encode(&mut bytes, Kind::CANCEL, id, &v1::Cancel {});
        self.send_locked(state, &bytes, deadline)?;
        state.cancelled_at = Some(Instant::now());
        Ok(())
    }

    fn cancelled_at(&self) -> Option<Instant> {
        self.lock().cancelled_at
    }
}

/// The side of a connection that one thread reads.
#[derive(Debug)]
struct Reader {
    shared: Arc<Shared>,
    decoder: FrameDecoder,
    buffer: Vec<u8>,
}

impl Reader {
    fn new(shared: Arc<Shared>) -> Self {
        Self { shared, decoder: FrameDecoder::new(BODY_BYTES_MAX), buffer: vec![0; READ_BYTES] }
    }

    fn frame(&mut self, deadline: Deadline) -> Result<Frame, Error> {
        loop {
            if let Some(frame) = self.decoder.next_frame()? {
                return Ok(frame);
            }
            match self.shared.stream.read(&mut self.buffer, deadline)? {
                0 => return Err(Error::Disconnected),
                n => self.decoder.push(&self.buffer[..n]),
            }
        }
    }

    /// The next frame of request `id`. Those of earlier requests, which nobody waits for any more, are passed over.
    fn frame_of(&mut self, id: u64, deadline: Deadline) -> Result<Frame, Error> {
        loop {
            let frame = self.frame(deadline)?;
            match frame.request_id {
                0 if frame.kind == Kind::ERROR => return Err(Error::Refused(frame.message()?)),
                found if found == id && frame.kind == Kind::ERROR => {
                    return Err(Error::Refused(frame.message()?));
                }
                found if found == id => return Ok(frame),
                found if found != 0 && found < id => {}
                found => {
                    let reason = format!("it sends {} for request {found}, which does not exist", frame.kind);
                    return Err(Error::protocol(reason));
                }
            }
        }
    }
}
