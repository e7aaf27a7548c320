//! What the tasks of the supervisor share: the core, and the signals that wake them.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::time::Instant;

use tokio::sync::{Notify, watch};
use veritas_ipc::{Handshake, ServedConnection, TokenHash};

use super::core::{Core, SessionKey};
use super::outbox::Written;
use crate::config::{Config, Errors};

/// Reads the configuration from where it was read before.
pub type Reread = Box<dyn Fn() -> Result<Config, Errors>>;

/// What the shell has of a session.
pub(crate) struct SessionEnd {
    pub(crate) connection: ServedConnection,
    /// There are bytes that the kernel did not take at once.
    pub(crate) rest: Notify,
    /// Such bytes were sent: there is room again.
    pub(crate) room: Notify,
}

impl SessionEnd {
    pub(crate) fn new(connection: ServedConnection) -> Self {
        Self { connection, rest: Notify::new(), room: Notify::new() }
    }
}

/// One thread's shared state: no lock is needed, and none is held across a wait.
pub(crate) struct Shell {
    core: RefCell<Core>,
    /// Whether what is to be sent is being gathered.
    gathers: Cell<bool>,
    pub(crate) config: RefCell<Config>,
    pub(crate) sessions: RefCell<HashMap<SessionKey, Rc<SessionEnd>>>,
    pub(crate) models: RefCell<BTreeMap<String, Rc<Notify>>>,
    /// Something waits for a time.
    pub(crate) clock: Notify,
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
            gathers: Cell::new(false),
            sessions: RefCell::default(),
            models: RefCell::default(),
            clock: Notify::new(),
            changes: watch::Sender::new(0),
            handshake: RefCell::new(Rc::new(super::handshake(&config, token.clone()))),
            token,
            config: RefCell::new(config),
            reread,
            network_refused,
            n_strangers: Cell::new(0),
        })
    }

    /// Does something with the core, then sends what is due and wakes whoever it concerns.
    pub(crate) fn with<R>(&self, work: impl FnOnce(&mut Core, Instant) -> R) -> R {
        let now = Instant::now();
        let result = work(&mut self.core.borrow_mut(), now);
        if !self.gathers.get() {
            self.send(now);
        }
        result
    }

    /// Until the value is dropped nothing is sent, so that all frames for a client leave in one write. It must not be
    /// held across a wait.
    pub(crate) fn gather(&self) -> Gathering<'_> {
        self.gathers.set(true);
        Gathering { shell: self }
    }

    /// Sends to clients what the core has for them, at once and from here: a task that was woken for it would cost more
    /// than the write. What the kernel does not take is left to the session's own task.
    fn send(&self, now: Instant) {
        let mut core = self.core.borrow_mut();
        let sessions = self.sessions.borrow();
        loop {
            let wakes = core.take_wakes();
            let models = self.models.borrow();
            wakes.models.iter().filter_map(|name| models.get(name)).for_each(|signal| signal.notify_one());
            if wakes.clock {
                self.clock.notify_one();
            }
            if wakes.sessions.is_empty() {
                return;
            }
            for key in wakes.sessions {
                let Some(end) = sessions.get(&key) else { continue };
                if core.send(key, now, &mut |bytes| end.connection.try_write(bytes)) != Written::All {
                    end.rest.notify_one();
                }
            }
        }
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

/// While it lives, what the core has for clients is gathered.
pub(crate) struct Gathering<'a> {
    shell: &'a Shell,
}

impl Drop for Gathering<'_> {
    fn drop(&mut self) {
        self.shell.gathers.set(false);
        self.shell.send(Instant::now());
    }
}
