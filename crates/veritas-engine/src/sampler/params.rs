//! What a request may ask of the sampler, in the names of llama.cpp's server and with its defaults.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use veritas_base::TokenId;

use super::error::Error;
use super::limits::{MAX_CHAIN, MAX_DRY_BREAKER_BYTES, MAX_DRY_BREAKERS, MAX_LOGIT_BIASES, MAX_TOP_LOGPROBS};
use super::stop;

/// One link of the sampler chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum SamplerKind {
    /// Repeat, presence and frequency penalties.
    Penalties,
    /// "Don't repeat yourself": penalises the token that would extend a repetition.
    Dry,
    /// Keeps logits within n standard deviations of the largest.
    TopNSigma,
    /// Keeps the k most likely tokens.
    TopK,
    /// Keeps the tokens whose surprise is closest to the entropy.
    TypP,
    /// Keeps the smallest set of most likely tokens that reaches a probability.
    TopP,
    /// Keeps tokens at least a share as likely as the likeliest.
    MinP,
    /// "Exclude top choices": now and then removes all likely tokens but the least likely of them.
    Xtc,
    /// Divides the logits, by a fixed or by an entropy-dependent temperature.
    Temperature,
}

const KINDS: [(SamplerKind, &str, &[&str]); 9] = [
    (SamplerKind::Penalties, "penalties", &[]),
    (SamplerKind::Dry, "dry", &[]),
    (SamplerKind::TopNSigma, "top_n_sigma", &["topnsigma"]),
    (SamplerKind::TopK, "top_k", &["topk"]),
    (SamplerKind::TypP, "typ_p", &["typp", "typ", "typical", "typical_p"]),
    (SamplerKind::TopP, "top_p", &["topp", "nucleus"]),
    (SamplerKind::MinP, "min_p", &["minp"]),
    (SamplerKind::Xtc, "xtc", &[]),
    (SamplerKind::Temperature, "temperature", &["temp"]),
];

impl SamplerKind {
    /// llama.cpp's default order.
    pub const DEFAULT_CHAIN: [SamplerKind; 9] = [
        SamplerKind::Penalties,
        SamplerKind::Dry,
        SamplerKind::TopNSigma,
        SamplerKind::TopK,
        SamplerKind::TypP,
        SamplerKind::TopP,
        SamplerKind::MinP,
        SamplerKind::Xtc,
        SamplerKind::Temperature,
    ];

    /// The canonical name, as in llama.cpp's `--samplers`.
    pub fn name(self) -> &'static str {
        KINDS[self as usize].1
    }

    /// A chain as `--samplers` and `general.sampling.sequence` write it: names joined by `;`. Case does not matter,
    /// dashes stand for underscores, and llama.cpp's aliases (`nucleus`, `temp`, `typ`, `topk` …) are known.
    ///
    /// # Errors
    /// [`Error::UnknownSampler`]; llama.cpp leaves such a name out with a warning.
    pub fn parse_chain(text: &str) -> Result<Vec<SamplerKind>, Error> {
        text.split(';').map(str::trim).filter(|name| !name.is_empty()).map(str::parse).collect()
    }
}

impl FromStr for SamplerKind {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        let plain = name.to_ascii_lowercase().replace('-', "_");
        let known = KINDS
            .iter()
            .find(|(_, canonical, aliases)| *canonical == plain || aliases.contains(&plain.as_str()));
        known.map(|(kind, ..)| *kind).ok_or_else(|| Error::UnknownSampler { name: name.to_owned() })
    }
}

impl fmt::Display for SamplerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl TryFrom<String> for SamplerKind {
    type Error = Error;

    fn try_from(name: String) -> Result<Self, Error> {
        name.parse()
    }
}

impl From<SamplerKind> for String {
    fn from(kind: SamplerKind) -> Self {
        kind.name().to_owned()
    }
}

