//! SIGHUP and `reload`: the configuration is read again, and what can change while the daemon runs is put in force.

use std::collections::BTreeSet;
use std::rc::Rc;

use veritas_proto::v1;

use super::model_state::Stop;
use super::shell::Shell;
use super::{admin, log, models};
use crate::config::{Change, Config};
use crate::failure::{Code, Failure};

/// Reads the configuration again. What needs a restart is named and left as it was.
///
/// # Errors
/// If the new configuration makes no sense: the old one stays in force.
pub(crate) fn reload(shell: &Rc<Shell>) -> Result<v1::ReloadReply, Failure> {
    let new = (shell.reread)().map_err(|errors| Failure::new(Code::Config, errors.to_string()))?;
    let old = shell.config.borrow().clone();
    let (applied, ignored): (Vec<_>, Vec<_>) =
        Config::diff(&old, &new).into_iter().partition(|change| change.reloadable);
    let names = |changes: Vec<Change>| changes.into_iter().map(|change| change.key).collect::<Vec<_>>();
    let reply = v1::ReloadReply { applied: names(applied), ignored: names(ignored) };
    let merged = merged(&old, new);
    log::set_level(merged.log.level);
    shell.with(|core, _| {
        core.settings = super::settings(&merged);
        for model in &merged.models {
            if let Some(state) = core.models.get_mut(&model.name) {
                state.idle_unload = model.idle_unload;
            }
        }
    });
    *shell.handshake.borrow_mut() = Rc::new(super::handshake(&merged, shell.token.clone()));
    *shell.config.borrow_mut() = merged.clone();
    let wanted = merged.models.iter().map(|model| model.name.as_str()).collect::<BTreeSet<_>>();
    for gone in old.models.iter().filter(|model| !wanted.contains(model.name.as_str())) {
        admin::stop(shell, &gone.name, Stop::Remove);
    }
    for model in merged.models.iter().filter(|model| old.models.iter().all(|other| other.name != model.name))
    {
        if !shell.models.borrow().contains_key(&model.name) {
            models::add(shell, model)?;
        }
    }
    tracing::info!(applied = ?reply.applied, ignored = ?reply.ignored, "reloaded");
    Ok(reply)
}

/// The old configuration with what can change while the daemon runs from the new one.
fn merged(old: &Config, new: Config) -> Config {
    let mut merged = old.clone();
    merged.socket.allowed_uids = new.socket.allowed_uids;
    merged.socket.allowed_gids = new.socket.allowed_gids;
    merged.socket.admin_uids = new.socket.admin_uids;
    merged.socket.max_sessions = new.socket.max_sessions;
    merged.socket.handshake_timeout = new.socket.handshake_timeout;
    merged.socket.slow_client_timeout = new.socket.slow_client_timeout;
    merged.limits = new.limits;
    merged.worker = new.worker;
    merged.shutdown = new.shutdown;
    merged.log.level = new.log.level;
    // A model that is served already keeps its settings until it is loaded anew, but for how long it is kept.
    merged.models = new.models;
    for model in &mut merged.models {
        if let Some(served) = old.models.iter().find(|served| served.name == model.name) {
            let idle_unload = model.idle_unload;
            *model = served.clone();
            model.idle_unload = idle_unload;
        }
    }
    merged
}
