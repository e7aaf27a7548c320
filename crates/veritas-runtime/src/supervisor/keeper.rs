//! The task that keeps a model's worker: starts it, moves frames, listens to its heart, replaces it.

use std::convert::Infallible;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::Notify;
use tokio::time::{MissedTickBehavior, interval, sleep};
use veritas_ipc::FrameReader;
use veritas_proto::{Frame, Kind, encode_body, v1};
use veritas_sandbox::{Exit, Layer, Limits, Policy, Report, Worker};

use super::model_state::{Phase, Stop};
use super::shell::Shell;
use crate::failure::{Code, Failure};
use crate::host::{Launch, OpenModel, death, sandbox_failure};
use crate::jobs::{Job, ServeJob};
use crate::link::{BODY_BYTES_MAX, Loaded, Panic, Started, decode_json};

/// How long a worker that has closed its connection may take to end by itself.
const EXIT_PATIENCE: Duration = Duration::from_millis(200);

/// Everything that a model's workers are started with.
pub(crate) struct Plan {
    pub(crate) name: String,
    pub(crate) model: Arc<OpenModel>,
    pub(crate) overrides: Vec<String>,
    pub(crate) job: ServeJob,
    pub(crate) policy: Policy,
    pub(crate) limits: Limits,
    pub(crate) allow_missing: bool,
    /// What the file's digest must be.
    pub(crate) digest: Option<String>,
    pub(crate) built_in: &'static [u8],
}

/// How a worker's time ended.
enum End {
    /// It died, or was killed for a fault.
    Died(Failure),
    /// It said that it cannot do what it is for.
    Refused(Failure),
    /// It was asked to.
    Stopped { remove: bool },
}

/// Keeps a model until it is removed.
pub(crate) async fn keep(shell: Rc<Shell>, plan: Plan, signal: Rc<Notify>) {
    let name = plan.name.as_str();
    loop {
        if !wait_until_wanted(&shell, name, &signal).await {
            break;
        }
        let end = match verified(&shell, &plan).await {
            Err(failure) => End::Refused(failure),
            Ok(()) => run_worker(&shell, &plan, &signal).await,
        };
        match end {
            End::Died(failure) => {
                tracing::error!(model = name, reason = %failure, "a worker is lost");
                let back_off = shell.with(|core, now| core.worker_died(name, &failure, now));
                shell.note_change();
                if let Some(back_off) = back_off {
                    sleep(back_off).await;
                }
            }
            End::Refused(failure) => {
                tracing::error!(model = name, code = failure.code.name(), reason = %failure, "a model cannot be loaded");
                shell.with(|core, now| core.worker_refused(name, &failure, now));
                shell.note_change();
            }
            End::Stopped { remove } => {
                tracing::info!(model = name, "unloaded");
                shell.with(|core, now| core.worker_stopped(name, now));
                shell.note_change();
                if remove {
                    break;
                }
            }
        }
    }
    let gone = Failure::new(Code::NotFound, format!("{name} was unloaded"));
    shell.with(|core, now| {
        core.fail_queue(name, &gone, now);
        core.models.remove(name);
    });
    shell.models.borrow_mut().remove(name);
    shell.note_change();
}

/// Waits until the model needs a worker; `false` if it is removed instead.
async fn wait_until_wanted(shell: &Shell, name: &str, signal: &Notify) -> bool {
    loop {
        let wanted = shell.with(|core, _| {
            let model = core.models.get_mut(name)?;
            match (model.stop.take(), model.phase) {
                (Some(Stop::Remove), _) => None,
                (_, Phase::Loading | Phase::Restarting) => Some(!core.is_draining()),
                (_, Phase::Unloaded) if model.n_queued() > 0 => {
                    model.phase = Phase::Loading;
                    Some(true)
                }
                _ => Some(false),
            }
        });
        match wanted {
            None => return false,
            Some(true) => return true,
            Some(false) => signal.notified().await,
        }
    }
}

/// Checks the digest that the operator expects before a worker sees the file.
async fn verified(shell: &Shell, plan: &Plan) -> Result<(), Failure> {
    let Some(expected) = &plan.digest else { return Ok(()) };
    let found = digest_of(plan).await?;
    shell.with(|core, now| core.digest_known(&plan.name, found.clone(), now));
    if found == *expected {
        return Ok(());
    }
    let message = format!("the digest of {} is {found}, not {expected} as configured", plan.name);
    Err(Failure::new(Code::ModelHashMismatch, message).hint("the file is not the one that was approved"))
}

async fn digest_of(plan: &Plan) -> Result<String, Failure> {
    let (model, built_in) = (Arc::clone(&plan.model), plan.built_in);
    let hashing = tokio::task::spawn_blocking(move || model.digest(built_in, &mut |_| {}));
    let digest = hashing.await.map_err(|error| Failure::internal(error.to_string()))??;
    Ok(digest.to_string())
}

