//! The order of the measurement: calibrate, then both variants in turns.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use serde::Serialize;

use crate::cpu_time::{self, Threads};
use crate::daemon::Daemon;
use crate::in_process::InProcess;
use crate::report;
use crate::statistics::{median, percentile};
use crate::workload::{self, CLIENTS_MAX, Figures};

/// Fewer rounds have no median worth the name.
const ROUNDS_MIN: u32 = 5;
/// Round trips that are timed in each round.
const N_ROUND_TRIPS: usize = 20_000;
/// Round trips before those.
const N_ROUND_TRIPS_WARM_UP: usize = 2_000;
/// How long one variant streams in one round at least, so that one disturbance is not the round.
const ROUND_MIN: Duration = Duration::from_secs(1);
/// Positions of a page of the KV cache.
const PAGE_TOKENS: u32 = 16;
/// Tokens that a prompt has at most, amply.
const N_PROMPT_MAX: u32 = 32;

/// Measures what the daemon, its sandbox and its socket cost over the engine in the same process.
///
/// It takes a minute on a small model. Nothing else should run on the machine. On a model that takes long, measure one
/// number of clients after the other, and with 64 clients fewer tokens.
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
    /// Clients that stream together.
    #[arg(long, value_name = "N,…", default_value = "1,16,64", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=CLIENTS_MAX as i64))]
    clients: Vec<u32>,
    /// Tokens of each answer.
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(2..=1024))]
    tokens: u32,
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
    pub(crate) n_tokens: u32,
    pub(crate) n_rounds: u32,
    pub(crate) round_trip_p50_us: f64,
    pub(crate) round_trip_p99_us: f64,
    pub(crate) streams: Vec<Stream>,
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
}

/// Both variants, one after the other.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Round {
    pub(crate) in_process: Figures,
    pub(crate) daemon: Figures,
    /// Round trips of an empty request while the clients stream.
    pub(crate) round_trip_p50_us: f64,
    pub(crate) round_trip_p99_us: f64,
    pub(crate) cpu: CpuPerToken,
}

/// Processor time, in microseconds for a token.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct CpuPerToken {
    pub(crate) in_process_us: f64,
    pub(crate) supervisor_us: f64,
    pub(crate) worker_us: f64,
}

impl CpuPerToken {
    /// What the worker spends beyond the engine in process.
    pub(crate) fn worker_adds_us(&self) -> f64 {
        self.worker_us - self.in_process_us
    }
}

impl Stream {
    /// Medians over the rounds: of the engine in process, of the daemon, and of the difference in a round.
    ///
    /// # Errors
    /// If there was no round.
    pub(crate) fn medians(&self, figure: fn(&Figures) -> f64) -> Result<(f64, f64, f64)> {
        Ok((
            self.median_of(|round| figure(&round.in_process))?,
            self.median_of(|round| figure(&round.daemon))?,
            self.median_of(|round| figure(&round.daemon) - figure(&round.in_process))?,
        ))
    }

    /// Median over the rounds of one value of a round.
    ///
    /// # Errors
    /// If there was no round.
    pub(crate) fn median_of(&self, value: impl Fn(&Round) -> f64) -> Result<f64> {
        median(&mut self.rounds.iter().map(value).collect::<Vec<_>>())
    }

    /// Median over the rounds of the tokens per second that the daemon loses, in per cent.
    ///
    /// # Errors
    /// If there was no round.
    pub(crate) fn loss_percent(&self) -> Result<f64> {
        self.median_of(|round| 100.0 * (1.0 - round.daemon.tokens_per_s / round.in_process.tokens_per_s))
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
    let n_tokens = args.tokens;
    let n_pages = CLIENTS_MAX as u32 * (N_PROMPT_MAX + n_tokens).div_ceil(PAGE_TOKENS);
    let mut engine = InProcess::load(&args.model, n_threads, n_pages, n_tokens)?;
    let prompts = workload::prompts(engine.model().tokenizer())?;
    let daemon = Daemon::start(&args.binary, &args.model, n_threads, n_pages, n_tokens)?;
    let mut streams = Vec::new();
    for &n_clients in &args.clients {
        let n_clients = n_clients as usize;
        let n_waves = calibrate(&mut engine, &daemon, &prompts[..n_clients])?;
        streams.push(Stream { n_clients, n_waves, rounds: Vec::new() });
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
    Ok(Measured {
        machine,
        model: args.model.display().to_string(),
        n_threads,
        n_tokens,
        n_rounds: args.rounds,
        round_trip_p50_us: median(&mut p50s)?,
        round_trip_p99_us: median(&mut p99s)?,
        streams,
    })
}

/// Runs both variants once to warm them up, and says how many waves make a round.
fn calibrate(engine: &mut InProcess, daemon: &Daemon, prompts: &[String]) -> Result<usize> {
    engine.run(prompts, 1)?;
    daemon.run(daemon.clients(prompts.len())?, prompts, 1)?;
    let wave = engine.run(prompts, 1)?.elapsed();
    ensure!(!wave.is_zero(), "a wave took no time");
    Ok((ROUND_MIN.as_secs_f64() / wave.as_secs_f64()).ceil() as usize)
}

fn round(engine: &mut InProcess, daemon: &Daemon, prompts: &[String], stream: &mut Stream) -> Result<()> {
    let before = cpu_time::own()?;
    let in_process = engine.run(prompts, stream.n_waves)?;
    let in_process_cpu = cpu_time::own()?.since(&before);
    let (supervisor, worker) = (daemon.pid(), daemon.worker_pid()?);
    let clients = daemon.clients(prompts.len())?;
    let before = (Threads::of(supervisor)?, Threads::of(worker)?);
    let seen = daemon.run(clients, prompts, stream.n_waves)?;
    let after = (Threads::of(supervisor)?, Threads::of(worker)?);
    ensure!(seen.ids() == in_process.ids(), "the daemon's answers are not those of the engine");
    let per_token = |cpu: Duration| workload::micros(cpu) / seen.n_tokens() as f64;
    let cpu = CpuPerToken {
        in_process_us: per_token(in_process_cpu),
        supervisor_us: per_token(after.0.since(&before.0)),
        worker_us: per_token(after.1.since(&before.1)),
    };
    let mut times = daemon.round_trips_meanwhile_us(prompts, stream.n_waves)?;
    stream.rounds.push(Round {
        in_process: in_process.figures()?,
        daemon: seen.figures()?,
        round_trip_p50_us: percentile(&mut times, 0.5)?,
        round_trip_p99_us: percentile(&mut times, 0.99)?,
        cpu,
    });
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