/// Sampling parameters of a request. Missing fields of a serialised form take the defaults, unknown ones are errors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SamplingParams {
    /// Seed of the generator. `None`: chosen when the request is admitted; a sampler that draws needs one.
    pub seed: Option<u64>,
    /// Divides the logits; 0 or less is greedy.
    #[serde(alias = "temp")]
    pub temperature: f32,
    /// Half-width of the range of a temperature that grows with the entropy; 0 is off.
    pub dynatemp_range: f32,
    /// Exponent of the normalised entropy there.
    pub dynatemp_exponent: f32,
    /// Number of most likely tokens kept; 0 or less keeps all.
    pub top_k: i32,
    /// Cumulative probability kept, in [0, 1]; 1 is off.
    pub top_p: f32,
    /// Least probability kept, as a share of the largest, in [0, 1]; 0 is off.
    pub min_p: f32,
    /// Probability mass kept by typical sampling, in [0, 1]; 1 is off.
    #[serde(alias = "typ_p")]
    pub typical_p: f32,
    /// Standard deviations below the largest logit that are kept; 0 or less is off.
    pub top_n_sigma: f32,
    /// Probability that XTC acts at a position; 0 is off.
    pub xtc_probability: f32,
    /// Probability from which XTC counts a token as a top choice; above 0.5 is off.
    pub xtc_threshold: f32,
    /// Tokens, prompt included, that the penalties look back on; 0 is off, −1 the whole sequence.
    #[serde(alias = "penalty_last_n")]
    pub repeat_last_n: i32,
    /// Divides positive and multiplies negative logits of tokens in the window; 1 is off.
    #[serde(alias = "penalty_repeat")]
    pub repeat_penalty: f32,
    /// Subtracted from the logit of each token in the window.
    #[serde(alias = "penalty_present")]
    pub presence_penalty: f32,
    /// Subtracted from the logit of each token once per occurrence in the window.
    #[serde(alias = "penalty_freq")]
    pub frequency_penalty: f32,
    /// Scale of DRY's penalty; 0 is off.
    pub dry_multiplier: f32,
    /// Base of DRY's exponential; below 1 is off.
    pub dry_base: f32,
    /// Length of a repetition up to which DRY is silent.
    pub dry_allowed_length: u32,
    /// Tokens, prompt included, that DRY looks back on; 0 is off, −1 the whole sequence.
    pub dry_penalty_last_n: i32,
    /// Texts at which DRY stops looking back.
    pub dry_sequence_breakers: Vec<String>,
    /// 0 off, 1 or 2: mirostat replaces the chain but for bias, bans and temperature.
    pub mirostat: u8,
    /// Mirostat's target surprise, in bits.
    pub mirostat_tau: f32,
    /// Mirostat's learning rate.
    pub mirostat_eta: f32,
    /// Least number of tokens that top-p, min-p, typical and XTC leave; 0 asks for nothing beyond one.
    pub min_keep: u32,
    /// The chain, in order.
    pub samplers: Vec<SamplerKind>,
    /// Added to the logits of these tokens first of all; −∞ (in JSON `false`) forbids one.
    #[serde(with = "bias_map")]
    pub logit_bias: BTreeMap<TokenId, f32>,
    /// Forbids every token that ends a generation.
    pub ignore_eos: bool,
    /// Tokens of the answer before which no token may end it.
    pub min_tokens: u32,
    /// Most tokens of the answer; `None`: until the context is full.
    #[serde(alias = "n_predict")]
    pub max_tokens: Option<u32>,
    /// Texts that end the answer and are cut from it.
    pub stop: Vec<String>,
    /// Report the log-probability of each chosen token, and of this many most likely ones beside it.
    #[serde(alias = "n_probs")]
    pub logprobs: Option<u32>,
}

impl Default for SamplingParams {
    /// llama.cpp's defaults (`common_params_sampling`).
    fn default() -> Self {
        Self {
            seed: None,
            temperature: 0.8,
            dynatemp_range: 0.0,
            dynatemp_exponent: 1.0,
            top_k: 40,
            top_p: 0.95,
            min_p: 0.05,
            typical_p: 1.0,
            top_n_sigma: -1.0,
            xtc_probability: 0.0,
            xtc_threshold: 0.1,
            repeat_last_n: 64,
            repeat_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            dry_multiplier: 0.0,
            dry_base: 1.75,
            dry_allowed_length: 2,
            dry_penalty_last_n: 64,
            dry_sequence_breakers: ["\n", ":", "\"", "*"].map(str::to_owned).to_vec(),
            mirostat: 0,
            mirostat_tau: 5.0,
            mirostat_eta: 0.1,
            min_keep: 0,
            samplers: SamplerKind::DEFAULT_CHAIN.to_vec(),
            logit_bias: BTreeMap::new(),
            ignore_eos: false,
            min_tokens: 0,
            max_tokens: None,
            stop: Vec::new(),
            logprobs: None,
        }
    }
}

