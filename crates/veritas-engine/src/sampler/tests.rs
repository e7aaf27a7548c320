use std::collections::BTreeMap;

use super::*;

/// A vocabulary of given texts; the last tokens end an answer.
pub(super) struct Toy {
    texts: Vec<String>,
    n_end: usize,
}

impl Toy {
    pub(super) fn new(n_vocab: usize, n_end: usize) -> Self {
        let text = |i| char::from_u32(0x4E00 + i as u32).expect("below the surrogates").to_string();
        Self { texts: (0..n_vocab).map(text).collect(), n_end }
    }
}

impl Vocabulary for Toy {
    fn n_vocab(&self) -> usize {
        self.texts.len()
    }

    fn is_end_of_generation(&self, id: TokenId) -> bool {
        id as usize >= self.texts.len() - self.n_end
    }

    fn token_bytes(&self, id: TokenId, out: &mut Vec<u8>) {
        out.extend_from_slice(self.texts[id as usize].as_bytes());
    }

    fn encode_text(&self, text: &str) -> Option<Vec<TokenId>> {
        // Longest token first.
        let mut ids = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let fits = |i: &usize| rest.starts_with(self.texts[*i].as_str());
            let id = (0..self.texts.len()).filter(fits).max_by_key(|i| self.texts[*i].len())?;
            ids.push(id as TokenId);
            rest = &rest[self.texts[id].len()..];
        }
        Some(ids)
    }
}

pub(super) fn sampler(params: SamplingParams, n_vocab: usize) -> Sampler {
    Sampler::new(params, &Toy::new(n_vocab, 0), 0).expect("valid parameters")
}

/// Neutral parameters: every sampler is off.
pub(super) fn off() -> SamplingParams {
    SamplingParams {
        seed: Some(1),
        temperature: 1.0,
        top_k: 0,
        top_p: 1.0,
        min_p: 0.0,
        dry_sequence_breakers: Vec::new(),
        ..Default::default()
    }
}

fn only(kind: SamplerKind) -> SamplingParams {
    SamplingParams { samplers: vec![kind], ..off() }
}

/// Runs the chain of `params` and gives what is left, in order of ids.
pub(super) fn survivors(
    params: &SamplingParams,
    vocab: &Toy,
    logits: &[f32],
    history: &[TokenId],
) -> naive::List {
    let mut s = Sampler::new(params.clone(), vocab, 0).expect("valid parameters");
    s.fill(logits, 0, None);
    for kind in params.samplers.clone() {
        s.run_sampler(kind, history);
    }
    let mut list: naive::List = s.candidates.iter().map(|c| (c.id, f64::from(c.logit))).collect();
    list.sort_by_key(|c| c.0);
    list
}

pub(super) fn naive_chain(
    params: &SamplingParams,
    logits: &[f32],
    history: &[TokenId],
    breakers: &[TokenId],
) -> naive::List {
    let chance = uniform(params.seed.unwrap(), 0, history.len() as u64, Purpose::Xtc);
    let mut list: naive::List = (0..).zip(logits.iter().map(|&x| f64::from(x))).collect();
    for &kind in &params.samplers {
        list = naive::apply(kind, &list, params, history, breakers, chance);
    }
    list
}

/// The same tokens, and logits that are equal but for the last digits: two ways to compute an entropy or a power need
/// not round alike.
pub(super) fn same(got: &naive::List, want: &naive::List) -> bool {
    let close = |a: f64, b: f64| (a - b).abs() <= 1e-6 * b.abs().max(1.0);
    got.len() == want.len() && got.iter().zip(want).all(|(a, b)| a.0 == b.0 && close(a.1, b.1))
}

fn chi_square(counts: &BTreeMap<TokenId, u32>, probabilities: &[(TokenId, f64)], n: u32) -> f64 {
    let cell = |(id, p): &(TokenId, f64)| {
        let expected = p * f64::from(n);
        (f64::from(counts.get(id).copied().unwrap_or(0)) - expected).powi(2) / expected
    };
    probabilities.iter().map(cell).sum()
}

fn counts(params: &SamplingParams, logits: &[f32], n: u32) -> BTreeMap<TokenId, u32> {
    let mut s = sampler(params.clone(), logits.len());
    let mut history = Vec::new();
    let mut counts = BTreeMap::new();
    for _ in 0..n {
        let id = s.sample(logits, &history, 0).expect("a token").id;
        history.push(id);
        *counts.entry(id).or_insert(0) += 1;
    }
    counts
}

