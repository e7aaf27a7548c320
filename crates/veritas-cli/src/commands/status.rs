//! `status`, `metrics`, `drain`, `reload`: questions to a daemon and what an administrator tells it.

use std::fmt::Write as _;
use std::io::Write;
use std::time::Duration;

use serde_json::{Value, json};
use veritas_ipc::blocking::Client;
use veritas_proto::v1;

use crate::daemon_args::AskArgs;
use crate::failure::Failure;
use crate::report;
use crate::screen::Screen;

/// How long an answer from the daemon's state may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Connects to the daemon that the flags name.
pub(crate) fn connect(args: &AskArgs) -> Result<Client, Failure> {
    Ok(Client::connect(&args.daemon.path(), &args.daemon.options(Some(TIMEOUT))?)?)
}

/// `status`.
pub(crate) fn status(args: &AskArgs) -> Result<(), Failure> {
    let status = connect(args)?.status()?;
    let text = if args.output.json { report::line(&status_json(&status)) + "\n" } else { table(&status) };
    Ok(Screen::stdout(false).write_all(text.as_bytes())?)
}

/// `metrics`.
pub(crate) fn metrics(args: &AskArgs) -> Result<(), Failure> {
    let text = connect(args)?.metrics()?;
    Ok(Screen::stdout(false).write_all(text.as_bytes())?)
}

/// `drain`.
pub(crate) fn drain(args: &AskArgs) -> Result<(), Failure> {
    let reply = connect(args)?.drain()?;
    let mut stdout = Screen::stdout(false);
    if args.output.json {
        writeln!(stdout, "{}", json!({"running": reply.running}))?;
    } else if !args.output.quiet {
        writeln!(stdout, "draining; {} requests are still running", reply.running)?;
    }
    Ok(())
}

/// `reload`.
pub(crate) fn reload(args: &AskArgs) -> Result<(), Failure> {
    let reply = connect(args)?.reload()?;
    let mut stdout = Screen::stdout(false);
    if args.output.json {
        let json = json!({"applied": reply.applied, "ignored": reply.ignored});
        writeln!(stdout, "{}", report::line(&json))?;
    } else if !args.output.quiet {
        reply.applied.iter().try_for_each(|key| writeln!(stdout, "in force: {key}"))?;
        reply.ignored.iter().try_for_each(|key| writeln!(stdout, "needs a restart: {key}"))?;
        if reply.applied.is_empty() && reply.ignored.is_empty() {
            writeln!(stdout, "nothing has changed")?;
        }
    }
    Ok(())
}

fn status_json(status: &v1::StatusReply) -> Value {
    let requests = status.requests.unwrap_or_default();
    let tokens = status.tokens.unwrap_or_default();
    let kv = status.kv.unwrap_or_default();
    let latency = status.latency_ms.unwrap_or_default();
    let principals = status.principals.iter().map(|(name, counts)| {
        let counts =
            json!({"running": counts.running, "finished": counts.finished, "rejected": counts.rejected});
        (name.clone(), counts)
    });
    json!({
        "version": status.version,
        "uptime_ms": status.uptime_ms,
        "draining": status.draining,
        "network": if status.network_refused { "refused" } else { "open" },
        "rss_bytes": status.rss_bytes,
        "sessions": status.sessions,
        "models": status.models.iter().map(model_json).collect::<Vec<_>>(),
        "requests": {
            "running": requests.running,
            "queued": requests.queued,
            "finished": requests.finished,
            "failed": requests.failed,
            "rejected": requests.rejected,
            "preempted": requests.preempted,
        },
        "tokens": {
            "prompt": tokens.prompt,
            "cached": tokens.cached,
            "generated": tokens.generated,
            "drafted": tokens.drafted,
            "accepted": tokens.accepted,
        },
        "kv": {
            "pages_total": kv.pages_total,
            "pages_used": kv.pages_used,
            "pages_cached": kv.pages_cached,
        },
        "latency_ms": {
            "ttft_p50": latency.ttft_p50,
            "ttft_p99": latency.ttft_p99,
            "per_token_p50": latency.per_token_p50,
            "per_token_p99": latency.per_token_p99,
        },
        "principals": principals.collect::<serde_json::Map<_, _>>(),
    })
}

