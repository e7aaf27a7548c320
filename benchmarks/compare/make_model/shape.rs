//! The shape of a model: what its file says besides weights.

use anyhow::{Context, Result, bail};
use serde::Deserialize;

const SHAPES: &str = include_str!("../shapes.toml");

/// A shape of `shapes.toml`, which says what each field is.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Shape {
    pub(crate) name: String,
    pub(crate) architecture: String,
    pub(crate) n_layers: u32,
    pub(crate) n_embedding: u32,
    pub(crate) n_feed_forward: u32,
    pub(crate) n_heads: u32,
    pub(crate) n_kv_heads: u32,
    pub(crate) head_dim: u32,
    pub(crate) n_context: u32,
    pub(crate) rope_base: f32,
    pub(crate) rms_epsilon: f32,
    pub(crate) has_qkv_bias: bool,
    pub(crate) n_vocab: u32,
    pub(crate) pre_tokenizer: String,
    pub(crate) control_tokens: [String; 3],
    pub(crate) rope_scaling: Option<RopeScaling>,
}

/// How Llama 3.1 and later stretch the rotary frequencies.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RopeScaling {
    factor: f64,
    low_frequency_factor: f64,
    high_frequency_factor: f64,
    n_context_trained: f64,
}

impl Shape {
    pub(crate) fn find(name: &str) -> Result<Self> {
        let mut shapes = Self::all()?;
        match shapes.iter().position(|shape| shape.name == name) {
            Some(place) => Ok(shapes.swap_remove(place)),
            None => {
                let names = shapes.iter().map(|shape| shape.name.as_str()).collect::<Vec<_>>().join(", ");
                bail!("the shape {name:?} is not known; known are {names}")
            }
        }
    }

    fn all() -> Result<Vec<Self>> {
        #[derive(Deserialize)]
        struct Shapes {
            shape: Vec<Shape>,
        }
        Ok(toml::from_str::<Shapes>(SHAPES).context("shapes.toml")?.shape)
    }

    /// Width of all queries together.
    pub(crate) fn n_query(&self) -> u32 {
        self.n_heads * self.head_dim
    }

    /// Width of all keys together, and of all values.
    pub(crate) fn n_key_value(&self) -> u32 {
        self.n_kv_heads * self.head_dim
    }

    /// What the frequency of each rotary pair is divided by, `head_dim / 2` numbers; `None` if the shape scales none.
    /// The rule is that of Llama 3.1: by the pair's wavelength in positions.
    pub(crate) fn rope_factors(&self) -> Option<Vec<f32>> {
        let scaling = self.rope_scaling?;
        let factors = (0..self.head_dim / 2).map(|pair| {
            let exponent = 2.0 * f64::from(pair) / f64::from(self.head_dim);
            scaling.factor_of(std::f64::consts::TAU * f64::from(self.rope_base).powf(exponent)) as f32
        });
        Some(factors.collect())
    }
}

impl RopeScaling {
    fn factor_of(self, wavelength: f64) -> f64 {
        let turns = self.n_context_trained / wavelength;
        let (low, high) = (self.low_frequency_factor, self.high_frequency_factor);
        if turns <= low {
            self.factor
        } else if turns >= high {
            1.0
        } else {
            let kept = (turns - low) / (high - low);
            1.0 / (kept + (1.0 - kept) / self.factor)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_shape_is_an_error_that_lists_the_known_ones() {
        let error = Shape::find("gpt-5").unwrap_err().to_string();
        assert_eq!(error, "the shape \"gpt-5\" is not known; known are qwen2.5-0.5b, llama-3.2-1b");
    }

    #[test]
    fn every_shape_splits_its_width_into_heads() {
        for shape in Shape::all().unwrap() {
            assert_eq!(shape.n_query(), shape.n_embedding, "{}", shape.name);
            assert_eq!(shape.n_heads % shape.n_kv_heads, 0, "{}", shape.name);
        }
    }

    #[test]
    fn short_wavelengths_are_kept_and_long_ones_stretched() {
        assert_eq!(Shape::find("qwen2.5-0.5b").unwrap().rope_factors(), None);
        let factors = Shape::find("llama-3.2-1b").unwrap().rope_factors().unwrap();
        assert_eq!((factors.len(), factors[0], factors[31]), (32, 1.0, 32.0));
        assert!(factors.is_sorted() && factors.iter().any(|&factor| factor > 1.0 && factor < 32.0));
        // The wavelength of pair 16 is 2π·√500 000 ≈ 4443 positions, so 8192 hold 1.8438 turns: 28.13 % of the way
        // from 1 to 4, and 1 / (0.2813 + 0.7187 / 32) = 3.292.
        assert!((factors[16] - 3.292).abs() < 1e-3, "{}", factors[16]);
    }
}
