//! The status as Prometheus reads it: text exposition format, version 0.0.4.

use std::fmt::Write as _;

use veritas_proto::v1;

use super::core::Core;

/// Writes one family of metrics.
struct Exposition {
    text: String,
}

impl Exposition {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a String does not fail.
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        let labels = labels.iter().map(|(key, value)| format!("{key}=\"{}\"", escaped(value)));
        let labels = labels.collect::<Vec<_>>().join(",");
        let labels = if labels.is_empty() { labels } else { format!("{{{labels}}}") };
        let _ = writeln!(self.text, "{name}{labels} {value}");
    }

    fn single(&mut self, name: &str, kind: &str, help: &str, value: f64) {
        self.family(name, kind, help);
        self.sample(name, &[], value);
    }
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// The metrics of a daemon.
pub(crate) fn text(status: &v1::StatusReply, core: &Core) -> String {
    let mut out = Exposition { text: String::new() };
    let requests = status.requests.unwrap_or_default();
    let tokens = status.tokens.unwrap_or_default();
    let kv = status.kv.unwrap_or_default();
    out.single(
        "veritas_uptime_seconds",
        "gauge",
        "Time since the daemon started.",
        status.uptime_ms as f64 / 1e3,
    );
    out.single(
        "veritas_network_refused",
        "gauge",
        "1 if the supervisor was seen to be refused an internet socket.",
        f64::from(u8::from(status.network_refused)),
    );
    out.single("veritas_sessions", "gauge", "Connections.", f64::from(status.sessions));
    out.single(
        "veritas_sessions_total",
        "counter",
        "Connections since the start.",
        core.counters.sessions_total as f64,
    );
    out.single(
        "veritas_handshakes_refused_total",
        "counter",
        "Handshakes refused, for the token or the protocol.",
        core.counters.handshakes_refused as f64,
    );
    out.single(
        "veritas_requests_running",
        "gauge",
        "Requests that a worker has in hand.",
        requests.running as f64,
    );
    out.single("veritas_requests_queued", "gauge", "Requests that wait.", requests.queued as f64);
    out.family("veritas_requests_total", "counter", "Requests by their end.");
    for (end, n) in
        [("finished", requests.finished), ("failed", requests.failed), ("rejected", requests.rejected)]
    {
        out.sample("veritas_requests_total", &[("end", end)], n as f64);
    }
    out.family("veritas_tokens_total", "counter", "Tokens by what was done with them.");
    for (what, n) in [("prompt", tokens.prompt), ("cached", tokens.cached), ("generated", tokens.generated)] {
        out.sample("veritas_tokens_total", &[("what", what)], n as f64);
    }
    out.single("veritas_kv_pages", "gauge", "Pages of the KV cache.", kv.pages_total as f64);
    out.single(
        "veritas_kv_pages_used",
        "gauge",
        "Pages of the KV cache that sequences hold.",
        kv.pages_used as f64,
    );
    out.single(
        "veritas_kv_pages_cached",
        "gauge",
        "Pages of the KV cache that hold prefixes which may be used again.",
        kv.pages_cached as f64,
    );
    out.single(
        "veritas_preemptions_total",
        "counter",
        "Times that a sequence lost its pages to another.",
        requests.preempted as f64,
    );
    let latencies = status.latency_ms.unwrap_or_default();
    for (name, help, quantiles) in [
        (
            "veritas_time_to_first_token_seconds",
            "From a request to its first token.",
            [latencies.ttft_p50, latencies.ttft_p99],
        ),
        (
            "veritas_time_per_token_seconds",
            "Between tokens of a stream.",
            [latencies.per_token_p50, latencies.per_token_p99],
        ),
    ] {
        out.family(name, "gauge", help);
        for (quantile, ms) in ["0.5", "0.99"].into_iter().zip(quantiles) {
            if let Some(ms) = ms {
                out.sample(name, &[("quantile", quantile)], ms / 1e3);
            }
        }
    }
    per_model(&mut out, status);
    out.text
}

fn per_model(out: &mut Exposition, status: &v1::StatusReply) {
    out.family("veritas_model_ready", "gauge", "1 if the model serves.");
    for model in &status.models {
        let ready = f64::from(u8::from(model.state == "ready"));
        out.sample("veritas_model_ready", &[("model", &model.name), ("state", &model.state)], ready);
    }
    out.family("veritas_worker_resident_bytes", "gauge", "Memory that a worker has resident.");
    for model in &status.models {
        let rss = model.worker.as_ref().map_or(0, |worker| worker.rss_bytes);
        out.sample("veritas_worker_resident_bytes", &[("model", &model.name)], rss as f64);
    }
    out.family("veritas_worker_restarts_total", "counter", "Workers that were lost.");
    for model in &status.models {
        let restarts = model.worker.as_ref().map_or(0, |worker| worker.restarts);
        out.sample("veritas_worker_restarts_total", &[("model", &model.name)], f64::from(restarts));
    }
    out.family(
        "veritas_sandbox_layer",
        "gauge",
        "1 if the worker observed the layer of its sandbox to be in force.",
    );
    for model in &status.models {
        for (layer, state) in model.worker.iter().flat_map(|worker| &worker.sandbox) {
            let enforced = f64::from(u8::from(state == "enforced"));
            let labels = [("model", model.name.as_str()), ("layer", layer), ("state", state)];
            out.sample("veritas_sandbox_layer", &labels, enforced);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_cannot_end_their_quotes() {
        let mut out = Exposition { text: String::new() };
        out.sample("x", &[("model", "a\"b\\c\nd")], 1.0);
        assert_eq!(out.text, "x{model=\"a\\\"b\\\\c\\nd\"} 1\n");
    }
}
