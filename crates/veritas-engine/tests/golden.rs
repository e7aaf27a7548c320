//! The logits of 18 architectures against the reference implementation's, and the determinism contract on each of them.
// The differences are figures that people want to see.
#![allow(clippy::print_stdout)]

use std::sync::Arc;

use veritas_engine::{
    CacheTypes, Drawn, MetadataOverride, Model, ModelFiles, Runner, RunnerConfig, SequenceSpec,
    compute_logits,
};
use veritas_gguf::Value;
use veritas_kernels::CacheType;
use veritas_simd::Isa;
use veritas_testkit::{Tensors, committed};

const DENSE: [&str; 18] = [
    "llama",
    "llama_tied",
    "mistral",
    "qwen2",
    "qwen2_yarn",
    "qwen3",
    "gemma",
    "gemma2",
    "gemma3",
    "phi3",
    "granite",
    "olmo2",
    "smollm3",
    "glm4",
    "cohere",
    "starcoder2",
    "gpt2",
    "gpt_neox",
];

const F32_CACHE: CacheTypes = CacheTypes { key: CacheType::F32, value: CacheType::F32 };

fn model(name: &str, overrides: &[MetadataOverride]) -> Arc<Model> {
    let path = committed(&format!("golden/{name}/model-f16.gguf"));
    let files = ModelFiles::open(&path, overrides).unwrap_or_else(|error| panic!("{name}: {error}"));
    Arc::new(Model::new(files).unwrap_or_else(|error| panic!("{name}: {error}")))
}

fn config() -> RunnerConfig {
    RunnerConfig { n_threads: 2, cache_types: F32_CACHE, n_sequences: 4, ..RunnerConfig::default() }
}

/// The logits of each sequence, `[position][n_vocab]` one after the other.
fn logits(
    model: &Arc<Model>,
    config: &RunnerConfig,
    sequences: &[Vec<u32>],
    together: bool,
) -> Vec<Vec<f32>> {
    let mut runner = Runner::new(Arc::clone(model), config).unwrap();
    let mut rows = vec![Vec::new(); sequences.len()];
    compute_logits(&mut runner, sequences, together, &mut |sequence, position, logits| {
        assert_eq!(rows[sequence].len(), position * logits.len(), "positions come in order");
        rows[sequence].extend_from_slice(logits);
        Ok(())
    })
    .unwrap();
    rows
}

/// The three short sequences of a fixture and its long one.
fn sequences(golden: &Tensors) -> Vec<Vec<u32>> {
    let tokens = golden.tensor("tokens");
    let (n, len) = (tokens.shape[0], tokens.shape[1]);
    let all = tokens.token_ids();
    let mut sequences = (0..n).map(|i| all[i * len..(i + 1) * len].to_vec()).collect::<Vec<_>>();
    sequences.push(golden.tensor("tokens_long").token_ids());
    sequences
}

fn expected(golden: &Tensors, name: &str) -> Vec<Vec<f32>> {
    let short = golden.tensor(name);
    let mut rows = (0..short.shape[0]).map(|i| short.row(i).to_vec()).collect::<Vec<_>>();
    rows.push(golden.tensor(&name.replace("logits", "logits_long")).f32s.clone());
    rows
}

