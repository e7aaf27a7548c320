//! What a daemon asks of a client before it serves it. Pure: who is calling and the random bytes are passed in.

use veritas_proto::limits::{
    BODY_BYTES_DEFAULT, CLIENT_NAME_BYTES_MAX, CREDIT_MAX, REQUESTS_PER_SESSION_MAX,
};
use veritas_proto::v1::{self, Code};
use veritas_proto::{Frame, Kind, VERSION};
use zeroize::Zeroize;

use crate::{AllowList, Error, Peer, TokenHash};

/// The random bytes that name a session.
pub type SessionId = [u8; 32];

/// A new name for a session, from the system's random bytes.
///
/// # Errors
/// If the system has none.
pub fn session_id() -> Result<SessionId, Error> {
    let mut bytes = SessionId::default();
    getrandom::fill(&mut bytes).map_err(|error| Error::Random { reason: error.to_string() })?;
    Ok(bytes)
}

/// What a daemon asks, and what it offers.
#[derive(Clone, Debug)]
pub struct HandshakeConfig {
    /// Who may call.
    pub allow: AllowList,
    /// The token that a client must show, if one is asked for.
    pub token: Option<TokenHash>,
    /// The version of the daemon, for the answer.
    pub server_version: String,
    /// Optional features that the daemon has.
    pub features: Vec<String>,
    /// What the daemon accepts on a connection.
    pub limits: v1::Limits,
}

impl HandshakeConfig {
    /// The user of this process alone, no token, the default limits.
    pub fn new(server_version: impl Into<String>) -> Self {
        let limits = v1::Limits {
            body_bytes_max: BODY_BYTES_DEFAULT.into(),
            requests_max: REQUESTS_PER_SESSION_MAX,
            credit_max: CREDIT_MAX,
        };
        let (allow, server_version) = (AllowList::own_user(), server_version.into());
        Self { allow, token: None, server_version, features: Vec::new(), limits }
    }
}

/// The rules by which a connection becomes a session. One serves all connections.
#[derive(Clone, Debug)]
pub struct Handshake {
    config: HandshakeConfig,
}

/// A client that has been let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// The name of the session.
    pub session_id: SessionId,
    /// The version of the protocol that is spoken.
    pub version: u32,
    /// Features that both sides have.
    pub features: Vec<String>,
    /// What the client calls itself; without control characters, so that it can stand in a log.
    pub client_name: String,
}

impl Handshake {
    /// The rules of `config`.
    pub fn new(config: HandshakeConfig) -> Self {
        Self { config }
    }

    /// Judges the first frame of a connection, which must be a `Hello`. Its token is overwritten.
    ///
    /// # Errors
    /// What the client is to be told, after which the connection ends.
    pub fn frame(&self, mut frame: Frame, peer: &Peer, session_id: SessionId) -> Result<Accepted, v1::Error> {
        let judged = self.judge(&frame, peer, session_id);
        frame.body.zeroize();
        judged
    }

    fn judge(&self, frame: &Frame, peer: &Peer, session_id: SessionId) -> Result<Accepted, v1::Error> {
        self.check_peer(peer)?;
        if frame.kind != Kind::HELLO || frame.request_id != 0 {
            let message = format!(
                "the first frame of a connection must be HELLO with request id 0, not {} with {}",
                frame.kind, frame.request_id
            );
            return Err(error(Code::Usage, message, None));
        }
        let mut hello =
            frame.message::<v1::Hello>().map_err(|why| error(Code::Usage, why.to_string(), None))?;
        let judged = self.hello(&hello, peer, session_id);
        hello.token.zeroize();
        judged
    }

    /// Judges what a client has said of itself.
    ///
    /// # Errors
    /// What the client is to be told, after which the connection ends: `FORBIDDEN` if the peer is nobody who may call;
    /// `UNAUTHENTICATED` if the token is missing or wrong (which of the two is not told), or if it asks for the session
    /// of another connection; `USAGE` if the versions have nothing in common or the name cannot be logged.
    pub fn hello(
        &self,
        hello: &v1::Hello,
        peer: &Peer,
        session_id: SessionId,
    ) -> Result<Accepted, v1::Error> {
        self.check_peer(peer)?;
        self.check_token(&hello.token)?;
        if !hello.session_id.is_empty() {
            let message = "a session belongs to its connection and cannot be taken up by another";
            return Err(error(Code::Unauthenticated, message, Some("leave session_id empty")));
        }
        check_name(&hello.client_name)?;
        let version = u32::from(VERSION);
        if !hello.versions.contains(&version) {
            // At most a few are shown: the list is the client's, and may be long.
            let shown = &hello.versions[..hello.versions.len().min(8)];
            let message =
                format!("only version {version} of the protocol is spoken here, not any of {shown:?}");
            return Err(error(Code::Usage, message, Some("use a client of the daemon's own version")));
        }
        let is_common = |feature: &&String| hello.features.contains(feature);
        Ok(Accepted {
            session_id,
            version,
            features: self.config.features.iter().filter(is_common).cloned().collect(),
            client_name: hello.client_name.clone(),
        })
    }

