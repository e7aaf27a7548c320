//! The command line: what can be asked, with its documentation and its defaults.

use std::path::PathBuf;

use clap::{Args, ColorChoice, Parser, Subcommand, ValueEnum};
use veritas_base::TokenId;
use veritas_proto::v1;
use veritas_runtime::{EngineSpec, parse_cache_type, parse_override};
use veritas_sandbox::Policy;

use crate::daemon_args::{
    AskArgs, ConfigArgs, ConnectArgs, EmbedArgs, GenerateArgs, ModelsArgs, ProbeArgs, ServeArgs,
};
use crate::failure::{Code, Failure};

const EXAMPLES: &str = "\
Examples:
  veritas-sdr run \"What is Veritas SDR?\"
  veritas-sdr run --model model.gguf --temp 0 -n 100 \"Once upon a time\"
  echo \"Summarise this.\" | veritas-sdr run --json -
  veritas-sdr chat --model model.gguf
  veritas-sdr inspect model.gguf --tensors
  veritas-sdr quantize model-f16.gguf model-q4_k_m.gguf Q4_K_M
  veritas-sdr bench --model model.gguf -p 512 -n 128
  veritas-sdr serve --model chat=model.gguf
  veritas-sdr generate \"Why is the sky blue?\"

Exit status: 0 done, 1 failed or the answer is no, 2 usage, configuration or a prompt beyond the context, 3 no daemon,
4 a malformed or unsupported model, 5 refused, 130 interrupted.";

