//! Temperature, fixed or growing with the entropy.

use veritas_kernels::math;

use super::candidates::{Candidates, to_logit};

/// Divides the logits by `temperature`; 0 or less leaves the most likely token alone.
pub(super) fn temperature(candidates: &mut Candidates, temperature: f64) {
    if temperature <= 0.0 {
        candidates.keep_best(1);
    } else if temperature != 1.0 {
        candidates.scale(|logit| to_logit(f64::from(logit) / temperature));
    }
}

/// A temperature between `temperature - range` (not below 0) and `temperature + range`: the entropy of the candidates,
/// as a share of the largest that so many could have, raised to `exponent`, says where. `range` 0 is the fixed one.
pub(super) fn dynamic(candidates: &mut Candidates, base: f32, range: f32, exponent: f32) {
    if range <= 0.0 {
        return temperature(candidates, f64::from(base));
    }
    if candidates.len() < 2 {
        return;
    }
    let Some(normaliser) = candidates.normaliser() else { return };
    let log_sum = math::ln(normaliser.sum);
    let entropy: f64 = candidates
        .iter()
        .map(|c| normaliser.probability(c) * (log_sum - (f64::from(c.logit) - normaliser.max)))
        .sum();
    let share = (entropy / math::ln(candidates.len() as f64)).clamp(0.0, 1.0);
    let (low, high) = ((f64::from(base) - f64::from(range)).max(0.0), f64::from(base) + f64::from(range));
    let position = if exponent == 0.0 {
        1.0
    } else if share == 0.0 {
        0.0
    } else {
        math::pow(share, f64::from(exponent))
    };
    temperature(candidates, low + (high - low) * position);
}
