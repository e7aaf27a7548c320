//! The order of the measurement: calibrate, then both variants in turns.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use serde::Serialize;

use crate::cpu_time;
use crate::daemon::Daemon;
use crate::in_process::InProcess;
use crate::report;
use crate::statistics::{median, percentile};
use crate::workload::{self, CLIENTS_MAX, Figures, N_NEW};

/// Clients that stream together.
const CLIENTS: [usize; 3] = [1, 16, CLIENTS_MAX];
/// Fewer rounds have no median worth the name.
const ROUNDS_MIN: u32 = 5;
/// Round trips that are timed in each round.
const N_ROUND_TRIPS: usize = 20_000;
/// Round trips before those.
const N_ROUND_TRIPS_WARM_UP: usize = 2_000;
/// How long one variant streams in one round at least, so that one disturbance is not the round.
const ROUND_MIN: Duration = Duration::from_secs(1);
/// Pages of the KV cache: what every client's tokens need, four times over (a page has 16 tokens, a client about 80).
const N_PAGES: u32 = 4 * 5 * CLIENTS_MAX as u32;

/// Measures what the daemon, its sandbox and its socket cost over the engine in the same process.
///
/// It takes a minute on a small model. Nothing else should run on the machine.
#[derive(Debug, Parser)]
#[command(name = "path", version)]
pub(crate) struct Args {
    /// The program whose daemon is measured.
    #[arg(long, value_name = "FILE", default_value = "target/release/veritas-sdr")]
    binary: PathBuf,
    /// The model that both variants run.
    #[arg(long, value_name = "FILE", default_value = "tools/demo-model/veritas-demo.gguf")]
    model: PathBuf,
    /// Threads that compute; by default one per processor.
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Turns that both variants have.
    #[arg(long, value_name = "N", default_value_t = ROUNDS_MIN, value_parser = clap::value_parser!(u32).range(i64::from(ROUNDS_MIN)..=1000))]
    rounds: u32,
    /// Print JSON, with the figures of every round, instead of a table.
    #[arg(long)]
    json: bool,
}

/// Everything that was measured, and where.
#[derive(Debug, Serialize)]
pub(crate) struct Measured {
    pub(crate) machine: Machine,
    pub(crate) model: String,
    pub(crate) n_threads: usize,
    pub(crate) n_rounds: u32,
    pub(crate) round_trip_p50_us: f64,
    pub(crate) round_trip_p99_us: f64,
    pub(crate) streams: Vec<Stream>,
    pub(crate) cpu: Cpu,
}

/// The machine, and how busy it was with other things.
#[derive(Debug, Serialize)]
pub(crate) struct Machine {
    pub(crate) cpu_model: String,
    pub(crate) n_cpus: usize,
    /// Load of the last minute when the measurement began.
    pub(crate) load_before: String,
}

/// One number of clients.
#[derive(Debug, Serialize)]
pub(crate) struct Stream {
    pub(crate) n_clients: usize,
    /// Waves that each variant ran in each round.
    pub(crate) n_waves: usize,
    pub(crate) rounds: Vec<Round>,
    pub(crate) supervisor: Cpu,
}

/// Both variants, one after the other.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Round {
    pub(crate) in_process: Figures,
    pub(crate) daemon: Figures,
}

/// Processor time of the supervisor while tokens were streamed.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct Cpu {
    pub(crate) cpu_us: f64,
    pub(crate) n_tokens: usize,
    /// How far `cpu_us` may be off at most.
    pub(crate) uncertainty_us: f64,
}

impl Stream {
    /// Medians over the rounds: of the engine in process, of the daemon, and of the difference in a round.
    ///
    /// # Errors
    /// If there was no round.
    pub(crate) fn medians(&self, figure: fn(&Figures) -> f64) -> Result<(f64, f64, f64)> {
        let of =
            |value: &dyn Fn(&Round) -> f64| median(&mut self.rounds.iter().map(value).collect::<Vec<_>>());
        Ok((
            of(&|round: &Round| figure(&round.in_process))?,
            of(&|round: &Round| figure(&round.daemon))?,
            of(&|round: &Round| figure(&round.daemon) - figure(&round.in_process))?,
        ))
    }

    /// Median over the rounds of the tokens per second that the daemon loses, in per cent.
    ///
    /// # Errors
    /// If there was no round.
    pub(crate) fn loss_percent(&self) -> Result<f64> {
        let loss = |round: &Round| 100.0 * (1.0 - round.daemon.tokens_per_s / round.in_process.tokens_per_s);
        median(&mut self.rounds.iter().map(loss).collect::<Vec<_>>())
    }
}