impl SamplingParams {
    /// Whether the token is always the one with the largest processed logit.
    pub fn is_greedy(&self) -> bool {
        self.temperature <= 0.0 && (self.dynatemp_range <= 0.0 || self.mirostat != 0)
    }

    /// Checks every field.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] with the name, the value and the range of the first field that is wrong.
    pub fn validate(&self) -> Result<(), Error> {
        let finite = f32::is_finite;
        let unit = |x: f32| (0.0..=1.0).contains(&x);
        let from_zero = |x: f32| finite(x) && x >= 0.0;
        let floats: [(&'static str, f32, bool, &'static str); 17] = [
            ("temperature", self.temperature, finite(self.temperature), "a finite number"),
            ("dynatemp_range", self.dynatemp_range, from_zero(self.dynatemp_range), "0 or more"),
            ("dynatemp_exponent", self.dynatemp_exponent, from_zero(self.dynatemp_exponent), "0 or more"),
            ("top_p", self.top_p, unit(self.top_p), "0 to 1"),
            ("min_p", self.min_p, unit(self.min_p), "0 to 1"),
            ("typical_p", self.typical_p, unit(self.typical_p), "0 to 1"),
            ("top_n_sigma", self.top_n_sigma, finite(self.top_n_sigma), "a finite number"),
            ("xtc_probability", self.xtc_probability, unit(self.xtc_probability), "0 to 1"),
            ("xtc_threshold", self.xtc_threshold, unit(self.xtc_threshold), "0 to 1"),
            (
                "repeat_penalty",
                self.repeat_penalty,
                from_zero(self.repeat_penalty) && self.repeat_penalty > 0.0,
                "above 0",
            ),
            ("presence_penalty", self.presence_penalty, finite(self.presence_penalty), "a finite number"),
            ("frequency_penalty", self.frequency_penalty, finite(self.frequency_penalty), "a finite number"),
            ("dry_multiplier", self.dry_multiplier, from_zero(self.dry_multiplier), "0 or more"),
            ("dry_base", self.dry_base, from_zero(self.dry_base), "0 or more"),
            ("mirostat", f32::from(self.mirostat), self.mirostat <= 2, "0, 1 or 2"),
            ("mirostat_tau", self.mirostat_tau, from_zero(self.mirostat_tau), "0 or more"),
            ("mirostat_eta", self.mirostat_eta, from_zero(self.mirostat_eta), "0 or more"),
        ];
        for (name, value, good, expected) in floats {
            require(good, name, value, expected)?;
        }
        require(self.repeat_last_n >= -1, "repeat_last_n", self.repeat_last_n, "-1 or more")?;
        require(self.dry_penalty_last_n >= -1, "dry_penalty_last_n", self.dry_penalty_last_n, "-1 or more")?;
        require(self.samplers.len() <= MAX_CHAIN, "samplers", self.samplers.len(), "at most 32 samplers")?;
        let n_breakers = self.dry_sequence_breakers.len();
        require(n_breakers <= MAX_DRY_BREAKERS, "dry_sequence_breakers", n_breakers, "at most 64 strings")?;
        for breaker in &self.dry_sequence_breakers {
            let good = (1..=MAX_DRY_BREAKER_BYTES).contains(&breaker.len());
            require(good, "dry_sequence_breakers", format!("{breaker:?}"), "strings of 1 to 40 bytes")?;
        }
        let n_biases = self.logit_bias.len();
        require(n_biases <= MAX_LOGIT_BIASES, "logit_bias", n_biases, "at most 65536 tokens")?;
        for bias in self.logit_bias.values() {
            require(
                finite(*bias) || *bias == f32::NEG_INFINITY,
                "logit_bias",
                bias,
                "finite numbers or minus infinity",
            )?;
        }
        let n_top = self.logprobs.unwrap_or(0);
        require(n_top <= MAX_TOP_LOGPROBS, "logprobs", n_top, "at most 1024")?;
        stop::validate(&self.stop)
    }
}

