//! `bench`: the speed of prompts and of generation, and how much of the machine it uses.

use std::fmt::Write as _;
use std::io::Write;
use std::time::Instant;

use serde_json::{Value, json};
use veritas_runtime::host::rss_peak_bytes;
use veritas_runtime::jobs::{BenchJob, BenchRow, BenchTest, Job};
use veritas_runtime::{EngineSpec, available_threads, json_line, short_bytes, short_count};

use crate::args::{BenchArgs, TableFormat};
use crate::confined::{Working, launch};
use crate::failure::Failure;
use crate::load::open_model;
use crate::screen::Screen;
use crate::{interrupt, terminal};

pub(crate) fn run(args: &BenchArgs) -> Result<(), Failure> {
    interrupt::install()?;
    let job = job(args)?;
    let (n_runs, n_runs_of_test) = (job.n_runs(), job.n_runs_of_test());
    let policy = args.model.sandbox.policy()?;
    let start = Instant::now();
    let model = open_model(&args.model)?;
    let launch = launch(&model, &args.model.override_kv, Job::Bench(job), &policy);
    let working = Working::start(launch, args.output.verbose)?;
    let start_ms = start.elapsed().as_secs_f64() * 1e3;
    let bar = terminal::progress_bar(n_runs, "runs", args.output.quiet || args.output.json);
    let (pid, mut peaks) = (working.pid(), Vec::new());
    let rows = working.finish(&mut std::io::sink(), &mut |progress| {
        if progress.done.is_multiple_of(n_runs_of_test) {
            peaks.push(rss_peak_bytes(pid));
        }
        terminal::show(&bar, &progress);
    })?;
    bar.finish_and_clear();
    let mut rows: Vec<BenchRow> = serde_json::from_value(rows)?;
    for (row, peak) in rows.iter_mut().zip(peaks) {
        row.load_ms += start_ms;
        row.rss_peak_bytes = peak;
    }
    let rows = json!(rows);
    let mut stdout = Screen::stdout(false);
    if args.output.json || args.format == TableFormat::Json {
        writeln!(stdout, "{}", json_line(&rows))?;
    } else {
        stdout.write_all(table(rows.as_array().map_or(&[], Vec::as_slice)).as_bytes())?;
    }
    Ok(stdout.flush()?)
}

fn job(args: &BenchArgs) -> Result<BenchJob, Failure> {
    let engine = EngineSpec {
        isa: args.isa.clone(),
        cache_type_k: args.cache_type_k.clone(),
        cache_type_v: args.cache_type_v.clone(),
        ..EngineSpec::default()
    };
    engine.check()?;
    let tests = tests(args);
    if tests.is_empty() {
        return Err(Failure::usage("there is nothing to test: -p and -n are both 0"));
    }
    let threads = match args.threads[..] {
        [] => vec![available_threads()],
        ref threads => threads.iter().map(|&n| usize::from(n)).collect(),
    };
    Ok(BenchJob { tests, threads, repetitions: args.repetitions, engine })
}

fn tests(args: &BenchArgs) -> Vec<BenchTest> {
    let positive = |ns: &[u32]| ns.iter().filter(|&&n| n > 0).map(|&n| n as usize).collect::<Vec<_>>();
    let mut tests = positive(&args.n_prompt)
        .into_iter()
        .map(|n_tokens| BenchTest::Prompt { n_tokens })
        .collect::<Vec<_>>();
    for n_steps in positive(&args.n_gen) {
        for &depth in &args.depth {
            for &n_sequences in &args.batch {
                let (depth, n_sequences) = (depth as usize, n_sequences as usize);
                tests.push(BenchTest::Generation { n_steps, depth, n_sequences });
            }
        }
    }
    tests
}

/// The table in the layout of llama-bench, with two columns more.
fn table(reports: &[Value]) -> String {
    const HEAD: [&str; 9] =
        ["model", "size", "params", "isa", "threads", "test", "t/s", "bandwidth", "arithmetic"];
    let percent = |share: &Value| format!("{:.1} %", share.as_f64().unwrap_or(0.0) * 100.0);
    let text = |value: &Value| value.as_str().unwrap_or_default().replace('|', "\\|");
    let number = |value: &Value| value.as_f64().unwrap_or(0.0);
    let rows = reports.iter().map(|report| {
        [
            text(&report["model"]),
            short_bytes(report["model_bytes"].as_u64().unwrap_or(0)),
            short_count(report["n_params"].as_u64().unwrap_or(0)),
            text(&report["isa"]),
            report["threads"].to_string(),
            text(&report["test"]),
            format!("{:.2} ± {:.2}", number(&report["t_s_mean"]), number(&report["t_s_stddev"])),
            percent(&report["bandwidth_share"]),
            percent(&report["arithmetic_share"]),
        ]
    });
    let rows = rows.collect::<Vec<_>>();
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([HEAD[column].len()]).max().unwrap_or(0)
    };
    let widths: [usize; 9] = std::array::from_fn(width);
    // Names on the left, numbers on the right.
    let is_name = |column: usize| matches!(column, 0 | 3 | 5);
    let mut out = String::new();
    let mut line = |cell: &dyn Fn(usize) -> String| {
        for (column, &width) in widths.iter().enumerate() {
            let cell = cell(column);
            let _ = if is_name(column) {
                write!(out, "| {cell:width$} ")
            } else {
                write!(out, "| {cell:>width$} ")
            };
        }
        out.push_str("|\n");
    };
    line(&|column| HEAD[column].to_owned());
    line(&|column| {
        let dashes = "-".repeat(widths[column] - 1);
        if is_name(column) { format!("{dashes}-") } else { format!("{dashes}:") }
    });
    for row in &rows {
        line(&|column| row[column].clone());
    }
    out
}
