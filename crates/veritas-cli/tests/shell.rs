//! `completions`, `man`, `--help` and `--color` through the binary.

mod common;

use common::{folder, veritas};

#[test]
fn every_shell_gets_completions_that_know_the_commands() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = veritas(&["completions", shell], b"").text();
        assert!(script.contains("quantize") && script.contains("prefill-chunk"), "{shell}");
    }
}

#[test]
fn every_command_gets_a_manual_page() {
    let folder = folder();
    let man = folder.path().join("new").join("man1");
    veritas(&["man", &common::path_text(man.clone())], b"").text();
    let pages = std::fs::read_dir(&man).expect("the folder").count();
    for command in ["run", "chat", "logits", "perplexity", "bench", "tokenize", "inspect", "quantize"] {
        let page = std::fs::read_to_string(man.join(format!("veritas-sdr-{command}.1")));
        assert!(page.expect("a page").contains(command));
    }
    assert!(pages >= 13, "{pages} pages");
}

#[test]
fn help_has_examples_and_no_colours_unless_they_are_asked_for() {
    let help = veritas(&["--help"], b"").text();
    assert!(help.contains("Examples:") && !help.contains('\x1b'));
    assert!(veritas(&["--color", "always", "--help"], b"").text().contains('\x1b'));
    let wrong = veritas(&["run", "--no-such-flag"], b"");
    assert_eq!(wrong.code, Some(2));
    assert!(!wrong.stderr.contains('\x1b'));
    // Behind two hyphens it is a prompt.
    assert_eq!(veritas(&["run", "-n", "1", "--raw", "--", "--no-such-flag"], b"").code, Some(0));
    let (exit, code, _) = veritas(&["run", "--no-such-flag", "--json"], b"").error();
    assert_eq!((exit, code.as_str()), (2, "usage"));
}
