//! From a row of logits to a token.
//!
//! A [`Sampler`] belongs to one choice of one request. What it draws is a function of its parameters, the logits, the
//! tokens of the sequence so far, and (seed, choice, position): a counter-based generator has no state, penalties and
//! DRY are computed from the history each time, and mirostat's feedback follows the answer position by position. So it
//! does not matter what else is in the batch, and a replay draws the same.
//!
//! Logits are f32, each sampler that changes one rounds once, and probabilities are f64, summed in a fixed order with
//! the project's own `exp`, `ln` and `pow`. Ties go to the lower id everywhere. Forbidden tokens leave the list of
//! candidates at once, rather than stay with a logit of minus infinity.

mod candidates;
mod dry;
mod error;
mod limits;
mod logprobs;
mod metadata;
mod mirostat;
#[cfg(test)]
mod naive;
mod params;
mod penalties;
mod philox;
#[cfg(test)]
mod properties;
mod stop;
mod temperature;
#[cfg(test)]
mod tests;
mod truncation;

pub use error::Error;
pub use limits::*;
pub(crate) use logprobs::first_not_finite;
pub use logprobs::{TokenLogprobs, prompt_logprobs, token_logprobs};
pub use params::{SamplerKind, SamplingParams};
pub use philox::{Purpose, philox4x32_10, uniform};
pub use stop::StopMatcher;
use veritas_base::TokenId;

use self::candidates::{Candidate, Candidates};
use self::dry::Breakers;
use self::mirostat::Mirostat;
use self::penalties::Tally;

/// What the sampler asks of a vocabulary.
pub trait Vocabulary {
    /// Number of tokens, which is the length of a row of logits.
    fn n_vocab(&self) -> usize;
    /// Whether the token ends an answer (end of sequence, of turn, of message …).
    fn is_end_of_generation(&self, id: TokenId) -> bool;
    /// Appends the bytes that the token stands for. Only DRY asks.
    fn token_bytes(&self, id: TokenId, out: &mut Vec<u8>);
    /// The tokens of a text, without special tokens; `None` if it has none. Only DRY asks.
    fn encode_text(&self, text: &str) -> Option<Vec<TokenId>>;
}

/// A token that was chosen.
#[derive(Debug, Clone, PartialEq)]
pub struct Sampled {
    /// The token.
    pub id: TokenId,
    /// Its log-probability under the raw logits, if [`SamplingParams::logprobs`] asks.
    pub logprob: Option<f32>,
    /// The most likely tokens with theirs, as many as [`SamplingParams::logprobs`] asks.
    pub top: Vec<(TokenId, f32)>,
}

/// Draws the tokens of one choice of one request. Clone it to fork a sequence.
#[derive(Debug, Clone)]
pub struct Sampler {
    params: SamplingParams,
    seed: u64,
    choice: u32,
    n_vocab: usize,
    end_tokens: Vec<TokenId>,
    breakers: Breakers,
    mirostat: Mirostat,
    candidates: Candidates,
    tally: Tally,
    suffixes: Vec<usize>,
    scores: Vec<(f64, f64, Candidate)>,
}

impl Sampler {
    /// A sampler for the answer number `choice` of a request.
    ///
    /// # Errors
    /// What [`SamplingParams::validate`] says; [`Error::SeedMissing`] unless the parameters are greedy;
    /// [`Error::TokenOutOfVocabulary`] for a bias on a token that does not exist.
    pub fn new(params: SamplingParams, vocab: &dyn Vocabulary, choice: u32) -> Result<Self, Error> {
        params.validate()?;
        let n_vocab = vocab.n_vocab();
        if let Some((&id, _)) = params.logit_bias.iter().find(|(id, _)| **id as usize >= n_vocab) {
            return Err(Error::TokenOutOfVocabulary { id, n_vocab });
        }
        let draws = !params.is_greedy() || params.xtc_probability > 0.0;
        let seed = if draws { params.seed.ok_or(Error::SeedMissing)? } else { params.seed.unwrap_or(0) };
        let uses_dry =
            params.mirostat == 0 && params.samplers.contains(&SamplerKind::Dry) && dry::is_on(&params);
        let breakers = match uses_dry {
            true => Breakers::new(&params.dry_sequence_breakers, vocab)?,
            false => Breakers::default(),
        };
        let ids = 0..u32::try_from(n_vocab).unwrap_or(u32::MAX);
        Ok(Self {
            seed,
            choice,
            n_vocab,
            end_tokens: ids.filter(|&id| vocab.is_end_of_generation(id)).collect(),
            breakers,
            mirostat: Mirostat::new(&params),
            candidates: Candidates::new(),
            tally: Tally::default(),
            suffixes: Vec::new(),
            scores: Vec::new(),
            params,
        })
    }

    /// The parameters.
    pub fn params(&self) -> &SamplingParams {
        &self.params
    }

    /// The token after `history` (prompt and answer so far, of which the first `n_prompt` are the prompt's), given
    /// its raw logits `[n_vocab]`.
    ///
    /// # Errors
    /// [`Error::LogitsNotFinite`], [`Error::LogitsLength`], [`Error::HistoryTooShort`],
    /// [`Error::TokenOutOfVocabulary`], [`Error::NoCandidate`]; with mirostat [`Error::OutOfOrder`].
    pub fn sample(&mut self, logits: &[f32], history: &[TokenId], n_prompt: usize) -> Result<Sampled, Error> {
        self.sample_masked(logits, history, n_prompt, None)
    }

