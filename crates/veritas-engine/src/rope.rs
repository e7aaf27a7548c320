//! Cosine and sine of the rotary embeddings, for the positions of a step.
//!
//! Angles are computed in f64 with polynomials of our own, so that a table has the same bits on every machine, also
//! at positions where an angle in f32 would be off by hundredths.

use veritas_kernels::math;
use veritas_model::{Rope, RopeScaling};

use crate::error::Error;
use crate::files::ModelFiles;

/// Which set of factors a sequence uses. It is decided when the sequence is admitted, from its prompt and the tokens
/// that it may generate, and never changes; it matters to LongRoPE alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RopeReach {
    /// The sequence stays within the original context.
    Short,
    /// It may grow beyond.
    Long,
}

/// A rotary embedding with its frequencies computed.
#[derive(Clone, Debug)]
pub(crate) struct RopeFrequencies {
    short: Vec<f64>,
    /// Empty where both are the same.
    long: Vec<f64>,
    magnitude: f64,
}

impl RopeFrequencies {
    pub(crate) fn new(rope: &Rope, files: &ModelFiles) -> Result<Self, Error> {
        let n_pairs = rope.n_dims / 2;
        let plain = (0..n_pairs)
            .map(|i| math::pow(rope.theta, -2.0 * i as f64 / rope.n_dims as f64))
            .collect::<Vec<_>>();
        let divided = |factors: &veritas_model::VectorRef| -> Result<Vec<f64>, Error> {
            let factors = files.vector(factors)?;
            if let Some(bad) = factors.iter().find(|factor| !(factor.is_finite() && **factor > 0.0)) {
                return Err(Error::RopeFactor { found: *bad });
            }
            Ok(plain.iter().zip(factors).map(|(frequency, factor)| frequency / f64::from(factor)).collect())
        };
        let mut magnitude = f64::from(rope.magnitude);
        let (short, long) = match &rope.scaling {
            RopeScaling::None => (plain, Vec::new()),
            RopeScaling::Linear { factor } => (plain.iter().map(|f| f / factor).collect(), Vec::new()),
            RopeScaling::Factors(factors) => (divided(factors)?, Vec::new()),
            RopeScaling::LongRope { short, long, .. } => (divided(short)?, divided(long)?),
            RopeScaling::Yarn { factor, original_context, beta_fast, beta_slow, extrapolation } => {
                magnitude *= 0.1 * math::ln(factor.max(1.0)) + 1.0;
                let corner = |turns: f64| {
                    let wavelength = *original_context as f64 / (turns * std::f64::consts::TAU);
                    rope.n_dims as f64 * math::ln(wavelength) / (2.0 * math::ln(rope.theta))
                };
                let low = corner(*beta_fast).floor().max(0.0);
                let high = corner(*beta_slow).ceil().min(rope.n_dims as f64 - 1.0);
                // The paper's authors avoid a division by zero in the same way.
                let width = if high > low { high - low } else { 0.001 };
                let blended = plain.iter().enumerate().map(|(i, frequency)| {
                    let ramp = ((i as f64 - low) / width).clamp(0.0, 1.0);
                    let kept = (1.0 - ramp) * extrapolation;
                    frequency / factor * (1.0 - kept) + frequency * kept
                });
                (blended.collect(), Vec::new())
            }
        };
        Ok(Self { short, long, magnitude })
    }

    /// Pairs that turn.
    pub(crate) fn n_pairs(&self) -> usize {
        self.short.len()
    }

    /// Cosine and sine of `position` for each pair.
    pub(crate) fn fill(&self, position: usize, reach: RopeReach, cos: &mut [f32], sin: &mut [f32]) {
        let frequencies = match reach {
            RopeReach::Long if !self.long.is_empty() => &self.long,
            _ => &self.short,
        };
        for ((frequency, cos), sin) in frequencies.iter().zip(cos).zip(sin) {
            let (s, c) = math::sin_cos(position as f64 * frequency);
            *cos = (c * self.magnitude) as f32;
            *sin = (s * self.magnitude) as f32;
        }
    }
}

/// The reach of a sequence of at most `n_tokens` tokens under these rotary embeddings.
pub fn reach_of(ropes: &[Rope], n_tokens: usize) -> RopeReach {
    let is_long = ropes.iter().any(|rope| match &rope.scaling {
        RopeScaling::LongRope { original_context, .. } => n_tokens > *original_context,
        _ => false,
    });
    if is_long { RopeReach::Long } else { RopeReach::Short }
}
