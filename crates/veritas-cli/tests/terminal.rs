//! What an answer, a model or a template says must not command the user's terminal. Here the binary runs in a real one.
#![cfg(target_os = "linux")]

mod common;
#[path = "common/daemon.rs"]
mod harness;

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};

use common::{folder, in_folder, veritas};
use harness::{BINARY, Daemon};
use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};

/// A title for the window, a screen that is wiped, a character that is taken back, a bell, a C1 control, a colour.
const HOSTILE: &str = "a\u{1b}]0;owned\u{7}b\u{1b}[2Jc\r\u{8}\u{7f}d\u{9b}2Je\u{1b}[31mf";

/// A terminal: the end that shows, and the end that programs write to, which changes no byte.
fn terminal() -> (File, OwnedFd) {
    let screen = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    grantpt(&screen).unwrap();
    unlockpt(&screen).unwrap();
    let name = ptsname(&screen, Vec::new()).unwrap();
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let line = rustix::fs::open(name.as_c_str(), flags, Mode::empty()).unwrap();
    let mut settings = tcgetattr(&line).unwrap();
    settings.make_raw();
    tcsetattr(&line, OptionalActions::Now, &settings).unwrap();
    (File::from(screen), line)
}

/// What a terminal shows of stdout and stderr of a command.
fn shown(args: &[&str], stdin: &[u8]) -> String {
    let (mut screen, line) = terminal();
    let mut child = Command::new(BINARY)
        .args(args)
        .env("TERM", "xterm")
        .env_remove("NO_COLOR")
        .stdin(Stdio::piped())
        .stdout(Stdio::from(line.try_clone().unwrap()))
        .stderr(Stdio::from(line))
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(stdin).unwrap();
    let reader = std::thread::spawn(move || {
        // The line ends with an error once nobody has it open any more.
        let (mut said, mut buffer) = (Vec::new(), [0; 4096]);
        while let Ok(n @ 1..) = screen.read(&mut buffer) {
            said.extend_from_slice(&buffer[..n]);
        }
        said
    });
    child.wait().unwrap();
    String::from_utf8(reader.join().unwrap()).expect("a terminal is shown UTF-8")
}

/// Control characters, the ends of lines and tabulators apart.
fn commands(text: &str) -> Vec<char> {
    text.chars().filter(|c| c.is_control() && !matches!(c, '\n' | '\t')).collect()
}

/// The id of the token that is the escape character alone.
fn escape_id() -> String {
    let ids = veritas(&["tokenize", "--no-bos"], b"\x1b").json();
    assert_eq!(ids.as_array().unwrap().len(), 1, "{ids}");
    ids[0].to_string()
}

#[test]
fn a_rendered_template_cannot_command_the_terminal() {
    let files = folder();
    let template = in_folder(&files, "template");
    std::fs::write(&template, HOSTILE).unwrap();
    let args = ["template", "--template", &template];
    // A pipe gets every byte, so that there is something to keep from the terminal.
    assert_eq!(veritas(&args, br#"{"messages": []}"#).text(), HOSTILE);
    assert_eq!(shown(&args, br#"{"messages": []}"#), "a]0;ownedb[2Jcd2Je[31mf");
}

#[test]
fn an_answer_cannot_command_the_terminal() {
    let bias = format!("{}+1000", escape_id());
    let daemon = Daemon::start(&[]);
    let drawn = ["--temp", "0", "-n", "5", "--logit-bias", &bias, "--quiet"];
    let at_daemon = ["--socket", daemon.socket()];
    for (args, stdin) in [
        ([&["run", "--raw", "Once"], &drawn[..]].concat(), ""),
        ([&["run", "--raw", "Once", "--n", "2"], &drawn[..]].concat(), ""),
        ([&["generate", "--raw", "Once"], &drawn[..], &at_daemon].concat(), ""),
        ([&["chat"], &drawn[..]].concat(), "Hello\n"),
        ([&["chat", "--connect"], &drawn[..], &at_daemon].concat(), "Hello\n"),
    ] {
        let piped = veritas(&args, stdin.as_bytes()).text();
        assert!(piped.matches('\u{1b}').count() >= 5, "{args:?}: {piped:?}");
        let seen = shown(&args, stdin.as_bytes());
        assert!(commands(&seen).is_empty(), "{args:?}: {seen:?}");
        // JSON writes such a character as six harmless ones.
        let seen = shown(&[&args[..], &["--json"]].concat(), stdin.as_bytes());
        assert!(commands(&seen).is_empty(), "{args:?}: {seen:?}");
        assert!(seen.contains("\\u001b"), "{args:?}: {seen:?}");
    }
    let seen = shown(&["detokenize"], format!("[{0}, {0}]", escape_id()).as_bytes());
    assert!(commands(&seen).is_empty(), "{seen:?}");
}

#[test]
fn what_a_model_says_of_itself_cannot_command_the_terminal() {
    let name = "\u{1b}]0;owned\u{7}!!";
    let mut bytes = std::fs::read(common::data("golden/llama/model-f16.gguf")).unwrap();
    let own = b"golden-llama";
    assert_eq!(name.len(), own.len());
    let at = bytes.windows(own.len()).position(|window| window == own).expect("the model's name");
    bytes[at..at + own.len()].copy_from_slice(name.as_bytes());
    let files = folder();
    let model = in_folder(&files, "model.gguf");
    std::fs::write(&model, bytes).unwrap();
    let seen = shown(&["inspect", &model, "--color", "never"], b"");
    assert!(seen.contains("owned"), "{seen:?}");
    assert!(commands(&seen).is_empty(), "{seen:?}");
    // Colours are the command's own.
    let seen = shown(&["inspect", &model, "--color", "always"], b"");
    assert!(seen.contains("owned") && !seen.contains("\u{1b}]"), "{seen:?}");
    assert!(commands(&seen).iter().all(|c| *c == '\u{1b}'), "{seen:?}");
}

#[test]
fn what_a_template_complains_of_cannot_command_the_terminal() {
    // The language of templates has no escapes of this kind; the character stands in the text itself.
    let change = format!("tokenizer.chat_template=str:{{{{ raise_exception('{HOSTILE}') }}}}");
    // Without a progress bar, whose commands are the program's own.
    let seen = shown(&["run", "hello", "--override-kv", &change, "--no-digest"], b"");
    assert!(seen.contains("owned"), "{seen:?}");
    assert!(commands(&seen).is_empty(), "{seen:?}");
}
