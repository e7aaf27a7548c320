//! What no two settings may say together.

use super::{Config, Effective, Error, Origin, SandboxPolicy, SocketMode};

/// The contradictions in a configuration whose values are each in range.
pub(super) fn contradictions(config: &Config, effective: &[Effective]) -> Vec<Error> {
    let mut errors = Vec::new();
    let mut check = |is_wrong: bool, keys: [&str; 2], message: String| {
        if is_wrong {
            errors.push(Error::Contradiction { origin: place(effective, keys), message });
        }
    };
    let (socket, worker, sandbox) = (&config.socket, &config.worker, &config.sandbox);
    check(
        !socket.allowed_gids.is_empty() && socket.mode == SocketMode::Owner,
        ["socket.allowed_gids", "socket.mode"],
        "`socket.allowed_gids` lets groups in, but `socket.mode` \"0600\" lets no group reach the socket; set it to \
         \"0660\""
            .to_owned(),
    );
    let stranger = socket.admin_uids.iter().find(|uid| !socket.allowed_uids.contains(uid));
    if let Some(uid) = stranger.filter(|_| socket.allowed_gids.is_empty()) {
        check(
            true,
            ["socket.admin_uids", "socket.allowed_uids"],
            format!("`socket.admin_uids` has {uid}, which may not connect; add it to `socket.allowed_uids`"),
        );
    }
    check(
        worker.heartbeat_timeout <= worker.heartbeat,
        ["worker.heartbeat_timeout_ms", "worker.heartbeat_ms"],
        format!(
            "`worker.heartbeat_timeout_ms` is {}, but must be more than `worker.heartbeat_ms`, which is {}",
            worker.heartbeat_timeout.as_millis(),
            worker.heartbeat.as_millis()
        ),
    );
    check(
        worker.restart_backoff_max < worker.restart_backoff,
        ["worker.restart_backoff_max_ms", "worker.restart_backoff_ms"],
        format!(
            "`worker.restart_backoff_max_ms` is {}, but must be at least `worker.restart_backoff_ms`, which is {}",
            worker.restart_backoff_max.as_millis(),
            worker.restart_backoff.as_millis()
        ),
    );
    check(
        sandbox.allow_missing && (sandbox.strict || sandbox.policy == SandboxPolicy::Strict),
        ["sandbox.allow_missing", "sandbox.strict"],
        "`sandbox.allow_missing` contradicts a sandbox that is strict".to_owned(),
    );
    for model in config.models.iter().filter(|model| model.no_digest && model.digest.is_some()) {
        let path = format!("models.{}.no_digest", model.name);
        let message =
            format!("the model {:?} has a `digest`, so that `no_digest` cannot be true", model.name);
        check(true, [&path, &path], message);
    }
    errors
}

/// The place of the first setting that somebody gave.
fn place(effective: &[Effective], keys: [&str; 2]) -> Origin {
    let given = |path: &str| {
        let setting = effective.iter().find(|setting| setting.path() == path);
        setting.map(|setting| setting.origin.clone()).filter(|origin| *origin != Origin::Default)
    };
    keys.into_iter().find_map(given).unwrap_or(Origin::Default)
}
