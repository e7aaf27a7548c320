//! `bench`: the speed of prompts and of generation, and how much of the machine it uses.
//!
//! Weights are read and multiplied; tokens are fixed pseudo-random ids and nothing is sampled. The machine's limits are
//! measured after the tests, in the same process and with as many threads, so that their buffers do not count as memory
//! of the model.

use std::collections::{BTreeMap, HashSet};
use std::fmt::Write as _;
use std::io::Write;
use std::sync::Arc;
use std::time::Instant;

use serde_json::{Value, json};
use veritas_base::TokenId;
use veritas_engine::{
    CacheTypes, DEFAULT_CHUNK_TOKENS, Drawn, LogitsRow, Model, Runner, RunnerConfig, SequenceSpec,
};
use veritas_kernels::{Kernels, KvLayout, PAGE_TOKENS, Team, limits};
use veritas_model::{Mixer, Plan};
use veritas_quant::GgmlType;

use crate::args::{BenchArgs, TableFormat, parse_isa};
use crate::commands::inspect::{short_bytes, short_count};
use crate::failure::{Code, Failure};
use crate::load::open_files;
use crate::{interrupt, terminal};

/// The smallest and the largest buffer that the read bandwidth is measured with. The largest is beyond every cache.
const BANDWIDTH_BYTES: (u64, u64) = (1 << 20, 1 << 30);

/// One test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Test {
    Prompt { n_tokens: usize },
    Generation { n_steps: usize, depth: usize, n_sequences: usize },
}

impl Test {
    fn name(self) -> String {
        match self {
            Self::Prompt { n_tokens } => format!("pp{n_tokens}"),
            Self::Generation { n_steps, depth, n_sequences } => {
                let depth = if depth > 0 { format!("@d{depth}") } else { String::new() };
                let batch = if n_sequences > 1 { format!("*b{n_sequences}") } else { String::new() };
                format!("tg{n_steps}{depth}{batch}")
            }
        }
    }

    /// Tokens whose speed is counted.
    fn n_tokens(self) -> usize {
        match self {
            Self::Prompt { n_tokens } => n_tokens,
            Self::Generation { n_steps, n_sequences, .. } => n_steps * n_sequences,
        }
    }

    fn n_steps(self) -> usize {
        match self {
            Self::Prompt { n_tokens } => n_tokens.div_ceil(DEFAULT_CHUNK_TOKENS),
            Self::Generation { n_steps, .. } => n_steps,
        }
    }

    fn n_sequences(self) -> usize {
        match self {
            Self::Prompt { .. } => 1,
            Self::Generation { n_sequences, .. } => n_sequences,
        }
    }

    /// Positions that a sequence needs.
    fn n_context(self) -> usize {
        match self {
            Self::Prompt { n_tokens } => n_tokens,
            // The last step draws one token that is not computed any more.
            Self::Generation { n_steps, depth, .. } => depth + n_steps + 1 + self.n_early(),
        }
    }

    /// Tokens that a sequence may generate while the prompts of the others are computed.
    fn n_early(self) -> usize {
        match self {
            Self::Generation { depth, n_sequences, .. } if depth > 0 && n_sequences > 1 => {
                // Each step has room for a chunk but the tokens of those that generate; n_sequences is at most 256.
                (depth * n_sequences).div_ceil(DEFAULT_CHUNK_TOKENS - n_sequences) + n_sequences
            }
            _ => 0,
        }
    }
}

/// What one test gave.
struct Row {
    test: Test,
    n_threads: usize,
    /// Tokens per second of each repetition.
    speeds: Vec<f64>,
    load_ms: f64,
    rss_peak_bytes: Option<u64>,
}

impl Row {
    fn mean(&self) -> f64 {
        self.speeds.iter().sum::<f64>() / self.speeds.len() as f64
    }

    /// Standard deviation of the repetitions; 0 for one alone.
    fn stddev(&self) -> f64 {
        let mean = self.mean();
        let squares = self.speeds.iter().map(|speed| (speed - mean) * (speed - mean)).sum::<f64>();
        (squares / (self.speeds.len().max(2) - 1) as f64).sqrt()
    }
}

