//! DRY, "don't repeat yourself": a penalty, exponential in the length of the repetition, on a token that would extend
//! one. After the sampler of that name in text-generation-webui and its form in llama.cpp, whose handling of sequence
//! breakers this follows token for token.

use std::collections::BTreeMap;

use veritas_base::TokenId;
use veritas_kernels::math;

use super::Vocabulary;
use super::candidates::Candidates;
use super::error::Error;
use super::limits::MAX_DRY_TAIL_TOKENS;
use super::params::SamplingParams;
use super::penalties::{Tally, window};

/// ln of the largest f32: llama.cpp bounds the exponent by it, so that the power stays finite.
const LN_F32_MAX: f64 = 88.722_839_1;

/// The tokens that begin a sequence breaker, each with the token sequences that may complete it. An empty one means
/// that the token contains a breaker by itself.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Breakers(BTreeMap<TokenId, Vec<Vec<TokenId>>>);

impl Breakers {
    /// Finds, for each breaker, every token whose text contains it or ends with a beginning of it.
    pub(super) fn new(breakers: &[String], vocab: &dyn Vocabulary) -> Result<Self, Error> {
        let mut heads: BTreeMap<TokenId, Vec<Vec<TokenId>>> = BTreeMap::new();
        let mut text = Vec::new();
        let n_vocab = u32::try_from(vocab.n_vocab()).unwrap_or(u32::MAX);
        for breaker in breakers {
            let cuts = tails(breaker, vocab)?;
            let whole = breaker.as_bytes();
            for id in 0..n_vocab {
                text.clear();
                vocab.token_bytes(id, &mut text);
                if contains(&text, whole) {
                    heads.entry(id).or_default().push(Vec::new());
                    continue;
                }
                for (_, tail) in cuts.iter().filter(|(cut, _)| text.ends_with(&whole[..*cut])) {
                    let known = heads.entry(id).or_default();
                    if !known.contains(tail) {
                        known.push(tail.clone());
                    }
                }
            }
        }
        Ok(Self(heads))
    }

    /// Whether the token alone contains a breaker.
    fn is_single(&self, id: TokenId) -> bool {
        self.0.get(&id).is_some_and(|tails| tails.iter().any(Vec::is_empty))
    }

    /// Number of tokens after the last breaker in the window, or its whole length if there is none.
    fn tokens_since(&self, window: &[TokenId]) -> usize {
        for (at, id) in window.iter().enumerate().rev() {
            let Some(tails) = self.0.get(id) else { continue };
            let after = &window[at + 1..];
            let longest = tails.iter().filter(|tail| after.starts_with(tail)).map(Vec::len).max();
            if let Some(longest) = longest {
                return after.len() - longest;
            }
        }
        window.len()
    }
}

/// Each way to cut a breaker in two, as the length of the first part and the tokens of the second.
fn tails(breaker: &str, vocab: &dyn Vocabulary) -> Result<Vec<(usize, Vec<TokenId>)>, Error> {
    (1..breaker.len())
        .filter(|&cut| breaker.is_char_boundary(cut))
        .map(|cut| {
            let tail = vocab.encode_text(&breaker[cut..]).filter(|tail| !tail.is_empty());
            let tail = tail.ok_or_else(|| Error::Breaker { breaker: breaker.to_owned() })?;
            Ok((cut, tail.into_iter().take(MAX_DRY_TAIL_TOKENS).collect()))
        })
        .collect()
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|w| w == part)
}

/// Whether the parameters switch DRY on.
pub(super) fn is_on(params: &SamplingParams) -> bool {
    params.dry_multiplier != 0.0 && params.dry_base >= 1.0 && params.dry_penalty_last_n != 0
}

/// Lowers the logit of each token that would extend a repetition of at least `dry_allowed_length` tokens by
/// `multiplier · base ^ (length − allowed)`, where length counts the tokens before it that repeat.
pub(super) fn dry(
    candidates: &mut Candidates,
    params: &SamplingParams,
    breakers: &Breakers,
    history: &[TokenId],
    n_vocab: usize,
    lengths: &mut Vec<usize>,
    tally: &mut Tally,
) {
    let window = window(history, params.dry_penalty_last_n);
    let allowed = params.dry_allowed_length as usize;
    if !is_on(params) || window.len() <= allowed {
        return;
    }
    let limit = breakers.tokens_since(window);
    if limit < allowed {
        return;
    }
    common_suffixes(window, lengths);
    // The tally holds the longest repetition that each token would extend, plus one.
    tally.reset(n_vocab);
    for (at, &length) in lengths.iter().enumerate().take(window.len() - 1) {
        let length = length.min(limit);
        if length >= allowed {
            let stored = u32::try_from(length).unwrap_or(u32::MAX - 1) + 1;
            tally.update(window[at + 1], |longest| longest.max(stored));
        }
    }
    let base = f64::from(params.dry_base);
    let most = if params.dry_base > 1.000_001 { (LN_F32_MAX / math::ln(base)).floor() } else { f64::MAX };
    candidates.change(tally.ids().filter(|&id| !breakers.is_single(id)), |id, logit| {
        let exponent = f64::from(tally.get(id) - 1 - params.dry_allowed_length).min(most);
        Some(logit - f64::from(params.dry_multiplier) * math::pow(base, exponent))
    });
}

/// For each position, the length of the longest common suffix of the whole window and of the window up to and
/// including that position: the Z function of the reversed window (Gusfield 1997, section 1.3), in linear time.
fn common_suffixes(window: &[TokenId], lengths: &mut Vec<usize>) {
    let n = window.len();
    let at = |i: usize| window[n - 1 - i]; // reversed
    lengths.clear();
    lengths.resize(n, 0);
    if n > 0 {
        lengths[n - 1] = n;
    }
    let (mut left, mut right) = (0, 0); // the match that reaches furthest covers left..right
    for k in 1..n {
        let mut z = if k < right { lengths[n - 1 - (k - left)].min(right - k) } else { 0 };
        while k + z < n && at(z) == at(k + z) {
            z += 1;
        }
        if k + z > right {
            (left, right) = (k, k + z);
        }
        lengths[n - 1 - k] = z;
    }
}