const TEN: [f32; 10] = [0.3, 2.0, -1.0, 1.9, 0.0, 0.0, -3.0, 1.0, 2.5, -0.5];

#[test]
fn plain_sampling_follows_the_softmax() {
    let list: naive::List = (0..).zip(TEN.map(f64::from)).collect();
    let n = 20_000;
    let chi2 = chi_square(&counts(&off(), &TEN, n), &naive::probabilities(&list), n);
    assert!(chi2 < 27.9, "chi-square {chi2}, 9 degrees of freedom: 0.1 % lies above 27.9; the seed is fixed");
}

#[test]
fn a_filtered_chain_follows_its_renormalised_softmax() {
    let params =
        SamplingParams { seed: Some(7), temperature: 0.7, top_k: 6, top_p: 0.9, min_p: 0.1, ..off() };
    let left = naive_chain(&params, &TEN, &[], &[]);
    assert!((3..6).contains(&left.len()), "the case should cut something: {left:?}");
    let n = 20_000;
    let counts = counts(&params, &TEN, n);
    assert_eq!(counts.keys().copied().collect::<Vec<_>>(), left.iter().map(|c| c.0).collect::<Vec<_>>());
    let chi2 = chi_square(&counts, &naive::probabilities(&left), n);
    assert!(chi2 < 18.5, "chi-square {chi2}, at most 4 degrees of freedom");
}

#[test]
fn xtc_acts_with_its_probability() {
    let params = SamplingParams { xtc_probability: 0.3, xtc_threshold: 0.15, ..only(SamplerKind::Xtc) };
    let list: naive::List = (0..).zip(TEN.map(f64::from)).collect();
    let all = naive::probabilities(&list);
    assert!(all[2].1 >= 0.15 && all[3].1 < 0.15);
    let rest: f64 = all[2..].iter().map(|c| c.1).sum();
    let mixed: Vec<(TokenId, f64)> = all
        .iter()
        .enumerate()
        .map(|(i, &(id, p))| (id, 0.7 * p + if i < 2 { 0.0 } else { 0.3 * p / rest }))
        .collect();
    let n = 20_000;
    let chi2 = chi_square(&counts(&params, &TEN, n), &mixed, n);
    assert!(chi2 < 27.9, "chi-square {chi2}, 9 degrees of freedom");
}

#[test]
fn zero_temperature_takes_the_likeliest_and_of_equals_the_lowest_id() {
    let params = SamplingParams { temperature: 0.0, ..Default::default() };
    let mut s = sampler(params, 5);
    assert_eq!(s.sample(&[1.0, 3.0, 3.0, -1.0, 3.0], &[], 0).expect("a token").id, 1);
    assert_eq!(s.sample(&[0.0, -0.0, 0.0, -1.0, 0.0], &[], 0).expect("a token").id, 0);
    // Also with a chain that does not name the temperature.
    let params =
        SamplingParams { temperature: -1.0, samplers: vec![SamplerKind::TopK], ..Default::default() };
    assert_eq!(sampler(params, 3).sample(&[1.0, 3.0, 3.0], &[], 0).expect("a token").id, 1);
}

#[test]
fn a_draw_depends_on_seed_choice_and_position_and_on_nothing_drawn_before() {
    let flat = [0.0f32; 1000];
    let vocab = Toy::new(1000, 0);
    let params = |seed| SamplingParams { seed: Some(seed), ..off() };
    let mut straight = Sampler::new(params(5), &vocab, 0).expect("valid parameters");
    let mut history = vec![3, 1, 4];
    for _ in 0..50 {
        let id = straight.sample(&flat, &history, 3).expect("a token").id;
        let mut fresh = Sampler::new(params(5), &vocab, 0).expect("valid parameters");
        assert_eq!(fresh.sample(&flat, &history, 3).expect("a token").id, id, "a replay from here");
        history.push(id);
    }
    let answer = |seed, choice| {
        let mut s = Sampler::new(params(seed), &vocab, choice).expect("valid parameters");
        (0..20usize).map(|n| s.sample(&flat, &vec![0; n], 0).expect("a token").id).collect::<Vec<_>>()
    };
    assert_ne!(answer(5, 0), answer(6, 0));
    assert_ne!(answer(5, 0), answer(5, 1));
    assert_eq!(answer(5, 1), answer(5, 1));
}

