//! Rules of the tree that neither the compiler nor clippy knows.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use cargo_metadata::{DependencyKind, MetadataCommand};

/// The crates from the bottom up: each may use only those before it, dev-dependencies apart.
const LAYERS: &[&str] = &[
    "veritas-base",
    "veritas-mem",
    "veritas-simd",
    "veritas-quant",
    "veritas-kernels",
    "veritas-gguf",
    "veritas-tokenizer",
    "veritas-model",
    "veritas-sched",
    "veritas-engine",
    "veritas-proto",
    "veritas-sandbox",
    "veritas-ipc",
    "veritas-runtime",
    "veritas-cli",
];

/// Crates that are never shipped, and what they may use besides is their own affair.
const NEVER_SHIPPED: [&str; 5] = [
    "veritas-testkit",
    "veritas-benchmarks",
    "veritas-kernel-benchmarks",
    "veritas-tokenizer-benchmarks",
    "xtask",
];

/// Crates that may hold unsafe code. Every other forbids it.
const MAY_BE_UNSAFE: &[&str] = &["veritas-mem", "veritas-simd", "veritas-kernels", "veritas-sandbox"];

/// Words that may not stand in the tree, with the reason. They are split here, so that this file may name them.
const BANNED_WORDS: [(&str, &str); 8] = [
    (concat!("TO", "DO"), "unfinished work does not land"),
    (concat!("FIX", "ME"), "unfinished work does not land"),
    (concat!("unimplemented", "!("), "a part that is missing is not there at all"),
    (concat!("/", "work/"), "a path of somebody's machine"),
    (concat!("../", "shared"), "a path of somebody's machine"),
    (concat!("crates", ".io"), "a registry is not named by its host"),
    (concat!("pypi", ".org"), "a registry is not named by its host"),
    (concat!("npmjs", ".com"), "a registry is not named by its host"),
];

/// Lines of a source file beyond which it holds more than one idea. Generated tables are exempt.
const LINES_MAX: usize = 900;

pub(crate) fn check(root: &Path) -> Result<()> {
    let mut problems = layering(root)?;
    for file in tracked_files(root)? {
        let Ok(text) = std::fs::read_to_string(root.join(&file)) else { continue };
        problems.extend(words(&file, &text));
        if file.extension().is_some_and(|extension| extension == "rs") {
            problems.extend(source(&file, &text));
        }
    }
    if !problems.is_empty() {
        bail!("{}", problems.join("\n"));
    }
    Ok(())
}

/// The files that git knows.
fn tracked_files(root: &Path) -> Result<Vec<PathBuf>> {
    let output =
        Command::new("git").current_dir(root).args(["ls-files", "-z"]).output().context("git ls-files")?;
    if !output.status.success() {
        bail!("git ls-files ended with {}", output.status);
    }
    let names = output.stdout.split(|byte| *byte == 0).filter(|name| !name.is_empty());
    Ok(names.map(|name| PathBuf::from(String::from_utf8_lossy(name).into_owned())).collect())
}

fn layering(root: &Path) -> Result<Vec<String>> {
    let metadata = MetadataCommand::new().manifest_path(root.join("Cargo.toml")).no_deps().exec()?;
    let mut problems = Vec::new();
    for package in &metadata.packages {
        let name = package.name.as_str();
        if NEVER_SHIPPED.contains(&name) {
            continue;
        }
        let Some(layer) = LAYERS.iter().position(|layer| *layer == name) else {
            problems.push(format!("{name} stands in no layer: add it to LAYERS in xtask"));
            continue;
        };
        for dep in package.dependencies.iter().filter(|dep| dep.kind != DependencyKind::Development) {
            let is_ours = dep.path.is_some();
            if is_ours && !LAYERS[..layer].contains(&dep.name.as_str()) {
                problems.push(format!("{name} uses {}, which does not stand above it", dep.name));
            }
        }
    }
    Ok(problems)
}

fn words(file: &Path, text: &str) -> Vec<String> {
    let is_exempt = file.ends_with("Cargo.lock") || file.starts_with(".ci") || file.starts_with("tests/data");
    if is_exempt {
        return Vec::new();
    }
    let mut problems = Vec::new();
    for (number, line) in text.lines().enumerate() {
        for (word, reason) in BANNED_WORDS {
            if line.contains(word) {
                problems.push(format!("{}:{}: `{word}`: {reason}", file.display(), number + 1));
            }
        }
    }
    problems
}

fn source(file: &Path, text: &str) -> Vec<String> {
    let mut problems = Vec::new();
    let owner = file.components().nth(1).map(|part| part.as_os_str().to_string_lossy().into_owned());
    let owner = owner.unwrap_or_default();
    let is_root = ["src/lib.rs", "src/main.rs"].iter().any(|root| file.ends_with(root));
    let may_be_unsafe = file.starts_with("crates") && MAY_BE_UNSAFE.contains(&owner.as_str());
    if is_root && !may_be_unsafe && !text.contains("#![forbid(unsafe_code)]") {
        problems.push(format!("{}: `#![forbid(unsafe_code)]` is missing", file.display()));
    }
    let n_lines = text.lines().count();
    if n_lines > LINES_MAX && !text.lines().take(5).any(|line| line.to_lowercase().contains("generated")) {
        problems.push(format!("{}: {n_lines} lines; at most {LINES_MAX}", file.display()));
    }
    if may_be_unsafe {
        problems.extend(undocumented_unsafe(file, text));
    }
    problems
}

/// Unsafe blocks and implementations without a comment that begins with `SAFETY:` shortly before them.
fn undocumented_unsafe(file: &Path, text: &str) -> Vec<String> {
    /// Lines of comment and attributes between the word SAFETY and the block.
    const NEAR: usize = 12;
    let lines = text.lines().collect::<Vec<_>>();
    let is_unsafe = |line: &str| {
        let code = line.split("//").next().unwrap_or_default();
        code.contains("unsafe {") || code.contains("unsafe impl")
    };
    let mut problems = Vec::new();
    for (number, line) in lines.iter().enumerate().filter(|(_, line)| is_unsafe(line)) {
        let before = &lines[number.saturating_sub(NEAR)..=number];
        if !before.iter().any(|line| line.contains("SAFETY:")) {
            problems.push(format!("{}:{}: no SAFETY comment: {}", file.display(), number + 1, line.trim()));
        }
    }
    problems
}