    /// The answer to a client that has been let in.
    pub fn welcome(&self, accepted: &Accepted, models: Vec<v1::Model>) -> v1::Welcome {
        v1::Welcome {
            version: accepted.version,
            features: accepted.features.clone(),
            server_version: self.config.server_version.clone(),
            session_id: accepted.session_id.to_vec(),
            limits: Some(self.config.limits),
            models,
        }
    }

    /// Whether the peer may call at all. It can be asked before a byte of the peer is read.
    ///
    /// # Errors
    /// `FORBIDDEN` if it may not.
    pub fn check_peer(&self, peer: &Peer) -> Result<(), v1::Error> {
        if self.config.allow.allows(peer) {
            return Ok(());
        }
        let message = format!("user {} may not use this daemon", peer.uid);
        let hint = "the operator lists the users and groups that may in the daemon's configuration";
        Err(error(Code::Forbidden, message, Some(hint)))
    }

    fn check_token(&self, token: &[u8]) -> Result<(), v1::Error> {
        match &self.config.token {
            Some(hash) if !hash.matches(token) => {
                let hint = "give the daemon's token with --token-file";
                Err(error(Code::Unauthenticated, "the token is missing or wrong", Some(hint)))
            }
            _ => Ok(()),
        }
    }
}

fn check_name(name: &str) -> Result<(), v1::Error> {
    if name.len() > CLIENT_NAME_BYTES_MAX {
        let message = format!(
            "the client's name has {} bytes; at most {CLIENT_NAME_BYTES_MAX} are accepted",
            name.len()
        );
        return Err(error(Code::Usage, message, None));
    }
    if name.chars().any(char::is_control) {
        return Err(error(
            Code::Usage,
            "the client's name has control characters, and could forge a log",
            None,
        ));
    }
    Ok(())
}

