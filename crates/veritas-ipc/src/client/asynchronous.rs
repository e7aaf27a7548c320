//! A client for tokio: many requests at once on one connection, which is made again when it is lost.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, mpsc};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use veritas_proto::{Frame, Kind, v1};

use super::{ClientOptions, Credit, check_length};
use crate::limits::{ATTEMPTS_MAX, BACKOFF_FIRST, BACKOFF_MAX};
use crate::{Error, Unary};

mod link;

use link::Link;

/// A client of the daemon at one path. Clones share the connection.
#[derive(Clone, Debug)]
pub struct Client {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    options: ClientOptions,
    /// The connection of now. It is made again by the first who needs it after it was lost.
    current: Mutex<Option<Arc<Link>>>,
}

impl Client {
    /// Connects to the daemon at `path` and presents itself. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`Error::Unreachable`] if there is no daemon or it may not be reached, [`Error::Timeout`] if all this takes longer
    /// than the options say, [`Error::Refused`] if the daemon does not let the client in.
    pub async fn connect(path: &Path, options: &ClientOptions) -> Result<Self, Error> {
        let inner = Inner { path: path.to_owned(), options: options.clone(), current: Mutex::new(None) };
        let client = Self { inner: Arc::new(inner) };
        within(options.timeout, "connecting to the daemon", client.link()).await?;
        Ok(client)
    }

    /// What the daemon said when it let the client in, by the connection of now.
    ///
    /// # Errors
    /// As [`Self::connect`], if the connection was lost and has to be made again.
    pub async fn welcome(&self) -> Result<v1::Welcome, Error> {
        let link = within(self.inner.options.timeout, "connecting to the daemon", self.link()).await?;
        Ok(link.welcome().clone())
    }

    /// Asks, and waits for the answer, both within the options' timeout.
    ///
    /// If the connection is lost, an idempotent request is sent again over a new one, with growing pauses. Any other
    /// fails with [`Error::Disconnected`], since nobody knows whether it has been carried out.
    ///
    /// # Errors
    /// [`Error::Refused`] with what the daemon says, [`Error::Timeout`], [`Error::Unreachable`],
    /// [`Error::Disconnected`], [`Error::Protocol`]; [`Error::RequestTooLong`] before anything is sent.
    pub async fn call<R: Unary>(&self, request: &R) -> Result<R::Reply, Error> {
        within(self.inner.options.timeout, R::WHAT, self.attempts(request)).await
    }

    async fn attempts<R: Unary>(&self, request: &R) -> Result<R::Reply, Error> {
        let end = self.inner.options.timeout.and_then(|limit| Instant::now().checked_add(limit));
        let mut pause = BACKOFF_FIRST;
        let mut n_attempts = 1;
        loop {
            match self.attempt(request).await {
                Err(error) if R::IS_IDEMPOTENT && n_attempts < ATTEMPTS_MAX && may_come_back(&error) => {
                    // Why the daemon cannot be reached says more than that the time is over.
                    if end.is_some_and(|end| Instant::now() + pause >= end) {
                        return Err(error);
                    }
                    sleep(pause).await;
                    pause = (pause * 2).min(BACKOFF_MAX);
                    n_attempts += 1;
                }
                outcome => return outcome,
            }
        }
    }

    async fn attempt<R: Unary>(&self, request: &R) -> Result<R::Reply, Error> {
        let link = self.link().await?;
        check_length(request, link.welcome())?;
        let reply = link.ask(R::KIND, request).await?;
        let frame = reply.await.map_err(|_| Error::Disconnected)??;
        if frame.kind == R::REPLY_KIND {
            return Ok(frame.message()?);
        }
        Err(Error::protocol(format!("it answers {} with {}", R::KIND, frame.kind)))
    }

