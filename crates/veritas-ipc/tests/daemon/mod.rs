//! A daemon for the tests of the clients: it speaks the real protocol over a real socket, and computes nothing. It tells
//! what it sees, so that no test has to guess when something has happened.
#![allow(dead_code, reason = "each test program uses a part")]

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use tempfile::TempDir;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::oneshot;
use veritas_ipc::{
    Connection, FrameReader, FrameWriter, Handshake, HandshakeConfig, Listener, Peer, SocketMode, session_id,
};
use veritas_proto::v1::{self, Code, FinishReason};
use veritas_proto::{Frame, Kind, Message};

/// What happened in the daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// A client was let in.
    Session(Vec<u8>),
    Request(Kind, u64),
    /// A generation has more to say and no credit; so many deltas have been sent.
    Starved(u64, u32),
    Cancelled(u64),
    Ended,
}

/// A daemon in a thread of its own. It ends when the value is dropped.
///
/// - TOKENIZE gives the bytes of the text, DETOKENIZE the way back.
/// - GENERATE gives the deltas `PROMPT0`, `PROMPT1`, … as many as `max_tokens` says, without end if it says nothing. Of
///   the model `busy` it is refused, of the model `silent` it says nothing until it is cancelled.
/// - The first STATUS and RELOAD end the connection; later ones are answered.
/// - DRAIN is never answered.
pub(crate) struct Daemon {
    pub(crate) path: PathBuf,
    folder: Option<TempDir>,
    seen: Mutex<Receiver<Seen>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Daemon {
    pub(crate) fn start() -> Self {
        Self::start_with(|_| {})
    }

    pub(crate) fn start_with(change: impl FnOnce(&mut HandshakeConfig)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut daemon = Self::start_at(&folder.path().join("run").join("veritas-sdr.sock"), change);
        daemon.folder = Some(folder);
        daemon
    }

    pub(crate) fn start_at(path: &Path, change: impl FnOnce(&mut HandshakeConfig)) -> Self {
        let listener = Listener::bind(path, SocketMode::Owner).unwrap();
        let mut config = HandshakeConfig::new("test");
        change(&mut config);
        let (sender, seen) = channel();
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let incoming = listener.incoming().unwrap();
                let has_lost_one = Arc::new(AtomicBool::new(false));
                let accept = async {
                    loop {
                        let (connection, peer) = incoming.accept().await.unwrap();
                        let handshake = Handshake::new(config.clone());
                        let session = Session::new(connection, sender.clone(), Arc::clone(&has_lost_one));
                        tokio::spawn(session.run(handshake, peer));
                    }
                };
                tokio::select! {
                    () = accept => {}
                    _ = stopped => {}
                }
            });
        });
        Self {
            path: path.to_owned(),
            folder: None,
            seen: Mutex::new(seen),
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    /// Waits until something has happened, passing over everything else.
    pub(crate) fn wait_for(&self, expected: &Seen) {
        self.wait(|seen| seen == expected);
    }

    /// Waits until something of a kind has happened.
    pub(crate) fn wait(&self, mut is_it: impl FnMut(&Seen) -> bool) -> Seen {
        loop {
            let seen = self
                .seen
                .lock()
                .unwrap()
                .recv_timeout(Duration::from_secs(60))
                .expect("the daemon sees it within a minute");
            if is_it(&seen) {
                return seen;
            }
        }
    }

    /// All that has happened and was not waited for.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().try_iter().collect()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        drop(self.stop.take());
        self.thread.take().unwrap().join().unwrap();
    }
}

struct Generation {
    prompt: String,
    n: u32,
    next: u32,
    credit: u32,
    is_streamed: bool,
    is_silent: bool,
    is_cancelled: bool,
}

struct Session {
    reader: FrameReader<OwnedReadHalf>,
    writer: FrameWriter<OwnedWriteHalf>,
    seen: Sender<Seen>,
    has_lost_one: Arc<AtomicBool>,
    generations: BTreeMap<u64, Generation>,
}

impl Session {
    fn new(connection: Connection, seen: Sender<Seen>, has_lost_one: Arc<AtomicBool>) -> Self {
        let (read, write) = connection.into_split();
        let reader = FrameReader::new(read, veritas_proto::limits::HANDSHAKE_BODY_BYTES_MAX);
        let writer = FrameWriter::new(write);
        Self { reader, writer, seen, has_lost_one, generations: BTreeMap::new() }
    }

    fn see(&self, seen: Seen) {
        // A test that is over waits for nothing any more.
        let _ = self.seen.send(seen);
    }