#[test]
fn a_seed_is_required_only_where_something_is_drawn() {
    let vocab = Toy::new(4, 0);
    let without = |temperature| SamplingParams { temperature, ..Default::default() };
    assert_eq!(Sampler::new(without(0.5), &vocab, 0).err(), Some(Error::SeedMissing));
    assert!(Sampler::new(without(0.0), &vocab, 0).is_ok());
}

#[test]
fn end_tokens_are_forbidden_until_min_tokens_or_for_good() {
    let vocab = Toy::new(5, 2);
    let logits = [0.0, 1.0, 2.0, 8.0, 9.0];
    let greedy = SamplingParams { temperature: 0.0, min_tokens: 2, ..Default::default() };
    let mut s = Sampler::new(greedy.clone(), &vocab, 0).expect("valid parameters");
    let ids = [2usize, 3, 4].map(|n| s.sample(&logits, &vec![0; n], 2).expect("a token").id);
    assert_eq!(ids, [2, 2, 4]);
    let ignore = SamplingParams { ignore_eos: true, min_tokens: 0, ..greedy };
    let mut s = Sampler::new(ignore, &vocab, 0).expect("valid parameters");
    assert_eq!(s.sample(&logits, &[0; 40], 2).expect("a token").id, 2);
}

#[test]
fn biases_and_bans_come_before_everything_else() {
    let params = SamplingParams {
        logit_bias: BTreeMap::from([(0, 5.0), (2, f32::NEG_INFINITY)]),
        temperature: 0.0,
        ..Default::default()
    };
    let mut s = sampler(params.clone(), 3);
    assert_eq!(s.sample(&[1.0, 5.0, 9.0], &[], 0).expect("a token").id, 0);
    for mirostat in [1, 2] {
        let mut s = sampler(SamplingParams { mirostat, ..params.clone() }, 3);
        assert_eq!(s.sample(&[1.0, 5.0, 9.0], &[], 0).expect("a token").id, 0);
    }
    let missing = Sampler::new(params, &Toy::new(2, 0), 0).err();
    assert_eq!(missing, Some(Error::TokenOutOfVocabulary { id: 2, n_vocab: 2 }));
}

#[test]
fn a_mask_leaves_only_what_it_allows() {
    let mut s = sampler(SamplingParams { temperature: 0.0, ..Default::default() }, 40);
    let logits: Vec<f32> = (0..40).map(|i| i as f32).collect();
    assert_eq!(s.sample_masked(&logits, &[], 0, Some(&[1 << 7, 1 << 3])).expect("a token").id, 35);
    assert_eq!(s.sample_masked(&logits, &[], 0, Some(&[1 << 7])).expect("a token").id, 7);
    assert_eq!(s.sample_masked(&logits, &[], 0, Some(&[])), Err(Error::NoCandidate));
}

#[test]
fn logits_that_are_not_finite_are_a_typed_error() {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let found = sampler(off(), 3).sample(&[0.0, bad, 1.0], &[], 0);
        assert!(matches!(found, Err(Error::LogitsNotFinite { id: 1, .. })), "{bad}: {found:?}");
        assert!(matches!(token_logprobs(&[0.0, bad], 0, 0), Err(Error::LogitsNotFinite { id: 1, .. })));
    }
}

#[test]
fn inputs_of_the_wrong_shape_are_typed_errors() {
    let mut s = sampler(off(), 3);
    assert_eq!(s.sample(&[0.0; 4], &[], 0), Err(Error::LogitsLength { expected: 3, found: 4 }));
    assert_eq!(s.sample(&[0.0; 3], &[1], 2), Err(Error::HistoryTooShort { expected: 2, found: 1 }));
    assert_eq!(s.sample(&[0.0; 3], &[1, 3], 2), Err(Error::TokenOutOfVocabulary { id: 3, n_vocab: 3 }));
    let banned = BTreeMap::from([(0, f32::NEG_INFINITY), (1, f32::NEG_INFINITY)]);
    for mirostat in [0, 1, 2] {
        let params = SamplingParams { logit_bias: banned.clone(), mirostat, ..off() };
        assert_eq!(sampler(params, 2).sample(&[0.0; 2], &[], 0), Err(Error::NoCandidate));
    }
}

