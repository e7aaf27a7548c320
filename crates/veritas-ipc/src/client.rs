//! Clients of a daemon: one for threads, one for tokio.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use veritas_proto::limits::CREDIT_DEFAULT;
use veritas_proto::{Frame, Header, Kind, Message, VERSION, v1};
use zeroize::{Zeroize, Zeroizing};

use crate::limits::TIMEOUT_DEFAULT;
use crate::{AllowList, Error, Token};

pub mod asynchronous;
pub mod blocking;

/// How a client presents itself, and how long it waits.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// What the client calls itself in the daemon's logs: at most 64 bytes, no control characters.
    pub name: String,
    /// The token, where the daemon asks for one.
    pub token: Option<Token>,
    /// Users whose daemons are believed, as the kernel names who listens; nothing is said to any other. At first this
    /// process's own user and root, which is also who listens where systemd has made the socket.
    pub trusted_uids: BTreeSet<u32>,
    /// How long connecting with the handshake, and each answer, may take; `None` waits for ever. While an answer is
    /// generated, it bounds the time from a cancellation to the end.
    pub timeout: Option<Duration>,
    /// How long a generation may be silent; `None` waits for ever, since a long prompt takes its time. The request's own
    /// `deadline_ms` bounds the whole.
    pub silence_timeout: Option<Duration>,
    /// Deltas that a daemon may send ahead of what has been consumed, where a request does not say; at least 1.
    pub credit: u32,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            name: String::new(),
            token: None,
            trusted_uids: AllowList::own_user().uids.into_iter().chain([0]).collect(),
            timeout: Some(TIMEOUT_DEFAULT),
            silence_timeout: None,
            credit: CREDIT_DEFAULT,
        }
    }
}

impl ClientOptions {
    /// Checks that who listens at `path` is one of those who may.
    #[cfg_attr(not(unix), allow(dead_code, reason = "nothing listens there"))]
    fn check_server(&self, path: &Path, uid: u32) -> Result<(), Error> {
        if self.trusted_uids.contains(&uid) {
            return Ok(());
        }
        Err(Error::UntrustedServer { path: path.to_owned(), uid })
    }

    /// The first frame of a connection, and requests that leave with it. It holds the token, and is overwritten when it
    /// is dropped.
    fn greeting(&self, requests: &[u8]) -> Zeroizing<Vec<u8>> {
        let mut hello = v1::Hello {
            versions: vec![VERSION.into()],
            features: Vec::new(),
            client_name: self.name.clone(),
            token: self.token.as_ref().map(|token| token.bytes().to_vec()).unwrap_or_default(),
            session_id: Vec::new(),
        };
        // All of it is reserved at once: a buffer that grew would leave a copy of the token behind.
        let n_bytes = Header::BYTES + hello.encoded_len() + requests.len();
        let mut bytes = Zeroizing::new(Vec::with_capacity(n_bytes));
        veritas_proto::encode(&mut bytes, Kind::HELLO, 0, &hello);
        bytes.extend_from_slice(requests);
        hello.token.zeroize();
        bytes
    }
}

/// Takes the answer to the greeting, and checks that the daemon speaks as it was asked to.
fn check_welcome(frame: &Frame) -> Result<v1::Welcome, Error> {
    match frame.kind {
        Kind::WELCOME if frame.request_id == 0 => {}
        Kind::ERROR if frame.request_id == 0 => return Err(Error::Refused(frame.message()?)),
        kind => return Err(Error::protocol(format!("it answers HELLO with {kind}"))),
    }
    let welcome = frame.message::<v1::Welcome>()?;
    if welcome.version != u32::from(VERSION) {
        let reason = format!("it speaks version {} of the protocol, not {VERSION}", welcome.version);
        return Err(Error::protocol(reason));
    }
    Ok(welcome)
}