pub(crate) fn run(args: &BenchArgs) -> Result<(), Failure> {
    interrupt::install()?;
    let isa = parse_isa(&args.isa)?;
    let start = Instant::now();
    let model = Arc::new(Model::new(open_files(&args.model)?)?);
    let model_ms = start.elapsed().as_secs_f64() * 1e3;
    let tests = tests(args);
    check_context(&tests, model.plan().n_context)?;
    let threads = match args.threads[..] {
        [] => vec![std::thread::available_parallelism().map_or(1, usize::from)],
        ref threads => threads.iter().map(|&n| usize::from(n)).collect(),
    };
    let cache_types = CacheTypes { key: args.cache_type_k, value: args.cache_type_v };
    let is_quiet = args.output.quiet || args.output.json;
    let n_runs = (threads.len() * tests.len()) as u64 * u64::from(args.repetitions + 1);
    let bar = terminal::progress_bar(n_runs, "runs", is_quiet);
    let mut rows = Vec::new();
    for &n_threads in &threads {
        for &test in &tests {
            let start = Instant::now();
            let config = RunnerConfig {
                isa,
                n_threads,
                n_context: Some(test.n_context()),
                n_sequences: test.n_sequences(),
                chunk_tokens: DEFAULT_CHUNK_TOKENS,
                cache_types,
                ..RunnerConfig::default()
            };
            let mut bench = Bench { runner: Runner::new(Arc::clone(&model), &config)?, state: 0 };
            let load_ms = model_ms + start.elapsed().as_secs_f64() * 1e3;
            bar.set_message(test.name());
            let mut speeds = Vec::new();
            // The first run warms up: pages, caches, clocks.
            for run in 0..=args.repetitions {
                let seconds = bench.seconds(test)?;
                if run > 0 {
                    speeds.push(test.n_tokens() as f64 / seconds);
                }
                bar.inc(1);
            }
            rows.push(Row { test, n_threads, speeds, load_ms, rss_peak_bytes: rss_peak_bytes() });
        }
    }
    bar.finish_and_clear();
    let mut machine =
        Machine { kernels: Kernels::new(isa).map_err(veritas_engine::Error::from)?, limits: BTreeMap::new() };
    let load = Load::of(&model, cache_types);
    let reports = rows.iter().map(|row| report(args, &model, row, &load, &mut machine)).collect::<Vec<_>>();
    let mut stdout = std::io::stdout().lock();
    if args.output.json || args.format == TableFormat::Json {
        writeln!(stdout, "{}", Value::Array(reports))?;
    } else {
        stdout.write_all(table(&reports).as_bytes())?;
    }
    Ok(stdout.flush()?)
}

fn tests(args: &BenchArgs) -> Vec<Test> {
    let positive = |ns: &[u32]| ns.iter().filter(|&&n| n > 0).map(|&n| n as usize).collect::<Vec<_>>();
    let mut tests =
        positive(&args.n_prompt).into_iter().map(|n_tokens| Test::Prompt { n_tokens }).collect::<Vec<_>>();
    for n_steps in positive(&args.n_gen) {
        for &depth in &args.depth {
            for &n_sequences in &args.batch {
                let (depth, n_sequences) = (depth as usize, n_sequences as usize);
                tests.push(Test::Generation { n_steps, depth, n_sequences });
            }
        }
    }
    tests
}

fn check_context(tests: &[Test], n_context: usize) -> Result<(), Failure> {
    if tests.is_empty() {
        return Err(Failure::usage("there is nothing to test: -p and -n are both 0"));
    }
    match tests.iter().find(|test| test.n_context() > n_context) {
        None => Ok(()),
        Some(test) => {
            let (name, needed) = (test.name(), test.n_context());
            let message =
                format!("{name} needs {needed} positions, but the context of the model has {n_context}");
            Err(Failure::new(Code::ContextExceeded, message).hint("choose smaller -p, -n or -d"))
        }
    }
}