/// Runs language models locally: no network, the same bits for the same request.
#[derive(Debug, Parser)]
#[command(name = "veritas-sdr", version, about, after_help = EXAMPLES, max_term_width = 100)]
#[command(propagate_version = true, disable_help_subcommand = true)]
pub(crate) struct Cli {
    /// When to use colours.
    #[arg(long, global = true, value_enum, default_value_t = Color::Auto, help_heading = "Output")]
    pub(crate) color: Color,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// When to use colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Color {
    /// On a terminal.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

impl From<Color> for ColorChoice {
    fn from(color: Color) -> Self {
        match color {
            Color::Auto => Self::Auto,
            Color::Always => Self::Always,
            Color::Never => Self::Never,
        }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Continue a prompt, or answer it with the model's chat template.
    Run(Box<RunArgs>),
    /// Talk with a model: history, line editing, /help.
    Chat(Box<ChatArgs>),
    /// Serve models to many clients through a Unix socket.
    Serve(Box<ServeArgs>),
    /// Continue a prompt, or answer it, with a model of the daemon.
    Generate(Box<GenerateArgs>),
    /// Say how the daemon and its models are.
    Health(ProbeArgs),
    /// Say whether the daemon turns.
    Live(ProbeArgs),
    /// Say whether the daemon would serve a request now.
    Ready(ProbeArgs),
    /// Show what the daemon does: models, requests, tokens, latencies, sandbox.
    Status(AskArgs),
    /// Print the daemon's metrics in Prometheus' text format.
    Metrics(AskArgs),
    /// Load, unload, list and show models of the daemon.
    Models(ModelsArgs),
    /// Let the daemon answer what it has taken, and end.
    Drain(AskArgs),
    /// Let the daemon read its configuration again.
    Reload(AskArgs),
    /// Check and show the daemon's configuration.
    Config(ConfigArgs),
    /// Give the embedding of a text, from a model of the daemon.
    Embed(EmbedArgs),
    /// Write the logits of given tokens to a safetensors file.
    Logits(LogitsArgs),
    /// Measure how well a model predicts a text.
    Perplexity(PerplexityArgs),
    /// Measure the speed of prompts and of generation.
    Bench(BenchArgs),
    /// Turn text (stdin) into token ids.
    Tokenize(TokenizeArgs),
    /// Turn token ids (stdin) into text.
    Detokenize(DetokenizeArgs),
    /// Render a chat template for messages (JSON on stdin).
    Template(TemplateArgs),
    /// Show what a model file holds.
    Inspect(InspectArgs),
    /// Convert a model file to another weight type.
    Quantize(QuantizeArgs),
    /// Look at the sandbox that models are run in.
    #[command(subcommand)]
    Sandbox(SandboxCommand),
    /// Print completions for a shell.
    Completions(CompletionsArgs),
    /// Write the manual pages to a folder.
    Man(ManArgs),
}

/// Which model.
#[derive(Args, Debug)]
#[command(next_help_heading = "Model")]
pub(crate) struct ModelArgs {
    /// A GGUF file; of a split model, any part. Without it, the built-in model.
    #[arg(long, short, value_name = "PATH")]
    pub(crate) model: Option<PathBuf>,
    /// Set a metadata key before the model is built, for example `llama.attention.sliding_window=int:4096`.
    #[arg(long, value_name = "KEY=TYPE:VALUE", value_parser = checked_override)]
    pub(crate) override_kv: Vec<String>,
    /// Do not compute the digest of the model's files.
    #[arg(long)]
    pub(crate) no_digest: bool,
    #[command(flatten)]
    pub(crate) sandbox: SandboxArgs,
}

impl ModelArgs {
    /// `--model` as the name of a model of the daemon; empty for its only one.
    pub(crate) fn name(&self) -> String {
        self.model.as_ref().map(|name| name.display().to_string()).unwrap_or_default()
    }
}

/// What confines the process that reads the model.
#[derive(Args, Debug)]
#[command(next_help_heading = "Sandbox")]
pub(crate) struct SandboxArgs {
    /// The policy of the sandbox: `default`, `strict` (every layer is required), or a policy file.
    #[arg(long, value_name = "FILE|default|strict", default_value = "default")]
    pub(crate) sandbox: PathBuf,
}

impl SandboxArgs {
    /// The policy that the flag names.
    pub(crate) fn policy(&self) -> Result<Policy, Failure> {
        match self.sandbox.to_str() {
            Some("default") => Ok(Policy::default()),
            Some("strict") => Ok(Policy::strict()),
            _ => {
                let text = std::fs::read_to_string(&self.sandbox).map_err(|error| {
                    let message = format!("cannot read the policy {}: {error}", self.sandbox.display());
                    Failure::new(Code::NotFound, message)
                })?;
                Policy::parse(&text).map_err(|error| {
                    Failure::from(veritas_runtime::host::sandbox_failure(&error))
                        .within(self.sandbox.display())
                })
            }
        }
    }
}

/// How it is run.
#[derive(Args, Debug)]
#[command(next_help_heading = "Engine")]
pub(crate) struct EngineArgs {
    /// Threads that compute; by default one per processor.
    #[arg(long, short, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=512))]
    pub(crate) threads: Option<u16>,
    /// Instruction set of the kernels: auto, portable, avx2, avx512 or neon.
    #[arg(long, value_name = "LEVEL", default_value = "auto")]
    pub(crate) isa: String,
    /// Tokens that prompt and answer may have together; by default the model's context, at most 4096.
    #[arg(long, short, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) ctx: Option<u32>,
    /// Tokens of the prompt that one step computes.
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..=65536))]
    pub(crate) prefill_chunk: u32,
    /// How the cache stores keys: f32, f16, q8_0 or q4_0.
    #[arg(long, value_name = "TYPE", default_value = "f16", value_parser = checked_cache_type)]
    pub(crate) cache_type_k: String,
    /// How the cache stores values: f32, f16, q8_0 or q4_0.
    #[arg(long, value_name = "TYPE", default_value = "f16", value_parser = checked_cache_type)]
    pub(crate) cache_type_v: String,
}

impl EngineArgs {
    /// How a worker runs a model, for `n_sequences` at once.
    pub(crate) fn spec(&self, n_sequences: usize) -> Result<EngineSpec, Failure> {
        let spec = EngineSpec {
            isa: self.isa.clone(),
            threads: self.threads.map(usize::from),
            n_context: self.ctx.map(|ctx| ctx as usize),
            n_sequences,
            chunk_tokens: self.prefill_chunk as usize,
            cache_type_k: self.cache_type_k.clone(),
            cache_type_v: self.cache_type_v.clone(),
            ..EngineSpec::default()
        };
        spec.check()?;
        Ok(spec)
    }
}

