//! Logits and perplexity of given tokens: nothing is drawn.

use std::sync::Arc;

use veritas_base::TokenId;
use veritas_kernels::math;
use veritas_sched::SequenceSpec;

use crate::error::Error;
use crate::model::Model;
use crate::runner::{Runner, RunnerConfig};
use crate::sampler;

/// Gets a sequence's place in the list, a position, and its `[n_vocab]` logits.
pub type ShowLogits<'a> = dyn FnMut(usize, usize, &[f32]) -> Result<(), Error> + 'a;

/// Computes the logits of every position of the sequences. With `together`, all of them run in the same steps; else one
/// after the other.
///
/// # Errors
/// If a sequence is empty, does not fit the context, or the model fails; what `show` says.
pub fn compute_logits(
    runner: &mut Runner,
    sequences: &[Vec<TokenId>],
    together: bool,
    show: &mut ShowLogits<'_>,
) -> Result<(), Error> {
    let group = if together { sequences.len().max(1) } else { 1 };
    for (first, sequences) in sequences.chunks(group).enumerate() {
        let mut ids = Vec::with_capacity(sequences.len());
        for tokens in sequences {
            let spec = SequenceSpec::new(tokens.clone(), 0);
            ids.push(runner.add(spec, true)?);
        }
        while !runner.is_idle() {
            runner.step(&mut |row| {
                let place = ids.iter().position(|&id| id == row.sequence);
                let place =
                    place.ok_or(Error::Internal { what: "a step runs the sequences that were added" })?;
                show(first * group + place, row.position, row.logits)?;
                Ok(None)
            })?;
        }
    }
    Ok(())
}

/// How well a model predicts a text.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Perplexity {
    /// Tokens that were scored.
    pub n_tokens: usize,
    /// Mean negative log-likelihood of a token, in nats.
    pub nll_mean: f64,
    /// `exp(nll_mean)`.
    pub perplexity: f64,
    /// Standard error of the perplexity.
    pub stderr: f64,
}

/// The perplexity of a text, as llama.cpp's `llama-perplexity` defines it: the text is cut into chunks of `n_context`
/// tokens, each begins with BOS where the model wants one (in place of its first token), and the tokens of its second
/// half are scored. What is left at the end is not scored.
///
/// `progress` is told the chunks that are done, their number, and the figure so far.
///
/// # Errors
/// [`Error::TextTooShort`] if there is not one chunk; whatever the model says.
pub fn perplexity(
    model: &Arc<Model>,
    config: &RunnerConfig,
    tokens: &[TokenId],
    progress: &mut dyn FnMut(usize, usize, Perplexity),
) -> Result<Perplexity, Error> {
    let mut runner = Runner::new(Arc::clone(model), config)?;
    let n_context = runner.n_context();
    let n_chunks = tokens.len() / n_context;
    if n_chunks == 0 || n_context < 2 {
        return Err(Error::TextTooShort { found: tokens.len(), needed: n_context.max(2) });
    }
    let bos = model.tokenizer().bos().filter(|_| model.tokenizer().add_bos());
    let first_scored = n_context / 2;
    let (mut n_scored, mut sum, mut sum_of_squares) = (0_usize, 0.0, 0.0);
    let mut result = Perplexity { n_tokens: 0, nll_mean: 0.0, perplexity: 0.0, stderr: 0.0 };
    for (done, chunk) in tokens.chunks_exact(n_context).enumerate() {
        let mut input = chunk.to_vec();
        if let Some(bos) = bos {
            input[0] = bos;
        }
        compute_logits(&mut runner, &[input], false, &mut |_, position, logits| {
            if position >= first_scored && position + 1 < n_context {
                let target = chunk[position + 1];
                let nll = -f64::from(sampler::token_logprobs(logits, target, 0)?.logprob);
                n_scored += 1;
                sum += nll;
                sum_of_squares += nll * nll;
            }
            Ok(())
        })?;
        let n = n_scored as f64;
        let nll_mean = sum / n;
        let perplexity = math::exp(nll_mean);
        let variance = (sum_of_squares / n - nll_mean * nll_mean).max(0.0);
        let stderr = if n_scored > 1 { (variance / (n - 1.0)).sqrt() * perplexity } else { 0.0 };
        result = Perplexity { n_tokens: n_scored, nll_mean, perplexity, stderr };
        progress(done + 1, n_chunks, result);
    }
    Ok(result)
}
