//! The test command is the one that the README gives, so that the README cannot be wrong about it.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

/// Runs the line of the README's code blocks that begins with `cargo test`.
pub(crate) fn run_tests(root: &Path) -> Result<()> {
    let readme = std::fs::read_to_string(root.join("README.md")).context("README.md")?;
    let commands = readme.lines().map(str::trim).filter(|line| line.starts_with("cargo test"));
    let [command] = commands.collect::<Vec<_>>()[..] else {
        bail!("README.md must have exactly one line that begins with `cargo test`");
    };
    let status = Command::new("sh").current_dir(root).args(["-c", command]).status();
    let status = status.with_context(|| format!("cannot start {command}"))?;
    if !status.success() {
        bail!("{command} ended with {status}");
    }
    Ok(())
}
