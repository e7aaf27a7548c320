//! Rotary position embeddings as data: which pairs turn, how fast, and how a longer context is reached.

use crate::plan::VectorRef;

/// Which values of a head form a pair that is turned together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RopeStyle {
    /// Values `2i` and `2i + 1`.
    Interleaved,
    /// Values `i` and `i + n_dims / 2`.
    Neox,
}

/// A rotary embedding: pair `i` at position `p` turns by `p * theta^(-2i / n_dims)`, changed by the scaling.
#[derive(Clone, Debug, PartialEq)]
pub struct Rope {
    /// Which values form a pair.
    pub style: RopeStyle,
    /// Values of a head that turn; the others stay. Even, at most the head's size.
    pub n_dims: usize,
    /// The base of the frequencies, `theta`.
    pub theta: f64,
    /// How a longer context is reached.
    pub scaling: RopeScaling,
    /// What cosine and sine are multiplied with, apart from what the scaling says.
    pub magnitude: f32,
}

/// How the frequencies are changed for a longer context than that of the first training.
#[derive(Clone, Debug, PartialEq)]
pub enum RopeScaling {
    /// Not at all.
    None,
    /// Every position is divided by the factor.
    Linear {
        /// The factor.
        factor: f64,
    },
    /// Each frequency is divided by a factor of its own (the form in which files hold the scaling of Llama 3).
    Factors(VectorRef),
    /// YaRN (Peng et al. 2023, "YaRN: Efficient Context Window Extension of Large Language Models"): slow pairs are
    /// interpolated, fast ones left alone, a ramp between them; cosine and sine are multiplied with
    /// `0.1 ln(factor) + 1` (the temperature of the softmax, equation 22 of the paper).
    Yarn {
        /// How much longer the context is than the original one.
        factor: f64,
        /// The context of the first training.
        original_context: usize,
        /// Pairs that turn more often than this in the original context are left alone.
        beta_fast: f64,
        /// Pairs that turn less often than this are interpolated.
        beta_slow: f64,
        /// Weight of the pairs that are left alone; 1 where the file says nothing.
        extrapolation: f64,
    },
    /// LongRoPE (Ding et al. 2024): two sets of factors; the long one is taken for a sequence that may grow beyond the
    /// original context, which is decided when the request is admitted and never changes.
    LongRope {
        /// Factors within the original context.
        short: VectorRef,
        /// Factors beyond it.
        long: VectorRef,
        /// The context of the first training.
        original_context: usize,
    },
}
