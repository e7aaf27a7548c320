//! `template` through the binary: what is rendered, and whose fault an error is.

mod common;

use common::{folder, in_folder, test_data, veritas};
use serde_json::{Value, json};

const CHATML: &str = "{{ bos_token }}{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}\
{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

fn render(template: &str, request: &Value) -> common::Outcome {
    let folder = folder();
    let path = in_folder(&folder, "template.jinja");
    std::fs::write(&path, template).expect("a file");
    veritas(&["template", "--json", "--template", &path], request.to_string().as_bytes())
}

fn hello() -> Value {
    json!({"messages": [{"role": "user", "content": "hi"}]})
}

#[test]
fn the_text_is_what_the_template_says_and_no_more() {
    assert_eq!(render(CHATML, &hello()).text(), "<|im_start|>user\nhi<|im_end|>\n");
    let mut request = hello();
    request["add_generation_prompt"] = json!(true);
    request["bos_token"] = json!("<s>");
    assert_eq!(render(CHATML, &request).text(), "<s><|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n");
}

#[test]
fn date_tools_thinking_and_more_variables_reach_the_template() {
    let template = "{{ strftime_now('%d %B %Y') }}|{{ enable_thinking }}|{{ tools[0].name }}|{{ tone }}";
    let mut request = hello();
    request["now"] = json!("2026-01-02");
    request["enable_thinking"] = json!(false);
    request["tools"] = json!([{"name": "get_weather"}]);
    request["tone"] = json!("friendly");
    assert_eq!(
        render(template, &request).text().to_lowercase(),
        "02 january 2026|false|get_weather|friendly"
    );
}

#[test]
fn the_templates_own_error_is_the_models_fault() {
    let (exit, code, message) = render("{{ raise_exception('roles must alternate') }}", &hello()).error();
    assert_eq!((exit, code.as_str()), (4, "malformed_model"));
    assert!(message.contains("roles must alternate"), "{message}");
    let (exit, code, _) = render("{% for %}", &hello()).error();
    assert_eq!((exit, code.as_str()), (4, "malformed_model"));
}

#[test]
fn a_template_that_never_ends_is_stopped() {
    let endless = "{% for a in range(9999) %}{% for b in range(9999) %}{% for c in range(9999) %}x{% endfor %}{% endfor %}{% endfor %}";
    let (exit, code, message) = render(endless, &hello()).error();
    assert_eq!((exit, code.as_str()), (4, "malformed_model"), "{message}");
}

#[test]
fn what_is_wrong_with_the_request_is_a_usage_error() {
    for wrong in [
        json!({}),
        json!([]),
        json!({"messages": "hi"}),
        json!({"messages": [], "now": "yesterday"}),
        json!({"messages": [], "add_generation_prompt": "yes"}),
        json!({"messages": [], "bos_token": 1}),
    ] {
        let (exit, code, message) = render(CHATML, &wrong).error();
        assert_eq!((exit, code.as_str()), (2, "usage"), "{wrong}: {message}");
    }
    let (exit, code, _) = veritas(&["template", "--json"], b"not json").error();
    assert_eq!((exit, code.as_str()), (2, "usage"));
    let request = hello().to_string();
    let (exit, code, _) =
        veritas(&["template", "--json", "--template", "/no/such"], request.as_bytes()).error();
    assert_eq!((exit, code.as_str()), (2, "not_found"));
}

#[test]
fn without_a_file_the_models_own_template_and_tokens_are_used() {
    let mut request = hello();
    request["add_generation_prompt"] = json!(true);
    let text = veritas(&["template"], request.to_string().as_bytes()).text();
    assert!(text.contains("hi") && text.len() > 2, "{text:?}");
    // The text of the token that begins a sequence is the model's.
    let bos = veritas(&["inspect", "--json", "../../tools/demo-model/veritas-demo.gguf"], b"").json();
    let bos = bos["metadata"]["tokenizer.ggml.bos_token_id"].as_u64().expect("an id");
    let bos = veritas(&["detokenize"], json!([bos]).to_string().as_bytes()).text();
    assert!(text.starts_with(&bos), "{text:?} does not begin with {bos:?}");
}

#[test]
fn real_templates_give_the_texts_that_transformers_gives() {
    let Some(file) = test_data("tokenizers/templates-expected.json") else { return };
    let Some(folder) = test_data("tokenizers/templates") else { return };
    let all: Value = serde_json::from_slice(&std::fs::read(file).expect("expectations")).expect("JSON");
    // The whole list stands in the tokenizer's tests; these go through the binary.
    for name in ["Qwen-Qwen2.5-7B-Instruct", "meta-llama-Llama-3.1-8B-Instruct", "google-gemma-2-2b-it"] {
        let expected = all["render"][name]["nosys"].as_str().expect("an expected text");
        let path = common::path_text(folder.join(format!("{name}.jinja")));
        let request = json!({
            "messages": all["inputs"]["nosys"], "add_generation_prompt": true, "enable_thinking": false,
            "bos_token": "<s>", "eos_token": "</s>", "now": "2026-01-02",
        });
        let text = veritas(&["template", "--template", &path], request.to_string().as_bytes()).text();
        assert_eq!(text, expected, "{name}");
    }
}
