//! What administrators ask: load and unload models, drain, reload. What takes long is answered when it is done.

use std::path::Path;
use std::rc::Rc;

use veritas_proto::{Kind, Message, v1};

use super::core::{SessionKey, no_such_model};
use super::model_state::{Phase, Stop};
use super::shell::Shell;
use super::{models, reload};
use crate::failure::{Code, Failure};

/// Does what is asked, and answers.
pub(crate) fn administer(shell: &Rc<Shell>, key: SessionKey, kind: Kind, id: u64, body: &[u8]) {
    let result = match kind {
        Kind::MODEL_INFO => info(shell, key, id, body),
        Kind::MODEL_LOAD => load(shell, key, id, body),
        Kind::MODEL_UNLOAD => unload(shell, key, id, body),
        Kind::DRAIN => {
            drain(shell);
            let running = shell.with(|core, _| core.n_open()) as u64;
            shell.with(|core, _| core.reply(key, Kind::DRAIN_REPLY, id, &v1::DrainReply { running }));
            Ok(())
        }
        _ => reload::reload(shell).map(|reply| {
            shell.with(|core, _| core.reply(key, Kind::RELOAD_REPLY, id, &reply));
        }),
    };
    if let Err(failure) = result {
        shell.with(|core, _| core.reply_failure(key, id, &failure));
    }
}

/// From now on the daemon takes nothing new, and ends when it has answered what it took.
pub(crate) fn drain(shell: &Shell) {
    tracing::info!("draining");
    shell.with(|core, _| core.drain());
    shell.note_change();
}

fn read<M: Message + Default>(kind: Kind, body: &[u8]) -> Result<M, Failure> {
    M::decode(body).map_err(|error| Failure::usage(format!("the body of {kind} is malformed: {error}")))
}

fn info(shell: &Shell, key: SessionKey, id: u64, body: &[u8]) -> Result<(), Failure> {
    let request: v1::ModelInfoRequest = read(Kind::MODEL_INFO, body)?;
    shell.with(|core, _| {
        let name = core.resolve(&request.name)?;
        let model = core.models.get(&name).ok_or_else(|| no_such_model(&name))?.describe(&name);
        core.reply(key, Kind::MODEL_REPLY, id, &v1::ModelList { models: vec![model] });
        Ok(())
    })
}

fn load(shell: &Rc<Shell>, key: SessionKey, id: u64, body: &[u8]) -> Result<(), Failure> {
    let request: v1::ModelLoadRequest = read(Kind::MODEL_LOAD, body)?;
    let path = Path::new(&request.path);
    if !path.is_absolute() {
        return Err(Failure::usage(format!("{} is no absolute path", path.display()))
            .hint("the daemon has a working directory of its own"));
    }
    let config = shell.config.borrow().model(&request.name, path);
    let config = config.map_err(|error| Failure::usage(error.to_string()))?;
    let name = config.name.clone();
    let state = shell.with(|core, _| core.models.get(&name).map(|model| model.phase));
    match state {
        None => {}
        Some(Phase::Quarantined | Phase::Failed) => {
            return reload_failed(shell, key, id, config);
        }
        Some(phase) => {
            let message = format!("a model is called {name} already, and it is {}", phase.name());
            return Err(Failure::usage(message).hint(format!("`veritas-sdr models unload {name}` first")));
        }
    }
    models::add(shell, &config)?;
    answer_when_settled(shell, key, id, name);
    Ok(())
}

/// Takes a model away that is of no use any more, and loads it anew.
fn reload_failed(
    shell: &Rc<Shell>,
    key: SessionKey,
    id: u64,
    config: crate::config::ModelConfig,
) -> Result<(), Failure> {
    let name = config.name.clone();
    stop(shell, &name, Stop::Remove);
    let shell = Rc::clone(shell);
    tokio::task::spawn_local(async move {
        wait_until(&shell, |shell| !shell.models.borrow().contains_key(&name)).await;
        match models::add(&shell, &config) {
            Ok(()) => answer_when_settled(&shell, key, id, name),
            Err(failure) => shell.with(|core, _| core.reply_failure(key, id, &failure)),
        }
    });
    Ok(())
}

fn unload(shell: &Rc<Shell>, key: SessionKey, id: u64, body: &[u8]) -> Result<(), Failure> {
    let request: v1::ModelUnloadRequest = read(Kind::MODEL_UNLOAD, body)?;
    let name = request.name;
    if !shell.models.borrow().contains_key(&name) {
        return Err(no_such_model(&name));
    }
    stop(shell, &name, Stop::Remove);
    let shell = Rc::clone(shell);
    tokio::task::spawn_local(async move {
        wait_until(&shell, |shell| !shell.models.borrow().contains_key(&name)).await;
        shell.with(|core, _| {
            let models = super::status::models(core);
            core.reply(key, Kind::MODEL_REPLY, id, &v1::ModelList { models });
        });
    });
    Ok(())
}

/// Tells the task that keeps a model what is wanted of it.
pub(crate) fn stop(shell: &Shell, name: &str, stop: Stop) {
    shell.with(|core, _| {
        if let Some(model) = core.models.get_mut(name) {
            model.stop = Some(stop);
        }
    });
    shell.wake_model(name);
}

fn answer_when_settled(shell: &Rc<Shell>, key: SessionKey, id: u64, name: String) {
    let shell = Rc::clone(shell);
    tokio::task::spawn_local(async move {
        let phase = |shell: &Shell| shell.with(|core, _| core.models.get(&name).map(|model| model.phase));
        wait_until(&shell, |shell| !matches!(phase(shell), Some(Phase::Loading | Phase::Restarting))).await;
        shell.with(|core, _| match core.models.get(&name) {
            Some(model) if model.phase == Phase::Ready => {
                let models = vec![model.describe(&name)];
                core.reply(key, Kind::MODEL_REPLY, id, &v1::ModelList { models });
            }
            Some(model) => {
                let reason = model.reason.clone();
                let failure =
                    reason.unwrap_or_else(|| Failure::new(Code::Internal, "the model was not loaded"));
                core.reply_failure(key, id, &failure);
            }
            None => core.reply_failure(key, id, &no_such_model(&name)),
        });
    });
}

/// Waits until something holds that changes with [`Shell::changes`].
async fn wait_until(shell: &Shell, holds: impl Fn(&Shell) -> bool) {
    let mut changes = shell.changes();
    while !holds(shell) {
        if changes.changed().await.is_err() {
            return;
        }
    }
}
