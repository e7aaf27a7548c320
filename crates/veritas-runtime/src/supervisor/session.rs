//! A client's connection: the handshake, then frames in and frames out at the same time.

use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;
use veritas_ipc::{Accepted, Connection, FrameReader, Handshake, Peer};
use veritas_proto::{Kind, encode, limits};

use super::core::{Errand, SessionKey};
use super::shell::{SessionSignals, Shell};
use super::{admin, status};
use crate::failure::{Code, Failure};

/// Bytes that may wait for a client before no more of its requests are read.
const OUTBOX_PAUSE_BYTES: usize = 2 << 20;

/// How long the last words to a client may take.
const FAREWELL: Duration = Duration::from_secs(1);

/// Serves a connection until either side ends it.
pub(crate) async fn serve(shell: Rc<Shell>, handshake: Rc<Handshake>, connection: Connection, peer: Peer) {
    shell.n_strangers.set(shell.n_strangers.get() + 1);
    let (read, mut write) = connection.into_split();
    let mut reader = FrameReader::new(read, limits::HANDSHAKE_BODY_BYTES_MAX);
    let patience = shell.config.borrow().socket.handshake_timeout;
    let shaken = timeout(patience, shake_hands(&shell, &handshake, &mut reader, &mut write, &peer)).await;
    shell.n_strangers.set(shell.n_strangers.get() - 1);
    let accepted = match shaken {
        Ok(Ok(Some(accepted))) => accepted,
        Ok(Ok(None)) => return,
        Ok(Err(failure)) => return farewell(&mut write, &failure).await,
        Err(_) => {
            let message = format!("there was no handshake within {} ms", patience.as_millis());
            return farewell(&mut write, &Failure::new(Code::Timeout, message)).await;
        }
    };
    let (principal, is_admin) = {
        let config = shell.config.borrow();
        reader.set_body_bytes_max(config.socket.body_bytes_max);
        (format!("uid:{}", peer.uid), config.socket.admin_uids.contains(&peer.uid))
    };
    tracing::debug!(principal, pid = peer.pid, client = accepted.client_name, "a session begins");
    let key = shell.with(|core, _| {
        core.counters.sessions_total += 1;
        core.open_session(principal, is_admin)
    });
    let signals = Rc::new(SessionSignals::default());
    shell.sessions.borrow_mut().insert(key, Rc::clone(&signals));
    let end = tokio::select! {
        end = read_frames(&shell, key, &signals, &mut reader) => end,
        end = write_frames(&shell, key, &signals, &mut write) => end,
    };
    shell.sessions.borrow_mut().remove(&key);
    let rest =
        shell.with(|core, _| core.sessions.get_mut(&key).map(|session| std::mem::take(&mut session.outbox)));
    shell.with(|core, now| core.close_session(key, now));
    if let Err(failure) = end {
        tracing::info!(code = failure.code.name(), reason = %failure, "a session ends with an error");
        // What was on its way comes first, so that the error is not taken for the answer to another request.
        let _ = timeout(FAREWELL, write.write_all(&rest.unwrap_or_default())).await;
        farewell(&mut write, &failure).await;
    }
}

/// Tells a client that there are too many.
pub(crate) async fn refuse(mut connection: Connection, most: usize) {
    let message = format!("{most} connections are open, which is the limit: the daemon is busy");
    farewell(&mut connection, &Failure::new(Code::RateLimited, message).retry_after_ms(1000)).await;
}

/// The handshake; `None` if the client goes away.
async fn shake_hands<R, W>(
    shell: &Shell,
    handshake: &Handshake,
    reader: &mut FrameReader<R>,
    write: &mut W,
    peer: &Peer,
) -> Result<Option<Accepted>, Failure>
where
    R: tokio::io::AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    // Who may not connect learns it without having to say anything.
    handshake.check_peer(peer).map_err(Failure::from_wire)?;
    let Some(frame) = reader.next().await.map_err(protocol_failure)? else { return Ok(None) };
    let session_id = veritas_ipc::session_id().map_err(|error| Failure::internal(error.to_string()))?;
    let accepted = handshake.frame(frame, peer, session_id).map_err(|error| {
        shell.with(|core, _| core.counters.handshakes_refused += 1);
        Failure::from_wire(error)
    })?;
    let models = shell.with(|core, _| status::models(core));
    let mut welcome = Vec::new();
    encode(&mut welcome, Kind::WELCOME, 0, &handshake.welcome(&accepted, models));
    write.write_all(&welcome).await?;
    Ok(Some(accepted))
}

fn protocol_failure(error: veritas_ipc::Error) -> Failure {
    Failure::usage(error.to_string())
}

/// Tells a client why its session ends.
async fn farewell<W: AsyncWrite + Unpin>(write: &mut W, failure: &Failure) {
    let mut frame = Vec::new();
    encode(&mut frame, Kind::ERROR, 0, &failure.to_wire());
    // A client that does not listen is not waited for.
    let _ = timeout(FAREWELL, write.write_all(&frame)).await;
}

/// Reads frames until the client ends the connection, or must be told that it does.
async fn read_frames<R: tokio::io::AsyncRead + Unpin>(
    shell: &Rc<Shell>,
    key: SessionKey,
    signals: &SessionSignals,
    reader: &mut FrameReader<R>,
) -> Result<(), Failure> {
    loop {
        while shell.with(|core, _| core.waiting_bytes(key)) > OUTBOX_PAUSE_BYTES {
            signals.room.notified().await;
        }
        let Some(frame) = reader.next().await.map_err(protocol_failure)? else { return Ok(()) };
        match shell.with(|core, now| core.take_client_frame(key, frame, now))? {
            Errand::None => {}
            Errand::Report(kind, id) => status::report(shell, key, kind, id),
            Errand::Administer(kind, id, body) => admin::administer(shell, key, kind, id, &body),
        }
    }
}

/// Sends what waits for the client. One that takes nothing for too long is cut off.
async fn write_frames<W: AsyncWrite + Unpin>(
    shell: &Shell,
    key: SessionKey,
    signals: &SessionSignals,
    write: &mut W,
) -> Result<(), Failure> {
    loop {
        let bytes = shell.with(|core, _| core.take_outbox(key));
        if bytes.is_empty() {
            signals.outbox.notified().await;
            continue;
        }
        let patience = shell.config.borrow().socket.slow_client_timeout;
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            match timeout(patience, write.write(rest)).await {
                Ok(Ok(0)) | Ok(Err(_)) => return Ok(()),
                Ok(Ok(n)) => rest = &rest[n..],
                Err(_) => {
                    tracing::warn!(key, "a client that does not read is cut off");
                    return Ok(());
                }
            }
        }
        shell.with(|core, now| core.written(key, now));
        signals.room.notify_one();
    }
}
