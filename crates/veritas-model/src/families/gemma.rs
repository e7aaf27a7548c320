//! Gemma, Gemma 2 and Gemma 3: scaled embeddings, GeGLU, from the second on norms on both sides of each half and
//! layers with a sliding window between layers without.
//!
//! The files hold `1 + w` for each norm's weight `w`.

use crate::build::Builder;
use crate::error::Error;
use crate::plan::{Activation, Attention, Layer, NormKind, Plan};
use crate::rope::{Rope, RopeScaling, RopeStyle};

/// Layers of Gemma 2 27B and Gemma 3 27B. These two scale their scores by the hidden width per head, not by the head's
/// size; no metadata key says so.
const GEMMA2_27B_LAYERS: usize = 46;
const GEMMA3_27B_LAYERS: usize = 62;

/// Gemma 3 has five layers with a window, then one without.
const GEMMA3_PERIOD: usize = 6;

pub(crate) fn build_gemma(b: &Builder<'_>) -> Result<Plan, Error> {
    build(b, vec![b.rope(RopeStyle::Neox)?], false, |_, attention| Ok(attention))
}

pub(crate) fn build_gemma2(b: &Builder<'_>) -> Result<Plan, Error> {
    let window = b.window()?;
    let softcap = b.softcap("attn_logit_softcapping")?;
    let mut plan = build(b, vec![b.rope(RopeStyle::Neox)?], true, |layer, attention| {
        let window = window.filter(|_| layer % 2 == 0);
        Ok(Attention { window, softcap, scale: scale(b, GEMMA2_27B_LAYERS), ..attention })
    })?;
    plan.head.softcap = b.softcap("final_logit_softcapping")?;
    Ok(plan)
}

pub(crate) fn build_gemma3(b: &Builder<'_>) -> Result<Plan, Error> {
    let window = b.window()?;
    let global = b.rope(RopeStyle::Neox)?;
    let theta = f64::from(b.positive("rope.freq_base_swa", Some(10_000.0))?);
    let local = Rope { theta, scaling: RopeScaling::None, magnitude: 1.0, ..global.clone() };
    let mut plan = build(b, vec![local, global], true, |layer, attention| {
        let is_global = (layer + 1) % GEMMA3_PERIOD == 0;
        Ok(Attention {
            window: window.filter(|_| !is_global),
            rope: Some(usize::from(is_global)),
            qk_norm: Some(b.qk_norm_per_head(layer)?),
            scale: scale(b, GEMMA3_27B_LAYERS),
            ..attention
        })
    })?;
    plan.head.softcap = b.softcap("final_logit_softcapping")?;
    Ok(plan)
}

fn scale(b: &Builder<'_>, layers_of_27b: usize) -> f32 {
    let size = match b.sizes.n_layers == layers_of_27b {
        true => b.sizes.hidden as f32 / b.sizes.n_heads as f32,
        false => b.sizes.head_dim_k as f32,
    };
    1.0 / size.sqrt()
}

fn build(
    b: &Builder<'_>,
    ropes: Vec<Rope>,
    has_post_norms: bool,
    change: impl Fn(usize, Attention) -> Result<Attention, Error>,
) -> Result<Plan, Error> {
    let hidden = b.sizes.hidden;
    let layers = (0..b.sizes.n_layers).map(|i| {
        let norm = |part: &str| b.rms_norm(&format!("blk.{i}.{part}"), hidden);
        let post_norm = |part: &str| has_post_norms.then(|| norm(part)).transpose();
        let attention = change(i, b.attention(i)?)?;
        Ok(Layer {
            mixer_post_norm: post_norm("post_attention_norm")?,
            ffn_post_norm: post_norm("post_ffw_norm")?,
            ..b.layer(i, NormKind::Rms, attention, b.gated(i, Activation::GeluTanh)?)?
        })
    });
    let mut plan = b.decoder(NormKind::Rms, ropes, layers)?;
    plan.embedding.scale = (hidden as f32).sqrt();
    Ok(plan)
}