fn require(
    good: bool,
    name: &'static str,
    value: impl fmt::Display,
    expected: &'static str,
) -> Result<(), Error> {
    if good { Ok(()) } else { Err(Error::OutOfRange { name, value: value.to_string(), expected }) }
}

/// A JSON object from token id to a number, or to `false` for a ban: JSON knows no infinity.
mod bias_map {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
    use veritas_base::TokenId;

    #[derive(Serialize, Deserialize)]
    #[serde(untagged)]
    enum Bias {
        Number(f32),
        Flag(bool),
    }

    pub(super) fn serialize<S: Serializer>(map: &BTreeMap<TokenId, f32>, to: S) -> Result<S::Ok, S::Error> {
        let bias = |x: &f32| if *x == f32::NEG_INFINITY { Bias::Flag(false) } else { Bias::Number(*x) };
        to.collect_map(map.iter().map(|(id, x)| (id, bias(x))))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<BTreeMap<TokenId, f32>, D::Error> {
        let map = BTreeMap::<TokenId, Bias>::deserialize(from)?;
        map.into_iter()
            .map(|(id, bias)| match bias {
                Bias::Number(x) => Ok((id, x)),
                Bias::Flag(false) => Ok((id, f32::NEG_INFINITY)),
                Bias::Flag(true) => Err(D::Error::custom("a logit bias is a number or false")),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid_and_survive_json() {
        let params = SamplingParams::default();
        params.validate().expect("the defaults are in range");
        let json = serde_json::to_string(&params).expect("plain data");
        assert_eq!(serde_json::from_str::<SamplingParams>(&json).expect("what was written"), params);
        assert_eq!(serde_json::from_str::<SamplingParams>("{}").expect("an empty object"), params);
    }

    #[test]
    fn an_unknown_field_is_an_error() {
        assert!(serde_json::from_str::<SamplingParams>(r#"{"top_q": 1}"#).is_err());
    }

    #[test]
    fn a_ban_is_written_as_false() {
        let text = r#"{"logit_bias": {"5": false, "7": 1.5}}"#;
        let params: SamplingParams = serde_json::from_str(text).expect("valid parameters");
        assert_eq!(params.logit_bias, BTreeMap::from([(5, f32::NEG_INFINITY), (7, 1.5)]));
        let again = serde_json::to_string(&params).expect("plain data");
        assert_eq!(serde_json::from_str::<SamplingParams>(&again).expect("what was written"), params);
        assert!(serde_json::from_str::<SamplingParams>(r#"{"logit_bias": {"5": true}}"#).is_err());
    }

    #[test]
    fn values_out_of_range_are_named() {
        let bad = [
            (SamplingParams { top_p: 1.5, ..Default::default() }, "top_p"),
            (SamplingParams { min_p: f32::NAN, ..Default::default() }, "min_p"),
            (SamplingParams { temperature: f32::INFINITY, ..Default::default() }, "temperature"),
            (SamplingParams { repeat_penalty: 0.0, ..Default::default() }, "repeat_penalty"),
            (SamplingParams { mirostat: 3, ..Default::default() }, "mirostat"),
            (SamplingParams { repeat_last_n: -2, ..Default::default() }, "repeat_last_n"),
            (SamplingParams { logprobs: Some(5000), ..Default::default() }, "logprobs"),
            (SamplingParams { stop: vec![String::new()], ..Default::default() }, "stop"),
            (
                SamplingParams { logit_bias: BTreeMap::from([(1, f32::NAN)]), ..Default::default() },
                "logit_bias",
            ),
        ];
        for (params, field) in bad {
            match params.validate() {
                Err(Error::OutOfRange { name, .. }) => assert_eq!(name, field),
                other => panic!("{field}: {other:?}"),
            }
        }
    }

    #[test]
    fn sampler_names_are_those_of_llama_cpp() {
        assert!(KINDS.iter().enumerate().all(|(i, (kind, ..))| *kind as usize == i));
        let chain = SamplerKind::parse_chain("Top-K;nucleus; temp ;typ;minp;").expect("known names");
        use SamplerKind::{MinP, Temperature, TopK, TopP, TypP};
        assert_eq!(chain, [TopK, TopP, Temperature, TypP, MinP]);
        assert_eq!(
            SamplerKind::parse_chain("top_k;infill"),
            Err(Error::UnknownSampler { name: "infill".into() })
        );
    }
}
