//! Where keys and values come from changes no bit: a sequence that starts from a cached prefix, or loses its pages and
//! starts again, has the tokens and the logits that it has alone on an empty cache.

use std::collections::BTreeMap;
use std::sync::Arc;

use veritas_engine::{
    CacheTypes, Client, Drawn, Event, GroupId, Model, ModelFiles, PrincipalId, Runner, RunnerConfig,
    SequenceId, SequenceSpec,
};
use veritas_kernels::CacheType;
use veritas_testkit::{Tensors, committed};

/// Windows, soft caps, LongRoPE, partial rotation, parallel residuals: whatever reads the cache in its own way.
const MODELS: [&str; 6] = ["llama", "qwen3", "gemma2", "gemma3", "phi3", "cohere"];

/// Tokens that a sequence draws.
const N_NEW: usize = 40;

fn model(name: &str) -> Arc<Model> {
    let path = committed(&format!("golden/{name}/model-f16.gguf"));
    Arc::new(Model::new(ModelFiles::open(&path, &[]).unwrap()).unwrap())
}

fn tokens_of(name: &str) -> Vec<u32> {
    Tensors::read(&committed(&format!("golden/{name}/logits.safetensors"))).tensor("tokens_long").token_ids()
}

/// What a sequence has given: its tokens, and the bits of the logits of each position that was shown.
#[derive(Clone, Debug, Default, PartialEq)]
struct Answer {
    tokens: Vec<u32>,
    logits: BTreeMap<usize, Vec<u32>>,
    n_cached: usize,
}

fn run(runner: &mut Runner, specs: &[SequenceSpec], all_logits: bool) -> Vec<Answer> {
    let mut ids: Vec<SequenceId> = Vec::new();
    for (index, spec) in specs.iter().enumerate() {
        let same_prompt_as = spec.same_prompt_as.and_then(|_| ids.first().copied());
        let spec = SequenceSpec { same_prompt_as, ..spec.clone() };
        ids.push(runner.add(spec, all_logits && index == 0).unwrap());
    }
    let mut answers = vec![Answer::default(); ids.len()];
    while !runner.is_idle() {
        assert!(runner.is_runnable());
        let events = runner.step(&mut |row| {
            let answer = &mut answers[ids.iter().position(|&id| id == row.sequence).unwrap()];
            let bits = row.logits.iter().map(|logit| logit.to_bits()).collect();
            assert!(answer.logits.insert(row.position, bits).is_none(), "a position is shown twice");
            let best = (0..row.logits.len()).max_by(|&a, &b| row.logits[a].total_cmp(&row.logits[b]));
            let token = best.unwrap() as u32;
            Ok(row.samples.then(|| {
                answer.tokens.push(token);
                Drawn { token, stop: false }
            }))
        });
        for Event::Finished { sequence, n_cached, .. } in events.unwrap().unwrap_or_default() {
            answers[ids.iter().position(|&id| id == sequence).unwrap()].n_cached = n_cached;
        }
    }
    answers
}

fn config(cache: CacheType) -> RunnerConfig {
    RunnerConfig {
        n_threads: 2,
        cache_types: CacheTypes { key: cache, value: cache },
        n_sequences: 4,
        chunk_tokens: 33,
        ..RunnerConfig::default()
    }
}

fn client(principal: u32) -> Client {
    Client { principal: PrincipalId(principal), group: GroupId(principal), weight: 1 }
}

fn assert_same(found: &Answer, expected: &Answer, what: &str) {
    assert_eq!(found.tokens, expected.tokens, "{what}");
    assert!(found.logits == expected.logits, "{what}: other logits");
}

#[test]
fn tokens_and_logits_are_the_same_cold_and_warm_after_eviction_and_after_preemption() {
    for name in MODELS {
        let (model, tokens) = (model(name), tokens_of(name));
        for cache in [CacheType::F32, CacheType::F16, CacheType::Q8_0] {
            // Four prompts, three of them with a beginning in common.
            let prompts = [&tokens[..70], &tokens[..66], &tokens[..47], &tokens[20..75]];
            let specs = prompts.map(|prompt| SequenceSpec::new(prompt.to_vec(), N_NEW));
            let alone = specs.each_ref().map(|spec| {
                let config = RunnerConfig { prefix_cache: false, ..config(cache) };
                let mut runner = Runner::new(Arc::clone(&model), &config).unwrap();
                run(&mut runner, std::slice::from_ref(spec), false).swap_remove(0)
            });
            let mut runner = Runner::new(Arc::clone(&model), &config(cache)).unwrap();
            let what = |how: &str| format!("{name}, {cache:?}, {how}");
            for (spec, expected) in specs.iter().zip(&alone) {
                let cold = run(&mut runner, std::slice::from_ref(spec), false).swap_remove(0);
                assert_same(&cold, expected, &what("after others"));
                let warm = run(&mut runner, std::slice::from_ref(spec), false).swap_remove(0);
                assert_same(&warm, expected, &what("warm"));
                assert_eq!(warm.n_cached, (spec.prompt.len() - 1) / 16 * 16, "{}", what("warm"));
            }
            // Eight pages: one sequence at a time has room, and every other loses its prefix or its pages.
            let small = RunnerConfig { n_pages: Some(8), ..config(cache) };
            let mut runner = Runner::new(Arc::clone(&model), &small).unwrap();
            for _ in 0..2 {
                let together = run(&mut runner, &specs, false);
                for (found, expected) in together.iter().zip(&alone) {
                    assert_same(found, expected, &what("with few pages"));
                }
            }
            assert_eq!(runner.occupancy().pages_used, 0);
        }
    }
}

