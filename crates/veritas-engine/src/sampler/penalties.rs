//! Repeat, presence and frequency penalties over a window of the sequence's own history.

use veritas_base::TokenId;

use super::candidates::Candidates;
use super::params::SamplingParams;

/// The last `last_n` tokens of `history`; −1 is all of it.
pub(super) fn window(history: &[TokenId], last_n: i32) -> &[TokenId] {
    match usize::try_from(last_n) {
        Ok(n) => &history[history.len().saturating_sub(n)..],
        Err(_) => history,
    }
}

/// A number per token of the vocabulary, mostly 0, which is cleared in time proportional to what was set.
#[derive(Debug, Clone, Default)]
pub(super) struct Tally {
    counts: Vec<u32>,
    set: Vec<TokenId>,
}

impl Tally {
    /// Clears the tally and makes room for a vocabulary.
    pub(super) fn reset(&mut self, n_vocab: usize) {
        self.counts.resize(n_vocab, 0);
        for id in self.set.drain(..) {
            self.counts[id as usize] = 0;
        }
    }

    pub(super) fn get(&self, id: TokenId) -> u32 {
        self.counts[id as usize]
    }

    /// Replaces a token's number by a function of it that is never 0.
    pub(super) fn update(&mut self, id: TokenId, f: impl FnOnce(u32) -> u32) {
        let count = &mut self.counts[id as usize];
        if *count == 0 {
            self.set.push(id);
        }
        *count = f(*count);
    }

    /// The tokens whose number is not 0.
    pub(super) fn ids(&self) -> impl Iterator<Item = TokenId> {
        self.set.iter().copied()
    }
}

/// Applies the three penalties: logits of tokens that occur in the window are divided by `repeat_penalty` where
/// positive and multiplied by it where not, then lowered by `presence_penalty` and by `frequency_penalty` times the
/// number of occurrences.
pub(super) fn penalties(
    candidates: &mut Candidates,
    params: &SamplingParams,
    history: &[TokenId],
    n_vocab: usize,
    tally: &mut Tally,
) {
    let off =
        params.repeat_penalty == 1.0 && params.presence_penalty == 0.0 && params.frequency_penalty == 0.0;
    if off || params.repeat_last_n == 0 {
        return;
    }
    tally.reset(n_vocab);
    for &id in window(history, params.repeat_last_n) {
        tally.update(id, |count| count.saturating_add(1));
    }
    let repeat = f64::from(params.repeat_penalty);
    candidates.change(tally.ids(), |id, logit| {
        let scaled = if logit <= 0.0 { logit * repeat } else { logit / repeat };
        let per_occurrence = f64::from(tally.get(id)) * f64::from(params.frequency_penalty);
        Some(scaled - (per_occurrence + f64::from(params.presence_penalty)))
    });
}
