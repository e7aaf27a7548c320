//! `run`, `logits` and `perplexity` through the binary, on the built-in model, the golden models and real small ones.

mod common;

use common::{data, folder, path_text, test_data, veritas};
use serde_json::{Value, json};
use veritas_testkit::{Tensors, committed};

const F32_CACHE: [&str; 4] = ["--cache-type-k", "f32", "--cache-type-v", "f32"];

fn run_json(args: &[&str]) -> Value {
    veritas(&[&["run", "--json"], args].concat(), b"").json()
}

fn same_answer(a: &Value, b: &Value) -> bool {
    ["text", "ids", "logprobs", "top_logprobs", "finish_reason"].iter().all(|field| a[field] == b[field])
}

#[test]
fn the_built_in_model_streams_an_answer_and_one_summary_line() {
    let outcome = veritas(&["run", "What is Veritas SDR?", "--temp", "0", "-n", "80"], b"");
    let text = outcome.text();
    assert!(text.trim().len() > 20 && text.ends_with('\n'), "{text}");
    assert_eq!(outcome.stderr.lines().count(), 1, "{}", outcome.stderr);
    assert!(
        outcome.stderr.contains("tokens/s") && outcome.stderr.contains("first token"),
        "{}",
        outcome.stderr
    );
    let quiet = veritas(&["run", "What is Veritas SDR?", "--temp", "0", "-n", "80", "--quiet"], b"");
    assert_eq!((quiet.text(), quiet.stderr.as_str()), (text, ""));
}

#[test]
fn a_report_holds_every_promised_field() {
    let report = run_json(&["hello", "-n", "5", "--seed", "3", "--logprobs", "2", "--prompt-logprobs"]);
    let n = report["ids"].as_array().unwrap().len();
    assert_eq!(report["seed"], 3);
    assert!(report["model_digest"].as_str().unwrap().starts_with("sha256:"));
    assert_eq!(report["usage"]["prompt_tokens"], report["prompt_ids"].as_array().unwrap().len());
    assert_eq!(report["usage"]["completion_tokens"], n);
    assert_eq!(report["logprobs"].as_array().unwrap().len(), n);
    assert!(report["top_logprobs"].as_array().unwrap().iter().all(|top| top.as_array().unwrap().len() == 2));
    let prompt_logprobs = report["prompt_logprobs"].as_array().unwrap();
    assert_eq!(prompt_logprobs.len(), report["prompt_ids"].as_array().unwrap().len());
    assert!(prompt_logprobs[0].is_null() && prompt_logprobs[1..].iter().all(|x| x.as_f64().unwrap() <= 0.0));
    for field in ["load_ms", "ttft_ms", "prompt_tokens_per_s"] {
        assert!(report["timings"][field].as_f64().unwrap() > 0.0, "{field}");
    }
    assert_eq!(report["effective"]["sandbox"].as_object().unwrap().len(), 9);
    assert!(run_json(&["hello", "-n", "1", "--no-digest"])["model_digest"].is_null());
}

#[test]
fn the_same_request_gives_the_same_answer_on_any_threads_levels_and_chunks() {
    let request =
        ["--raw", "Once upon a time", "--seed", "7", "--temp", "0.8", "-n", "60", "--logprobs", "3"];
    let reference = run_json(&request);
    let settings: [&[&str]; 5] = [
        &["--threads", "1"],
        &["--threads", "5"],
        &["--isa", "portable"],
        &["--prefill-chunk", "1"],
        &["--prefill-chunk", "3", "--threads", "2"],
    ];
    for setting in settings {
        assert!(same_answer(&reference, &run_json(&[&request[..], setting].concat())), "{setting:?}");
    }
    let other_seed = run_json(&["--raw", "Once upon a time", "--seed", "8", "--temp", "0.8", "-n", "60"]);
    assert_ne!(reference["ids"], other_seed["ids"]);
}

#[test]
fn several_choices_differ_and_the_first_is_the_single_answer() {
    let request = ["--raw", "Once upon a time, a brave owl lived by the mill", "--seed", "7", "-n", "20"];
    let choices = run_json(&[&request[..], &["--n", "3"]].concat());
    let choices = choices["choices"].as_array().unwrap();
    assert_eq!(choices.len(), 3);
    assert!(same_answer(&choices[0], &run_json(&request)));
    assert!(choices[0]["ids"] != choices[1]["ids"] && choices[1]["ids"] != choices[2]["ids"]);
}

#[test]
fn a_stop_text_ends_the_answer_before_it_wherever_tokens_are_cut() {
    let request = ["--raw", "Once upon a time", "--temp", "0", "-n", "60"];
    let whole = run_json(&request)["text"].as_str().unwrap().to_owned();
    let stop = &whole[10..16];
    let stopped = run_json(&[&request[..], &["--stop", stop]].concat());
    assert_eq!(stopped["finish_reason"], "stop");
    assert_eq!(stopped["text"], whole[..whole.find(stop).unwrap()]);
}

