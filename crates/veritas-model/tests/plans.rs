//! Plans of the committed models: what the fixtures' own descriptions say must stand in them.

use veritas_gguf::split::GgufSet;
use veritas_model::{
    Error, FeedForward, Mixer, Need, Plan, QkNorm, Residual, RopeScaling, RopeStyle, build_plan,
};
use veritas_testkit::committed;

fn files(name: &str) -> GgufSet {
    let bytes = std::fs::read(committed(&format!("golden/{name}/model-f16.gguf"))).unwrap();
    GgufSet::new(vec![veritas_gguf::parse(&bytes).unwrap()]).unwrap()
}

fn plan(name: &str) -> Plan {
    build_plan(&files(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn windows(plan: &Plan) -> Vec<Option<usize>> {
    plan.layers
        .iter()
        .map(|layer| match &layer.mixer {
            Mixer::Attention(attention) => attention.window,
            _ => None,
        })
        .collect()
}

fn attention(plan: &Plan, layer: usize) -> &veritas_model::Attention {
    match &plan.layers[layer].mixer {
        Mixer::Attention(attention) => attention,
        other => panic!("{other:?}"),
    }
}

#[test]
fn llama_files_have_neighbouring_pairs_and_frequency_factors() {
    let plan = plan("llama");
    assert_eq!(plan.ropes[0].style, RopeStyle::Interleaved);
    assert!(matches!(plan.ropes[0].scaling, RopeScaling::Factors(_)));
    assert_eq!((attention(&plan, 0).n_heads, attention(&plan, 0).n_kv_heads), (4, 2));
    assert_eq!(plan.head.output.weight.name, "output.weight");
    assert!(plan.needs().is_empty());
}

#[test]
fn gemma3_alternates_five_windows_with_one_global_layer() {
    let plan = plan("gemma3");
    assert_eq!(windows(&plan), [Some(8), Some(8), Some(8), Some(8), Some(8), None]);
    let ropes = (0..6).map(|layer| attention(&plan, layer).rope).collect::<Vec<_>>();
    assert_eq!(ropes, [Some(0), Some(0), Some(0), Some(0), Some(0), Some(1)]);
    assert_eq!((plan.ropes[0].theta, plan.ropes[1].theta), (1e4, 1e6));
    assert_eq!(plan.head.output.weight.name, "token_embd.weight");
}

#[test]
fn smollm3_leaves_out_the_rotary_embedding_in_every_fourth_layer() {
    let plan = plan("smollm3");
    let ropes = (0..4).map(|layer| attention(&plan, layer).rope).collect::<Vec<_>>();
    assert_eq!(ropes, [Some(0), Some(0), Some(0), None]);
}

#[test]
fn fused_matrices_are_cut_into_their_rows() {
    let plan = plan("phi3");
    let parts = attention(&plan, 0);
    let offsets = [&parts.query, &parts.key, &parts.value].map(|linear| linear.weight.offset);
    let row_bytes = parts.query.weight.row_bytes() as u64;
    assert_eq!(parts.query.weight.name, "blk.0.attn_qkv.weight");
    assert_eq!([offsets[1] - offsets[0], offsets[2] - offsets[1]], [64 * row_bytes, 32 * row_bytes]);
    let FeedForward::Gated(ffn) = &plan.layers[0].ffn else { panic!("phi3 has a gate") };
    assert_eq!(ffn.up.weight.offset - ffn.gate.weight.offset, 128 * row_bytes);
}

#[test]
fn the_multipliers_of_granite_and_command_r_are_in_the_plan() {
    let granite = plan("granite");
    assert_eq!((granite.embedding.scale, granite.head.scale), (4.0, 0.5));
    assert_eq!((attention(&granite, 0).scale, granite.layers[0].residual_scale), (0.0625, 0.5));
    let cohere = plan("cohere");
    assert_eq!((cohere.head.scale, cohere.layers[0].residual), (0.0625, Residual::Parallel));
    assert!(cohere.layers[0].ffn_norm.is_none());
}

#[test]
fn norms_of_queries_and_keys_are_per_head_or_whole() {
    assert!(matches!(attention(&plan("qwen3"), 0).qk_norm, Some(QkNorm::PerHead { .. })));
    assert!(matches!(attention(&plan("olmo2"), 0).qk_norm, Some(QkNorm::Whole { .. })));
}

#[test]
fn what_no_engine_runs_yet_is_named() {
    for name in ["mixtral", "qwen2_moe", "qwen3_moe"] {
        let needs = plan(name).needs();
        assert_eq!(needs, [Need::MixtureOfExperts { n_experts: 8, n_experts_used: 2 }], "{name}");
    }
    for name in ["deepseek_v2", "deepseek_v2_lite", "deepseek_v3"] {
        assert_eq!(plan(name).needs()[0], Need::LatentAttention, "{name}");
    }
    for name in ["gpt_oss", "bert", "nomic_bert"] {
        let error = build_plan(&files(name)).unwrap_err();
        assert!(matches!(error, Error::UnknownArchitecture { .. }), "{name}: {error}");
        assert!(error.is_unsupported());
    }
}

#[test]
fn a_window_can_be_told_by_metadata() {
    let mut files = files("mistral");
    assert_eq!(windows(&plan("mistral")), [None, None]);
    files.parts[0].metadata.insert("llama.attention.sliding_window", 8u32).unwrap();
    assert_eq!(windows(&build_plan(&files).unwrap()), [Some(8), Some(8)]);
}

#[test]
fn metadata_that_contradict_the_tensors_are_refused() {
    let changes: [(&str, u32); 9] = [
        ("llama.block_count", 0),
        ("llama.block_count", 3),
        ("llama.block_count", u32::MAX),
        ("llama.embedding_length", 65),
        ("llama.attention.head_count", 3),
        ("llama.attention.head_count_kv", 3),
        ("llama.feed_forward_length", 1),
        ("llama.context_length", 0),
        ("llama.rope.dimension_count", 7),
    ];
    for (key, value) in changes {
        let mut files = files("llama");
        files.parts[0].metadata.insert(key, value).unwrap();
        let error = build_plan(&files).expect_err(key);
        assert!(!error.is_unsupported(), "{key} = {value}: {error}");
    }
    for (key, value) in [("llama.rope.freq_base", f32::NAN), ("llama.attention.layer_norm_rms_epsilon", -1.0)]
    {
        let mut files = files("llama");
        files.parts[0].metadata.insert(key, value).unwrap();
        build_plan(&files).expect_err(key);
    }
}