/// What is printed besides the answer.
#[derive(Args, Clone, Copy, Debug)]
#[command(next_help_heading = "Output")]
pub(crate) struct OutputArgs {
    /// Print one JSON object instead of text; errors too, on stderr.
    #[arg(long)]
    pub(crate) json: bool,
    /// Print nothing but the answer and errors.
    #[arg(long, short, conflicts_with = "verbose")]
    pub(crate) quiet: bool,
    /// Say more about what is done.
    #[arg(long, short)]
    pub(crate) verbose: bool,
}

/// How tokens are drawn. What is not given is what the model's file says, else llama.cpp's default.
#[derive(Args, Debug, Default)]
#[command(next_help_heading = "Sampling")]
pub(crate) struct SamplingArgs {
    /// Seed of the draws; by default a random one, which is reported.
    #[arg(long, short, value_name = "S")]
    pub(crate) seed: Option<u64>,
    /// Temperature; 0 always takes the most likely token. [default: 0.8]
    #[arg(long, value_name = "T")]
    pub(crate) temp: Option<f32>,
    /// Draw among the K most likely tokens; 0 for all. [default: 40]
    #[arg(long, value_name = "K")]
    pub(crate) top_k: Option<i32>,
    /// Draw among the most likely tokens that together reach this probability. [default: 0.95]
    #[arg(long, value_name = "P")]
    pub(crate) top_p: Option<f32>,
    /// Drop tokens less likely than this share of the most likely one. [default: 0.05]
    #[arg(long, value_name = "P")]
    pub(crate) min_p: Option<f32>,
    /// Locally typical sampling; 1 is off. [default: 1]
    #[arg(long, value_name = "P", alias = "typical")]
    pub(crate) typical_p: Option<f32>,
    /// Keep tokens within N standard deviations of the best logit; below 0 is off. [default: -1]
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pub(crate) top_n_sigma: Option<f32>,
    /// Chance to drop the likeliest tokens but one (XTC). [default: 0]
    #[arg(long, value_name = "P")]
    pub(crate) xtc_probability: Option<f32>,
    /// What XTC calls likely. [default: 0.1]
    #[arg(long, value_name = "P")]
    pub(crate) xtc_threshold: Option<f32>,
    /// Range of the dynamic temperature. [default: 0]
    #[arg(long, value_name = "T")]
    pub(crate) dynatemp_range: Option<f32>,
    /// Exponent of the dynamic temperature. [default: 1]
    #[arg(long, value_name = "E", alias = "dynatemp-exp")]
    pub(crate) dynatemp_exponent: Option<f32>,
    /// Tokens that penalties look back at; -1 for all, 0 for none. [default: 64]
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pub(crate) repeat_last_n: Option<i32>,
    /// Penalty on tokens that occurred; 1 is off. [default: 1]
    #[arg(long, value_name = "X")]
    pub(crate) repeat_penalty: Option<f32>,
    /// Penalty once for each token that occurred; 0 is off. [default: 0]
    #[arg(long, value_name = "X", allow_hyphen_values = true)]
    pub(crate) presence_penalty: Option<f32>,
    /// Penalty for each occurrence; 0 is off. [default: 0]
    #[arg(long, value_name = "X", allow_hyphen_values = true)]
    pub(crate) frequency_penalty: Option<f32>,
    /// Strength of the penalty on repeated sequences (DRY); 0 is off. [default: 0]
    #[arg(long, value_name = "X")]
    pub(crate) dry_multiplier: Option<f32>,
    /// Base of DRY's growth. [default: 1.75]
    #[arg(long, value_name = "X")]
    pub(crate) dry_base: Option<f32>,
    /// Length of repetition that DRY allows. [default: 2]
    #[arg(long, value_name = "N")]
    pub(crate) dry_allowed_length: Option<u32>,
    /// Tokens that DRY looks back at; -1 for all. [default: -1]
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pub(crate) dry_penalty_last_n: Option<i32>,
    /// A text that ends a sequence for DRY (repeatable; replaces the defaults).
    #[arg(long, value_name = "TEXT")]
    pub(crate) dry_sequence_breaker: Vec<String>,
    /// Mirostat 1 or 2; 0 is off. [default: 0]
    #[arg(long, value_name = "V", value_parser = clap::value_parser!(u8).range(0..=2))]
    pub(crate) mirostat: Option<u8>,
    /// Mirostat's target surprise. [default: 5]
    #[arg(long, value_name = "X", alias = "mirostat-ent")]
    pub(crate) mirostat_tau: Option<f32>,
    /// Mirostat's learning rate. [default: 0.1]
    #[arg(long, value_name = "X", alias = "mirostat-lr")]
    pub(crate) mirostat_eta: Option<f32>,
    /// The samplers and their order, for example `penalties;top_k;temperature`.
    #[arg(long, value_name = "LIST")]
    pub(crate) samplers: Option<String>,
    /// Change a token's logit, for example `15043+1` or `15043-inf` (repeatable).
    #[arg(long, value_name = "ID±X", value_parser = parse_bias)]
    pub(crate) logit_bias: Vec<(TokenId, f32)>,
    /// Tokens to generate at most; by default until the context is full.
    #[arg(short = 'n', long = "predict", value_name = "N", alias = "n-predict", alias = "max-tokens")]
    pub(crate) n_predict: Option<u32>,
    /// Tokens before which the answer may not end.
    #[arg(long, value_name = "N")]
    pub(crate) min_tokens: Option<u32>,
    /// End the answer before this text (repeatable).
    #[arg(long, value_name = "TEXT")]
    pub(crate) stop: Vec<String>,
    /// Never draw a token that ends the answer.
    #[arg(long)]
    pub(crate) ignore_eos: bool,
    /// Report the log-probabilities of the K likeliest tokens at each position.
    #[arg(long, value_name = "K")]
    pub(crate) logprobs: Option<u32>,
}

