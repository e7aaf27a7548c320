//! `bench`: the speed of prompts and of generation, and how much of the machine it uses.
//!
//! Weights are read and multiplied; tokens are fixed pseudo-random ids and nothing is sampled. The machine's limits are
//! measured after the tests, in the same process and with as many threads, so that their buffers do not count as memory
//! of the model.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use serde::{Deserialize, Serialize};
use veritas_base::TokenId;
use veritas_engine::{
    CacheTypes, DEFAULT_CHUNK_TOKENS, Drawn, LogitsRow, Model, Runner, RunnerConfig, SequenceSpec,
};
use veritas_kernels::{Kernels, KvLayout, PAGE_TOKENS, Team, limits};
use veritas_model::{Mixer, Plan};
use veritas_quant::GgmlType;

use super::{Context, team_of};
use crate::failure::{Code, Failure};
use crate::spec::EngineSpec;

/// The smallest and the largest buffer that the read bandwidth is measured with. The largest is beyond every cache.
const BANDWIDTH_BYTES: (u64, u64) = (1 << 20, 1 << 30);

/// Measure speeds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BenchJob {
    /// The tests, in their order.
    pub tests: Vec<BenchTest>,
    /// Numbers of threads; all tests are run with each.
    pub threads: Vec<usize>,
    /// How often a test is run, besides once to warm up.
    pub repetitions: u32,
    /// Instruction set and cache types.
    pub engine: EngineSpec,
}

/// What one test gave.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BenchRow {
    /// The name of the model: that of its file, else the one in it.
    pub model: String,
    /// Bytes of its files.
    pub model_bytes: u64,
    /// Its parameters.
    pub n_params: u64,
    /// The instruction set.
    pub isa: String,
    /// Threads that computed.
    pub threads: usize,
    /// The test.
    pub test: String,
    /// Tokens a second, in the mean of the repetitions.
    pub t_s_mean: f64,
    /// Their standard deviation.
    pub t_s_stddev: f64,
    /// The share of the bandwidth that was measured.
    pub bandwidth_share: f64,
    /// The share of the arithmetic that was measured.
    pub arithmetic_share: f64,
    /// The products whose peak that is.
    pub arithmetic: Arithmetic,
    /// The bandwidth that was measured: bytes that as many threads read in a second.
    pub read_bytes_s_max: f64,
    /// The arithmetic that was measured: operations that as many threads do in a second.
    pub operations_s_max: f64,
    /// From the worker's order until the first step could begin. The command adds what came before.
    pub load_ms: f64,
    /// The most memory that the worker has had by the end of the test. The command looks it up, as the worker cannot.
    pub rss_peak_bytes: Option<u64>,
}

/// What most weights of a model are multiplied as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Arithmetic {
    /// 8-bit integers: quantised weights.
    Int8,
    /// BF16 numbers.
    Bf16,
    /// f32 numbers: F32 and F16 weights.
    F32,
}

impl Arithmetic {
    fn of(ty: GgmlType) -> Self {
        match ty {
            GgmlType::BF16 => Self::Bf16,
            _ if ty.block_len() > 1 => Self::Int8,
            _ => Self::F32,
        }
    }
}

impl BenchJob {
    /// Runs of all tests, those that warm up too.
    pub fn n_runs(&self) -> u64 {
        (self.threads.len() * self.tests.len()) as u64 * self.n_runs_of_test()
    }

    /// Runs of one test, the one that warms up too: so many reports of progress end a test.
    pub fn n_runs_of_test(&self) -> u64 {
        u64::from(self.repetitions) + 1
    }
}

/// One test.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BenchTest {
    /// A prompt; nothing is drawn.
    Prompt {
        /// Its tokens.
        n_tokens: usize,
    },
    /// Steps that compute one token of each sequence.
    Generation {
        /// How many.
        n_steps: usize,
        /// Tokens that each sequence has before.
        depth: usize,
        /// Sequences that are computed together.
        n_sequences: usize,
    },
}

