//! One connection of the asynchronous client: a task that reads and writes, and a table of who waits for what.
//!
//! Whoever asks puts an encoded frame and a route into the state, and wakes the task. The task never waits for a
//! consumer: the daemon cannot send more deltas than a route's queue holds, since it is given no more credit.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, PoisonError};

use tokio::io::AsyncWriteExt;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::AbortHandle;
use veritas_proto::limits::{BODY_BYTES_MAX, REQUESTS_PER_SESSION_MAX};
use veritas_proto::{Frame, Kind, Message, v1};

use crate::client::{ClientOptions, Credit, check_welcome};
use crate::platform::connect_async;
use crate::{Error, FrameReader, FrameWriter};

type Answer = Result<Frame, Error>;

#[derive(Debug)]
pub(super) struct Link {
    shared: Arc<Shared>,
    welcome: v1::Welcome,
    task: AbortHandle,
}

#[derive(Debug)]
struct Shared {
    state: std::sync::Mutex<State>,
    /// Wakes the task when there is something to write.
    wake: Notify,
    /// Requests that may be opened besides those that are open.
    permits: Arc<Semaphore>,
}

#[derive(Debug, Default)]
struct State {
    /// Frames that the task has not taken yet. Their number is bounded by the requests that may be open: each has its
    /// request, at most one cancellation, and no more credit than it was answered with deltas.
    outgoing: Vec<u8>,
    routes: HashMap<u64, Route>,
    last_id: u64,
    closed: Option<Closed>,
}

/// Who waits for the frames of a request. The permit goes with the route.
#[derive(Debug)]
enum Route {
    Unary {
        reply: oneshot::Sender<Answer>,
        _permit: OwnedSemaphorePermit,
    },
    Generation {
        frames: mpsc::Sender<Answer>,
        credit: Credit,
        is_cancelled: bool,
        permit: OwnedSemaphorePermit,
    },
    /// Nobody any more; the daemon still counts the request as open until it ends.
    Abandoned {
        _permit: OwnedSemaphorePermit,
    },
}

/// Why a connection has ended. Everybody who waits is told, hence it can be copied.
#[derive(Clone, Debug)]
enum Closed {
    Disconnected,
    Refused(v1::Error),
    Protocol(String),
}

impl Closed {
    fn of(error: Error) -> Self {
        match error {
            Error::Refused(error) => Self::Refused(error),
            Error::Protocol { reason } => Self::Protocol(reason),
            _ => Self::Disconnected,
        }
    }

    fn error(&self) -> Error {
        match self {
            Self::Disconnected => Error::Disconnected,
            Self::Refused(error) => Error::Refused(error.clone()),
            Self::Protocol(reason) => Error::protocol(reason),
        }
    }
}

impl Link {
    /// Connects and presents the client.
    pub(super) async fn open(path: &Path, options: &ClientOptions) -> Result<Self, Error> {
        let connection = connect_async(path, &|uid| options.check_server(path, uid)).await?;
        let (read, mut write) = connection.into_split();
        let written = write.write_all(&options.greeting(&[])).await;
        let mut reader = FrameReader::new(read, BODY_BYTES_MAX);
        let frame = match (reader.next().await?, written) {
            (Some(frame), _) => frame,
            (None, Ok(())) => return Err(Error::Disconnected),
            (None, Err(source)) => return Err(Error::exchange("write to the connection", source)),
        };
        let welcome = check_welcome(&frame)?;
        let requests_max = match welcome.limits.map_or(0, |limits| limits.requests_max) {
            0 => REQUESTS_PER_SESSION_MAX,
            n => n.min(REQUESTS_PER_SESSION_MAX),
        };
        let shared = Arc::new(Shared {
            state: std::sync::Mutex::default(),
            wake: Notify::new(),
            permits: Arc::new(Semaphore::new(requests_max as usize)),
        });
        let for_task = Arc::clone(&shared);
        let task = tokio::spawn(async move {
            let error = for_task.serve(reader, FrameWriter::new(write)).await;
            for_task.close(Closed::of(error));
        });
        Ok(Self { shared, welcome, task: task.abort_handle() })
    }

    pub(super) fn welcome(&self) -> &v1::Welcome {
        &self.welcome
    }

    pub(super) fn is_closed(&self) -> bool {
        self.shared.lock().closed.is_some()
    }

    /// Sends a request with one answer.
    pub(super) async fn ask(
        &self,
        kind: Kind,
        request: &impl Message,
    ) -> Result<oneshot::Receiver<Answer>, Error> {
        let permit = self.permit().await?;
        let (reply, answer) = oneshot::channel();
        self.shared.begin(kind, request, Route::Unary { reply, _permit: permit })?;
        Ok(answer)
    }

    /// Sends a request to generate.
    pub(super) async fn generate(
        &self,
        request: &v1::GenerateRequest,
        credit: Credit,
    ) -> Result<(u64, mpsc::Receiver<Answer>), Error> {
        let permit = self.permit().await?;
        // All deltas that there is credit for, and the end.
        let (frames, receiver) = mpsc::channel(credit.window() as usize + 1);
        let route = Route::Generation { frames, credit, is_cancelled: false, permit };
        let id = self.shared.begin(Kind::GENERATE, request, route)?;
        Ok((id, receiver))
    }

