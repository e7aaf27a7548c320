//! StarCoder2: layer norms and biases everywhere, a plain feed-forward part with GELU.

use crate::build::Builder;
use crate::error::Error;
use crate::plan::{Activation, NormKind, Plan};
use crate::rope::RopeStyle;

pub(crate) fn build(b: &Builder<'_>) -> Result<Plan, Error> {
    let window = b.window()?;
    let layers = (0..b.sizes.n_layers).map(|i| {
        let mut attention = b.attention(i)?;
        attention.window = window;
        b.layer(i, NormKind::Layer, attention, b.plain(i, Activation::GeluTanh)?)
    });
    b.decoder(NormKind::Layer, vec![b.rope(RopeStyle::Neox)?], layers)
}
