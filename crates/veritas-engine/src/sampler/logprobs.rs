//! Log-probabilities: the log-softmax of the raw logits, before bias, penalties and temperature, as OpenAI's API and
//! llama.cpp's server report them. Sums run in f64 over ascending ids; the result is rounded once, to f32.

use veritas_base::TokenId;
use veritas_kernels::math;

use super::candidates::Candidates;
use super::error::Error;

/// The log-probability of a token, and of the most likely tokens at its position.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenLogprobs {
    /// Log-probability of the token, natural logarithm.
    pub logprob: f32,
    /// The most likely tokens with theirs, likeliest first, ties by ascending id.
    pub top: Vec<(TokenId, f32)>,
}

/// Fails unless every logit is a finite number.
pub(super) fn check_finite(logits: &[f32]) -> Result<(), Error> {
    match first_not_finite(logits) {
        Some(index) => Err(Error::LogitsNotFinite { id: index as TokenId, value: logits[index] }),
        None => Ok(()),
    }
}

/// Where the first infinity or NaN stands.
pub(crate) fn first_not_finite(x: &[f32]) -> Option<usize> {
    const STRETCH: usize = 1024;
    // Without a branch an entry, so that the compiler makes vectors of it.
    let all_finite = |x: &[f32]| x.iter().fold(true, |all, x| all & x.is_finite());
    let first = x.chunks(STRETCH).position(|stretch| !all_finite(stretch))? * STRETCH;
    Some(first + x[first..].iter().position(|x| !x.is_finite())?)
}

/// Log-probability of `id` under a row of logits `[n_vocab]`, with those of the `n_top` most likely tokens. Serves
/// chosen tokens and, with the row before a prompt's token, prompts.
///
/// # Errors
/// [`Error::LogitsNotFinite`]; [`Error::TokenOutOfVocabulary`] if the row has no such token.
pub fn token_logprobs(logits: &[f32], id: TokenId, n_top: usize) -> Result<TokenLogprobs, Error> {
    check_finite(logits)?;
    with_buffer(logits, id, n_top, &mut Candidates::new())
}

/// [`token_logprobs`] of every token of a prompt but the first, which nothing predicts: `rows` are the logits
/// `[ids.len() - 1 or more, n_vocab]`, row-major, of the positions from the first on.
///
/// # Errors
/// As [`token_logprobs`]; [`Error::LogitsLength`] if there are fewer rows.
pub fn prompt_logprobs(
    rows: &[f32],
    n_vocab: usize,
    ids: &[TokenId],
    n_top: usize,
) -> Result<Vec<TokenLogprobs>, Error> {
    let targets = ids.get(1..).unwrap_or_default();
    let expected = targets.len() * n_vocab;
    if rows.len() < expected {
        return Err(Error::LogitsLength { expected, found: rows.len() });
    }
    let mut buffer = Candidates::new();
    let row_of = |i: usize| &rows[i * n_vocab..][..n_vocab];
    targets
        .iter()
        .enumerate()
        .map(|(i, &id)| check_finite(row_of(i)).and_then(|()| with_buffer(row_of(i), id, n_top, &mut buffer)))
        .collect()
}

/// [`token_logprobs`] of logits known to be finite, with a buffer for the selection.
pub(super) fn with_buffer(
    logits: &[f32],
    id: TokenId,
    n_top: usize,
    buffer: &mut Candidates,
) -> Result<TokenLogprobs, Error> {
    let out_of_vocabulary = Error::TokenOutOfVocabulary { id, n_vocab: logits.len() };
    let logit = *logits.get(id as usize).ok_or(out_of_vocabulary)?;
    let max = logits.iter().fold(f32::MIN, |max, &x| if x > max { x } else { max });
    let sum: f64 = logits.iter().map(|&x| math::exp(f64::from(x) - f64::from(max))).sum();
    let log_sum = math::ln(sum);
    let logprob = |x: f32| ((f64::from(x) - f64::from(max)) - log_sum) as f32;
    let mut top = Vec::new();
    if n_top > 0 {
        buffer.fill(logits);
        buffer.keep_best(n_top);
        top.extend(buffer.iter().map(|c| (c.id, logprob(c.logit))));
    }
    Ok(TokenLogprobs { logprob: logprob(logit), top })
}
