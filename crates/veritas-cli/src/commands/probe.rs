//! `live`, `ready`, `health`: probes for those who watch a daemon. They ask one question, wait briefly, and touch no model.

use std::io::Write;
use std::time::Duration;

use serde_json::{Value, json};
use veritas_ipc::Unary;
use veritas_ipc::blocking::Client;
use veritas_proto::v1;

use crate::commands::status::model_json;
use crate::daemon_args::ProbeArgs;
use crate::failure::Failure;
use crate::report;
use crate::screen::Screen;

/// `live`: the supervisor's loop turns.
pub(crate) fn live(args: &ProbeArgs) -> Result<(), Failure> {
    let reply = ask(args, &v1::LiveRequest {})?;
    answer(args, true, &json!({"live": true, "uptime_ms": reply.uptime_ms}), "live\n")
}

/// `ready`: every model serves, and there is room for a request.
pub(crate) fn ready(args: &ProbeArgs) -> Result<(), Failure> {
    let reply = ask(args, &v1::ReadyRequest {})?;
    let text = match reply.ready {
        true => "ready\n".to_owned(),
        false => format!("not ready: {}\n", reply.reasons.join("; ")),
    };
    answer(args, reply.ready, &json!({"ready": reply.ready, "reasons": reply.reasons}), &text)
}

/// `health`: everything that is looked at, one by one.
pub(crate) fn health(args: &ProbeArgs) -> Result<(), Failure> {
    let reply = ask(args, &v1::HealthRequest {})?;
    let mut text = format!("{}\n", if reply.healthy { "healthy" } else { "not healthy" });
    for check in &reply.checks {
        text.push_str(&format!(
            "{:4} {}: {}\n",
            if check.ok { "ok" } else { "FAIL" },
            check.name,
            check.detail
        ));
    }
    for model in &reply.models {
        for (layer, state) in model.worker.iter().flat_map(|worker| &worker.sandbox) {
            text.push_str(&format!("     sandbox of {}: {layer} {state}\n", model.name));
        }
    }
    let checks = reply.checks.iter();
    let checks = checks.map(|check| json!({"name": check.name, "ok": check.ok, "detail": check.detail}));
    let report = json!({
        "healthy": reply.healthy,
        "version": reply.version,
        "uptime_ms": reply.uptime_ms,
        "network": if reply.network_refused { "refused" } else { "open" },
        "checks": checks.collect::<Vec<_>>(),
        "models": reply.models.iter().map(model_json).collect::<Vec<_>>(),
    });
    answer(args, reply.healthy, &report, &text)
}

fn ask<R: Unary>(args: &ProbeArgs, request: &R) -> Result<R::Reply, Failure> {
    let options = args.daemon.options(Some(Duration::from_millis(args.timeout_ms)))?;
    Ok(Client::probe(&args.daemon.path(), &options, request)?)
}

fn answer(args: &ProbeArgs, yes: bool, json: &Value, text: &str) -> Result<(), Failure> {
    let mut stdout = Screen::stdout(false);
    if args.output.json {
        writeln!(stdout, "{}", report::line(json))?;
    } else if !args.output.quiet {
        stdout.write_all(text.as_bytes())?;
    }
    if yes { Ok(()) } else { Err(Failure::answered_no()) }
}
