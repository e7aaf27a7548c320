//! Many users at once, through the real binary: the prefix cache, who may find what in it, and who gives way to whom.
#![cfg(target_os = "linux")]

mod common;
#[path = "common/daemon.rs"]
mod harness;

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use serde_json::Value;

use harness::{BINARY, Daemon, eventually};

/// A user who is not the one that runs the tests.
const OTHER: u32 = 65533;

/// About a hundred tokens.
fn prompt(salt: &str) -> String {
    format!("{salt} ") + &"Once upon a time there was a fox who wanted to see the sea. ".repeat(6)
}

fn flags(prompt: &str) -> [&str; 8] {
    ["generate", "--json", "--raw", prompt, "-n", "12", "--seed", "5"]
}

fn ask(daemon: &Daemon, prompt: &str, more: &[&str]) -> Value {
    daemon.run(&[&flags(prompt)[..], &["--logprobs", "2"], more].concat()).json()
}

fn cached(answer: &Value) -> u64 {
    answer["usage"]["cached_tokens"].as_u64().unwrap()
}

/// What of an answer may not depend on how it came about.
fn content(answer: &Value) -> [&Value; 5] {
    ["ids", "text", "logprobs", "top_logprobs", "finish_reason"].map(|field| &answer[field])
}

/// Asks as another user. Needs to be root.
fn ask_as_other(daemon: &Daemon, prompt: &str) -> Value {
    let mut command = Command::new(BINARY);
    command.args(flags(prompt)).args(["--logprobs", "2", "--socket", daemon.socket()]).stdin(Stdio::null());
    let output = command.uid(OTHER).gid(OTHER).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn can_be_another_user() -> bool {
    let child = Command::new(BINARY).arg("--version").uid(OTHER).gid(OTHER).stdout(Stdio::null()).status();
    let can = child.is_ok_and(|status| status.success());
    if !can {
        // Past the test harness, which keeps what a passing test prints.
        let mut stderr = std::io::stderr();
        writeln!(stderr, "skipped: only root can be another user, who must reach the binary").unwrap();
    }
    can
}

fn for_two_users(config: &str) -> Daemon {
    let text = format!("[socket]\nallowed_uids = [{OTHER}]\n{config}");
    let daemon = Daemon::with_config(&text, &[]);
    daemon.open_to_everybody();
    daemon
}

#[test]
fn a_prompt_that_was_sent_before_is_found_and_the_answer_is_the_same() {
    let daemon = Daemon::start(&[]);
    let prompt = prompt("Tell me.");
    let cold = ask(&daemon, &prompt, &[]);
    let warm = ask(&daemon, &prompt, &[]);
    assert_eq!(cached(&cold), 0);
    let n_prompt = warm["usage"]["prompt_tokens"].as_u64().unwrap();
    assert_eq!(cached(&warm), (n_prompt - 1) / 16 * 16, "every whole page but the last token's");
    assert_eq!(content(&cold), content(&warm));
    let longer = ask(&daemon, &format!("{prompt}And then"), &[]);
    assert!(cached(&longer) >= cached(&warm) - 16);
    // Log-probabilities of the prompt are computed, whatever is cached.
    let scored = ask(&daemon, &prompt, &["--prompt-logprobs"]);
    assert_eq!((cached(&scored), content(&scored)), (0, content(&cold)));
    assert_eq!(scored["prompt_logprobs"].as_array().unwrap().len() as u64, n_prompt);
    eventually("a heartbeat tells of the pages", || daemon.status()["kv"]["pages_cached"].as_u64() > Some(0));
    let status = daemon.status();
    assert_eq!(status["tokens"]["cached"], cached(&warm) + cached(&longer));
    assert_eq!(status["kv"]["pages_used"], 0);
    assert!(daemon.run(&["metrics"]).text().contains("\nveritas_kv_pages_cached "));
}

#[test]
fn without_a_prefix_cache_nothing_is_found() {
    let daemon = Daemon::start(&["--no-prefix-cache"]);
    let prompt = prompt("Tell me.");
    let answers = [(); 2].map(|()| ask(&daemon, &prompt, &[]));
    assert_eq!(content(&answers[0]), content(&answers[1]));
    assert_eq!(answers.each_ref().map(cached), [0, 0]);
    assert_eq!(daemon.status()["kv"]["pages_cached"], 0);
}

#[test]
fn several_answers_to_one_prompt_are_those_that_each_is_alone() {
    let daemon = Daemon::start(&[]);
    let prompt = prompt("Tell me.");
    let alone = ask(&daemon, &prompt, &[]);
    let three = ask(&daemon, &prompt, &["--n", "3"]);
    let choices = three["choices"].as_array().unwrap();
    assert_eq!(content(&choices[0]), content(&alone));
    assert!(choices[1]["ids"] != choices[0]["ids"] && choices[1]["ids"] != choices[2]["ids"]);
    assert!(cached(&three) < three["usage"]["prompt_tokens"].as_u64().unwrap());
}

#[test]
fn with_few_pages_sequences_give_way_and_every_answer_is_the_one_that_it_is_alone() {
    let alone = Daemon::start(&["--no-prefix-cache"]);
    // Pages for two contexts at most, and eight who want one at once.
    let daemon = Daemon::start(&["--kv-pages", "24", "--ctx", "256", "--max-sequences", "8"]);
    let prompts = (0..8).map(|k| prompt(&format!("Story {k}."))).collect::<Vec<_>>();
    let more = ["-n", "100", "--ignore-eos"];
    let args = |k: usize| {
        let flags = ["generate", "--json", "--raw", &prompts[k], "--seed", "5", "--logprobs", "2"];
        [&flags[..], &more].concat()
    };
    let children = (0..8).map(|k| daemon.spawn(&args(k))).collect::<Vec<_>>();
    for (k, child) in children.into_iter().enumerate() {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(content(&answer), content(&alone.run(&args(k)).json()), "story {k}");
    }
    eventually("a heartbeat tells of preemptions", || {
        daemon.status()["requests"]["preempted"].as_u64() > Some(0)
    });
    assert_eq!(daemon.status()["requests"]["failed"], 0);
}

#[test]
fn an_urgent_request_is_answered_before_those_that_wait() {
    let daemon = Daemon::endless(&["story"], "[engine]\nmax_sequences = 1\n");
    let endless = ["generate", "--raw", "Once", "--ignore-eos", "-n", "60000", "--priority", "low"];
    let mut children = (0..3).map(|_| daemon.spawn(&endless)).collect::<Vec<_>>();
    eventually("they wait", || {
        let requests = &daemon.status()["requests"];
        requests["running"].as_u64().unwrap() + requests["queued"].as_u64().unwrap() == 3
    });
    let answer = daemon.run(&["generate", "--json", "--raw", "Once", "-n", "3", "--priority", "critical"]);
    assert_eq!(answer.json()["ids"].as_array().unwrap().len(), 3);
    for child in &mut children {
        assert!(child.try_wait().unwrap().is_none(), "the others have not ended");
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

#[test]
fn a_prefix_is_found_by_its_own_user_alone_and_nothing_else_tells_of_it() {
    if !can_be_another_user() {
        return;
    }
    let guess = prompt("A secret.");
    // What the other user can see of its own two requests and of the daemon, whether or not somebody has sent the same.
    let seen = |first: &str| {
        let daemon = for_two_users("");
        let own = ask(&daemon, first, &[]);
        assert_eq!(cached(&own), 0);
        eventually("the daemon is told of the pages", || {
            daemon.status()["kv"]["pages_cached"].as_u64() > Some(0)
        });
        let before = daemon.status();
        let answers = [(); 2].map(|()| ask_as_other(&daemon, &guess));
        assert_eq!(content(&answers[0]), content(&answers[1]));
        let cached = answers.each_ref().map(cached);
        let n_cached = || daemon.status()["kv"]["pages_cached"].as_u64().unwrap();
        let was_cached = before["kv"]["pages_cached"].as_u64().unwrap();
        eventually("the daemon is told of the pages", || n_cached() > was_cached);
        let after = daemon.status();
        (cached, n_cached() - was_cached, after["tokens"]["cached"].clone())
    };
    let with_the_same = seen(&guess);
    let with_another = seen(&prompt("Something else."));
    assert_eq!(with_the_same, with_another);
    assert_eq!(with_the_same.0[0], 0, "the first of the other user finds nothing");
    assert!(with_the_same.0[1] > 0, "the second finds its own");
}

#[test]
fn users_whom_the_configuration_lets_share_find_what_the_other_has_sent() {
    if !can_be_another_user() {
        return;
    }
    let daemon = for_two_users(&format!("[limits]\nsharing_groups = [\"0+{OTHER}\"]\n"));
    let prompt = prompt("No secret.");
    let own = ask(&daemon, &prompt, &[]);
    let other = ask_as_other(&daemon, &prompt);
    assert!(cached(&own) == 0 && cached(&other) > 0);
    assert_eq!(content(&own), content(&other));
}

/// Takes a minute and wants a quiet machine: the time to the first token of a guess, where another user has sent the same
/// text and where it has not.
#[test]
#[ignore = "measures times; run by hand on a quiet machine"]
fn the_time_to_the_first_token_does_not_tell_what_another_user_has_sent() {
    if !can_be_another_user() {
        return;
    }
    let daemon = for_two_users("");
    let mut times = [Vec::new(), Vec::new()];
    for round in 0..200 {
        let guess = prompt(&format!("Guess {round}."));
        let is_known = round % 2 == 0;
        ask(&daemon, &if is_known { guess.clone() } else { prompt(&format!("Other {round}.")) }, &[]);
        let answer = ask_as_other(&daemon, &guess);
        times[usize::from(is_known)].push(answer["timings"]["ttft_ms"].as_f64().unwrap());
    }
    let [unknown, known] = times.map(|times| {
        let n = times.len() as f64;
        let mean = times.iter().sum::<f64>() / n;
        let variance = times.iter().map(|time| (time - mean).powi(2)).sum::<f64>() / (n - 1.0);
        (mean, variance / n)
    });
    let t = (known.0 - unknown.0) / (known.1 + unknown.1).sqrt();
    let means = format!("unknown {:.3} ms, known {:.3} ms, t = {t:.2}", unknown.0, known.0);
    assert!(t.abs() < 3.3, "the difference is significant at one in a thousand: {means}");
}