    async fn permit(&self) -> Result<OwnedSemaphorePermit, Error> {
        let permit = Arc::clone(&self.shared.permits).acquire_owned().await;
        permit.map_err(|_| self.shared.lock().closed.as_ref().map_or(Error::Disconnected, Closed::error))
    }

    /// Says that a delta of a generation has been consumed.
    pub(super) fn consume(&self, id: u64) {
        let mut state = self.shared.lock();
        let State { outgoing, routes, .. } = &mut *state;
        if let Some(Route::Generation { credit, .. }) = routes.get_mut(&id)
            && let Some(given) = credit.consume()
        {
            veritas_proto::encode(outgoing, Kind::CREDIT, id, &given);
            self.shared.wake.notify_one();
        }
    }

    /// Asks the daemon to end a generation.
    pub(super) fn cancel(&self, id: u64) {
        let mut state = self.shared.lock();
        let State { outgoing, routes, .. } = &mut *state;
        if let Some(Route::Generation { is_cancelled, .. }) = routes.get_mut(&id)
            && !std::mem::replace(is_cancelled, true)
        {
            veritas_proto::encode(outgoing, Kind::CANCEL, id, &v1::Cancel {});
            self.shared.wake.notify_one();
        }
    }

    /// Says that nobody waits for a generation any more.
    pub(super) fn abandon(&self, id: u64) {
        self.cancel(id);
        let mut state = self.shared.lock();
        if let Some(Route::Generation { permit, .. }) = state.routes.remove(&id) {
            state.routes.insert(id, Route::Abandoned { _permit: permit });
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        // The state is whole after every statement, so a panic elsewhere does no harm to it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens a request: its frame waits to be written, its answers have a way.
    fn begin(&self, kind: Kind, request: &impl Message, route: Route) -> Result<u64, Error> {
        let mut state = self.lock();
        if let Some(closed) = &state.closed {
            return Err(closed.error());
        }
        state.last_id += 1;
        let id = state.last_id;
        veritas_proto::encode(&mut state.outgoing, kind, id, request);
        state.routes.insert(id, route);
        self.wake.notify_one();
        Ok(id)
    }

    /// Reads and writes until the connection ends, and says why it did.
    async fn serve<R, W>(&self, mut reader: FrameReader<R>, mut writer: FrameWriter<W>) -> Error
    where
        R: tokio::io::AsyncRead + Unpin,
        W: tokio::io::AsyncWrite + Unpin,
    {
        // Once writing has failed, what the daemon has said before it went is still read.
        let mut is_writable = true;
        loop {
            let outgoing = std::mem::take(&mut self.lock().outgoing);
            if is_writable {
                writer.put_encoded(&outgoing);
            }
            tokio::select! {
                frame = reader.next() => match frame {
                    Ok(Some(frame)) => {
                        if let Err(error) = self.route(frame) {
                            return error;
                        }
                    }
                    Ok(None) => return Error::Disconnected,
                    Err(error) => return error,
                },
                written = writer.flush(), if is_writable && writer.pending_bytes() > 0 => {
                    is_writable = written.is_ok();
                }
                () = self.wake.notified() => {}
            }
        }
    }

    /// Hands a frame to whoever waits for it.
    fn route(&self, frame: Frame) -> Result<(), Error> {
        let mut state = self.lock();
        let id = frame.request_id;
        if id == 0 && frame.kind == Kind::ERROR {
            return Err(Error::Refused(frame.message()?));
        }
        if id == 0 || id > state.last_id {
            let reason = format!("it sends {} for request {id}, which does not exist", frame.kind);
            return Err(Error::protocol(reason));
        }
        let is_end = frame.kind != Kind::DELTA;
        match state.routes.get_mut(&id) {
            // The request has ended; what else comes for it is nobody's.
            None => {}
            Some(Route::Abandoned { .. }) if is_end => drop(state.routes.remove(&id)),
            Some(Route::Abandoned { .. }) => {}
            Some(Route::Unary { .. }) => {
                if let Some(Route::Unary { reply, .. }) = state.routes.remove(&id) {
                    // Whoever asked may have given up.
                    let _ = reply.send(answer_of(frame));
                }
            }
            Some(Route::Generation { frames, credit, .. }) => {
                if !is_end {
                    credit.take()?;
                }
                // It cannot be full: there is a place for each delta that has credit, and one for the end.
                let _ = frames.try_send(answer_of(frame));
                if is_end {
                    state.routes.remove(&id);
                }
            }
        }
        Ok(())
    }

    /// Tells everybody who waits that the connection has ended.
    fn close(&self, closed: Closed) {
        let routes = {
            let mut state = self.lock();
            state.closed = Some(closed.clone());
            state.outgoing = Vec::new();
            std::mem::take(&mut state.routes)
        };
        self.permits.close();
        for route in routes.into_values() {
            match route {
                Route::Unary { reply, .. } => drop(reply.send(Err(closed.error()))),
                Route::Generation { frames, .. } => drop(frames.try_send(Err(closed.error()))),
                Route::Abandoned { .. } => {}
            }
        }
    }
}

fn answer_of(frame: Frame) -> Answer {
    if frame.kind == Kind::ERROR {
        return Err(frame.message().map_or_else(Error::from, Error::Refused));
    }
    Ok(frame)
}
