//! `quantize` through the binary: exact ways back, llama.cpp's mixes, and outputs that are whole or absent.

mod common;

use std::path::Path;

use common::{committed, data, folder, in_folder, veritas};
use serde_json::json;
use veritas_gguf::{Gguf, Metadata, TensorInfo, Writer};
use veritas_quant::{GgmlType, dequantize_row};
use veritas_testkit::Tensors;

fn parsed(path: &str) -> (Vec<u8>, Gguf) {
    let bytes = std::fs::read(path).expect("a file");
    let gguf = veritas_gguf::parse(&bytes).expect("a GGUF file");
    (bytes, gguf)
}

fn values(bytes: &[u8], tensor: &TensorInfo) -> Vec<f32> {
    let mut values = vec![0.0; tensor.n_elements() as usize];
    dequantize_row(tensor.ty, tensor.data(bytes).expect("data"), &mut values).expect("a type with values");
    values
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// The names of the files of a folder.
fn files_of(folder: &Path) -> Vec<String> {
    let names =
        std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").file_name());
    let mut names = names.map(|name| name.into_string().expect("UTF-8")).collect::<Vec<_>>();
    names.sort();
    names
}

#[test]
fn f32_has_the_bits_that_ggml_gives_for_every_block_type() {
    let folder = folder();
    let out = in_folder(&folder, "f32.gguf");
    let source = data("quants/quants.gguf");
    veritas(&["quantize", "--allow-requantize", &source, &out, "F32", "--quiet"], b"").text();
    let expected = Tensors::read(&committed("quants/expected.safetensors"));
    let (bytes, gguf) = parsed(&out);
    let names = parsed(&source).1.tensors.iter().map(|tensor| tensor.name.clone()).collect::<Vec<_>>();
    assert_eq!(gguf.tensors.iter().map(|tensor| tensor.name.clone()).collect::<Vec<_>>(), names);
    let mut n_compared = 0;
    for name in expected.names().filter_map(|name| name.strip_prefix("dequant.")) {
        let is_named = |tensor: &&TensorInfo| {
            tensor.name.trim_end_matches(".weight").trim_start_matches("w.").eq_ignore_ascii_case(name)
        };
        let tensor =
            gguf.tensors.iter().find(is_named).unwrap_or_else(|| panic!("no tensor for {name} in {names:?}"));
        assert_eq!(tensor.ty, GgmlType::F32);
        let want = &expected.tensor(&format!("dequant.{name}")).f32s;
        assert!(bits(&values(&bytes, tensor)) == bits(want), "other bits: {name}");
        n_compared += 1;
    }
    assert_eq!(n_compared, 27);
}

#[test]
fn metadata_stay_and_say_the_new_type() {
    let folder = folder();
    let (source, out) = (data("golden/llama/model-f16.gguf"), in_folder(&folder, "q8_0.gguf"));
    let report = veritas(&["quantize", &source, &out, "q8_0", "--json"], b"").json();
    assert_eq!(report["file_type"], "Q8_0");
    let (before, after) = (parsed(&source).1, parsed(&out));
    assert_eq!(report["output_bytes"], after.0.len());
    assert_eq!(after.1.metadata.u32("general.file_type").expect("a number"), 7);
    assert_eq!(after.1.metadata.u32("general.quantization_version").expect("a number"), 2);
    for (key, value) in before.metadata.iter().filter(|(key, _)| *key != "general.file_type") {
        assert_eq!(after.1.metadata.get(key), Some(value), "{key}");
    }
    let shapes = |gguf: &Gguf| {
        gguf.tensors.iter().map(|tensor| (tensor.name.clone(), tensor.dims.clone())).collect::<Vec<_>>()
    };
    assert_eq!(shapes(&before), shapes(&after.1));
    for tensor in &after.1.tensors {
        let is_matrix = tensor.n_rows() > 1;
        assert_eq!(tensor.ty, if is_matrix { GgmlType::Q8_0 } else { GgmlType::F32 }, "{}", tensor.name);
    }
    // Its own test of use: it runs.
    let answer =
        veritas(&["run", "--model", &out, "--ids", "1,2,3", "-n", "2", "--temp", "0", "--json"], b"");
    assert!(answer.json()["ids"].as_array().is_some_and(|ids| !ids.is_empty()));
}

#[test]
fn a_mix_gives_wide_rows_its_types_and_stays_near_the_weights() {
    let folder = folder();
    let wide = in_folder(&folder, "wide.gguf");
    let q8 = data("golden/llama_quants/model-q8_0.gguf");
    veritas(&["quantize", "--allow-requantize", "--quiet", &q8, &wide, "F32"], b"").text();
    let (source_bytes, source) = parsed(&wide);
    // The largest error of a format in units of the largest weight of the tensor.
    for (kind, base, bound) in
        [("Q8_0", GgmlType::Q8_0, 0.01), ("Q6_K", GgmlType::Q6_K, 0.05), ("Q4_K_M", GgmlType::Q4_K, 0.15)]
    {
        let out = in_folder(&folder, kind);
        veritas(&["quantize", "--quiet", &wide, &out, kind], b"").text();
        let (bytes, gguf) = parsed(&out);
        assert!(gguf.tensors.iter().any(|tensor| tensor.ty == base), "{kind}");
        for (before, after) in source.tensors.iter().zip(&gguf.tensors) {
            let (before, after) = (values(&source_bytes, before), values(&bytes, after));
            let largest = before.iter().fold(0.0f32, |max, x| max.max(x.abs()));
            let worst = before.iter().zip(&after).fold(0.0f32, |max, (x, y)| max.max((x - y).abs()));
            assert!(worst <= bound * largest, "{kind}: {worst} of {largest}");
        }
    }
    // Threads change nothing.
    let quantize = |threads: &str| {
        let out = in_folder(&folder, threads);
        veritas(&["quantize", "--quiet", "--threads", threads, &wide, &out, "Q4_K_M"], b"").text();
        std::fs::read(out).expect("a file")
    };
    assert!(quantize("1") == quantize("5"));
}

#[test]
fn tensors_that_are_quantised_already_need_consent() {
    let folder = folder();
    let (source, out) = (data("golden/llama_quants/model-q8_0.gguf"), in_folder(&folder, "out.gguf"));
    let (exit, code, message) = veritas(&["quantize", "--json", &source, &out, "Q4_0"], b"").error();
    assert_eq!((exit, code.as_str()), (2, "usage"));
    assert!(message.contains("Q8_0"), "{message}");
    assert!(files_of(folder.path()).is_empty());
    // Q8_0 to Q8_0 changes nothing, so it needs none.
    veritas(&["quantize", "--quiet", "--pure", &source, &out, "Q8_0"], b"").text();
    let (before, after) = (parsed(&source), parsed(&out));
    for (a, b) in before.1.tensors.iter().zip(&after.1.tensors) {
        assert!(a.data(&before.0) == b.data(&after.0), "{} changed", a.name);
    }
}

#[test]
fn an_output_is_whole_or_absent_and_never_the_input() {
    let folder = folder();
    let source = in_folder(&folder, "in.gguf");
    std::fs::copy(data("golden/llama/model-f16.gguf"), &source).expect("a copy");
    let before = std::fs::read(&source).expect("the copy");
    let (exit, _, message) = veritas(&["quantize", "--json", &source, &source, "Q8_0"], b"").error();
    assert_eq!(exit, 2);
    assert!(message.contains("is the input"), "{message}");
    let out = in_folder(&folder, "out.gguf");
    // A weight that no block can hold, met when a part of the output is written already.
    let bad = in_folder(&folder, "bad.gguf");
    let mut writer = Writer::new(Metadata::new()).expect("metadata");
    writer.tensor("a.weight", GgmlType::F32, &[32, 2]).expect("a tensor");
    writer.tensor("b.weight", GgmlType::F32, &[32, 2]).expect("a tensor");
    let mut file = writer.start(std::fs::File::create(&bad).expect("a file")).expect("a header");
    file.write(&1.0f32.to_le_bytes().repeat(64)).expect("data");
    file.write(&f32::NAN.to_le_bytes().repeat(64)).expect("data");
    file.finish().expect("a whole file");
    let (exit, code, message) = veritas(&["quantize", "--json", &bad, &out, "Q8_0"], b"").error();
    assert_eq!((exit, code.as_str()), (4, "malformed_model"));
    assert!(message.contains("b.weight"), "{message}");
    for (args, expected) in [
        ([source.as_str(), out.as_str(), "Q9_X"], "usage"),
        (["/no/such.gguf", &out, "Q8_0"], "not_found"),
        ([&source, common::path_text(folder.path().to_owned()).as_str(), "Q8_0"], "usage"),
    ] {
        let args = [&["quantize", "--json"][..], &args].concat();
        assert_eq!(veritas(&args, b"").error().1, expected, "{args:?}");
    }
    assert_eq!(files_of(folder.path()), ["bad.gguf", "in.gguf"]);
    assert!(std::fs::read(&source).expect("the copy") == before);
}

#[test]
fn importances_of_either_form_change_the_result_and_must_fit() {
    let folder = folder();
    let source = data("golden/llama/model-f16.gguf");
    let (_, gguf) = parsed(&source);
    let matrix = gguf.tensor("blk.0.ffn_up.weight").expect("a matrix");
    let row_len = matrix.row_len() as usize;
    let importances = (0..row_len).map(|i| if i % 3 == 0 { 100.0f32 } else { 0.01 }).collect::<Vec<_>>();
    let flat = |values: &[f32]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<_>>();
    let old_form = |values: &[f32]| {
        let name = matrix.name.as_bytes();
        let number = |n: usize| (n as i32).to_le_bytes().to_vec();
        [number(1), number(name.len()), name.to_vec(), number(1), number(values.len()), flat(values)].concat()
    };
    let new_form = |path: &str| {
        let mut metadata = Metadata::new();
        metadata.insert("general.type", "imatrix").expect("a key");
        let mut writer = Writer::new(metadata).expect("metadata");
        writer
            .tensor(&format!("{}.in_sum2", matrix.name), GgmlType::F32, &[row_len as u64, 1])
            .expect("a tensor");
        writer.tensor(&format!("{}.counts", matrix.name), GgmlType::F32, &[1, 1]).expect("a tensor");
        let mut out = writer.start(std::fs::File::create(path).expect("a file")).expect("a header");
        out.write(&flat(&importances)).expect("data");
        out.write(&1.0f32.to_le_bytes()).expect("data");
        out.finish().expect("a whole file");
    };
    let (old, new) = (in_folder(&folder, "imatrix.dat"), in_folder(&folder, "imatrix.gguf"));
    std::fs::write(&old, old_form(&importances)).expect("a file");
    new_form(&new);
    let quantized = |flags: &[&str]| {
        let out = in_folder(&folder, "out.gguf");
        veritas(&[&["quantize", "--quiet", "--pure", &source, &out, "Q4_0"], flags].concat(), b"").text();
        let (bytes, gguf) = parsed(&out);
        let tensor = gguf.tensor("blk.0.ffn_up.weight").expect("the matrix");
        (tensor.data(&bytes).expect("data").to_vec(), gguf)
    };
    let without = quantized(&[]).0;
    let (with_old, gguf) = quantized(&["--imatrix", &old]);
    assert_eq!(gguf.metadata.str("quantize.imatrix.file").expect("a name"), "imatrix.dat");
    assert!(without != with_old);
    assert!(with_old == quantized(&["--imatrix", &new]).0);
    // One importance too few: made for another model.
    std::fs::write(&old, old_form(&importances[1..])).expect("a file");
    let out = in_folder(&folder, "other.gguf");
    let failed = veritas(&["quantize", "--json", &source, &out, "Q4_0", "--imatrix", &old], b"");
    let (exit, _, message) = failed.error();
    assert!(exit != 0 && message.contains("another model"), "{message}");
    assert!(!Path::new(&out).exists());
}

#[test]
fn types_for_embedding_and_output_come_before_the_mix() {
    let folder = folder();
    let (source, out) = (data("golden/llama/model-f16.gguf"), in_folder(&folder, "out.gguf"));
    let flags = ["--token-embedding-type", "q4_0", "--output-tensor-type", "bf16"];
    veritas(&[&["quantize", "--quiet", &source, &out, "Q8_0"][..], &flags].concat(), b"").text();
    let gguf = parsed(&out).1;
    let ty = |name: &str| gguf.tensor(name).map(|tensor| tensor.ty);
    assert_eq!(ty("token_embd.weight"), Some(GgmlType::Q4_0));
    assert_eq!(ty("output.weight"), Some(GgmlType::BF16));
    let wrong =
        veritas(&["quantize", "--json", &source, &out, "Q8_0", "--output-tensor-type", "iq2_xs"], b"");
    assert_eq!(wrong.error().1, "usage");
    let report = veritas(&["quantize", "--json", &source, &out, "F16"], b"").json();
    assert_eq!(report["types"], json!({"F32": 6, "F16": 16}));
}