impl SamplingArgs {
    /// As a request has it: what is not given is left to the model's file.
    pub(crate) fn to_wire(&self) -> v1::Sampling {
        v1::Sampling {
            seed: self.seed,
            temperature: self.temp,
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            typical_p: self.typical_p,
            top_n_sigma: self.top_n_sigma,
            xtc_probability: self.xtc_probability,
            xtc_threshold: self.xtc_threshold,
            dynatemp_range: self.dynatemp_range,
            dynatemp_exponent: self.dynatemp_exponent,
            repeat_last_n: self.repeat_last_n,
            repeat_penalty: self.repeat_penalty,
            presence_penalty: self.presence_penalty,
            frequency_penalty: self.frequency_penalty,
            dry_multiplier: self.dry_multiplier,
            dry_base: self.dry_base,
            dry_allowed_length: self.dry_allowed_length,
            dry_penalty_last_n: self.dry_penalty_last_n,
            dry_sequence_breakers: self.dry_sequence_breaker.clone(),
            mirostat: self.mirostat.map(u32::from),
            mirostat_tau: self.mirostat_tau,
            mirostat_eta: self.mirostat_eta,
            samplers: self.samplers.clone(),
            logit_bias: self.logit_bias.iter().map(|&(id, bias)| v1::LogitBias { id, bias }).collect(),
            max_tokens: self.n_predict,
            min_tokens: self.min_tokens,
            stop: self.stop.clone(),
            ignore_eos: self.ignore_eos,
            logprobs: self.logprobs,
        }
    }
}

/// What is asked, of a model or of the daemon.
#[derive(Args, Debug)]
pub(crate) struct PromptArgs {
    /// The prompt; `-` reads it from stdin. One that begins with a hyphen stands after `--`.
    pub(crate) prompt: Option<String>,
    /// Answer the prompt with the model's chat template (the default where the model has one).
    #[arg(long, conflicts_with_all = ["raw", "ids"])]
    pub(crate) chat: bool,
    /// Continue the prompt as it is, after the beginning-of-sequence token where the model wants one.
    #[arg(long, conflicts_with = "ids")]
    pub(crate) raw: bool,
    /// Parse control tokens in a raw prompt. Without it, they are plain text.
    #[arg(long, requires = "raw")]
    pub(crate) special: bool,
    /// The system message.
    #[arg(long, value_name = "TEXT", conflicts_with_all = ["raw", "ids"])]
    pub(crate) system: Option<String>,
    /// Continue these token ids; nothing is added.
    #[arg(long, value_name = "1,5,9", value_delimiter = ',', conflicts_with = "prompt")]
    pub(crate) ids: Option<Vec<TokenId>>,
    /// Answers to give.
    #[arg(long = "n", value_name = "K", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub(crate) n_choices: u32,
    /// Report the log-probabilities of the prompt's tokens.
    #[arg(long)]
    pub(crate) prompt_logprobs: bool,
    /// The day that a template may ask for; by default today, in UTC.
    #[arg(long, value_name = "2026-01-02")]
    pub(crate) now: Option<String>,
}

