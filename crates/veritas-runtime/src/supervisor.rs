//! The supervisor: `veritas-sdr serve`. It accepts clients, keeps one confined worker per model, and never reads a model.
//!
//! Everything runs on one thread: what is shared needs no lock, and a worker, which ends with the thread that started it,
//! lives as long as the daemon. `core` decides, without I/O; `session` moves a client's bytes, `keeper` a worker's.

mod admin;
mod core;
mod counters;
mod keeper;
mod log;
mod metrics;
mod model_state;
mod models;
mod outbox;
mod reload;
mod request;
mod session;
mod shell;
mod status;

#[cfg(test)]
mod tests;

use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, LocalOptions};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{interval, sleep, timeout};
use veritas_ipc::systemd::{Notification, Notifier, watchdog_interval};
use veritas_ipc::{AllowList, Handshake, HandshakeConfig, Incoming, Listener, TokenHash};

use crate::config::{self, Config};
use crate::failure::{Code, Failure};
use core::{Core, Settings};
use model_state::Phase;
pub use shell::Reread;
use shell::Shell;

/// How often deadlines are looked at while there are some.
const TICK: Duration = Duration::from_millis(50);

/// How long the last words to clients may take when the daemon ends.
const FAREWELL: Duration = Duration::from_secs(2);

/// How long no connection is accepted when the system has no descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What the daemon is started with.
pub struct ServeOptions {
    /// The configuration, resolved.
    pub config: Config,
    /// The token that clients must present; `None` to ask for none.
    pub token: Option<TokenHash>,
    /// Reads the configuration again.
    pub reread: Reread,
}

/// Serves until it is told to end.
///
/// # Errors
/// If the socket cannot be had, a model cannot be loaded, or a layer of the sandbox that is required is missing.
pub fn serve(options: ServeOptions) -> Result<(), Failure> {
    log::start(&options.config.log)?;
    // Its tasks wake each other without a system call; those of a `LocalSet` write to a descriptor each time.
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default())?;
    let result = runtime.block_on(run(options));
    // Hashing that is still under way is of no use any more.
    runtime.shutdown_background();
    result
}

fn settings(config: &Config) -> Settings {
    Settings {
        queue_max: config.limits.queue_max as usize,
        queue_per_principal_max: config.limits.queue_per_principal_max.unwrap_or(0) as usize,
        requests_per_principal_max: config.limits.requests_per_principal_max.unwrap_or(0) as usize,
        sharing_groups: config.limits.sharing_groups.clone(),
        weights: config.limits.weights.clone(),
        request_timeout: config.limits.request_timeout,
        slow_client_timeout: config.socket.slow_client_timeout,
        quarantine_after: config.worker.quarantine_after,
        restart_backoff: config.worker.restart_backoff,
        restart_backoff_max: config.worker.restart_backoff_max,
    }
}

/// Who may connect, and what they must present.
fn handshake(config: &Config, token: Option<TokenHash>) -> Handshake {
    let mut handshake = HandshakeConfig::new(status::VERSION);
    handshake.allow = AllowList {
        uids: config.socket.allowed_uids.iter().copied().collect(),
        gids: config.socket.allowed_gids.iter().copied().collect(),
    };
    handshake.token = token;
    handshake.limits.body_bytes_max = config.socket.body_bytes_max.into();
    Handshake::new(handshake)
}

async fn run(options: ServeOptions) -> Result<(), Failure> {
    let ServeOptions { config, token, reread } = options;
    models::check_sandbox(&config.sandbox)?;
    let notifier = Notifier::from_env().map_err(ipc_failure)?;
    let incoming = listen(&config)?;
    let core = Core::new(settings(&config), Instant::now());
    let network_refused = veritas_sandbox::network_refused();
    let shell = Shell::new(core, config.clone(), token, reread, network_refused);
    for model in &config.models {
        models::add(&shell, model)?;
    }
    let mut accepting = tokio::task::spawn_local(accept(Rc::clone(&shell), incoming));
    tokio::task::spawn_local(tick(Rc::clone(&shell)));
    tokio::task::spawn_local(listen_to_signals(Rc::clone(&shell))?);
    tokio::task::spawn_local(feed_watchdog(Notifier::from_env().map_err(ipc_failure)?));
    let started = wait_until_started(&shell, &notifier).await;
    if started.is_ok() {
        tell(&notifier, &[Notification::Ready, Notification::Status("serving")]);
        tracing::info!(socket = %config.socket.path.display(), "serving");
        wait_until_drained(&shell, &notifier, &mut accepting).await;
    }
    // With the listener goes the socket's file.
    accepting.abort();
    let _ = accepting.await;
    end_models(&shell).await;
    started
}

fn ipc_failure(error: veritas_ipc::Error) -> Failure {
    Failure::new(Code::from_wire(error.code() as i32), error.to_string())
}

fn listen(config: &Config) -> Result<Incoming, Failure> {
    let listener = match Listener::from_activation().map_err(ipc_failure)? {
        Some(listener) => listener,
        None => Listener::bind(&config.socket.path, socket_mode(config.socket.mode)).map_err(ipc_failure)?,
    };
    listener.incoming().map_err(ipc_failure)
}

fn socket_mode(mode: config::SocketMode) -> veritas_ipc::SocketMode {
    match mode {
        config::SocketMode::Owner => veritas_ipc::SocketMode::Owner,
        config::SocketMode::Group => veritas_ipc::SocketMode::Group { gid: None },
    }
}