async fn run_worker(shell: &Shell, plan: &Plan, signal: &Notify) -> End {
    let launch = Launch {
        model: &plan.model,
        overrides: &plan.overrides,
        others: Vec::new(),
        job: Job::Serve(plan.job.clone()),
        policy: &plan.policy,
        limits: plan.limits,
        allow_missing: plan.allow_missing,
    };
    let (mut worker, frames) = match launch.spawn() {
        Ok(started) => started,
        Err(failure) => return End::Refused(failure),
    };
    tracing::info!(model = plan.name, pid = worker.pid(), "a worker starts");
    shell.with(|core, now| {
        if let Some(model) = core.models.get_mut(&plan.name) {
            model.pid = Some(worker.pid());
            model.pong_at = now;
            model.outbox = frames;
        }
    });
    let link = worker.take_socket().ok_or_else(|| Failure::internal("the worker has no socket")).and_then(
        |socket| {
            socket.set_nonblocking(true)?;
            Ok(UnixStream::from_std(socket)?)
        },
    );
    let link = match link {
        Ok(link) => link,
        Err(failure) => return End::Refused(failure),
    };
    let mut watch = Watch { shell, plan, panic: None, refusal: None, fault: None };
    let end = watch.over(link, signal).await;
    let was_ready =
        shell.with(|core, _| core.models.get(&plan.name).is_some_and(|model| model.ready_since.is_some()));
    let exit = reap(&mut worker, matches!(end, Some(End::Stopped { .. } | End::Died(_)))).await;
    match (end, watch.refusal, exit) {
        (Some(end), ..) => end,
        (None, Some(failure), _) if !was_ready => End::Refused(failure),
        (None, Some(failure), _) => End::Died(failure),
        (None, None, Ok(Reaped { exit, killed: false })) => {
            End::Died(death(exit, watch.panic.as_ref(), &plan.model))
        }
        (None, None, Ok(_)) => {
            let fault = watch.fault.unwrap_or_else(|| broken("it closed the connection and did not end"));
            End::Died(fault)
        }
        (None, None, Err(failure)) => End::Died(failure),
    }
}

/// How a process ended, and whether it had to be killed.
struct Reaped {
    exit: Exit,
    killed: bool,
}

/// Waits for the end of a process; one that does not end is killed.
async fn reap(worker: &mut Worker, kill: bool) -> Result<Reaped, Failure> {
    if kill {
        worker.kill();
    }
    let patience = Instant::now() + EXIT_PATIENCE;
    loop {
        match worker.try_wait() {
            Ok(Some(exit)) => return Ok(Reaped { exit, killed: kill }),
            Ok(None) if Instant::now() < patience => sleep(Duration::from_millis(1)).await,
            Ok(None) => {
                worker.kill();
                let exit = worker.wait().map_err(|error| sandbox_failure(&error))?;
                return Ok(Reaped { exit, killed: true });
            }
            Err(error) => return Err(sandbox_failure(&error)),
        }
    }
}

/// What is known of one worker while it lives.
struct Watch<'a> {
    shell: &'a Shell,
    plan: &'a Plan,
    panic: Option<Panic>,
    refusal: Option<Failure>,
    /// What was wrong with its last bytes.
    fault: Option<Failure>,
}

impl Watch<'_> {
    /// Moves frames until the worker ends the connection (`None`) or must go.
    async fn over(&mut self, link: UnixStream, signal: &Notify) -> Option<End> {
        let (shell, plan) = (self.shell, self.plan);
        let (read, write) = link.into_split();
        let mut reader = FrameReader::new(read, BODY_BYTES_MAX);
        let outbox = Notify::new();
        tokio::select! {
            end = self.read(&mut reader) => end,
            Err(end) = send(shell, &plan.name, &outbox, write) => end,
            Err(end) = obey(shell, &plan.name, signal, &outbox) => Some(end),
            Err(end) = listen_to_heart(shell, plan, &outbox) => Some(end),
            Err(end) = compute_digest(shell, plan) => Some(end),
        }
    }

    async fn read<R: AsyncRead + Unpin>(&mut self, reader: &mut FrameReader<R>) -> Option<End> {
        loop {
            let mut frame = match reader.next().await {
                Ok(Some(frame)) => frame,
                Ok(None) => return None,
                // What a dying worker leaves behind may be cut anywhere; whether it is dying is seen when it is waited for.
                Err(error) => {
                    self.fault = Some(broken(&error.to_string()));
                    return None;
                }
            };
            // A step's frames came together, and those for one client leave together.
            let _gathering = self.shell.gather();
            loop {
                if let Err(failure) = self.take(frame) {
                    return Some(End::Died(broken(&failure.message)));
                }
                frame = match reader.buffered() {
                    Ok(Some(next)) => next,
                    Ok(None) => break,
                    Err(error) => {
                        self.fault = Some(broken(&error.to_string()));
                        return None;
                    }
                };
            }
        }
    }

    fn take(&mut self, frame: Frame) -> Result<(), Failure> {
        let name = &self.plan.name;
        match frame.kind {
            Kind::WORKER_STARTED => {
                let report = decode_json::<Started>(&frame)?.report;
                warn_of_missing_layers(name, &report);
                self.shell.with(|core, _| {
                    if let Some(model) = core.models.get_mut(name) {
                        model.report = Some(report);
                    }
                });
            }
            Kind::WORKER_DONE => {
                let loaded: Loaded = decode_json(&frame)?;
                let Loaded { load_ms, threads, ref isa, .. } = loaded;
                tracing::info!(model = name, load_ms, isa, threads, "loaded");
                self.shell.with(|core, now| core.worker_loaded(name, loaded, now));
                self.shell.note_change();
            }
            Kind::WORKER_PANIC => self.panic = decode_json(&frame).ok(),
            Kind::ERROR if frame.request_id == 0 => {
                self.refusal = Some(Failure::from_wire(frame.message::<v1::Error>()?));
            }
            _ => self.shell.with(|core, now| core.take_worker_frame(name, frame, now))?,
        }
        Ok(())
    }
}