    async fn run(mut self, handshake: Handshake, peer: Peer) {
        let Ok(Some(frame)) = self.reader.next().await else { return self.see(Seen::Ended) };
        match handshake.frame(frame, &peer, session_id().unwrap()) {
            Ok(accepted) => {
                let welcome = handshake.welcome(&accepted, Vec::new());
                let limit = welcome.limits.unwrap().body_bytes_max;
                self.reader.set_body_bytes_max(u32::try_from(limit).unwrap());
                self.writer.put(Kind::WELCOME, 0, &welcome);
                self.see(Seen::Session(accepted.session_id.to_vec()));
                while self.step().await {}
            }
            Err(error) => {
                self.writer.put(Kind::ERROR, 0, &error);
                let _ = self.writer.flush().await;
            }
        }
        self.see(Seen::Ended);
    }

    /// Lets every generation say one thing, then reads or writes. Whether the session goes on.
    async fn step(&mut self) -> bool {
        if self.writer.pending_bytes() < 4096 {
            self.generate();
        }
        tokio::select! {
            frame = self.reader.next() => match frame {
                Ok(Some(frame)) => self.take(&frame),
                _ => false,
            },
            flushed = self.writer.flush(), if self.writer.pending_bytes() > 0 => flushed.is_ok(),
        }
    }

    fn generate(&mut self) {
        for (id, generation) in &mut self.generations {
            if generation.is_silent || !generation.is_streamed || generation.next == generation.n {
                continue;
            }
            if generation.credit > 0 && !generation.is_cancelled {
                let text = format!("{}{}", generation.prompt, generation.next);
                let choice = v1::ChoiceDelta { text, ids: vec![generation.next], ..Default::default() };
                self.writer.put(Kind::DELTA, *id, &v1::Delta { choices: vec![choice] });
                generation.credit -= 1;
                generation.next += 1;
                if generation.credit == 0 && generation.next < generation.n {
                    let _ = self.seen.send(Seen::Starved(*id, generation.next));
                }
            }
        }
        let is_over = |g: &Generation| g.is_cancelled || (!g.is_silent && (g.next == g.n || !g.is_streamed));
        for (id, generation) in self.generations.extract_if(.., |_, generation| is_over(generation)) {
            let reason =
                if generation.is_cancelled { FinishReason::FinishCancelled } else { FinishReason::Stop };
            let text = if generation.is_streamed { String::new() } else { generation.prompt };
            let choice = v1::Choice { finish_reason: reason.into(), text, ..Default::default() };
            self.writer.put(Kind::FINISH, id, &v1::Finish { choices: vec![choice], ..Default::default() });
        }
    }

    fn take(&mut self, frame: &Frame) -> bool {
        let id = frame.request_id;
        match frame.kind {
            Kind::CREDIT => {
                let given = frame.message::<v1::Credit>().unwrap().deltas;
                if let Some(generation) = self.generations.get_mut(&id) {
                    generation.credit += given;
                }
                return true;
            }
            Kind::CANCEL => {
                if let Some(generation) = self.generations.get_mut(&id) {
                    generation.is_cancelled = true;
                    self.see(Seen::Cancelled(id));
                }
                return true;
            }
            kind => self.see(Seen::Request(kind, id)),
        }
        match frame.kind {
            Kind::LIVE => self.writer.put(Kind::LIVE_REPLY, id, &v1::LiveReply { uptime_ms: 1 }),
            Kind::READY => {
                self.writer.put(Kind::READY_REPLY, id, &v1::ReadyReply { ready: true, ..Default::default() })
            }
            Kind::TOKENIZE => {
                let text = frame.message::<v1::TokenizeRequest>().unwrap().text;
                let ids = text.bytes().map(u32::from).collect();
                self.writer.put(Kind::TOKENIZE_REPLY, id, &v1::TokenizeReply { ids });
            }
            Kind::DETOKENIZE => {
                let ids = frame.message::<v1::DetokenizeRequest>().unwrap().ids;
                let text = ids.iter().map(|id| u8::try_from(*id).unwrap()).collect();
                self.writer.put(Kind::DETOKENIZE_REPLY, id, &v1::DetokenizeReply { text });
            }
            Kind::STATUS | Kind::RELOAD => {
                if !self.has_lost_one.swap(true, Ordering::Relaxed) {
                    return false;
                }
                match frame.kind {
                    Kind::STATUS => self.writer.put(Kind::STATUS_REPLY, id, &v1::StatusReply::default()),
                    _ => self.writer.put(Kind::RELOAD_REPLY, id, &v1::ReloadReply::default()),
                }
            }
            Kind::DRAIN => {}
            Kind::GENERATE => self.begin(id, frame.message().unwrap()),
            kind => panic!("the tests do not ask for {kind}"),
        }
        true
    }