fn largest_difference(found: &[Vec<f32>], expected: &[Vec<f32>]) -> f32 {
    let pairs = found.iter().zip(expected).flat_map(|(found, expected)| {
        assert_eq!(found.len(), expected.len());
        found.iter().zip(expected)
    });
    pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

fn bits(rows: &[Vec<f32>]) -> Vec<Vec<u32>> {
    rows.iter().map(|row| row.iter().map(|value| value.to_bits()).collect()).collect()
}

fn golden(name: &str) -> Tensors {
    Tensors::read(&committed(&format!("golden/{name}/logits.safetensors")))
}

#[test]
fn every_position_of_every_architecture_is_within_a_thousandth_of_the_reference() {
    for name in DENSE {
        let golden = golden(name);
        let found = logits(&model(name, &[]), &config(), &sequences(&golden), false);
        let difference = largest_difference(&found, &expected(&golden, "logits"));
        assert!(difference <= 1e-3, "{name}: {difference:e}; {}", first_wrong_layer(name, &golden));
        println!("{name:12} largest difference {difference:.1e}");
    }
}

/// Where the hidden states of the first sequence leave the reference.
fn first_wrong_layer(name: &str, golden: &Tensors) -> String {
    let model = model(name, &[]);
    let mut runner = Runner::new(Arc::clone(&model), &config()).unwrap();
    runner.capture_hidden();
    let prompt = sequences(golden).swap_remove(0);
    runner.add(SequenceSpec::new(prompt, 0), true).unwrap();
    runner.step(&mut |_| Ok(None)).unwrap();
    let expected = golden.tensor("hidden");
    let hidden = runner.take_hidden();
    let differences = hidden.iter().enumerate().map(|(index, found)| {
        format!("{:.1e}", largest_difference(std::slice::from_ref(found), &[expected.row(index).to_vec()]))
    });
    format!("hidden states differ by {}", differences.collect::<Vec<_>>().join(", "))
}

#[test]
fn hidden_states_are_those_of_the_reference() {
    for name in DENSE {
        let text = first_wrong_layer(name, &golden(name));
        let worst = text.rsplit(' ').next().unwrap().parse::<f32>().unwrap();
        assert!(worst <= 1e-3, "{name}: {text}");
    }
}

#[test]
fn an_f16_cache_stays_within_a_tenth() {
    for name in DENSE {
        let golden = golden(name);
        let config = RunnerConfig { cache_types: CacheTypes::default(), ..config() };
        let found = logits(&model(name, &[]), &config, &sequences(&golden), false);
        let difference = largest_difference(&found, &expected(&golden, "logits"));
        assert!(difference <= 0.1, "{name}: {difference}");
    }
}

#[test]
fn the_bits_do_not_depend_on_chunks_batches_threads_instruction_sets_or_stages() {
    for name in DENSE {
        let (golden, model) = (golden(name), model(name, &[]));
        let sequences = sequences(&golden);
        for cache_types in [F32_CACHE, CacheTypes::default()] {
            let config = RunnerConfig { cache_types, ..config() };
            let reference = bits(&logits(&model, &config, &sequences, false));
            let check = |what: &str, config: RunnerConfig, together: bool| {
                assert!(bits(&logits(&model, &config, &sequences, together)) == reference, "{name}: {what}");
            };
            check("token by token", RunnerConfig { chunk_tokens: 1, ..config.clone() }, false);
            check("chunks of 7", RunnerConfig { chunk_tokens: 7, ..config.clone() }, false);
            check("together", config.clone(), true);
            check("together in chunks of 7", RunnerConfig { chunk_tokens: 7, ..config.clone() }, true);
            check("1 thread", RunnerConfig { n_threads: 1, ..config.clone() }, false);
            check("5 threads", RunnerConfig { n_threads: 5, ..config.clone() }, false);
            check("two stages", RunnerConfig { cuts: vec![1], ..config.clone() }, false);
            for isa in [Isa::Portable, Isa::Avx2, Isa::Avx512, Isa::Neon] {
                if isa.is_available() {
                    check(&format!("{isa}"), RunnerConfig { isa, ..config.clone() }, false);
                }
            }
        }
    }
}

#[test]
fn quantised_caches_have_the_same_bits_however_they_are_filled() {
    for cache in [CacheType::Q8_0, CacheType::Q4_0] {
        let cache_types = CacheTypes { key: cache, value: cache };
        let (golden, model) = (golden("qwen3"), model("qwen3", &[]));
        let sequences = sequences(&golden);
        let config = RunnerConfig { cache_types, ..config() };
        let reference = bits(&logits(&model, &config, &sequences, false));
        for (chunk_tokens, together) in [(1, false), (7, true), (512, true)] {
            let config = RunnerConfig { chunk_tokens, ..config.clone() };
            assert!(
                bits(&logits(&model, &config, &sequences, together)) == reference,
                "{cache:?} {chunk_tokens}"
            );
        }
        let found = logits(&model, &config, &sequences, false);
        let difference = largest_difference(&found, &expected(&golden, "logits"));
        println!("{cache:?} cache: largest difference {difference:.2}");
        assert!(difference > 1e-3, "a cache that loses nothing is no {cache:?} cache");
    }
}

#[test]
fn greedy_continuations_are_those_of_the_reference() {
    for name in DENSE {
        let golden = golden(name);
        let model = model(name, &[]);
        let prompt = golden.tensor("greedy_prompt").token_ids();
        let expected = golden.tensor("greedy").token_ids();
        let mut runner = Runner::new(model, &config()).unwrap();
        runner.add(SequenceSpec::new(prompt, expected.len()), false).unwrap();
        let mut drawn = Vec::new();
        while !runner.is_idle() {
            runner
                .step(&mut |row| {
                    let best = (0..row.logits.len()).max_by(|&a, &b| row.logits[a].total_cmp(&row.logits[b]));
                    let token = best.unwrap() as u32;
                    drawn.push(token);
                    Ok(Some(Drawn { token, stop: false }))
                })
                .unwrap();
        }
        assert_eq!(drawn, expected, "{name}");
    }
}

#[test]
fn a_sliding_window_told_from_outside_gives_the_reference_with_a_window() {
    let overrides = [MetadataOverride { key: "llama.attention.sliding_window".into(), value: Value::I64(8) }];
    let golden = golden("mistral");
    let found = logits(&model("mistral", &overrides), &config(), &sequences(&golden), false);
    let short = golden.tensor("logits_swa");
    let expected = (0..3).map(|i| short.row(i).to_vec()).collect::<Vec<_>>();
    let difference = largest_difference(&found[..3], &expected);
    assert!(difference <= 1e-3, "{difference:e}");
}

#[test]
fn quantised_models_are_as_close_to_their_weights_as_the_peer() {
    let folder = committed("golden/llama_quants");
    let expected = Tensors::read(&folder.join("expected.safetensors"));
    let report = std::fs::read_to_string(folder.join("report.json")).unwrap();
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    let tokens = expected.tensor("tokens");
    let (len, ids) = (tokens.shape[1], tokens.token_ids());
    let sequences = ids.chunks(len).map(<[u32]>::to_vec).collect::<Vec<_>>();
    for (kind, peer) in report.as_object().unwrap() {
        let files =
            ModelFiles::open(&folder.join(format!("model-{}.gguf", kind.to_lowercase())), &[]).unwrap();
        let model = Arc::new(Model::new(files).unwrap());
        let config = RunnerConfig { cache_types: CacheTypes::default(), ..config() };
        let found = logits(&model, &config, &sequences, false).concat();
        let wanted = &expected.tensor(&format!("logits.{kind}")).f32s;
        let squares = found.iter().zip(wanted).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>();
        let rms = (squares / found.len() as f64).sqrt();
        let peer_rms = peer["llamacpp_rms"].as_f64().unwrap();
        println!("{kind:7} rms {rms:.4}, peer {peer_rms:.4}");
        assert!(rms <= 1.1 * peer_rms, "{kind}: {rms} against {peer_rms}");
        for (isa, chunk_tokens) in [(Isa::Portable, 7), (Isa::Avx2, 1), (Isa::Avx512, 7)] {
            if isa.is_available() {
                let config = RunnerConfig { isa, chunk_tokens, ..config.clone() };
                let other = logits(&model, &config, &sequences, true);
                assert!(bits(&[other.concat()]) == bits(std::slice::from_ref(&found)), "{kind} on {isa}");
            }
        }
    }
}

#[test]
fn what_cannot_be_run_is_named() {
    for (name, word) in
        [("mixtral", "mixture of experts"), ("deepseek_v2", "latent attention"), ("bert", "bert")]
    {
        let path = committed(&format!("golden/{name}/model-f16.gguf"));
        let error = Model::new(ModelFiles::open(&path, &[]).unwrap()).unwrap_err();
        assert!(error.to_string().contains(word), "{name}: {error}");
        assert_eq!(error.kind(), veritas_engine::ErrorKind::UnsupportedModel);
    }
}
