//! Workers through the binary: what confines them, what becomes of a command whose worker dies, and what is refused.
#![cfg(target_os = "linux")]

mod common;

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use common::{data, folder, in_folder, veritas};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// The model that is built into the binary, as a file.
const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tools/demo-model/veritas-demo.gguf");

/// Layers that every kernel has.
const ALWAYS: [&str; 6] =
    ["no_new_privs", "no_capabilities", "seccomp", "rlimits", "closed_fds", "no_core_dump"];

/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(120);

/// An answer that does not end by itself for minutes, in a context far longer than the model's own: what it says there is of
/// no interest.
const ENDLESS: [&str; 11] = [
    "--raw",
    "Once upon a time",
    "--temp",
    "0",
    "--ignore-eos",
    "--threads",
    "1",
    "--override-kv",
    "llama.context_length=int:65536",
    "--ctx",
    "65536",
];

fn start(args: &[&str]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_veritas-sdr"))
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts")
}

/// Waits for what `look` finds.
fn await_some<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what} has not come");
        std::thread::yield_now();
    }
}

/// The worker that `parent` has started, from when it has a name of its own: it is being confined, or is.
fn child_of(parent: u32) -> Option<u32> {
    let is_child = |pid: &u32| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        field(&status, "PPid:") == parent.to_string() && field(&status, "Name:") == "veritas-worker"
    };
    let processes = std::fs::read_dir("/proc").expect("/proc");
    processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).find(is_child)
}

fn field(status: &str, name: &str) -> String {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ")
}

fn signal(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(pid as i32).expect("a process id");
    kill_process(pid, signal).expect("the process is there");
}

/// Waits for the first bytes of an answer.
fn await_text(stdout: &mut BufReader<ChildStdout>) {
    assert!(!stdout.fill_buf().expect("the answer").is_empty(), "the command ended before it answered");
}

/// Waits for the end; gives the exit status and what is left on stdout and stderr.
fn end(mut child: Child, mut stdout: BufReader<ChildStdout>) -> (Option<i32>, String, String) {
    let (mut text, mut errors) = (Vec::new(), String::new());
    stdout.read_to_end(&mut text).expect("stdout");
    child.stderr.take().expect("a pipe").read_to_string(&mut errors).expect("stderr");
    (child.wait().expect("an end").code(), String::from_utf8_lossy(&text).into_owned(), errors)
}

fn layers(report: &Value) -> &serde_json::Map<String, Value> {
    report["effective"]["sandbox"].as_object().expect("an object")
}

#[test]
fn the_report_of_the_sandbox_is_what_can_be_seen_from_outside() {
    let mut child = start(&[&["run", "--json"], &ENDLESS[..]].concat());
    let stdout = BufReader::new(child.stdout.take().expect("a pipe"));
    let parent = child.id();
    let worker = await_some("the worker", || child_of(parent));
    // The filter is the last layer.
    let status = await_some("the last layer", || {
        let status = std::fs::read_to_string(format!("/proc/{worker}/status")).ok()?;
        let n_filters = field(&status, "Seccomp_filters:").parse::<u32>().unwrap_or(9);
        (field(&status, "Seccomp:") == "2" && n_filters >= 2 && field(&status, "Threads:") != "1")
            .then_some(status)
    });
    let limits = std::fs::read_to_string(format!("/proc/{worker}/limits")).expect("limits");
    signal(parent, Signal::INT);
    let (code, text, errors) = end(child, stdout);
    assert_eq!(code, Some(130), "{errors}");
    let report: Value = serde_json::from_str(&text).expect("the report of what there was");
    assert_eq!(report["finish_reason"], "cancelled");
    let layers = layers(&report);
    for layer in ALWAYS {
        assert_eq!(layers[layer], "enforced", "{layer}");
    }
    assert_eq!(field(&status, "NoNewPrivs:"), "1");
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
        assert_eq!(field(&status, set), "0000000000000000", "{set}");
    }
    let limit = |name: &str| field(&limits, name).split(' ').next().unwrap_or_default().to_owned();
    assert_eq!((limit("Max core file size"), limit("Max file size")), ("0".to_owned(), "0".to_owned()));
    let n_namespaces = field(&status, "NSpid:").split(' ').count();
    assert_eq!(layers["namespaces"] == "enforced", n_namespaces > 1, "{status}");
}

#[test]
fn the_process_that_the_user_starts_can_make_no_internet_socket_either() {
    let mut child = start(&[&["run"], &ENDLESS[..]].concat());
    let mut stdout = BufReader::new(child.stdout.take().expect("a pipe"));
    await_text(&mut stdout);
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).expect("status");
    assert_eq!((field(&status, "Seccomp:").as_str(), field(&status, "NoNewPrivs:").as_str()), ("2", "1"));
    signal(child.id(), Signal::TERM);
    assert_eq!(end(child, stdout).0, Some(130));
}

