//! The writing end of the connection to the supervisor, which both threads of a worker use.

use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;
use veritas_proto::{Kind, Message, encode};
use veritas_sandbox::Socket;

use crate::failure::Failure;
use crate::link::encode_json;

/// Writes whole frames.
pub(crate) struct Output {
    socket: Mutex<Arc<Socket>>,
}

impl Output {
    pub(crate) fn new(socket: Arc<Socket>) -> Self {
        Self { socket: Mutex::new(socket) }
    }

    /// Sends frames that are encoded already. It waits while the supervisor does not read.
    pub(crate) fn send(&self, frames: &[u8]) -> Result<(), Failure> {
        let socket = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
        Ok((&**socket).write_all(frames)?)
    }

    /// Sends frames unless another thread is sending: the last word of a thread that panics.
    pub(crate) fn try_send(&self, frames: &[u8]) {
        if let Ok(socket) = self.socket.try_lock() {
            // There is nobody else to tell.
            let _ = (&**socket).write_all(frames);
        }
    }

    pub(crate) fn message(&self, kind: Kind, request_id: u64, message: &impl Message) -> Result<(), Failure> {
        let mut frame = Vec::new();
        encode(&mut frame, kind, request_id, message);
        self.send(&frame)
    }

    pub(crate) fn json(&self, kind: Kind, request_id: u64, body: &impl Serialize) -> Result<(), Failure> {
        let mut frame = Vec::new();
        encode_json(&mut frame, kind, request_id, body)?;
        self.send(&frame)
    }

    /// Says that a request, or with id 0 the worker, has failed.
    pub(crate) fn failure(&self, request_id: u64, failure: &Failure) {
        // A supervisor that is gone needs no answer.
        let _ = self.message(Kind::ERROR, request_id, &failure.to_wire());
    }
}