/// `run`.
#[derive(Args, Debug)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) prompt: PromptArgs,
    #[command(flatten)]
    pub(crate) sampling: SamplingArgs,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) engine: EngineArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// `chat`.
#[derive(Args, Debug)]
pub(crate) struct ChatArgs {
    #[command(flatten)]
    pub(crate) connect: ConnectArgs,
    /// The system message.
    #[arg(long, value_name = "TEXT")]
    pub(crate) system: Option<String>,
    /// The day that a template may ask for; by default today, in UTC.
    #[arg(long, value_name = "2026-01-02")]
    pub(crate) now: Option<String>,
    #[command(flatten)]
    pub(crate) sampling: SamplingArgs,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) engine: EngineArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// `logits`.
#[derive(Args, Debug)]
pub(crate) struct LogitsArgs {
    /// The token ids; none is added.
    #[arg(long, value_name = "1,5,9", value_delimiter = ',', required_unless_present = "ids_file")]
    pub(crate) ids: Option<Vec<TokenId>>,
    /// A file with a JSON list of lists of token ids.
    #[arg(long, value_name = "FILE", conflicts_with = "ids")]
    pub(crate) ids_file: Option<PathBuf>,
    /// Compute all lists in the same steps, rather than one after the other.
    #[arg(long)]
    pub(crate) batch: bool,
    /// The safetensors file to write: `logits` [n, n_vocab], or `logits.0`, `logits.1` … for a list of lists.
    #[arg(long, value_name = "FILE")]
    pub(crate) out: PathBuf,
    /// Add `hidden` [layers+1, n, d]: the embedding's output, then what follows each layer, the last after the final norm.
    #[arg(long)]
    pub(crate) hidden: bool,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) engine: EngineArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// `perplexity`.
#[derive(Args, Debug)]
pub(crate) struct PerplexityArgs {
    /// The text.
    pub(crate) file: PathBuf,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) engine: EngineArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// How `bench` prints its table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum TableFormat {
    /// A Markdown table.
    Md,
    /// A JSON list.
    Json,
}

const BENCH_HELP: &str = "\
Tests:
  pp512         a prompt of 512 tokens, in chunks of 512; nothing is sampled
  tg128         128 steps of one token, in an empty context
  tg128@d4096   the same after 4096 tokens
  tg128*b8      the same for 8 sequences together; t/s counts the tokens of all

Each test is run once to warm up and then as often as -r says; t/s is mean and standard deviation.

Columns that say how far the machine is used, as shares of 1:
  bandwidth     bytes that the steps read (the weights once a step, without the rows of the embedding that are not looked
                up; and the cached keys and values of every sequence) per second, over the read bandwidth that was
                measured in this run by as many threads on a buffer of that size (1 MiB to 1 GiB): for a model larger
                than the caches that is the memory's, for a smaller one the caches'
  arithmetic    2 operations for each weight that a token is multiplied with (attention itself is not counted), over the
                peak that was measured in this run with as many threads: of 8-bit integer products for models whose
                matrices are quantised, of bf16 products for BF16 (of f32 products where the processor has no bf16
                instruction), of f32 products for F32 and F16

The JSON has the two measured limits besides, as read_bytes_s_max and operations_s_max, and in `arithmetic` which products
the second is of: int8, bf16 or f32.

load_ms is what a user waits for until the first step can begin: the start of the worker's process, its sandbox, and the
loading; pages of a mapped file are read when they are first used, so the first warm-up pays for them. rss_peak_bytes is
the most memory that the worker has had by the end of the test, mapped pages of the model included (Linux; null
elsewhere).";

