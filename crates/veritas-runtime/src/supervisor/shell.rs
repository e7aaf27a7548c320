//! What the tasks of the supervisor share: the core, and the signals that wake them.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::time::Instant;

use tokio::sync::{Notify, watch};
use veritas_ipc::{Handshake, TokenHash};

use super::core::{Core, SessionKey};
use crate::config::{Config, Errors};

/// Reads the configuration from where it was read before.
pub type Reread = Box<dyn Fn() -> Result<Config, Errors>>;

/// The signals of a session's tasks.
#[derive(Default)]
pub(crate) struct SessionSignals {
    /// There are bytes to send.
    pub(crate) outbox: Notify,
    /// Bytes were sent: there is room again.
    pub(crate) room: Notify,
}

/// One thread's shared state: no lock is needed, and none is held across a wait.
pub(crate) struct Shell {
    core: RefCell<Core>,
    pub(crate) config: RefCell<Config>,
    pub(crate) sessions: RefCell<HashMap<SessionKey, Rc<SessionSignals>>>,
    pub(crate) models: RefCell<BTreeMap<String, Rc<Notify>>>,
    /// Counts changes that somebody may wait for: a model is ready or failed or gone, the daemon drains.
    changes: watch::Sender<u64>,
    pub(crate) handshake: RefCell<Rc<Handshake>>,
    /// The token that clients must present.
    pub(crate) token: Option<TokenHash>,
    /// Reads the configuration again.
    pub(crate) reread: Reread,
    pub(crate) network_refused: bool,
    /// Connections that have not shaken hands yet.
    pub(crate) n_strangers: Cell<usize>,
}

impl Shell {
    pub(crate) fn new(
        core: Core,
        config: Config,
        token: Option<TokenHash>,
        reread: Reread,
        network_refused: bool,
    ) -> Rc<Self> {
        Rc::new(Self {
            core: RefCell::new(core),
            sessions: RefCell::default(),
            models: RefCell::default(),
            changes: watch::Sender::new(0),
            handshake: RefCell::new(Rc::new(super::handshake(&config, token.clone()))),
            token,
            config: RefCell::new(config),
            reread,
            network_refused,
            n_strangers: Cell::new(0),
        })
    }

    /// Does something with the core, then wakes whoever it concerns.
    pub(crate) fn with<R>(&self, work: impl FnOnce(&mut Core, Instant) -> R) -> R {
        let mut core = self.core.borrow_mut();
        let result = work(&mut core, Instant::now());
        let wakes = core.take_wakes();
        drop(core);
        let sessions = self.sessions.borrow();
        wakes
            .sessions
            .iter()
            .filter_map(|key| sessions.get(key))
            .for_each(|signals| signals.outbox.notify_one());
        let models = self.models.borrow();
        wakes.models.iter().filter_map(|name| models.get(name)).for_each(|signal| signal.notify_one());
        result
    }

    /// Tells everybody who waits for a change to look again.
    pub(crate) fn note_change(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    /// Changes from now on.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Wakes the task that keeps a model.
    pub(crate) fn wake_model(&self, name: &str) {
        if let Some(signal) = self.models.borrow().get(name) {
            signal.notify_one();
        }
    }
}
