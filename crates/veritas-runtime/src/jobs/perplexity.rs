//! `perplexity`: how well a model predicts a text.

use std::io::Read;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use veritas_engine::{Model, perplexity};
use veritas_tokenizer::EncodeOptions;

use super::{Context, team_of};
use crate::failure::Failure;
use crate::spec::EngineSpec;

/// Tokens of a chunk where the user asks for no other number: the convention of published figures.
const DEFAULT_CHUNK_TOKENS: usize = 512;

/// Bytes of a text that are read: beyond what a tokenizer takes, so that the limit that users meet is that one.
const TEXT_BYTES_MAX: u64 = 128 << 20;

/// Score a text, which is the one file besides the model's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PerplexityJob {
    /// How messages call the text.
    pub text_name: String,
    /// How the model is run.
    pub engine: EngineSpec,
}

/// What `perplexity` found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PerplexityResult {
    /// Tokens that were scored.
    pub tokens: usize,
    /// Mean negative log-likelihood of a token, in nats.
    pub nll_mean: f64,
    /// `exp(nll_mean)`.
    pub perplexity: f64,
    /// Standard error of the perplexity.
    pub stderr: f64,
}

pub(super) fn run(job: &PerplexityJob, context: &mut Context<'_>) -> Result<PerplexityResult, Failure> {
    let text = read_text(job, context)?;
    let model = Arc::new(Model::new(context.open()?)?);
    let options = EncodeOptions { add_special: true, parse_special: false };
    let tokens = model.tokenizer().encode(&text, options)?;
    let team = team_of(context.teams, job.engine.n_threads())?;
    let mut config = job.engine.runner_config(Some(team))?;
    config.n_context = config.n_context.or(Some(DEFAULT_CHUNK_TOKENS.min(model.plan().n_context)));
    let mut progress = context.progress();
    let result = perplexity(&model, &config, &tokens, &mut |done, n_chunks, so_far| {
        progress.report(done as u64, n_chunks as u64, || format!("PPL {:.4}", so_far.perplexity));
    })?;
    Ok(PerplexityResult {
        tokens: result.n_tokens,
        nll_mean: result.nll_mean,
        perplexity: result.perplexity,
        stderr: result.stderr,
    })
}

fn read_text(job: &PerplexityJob, context: &mut Context<'_>) -> Result<String, Failure> {
    let name = &job.text_name;
    let file = context.others.pop().ok_or_else(|| Failure::internal("no text was handed over"))?;
    let mut bytes = Vec::new();
    file.take(TEXT_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > TEXT_BYTES_MAX {
        return Err(Failure::usage(format!("{name} holds more than {TEXT_BYTES_MAX} bytes")));
    }
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        Failure::usage(format!("{name} is not UTF-8: the byte 0x{:02x} at {at}", error.as_bytes()[at]))
            .hint("convert it to UTF-8 first")
    })
}