    /// Generates. The daemon may be ahead of what is consumed by the credit of the request, or of the options if the
    /// request has none, and then waits.
    ///
    /// Returns once the request is on its way, within the options' timeout. Where as many requests are open as the daemon
    /// allows, one must end first.
    ///
    /// # Errors
    /// As [`Self::call`]. A generation is never sent again.
    pub async fn generate(&self, mut request: v1::GenerateRequest) -> Result<Generation, Error> {
        let options = &self.inner.options;
        within(options.timeout, "sending the request", async {
            let link = self.link().await?;
            let credit = Credit::of(&mut request, options, link.welcome());
            check_length(&request, link.welcome())?;
            let (id, frames) = link.generate(&request, credit).await?;
            Ok(Generation {
                id,
                frames,
                link,
                timeout: options.timeout,
                silence_timeout: options.silence_timeout,
                cancelled_at: None,
                is_over: false,
            })
        })
        .await
    }

    async fn link(&self) -> Result<Arc<Link>, Error> {
        let mut current = self.inner.current.lock().await;
        if let Some(link) = current.as_ref().filter(|link| !link.is_closed()) {
            return Ok(Arc::clone(link));
        }
        let link = Arc::new(Link::open(&self.inner.path, &self.inner.options).await?);
        *current = Some(Arc::clone(&link));
        Ok(link)
    }
}

/// A part of an answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// What has been generated since the last one.
    Delta(v1::Delta),
    /// The end.
    Finish(Box<v1::Finish>),
}

/// An answer that is being generated. Dropping it before its end cancels the request.
#[derive(Debug)]
pub struct Generation {
    id: u64,
    frames: mpsc::Receiver<Result<Frame, Error>>,
    link: Arc<Link>,
    timeout: Option<Duration>,
    silence_timeout: Option<Duration>,
    cancelled_at: Option<Instant>,
    is_over: bool,
}

impl Generation {
    /// The next part; `None` after the end or an error. Taking a delta gives the daemon credit for another.
    ///
    /// A call that is dropped before it ends loses nothing.
    ///
    /// # Errors
    /// [`Error::Refused`] if the request has failed, [`Error::Disconnected`], [`Error::Protocol`]; [`Error::Timeout`] if
    /// the daemon is silent for longer than the options' `silence_timeout`, or does not end within `timeout` after a
    /// cancellation.
    pub async fn next(&mut self) -> Result<Option<Event>, Error> {
        if self.is_over {
            return Ok(None);
        }
        let event = self.event().await;
        self.is_over = !matches!(event, Ok(Event::Delta(_)));
        event.map(Some)
    }

    async fn event(&mut self) -> Result<Event, Error> {
        let frame = self.frame().await?;
        match frame.kind {
            Kind::DELTA => {
                self.link.consume(self.id);
                Ok(Event::Delta(frame.message()?))
            }
            Kind::FINISH => Ok(Event::Finish(Box::new(frame.message()?))),
            kind => Err(Error::protocol(format!("it answers GENERATE with {kind}"))),
        }
    }

    async fn frame(&mut self) -> Result<Frame, Error> {
        let (since, what, limit) = match self.cancelled_at {
            Some(at) => (at, "the end of the cancelled request", self.timeout),
            None => (Instant::now(), "the next part of the answer", self.silence_timeout),
        };
        let end = limit.and_then(|limit| Some((since.checked_add(limit)?, limit)));
        let frame = match end {
            Some((end, limit)) => {
                timeout_at(end, self.frames.recv()).await.map_err(|_| Error::Timeout { what, limit })?
            }
            None => self.frames.recv().await,
        };
        frame.unwrap_or(Err(Error::Disconnected))
    }

    /// Asks the daemon to end the answer, which it does with `FINISH_CANCELLED` as its reason. Parts that are on their
    /// way still come.
    pub fn cancel(&mut self) {
        if !self.is_over && self.cancelled_at.is_none() {
            self.cancelled_at = Some(Instant::now());
            self.link.cancel(self.id);
        }
    }
}

impl Drop for Generation {
    fn drop(&mut self) {
        self.link.abandon(self.id);
    }
}

/// Whether a daemon that restarts would explain the error.
fn may_come_back(error: &Error) -> bool {
    use std::io::ErrorKind;
    match error {
        Error::Disconnected => true,
        Error::Unreachable { source, .. } => {
            matches!(source.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused)
        }
        _ => false,
    }
}

async fn within<T>(
    limit: Option<Duration>,
    what: &'static str,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    match limit {
        Some(limit) => timeout(limit, work).await.unwrap_or(Err(Error::Timeout { what, limit })),
        None => work.await,
    }
}
