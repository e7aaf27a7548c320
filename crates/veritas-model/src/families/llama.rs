//! Llama and what is built like it (Mistral, Vicuna, TinyLlama …), and SmolLM3.
//!
//! The files hold query and key rows permuted, so that rotary pairs are neighbours. A Mistral file does not say that it
//! was trained with a sliding window; told by `--override-kv llama.attention.sliding_window=int:N`, the plan has it.

use crate::build::Builder;
use crate::error::Error;
use crate::plan::{Activation, NormKind, Plan, RouterScore};
use crate::rope::RopeStyle;

pub(crate) fn build_llama(b: &Builder<'_>) -> Result<Plan, Error> {
    build(b, |_| true)
}

/// SmolLM3: every fourth layer has no rotary embedding.
pub(crate) fn build_smollm3(b: &Builder<'_>) -> Result<Plan, Error> {
    build(b, |layer| (layer + 1) % 4 != 0)
}

fn build(b: &Builder<'_>, has_rope: impl Fn(usize) -> bool) -> Result<Plan, Error> {
    let window = b.window()?;
    let layers = (0..b.sizes.n_layers).map(|i| {
        let mut attention = b.attention(i)?;
        attention.window = window;
        if !has_rope(i) {
            attention.rope = None;
        }
        let ffn = match b.moe(i, RouterScore::Softmax, true)? {
            Some(moe) => moe,
            None => b.gated(i, Activation::Silu)?,
        };
        b.layer(i, NormKind::Rms, attention, ffn)
    });
    b.decoder(NormKind::Rms, vec![b.rope(RopeStyle::Interleaved)?], layers)
}