#[test]
fn logprobs_are_those_of_the_raw_logits() {
    let params = SamplingParams {
        logprobs: Some(3),
        temperature: 0.1,
        top_k: 1,
        logit_bias: BTreeMap::from([(7, 50.0)]),
        ..off()
    };
    let got = sampler(params, 10).sample(&TEN, &[], 0).expect("a token");
    let sum: f64 = TEN.iter().map(|&x| f64::from(x).exp()).sum();
    let want = |id: usize| f64::from(TEN[id]) - sum.ln();
    assert_eq!(got.id, 7);
    let close = |a: f32, b: f64| (f64::from(a) - b).abs() < 1e-6;
    assert!(close(got.logprob.expect("asked for"), want(7)));
    assert_eq!(got.top.iter().map(|t| t.0).collect::<Vec<_>>(), [8, 1, 3]);
    assert!(got.top.iter().all(|&(id, lp)| close(lp, want(id as usize))));
    let quiet = sampler(off(), 10).sample(&TEN, &[], 0).expect("a token");
    assert_eq!((quiet.logprob, quiet.top), (None, Vec::new()));
}

#[test]
fn prompt_logprobs_shift_by_one() {
    let rows = [[0.0f32, 1.0], [2.0, 0.0], [9.0, 9.0]].concat();
    let got = prompt_logprobs(&rows, 2, &[0, 1, 1], 1).expect("enough rows");
    assert_eq!(got[0], token_logprobs(&[0.0, 1.0], 1, 1).expect("finite"));
    assert_eq!(got[1], token_logprobs(&[2.0, 0.0], 1, 1).expect("finite"));
    assert_eq!((got.len(), got[1].top[0].0), (2, 0));
    assert_eq!(prompt_logprobs(&[], 2, &[1], 1), Ok(Vec::new()));
    assert_eq!(
        prompt_logprobs(&rows[..2], 2, &[0, 1, 1], 1),
        Err(Error::LogitsLength { expected: 4, found: 2 })
    );
}

#[test]
fn dry_penalises_the_example_of_its_authors() {
    // Window a b c c b c y a b c: after it, c would extend "a b c" (3), y "b c" (2), b "c" (1).
    let (a, b, c, y) = (0, 1, 2, 3);
    let history = [a, b, c, c, b, c, y, a, b, c];
    let params = SamplingParams { dry_multiplier: 0.8, ..only(SamplerKind::Dry) };
    let left = survivors(&params, &Toy::new(4, 0), &[0.0; 4], &history);
    let want = [0.0, 0.0, -0.8f32 as f64 * 1.75, -0.8f32 as f64];
    for (got, want) in left.iter().zip(want) {
        assert!((got.1 - want).abs() < 1e-6, "{left:?}");
    }
}

#[test]
fn dry_breakers_may_lie_inside_or_across_tokens() {
    let texts = ["a", "b", "x\n", "e", "nd", "the e", "d"].map(str::to_owned).to_vec();
    let vocab = Toy { texts, n_end: 0 };
    let breakers = ["\n", "end"].map(str::to_owned).to_vec();
    let params =
        SamplingParams { dry_multiplier: 1.0, dry_sequence_breakers: breakers, ..only(SamplerKind::Dry) };
    let penalised = |history: &[TokenId]| {
        let left = survivors(&params, &vocab, &[0.0; 7], history);
        left.iter().filter(|c| c.1 < 0.0).map(|c| c.0).collect::<Vec<_>>()
    };
    assert_eq!(penalised(&[0, 1, 0, 3, 0, 1, 0]), [3], "a b a repeats, then e followed");
    assert_eq!(penalised(&[0, 1, 0, 3, 0, 1, 2, 0]), [0; 0], "a newline inside a token ends the look back");
    assert_eq!(
        penalised(&[0, 1, 0, 3, 0, 1, 5, 4, 0]),
        [0; 0],
        "so does `end` as the end of one token and another"
    );
    assert_eq!(penalised(&[0, 1, 0, 3, 5, 1, 0]), [3], "but not its first half alone");
    let impossible = SamplingParams { dry_sequence_breakers: vec!["aq".into()], ..params.clone() };
    assert_eq!(Sampler::new(impossible, &vocab, 0).err(), Some(Error::Breaker { breaker: "aq".into() }));
}

