//! `inspect`: what a model file holds, whether or not it can be run.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json, json};
use veritas_engine::ModelFiles;
use veritas_gguf::{Array, TensorInfo, Value};
use veritas_model::build_plan;
use veritas_quant::GgmlType;
use veritas_tokenizer::Tokenizer;

use super::Context;
use crate::failure::{Code, Failure};
use crate::quantity::{short_bytes, short_count};
use crate::text::{Paint, harmless, json_line};

/// Show what the file holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InspectJob {
    /// One JSON object instead of text.
    pub json: bool,
    /// The tensors too.
    pub tensors: bool,
    /// Colours of the text.
    pub paint: Paint,
}

/// Longest array that is written out in JSON: as long as arrays get that have an element for each layer. Those that have
/// one for each token of a vocabulary are longer by orders of magnitude.
const JSON_ARRAY_MAX: usize = 1024;

/// Elements of longer arrays that are shown in JSON.
const JSON_ARRAY_FIRST: usize = 8;

/// Elements of an array that are shown in text.
const TEXT_ARRAY_FIRST: usize = 6;

/// Characters of a string that are shown in text.
const TEXT_CHARS_MAX: usize = 72;

pub(super) fn run(job: &InspectJob, context: &Context<'_>) -> Result<(), Failure> {
    let path = Path::new(&context.model.name);
    let files = open(context.files, path)?;
    let obstacle = obstacle(&files);
    let mut out = context.out();
    if job.json {
        let report = report(&files, obstacle.as_deref(), job.tensors);
        writeln!(out, "{}", json_line(&report))?;
    } else {
        let name = &context.model.name;
        out.write_all(table(job, name, &files, obstacle.as_deref()).as_bytes())?;
    }
    Ok(out.flush()?)
}

fn open(files: &[File], path: &Path) -> Result<ModelFiles, Failure> {
    ModelFiles::of_open_files(files, path, &[]).map_err(|error| {
        let other = matches!(error, veritas_engine::Error::Gguf(veritas_gguf::Error::Magic { .. }));
        match files.first().filter(|_| other).and_then(other_format) {
            Some(format) => {
                let message = format!("{} is {format}, not a GGUF file", path.display());
                Failure::new(Code::UnsupportedModel, message)
                    .hint("convert it to GGUF, for example with llama.cpp's convert_hf_to_gguf.py")
            }
            None => error.into(),
        }
    })
}

/// The format of a file that is no GGUF file, by its first bytes.
fn other_format(mut file: &File) -> Option<&'static str> {
    let mut head = Vec::new();
    // The file was mapped, not read, so that its position is still at its beginning.
    Read::by_ref(&mut file).take(16).read_to_end(&mut head).ok()?;
    const MAGICS: [(&[u8], &str); 8] = [
        (b"lmgg", "a GGML file of the time before GGUF"),
        (b"fmgg", "a GGMF file of the time before GGUF"),
        (b"tjgg", "a GGJT file of the time before GGUF"),
        (b"algg", "a GGLA file of the time before GGUF"),
        (b"PK\x03\x04", "a ZIP archive, as PyTorch writes it"),
        (b"\x80\x02", "a Python pickle, as PyTorch writes it"),
        (b"\x89HDF\r\n", "an HDF5 file, as Keras writes it"),
        (b"\xfd7zXZ", "a file compressed with xz"),
    ];
    if let Some(magic) = MAGICS.iter().find(|magic| head.starts_with(magic.0)) {
        return Some(magic.1);
    }
    // safetensors begins with the length of its header and the header's brace. ONNX is a protocol buffer whose first
    // field is the version of its format, followed by the name of the program that wrote it.
    match head[..] {
        [.., b'{', _, _, _, _, _, _, _] if head.len() == 16 && head[6] == 0 && head[7] == 0 => {
            Some("a safetensors file")
        }
        [0x08, version, 0x12, ..] if version < 32 => Some("an ONNX file"),
        _ => None,
    }
}

/// Why the model cannot be run; `None` if it can.
fn obstacle(files: &ModelFiles) -> Option<String> {
    let plan = match build_plan(files.set()) {
        Ok(plan) => plan,
        Err(error) => return Some(error.to_string()),
    };
    let needs = plan.needs().iter().map(ToString::to_string).collect::<Vec<_>>();
    if !needs.is_empty() {
        return Some(format!("the model needs {}, which is not supported", needs.join(" and ")));
    }
    Tokenizer::from_gguf(files.metadata()).err().map(|error| error.to_string())
}

fn architecture(files: &ModelFiles) -> Option<&str> {
    files.metadata().get("general.architecture")?.as_str()
}