/// Measures, and gives what is to be printed.
///
/// # Errors
/// Whatever fails.
pub(crate) fn run(args: &Args) -> Result<String> {
    let measured = measure(args)?;
    if args.json {
        return Ok(serde_json::to_string_pretty(&measured)? + "\n");
    }
    report::markdown(&measured)
}

fn measure(args: &Args) -> Result<Measured> {
    let machine = machine()?;
    let n_threads = args.threads.unwrap_or(machine.n_cpus);
    let mut engine = InProcess::load(&args.model, n_threads, N_PAGES)?;
    let prompts = workload::prompts(engine.model().tokenizer())?;
    let daemon = Daemon::start(&args.binary, &args.model, n_threads, N_PAGES)?;
    let mut streams = Vec::new();
    for n_clients in CLIENTS {
        let n_waves = calibrate(&mut engine, &daemon, &prompts[..n_clients])?;
        streams.push(Stream { n_clients, n_waves, rounds: Vec::new(), supervisor: Cpu::default() });
    }
    let (mut p50s, mut p99s) = (Vec::new(), Vec::new());
    for _ in 0..args.rounds {
        let mut times = daemon.round_trips_us(N_ROUND_TRIPS_WARM_UP, N_ROUND_TRIPS)?;
        p50s.push(percentile(&mut times, 0.5)?);
        p99s.push(percentile(&mut times, 0.99)?);
        for stream in &mut streams {
            round(&mut engine, &daemon, &prompts[..stream.n_clients], stream)?;
        }
    }
    daemon.stop()?;
    // The kernel rounds user and system time each, and each difference of them is off by less than a step.
    let step_us = workload::micros(cpu_time::resolution()?);
    let mut cpu = Cpu::default();
    for stream in &mut streams {
        stream.supervisor.uncertainty_us = 2.0 * step_us * f64::from(args.rounds);
        cpu.uncertainty_us += stream.supervisor.uncertainty_us;
        cpu.cpu_us += stream.supervisor.cpu_us;
        cpu.n_tokens += stream.supervisor.n_tokens;
    }
    Ok(Measured {
        machine,
        model: args.model.display().to_string(),
        n_threads,
        n_rounds: args.rounds,
        round_trip_p50_us: median(&mut p50s)?,
        round_trip_p99_us: median(&mut p99s)?,
        streams,
        cpu,
    })
}

/// Runs both variants once to warm them up, and says how many waves make a round.
fn calibrate(engine: &mut InProcess, daemon: &Daemon, prompts: &[String]) -> Result<usize> {
    engine.run(prompts, 1)?;
    daemon.run(prompts, 1)?;
    let wave = engine.run(prompts, 1)?.elapsed();
    ensure!(!wave.is_zero(), "{N_NEW} tokens took no time");
    Ok((ROUND_MIN.as_secs_f64() / wave.as_secs_f64()).ceil() as usize)
}

fn round(engine: &mut InProcess, daemon: &Daemon, prompts: &[String], stream: &mut Stream) -> Result<()> {
    let in_process = engine.run(prompts, stream.n_waves)?;
    let before = cpu_time::of(daemon.pid())?;
    let seen = daemon.run(prompts, stream.n_waves)?;
    let after = cpu_time::of(daemon.pid())?;
    ensure!(seen.ids() == in_process.ids(), "the daemon's answers are not those of the engine");
    stream.supervisor.cpu_us += workload::micros(after.saturating_sub(before));
    stream.supervisor.n_tokens += seen.n_tokens();
    stream.rounds.push(Round { in_process: in_process.figures()?, daemon: seen.figures()? });
    Ok(())
}

fn machine() -> Result<Machine> {
    let cpus = read(Path::new("/proc/cpuinfo"))?;
    // Some architectures name no model there.
    let cpu_model = cpus
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(key, _)| key.trim() == "model name")
        .map_or_else(|| std::env::consts::ARCH.to_owned(), |(_, model)| model.trim().to_owned());
    let n_cpus = std::thread::available_parallelism().context("cannot count the processors")?.get();
    let load = read(Path::new("/proc/loadavg"))?;
    let load_before = load.split(' ').next().unwrap_or_default().to_owned();
    Ok(Machine { cpu_model, n_cpus, load_before })
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}
