//! What must hold for any metadata and tensor shapes that are given to the architectures.

use std::sync::OnceLock;

use veritas_gguf::split::GgufSet;
use veritas_gguf::{Gguf, Value};
use veritas_model::{FeedForward, Linear, MatrixRef, Mixer, Plan, build_plan};
use veritas_quant::GgmlType;

use crate::committed;

/// The models whose headers are changed: one of each shape of plan.
const MODELS: [&str; 12] = [
    "llama",
    "qwen2_yarn",
    "gemma3",
    "phi3",
    "granite",
    "olmo2",
    "glm4",
    "cohere",
    "starcoder2",
    "gpt2",
    "gpt_neox",
    "deepseek_v2",
];

fn headers() -> &'static [Gguf] {
    static HEADERS: OnceLock<Vec<Gguf>> = OnceLock::new();
    HEADERS.get_or_init(|| {
        let read = |name: &&str| {
            let bytes =
                std::fs::read(committed(&format!("golden/{name}/model-f16.gguf"))).expect("a fixture");
            veritas_gguf::parse(&bytes).expect("a fixture is sound")
        };
        MODELS.iter().map(read).collect()
    })
}

/// Takes the first byte as a model and the rest as changes of its header, ten bytes each: which key or tensor, what to
/// change, and the new value. The plan is an error, or every reference in it lies within the file.
///
/// # Panics
/// If a promise is broken.
pub fn check(bytes: &[u8]) {
    let Some((&model, changes)) = bytes.split_first() else { return };
    let mut gguf = headers()[usize::from(model) % MODELS.len()].clone();
    for change in changes.as_chunks::<10>().0 {
        let value = u64::from_le_bytes([
            change[2], change[3], change[4], change[5], change[6], change[7], change[8], change[9],
        ]);
        apply(&mut gguf, usize::from(change[0]), change[1], value);
    }
    let file_bytes = gguf.file_bytes;
    let Ok(set) = GgufSet::new(vec![gguf]) else { return };
    match build_plan(&set) {
        Ok(plan) => check_plan(&plan, file_bytes),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

fn apply(gguf: &mut Gguf, place: usize, kind: u8, value: u64) {
    let architecture = gguf.architecture().unwrap_or("llama").to_owned();
    let keys = gguf.metadata.iter().map(|(key, _)| key.to_owned());
    let keys = keys.filter(|key| key.starts_with(&architecture) || key.starts_with("general.arch"));
    let keys = keys.collect::<Vec<_>>();
    let tensor = place % gguf.tensors.len().max(1);
    let new_value = match kind % 8 {
        0 => Value::U32(value as u32),
        1 => Value::U64(value),
        2 => Value::F32(f32::from_bits(value as u32)),
        3 => Value::String(["linear", "yarn", "none", "llama", "gemma2", "x"][value as usize % 6].to_owned()),
        4 => Value::Bool(value % 2 == 1),
        5 => {
            if let (Some(info), Some(ty)) = (gguf.tensors.get_mut(tensor), GgmlType::from_id(value as u32)) {
                info.ty = ty;
            }
            return;
        }
        6 => {
            if tensor < gguf.tensors.len() {
                gguf.tensors.remove(tensor);
            }
            return;
        }
        _ => {
            if let Some(key) = keys.get(place % keys.len().max(1)) {
                gguf.metadata.remove(key);
            }
            return;
        }
    };
    if let Some(key) = keys.get(place % keys.len().max(1)) {
        // A key that cannot hold the value stays as it is.
        let _ = gguf.metadata.insert(key.clone(), new_value);
    }
}

fn check_plan(plan: &Plan, file_bytes: u64) {
    let check_matrix = |matrix: &MatrixRef| {
        assert!(matrix.rows > 0 && matrix.cols > 0, "{matrix:?}");
        // The reader checked a tensor's bytes; a type that a change put there may have other rows.
        if let Some(row_bytes) = matrix.ty.row_bytes(matrix.cols) {
            let end = matrix.offset + row_bytes as u64 * matrix.rows as u64;
            assert!(
                matrix.ty != GgmlType::F16 || end <= file_bytes,
                "{matrix:?} ends at {end} of {file_bytes}"
            );
        }
    };
    let check_linear = |linear: &Linear| {
        check_matrix(&linear.weight);
        assert!(linear.bias.as_ref().is_none_or(|bias| bias.len == linear.weight.rows), "{linear:?}");
    };
    assert!(!plan.layers.is_empty() && plan.hidden > 0 && plan.n_vocab > 0 && plan.n_context > 0);
    check_matrix(&plan.embedding.tokens);
    check_linear(&plan.head.output);
    for layer in &plan.layers {
        if let Mixer::Attention(attention) = &layer.mixer {
            assert!(attention.n_heads.is_multiple_of(attention.n_kv_heads));
            assert!(attention.rope.is_none_or(|rope| plan.ropes[rope].n_dims <= attention.head_dim_k));
            for linear in [&attention.query, &attention.key, &attention.value, &attention.output] {
                check_linear(linear);
            }
        }
        match &layer.ffn {
            FeedForward::Gated(gated) => {
                [&gated.gate, &gated.up, &gated.down].into_iter().for_each(check_linear)
            }
            FeedForward::Plain(plain) => [&plain.up, &plain.down].into_iter().for_each(check_linear),
            FeedForward::Moe(moe) => assert!(moe.n_experts_used <= moe.n_experts),
        }
    }
}