/// Checks that a message is one that the daemon accepts. A daemon that does not say accepts what the frame can hold.
fn check_length(message: &impl Message, welcome: &v1::Welcome) -> Result<(), Error> {
    let announced = welcome.limits.map_or(0, |limits| limits.body_bytes_max);
    let limit = if announced == 0 { u64::from(u32::MAX) } else { announced.min(u32::MAX.into()) };
    let found = message.encoded_len() as u64;
    if found > limit { Err(Error::RequestTooLong { found, limit }) } else { Ok(()) }
}

/// The deltas that a daemon may still send, and those that it has not been given credit for again.
#[derive(Debug)]
struct Credit {
    /// What is given in all.
    window: u32,
    /// What the daemon has left.
    left: u32,
    /// Deltas that have been consumed since credit was last given.
    consumed: u32,
}

impl Credit {
    /// Takes what the request asks for, or what the client usually gives, as far as the daemon allows it, and says it in
    /// the request.
    fn of(request: &mut v1::GenerateRequest, options: &ClientOptions, welcome: &v1::Welcome) -> Self {
        let wanted = if request.credit == 0 { options.credit } else { request.credit };
        let allowed = welcome.limits.map_or(0, |limits| limits.credit_max);
        let allowed = if allowed == 0 { veritas_proto::limits::CREDIT_MAX } else { allowed };
        request.credit = wanted.clamp(1, allowed);
        Self { window: request.credit, left: request.credit, consumed: 0 }
    }

    /// The deltas that may be on their way at once.
    fn window(&self) -> u32 {
        self.window
    }

    /// A delta has come.
    fn take(&mut self) -> Result<(), Error> {
        self.left = self.left.checked_sub(1).ok_or_else(|| {
            Error::protocol(format!("more deltas than the {} that it was given credit for", self.window))
        })?;
        Ok(())
    }

    /// A delta has been consumed. The credit to give, if it is time: half of the window, so that the daemon never waits
    /// for a client that keeps up, and a frame serves many deltas.
    fn consume(&mut self) -> Option<v1::Credit> {
        self.consumed += 1;
        if self.consumed < self.window.div_ceil(2) {
            return None;
        }
        let deltas = std::mem::take(&mut self.consumed);
        self.left += deltas;
        Some(v1::Credit { deltas })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credit(wanted: u32, usual: u32, allowed: u32) -> (u32, Credit) {
        let mut request = v1::GenerateRequest { credit: wanted, ..Default::default() };
        let options = ClientOptions { credit: usual, ..ClientOptions::default() };
        let limits = v1::Limits { credit_max: allowed, ..Default::default() };
        let credit =
            Credit::of(&mut request, &options, &v1::Welcome { limits: Some(limits), ..Default::default() });
        (request.credit, credit)
    }

    #[test]
    fn credit_is_what_was_asked_for_as_far_as_the_daemon_allows() {
        for (wanted, usual, allowed, expected) in
            [(0, 64, 100, 64), (5, 64, 100, 5), (200, 64, 100, 100), (0, 0, 100, 1), (0, 64, 0, 64)]
        {
            assert_eq!(credit(wanted, usual, allowed).0, expected);
        }
    }

    #[test]
    fn a_daemon_never_has_more_credit_than_the_window_and_never_starves() {
        for window in 1..10 {
            let (_, mut credit) = credit(window, 64, 100);
            let mut daemon_has = window;
            for _ in 0..100 {
                assert!(daemon_has > 0, "a client that keeps up never lets the daemon wait");
                daemon_has -= 1;
                credit.take().unwrap();
                daemon_has += credit.consume().map_or(0, |given| given.deltas);
                assert!(daemon_has <= window);
                assert_eq!(daemon_has, credit.left);
            }
        }
    }

    #[test]
    fn deltas_beyond_the_credit_are_a_violation() {
        let (_, mut credit) = credit(2, 64, 100);
        credit.take().unwrap();
        credit.take().unwrap();
        assert!(matches!(credit.take(), Err(Error::Protocol { .. })));
    }
}