    fn begin(&mut self, id: u64, request: v1::GenerateRequest) {
        if request.model == "busy" {
            return self.writer.put(Kind::ERROR, id, &busy());
        }
        assert!(request.credit > 0, "a client says how much credit it gives");
        let Some(v1::generate_request::Prompt::Text(prompt)) = request.prompt else { panic!("a text") };
        let n = request.sampling.and_then(|sampling| sampling.max_tokens).unwrap_or(u32::MAX);
        let generation = Generation {
            prompt: prompt.text,
            n,
            next: 0,
            credit: request.credit,
            is_streamed: request.stream,
            is_silent: request.model == "silent",
            is_cancelled: false,
        };
        self.generations.insert(id, generation);
    }
}

pub(crate) fn busy() -> v1::Error {
    v1::Error {
        code: Code::QueueFull.into(),
        message: "the queue is full".to_owned(),
        hint: Some("ask later".to_owned()),
        retry_after_ms: Some(250),
    }
}

/// A request for a stream of `n` deltas.
pub(crate) fn stream(prompt: &str, n: Option<u32>, credit: u32) -> v1::GenerateRequest {
    let text = v1::TextPrompt { text: prompt.to_owned(), parse_special: false };
    v1::GenerateRequest {
        prompt: Some(v1::generate_request::Prompt::Text(text)),
        sampling: Some(v1::Sampling { max_tokens: n, ..Default::default() }),
        stream: true,
        credit,
        ..Default::default()
    }
}

/// The texts of the deltas that the daemon sends.
pub(crate) fn expected(prompt: &str, n: u32) -> Vec<String> {
    (0..n).map(|i| format!("{prompt}{i}")).collect()
}

pub(crate) fn text_of(delta: &v1::Delta) -> String {
    delta.choices.iter().map(|choice| choice.text.as_str()).collect()
}

pub(crate) fn reason_of(finish: &v1::Finish) -> FinishReason {
    finish.choices[0].finish_reason()
}

/// A daemon that does what a test writes down, once: the first connection is handed to the script.
pub(crate) struct Scripted {
    pub(crate) path: PathBuf,
    _folder: TempDir,
    thread: Option<JoinHandle<()>>,
}

impl Scripted {
    pub(crate) fn start(script: impl FnOnce(Script) + Send + 'static) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("veritas-sdr.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let thread = std::thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            drop(listener);
            script(Script { stream });
        });
        Self { path, _folder: folder, thread: Some(thread) }
    }
}

impl Drop for Scripted {
    /// A script that failed is a test that failed.
    fn drop(&mut self) {
        let outcome = self.thread.take().unwrap().join();
        if !std::thread::panicking() {
            outcome.expect("the script went as written");
        }
    }
}

/// The connection of a script.
pub(crate) struct Script {
    pub(crate) stream: UnixStream,
}

impl Script {
    /// Reads a frame of this kind and gives its id.
    pub(crate) fn expect(&mut self, kind: Kind) -> u64 {
        let frame = self.frame();
        assert_eq!(frame.kind, kind);
        frame.request_id
    }

    pub(crate) fn frame(&mut self) -> Frame {
        self.try_frame().unwrap()
    }

    pub(crate) fn try_frame(&mut self) -> std::io::Result<Frame> {
        let mut header = [0; veritas_proto::Header::BYTES];
        self.stream.read_exact(&mut header)?;
        let header = veritas_proto::Header::parse(&header, u32::MAX).unwrap();
        let mut body = vec![0; header.body_bytes as usize];
        self.stream.read_exact(&mut body)?;
        Ok(Frame { kind: header.kind, request_id: header.request_id, body })
    }

    pub(crate) fn send(&mut self, kind: Kind, id: u64, message: &impl Message) {
        self.try_send(kind, id, message).unwrap();
    }

    pub(crate) fn try_send(&mut self, kind: Kind, id: u64, message: &impl Message) -> std::io::Result<()> {
        let mut bytes = Vec::new();
        veritas_proto::encode(&mut bytes, kind, id, message);
        self.stream.write_all(&bytes)
    }

    /// Lets the client in.
    pub(crate) fn welcome(&mut self) {
        self.expect(Kind::HELLO);
        self.send(Kind::WELCOME, 0, &v1::Welcome { version: 1, ..Default::default() });
    }

    /// Reads until the client has closed the connection.
    pub(crate) fn wait_for_the_end(mut self) {
        // A client that goes with something unread resets the connection, which is an end, too.
        let _ = self.stream.read_to_end(&mut Vec::new());
    }
}
