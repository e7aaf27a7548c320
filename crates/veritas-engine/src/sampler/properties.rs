//! Any parameters, any logits, any history: the chain is its naive definition, and extremes still give a token.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::tests::{Toy, naive_chain, off, same, sampler, survivors};
use super::*;

fn any_params() -> impl Strategy<Value = SamplingParams> {
    let cuts = (0i32..12, 0.01f32..1.1, 0.0f32..1.0, 0.05f32..1.1, -0.5f32..2.5);
    let xtc = (0.0f32..1.0, 0.0f32..0.6);
    let repeats = (-1i32..12, 0.5f32..2.0, -1.0f32..1.0, -1.0f32..1.0);
    let dry = (0.0f32..2.0, 0.9f32..2.5, 0u32..4, -1i32..20);
    let temps = (-0.2f32..2.0, prop_oneof![Just(0.0f32), 0.0f32..1.5], 0.0f32..3.0);
    let rest = (0u32..4, any::<u64>(), prop::collection::vec(0usize..9, 0..9));
    (cuts, xtc, repeats, dry, temps, rest).prop_map(|(cuts, xtc, repeats, dry, temps, rest)| SamplingParams {
        top_k: cuts.0,
        top_p: cuts.1.min(1.0),
        min_p: cuts.2,
        typical_p: cuts.3.min(1.0),
        top_n_sigma: cuts.4,
        xtc_probability: xtc.0,
        xtc_threshold: xtc.1,
        repeat_last_n: repeats.0,
        repeat_penalty: repeats.1,
        presence_penalty: repeats.2,
        frequency_penalty: repeats.3,
        dry_multiplier: dry.0,
        dry_base: dry.1,
        dry_allowed_length: dry.2,
        dry_penalty_last_n: dry.3,
        dry_sequence_breakers: vec!["\u{4E01}".into(), "\u{4E03}".into()],
        temperature: temps.0,
        dynatemp_range: temps.1,
        dynatemp_exponent: temps.2,
        min_keep: rest.0,
        seed: Some(rest.1),
        samplers: rest.2.into_iter().map(|i| SamplerKind::DEFAULT_CHAIN[i]).collect(),
        ..Default::default()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn each_sampler_alone_is_its_naive_definition(
        params in any_params(),
        kind in 0usize..9,
        logits in prop::collection::vec(-4.0f32..6.0, 1..40),
        seeds in prop::collection::vec(0u32..6, 0..24),
    ) {
        let params = SamplingParams { samplers: vec![SamplerKind::DEFAULT_CHAIN[kind]], ..params };
        let history: Vec<u32> = seeds.iter().map(|s| s % logits.len() as u32).collect();
        let got = survivors(&params, &Toy::new(logits.len(), 0), &logits, &history);
        let want = naive_chain(&params, &logits, &history, &[1, 3]);
        prop_assert!(same(&got, &want), "{:?} want {:?}", got, want);
    }

    #[test]
    fn any_chain_is_the_naive_one_and_draws_the_same_token(
        params in any_params(),
        logits in prop::collection::vec(prop_oneof![-4.0f32..6.0, Just(1.0f32), Just(5.5)], 1..40),
        seeds in prop::collection::vec(0u32..6, 0..24),
    ) {
        let history: Vec<u32> = seeds.iter().map(|s| s % logits.len() as u32).collect();
        // Each step starts from what ours left: a temperature near zero makes a last digit of an earlier step large.
        let chance = uniform(params.seed.unwrap(), 0, history.len() as u64, Purpose::Xtc);
        let mut got: naive::List = (0..).zip(logits.iter().map(|&x| f64::from(x))).collect();
        for (i, &kind) in params.samplers.iter().enumerate() {
            let want = naive::apply(kind, &got, &params, &history, &[1, 3], chance);
            let first = SamplingParams { samplers: params.samplers[..=i].to_vec(), ..params.clone() };
            got = survivors(&first, &Toy::new(logits.len(), 0), &logits, &history);
            prop_assert!(same(&got, &want), "step {}: {:?} want {:?}", i, got, want);
        }
        let position = history.len() as u64;
        let chosen = if params.is_greedy() {
            naive::probabilities(&got)[0].0
        } else {
            naive::draw(&got, uniform(params.seed.unwrap(), 0, position, Purpose::Token))
        };
        let mut s = Sampler::new(params, &Toy::new(logits.len(), 0), 0).expect("valid parameters");
        prop_assert_eq!(s.sample(&logits, &history, 0).expect("a token").id, chosen);
    }

    #[test]
    fn extreme_parameters_and_logits_still_give_a_token(
        logits in prop::collection::vec(prop_oneof![Just(f32::MAX), Just(f32::MIN), Just(0.0f32), -1e30f32..1e30], 1..20),
        temperature in prop_oneof![Just(f32::MIN_POSITIVE), Just(f32::MAX), Just(1e-45f32)],
        penalty in prop_oneof![Just(f32::MAX), Just(f32::MIN_POSITIVE)],
        dry_base in prop_oneof![Just(f32::MAX), Just(1.0f32)],
        mirostat in 0u8..3,
    ) {
        let params = SamplingParams {
            temperature,
            repeat_penalty: penalty,
            presence_penalty: f32::MIN,
            dry_multiplier: f32::MAX,
            dry_base,
            top_n_sigma: 1e-30,
            typical_p: 0.5,
            dynatemp_range: temperature,
            logit_bias: BTreeMap::from([(0, f32::MAX)]),
            mirostat,
            logprobs: Some(3),
            ..off()
        };
        let got = sampler(params, logits.len()).sample(&logits, &[0; 30], 0).expect("a token");
        prop_assert!((got.id as usize) < logits.len());
        prop_assert!(got.logprob.expect("asked for") <= 0.0);
    }
}