struct Bench {
    runner: Runner,
    /// State of the pseudo-random tokens.
    state: u64,
}

impl Bench {
    /// Runs a test once.
    fn seconds(&mut self, test: Test) -> Result<f64, Failure> {
        match test {
            Test::Prompt { n_tokens } => self.prompt(n_tokens),
            Test::Generation { n_steps, depth, n_sequences } => {
                self.generation(n_steps, depth, n_sequences, test.n_early())
            }
        }
    }

    fn prompt(&mut self, n_tokens: usize) -> Result<f64, Failure> {
        let spec = SequenceSpec { prompt: self.tokens(n_tokens), n_new_max: 0, same_prompt_as: None };
        self.runner.add(spec, false)?;
        let start = Instant::now();
        while !self.runner.is_idle() {
            self.step(&mut HashSet::new())?;
        }
        Ok(start.elapsed().as_secs_f64())
    }

    fn generation(
        &mut self,
        n_steps: usize,
        depth: usize,
        n_sequences: usize,
        n_early: usize,
    ) -> Result<f64, Failure> {
        let mut sequences = Vec::new();
        for _ in 0..n_sequences {
            // Without a depth the only token of the prompt is that of the first step.
            let prompt = self.tokens(depth.max(1));
            let spec = SequenceSpec { prompt, n_new_max: n_steps + 1 + n_early, same_prompt_as: None };
            sequences.push(self.runner.add(spec, false)?);
        }
        if depth > 0 {
            // Until every sequence has drawn in the same step: from then on, each step computes a token of each.
            let mut drew = HashSet::new();
            while drew.len() < n_sequences {
                drew.clear();
                self.step(&mut drew)?;
            }
        }
        let start = Instant::now();
        for _ in 0..n_steps {
            let mut drew = HashSet::new();
            self.step(&mut drew)?;
            if drew.len() != n_sequences {
                return Err(Failure::new(Code::Internal, "a sequence of the benchmark ended too early"));
            }
        }
        let seconds = start.elapsed().as_secs_f64();
        for sequence in sequences {
            self.runner.cancel(sequence);
        }
        Ok(seconds)
    }

    /// One step; `drew` gets the sequences that a token was drawn for.
    fn step(&mut self, drew: &mut HashSet<veritas_engine::SequenceId>) -> Result<(), Failure> {
        if interrupt::requested() {
            return Err(Failure::new(Code::Cancelled, "interrupted"));
        }
        let n_vocab = self.runner.model().plan().n_vocab;
        let state = &mut self.state;
        self.runner.step(&mut |row: LogitsRow<'_>| {
            Ok(row.samples.then(|| {
                drew.insert(row.sequence);
                Drawn { token: next_token(state, n_vocab), stop: false }
            }))
        })?;
        Ok(())
    }

    fn tokens(&mut self, n: usize) -> Vec<TokenId> {
        let n_vocab = self.runner.model().plan().n_vocab;
        (0..n).map(|_| next_token(&mut self.state, n_vocab)).collect()
    }
}

/// SplitMix64: the same tokens in every run, spread over the vocabulary.
fn next_token(state: &mut u64, n_vocab: usize) -> TokenId {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z ^ (z >> 31)) % n_vocab as u64) as TokenId
}

/// What a step of the model reads and multiplies.
struct Load {
    weight_bytes: u64,
    weight_params: u64,
    /// Of the output matrix, which steps that give no logits leave out.
    head_bytes: u64,
    head_params: u64,
    layers: Vec<LayerCache>,
    /// Whether most weights are multiplied as 8-bit integers.
    is_quantized: bool,
}

struct LayerCache {
    bytes_per_position: u64,
    window: Option<usize>,
}

impl Load {
    fn of(model: &Model, cache_types: CacheTypes) -> Self {
        let plan = model.plan();
        let head = &plan.head.output.weight;
        Self {
            weight_bytes: model.bytes_per_token(),
            weight_params: model.multiplied_params(),
            head_bytes: head.bytes(),
            head_params: head.rows as u64 * head.cols as u64,
            layers: layer_caches(plan, cache_types),
            is_quantized: is_quantized(model),
        }
    }