#[test]
fn a_worker_that_is_killed_ends_the_command_with_worker_lost() {
    let mut child = start(&[&["run", "--json"], &ENDLESS[..]].concat());
    let stdout = BufReader::new(child.stdout.take().expect("a pipe"));
    let parent = child.id();
    let worker = await_some("the worker", || child_of(parent));
    signal(worker, Signal::KILL);
    let (code, text, errors) = end(child, stdout);
    assert_eq!((code, text.as_str()), (Some(1), ""));
    let error: Value = serde_json::from_str(errors.lines().last().unwrap_or_default()).expect("JSON");
    assert_eq!(error["error"]["code"], "worker_lost");
    assert!(error["error"]["message"].as_str().is_some_and(|text| text.contains("SIGKILL")), "{error}");
}

#[test]
fn a_model_that_is_cut_short_while_it_runs_is_said_to_be() {
    let folder = folder();
    let model = in_folder(&folder, "model.gguf");
    std::fs::copy(MODEL, &model).expect("a copy");
    let mut child = start(&[&["run", "--model", &model], &ENDLESS[..]].concat());
    let mut stdout = BufReader::new(child.stdout.take().expect("a pipe"));
    await_text(&mut stdout);
    // Through another name, so that the open file is the one that shrinks.
    std::fs::OpenOptions::new()
        .write(true)
        .open(&model)
        .expect("the file")
        .set_len(0)
        .expect("an empty file");
    let (code, _, errors) = end(child, stdout);
    assert_eq!(code, Some(1), "{errors}");
    assert!(errors.contains("cut short"), "{errors}");
}

#[test]
fn what_is_no_regular_file_is_refused_before_a_worker_starts() {
    let folder = folder();
    let pipe = in_folder(&folder, "pipe.gguf");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &pipe,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )
    .expect("a pipe");
    let folder_path = common::path_text(folder.path().to_owned());
    let cases = [
        (pipe.as_str(), 2, "not_found"),
        (folder_path.as_str(), 4, "unsupported_model"),
        ("/no/such.gguf", 2, "not_found"),
    ];
    for (path, exit, code) in cases {
        for command in [&["run", "x", "--model"][..], &["tokenize", "--model"], &["inspect"]] {
            let args = [command, &[path, "--json"]].concat();
            let (found_exit, found_code, message) = veritas(&args, b"").error();
            assert_eq!((found_exit, found_code.as_str()), (exit, code), "{args:?}: {message}");
        }
    }
}

#[test]
fn a_worker_cannot_break_out() {
    let result = veritas(&["sandbox", "test", "--json"], b"").json();
    let probes = result["probes"].as_array().expect("a list");
    assert!(probes.len() >= 22, "{}", probes.len());
    for probe in probes {
        assert_eq!(probe["pass"], true, "{probe}");
        assert_eq!(probe["expected"], probe["observed"], "{probe}");
        assert!(probe["name"].is_string() && probe["errno"].is_number(), "{probe}");
    }
    // What is tried is what the documents say is tried.
    let read = |path: &str| {
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)).expect(path)
    };
    let (security, sandbox) = (read("SECURITY.md"), read("docs/sandbox.md"));
    for probe in probes {
        let name = probe["name"].as_str().expect("a name");
        assert_eq!(security.matches(&format!("\n| `{name}` |")).count(), 1, "{name} in SECURITY.md");
        assert!(sandbox.contains(&format!("`{name}`")), "{name} in docs/sandbox.md");
    }
    let rows = security.lines().filter(|line| line.starts_with("| `")).count();
    assert_eq!(rows, probes.len(), "a row for each probe, and none besides");
    let text = veritas(&["sandbox", "test", "--model", &data("golden/llama/model-f16.gguf")], b"").text();
    assert_eq!(text.lines().count(), probes.len() + 2);
    assert!(text.contains(&format!("{0} of {0} pass", probes.len())), "{text}");
}

#[test]
fn a_probe_that_sees_something_else_than_the_policy_expects_fails_the_test() {
    let folder = folder();
    let policy = in_folder(&folder, "policy.toml");
    std::fs::write(&policy, "[probes]\nexecute = \"ENOENT\"\n").expect("a file");
    let outcome = veritas(&["sandbox", "test", "--json", "--sandbox", &policy], b"");
    assert_eq!(outcome.code, Some(1), "{}", outcome.stderr);
    let result: Value = serde_json::from_slice(&outcome.stdout).expect("JSON");
    let failed = result["probes"].as_array().expect("a list").iter().filter(|probe| probe["pass"] == false);
    assert_eq!(failed.map(|probe| probe["name"].clone()).collect::<Vec<_>>(), ["execute"]);
}