#[test]
fn a_sequence_that_loses_its_pages_in_the_middle_of_its_answer_goes_on_as_if_nothing_had_happened() {
    let (model, tokens) = (model("qwen3"), tokens_of("qwen3"));
    for prefix_cache in [true, false] {
        let config =
            RunnerConfig { n_pages: Some(8), chunk_tokens: 16, prefix_cache, ..config(CacheType::F16) };
        let specs = [0, 1, 2].map(|salt| SequenceSpec::new(tokens[salt..salt + 20].to_vec(), 60));
        let alone = specs.each_ref().map(|spec| {
            let mut runner = Runner::new(Arc::clone(&model), &config).unwrap();
            run(&mut runner, std::slice::from_ref(spec), true).swap_remove(0)
        });
        let mut runner = Runner::new(Arc::clone(&model), &config).unwrap();
        let together = run(&mut runner, &specs, true);
        assert!(runner.occupancy().preempted > 0, "{:?}", runner.occupancy());
        assert_same(&together[0], &alone[0], "the oldest");
        for (found, expected) in together.iter().zip(&alone) {
            assert_eq!(found.tokens, expected.tokens);
        }
    }
}

#[test]
fn a_sequence_whose_logits_are_all_shown_shows_each_once_and_finds_nothing_in_the_cache() {
    let (model, tokens) = (model("llama"), tokens_of("llama"));
    // The one whose logits are shown is the youngest, and gives way.
    let config = RunnerConfig { n_pages: Some(8), chunk_tokens: 16, ..config(CacheType::F16) };
    let shown = SequenceSpec::new(tokens[..40].to_vec(), 40);
    let mut runner = Runner::new(Arc::clone(&model), &config).unwrap();
    let alone = run(&mut runner, std::slice::from_ref(&shown), true).swap_remove(0);
    assert_eq!(alone.logits.len(), 79);
    let warm = run(&mut runner, std::slice::from_ref(&shown), true).swap_remove(0);
    assert_same(&warm, &alone, "warm");
    assert_eq!(warm.n_cached, 0);
    let urgent = SequenceSpec {
        priority: veritas_engine::Priority::High,
        ..SequenceSpec::new(tokens[5..30].to_vec(), 80)
    };
    let together = run(&mut runner, &[shown, urgent], true);
    assert!(runner.occupancy().preempted > 0);
    assert_same(&together[0], &alone, "preempted");
}

#[test]
fn answers_to_one_prompt_compute_it_once_and_are_those_of_a_request_alone() {
    let (model, tokens) = (model("gemma2"), tokens_of("gemma2"));
    for (prefix_cache, cache) in [(true, CacheType::F16), (false, CacheType::Q4_0)] {
        let config = RunnerConfig { prefix_cache, ..config(cache) };
        let spec = SequenceSpec::new(tokens[..45].to_vec(), 20);
        let mut runner = Runner::new(Arc::clone(&model), &config).unwrap();
        let alone = run(&mut runner, std::slice::from_ref(&spec), false).swap_remove(0);
        let mut runner = Runner::new(Arc::clone(&model), &config).unwrap();
        let twin = SequenceSpec { same_prompt_as: Some(SequenceId(0)), ..spec.clone() };
        let answers = run(&mut runner, &[spec, twin.clone(), twin], false);
        for answer in &answers {
            assert_same(answer, &alone, "an answer of three");
        }
        let cached = answers.iter().map(|answer| answer.n_cached).collect::<Vec<_>>();
        assert_eq!(cached, [0, 44, 44], "all but the last token of the prompt");
    }
}

#[test]
fn a_prefix_is_found_by_its_own_principal_alone_and_changes_nothing_for_others() {
    let (model, tokens) = (model("llama"), tokens_of("llama"));
    let mut runner = Runner::new(model, &config(CacheType::F16)).unwrap();
    let mut ask = |client| {
        let spec = SequenceSpec { client, ..SequenceSpec::new(tokens[..50].to_vec(), 4) };
        run(&mut runner, &[spec], false).swap_remove(0)
    };
    let first = ask(client(1));
    let shared = Client { group: GroupId(1), ..client(3) };
    for (client, n_cached) in [(client(1), 48), (client(2), 0), (client(2), 48), (shared, 48), (client(3), 0)]
    {
        let answer = ask(client);
        assert_same(&answer, &first, "whoever asks");
        assert_eq!(answer.n_cached, n_cached, "{client:?}");
    }
}
