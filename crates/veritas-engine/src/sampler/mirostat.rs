//! Mirostat 1 and 2 (Basu et al. 2020, arXiv 2007.14966): keep the surprise of the text near a target by a feedback
//! on how much of the distribution's tail is cut off.
//!
//! The state mu is a function of the logits and tokens of the sequence's own answer: it moves once per position, in
//! order, and an attempt to sample a position twice or to leave one out is an error. A draft token is taken over only
//! if this sampler draws it, so speculation moves mu in the same steps.

use std::f64::consts::LN_2;

use veritas_base::TokenId;
use veritas_kernels::math;

use super::candidates::Candidates;
use super::error::Error;
use super::params::SamplingParams;

/// Number of most likely tokens from which mirostat 1 estimates the exponent of Zipf's law: the paper's and
/// llama.cpp's value.
const ZIPF_TOKENS: usize = 100;

/// The feedback loop of one sequence.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Mirostat {
    mu: f64,
    next: Option<usize>,
}

impl Mirostat {
    /// The start: twice the target.
    pub(super) fn new(params: &SamplingParams) -> Self {
        Self { mu: 2.0 * f64::from(params.mirostat_tau), next: None }
    }

    /// Draws a token at `position`, with `uniform` in [0, 1), and updates mu.
    pub(super) fn sample(
        &mut self,
        candidates: &mut Candidates,
        params: &SamplingParams,
        n_vocab: usize,
        position: usize,
        uniform: f64,
    ) -> Result<TokenId, Error> {
        if let Some(expected) = self.next.filter(|&expected| expected != position) {
            return Err(Error::OutOfOrder { expected, found: position });
        }
        match params.mirostat {
            1 => keep_by_zipf(candidates, self.mu, n_vocab),
            _ => keep_by_surprise(candidates, self.mu),
        }
        let (chosen, probability) = candidates.draw(uniform).ok_or(Error::NoCandidate)?;
        let surprise = -math::ln(probability) / LN_2;
        self.mu -= f64::from(params.mirostat_eta) * (surprise - f64::from(params.mirostat_tau));
        self.next = Some(position + 1);
        Ok(chosen.id)
    }
}

/// Mirostat 1: top-k, with k computed from the estimated exponent of Zipf's law and from mu.
fn keep_by_zipf(candidates: &mut Candidates, mu: f64, n_vocab: usize) {
    candidates.sort();
    let (mut products, mut squares, mut previous) = (0.0, 0.0, None);
    for (i, c) in candidates.iter().take(ZIPF_TOKENS).enumerate() {
        if let Some(before) = previous {
            let t = math::ln((i + 1) as f64 / i as f64);
            products += t * (before - f64::from(c.logit)); // ln of the ratio of probabilities
            squares += t * t;
        }
        previous = Some(f64::from(c.logit));
    }
    let s = products / squares;
    let epsilon = s - 1.0;
    // As epsilon goes to 0, epsilon / (1 − n^−epsilon) goes to 1 / ln n.
    let ratio = if epsilon.abs() < 1e-9 {
        1.0 / math::ln(n_vocab as f64)
    } else {
        epsilon / (1.0 - math::exp(-epsilon * math::ln(n_vocab as f64)))
    };
    let k = math::exp((math::ln(ratio) + mu * LN_2) / s);
    // One candidate (0 / 0), a flat list (s = 0) or an extreme mu give no usable k: then all stay.
    let k = if k.is_nan() { candidates.len() } else { k.clamp(1.0, candidates.len() as f64) as usize };
    candidates.keep_best(k);
}

/// Mirostat 2: keep the tokens whose surprise, in bits, is at most mu; at least one.
fn keep_by_surprise(candidates: &mut Candidates, mu: f64) {
    let (Some(normaliser), Some(best)) = (candidates.normaliser(), candidates.best()) else { return };
    let log_sum = math::ln(normaliser.sum);
    candidates.retain(|c| (log_sum - (f64::from(c.logit) - normaliser.max)) / LN_2 <= mu || c.id == best.id);
}