#[test]
fn the_strict_policy_refuses_where_a_layer_is_missing_and_names_it() {
    let report = veritas(&["run", "--json", "hello", "-n", "1", "--no-digest"], b"").json();
    let missing = layers(&report).iter().find(|(_, state)| *state != "enforced").map(|(layer, _)| layer);
    for command in [&["run", "hello", "-n", "1"][..], &["tokenize"], &["inspect", "MODEL"]] {
        let model = data("golden/llama/model-f16.gguf");
        let command = command.iter().map(|&arg| if arg == "MODEL" { model.as_str() } else { arg });
        let args = command.chain(["--json", "--sandbox", "strict"]).collect::<Vec<_>>();
        let outcome = veritas(&args, b"x");
        match missing {
            None => assert_eq!(outcome.code, Some(0), "{}", outcome.stderr),
            Some(_) => {
                let (exit, code, message) = outcome.error();
                assert_eq!((exit, code.as_str()), (5, "forbidden"), "{message}");
                let named = layers(&report).iter().filter(|(layer, _)| message.contains(*layer));
                assert!(
                    named.clone().count() > 0 && named.clone().all(|(_, state)| state != "enforced"),
                    "{message}"
                );
            }
        }
    }
}

#[test]
fn a_policy_file_says_what_is_tried_and_its_errors_have_a_line() {
    let folder = folder();
    let (off, wrong) = (in_folder(&folder, "off.toml"), in_folder(&folder, "wrong.toml"));
    std::fs::write(&off, "[layers]\noff = [\"landlock\"]\n").expect("a file");
    std::fs::write(&wrong, "[layers]\nmoat = true\n").expect("a file");
    let args = ["run", "--json", "hello", "-n", "1", "--no-digest", "--sandbox"];
    let report = veritas(&[&args[..], &[off.as_str()]].concat(), b"").json();
    assert_eq!(layers(&report)["landlock"], "off");
    let (exit, code, message) = veritas(&[&args[..], &[wrong.as_str()]].concat(), b"").error();
    assert_eq!((exit, code.as_str()), (2, "config"), "{message}");
    assert!(message.contains("line 2") && message.contains("wrong.toml"), "{message}");
    let (exit, code, _) = veritas(&[&args[..], &["/no/such.toml"]].concat(), b"").error();
    assert_eq!((exit, code.as_str()), (2, "not_found"));
}

#[test]
fn quantize_leaves_nothing_behind_when_it_is_interrupted() {
    let folder = folder();
    let (source, out) = (in_folder(&folder, "in.gguf"), in_folder(&folder, "out.gguf"));
    write_large_model(Path::new(&source));
    let files = || {
        let names = std::fs::read_dir(folder.path()).expect("a folder");
        names
            .map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8"))
            .collect::<Vec<_>>()
    };
    let mut child = start(&["quantize", &source, &out, "Q4_K_M", "--threads", "1", "--json"]);
    let stdout = BufReader::new(child.stdout.take().expect("a pipe"));
    await_some("the unfinished file", || files().into_iter().find(|name| name.ends_with(".unfinished")));
    signal(child.id(), Signal::INT);
    let (code, text, errors) = end(child, stdout);
    assert_eq!((code, text.as_str()), (Some(130), ""), "{errors}");
    let error: Value = serde_json::from_str(errors.lines().last().unwrap_or_default()).expect("JSON");
    assert_eq!(error["error"]["code"], "cancelled");
    assert_eq!(files(), ["in.gguf"]);
}

/// A file whose conversion takes far longer than an interrupt.
fn write_large_model(path: &Path) {
    use veritas_gguf::{Metadata, Writer};
    let (row, rows) = (4096, 4096);
    let mut writer = Writer::new(Metadata::new()).expect("metadata");
    writer.tensor("blk.0.ffn_up.weight", veritas_quant::GgmlType::F32, &[row, rows]).expect("a tensor");
    let mut out = writer.start(std::fs::File::create(path).expect("a file")).expect("a header");
    let weights = (0..row).map(|i| (i as f32).sin()).flat_map(f32::to_le_bytes).collect::<Vec<_>>();
    for _ in 0..rows {
        out.write(&weights).expect("data");
    }
    out.finish().expect("a whole file");
}

#[test]
fn verbose_says_each_layer_with_its_state() {
    let outcome = veritas(&["inspect", &data("golden/llama/model-f16.gguf"), "--verbose"], b"");
    let lines = outcome.stderr.lines().filter(|line| line.starts_with("sandbox:")).collect::<Vec<_>>();
    assert_eq!(lines.len(), 9, "{}", outcome.stderr);
    assert!(
        ALWAYS
            .iter()
            .all(|layer| { lines.iter().any(|line| line.contains(layer) && line.contains("enforced")) })
    );
}

#[test]
fn the_argument_that_makes_a_worker_is_nobodys_to_type() {
    for args in [&["--help"][..], &["run", "--help"]] {
        assert!(!veritas(args, b"").text().contains("__worker"));
    }
    // Without the connection of a supervisor there is nothing to do, and nothing that could be reached.
    let outcome = veritas(&["__worker", "0"], b"");
    assert_eq!((outcome.code, outcome.stdout.as_slice()), (Some(1), &b""[..]));
}
