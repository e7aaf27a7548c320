//! A client's connection: the handshake, then frames in and frames out at the same time.

use std::rc::Rc;
use std::time::Duration;

use tokio::io::AsyncRead;
use tokio::time::timeout;
use veritas_ipc::{Accepted, Connection, FrameReader, Handshake, Peer, ServedConnection};
use veritas_proto::{Kind, encode, limits};

use super::core::{Errand, SessionKey};
use super::outbox::Written;
use super::shell::{SessionEnd, Shell};
use super::{admin, status};
use crate::failure::{Code, Failure};

/// Bytes that may wait for a client before no more of its requests are read.
const OUTBOX_PAUSE_BYTES: usize = 2 << 20;

/// How long the last words to a client may take.
const FAREWELL: Duration = Duration::from_secs(1);

/// Serves a connection until either side ends it.
pub(crate) async fn serve(shell: Rc<Shell>, handshake: Rc<Handshake>, connection: Connection, peer: Peer) {
    let end = match ServedConnection::new(connection) {
        Ok(connection) => Rc::new(SessionEnd::new(connection)),
        Err(error) => return tracing::warn!(%error, "a connection cannot be served"),
    };
    let connection = &end.connection;
    shell.n_strangers.set(shell.n_strangers.get() + 1);
    let mut reader = FrameReader::new(connection, limits::HANDSHAKE_BODY_BYTES_MAX);
    let patience = shell.config.borrow().socket.handshake_timeout;
    let shaken = timeout(patience, shake_hands(&shell, &handshake, &mut reader, connection, &peer)).await;
    shell.n_strangers.set(shell.n_strangers.get() - 1);
    let accepted = match shaken {
        Ok(Ok(Some(accepted))) => accepted,
        Ok(Ok(None)) => return,
        Ok(Err(failure)) => return farewell(connection, &failure).await,
        Err(_) => {
            let message = format!("there was no handshake within {} ms", patience.as_millis());
            return farewell(connection, &Failure::new(Code::Timeout, message)).await;
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
    shell.sessions.borrow_mut().insert(key, Rc::clone(&end));
    let outcome = tokio::select! {
        outcome = read_frames(&shell, key, &end, &mut reader) => outcome,
        outcome = write_rest(&shell, key, &end) => outcome,
    };
    shell.sessions.borrow_mut().remove(&key);
    let rest = shell.with(|core, _| core.take_outbox(key));
    shell.with(|core, now| core.close_session(key, now));
    if let Err(failure) = outcome {
        tracing::info!(code = failure.code.name(), reason = %failure, "a session ends with an error");
        // What was on its way comes first, so that the error is not taken for the answer to another request.
        let _ = timeout(FAREWELL, connection.write_all(&rest)).await;
        farewell(connection, &failure).await;
    }
}

/// Tells a client that there are too many.
pub(crate) async fn refuse(connection: Connection, most: usize) {
    let connection = match ServedConnection::new(connection) {
        Ok(connection) => connection,
        Err(error) => return tracing::warn!(%error, "a connection cannot be refused"),
    };
    let message = format!("{most} connections are open, which is the limit: the daemon is busy");
    farewell(&connection, &Failure::new(Code::RateLimited, message).retry_after_ms(1000)).await;
}

/// The handshake; `None` if the client goes away.
async fn shake_hands<R: AsyncRead + Unpin>(
    shell: &Shell,
    handshake: &Handshake,
    reader: &mut FrameReader<R>,
    connection: &ServedConnection,
    peer: &Peer,
) -> Result<Option<Accepted>, Failure> {
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
    connection.write_all(&welcome).await?;
    Ok(Some(accepted))
}

fn protocol_failure(error: veritas_ipc::Error) -> Failure {
    Failure::usage(error.to_string())
}

/// Tells a client why its session ends.
async fn farewell(connection: &ServedConnection, failure: &Failure) {
    let mut frame = Vec::new();
    encode(&mut frame, Kind::ERROR, 0, &failure.to_wire());
    // A client that does not listen is not waited for.
    let _ = timeout(FAREWELL, connection.write_all(&frame)).await;
}

/// Reads frames until the client ends the connection, or must be told that it does.
async fn read_frames<R: AsyncRead + Unpin>(
    shell: &Rc<Shell>,
    key: SessionKey,
    end: &SessionEnd,
    reader: &mut FrameReader<R>,
) -> Result<(), Failure> {
    loop {
        while shell.with(|core, _| core.waiting_bytes(key)) > OUTBOX_PAUSE_BYTES {
            end.room.notified().await;
        }
        let Some(mut frame) = reader.next().await.map_err(protocol_failure)? else { return Ok(()) };
        // The answers to frames that came together leave together.
        let _gathering = shell.gather();
        loop {
            match shell.with(|core, now| core.take_client_frame(key, frame, now))? {
                Errand::None => {}
                Errand::Report(kind, id) => status::report(shell, key, kind, id),
                Errand::Administer(kind, id, body) => admin::administer(shell, key, kind, id, &body),
            }
            if shell.with(|core, _| core.waiting_bytes(key)) > OUTBOX_PAUSE_BYTES {
                break;
            }
            match reader.buffered().map_err(protocol_failure)? {
                Some(next) => frame = next,
                None => break,
            }
        }
    }
}

/// Sends what the kernel did not take at once. A client that takes nothing for too long is cut off.
async fn write_rest(shell: &Shell, key: SessionKey, end: &SessionEnd) -> Result<(), Failure> {
    loop {
        end.rest.notified().await;
        loop {
            match shell.with(|core, now| core.send(key, now, &mut |bytes| end.connection.try_write(bytes))) {
                Written::All => break,
                Written::Gone => return Ok(()),
                Written::Full => {}
            }
            end.room.notify_one();
            let patience = shell.config.borrow().socket.slow_client_timeout;
            match timeout(patience, end.connection.writable()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Ok(()),
                Err(_) => {
                    tracing::warn!(key, "a client that does not read is cut off");
                    return Ok(());
                }
            }
        }
        end.room.notify_one();
    }
}