impl BenchTest {
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
    test: BenchTest,
    n_threads: usize,
    /// Tokens per second of each repetition.
    speeds: Vec<f64>,
    load_ms: f64,
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

pub(super) fn run(job: &BenchJob, context: &Context<'_>) -> Result<Vec<BenchRow>, Failure> {
    let start = Instant::now();
    let config = job.engine.runner_config(None)?;
    let model = Arc::new(Model::new(context.open()?)?);
    let model_ms = start.elapsed().as_secs_f64() * 1e3;
    check_context(&job.tests, model.plan().n_context)?;
    let progress = context.progress();
    let (mut rows, mut n_done) = (Vec::new(), 0);
    for &n_threads in &job.threads {
        for &test in &job.tests {
            let start = Instant::now();
            let config = RunnerConfig {
                n_threads,
                team: Some(team_of(context.teams, n_threads)?),
                n_context: Some(test.n_context()),
                n_sequences: test.n_sequences(),
                // Each run computes what it is said to.
                prefix_cache: false,
                ..config.clone()
            };
            let mut bench = Bench { runner: Runner::new(Arc::clone(&model), &config)?, state: 0 };
            let load_ms = model_ms + start.elapsed().as_secs_f64() * 1e3;
            let mut speeds = Vec::new();
            // The first run warms up: pages, caches, clocks.
            for run in 0..job.n_runs_of_test() {
                let seconds = bench.seconds(test)?;
                if run > 0 {
                    speeds.push(test.n_tokens() as f64 / seconds);
                }
                n_done += 1;
                progress.report_now(n_done, job.n_runs(), test.name());
            }
            rows.push(Row { test, n_threads, speeds, load_ms });
        }
    }
    let kernels = Kernels::new(config.isa).map_err(veritas_engine::Error::from)?;
    let mut machine = Machine { kernels, teams: context.teams, limits: BTreeMap::new() };
    let load = Load::of(&model, config.cache_types);
    rows.iter().map(|row| report(context, &model, row, &load, &mut machine)).collect()
}

fn check_context(tests: &[BenchTest], n_context: usize) -> Result<(), Failure> {
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
    fn seconds(&mut self, test: BenchTest) -> Result<f64, Failure> {
        match test {
            BenchTest::Prompt { n_tokens } => self.prompt(n_tokens),
            BenchTest::Generation { n_steps, depth, n_sequences } => {
                self.generation(n_steps, depth, n_sequences, test.n_early())
            }
        }
    }

    fn prompt(&mut self, n_tokens: usize) -> Result<f64, Failure> {
        let spec = SequenceSpec::new(self.tokens(n_tokens), 0);
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
            let spec = SequenceSpec::new(prompt, n_steps + 1 + n_early);
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
                return Err(Failure::internal("a sequence of the benchmark ended too early"));
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
    arithmetic: Arithmetic,
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
            arithmetic: Arithmetic::of(main_type(model)),
        }
    }

    /// Operations of a whole test.
    fn operations(&self, test: BenchTest) -> f64 {
        let params = match test {
            BenchTest::Prompt { .. } => self.weight_params.saturating_sub(self.head_params),
            BenchTest::Generation { .. } => self.weight_params,
        };
        2.0 * params as f64 * test.n_tokens() as f64
    }