    /// Operations of a whole test.
    fn operations(&self, test: Test) -> f64 {
        let params = match test {
            Test::Prompt { .. } => self.weight_params.saturating_sub(self.head_params),
            Test::Generation { .. } => self.weight_params,
        };
        2.0 * params as f64 * test.n_tokens() as f64
    }

    /// Bytes that a whole test reads.
    fn bytes(&self, test: Test) -> f64 {
        match test {
            Test::Prompt { n_tokens } => {
                let weights =
                    self.weight_bytes.saturating_sub(self.head_bytes) as f64 * test.n_steps() as f64;
                let ends = (0..test.n_steps()).map(|step| n_tokens.min((step + 1) * DEFAULT_CHUNK_TOKENS));
                weights + ends.map(|end| self.cache_bytes(end, DEFAULT_CHUNK_TOKENS)).sum::<f64>()
            }
            Test::Generation { n_steps, depth, n_sequences } => {
                let weights = self.weight_bytes as f64 * n_steps as f64;
                let steps = (0..n_steps).map(|step| self.cache_bytes(depth + step + 1, 1));
                weights + steps.sum::<f64>() * n_sequences as f64
            }
        }
    }

    /// Bytes of the cache that a step reads whose last position is `end - 1` and that computes `n_rows` positions.
    fn cache_bytes(&self, end: usize, n_rows: usize) -> f64 {
        let layer = |layer: &LayerCache| {
            let n_positions = layer.window.map_or(end, |window| end.min(window + n_rows - 1));
            layer.bytes_per_position as f64 * n_positions as f64
        };
        self.layers.iter().map(layer).sum()
    }
}

fn layer_caches(plan: &Plan, cache_types: CacheTypes) -> Vec<LayerCache> {
    let attention = plan.layers.iter().filter_map(|layer| match &layer.mixer {
        Mixer::Attention(attention) => Some(attention),
        Mixer::Latent(_) | Mixer::Recurrent(_) => None,
    });
    let cache = attention.map(|attention| {
        let layout = KvLayout {
            n_kv_heads: attention.n_kv_heads,
            head_dim_k: attention.head_dim_k,
            head_dim_v: attention.head_dim_v,
            k_type: cache_types.key,
            v_type: cache_types.value,
        };
        let bytes_per_position = layout.page_bytes() as u64 / PAGE_TOKENS as u64;
        LayerCache { bytes_per_position, window: attention.window }
    });
    cache.collect()
}

/// Whether the type of most weights is multiplied by integer products.
fn is_quantized(model: &Model) -> bool {
    let mut params: BTreeMap<GgmlType, u64> = BTreeMap::new();
    for (_, tensor) in model.files().set().tensors().filter(|(_, tensor)| tensor.n_rows() > 1) {
        *params.entry(tensor.ty).or_default() += tensor.n_elements();
    }
    params.iter().max_by_key(|(_, n)| **n).is_some_and(|(ty, _)| ty.block_len() > 1)
}