#[test]
fn mirostat_refuses_to_skip_or_repeat_a_position() {
    let mut s = sampler(SamplingParams { mirostat: 2, ..off() }, 10);
    s.sample(&TEN, &[1, 2], 2).expect("the first position may be any");
    assert_eq!(s.sample(&TEN, &[1, 2], 2), Err(Error::OutOfOrder { expected: 3, found: 2 }));
    assert_eq!(s.sample(&TEN, &[1, 2, 3, 4], 2), Err(Error::OutOfOrder { expected: 3, found: 4 }));
    s.sample(&TEN, &[1, 2, 3], 2).expect("the next position");
}

#[test]
fn mirostat_holds_the_surprise_at_its_target() {
    // A Zipfian vocabulary whose entropy, 9.3 bits, lies far above the target of 4.
    let logits: Vec<f32> = (1..=5000).map(|rank| -(rank as f32).ln() * 1.05).collect();
    for version in [1, 2] {
        let params = SamplingParams { mirostat: version, mirostat_tau: 4.0, logprobs: Some(0), ..off() };
        let mut s = sampler(params, logits.len());
        let mut history = Vec::new();
        for _ in 0..400 {
            history.push(s.sample(&logits, &history, 0).expect("a token").id);
        }
        let last = f64::from(*history.iter().max().expect("many tokens"));
        assert!(last < 4000.0, "the tail is cut: {last}");
        let mu = format!("{:?}", s.mirostat);
        // What it controls is the surprise under the truncated distribution; replaying the loop gives its mean.
        let mut naive_mu = 8.0;
        let mut surprise = 0.0;
        let list: naive::List = (0..).zip(logits.iter().map(|&x| f64::from(x))).collect();
        let params = s.params().clone();
        for at in 0..400 {
            let before: f64 = naive_mu;
            let id = naive::mirostat(
                &list,
                &params,
                &mut naive_mu,
                logits.len(),
                uniform(1, 0, at, Purpose::Token),
            );
            assert_eq!(id, history[at as usize], "version {version}, position {at}, {mu}");
            surprise += 4.0 - (naive_mu - before) / 0.1f32 as f64;
        }
        assert!((surprise / 400.0 - 4.0).abs() < 0.15, "mean surprise {}", surprise / 400.0);
    }
}

#[test]
fn a_large_vocabulary_is_cut_as_a_small_one_is() {
    // Beyond the sizes at which selection runs in steps: many ties, more than 256 kept, k above the small buffer.
    let logits: Vec<f32> = (0..20_000u32).map(|i| ((i * 7919 % 4001) as f32) / 500.0).collect();
    let vocab = Toy::new(logits.len(), 0);
    for params in [
        SamplingParams { top_k: 40, ..only(SamplerKind::TopK) },
        SamplingParams { top_k: 1000, ..only(SamplerKind::TopK) },
        SamplingParams { top_k: 3000, ..only(SamplerKind::TopK) },
        SamplingParams { top_k: 30_000, ..only(SamplerKind::TopK) },
        SamplingParams { top_p: 0.01, ..only(SamplerKind::TopP) },
        SamplingParams { top_p: 0.7, ..only(SamplerKind::TopP) },
        SamplingParams { top_p: 0.999_99, ..only(SamplerKind::TopP) },
        SamplingParams { min_p: 0.5, min_keep: 9000, ..only(SamplerKind::MinP) },
    ] {
        assert_eq!(survivors(&params, &vocab, &logits, &[]), naive_chain(&params, &logits, &[], &[]));
    }
}

#[test]
fn buffers_are_reused_from_token_to_token() {
    let logits: Vec<f32> = (0..5000u32).map(|i| ((i * 7919 % 4001) as f32) / 500.0).collect();
    let mut s = sampler(SamplingParams { seed: Some(3), typical_p: 0.9, ..Default::default() }, logits.len());
    s.sample(&logits, &[], 0).expect("a token");
    let before = s.candidates.buffers();
    for n in 1..20usize {
        s.sample(&logits, &vec![0; n], 0).expect("a token");
    }
    assert_eq!(s.candidates.buffers(), before);
}