fn report(files: &ModelFiles, obstacle: Option<&str>, with_tensors: bool) -> Json {
    let set = files.set();
    let mut report = json!({
        "format": "gguf",
        "version": set.parts[0].version,
        "architecture": architecture(files),
        "name": set.parts[0].name(),
        "n_params": set.n_params(),
        "file_bytes": set.file_bytes(),
        "supported": obstacle.is_none(),
    });
    if let Some(reason) = obstacle {
        report["reason"] = json!(reason);
    }
    let metadata = files.metadata().iter().map(|(key, value)| (key.to_owned(), json_of(value)));
    report["metadata"] = Json::Object(metadata.collect::<Map<_, _>>());
    if with_tensors {
        let is_split = set.parts.len() > 1;
        let tensors = set.tensors().map(|(part, tensor)| {
            let mut row = json!({
                "name": tensor.name,
                "type": tensor.ty.name(),
                "shape": tensor.dims,
                "offset": tensor.offset,
                "bytes": tensor.bytes,
            });
            if is_split {
                row["part"] = json!(part);
            }
            row
        });
        report["tensors"] = Json::Array(tensors.collect());
    }
    report
}

fn json_of(value: &Value) -> Json {
    match value {
        Value::U8(x) => json!(x),
        Value::I8(x) => json!(x),
        Value::U16(x) => json!(x),
        Value::I16(x) => json!(x),
        Value::U32(x) => json!(x),
        Value::I32(x) => json!(x),
        Value::U64(x) => json!(x),
        Value::I64(x) => json!(x),
        Value::F32(x) => json_of_f32(*x),
        Value::F64(x) => json_of_f64(*x),
        Value::Bool(x) => json!(x),
        Value::String(x) => json!(x),
        Value::Array(array) => json_of_array(array),
    }
}

/// The shortest number that is the same f32; JSON has no number for what is not finite.
fn json_of_f32(x: f32) -> Json {
    x.to_string().parse().map_or(Json::Null, json_of_f64)
}

fn json_of_f64(x: f64) -> Json {
    if x.is_finite() { json!(x) } else { json!(x.to_string()) }
}

fn json_of_array(array: &Array) -> Json {
    let len = array.len();
    if len <= JSON_ARRAY_MAX {
        return Json::Array(first_of(array, len));
    }
    json!({"type": array.kind().name(), "len": len, "first": first_of(array, JSON_ARRAY_FIRST)})
}

/// The first `n` elements.
fn first_of(array: &Array, n: usize) -> Vec<Json> {
    fn each<T>(elements: &[T], n: usize, json_of: impl Fn(&T) -> Json) -> Vec<Json> {
        elements.iter().take(n).map(json_of).collect()
    }
    match array {
        Array::U8(x) => each(x, n, |x| json!(x)),
        Array::I8(x) => each(x, n, |x| json!(x)),
        Array::U16(x) => each(x, n, |x| json!(x)),
        Array::I16(x) => each(x, n, |x| json!(x)),
        Array::U32(x) => each(x, n, |x| json!(x)),
        Array::I32(x) => each(x, n, |x| json!(x)),
        Array::U64(x) => each(x, n, |x| json!(x)),
        Array::I64(x) => each(x, n, |x| json!(x)),
        Array::F32(x) => each(x, n, |x| json_of_f32(*x)),
        Array::F64(x) => each(x, n, |x| json_of_f64(*x)),
        Array::Bool(x) => each(x, n, |x| json!(x)),
        Array::String(x) => each(x, n, |x| json!(x)),
        Array::Array(x) => each(x, n, json_of_array),
    }
}

fn table(job: &InspectJob, name: &str, files: &ModelFiles, obstacle: Option<&str>) -> String {
    let paint = job.paint;
    let set = files.set();
    let metadata = files.metadata();
    let mut text = Text { out: String::new(), paint };
    text.heading(&harmless(name));
    let parts = if set.parts.len() > 1 { format!(" in {} files", set.parts.len()) } else { String::new() };
    text.row("format", &format!("GGUF version {}", set.parts[0].version));
    text.row("architecture", &architecture(files).map_or("–".to_owned(), harmless));
    text.row("name", &set.parts[0].name().map_or("–".to_owned(), harmless));
    text.row("parameters", &short_count(set.n_params()));
    text.row("size", &format!("{}{parts}", short_bytes(set.file_bytes())));
    let key = |name: &str| format!("{}.{name}", architecture(files).unwrap_or_default());
    for (label, name) in [
        ("context", "context_length"),
        ("layers", "block_count"),
        ("width", "embedding_length"),
        ("heads", "attention.head_count"),
        ("KV heads", "attention.head_count_kv"),
    ] {
        if let Some(value) = metadata.get(&key(name)) {
            text.row(label, &shown_value(value));
        }
    }
    if let Some(Value::Array(tokens)) = metadata.get("tokenizer.ggml.tokens") {
        let kind = |key| metadata.get(key).and_then(Value::as_str).map(harmless);
        let kinds = [kind("tokenizer.ggml.model"), kind("tokenizer.ggml.pre")];
        let kinds = kinds.into_iter().flatten().collect::<Vec<_>>().join(", ");
        text.row("vocabulary", &format!("{} tokens ({kinds})", tokens.len()));
    }
    let has_template = metadata.contains("tokenizer.chat_template");
    text.row("chat template", if has_template { "yes" } else { "no" });
    match obstacle {
        None => text.row("can be run", &paint.green("yes")),
        Some(reason) => text.row("can be run", &paint.red(&format!("no: {}", harmless(reason)))),
    }
    text.types(set.tensors().map(|(_, tensor)| tensor));
    text.heading("metadata");
    for (key, value) in metadata.iter() {
        let line = format!("{} = {}", harmless(key), shown_value(value));
        text.line(&line);
    }
    if job.tensors {
        text.heading("tensors (row length first)");
        for (_, tensor) in set.tensors() {
            let shape = tensor.dims.iter().map(u64::to_string).collect::<Vec<_>>().join(" × ");
            text.line(&format!("{:8} {:20} {}", tensor.ty.name(), shape, harmless(&tensor.name)));
        }
    }
    text.out
}

