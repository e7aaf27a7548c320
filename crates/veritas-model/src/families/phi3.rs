//! Phi-3: fused query, key and value, fused gate and up, LongRoPE.

use crate::build::Builder;
use crate::error::Error;
use crate::plan::{Activation, NormKind, Plan};
use crate::rope::RopeStyle;

pub(crate) fn build(b: &Builder<'_>) -> Result<Plan, Error> {
    let window = b.window()?;
    let layers = (0..b.sizes.n_layers).map(|i| {
        let mut attention = b.attention(i)?;
        attention.window = window;
        b.layer(i, NormKind::Rms, attention, b.gated(i, Activation::Silu)?)
    });
    b.decoder(NormKind::Rms, vec![b.rope(RopeStyle::Neox)?], layers)
}