/// A worker reports that a layer is missing that is always required only where there is no sandbox for the system and the
/// operator has allowed to do without.
fn warn_of_missing_layers(name: &str, report: &Report) {
    let missing = report.missing(Layer::ALWAYS_REQUIRED).map(Layer::name).collect::<Vec<_>>().join(", ");
    if !missing.is_empty() {
        tracing::warn!(
            model = name,
            missing,
            "A WORKER RUNS WITHOUT A SANDBOX, as sandbox.allow_missing allows"
        );
    }
}

/// Computes the digest of the files while the worker loads them; a model serves when it has both.
async fn compute_digest(shell: &Shell, plan: &Plan) -> Result<Infallible, End> {
    let is_due = shell.with(|core, _| core.models.get(&plan.name).is_some_and(|model| model.lacks_digest()));
    if is_due {
        let digest = digest_of(plan).await.map_err(End::Refused)?;
        shell.with(|core, now| core.digest_known(&plan.name, digest, now));
        shell.note_change();
    }
    std::future::pending().await
}

fn broken(why: &str) -> Failure {
    Failure::new(Code::WorkerLost, format!("the worker broke the protocol: {why}"))
}

/// Sends what waits for the worker. It ends with the connection, whose end the reader explains.
async fn send<W: AsyncWrite + Unpin>(
    shell: &Shell,
    name: &str,
    outbox: &Notify,
    mut write: W,
) -> Result<Infallible, Option<End>> {
    loop {
        let bytes = shell.with(|core, _| {
            core.models.get_mut(name).map(|model| std::mem::take(&mut model.outbox)).unwrap_or_default()
        });
        if bytes.is_empty() {
            outbox.notified().await;
        } else if write.write_all(&bytes).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Waits until the worker must go; passes on that there is something to send.
async fn obey(shell: &Shell, name: &str, signal: &Notify, outbox: &Notify) -> Result<Infallible, End> {
    loop {
        let stop = shell.with(|core, _| core.models.get_mut(name).and_then(|model| model.stop.take()));
        match stop {
            Some(Stop::Unload) => return Err(End::Stopped { remove: false }),
            Some(Stop::Remove) => return Err(End::Stopped { remove: true }),
            None => {}
        }
        outbox.notify_one();
        signal.notified().await;
    }
}

/// Sends heartbeats and waits for one that is not answered.
async fn listen_to_heart(shell: &Shell, plan: &Plan, outbox: &Notify) -> Result<Infallible, End> {
    let settings = shell.config.borrow().worker.clone();
    let began = Instant::now();
    let mut ticks = interval(settings.heartbeat);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last_tick = Instant::now();
    loop {
        ticks.tick().await;
        // If this process stood still itself, the worker is not to blame.
        let stood_still = last_tick.elapsed() > settings.heartbeat * 2;
        last_tick = Instant::now();
        let fault = shell.with(|core, now| {
            let model = core.models.get_mut(&plan.name)?;
            encode_body(&mut model.outbox, Kind::WORKER_PING, 0, &[]);
            if stood_still {
                model.pong_at = now;
            }
            let silence = now - model.pong_at;
            let step = Duration::from_millis(model.pong.step_ms);
            if silence > settings.heartbeat_timeout {
                Some(format!("the worker did not answer for {} ms", silence.as_millis()))
            } else if settings.step_timeout.is_some_and(|most| step > most) {
                Some(format!("a step of the engine took more than {} ms", step.as_millis()))
            } else if model.phase != Phase::Ready && began.elapsed() > settings.start_timeout {
                Some(format!("the worker was not ready within {} ms", settings.start_timeout.as_millis()))
            } else {
                None
            }
        });
        if let Some(fault) = fault {
            return Err(End::Died(Failure::new(Code::WorkerLost, fault)));
        }
        outbox.notify_one();
    }
}