/// `bench`.
#[derive(Args, Debug)]
#[command(after_long_help = BENCH_HELP)]
pub(crate) struct BenchArgs {
    /// Tokens of the prompt; 0 leaves the test out.
    #[arg(short = 'p', long, value_name = "N", default_value = "512", value_delimiter = ',')]
    #[arg(value_parser = clap::value_parser!(u32).range(0..=1 << 24))]
    pub(crate) n_prompt: Vec<u32>,
    /// Tokens to generate; 0 leaves the test out.
    #[arg(short = 'n', long, value_name = "N", default_value = "128", value_delimiter = ',')]
    #[arg(value_parser = clap::value_parser!(u32).range(0..=1 << 24))]
    pub(crate) n_gen: Vec<u32>,
    /// Tokens that are in the cache before the generation begins.
    #[arg(short = 'd', long, value_name = "N", default_value = "0", value_delimiter = ',')]
    #[arg(value_parser = clap::value_parser!(u32).range(0..=1 << 24))]
    pub(crate) depth: Vec<u32>,
    /// Sequences that are generated together.
    #[arg(short = 'b', long, value_name = "N", default_value = "1", value_delimiter = ',')]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=256))]
    pub(crate) batch: Vec<u32>,
    /// Threads, for example `1,2`; by default one per processor.
    #[arg(short = 't', long, value_name = "N", value_delimiter = ',')]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=512))]
    pub(crate) threads: Vec<u16>,
    /// Repetitions of each test.
    #[arg(short = 'r', long, value_name = "N", default_value_t = 5)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) repetitions: u32,
    /// How to print the table; --json is short for `-o json`.
    #[arg(short = 'o', long = "output", value_enum, default_value_t = TableFormat::Md)]
    pub(crate) format: TableFormat,
    /// Instruction set of the kernels: auto, portable, avx2, avx512 or neon.
    #[arg(long, value_name = "LEVEL", default_value = "auto")]
    pub(crate) isa: String,
    /// How the cache stores keys: f32, f16, q8_0 or q4_0.
    #[arg(long, value_name = "TYPE", default_value = "f16", value_parser = checked_cache_type)]
    pub(crate) cache_type_k: String,
    /// How the cache stores values: f32, f16, q8_0 or q4_0.
    #[arg(long, value_name = "TYPE", default_value = "f16", value_parser = checked_cache_type)]
    pub(crate) cache_type_v: String,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// `tokenize`.
#[derive(Args, Debug)]
pub(crate) struct TokenizeArgs {
    /// Read lines {"text", "special"?} and write lines {"ids"}.
    #[arg(long)]
    pub(crate) jsonl: bool,
    /// Parse control tokens in the text.
    #[arg(long)]
    pub(crate) special: bool,
    /// Add nothing: no beginning-of-sequence token, nor any other (end, CLS, SEP).
    #[arg(long)]
    pub(crate) no_bos: bool,
    #[command(flatten)]
    pub(crate) connect: ConnectArgs,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// `detokenize`: a JSON list of ids on stdin gives exactly the bytes of the text on stdout.
#[derive(Args, Debug)]
pub(crate) struct DetokenizeArgs {
    /// Read lines {"ids"} and write lines {"text"}.
    #[arg(long)]
    pub(crate) jsonl: bool,
    #[command(flatten)]
    pub(crate) connect: ConnectArgs,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

const TEMPLATE_HELP: &str = "\
stdin: {\"messages\": [{\"role\", \"content\"}…], \"tools\"?, \"add_generation_prompt\"?, \"enable_thinking\"?, \"bos_token\"?,
\"eos_token\"?, \"now\"?: \"2026-01-02\"}; other keys are variables of the template. Where the texts of the tokens are not
given they are the model's; with --template alone, empty. Nothing is added to the text on stdout.";

/// `template`.
#[derive(Args, Debug)]
#[command(after_help = TEMPLATE_HELP)]
pub(crate) struct TemplateArgs {
    /// A template in a file, instead of the model's own.
    #[arg(long, value_name = "FILE")]
    pub(crate) template: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

const INSPECT_HELP: &str = "\
With --json, arrays of the metadata with more than 1024 elements (those of a vocabulary) are written as
{\"type\", \"len\", \"first\": [8 elements]}, and numbers that are not finite as texts (\"NaN\", \"inf\", \"-inf\"). Shapes have
the row length first, as the file has them. Files that cannot be run are shown all the same, with the reason.";

/// `inspect`.
#[derive(Args, Debug)]
#[command(after_help = INSPECT_HELP)]
pub(crate) struct InspectArgs {
    /// A GGUF file; of a split model, any part.
    pub(crate) file: PathBuf,
    /// List the tensors.
    #[arg(long)]
    pub(crate) tensors: bool,
    #[command(flatten)]
    pub(crate) sandbox: SandboxArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// `quantize`.
#[derive(Args, Debug)]
pub(crate) struct QuantizeArgs {
    /// The model to convert; of a split model, any part.
    #[arg(value_name = "IN")]
    pub(crate) input: PathBuf,
    /// The file to write.
    #[arg(value_name = "OUT")]
    pub(crate) output_file: PathBuf,
    /// The type, by llama.cpp's names: Q4_K_M, Q8_0, F16 …; F32 dequantises exactly.
    #[arg(value_name = "TYPE")]
    pub(crate) kind: String,
    /// Convert also tensors that are quantised already, which loses more than converting the original.
    #[arg(long)]
    pub(crate) allow_requantize: bool,
    /// Give every matrix the same type, without the mix's exceptions.
    #[arg(long)]
    pub(crate) pure: bool,
    /// An importance matrix, as llama-imatrix writes it (GGUF, or the older .dat).
    #[arg(long, value_name = "FILE")]
    pub(crate) imatrix: Option<PathBuf>,
    /// The type of the token embedding.
    #[arg(long, value_name = "TYPE")]
    pub(crate) token_embedding_type: Option<String>,
    /// The type of the output matrix.
    #[arg(long, value_name = "TYPE")]
    pub(crate) output_tensor_type: Option<String>,
    /// Threads; by default one per processor.
    #[arg(long, short, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=512))]
    pub(crate) threads: Option<u16>,
    #[command(flatten)]
    pub(crate) sandbox: SandboxArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// `sandbox`.
#[derive(Debug, Subcommand)]
pub(crate) enum SandboxCommand {
    /// Start a worker with a model, as in service, and try from inside to break out.
    Test(SandboxTestArgs),
}

const SANDBOX_TEST_HELP: &str = "\
Each row is an attempt that a worker must not succeed with: opening files, reaching a network, starting programs or
threads, looking into other processes, exceeding its limits. A probe passes if the attempt fails with exactly the error
that the policy expects. Exit status 0 if all pass, 1 if one does not.";

/// `sandbox test`.
#[derive(Args, Debug)]
#[command(after_help = SANDBOX_TEST_HELP)]
pub(crate) struct SandboxTestArgs {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// `completions`.
#[derive(Args, Debug)]
pub(crate) struct CompletionsArgs {
    /// The shell.
    #[arg(value_enum)]
    pub(crate) shell: clap_complete::Shell,
}

/// `man`.
#[derive(Args, Debug)]
pub(crate) struct ManArgs {
    /// The folder to write to.
    pub(crate) folder: PathBuf,
}

fn parse_bias(text: &str) -> Result<(TokenId, f32), String> {
    let expected = || "expected a token id and a signed number, for example 15043+1".to_owned();
    let split = text.find(['+', '-']).ok_or_else(expected)?;
    let (id, bias) = text.split_at(split);
    Ok((id.parse().map_err(|_| expected())?, bias.parse().map_err(|_| expected())?))
}

/// A cache type as it was given, which a worker reads again.
fn checked_cache_type(name: &str) -> Result<String, String> {
    parse_cache_type(name).map(|_| name.to_ascii_lowercase())
}

/// An override as it was given, which a worker reads again.
fn checked_override(text: &str) -> Result<String, String> {
    parse_override(text).map(|_| text.to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn overrides_and_biases_are_read_as_documented() {
        let change = checked_override("llama.attention.sliding_window=int:8");
        assert_eq!(change.as_deref(), Ok("llama.attention.sliding_window=int:8"));
        assert!(checked_override("a=int:x").is_err() && checked_override("a:int=3").is_err());
        assert_eq!(parse_bias("12-inf"), Ok((12, f32::NEG_INFINITY)));
        assert!(parse_bias("12").is_err());
    }
}