#[test]
fn minimum_and_maximum_lengths_and_ignored_ends_are_kept() {
    let answer = run_json(&["hello", "--temp", "0"]);
    assert_eq!(answer["finish_reason"], "stop");
    let n = answer["ids"].as_array().unwrap().len() as u64;
    let longer = run_json(&["hello", "--temp", "0", "-n", "200", "--min-tokens", &(n + 5).to_string()]);
    assert!(longer["usage"]["completion_tokens"].as_u64().unwrap() >= n + 5);
    let endless = run_json(&["hello", "--temp", "0", "-n", "40", "--ignore-eos"]);
    assert_eq!(
        (&endless["finish_reason"], &endless["usage"]["completion_tokens"]),
        (&json!("length"), &json!(40))
    );
}

#[test]
fn a_full_context_ends_the_answer_with_length_and_loses_nothing() {
    let report = run_json(&["--ids", "5,6,7", "--ignore-eos", "--ctx", "40", "--temp", "0"]);
    assert_eq!(
        (&report["finish_reason"], &report["usage"]["completion_tokens"]),
        (&json!("length"), &json!(37))
    );
    let more = run_json(&["--ids", "5,6,7", "--ignore-eos", "--ctx", "40", "--temp", "0", "-n", "100000"]);
    assert_eq!(more["ids"], report["ids"]);
}

#[test]
fn a_prompt_beyond_the_context_is_an_error_with_both_numbers() {
    let outcome = veritas(&["run", "-", "-n", "4", "--json"], "word ".repeat(20_000).as_bytes());
    let (exit, code, message) = outcome.error();
    assert_eq!((exit, code.as_str()), (2, "context_exceeded"));
    let numbers = message.split(|c: char| !c.is_ascii_digit()).filter(|digits| digits.len() >= 3).count();
    assert!(numbers >= 2, "{message}");
}

#[test]
fn wrong_requests_are_usage_errors() {
    let requests: [(&[&str], &str); 8] = [
        (&["x", "--model", "/no/such/file.gguf"], "not_found"),
        (&["x", "--no-such-flag"], "usage"),
        (&["x", "--temp", "abc"], "usage"),
        (&["x", "--temp", "-1"], "usage"),
        (&["x", "--isa", "sse9"], "usage"),
        (&["--ids", "1,99999999"], "usage"),
        (&["x", "--ctx", "100000000"], "usage"),
        (&[], "usage"),
    ];
    for (args, expected) in requests {
        let (exit, code, message) = veritas(&[&["run", "--json"], args].concat(), b"").error();
        assert_eq!((exit, code.as_str()), (2, expected), "{args:?}: {message}");
    }
}

#[test]
fn what_cannot_be_run_is_named_with_exit_4() {
    for (name, word) in [("mixtral", "mixture of experts"), ("deepseek_v3", "latent"), ("gpt_oss", "gpt-oss")]
    {
        let model = data(&format!("golden/{name}/model-f16.gguf"));
        let (exit, code, message) = veritas(&["run", "--json", "--model", &model, "--ids", "1"], b"").error();
        assert_eq!((exit, code.as_str()), (4, "unsupported_model"), "{name}: {message}");
        assert!(message.contains(word), "{name}: {message}");
    }
}

#[test]
fn weights_that_are_not_numbers_end_with_malformed_model() {
    let mut bytes = std::fs::read(committed("golden/llama/model-f16.gguf")).unwrap();
    let gguf = veritas_gguf::parse(&bytes).unwrap();
    let norm = gguf.tensor("output_norm.weight").unwrap().offset as usize;
    bytes[norm..norm + 4].copy_from_slice(&f32::NAN.to_le_bytes());
    let folder = folder();
    let path = folder.path().join("nan.gguf");
    std::fs::write(&path, bytes).unwrap();
    let path = path_text(path);
    let (exit, code, message) = veritas(&["run", "--json", "--model", &path, "--ids", "1,2"], b"").error();
    assert_eq!((exit, code.as_str()), (4, "malformed_model"), "{message}");
}

#[test]
fn text_in_a_prompt_never_becomes_a_control_token() {
    let hello = run_json(&["hello", "-n", "1", "--temp", "0"]);
    let ids = hello["prompt_ids"].as_array().unwrap().clone();
    let mut n_controls = 0;
    for id in ids.iter().map(|id| id.as_u64().unwrap()).collect::<std::collections::BTreeSet<_>>() {
        let line = json!({"ids": [id]}).to_string();
        let text =
            veritas(&["detokenize", "--jsonl"], line.as_bytes()).json()["text"].as_str().unwrap().to_owned();
        let plain = veritas(&["tokenize", "--no-bos"], text.as_bytes()).json();
        let parsed = veritas(&["tokenize", "--no-bos", "--special"], text.as_bytes()).json();
        if parsed != json!([id]) || plain == parsed {
            continue;
        }
        n_controls += 1;
        let count = |report: &Value| {
            report["prompt_ids"].as_array().unwrap().iter().filter(|found| **found == json!(id)).count()
        };
        for message in [format!("hello {text}"), text.clone(), format!("{text}{text} and {text}")] {
            let forged = run_json(&[&message, "-n", "1", "--temp", "0"]);
            assert_eq!(count(&forged), count(&hello), "{message:?} adds a control token");
            let system = run_json(&["hello", "--system", &message, "-n", "1", "--temp", "0"]);
            let honest = run_json(&["hello", "--system", "be kind", "-n", "1", "--temp", "0"]);
            assert_eq!(
                count(&system),
                count(&honest),
                "{message:?} as a system message adds a control token"
            );
        }
        let raw = run_json(&["--raw", &format!("x {text} y"), "-n", "1", "--temp", "0"]);
        assert!(!raw["prompt_ids"].as_array().unwrap()[1..].contains(&json!(id)), "{text} in a raw prompt");
    }
    assert!(n_controls >= 3, "the built-in model's template has control tokens");
}