    /// Bytes that a whole test reads.
    fn bytes(&self, test: BenchTest) -> f64 {
        match test {
            BenchTest::Prompt { n_tokens } => {
                let weights =
                    self.weight_bytes.saturating_sub(self.head_bytes) as f64 * test.n_steps() as f64;
                let ends = (0..test.n_steps()).map(|step| n_tokens.min((step + 1) * DEFAULT_CHUNK_TOKENS));
                weights + ends.map(|end| self.cache_bytes(end, DEFAULT_CHUNK_TOKENS)).sum::<f64>()
            }
            BenchTest::Generation { n_steps, depth, n_sequences } => {
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

/// The type of most weights.
fn main_type(model: &Model) -> GgmlType {
    let mut params: BTreeMap<GgmlType, u64> = BTreeMap::new();
    for (_, tensor) in model.files().set().tensors().filter(|(_, tensor)| tensor.n_rows() > 1) {
        *params.entry(tensor.ty).or_default() += tensor.n_elements();
    }
    params.iter().max_by_key(|(_, n)| **n).map_or(GgmlType::F32, |(ty, _)| *ty)
}

/// The limits of the machine, measured once for each number of threads and each size of buffer.
struct Machine<'a> {
    kernels: Kernels,
    teams: &'a [Arc<Team>],
    limits: BTreeMap<(usize, Limit), f64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Limit {
    /// Bytes per second, by the bytes of the buffer.
    Bandwidth(u64),
    /// Operations per second.
    Peak(Arithmetic),
}

impl Machine<'_> {
    fn limit(&mut self, n_threads: usize, limit: Limit) -> Result<f64, Failure> {
        if let Some(measured) = self.limits.get(&(n_threads, limit)) {
            return Ok(*measured);
        }
        let team = team_of(self.teams, n_threads)?;
        let measured = match limit {
            Limit::Bandwidth(bytes) => limits::read_bandwidth(&team, bytes as usize),
            Limit::Peak(Arithmetic::Int8) => limits::arithmetic_peak(&self.kernels, &team),
            Limit::Peak(Arithmetic::Bf16) => limits::bf16_peak(&self.kernels, &team),
            Limit::Peak(Arithmetic::F32) => limits::f32_peak(&self.kernels, &team),
        };
        self.limits.insert((n_threads, limit), measured);
        Ok(measured)
    }
}

fn report(
    context: &Context<'_>,
    model: &Model,
    row: &Row,
    load: &Load,
    machine: &mut Machine<'_>,
) -> Result<BenchRow, Failure> {
    let test = row.test;
    let seconds = test.n_tokens() as f64 / row.mean();
    let bytes = load.bytes(test);
    // To the next power of two, so that tests that differ little are held against the same measurement.
    let buffer = ((bytes / test.n_steps() as f64) as u64).next_power_of_two();
    let buffer = buffer.clamp(BANDWIDTH_BYTES.0, BANDWIDTH_BYTES.1);
    let bandwidth = machine.limit(row.n_threads, Limit::Bandwidth(buffer))?;
    let peak = machine.limit(row.n_threads, Limit::Peak(load.arithmetic))?;
    let set = model.files().set();
    Ok(BenchRow {
        model: model_name(context, model),
        model_bytes: set.file_bytes(),
        n_params: set.n_params(),
        isa: machine.kernels.isa().to_string(),
        threads: row.n_threads,
        test: test.name(),
        t_s_mean: row.mean(),
        t_s_stddev: row.stddev(),
        bandwidth_share: bytes / seconds / bandwidth,
        arithmetic_share: load.operations(test) / seconds / peak,
        arithmetic: load.arithmetic,
        read_bytes_s_max: bandwidth,
        operations_s_max: peak,
        load_ms: row.load_ms,
        rss_peak_bytes: None,
    })
}

/// The name of the file without its ending, which says more about the weights than the name in it.
fn model_name(context: &Context<'_>, model: &Model) -> String {
    match Path::new(&context.model.name).file_stem().filter(|_| !context.model.built_in) {
        Some(stem) => stem.to_string_lossy().into_owned(),
        None => model.files().set().parts[0].name().unwrap_or("built-in").to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_of_tests_say_depth_and_sequences_where_there_are_any() {
        let generation =
            |depth, n_sequences| BenchTest::Generation { n_steps: 128, depth, n_sequences }.name();
        assert_eq!(BenchTest::Prompt { n_tokens: 512 }.name(), "pp512");
        assert_eq!(generation(0, 1), "tg128");
        assert_eq!(generation(4096, 1), "tg128@d4096");
        assert_eq!(generation(0, 8), "tg128*b8");
        assert_eq!(generation(4096, 8), "tg128@d4096*b8");
    }

    #[test]
    fn each_type_is_held_against_the_products_that_its_kernels_compute() {
        use GgmlType::*;
        assert_eq!([Q4_0, Q4_K, IQ4_NL, MXFP4].map(Arithmetic::of), [Arithmetic::Int8; 4]);
        assert_eq!([F32, F16].map(Arithmetic::of), [Arithmetic::F32; 2]);
        assert_eq!(Arithmetic::of(BF16), Arithmetic::Bf16);
    }

    #[test]
    fn the_deviation_is_that_of_a_sample() {
        let row = |speeds: &[f64]| Row {
            test: BenchTest::Prompt { n_tokens: 1 },
            n_threads: 1,
            speeds: speeds.to_vec(),
            load_ms: 0.0,
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
            arithmetic: Arithmetic::Int8,
        };
        let two_steps = BenchTest::Generation { n_steps: 2, depth: 5, n_sequences: 3 };
        // Weights twice; 6 and 7 positions of the first layer, 4 and 4 of the second, for three sequences.
        assert_eq!(load.bytes(two_steps), 2000.0 + 3.0 * (60.0 + 70.0 + 4.0 + 4.0));
        assert_eq!(load.operations(two_steps), 2.0 * 500.0 * 6.0);
        let prompt = BenchTest::Prompt { n_tokens: 8 };
        assert_eq!(load.bytes(prompt), 800.0 + 80.0 + 8.0);
        assert_eq!(load.operations(prompt), 2.0 * 400.0 * 8.0);
    }
}
