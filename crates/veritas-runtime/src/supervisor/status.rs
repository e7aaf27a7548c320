//! What the supervisor tells of itself: `live`, `ready`, `health`, `status`, `metrics`, the list of models. No worker is
//! asked: a probe must be answered when a model hangs.

use std::time::Instant;

use veritas_proto::{Kind, v1};

use super::core::{Core, SessionKey};
use super::metrics;
use super::model_state::Phase;
use super::shell::Shell;

/// The version of the program.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Answers a request from the state of the daemon.
pub(crate) fn report(shell: &Shell, key: SessionKey, kind: Kind, id: u64) {
    let network_refused = shell.network_refused;
    let queue_max = shell.config.borrow().limits.queue_max as usize;
    shell.with(|core, now| match kind {
        Kind::LIVE => {
            core.reply(key, Kind::LIVE_REPLY, id, &v1::LiveReply { uptime_ms: uptime_ms(core, now) })
        }
        Kind::READY => {
            let reasons = reasons_not_ready(core, queue_max);
            core.reply(key, Kind::READY_REPLY, id, &v1::ReadyReply { ready: reasons.is_empty(), reasons });
        }
        Kind::HEALTH => {
            let reply = health(core, now, network_refused, queue_max);
            core.reply(key, Kind::HEALTH_REPLY, id, &reply);
        }
        Kind::STATUS => {
            let reply = status(core, now, network_refused);
            core.reply(key, Kind::STATUS_REPLY, id, &reply);
        }
        Kind::METRICS => {
            let text = metrics::text(&status(core, now, network_refused), core);
            core.reply(key, Kind::METRICS_REPLY, id, &v1::MetricsReply { text });
        }
        _ => {
            let models = models(core);
            core.reply(key, Kind::MODEL_REPLY, id, &v1::ModelList { models });
        }
    });
}

fn uptime_ms(core: &Core, now: Instant) -> u64 {
    (now - core.started).as_millis() as u64
}

/// The models, by name.
pub(crate) fn models(core: &Core) -> Vec<v1::Model> {
    core.models.iter().map(|(name, model)| model.describe(name)).collect()
}

/// Why a request would not be served now; empty if it would.
pub(crate) fn reasons_not_ready(core: &Core, queue_max: usize) -> Vec<String> {
    let mut reasons = Vec::new();
    if core.is_draining() {
        reasons.push("the daemon is shutting down".to_owned());
    }
    for (name, model) in &core.models {
        match model.phase {
            Phase::Ready | Phase::Unloaded => {}
            phase => {
                let why = model.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
                reasons.push(format!("{name} is {}{why}", phase.name()));
            }
        }
        if model.n_queued() >= queue_max {
            reasons.push(format!("the queue of {name} is full"));
        }
    }
    reasons
}

fn health(core: &Core, now: Instant, network_refused: bool, queue_max: usize) -> v1::HealthReply {
    let mut checks = vec![v1::Check {
        name: "network".to_owned(),
        ok: network_refused,
        detail: if network_refused {
            "the kernel refuses this process any socket but a Unix socket".to_owned()
        } else {
            "this process could open an internet socket".to_owned()
        },
    }];
    for (name, model) in &core.models {
        let ok = matches!(model.phase, Phase::Ready | Phase::Unloaded);
        let why =
            model.reason.as_ref().filter(|_| !ok).map(|reason| format!(": {reason}")).unwrap_or_default();
        let detail = format!(
            "{}{why}; {} in hand, {} queued",
            model.phase.name(),
            model.n_in_hand(),
            model.n_queued()
        );
        checks.push(v1::Check { name: format!("model {name}"), ok, detail });
        checks.push(v1::Check {
            name: format!("queue {name}"),
            ok: model.n_queued() < queue_max,
            detail: format!("{} of {queue_max} places are taken", model.n_queued()),
        });
    }
    v1::HealthReply {
        healthy: checks.iter().all(|check| check.ok) && !core.is_draining(),
        checks,
        version: VERSION.to_owned(),
        uptime_ms: uptime_ms(core, now),
        models: models(core),
        network_refused,
    }
}

fn status(core: &Core, now: Instant, network_refused: bool) -> v1::StatusReply {
    let sum = |count: fn(&super::model_state::ModelState) -> usize| {
        core.models.values().map(|model| count(model) as u64).sum::<u64>()
    };
    let mut principals: std::collections::BTreeMap<String, v1::PrincipalCounts> = core
        .counters
        .principals()
        .map(|(name, counts)| {
            let counts =
                v1::PrincipalCounts { running: 0, finished: counts.finished, rejected: counts.rejected };
            (name.to_owned(), counts)
        })
        .collect();
    for request in core.requests.values().filter(|request| request.is_running()) {
        principals.entry(request.principal.clone()).or_default().running += 1;
    }
    v1::StatusReply {
        version: VERSION.to_owned(),
        uptime_ms: uptime_ms(core, now),
        models: models(core),
        requests: Some(v1::RequestCounts {
            running: sum(super::model_state::ModelState::n_in_hand),
            queued: sum(super::model_state::ModelState::n_queued),
            finished: core.counters.finished,
            failed: core.counters.failed,
            rejected: core.counters.rejected,
            preempted: sum(super::model_state::ModelState::n_preempted),
        }),
        tokens: Some(core.counters.tokens),
        kv: Some(v1::KvPages {
            pages_total: sum(|model| model.pong.pages_total),
            pages_used: sum(|model| model.pong.pages_used),
            pages_cached: sum(|model| model.pong.pages_cached),
        }),
        latency_ms: Some(core.counters.latencies()),
        principals,
        rss_bytes: rss_bytes_of(std::process::id()),
        sessions: core.sessions.len() as u32,
        audit_head: String::new(),
        network_refused,
        draining: core.is_draining(),
    }
}

/// Bytes of memory that a process has resident; 0 where the system does not say.
pub(crate) fn rss_bytes_of(pid: u32) -> u64 {
    let Ok(text) = std::fs::read_to_string(format!("/proc/{pid}/status")) else { return 0 };
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}