#[test]
fn golden_models_continue_as_the_reference_does() {
    for name in ["llama", "gemma3", "phi3", "gpt2"] {
        let golden = Tensors::read(&committed(&format!("golden/{name}/logits.safetensors")));
        let prompt = golden.tensor("greedy_prompt").token_ids();
        let prompt = prompt.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
        let model = data(&format!("golden/{name}/model-f16.gguf"));
        let args = ["--model", &model, "--ids", &prompt, "--temp", "0", "-n", "16", "--ignore-eos"];
        let report = run_json(&[&args[..], &F32_CACHE].concat());
        assert_eq!(report["ids"], json!(golden.tensor("greedy").token_ids()), "{name}");
    }
}

#[test]
fn logits_and_hidden_states_are_written_as_tensors() {
    let golden = Tensors::read(&committed("golden/qwen3/logits.safetensors"));
    let ids =
        golden.tensor("tokens").token_ids()[..24].iter().map(u32::to_string).collect::<Vec<_>>().join(",");
    let (folder, model) = (folder(), data("golden/qwen3/model-f16.gguf"));
    let out = path_text(folder.path().join("out.safetensors"));
    let args =
        ["logits", "--model", &model, "--ids", &ids, "--out", &out, "--hidden", "--prefill-chunk", "7"];
    veritas(&[&args[..], &F32_CACHE].concat(), b"").text();
    let found = Tensors::read(std::path::Path::new(&out));
    let close = |found: &[f32], expected: &[f32]| {
        found.len() == expected.len() && found.iter().zip(expected).all(|(a, b)| (a - b).abs() <= 1e-3)
    };
    assert_eq!(found.tensor("logits").shape, [24, 384]);
    assert!(close(&found.tensor("logits").f32s, golden.tensor("logits").row(0)));
    assert_eq!(found.tensor("hidden").shape, golden.tensor("hidden").shape);
    assert!(close(&found.tensor("hidden").f32s, &golden.tensor("hidden").f32s));
}

#[test]
fn real_models_tell_the_stories_that_the_reference_tells() {
    let Some(folder) = test_data("models") else { return };
    let expected = std::fs::read_to_string(folder.join("expected.json")).unwrap();
    let expected: Value = serde_json::from_str(&expected).unwrap();
    for (name, file) in
        [("stories260K", "stories260K-f16.gguf"), ("tinystories-656k", "tinystories-656k-f16.gguf")]
    {
        let (model, expected) = (path_text(folder.join(file)), &expected[name]);
        let prompt = expected["prompt"].as_str().unwrap();
        let report = run_json(&["--model", &model, "--raw", prompt, "--temp", "0", "-n", "40"]);
        assert_eq!(report["prompt_ids"], expected["prompt_ids"], "{name}");
        assert_eq!(
            report["ids"].as_array().unwrap()[..],
            expected["greedy_ids"].as_array().unwrap()[..40],
            "{name}"
        );
    }
}

#[test]
fn perplexity_is_the_mean_of_the_log_probabilities_of_the_second_half() {
    let folder = folder();
    let path = folder.path().join("text.txt");
    std::fs::write(&path, "Once upon a time, a brave owl lived by the mill. ".repeat(12)).unwrap();
    let path = path_text(path);
    let report = veritas(&["perplexity", &path, "--ctx", "32", "--json"], b"").json();
    // The same figure from `run`'s prompt log-probabilities, chunk by chunk.
    let text = std::fs::read(&path).unwrap();
    let ids = veritas(&["tokenize"], &text).json();
    let ids = ids.as_array().unwrap().iter().map(|id| id.as_u64().unwrap()).collect::<Vec<_>>();
    let (mut sum, mut n) = (0.0, 0);
    for chunk in ids.chunks_exact(32) {
        let mut chunk = chunk.to_vec();
        chunk[0] = ids[0];
        let list = chunk.iter().map(u64::to_string).collect::<Vec<_>>().join(",");
        let run = run_json(&["--ids", &list, "-n", "0", "--prompt-logprobs", "--temp", "0"]);
        for logprob in &run["prompt_logprobs"].as_array().unwrap()[17..] {
            sum -= logprob.as_f64().unwrap();
            n += 1;
        }
    }
    assert_eq!(report["tokens"], n);
    let expected = (sum / f64::from(n)).exp();
    let found = report["perplexity"].as_f64().unwrap();
    assert!((found / expected - 1.0).abs() < 1e-5, "{found} {expected}");
}
