//! From the sampling parameters of the wire to those of the engine.

use veritas_engine::sampler::{SamplerKind, SamplingParams};
use veritas_proto::v1;

use crate::failure::Failure;

/// Changes the model's defaults by what a request says. A seed is drawn where none is given.
pub(super) fn apply(defaults: SamplingParams, wire: &v1::Sampling) -> Result<SamplingParams, Failure> {
    let mut params = defaults;
    macro_rules! set {
        ($($field:ident),* $(,)?) => {
            $(if let Some(value) = wire.$field { params.$field = value; })*
        };
    }
    set!(
        temperature,
        top_k,
        top_p,
        min_p,
        typical_p,
        top_n_sigma,
        xtc_probability,
        xtc_threshold,
        dynatemp_range,
        dynatemp_exponent,
        repeat_last_n,
        repeat_penalty,
        presence_penalty,
        frequency_penalty,
        dry_multiplier,
        dry_base,
        dry_allowed_length,
        dry_penalty_last_n,
        mirostat_tau,
        mirostat_eta,
        min_tokens,
    );
    if let Some(mirostat) = wire.mirostat {
        params.mirostat = u8::try_from(mirostat)
            .map_err(|_| Failure::usage(format!("mirostat is {mirostat}, but must be 0, 1 or 2")))?;
    }
    if !wire.dry_sequence_breakers.is_empty() {
        params.dry_sequence_breakers.clone_from(&wire.dry_sequence_breakers);
    }
    if let Some(chain) = &wire.samplers {
        params.samplers = SamplerKind::parse_chain(chain)?;
    }
    params.logit_bias.extend(wire.logit_bias.iter().map(|bias| (bias.id, bias.bias)));
    params.max_tokens = wire.max_tokens;
    params.stop.clone_from(&wire.stop);
    params.ignore_eos = wire.ignore_eos;
    params.logprobs = wire.logprobs;
    params.seed = Some(match wire.seed {
        Some(seed) => seed,
        None => random_seed()?,
    });
    params.validate()?;
    Ok(params)
}

fn random_seed() -> Result<u64, Failure> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(|error| {
        Failure::internal(format!("the system gives no random seed: {error}")).hint("give one with --seed")
    })?;
    // JSON readers keep whole numbers up to 2^53.
    Ok(u64::from_le_bytes(bytes) >> 11)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_absent_stays_as_the_model_has_it() {
        let defaults = SamplingParams { temperature: 0.25, top_k: 7, ..SamplingParams::default() };
        let wire = v1::Sampling { top_k: Some(3), seed: Some(5), ..v1::Sampling::default() };
        let params = apply(defaults.clone(), &wire).unwrap();
        assert_eq!(params, SamplingParams { top_k: 3, seed: Some(5), ..defaults });
    }

    #[test]
    fn what_makes_no_sense_is_a_usage_error() {
        let wrong = [
            v1::Sampling { mirostat: Some(300), ..v1::Sampling::default() },
            v1::Sampling { samplers: Some("nonsense".to_owned()), ..v1::Sampling::default() },
            v1::Sampling { temperature: Some(f32::NAN), ..v1::Sampling::default() },
        ];
        for wire in wrong {
            let failure = apply(SamplingParams::default(), &wire).unwrap_err();
            assert_eq!(failure.code, crate::failure::Code::Usage, "{failure}");
        }
    }

    #[test]
    fn a_seed_is_drawn_where_none_is_given() {
        let draw = || apply(SamplingParams::default(), &v1::Sampling::default()).unwrap().seed.unwrap();
        assert!((0..4).map(|_| draw()).collect::<std::collections::BTreeSet<_>>().len() > 1);
    }
}