/// A model as `status`, `models` and `health` print it.
pub(crate) fn model_json(model: &v1::Model) -> Value {
    let text = |text: &str| if text.is_empty() { Value::Null } else { json!(text) };
    let worker = model.worker.clone().unwrap_or_default();
    json!({
        "name": model.name,
        "digest": text(&model.digest),
        "version": text(&model.version),
        "state": model.state,
        "reason": text(&model.reason),
        "path": text(&model.path),
        "file_bytes": model.file_bytes,
        "architecture": text(&model.architecture),
        "n_context": model.n_context,
        "n_params": model.n_params,
        "n_vocab": model.n_vocab,
        "has_chat_template": model.has_chat_template,
        "worker": {
            "pid": worker.pid,
            "rss_bytes": worker.rss_bytes,
            "restarts": worker.restarts,
            "sandbox": worker.sandbox,
            "sandbox_reasons": worker.sandbox_reasons,
        },
    })
}

fn table(status: &v1::StatusReply) -> String {
    let mut text = String::new();
    // Writing to a String does not fail.
    let mut line = |key: &str, value: std::fmt::Arguments<'_>| {
        let _ = writeln!(text, "{key:12} {value}");
    };
    let draining = if status.draining { ", draining" } else { "" };
    let network = if status.network_refused { "refused by the kernel" } else { "open" };
    line("version", format_args!("{}", status.version));
    line("uptime", format_args!("{:.0} s{draining}", status.uptime_ms as f64 / 1e3));
    line("network", format_args!("{network}"));
    let requests = status.requests.unwrap_or_default();
    line(
        "requests",
        format_args!(
            "{} running, {} queued, {} finished, {} failed, {} rejected",
            requests.running, requests.queued, requests.finished, requests.failed, requests.rejected
        ),
    );
    let tokens = status.tokens.unwrap_or_default();
    line("tokens", format_args!("{} of prompts, {} generated", tokens.prompt, tokens.generated));
    let kv = status.kv.unwrap_or_default();
    line("KV cache", format_args!("{} of {} pages", kv.pages_used, kv.pages_total));
    let latency = status.latency_ms.unwrap_or_default();
    let ms = |ms: Option<f64>| ms.map_or("–".to_owned(), |ms| format!("{ms:.1} ms"));
    line(
        "latency",
        format_args!(
            "first token {} (p99 {}), each token {} (p99 {})",
            ms(latency.ttft_p50),
            ms(latency.ttft_p99),
            ms(latency.per_token_p50),
            ms(latency.per_token_p99)
        ),
    );
    for model in &status.models {
        let worker = model.worker.clone().unwrap_or_default();
        let pid = worker.pid.map_or("no worker".to_owned(), |pid| format!("worker {pid}"));
        let reason = if model.reason.is_empty() { String::new() } else { format!(" ({})", model.reason) };
        let mib = worker.rss_bytes as f64 / f64::from(1 << 20);
        let (name, state, restarts) = (&model.name, &model.state, worker.restarts);
        line("model", format_args!("{name}: {state}{reason}, {pid}, {mib:.1} MiB, {restarts} restarts"));
        let weak = worker.sandbox.iter().filter(|(_, state)| *state != "enforced");
        let weak = weak.map(|(layer, state)| format!("{layer} {state}")).collect::<Vec<_>>();
        let weak = if weak.is_empty() { "every layer enforced".to_owned() } else { weak.join(", ") };
        line("sandbox", format_args!("{name}: {} layers; {weak}", worker.sandbox.len()));
    }
    text
}
