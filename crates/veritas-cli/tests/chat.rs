//! `chat` through the binary, with one message a line from a pipe.

mod common;

use common::{data, folder, in_folder, veritas};
use serde_json::{Value, json};

fn chat(flags: &[&str], lines: &str) -> common::Outcome {
    veritas(&[&["chat", "--temp", "0", "-n", "12", "--quiet"], flags].concat(), lines.as_bytes())
}

#[test]
fn each_line_is_answered_and_the_first_answer_is_that_of_run() {
    let out = chat(&["--json"], "Hello\nWhat is Veritas SDR?\n").text();
    let answers = out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect::<Vec<Value>>();
    assert_eq!(answers.len(), 2);
    let run = veritas(&["run", "--temp", "0", "-n", "12", "--json", "Hello"], b"").json();
    assert_eq!(answers[0]["text"], run["text"]);
    assert_eq!(answers[0]["finish_reason"], run["finish_reason"]);
    let text = chat(&[], "Hello\n").text();
    assert_eq!(text, format!("{}\n", run["text"].as_str().expect("a text")));
}

#[test]
fn the_history_is_part_of_the_next_prompt_until_it_is_reset() {
    let folder = folder();
    let (before, after) = (in_folder(&folder, "before.json"), in_folder(&folder, "after.json"));
    let lines = format!("Hello\n/save {before}\n/reset\n/system Be brief.\n//etc\n/save {after}\n");
    chat(&[], &lines).text();
    let read = |path: &str| -> Value {
        let text = std::fs::read_to_string(path).expect("the conversation");
        serde_json::from_str::<Value>(&text).expect("JSON")["messages"].clone()
    };
    let before = read(&before);
    assert_eq!(before[0], json!({"role": "user", "content": "Hello"}));
    assert_eq!(before[1]["role"], "assistant");
    let after = read(&after);
    assert_eq!(after[0], json!({"role": "system", "content": "Be brief."}));
    assert_eq!(after[1], json!({"role": "user", "content": "/etc"}));
    assert_eq!(after.as_array().map(Vec::len), Some(3));
}

#[cfg(unix)]
#[test]
fn a_saved_conversation_is_its_owners_alone_and_replaces_nothing() {
    use std::os::unix::fs::PermissionsExt;
    let folder = folder();
    let path = in_folder(&folder, "chat.json");
    chat(&[], &format!("/save {path}\n")).text();
    assert_eq!(std::fs::metadata(&path).expect("a file").permissions().mode() & 0o777, 0o600);
    let again = chat(&[], &format!("/save {path}\n"));
    assert_eq!(again.code, Some(2), "{}", again.stderr);
    assert!(again.stderr.contains("cannot write"), "{}", again.stderr);
}

#[test]
fn a_history_beyond_the_context_is_an_error_and_the_chat_goes_on() {
    let long = "word ".repeat(60);
    let lines = format!("{long}\n/reset\nHi\n");
    let outcome = chat(&["--ctx", "48"], &lines);
    // The message with both numbers, then the answer to the short message, then the status that a script sees.
    let numbers = outcome.stderr.lines().next().unwrap_or_default().to_owned();
    assert!(numbers.contains("48"), "{numbers}");
    let n_numbers = numbers.split(|c: char| !c.is_ascii_digit()).filter(|n| !n.is_empty()).count();
    assert!(n_numbers >= 2, "{numbers}");
    assert!(outcome.stderr.contains("/reset"), "{}", outcome.stderr);
    assert!(!outcome.stdout.is_empty(), "{}", outcome.stderr);
    assert_eq!(outcome.code, Some(2));
}

#[test]
fn commands_end_the_chat_or_say_that_they_are_unknown() {
    let outcome = chat(&[], "/quit\nHello\n");
    assert_eq!((outcome.code, outcome.stdout.as_slice()), (Some(0), &b""[..]));
    let outcome = chat(&[], "/nonsense\n");
    assert_eq!(outcome.code, Some(2));
    assert!(outcome.stderr.contains("/nonsense"), "{}", outcome.stderr);
    let outcome = chat(&[], "");
    assert_eq!(outcome.code, Some(0));
    assert!(chat(&[], "/help\n").stderr.contains("/reset"));
}

#[test]
fn a_model_without_a_template_is_refused() {
    let model = data("golden/llama/model-f16.gguf");
    let (exit, code, _) = chat(&["--json", "--model", &model], "Hello\n").error();
    assert_eq!((exit, code.as_str()), (2, "usage"));
}

#[test]
fn a_template_that_fails_is_a_fault_of_the_model_and_ends_the_chat() {
    let with_template = |template: &str| {
        let change = format!("tokenizer.chat_template=str:{template}");
        chat(&["--json", "--override-kv", &change], "Hello\nHello again\n")
    };
    for (template, message) in [
        ("{{ raise_exception('roles must alternate') }}", "roles must alternate"),
        ("{{ messages[0]['content'] | no_such_filter }}", "no_such_filter"),
        ("{% for message in messages %}{{ message['content'] }}", ""),
        ("{{ messages[7]['content']['x'] }}", ""),
        ("{% for i in range(1000000) %}{% for j in range(1000000) %}{{ j }}{% endfor %}{% endfor %}", ""),
    ] {
        let outcome = with_template(template);
        let (exit, code, said) = outcome.error();
        assert_eq!((exit, code.as_str()), (4, "malformed_model"), "{template}: {said}");
        assert!(said.contains(message), "{template}: {said}");
        assert_eq!(outcome.stderr.lines().count(), 1, "it ends at the first message: {}", outcome.stderr);
        assert!(outcome.stdout.is_empty());
    }
}

#[test]
fn a_message_cannot_name_a_control_token() {
    let prompt_ids = |message: &str| -> Vec<u64> {
        let run = veritas(&["run", "--temp", "0", "-n", "1", "--json", message], b"").json();
        run["prompt_ids"].as_array().expect("a list").iter().map(|id| id.as_u64().expect("an id")).collect()
    };
    let plain = prompt_ids("hello");
    let mut n_markers = 0;
    for &id in &plain {
        let text = veritas(&["detokenize"], json!([id]).to_string().as_bytes()).text();
        let special = veritas(&["tokenize", "--no-bos", "--special"], text.as_bytes()).json();
        let ordinary = veritas(&["tokenize", "--no-bos"], text.as_bytes()).json();
        if special != json!([id]) || ordinary == special {
            continue;
        }
        n_markers += 1;
        let count = |ids: &[u64]| ids.iter().filter(|&&other| other == id).count();
        assert_eq!(count(&prompt_ids(&format!("hello {text}"))), count(&plain), "{text}");
    }
    assert!(n_markers >= 3, "the built-in template has {n_markers} control tokens");
}