fn error(code: Code, message: impl Into<String>, hint: Option<&str>) -> v1::Error {
    let hint = hint.map(str::to_owned);
    v1::Error { code: code.into(), message: message.into(), hint, retry_after_ms: None }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Token;

    const PEER: Peer = Peer { uid: 1000, gid: 1000, pid: Some(1) };
    const ID: SessionId = [7; 32];

    fn handshake(token: Option<&[u8]>) -> Handshake {
        let mut config = HandshakeConfig::new("1.2.3");
        config.allow = AllowList { uids: [1000].into(), gids: [].into() };
        config.token = token.map(|bytes| Token::new(bytes).unwrap().hash());
        config.features = vec!["a".to_owned(), "b".to_owned()];
        Handshake::new(config)
    }

    fn hello(token: &[u8]) -> v1::Hello {
        v1::Hello {
            versions: vec![1],
            features: vec!["b".to_owned(), "c".to_owned()],
            client_name: "test".to_owned(),
            token: token.to_vec(),
            session_id: Vec::new(),
        }
    }

    #[test]
    fn a_client_is_welcomed_with_what_both_sides_have() {
        let handshake = handshake(Some(b"secret"));
        let accepted = handshake.hello(&hello(b"secret"), &PEER, ID).unwrap();
        let features = vec!["b".to_owned()];
        assert_eq!(
            accepted,
            Accepted {
                session_id: ID,
                version: 1,
                features: features.clone(),
                client_name: "test".to_owned()
            }
        );
        let welcome = handshake.welcome(&accepted, Vec::new());
        assert_eq!((welcome.version, welcome.features, welcome.session_id), (1, features, ID.to_vec()));
        assert_eq!(welcome.server_version, "1.2.3");
        assert_eq!(welcome.limits.unwrap().body_bytes_max, u64::from(BODY_BYTES_DEFAULT));
    }

    #[test]
    fn a_missing_token_and_a_wrong_one_are_not_told_apart() {
        let handshake = handshake(Some(b"secret"));
        let missing = handshake.hello(&hello(b""), &PEER, ID).unwrap_err();
        let wrong = handshake.hello(&hello(b"Secret"), &PEER, ID).unwrap_err();
        assert_eq!(missing, wrong);
        assert_eq!(missing.code(), Code::Unauthenticated);
    }

    #[test]
    fn a_daemon_without_a_token_lets_every_allowed_user_in() {
        let handshake = handshake(None);
        assert!(handshake.hello(&hello(b""), &PEER, ID).is_ok());
        assert!(handshake.hello(&hello(b"whatever"), &PEER, ID).is_ok());
        let stranger = Peer { uid: 1001, ..PEER };
        assert_eq!(handshake.hello(&hello(b""), &stranger, ID).unwrap_err().code(), Code::Forbidden);
    }

    #[test]
    fn a_stranger_learns_nothing_about_the_token() {
        let handshake = handshake(Some(b"secret"));
        let stranger = Peer { uid: 0, gid: 0, pid: None };
        let right = handshake.hello(&hello(b"secret"), &stranger, ID).unwrap_err();
        let wrong = handshake.hello(&hello(b"wrong"), &stranger, ID).unwrap_err();
        assert_eq!(right, wrong);
        assert_eq!(right.code(), Code::Forbidden);
    }

    #[test]
    fn a_session_cannot_be_taken_up_by_another_connection() {
        for session_id in [vec![0], ID.to_vec()] {
            let hello = v1::Hello { session_id, ..hello(b"") };
            assert_eq!(handshake(None).hello(&hello, &PEER, ID).unwrap_err().code(), Code::Unauthenticated);
        }
    }

    #[test]
    fn names_that_cannot_stand_in_a_log_are_refused() {
        let judge =
            |name: String| handshake(None).hello(&v1::Hello { client_name: name, ..hello(b"") }, &PEER, ID);
        assert!(judge(String::new()).is_ok());
        assert!(judge("n".repeat(CLIENT_NAME_BYTES_MAX)).is_ok());
        for bad in ["n".repeat(CLIENT_NAME_BYTES_MAX + 1), "a\nb".to_owned(), "\u{1b}[2J".to_owned()] {
            assert_eq!(judge(bad).unwrap_err().code(), Code::Usage);
        }
    }

    #[test]
    fn a_client_of_another_version_is_told_which_is_spoken() {
        let judge =
            |versions: Vec<u32>| handshake(None).hello(&v1::Hello { versions, ..hello(b"") }, &PEER, ID);
        assert!(judge(vec![9, 1, 4]).is_ok());
        for versions in [vec![], vec![0], vec![2, 3], vec![65_537], (2..5000).collect()] {
            let error = judge(versions).unwrap_err();
            assert_eq!(error.code(), Code::Usage);
            assert!(error.message.contains("version 1") && error.message.len() < 200, "{}", error.message);
        }
    }

    #[test]
    fn nothing_but_a_hello_opens_a_session() {
        let handshake = handshake(None);
        let frame = |kind, request_id, body: &[u8]| Frame { kind, request_id, body: body.to_vec() };
        let good = veritas_proto::Message::encode_to_vec(&hello(b""));
        assert!(handshake.frame(frame(Kind::HELLO, 0, &good), &PEER, ID).is_ok());
        for bad in [
            frame(Kind::HELLO, 1, &good),
            frame(Kind::LIVE, 0, &[]),
            frame(Kind::WORKER_START, 0, &good),
            frame(Kind::HELLO, 0, &[0xff]),
        ] {
            assert_eq!(handshake.frame(bad, &PEER, ID).unwrap_err().code(), Code::Usage);
        }
    }

    #[test]
    fn sessions_have_different_names() {
        assert_ne!(session_id().unwrap(), session_id().unwrap());
    }

    proptest! {
        #[test]
        fn no_token_but_the_right_one_is_ever_accepted(
            token in prop::collection::vec(any::<u8>(), 1..64),
            other in prop::collection::vec(any::<u8>(), 0..64),
            flip in any::<(prop::sample::Index, u8)>(),
        ) {
            let handshake = handshake(Some(&token));
            prop_assert!(handshake.hello(&hello(&token), &PEER, ID).is_ok());
            let mut flipped = token.clone();
            flipped[flip.0.index(token.len())] ^= flip.1;
            let longer = [&token[..], &[0]].concat();
            let doubled = [&token[..], &token[..]].concat();
            for candidate in [&other, &flipped, &longer, &doubled, &token[1..].to_vec()] {
                let is_accepted = handshake.hello(&hello(candidate), &PEER, ID).is_ok();
                prop_assert_eq!(is_accepted, *candidate == token);
            }
        }
    }
}
