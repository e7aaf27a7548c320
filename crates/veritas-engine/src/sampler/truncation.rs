//! Samplers that remove candidates: top-k, top-p, min-p, typical, top-n-sigma and XTC.
//!
//! Each is its published definition in f64 on the probabilities of the candidates that are left. None removes the last
//! candidate.

use veritas_kernels::math;

use super::candidates::{Candidate, Candidates};

/// Keeps the `k` most likely tokens; 0 or less keeps all.
pub(super) fn top_k(candidates: &mut Candidates, k: i32) {
    if let Ok(k @ 1..) = usize::try_from(k) {
        candidates.keep_best(k);
    }
}

/// Keeps the smallest set of most likely tokens whose probabilities reach `p` (Holtzman et al. 2019).
pub(super) fn top_p(candidates: &mut Candidates, p: f32, min_keep: usize) {
    if p >= 1.0 {
        return;
    }
    let Some(normaliser) = candidates.normaliser() else { return };
    let mut cumulative = 0.0;
    candidates.keep_prefix(min_keep, |c| {
        cumulative += normaliser.probability(c);
        cumulative >= f64::from(p)
    });
}

/// Keeps tokens at least `p` times as likely as the likeliest (Nguyen et al. 2024).
pub(super) fn min_p(candidates: &mut Candidates, p: f32, min_keep: usize) {
    if p <= 0.0 {
        return;
    }
    let Some(best) = candidates.best() else { return };
    let least = f64::from(best.logit) + math::ln(f64::from(p));
    let good = |c: &Candidate| f64::from(c.logit) >= least;
    if candidates.iter().filter(|c| good(c)).count() >= min_keep.max(1) {
        candidates.retain(|c| good(c) || c.id == best.id);
    } else {
        candidates.keep_best(min_keep);
    }
}

/// Keeps the tokens whose surprise is closest to the entropy until their probability exceeds `p` (Meister et al.
/// 2022). Ties go to the lower id.
pub(super) fn typical(
    candidates: &mut Candidates,
    p: f32,
    min_keep: usize,
    scores: &mut Vec<(f64, f64, Candidate)>,
) {
    if p >= 1.0 {
        return;
    }
    let Some(normaliser) = candidates.normaliser() else { return };
    // −ln p = ln(sum) − (logit − max): one logarithm for the whole list, and none of a probability that underflows.
    let log_sum = math::ln(normaliser.sum);
    let surprise = |c: &Candidate| log_sum - (f64::from(c.logit) - normaliser.max);
    let entropy: f64 = candidates.iter().map(|c| normaliser.probability(c) * surprise(c)).sum();
    scores.clear();
    scores.extend(candidates.iter().map(|c| ((surprise(c) - entropy).abs(), normaliser.probability(c), *c)));
    scores.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(a.2.id.cmp(&b.2.id)));
    let mut cumulative = 0.0;
    let last = scores.iter().enumerate().position(|(i, score)| {
        cumulative += score.1;
        cumulative > f64::from(p) && i + 1 >= min_keep
    });
    let kept = last.map_or(scores.len(), |last| last + 1);
    candidates.replace(scores[..kept].iter().map(|score| score.2));
}

/// Keeps logits within `n` standard deviations of the largest (Tang et al. 2024); 0 or less keeps all.
pub(super) fn top_n_sigma(candidates: &mut Candidates, n: f32) {
    let Some(best) = candidates.best() else { return };
    if n <= 0.0 || candidates.len() < 2 {
        return;
    }
    let count = candidates.len() as f64;
    let mean = candidates.iter().map(|c| f64::from(c.logit)).sum::<f64>() / count;
    let squares: f64 =
        candidates.iter().map(|c| (f64::from(c.logit) - mean) * (f64::from(c.logit) - mean)).sum();
    let least = f64::from(best.logit) - f64::from(n) * (squares / count).sqrt();
    candidates.retain(|c| f64::from(c.logit) >= least);
}

/// Removes all tokens of probability `threshold` or more but the least likely of them, if `chance` (uniform in [0, 1))
/// does not exceed `probability`; acts only where there are at least two such tokens.
pub(super) fn xtc(
    candidates: &mut Candidates,
    probability: f32,
    threshold: f32,
    min_keep: usize,
    chance: f64,
) {
    if probability <= 0.0 || threshold > 0.5 || candidates.len() < 2 || chance > f64::from(probability) {
        return;
    }
    candidates.sort();
    let Some(normaliser) = candidates.normaliser() else { return };
    let n_top = candidates.iter().take_while(|c| normaliser.probability(c) >= f64::from(threshold)).count();
    let n_drop = n_top.saturating_sub(1);
    if n_drop > 0 && candidates.len() - n_drop >= min_keep {
        candidates.drop_best(n_drop);
    }
}