struct Text {
    out: String,
    paint: Paint,
}

impl Text {
    fn heading(&mut self, heading: &str) {
        if !self.out.is_empty() {
            self.out.push('\n');
        }
        self.out.push_str(&self.paint.bold(heading));
        self.out.push('\n');
    }

    fn row(&mut self, label: &str, value: &str) {
        let label = self.paint.dim(&format!("{label:14}"));
        self.line(&format!("{label} {value}"));
    }

    fn line(&mut self, line: &str) {
        self.out.push_str("  ");
        self.out.push_str(line);
        self.out.push('\n');
    }

    /// Which types the tensors have, the one with the most bytes first.
    fn types<'a>(&mut self, tensors: impl Iterator<Item = &'a TensorInfo>) {
        let mut types: BTreeMap<GgmlType, (u64, u64, u64)> = BTreeMap::new();
        for tensor in tensors {
            let (n_tensors, n_elements, bytes) = types.entry(tensor.ty).or_default();
            *n_tensors += 1;
            *n_elements = n_elements.saturating_add(tensor.n_elements());
            *bytes = bytes.saturating_add(tensor.bytes);
        }
        if types.is_empty() {
            return;
        }
        let mut types = types.into_iter().collect::<Vec<_>>();
        types.sort_by_key(|(ty, (_, _, bytes))| (std::cmp::Reverse(*bytes), *ty));
        self.heading("types");
        for (ty, (n_tensors, n_elements, bytes)) in types {
            let (count, size) = (short_count(n_elements), short_bytes(bytes));
            self.line(&format!("{:8} {n_tensors:>6} tensors {count:>10} {size:>12}", ty.name()));
        }
    }
}

/// A value in few words.
fn shown_value(value: &Value) -> String {
    let element = |json: &Json| match json {
        Json::String(text) => shown_text(text),
        other => other.to_string(),
    };
    match value {
        Value::String(text) => shown_text(text),
        Value::Array(array) => {
            let first = first_of(array, TEXT_ARRAY_FIRST).iter().map(element).collect::<Vec<_>>().join(", ");
            if array.len() <= TEXT_ARRAY_FIRST {
                format!("[{first}]")
            } else {
                format!("[{first}, … {} in all]", array.len())
            }
        }
        other => element(&json_of(other)),
    }
}

/// A string in quotes, cut to a line.
fn shown_text(text: &str) -> String {
    let cut = text.chars().take(TEXT_CHARS_MAX).collect::<String>();
    if cut.len() == text.len() {
        format!("\"{}\"", harmless(text))
    } else {
        format!("\"{}…\" ({} bytes)", harmless(&cut), text.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_json_lacks_become_texts_and_f32_stay_short() {
        assert_eq!(json_of(&Value::F32(1e-5)), json!(1e-5));
        assert_eq!(json_of(&Value::F32(f32::NAN)), json!("NaN"));
        assert_eq!(json_of(&Value::F64(f64::NEG_INFINITY)), json!("-inf"));
        assert_eq!(json_of(&Value::U64(u64::MAX)).to_string(), u64::MAX.to_string());
    }

    #[test]
    fn long_arrays_are_described_by_their_beginning() {
        let long = json_of(&Value::from(vec![7u32; JSON_ARRAY_MAX + 1]));
        assert_eq!(long["len"], JSON_ARRAY_MAX + 1);
        assert_eq!(long["type"], "u32");
        assert_eq!(long["first"].as_array().map(Vec::len), Some(JSON_ARRAY_FIRST));
        assert!(json_of(&Value::from(vec![7u32; JSON_ARRAY_MAX])).is_array());
    }
}
