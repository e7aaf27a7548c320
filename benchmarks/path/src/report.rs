//! The figures as a Markdown table, each beside its target.

use std::fmt::Write;

use anyhow::Result;

use crate::measure::{Measured, Stream};
use crate::workload::Figures;

/// Microseconds that an empty request may take there and back, at the median.
const ROUND_TRIP_P50_US_MAX: f64 = 60.0;
/// The same for all but one in a hundred.
const ROUND_TRIP_P99_US_MAX: f64 = 150.0;
/// Microseconds that the path may add between two tokens, at the median.
const TOKEN_US_MAX: f64 = 60.0;
/// Per cent of the tokens per second that the path may cost.
const LOSS_PERCENT_MAX: f64 = 1.0;
/// Microseconds of processor time that a token may cost: what the supervisor spends, and what the worker adds.
const CPU_US_MAX: f64 = 15.0;

/// The report.
///
/// # Errors
/// If nothing was measured.
pub(crate) fn markdown(measured: &Measured) -> Result<String> {
    let machine = &measured.machine;
    let mut text = String::new();
    writeln!(
        text,
        "{}, {} processors, load {} before.",
        machine.cpu_model, machine.n_cpus, machine.load_before
    )?;
    writeln!(
        text,
        "Model {}, {} threads, {} tokens an answer, medians of {} rounds.\n",
        measured.model, measured.n_threads, measured.n_tokens, measured.n_rounds
    )?;
    text.push_str(
        "| Figure | In process | Daemon | Difference | Target | Met |\n|---|---:|---:|---:|---:|---|\n",
    );
    for (name, value, limit) in [
        ("Empty request, p50 (µs)", measured.round_trip_p50_us, ROUND_TRIP_P50_US_MAX),
        ("Empty request, p99 (µs)", measured.round_trip_p99_us, ROUND_TRIP_P99_US_MAX),
    ] {
        writeln!(text, "| {name} | | {value:.1} | | < {limit} | {} |", yes(value < limit))?;
    }
    for stream in &measured.streams {
        push_stream(&mut text, stream)?;
        push_costs(&mut text, stream)?;
    }
    text.push_str("\nThe target for tokens/s holds for a model of the shape of Qwen2.5-0.5B.\n");
    Ok(text)
}

/// A row: its name, what it shows of the figures, and the most that it may be.
type Row = (&'static str, fn(&Figures) -> f64, Option<f64>);

fn push_stream(text: &mut String, stream: &Stream) -> Result<()> {
    let who = clients(stream.n_clients);
    let rows: [Row; 4] = [
        ("time to first token, p50 (µs)", |f| f.ttft_p50_us, None),
        ("time to first token, p99 (µs)", |f| f.ttft_p99_us, None),
        ("time between tokens, p50 (µs)", |f| f.gap_p50_us, Some(TOKEN_US_MAX)),
        ("time between tokens, p99 (µs)", |f| f.gap_p99_us, None),
    ];
    for (name, figure, limit) in rows {
        let (engine, daemon, difference) = stream.medians(figure)?;
        let target = limit.map_or_else(String::new, |limit| format!("≤ +{limit}"));
        let met = limit.map_or("", |limit| yes(difference <= limit));
        writeln!(
            text,
            "| {who}: {name} | {engine:.1} | {daemon:.1} | {difference:+.1} | {target} | {met} |"
        )?;
    }
    let (engine, daemon, _) = stream.medians(|f| f.tokens_per_s)?;
    let loss = stream.loss_percent()?;
    writeln!(
        text,
        "| {who}: tokens/s | {engine:.1} | {daemon:.1} | {:+.2} % | ≥ −{LOSS_PERCENT_MAX} % | {} |",
        -loss,
        yes(loss <= LOSS_PERCENT_MAX)
    )?;
    Ok(())
}

/// Rows of what has no counterpart in process.
fn push_costs(text: &mut String, stream: &Stream) -> Result<()> {
    let who = clients(stream.n_clients);
    for (name, value) in [
        ("empty request meanwhile, p50 (µs)", stream.median_of(|round| round.round_trip_p50_us)?),
        ("empty request meanwhile, p99 (µs)", stream.median_of(|round| round.round_trip_p99_us)?),
        ("processor time of a token, supervisor (µs)", stream.median_of(|round| round.cpu.supervisor_us)?),
    ] {
        writeln!(text, "| {who}: {name} | | {value:.1} | | | |")?;
    }
    let in_process = stream.median_of(|round| round.cpu.in_process_us)?;
    let worker = stream.median_of(|round| round.cpu.worker_us)?;
    let adds = stream.median_of(|round| round.cpu.worker_adds_us())?;
    writeln!(
        text,
        "| {who}: processor time of a token, worker (µs) | {in_process:.1} | {worker:.1} | {adds:+.1} | | |"
    )?;
    let cost = stream.median_of(|round| round.cpu.supervisor_us + round.cpu.worker_adds_us())?;
    writeln!(
        text,
        "| {who}: processor time of a token, added (µs) | | | {cost:+.1} | ≤ +{CPU_US_MAX} | {} |",
        yes(cost <= CPU_US_MAX)
    )?;
    Ok(())
}

fn clients(n: usize) -> String {
    if n == 1 { "1 client".to_owned() } else { format!("{n} clients") }
}

fn yes(met: bool) -> &'static str {
    if met { "yes" } else { "no" }
}