    /// [`Sampler::sample`] among the tokens that a grammar allows: bit `id % 32` of word `id / 32` is set. Words that
    /// are missing allow nothing.
    ///
    /// # Errors
    /// As [`Sampler::sample`].
    pub fn sample_masked(
        &mut self,
        logits: &[f32],
        history: &[TokenId],
        n_prompt: usize,
        allowed: Option<&[u32]>,
    ) -> Result<Sampled, Error> {
        self.check(logits, history, n_prompt)?;
        self.fill(logits, history.len() - n_prompt, allowed);
        let id = match self.params.mirostat {
            0 => self.run_chain(history)?,
            _ => self.run_mirostat(history.len())?,
        };
        let Some(n_top) = self.params.logprobs else {
            return Ok(Sampled { id, logprob: None, top: Vec::new() });
        };
        let found = logprobs::with_buffer(logits, id, n_top as usize, &mut self.candidates)?;
        Ok(Sampled { id, logprob: Some(found.logprob), top: found.top })
    }

    fn check(&self, logits: &[f32], history: &[TokenId], n_prompt: usize) -> Result<(), Error> {
        let n_vocab = self.n_vocab;
        if logits.len() != n_vocab {
            return Err(Error::LogitsLength { expected: n_vocab, found: logits.len() });
        }
        if history.len() < n_prompt {
            return Err(Error::HistoryTooShort { expected: n_prompt, found: history.len() });
        }
        if let Some(&id) = history.iter().find(|id| **id as usize >= n_vocab) {
            return Err(Error::TokenOutOfVocabulary { id, n_vocab });
        }
        logprobs::check_finite(logits)
    }

    /// Makes candidates of the logits: adds the biases, and leaves out what is forbidden.
    fn fill(&mut self, logits: &[f32], n_generated: usize, allowed: Option<&[u32]>) {
        let Self { params, candidates, end_tokens, .. } = self;
        candidates.fill(logits);
        if let Some(words) = allowed {
            candidates
                .retain(|c| words.get(c.id as usize / 32).is_some_and(|word| word >> (c.id % 32) & 1 == 1));
        }
        let biases = &params.logit_bias;
        candidates.change(biases.keys().copied(), |id, logit| {
            let bias = biases.get(&id).copied().unwrap_or(0.0);
            (bias > f32::NEG_INFINITY).then_some(logit + f64::from(bias))
        });
        if params.ignore_eos || n_generated < params.min_tokens as usize {
            candidates.change(end_tokens.iter().copied(), |_, _| None);
        }
    }

    fn uniform(&self, position: usize, purpose: Purpose) -> f64 {
        uniform(self.seed, self.choice, position as u64, purpose)
    }

    fn run_chain(&mut self, history: &[TokenId]) -> Result<TokenId, Error> {
        let position = history.len();
        for i in 0..self.params.samplers.len() {
            self.run_sampler(self.params.samplers[i], history);
        }
        if self.params.is_greedy() {
            return self.candidates.best().map(|c| c.id).ok_or(Error::NoCandidate);
        }
        let uniform = self.uniform(position, Purpose::Token);
        self.candidates.draw(uniform).map(|(c, _)| c.id).ok_or(Error::NoCandidate)
    }

    fn run_sampler(&mut self, kind: SamplerKind, history: &[TokenId]) {
        let chance = match kind {
            SamplerKind::Xtc => self.uniform(history.len(), Purpose::Xtc),
            _ => 0.0,
        };
        let n_vocab = self.n_vocab;
        let Self { params, candidates, tally, suffixes, scores, breakers, .. } = self;
        let min_keep = params.min_keep as usize;
        match kind {
            SamplerKind::Penalties => penalties::penalties(candidates, params, history, n_vocab, tally),
            SamplerKind::Dry => dry::dry(candidates, params, breakers, history, n_vocab, suffixes, tally),
            SamplerKind::TopNSigma => truncation::top_n_sigma(candidates, params.top_n_sigma),
            SamplerKind::TopK => truncation::top_k(candidates, params.top_k),
            SamplerKind::TypP => truncation::typical(candidates, params.typical_p, min_keep, scores),
            SamplerKind::TopP => truncation::top_p(candidates, params.top_p, min_keep),
            SamplerKind::MinP => truncation::min_p(candidates, params.min_p, min_keep),
            SamplerKind::Xtc => {
                truncation::xtc(candidates, params.xtc_probability, params.xtc_threshold, min_keep, chance);
            }
            SamplerKind::Temperature => {
                temperature::dynamic(
                    candidates,
                    params.temperature,
                    params.dynatemp_range,
                    params.dynatemp_exponent,
                );
            }
        }
    }

    fn run_mirostat(&mut self, position: usize) -> Result<TokenId, Error> {
        let uniform = self.uniform(position, Purpose::Token);
        temperature::temperature(&mut self.candidates, f64::from(self.params.temperature));
        self.mirostat.sample(&mut self.candidates, &self.params, self.n_vocab, position, uniform)
    }
}
