//! Qwen2 (biases on queries, keys and values), Qwen3 (a norm on each query and key head), and both with experts.

use crate::build::Builder;
use crate::error::Error;
use crate::plan::{Activation, NormKind, Plan, RouterScore};
use crate::rope::RopeStyle;

pub(crate) fn build_qwen2(b: &Builder<'_>) -> Result<Plan, Error> {
    build(b, false, false)
}

pub(crate) fn build_qwen2_moe(b: &Builder<'_>) -> Result<Plan, Error> {
    build(b, false, false)
}

pub(crate) fn build_qwen3(b: &Builder<'_>) -> Result<Plan, Error> {
    build(b, true, true)
}

pub(crate) fn build_qwen3_moe(b: &Builder<'_>) -> Result<Plan, Error> {
    build(b, true, true)
}

fn build(b: &Builder<'_>, has_qk_norm: bool, renormalise: bool) -> Result<Plan, Error> {
    let layers = (0..b.sizes.n_layers).map(|i| {
        let mut attention = b.attention(i)?;
        if has_qk_norm {
            attention.qk_norm = Some(b.qk_norm_per_head(i)?);
        }
        let ffn = match b.moe(i, RouterScore::Softmax, renormalise)? {
            Some(moe) => moe,
            None => b.gated(i, Activation::Silu)?,
        };
        b.layer(i, NormKind::Rms, attention, ffn)
    });
    b.decoder(NormKind::Rms, vec![b.rope(RopeStyle::Neox)?], layers)
}