/// The limits of the machine, measured once for each number of threads and each size of buffer.
struct Machine {
    kernels: Kernels,
    limits: BTreeMap<(usize, Limit), f64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Limit {
    /// Bytes per second, by the bytes of the buffer.
    Bandwidth(u64),
    Int8,
    F32,
}

impl Machine {
    fn limit(&mut self, n_threads: usize, limit: Limit) -> f64 {
        let kernels = &self.kernels;
        *self.limits.entry((n_threads, limit)).or_insert_with(|| {
            let team = Team::new(n_threads);
            match limit {
                Limit::Bandwidth(bytes) => limits::read_bandwidth(&team, bytes as usize),
                Limit::Int8 => limits::arithmetic_peak(kernels, &team),
                Limit::F32 => limits::f32_peak(kernels, &team),
            }
        })
    }
}

fn report(args: &BenchArgs, model: &Model, row: &Row, load: &Load, machine: &mut Machine) -> Value {
    let test = row.test;
    let seconds = test.n_tokens() as f64 / row.mean();
    let bytes = load.bytes(test);
    // To the next power of two, so that tests that differ little are held against the same measurement.
    let buffer = ((bytes / test.n_steps() as f64) as u64).next_power_of_two();
    let buffer = buffer.clamp(BANDWIDTH_BYTES.0, BANDWIDTH_BYTES.1);
    let bandwidth = machine.limit(row.n_threads, Limit::Bandwidth(buffer));
    let peak = machine.limit(row.n_threads, if load.is_quantized { Limit::Int8 } else { Limit::F32 });
    let set = model.files().set();
    json!({
        "model": model_name(args, model),
        "model_bytes": set.file_bytes(),
        "n_params": set.n_params(),
        "isa": machine.kernels.isa().to_string(),
        "threads": row.n_threads,
        "test": test.name(),
        "t_s_mean": row.mean(),
        "t_s_stddev": row.stddev(),
        "bandwidth_share": bytes / seconds / bandwidth,
        "arithmetic_share": load.operations(test) / seconds / peak,
        "load_ms": row.load_ms,
        "rss_peak_bytes": row.rss_peak_bytes,
    })
}

/// The name of the file without its ending, which says more about the weights than the name in it.
fn model_name(args: &BenchArgs, model: &Model) -> String {
    match args.model.model.as_deref().and_then(|path| path.file_stem()) {
        Some(stem) => stem.to_string_lossy().into_owned(),
        None => model.files().set().parts[0].name().unwrap_or("built-in").to_owned(),
    }
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

/// The most memory that the process has had so far.
fn rss_peak_bytes() -> Option<u64> {
    if !cfg!(target_os = "linux") {
        return None;
    }
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_of_tests_say_depth_and_sequences_where_there_are_any() {
        let generation = |depth, n_sequences| Test::Generation { n_steps: 128, depth, n_sequences }.name();
        assert_eq!(Test::Prompt { n_tokens: 512 }.name(), "pp512");
        assert_eq!(generation(0, 1), "tg128");
        assert_eq!(generation(4096, 1), "tg128@d4096");
        assert_eq!(generation(0, 8), "tg128*b8");
        assert_eq!(generation(4096, 8), "tg128@d4096*b8");
    }

    #[test]
    fn the_deviation_is_that_of_a_sample() {
        let row = |speeds: &[f64]| Row {
            test: Test::Prompt { n_tokens: 1 },
            n_threads: 1,
            speeds: speeds.to_vec(),
            load_ms: 0.0,
            rss_peak_bytes: None,
        };
        assert_eq!((row(&[2.0, 4.0]).mean(), row(&[2.0, 4.0]).stddev()), (3.0, 2.0f64.sqrt()));
        assert_eq!(row(&[5.0]).stddev(), 0.0);
    }

    #[test]
    fn a_window_bounds_what_a_step_reads_of_the_cache() {
        let layers = vec![
            LayerCache { bytes_per_position: 10, window: None },
            LayerCache { bytes_per_position: 1, window: Some(4) },
        ];
        let load = Load {
            weight_bytes: 1000,
            weight_params: 500,
            head_bytes: 200,
            head_params: 100,
            layers,
            is_quantized: true,
        };
        let two_steps = Test::Generation { n_steps: 2, depth: 5, n_sequences: 3 };
        // Weights twice; 6 and 7 positions of the first layer, 4 and 4 of the second, for three sequences.
        assert_eq!(load.bytes(two_steps), 2000.0 + 3.0 * (60.0 + 70.0 + 4.0 + 4.0));
        assert_eq!(load.operations(two_steps), 2.0 * 500.0 * 6.0);
        let prompt = Test::Prompt { n_tokens: 8 };
        assert_eq!(load.bytes(prompt), 800.0 + 80.0 + 8.0);
        assert_eq!(load.operations(prompt), 2.0 * 400.0 * 8.0);
    }
}