fn tell(notifier: &Notifier, notifications: &[Notification<'_>]) {
    if let Err(error) = notifier.notify(notifications) {
        tracing::warn!(%error, "the service manager cannot be told");
    }
}

/// Accepts connections until the daemon drains.
async fn accept(shell: Rc<Shell>, incoming: Incoming) {
    loop {
        match incoming.accept().await {
            Ok((connection, peer)) => {
                let most = shell.config.borrow().socket.max_sessions as usize;
                let handshake = Rc::clone(&shell.handshake.borrow());
                let n_sessions = shell.sessions.borrow().len() + shell.n_strangers.get();
                if n_sessions >= most {
                    tokio::task::spawn_local(session::refuse(connection, most));
                } else {
                    tokio::task::spawn_local(session::serve(Rc::clone(&shell), handshake, connection, peer));
                }
            }
            Err(error) => {
                // Descriptors come back when sessions end; until then the backlog of the socket waits.
                tracing::warn!(%error, "a connection cannot be accepted");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn tick(shell: Rc<Shell>) {
    loop {
        // A daemon that has nothing to look at sleeps.
        if shell.with(|core, _| core.waits_for_time()) {
            sleep(TICK).await;
        } else {
            shell.clock.notified().await;
        }
        shell.with(|core, now| core.tick(now));
    }
}

/// SIGTERM and SIGINT drain, a second one ends at once; SIGHUP reloads.
fn listen_to_signals(shell: Rc<Shell>) -> Result<impl Future<Output = ()>, Failure> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    Ok(async move {
        loop {
            tokio::select! {
                _ = hang_up.recv() => {
                    if let Err(failure) = reload::reload(&shell) {
                        tracing::error!(reason = %failure, "the new configuration is not taken");
                    }
                }
                _ = terminate.recv() => end(&shell),
                _ = interrupt.recv() => end(&shell),
            }
        }
    })
}

fn end(shell: &Shell) {
    if shell.with(|core, _| core.is_draining()) {
        let failure = Failure::new(Code::ShuttingDown, "the daemon was told to end at once");
        shell.with(|core, now| core.fail_all(&failure, now));
    }
    admin::drain(shell);
}

async fn feed_watchdog(notifier: Notifier) {
    let Some(period) = watchdog_interval() else { return };
    let mut ticks = interval(period / 2);
    loop {
        ticks.tick().await;
        tell(&notifier, &[Notification::Watchdog]);
    }
}

/// Waits until every model serves that is to be loaded at the start.
async fn wait_until_started(shell: &Shell, notifier: &Notifier) -> Result<(), Failure> {
    let start_timeout = shell.config.borrow().worker.start_timeout;
    let mut changes = shell.changes();
    loop {
        let still_loading = shell.with(|core, _| {
            let mut still_loading = None;
            for (name, model) in &core.models {
                match model.phase {
                    Phase::Ready | Phase::Unloaded => {}
                    Phase::Loading | Phase::Restarting => still_loading = Some(name.clone()),
                    Phase::Failed | Phase::Quarantined => {
                        let failure = model.reason.clone();
                        let failure =
                            failure.unwrap_or_else(|| Failure::internal("the model was not loaded"));
                        return Err(failure.within(format_args!("model {name}")));
                    }
                }
            }
            Ok(if core.is_draining() { None } else { still_loading })
        })?;
        let Some(name) = still_loading else { return Ok(()) };
        let status = format!("loading {name}");
        tell(notifier, &[Notification::Status(&status), Notification::ExtendTimeout(start_timeout)]);
        if changes.changed().await.is_err() {
            return Ok(());
        }
    }
}

/// Waits until the daemon is told to end and has answered what it took, or the time for that is over.
async fn wait_until_drained(
    shell: &Rc<Shell>,
    notifier: &Notifier,
    accepting: &mut tokio::task::JoinHandle<()>,
) {
    let mut changes = shell.changes();
    while !shell.with(|core, _| core.is_draining()) {
        if changes.changed().await.is_err() {
            return;
        }
    }
    accepting.abort();
    let patience = shell.config.borrow().shutdown.timeout;
    tell(notifier, &[Notification::Stopping, Notification::ExtendTimeout(patience + FAREWELL)]);
    let all_answered = async {
        while !shell.with(|core, _| core.is_drained()) {
            sleep(Duration::from_millis(5)).await;
        }
    };
    if timeout(patience, all_answered).await.is_err() {
        let n = shell.with(|core, _| core.n_open());
        tracing::warn!(requests = n, "the time to shut down is over; what is left is ended");
        let failure = Failure::new(Code::ShuttingDown, "the daemon is shutting down");
        shell.with(|core, now| core.fail_all(&failure, now));
        let told = async {
            while !shell.with(|core, _| core.is_drained()) {
                sleep(Duration::from_millis(5)).await;
            }
        };
        let _ = timeout(FAREWELL, told).await;
    }
}

/// Ends the workers.
async fn end_models(shell: &Rc<Shell>) {
    shell.with(|core, _| core.drain());
    let names = shell.models.borrow().keys().cloned().collect::<Vec<_>>();
    for name in &names {
        admin::stop(shell, name, model_state::Stop::Remove);
    }
    let gone = async {
        let mut changes = shell.changes();
        while !shell.models.borrow().is_empty() {
            if changes.changed().await.is_err() {
                return;
            }
        }
    };
    let _ = timeout(FAREWELL, gone).await;
}
