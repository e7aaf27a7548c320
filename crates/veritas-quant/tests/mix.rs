//! The mixes of tensor types against what llama.cpp chose.
//!
//! `mixes.json` holds the types of the tensors in files that llama-quantize wrote for a dense model with grouped
//! heads and a mixture of eight experts: for each kind of tensor one type, or the layers of each type.

use std::collections::BTreeMap;

use serde_json::Value;
use veritas_quant::GgmlType;
use veritas_quant::mix::{FileType, ModelFacts, Options, TensorFacts, tensor_types};

#[test]
fn mixes_give_each_tensor_the_type_that_llama_cpp_gives() {
    let models: Value = serde_json::from_str(include_str!("mixes.json")).expect("the fixture is JSON");
    for (model, fixture) in models.as_object().expect("models by name") {
        let number = |key: &str| fixture[key].as_u64().expect("a number") as usize;
        let facts = ModelFacts {
            architecture: "llama",
            n_layers: number("n_layers"),
            n_heads: number("n_heads"),
            n_kv_heads: number("n_kv_heads"),
            n_experts: number("n_experts"),
        };
        let shapes = shapes(&fixture["tensors"], facts.n_layers);
        let tensors: Vec<_> = shapes
            .iter()
            .map(|(name, dims)| {
                let ty = if dims.len() == 1 { GgmlType::F32 } else { GgmlType::F16 };
                TensorFacts { name, ty, dims }
            })
            .collect();
        for (file_type, wanted) in fixture["types"].as_object().expect("file types by name") {
            let parsed = FileType::from_name(file_type).expect("the name of a file type");
            let types = tensor_types(parsed, &facts, &tensors, &Options::default());
            for (tensor, got) in tensors.iter().zip(types) {
                let want =
                    if tensor.dims.len() == 1 { Some("F32") } else { wanted_type(wanted, tensor.name) };
                // The gates of experts stay as they are, in F16 here.
                let want = want.unwrap_or("F16");
                assert_eq!(got.name(), want, "{} of {model} in {file_type}", tensor.name);
            }
        }
    }
}

/// The shapes of all tensors by name: those of layers once for each layer.
fn shapes(tensors: &Value, n_layers: usize) -> BTreeMap<String, Vec<u64>> {
    let mut shapes = BTreeMap::new();
    for (name, dims) in tensors.as_object().expect("shapes by name") {
        let dims: Vec<u64> = dims.as_array().expect("a shape").iter().filter_map(Value::as_u64).collect();
        if name.starts_with("token_embd") || name.starts_with("output") && !name.starts_with("output_norm") {
            shapes.insert(name.clone(), dims);
        } else {
            shapes.extend((0..n_layers).map(|layer| (format!("blk.{layer}.{name}"), dims.clone())));
        }
    }
    shapes
}

/// What the fixture says about a tensor.
fn wanted_type<'a>(wanted: &'a Value, name: &str) -> Option<&'a str> {
    let Some((layer, kind)) = name.strip_prefix("blk.").and_then(|rest| rest.split_once('.')) else {
        return wanted[name].as_str();
    };
    let layer: u64 = layer.parse().expect("a layer's number");
    match &wanted[kind] {
        Value::String(ty) => Some(ty),
        Value::Object(by_type) => by_type
            .iter()
            .find(|(_, layers)| layers.as_array().is_some_and(|layers| layers.iter().any(|l| l == layer)))
            .map(|(ty, _)| ty.as_str()),
        _ => None,
    }
}
