//! `cargo xtask verify`: what continuous integration checks, and what a contributor runs before a commit.
#![forbid(unsafe_code)]
// A task runner talks to the person who runs it.
#![allow(clippy::print_stdout)]

mod dependencies;
mod proto;
mod readme;
mod tidy;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Context, Result, bail};

const USAGE: &str = "\
cargo xtask verify         everything below, in this order
cargo xtask fmt            formatting
cargo xtask clippy         lints, warnings are errors
cargo xtask tidy           layering, unsafe code, words and paths that may not stand in the tree
cargo xtask dependencies   licences and banned crates
cargo xtask proto          the generated message types are those of the .proto files (with --write: write them)
cargo xtask doc            documentation, warnings are errors
cargo xtask test           the test command of the README";

fn main() -> ExitCode {
    let task = std::env::args().nth(1).unwrap_or_default();
    match run(&task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("xtask {task}: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: &str) -> Result<()> {
    let root = root();
    match task {
        "verify" => {
            for task in ["fmt", "clippy", "tidy", "dependencies", "proto", "doc", "test"] {
                let start = Instant::now();
                run(task).with_context(|| format!("{task} failed"))?;
                println!("xtask {task}: good ({:.0} s)", start.elapsed().as_secs_f64());
            }
            Ok(())
        }
        "fmt" => cargo(&root, &["fmt", "--all", "--check"], &[]),
        "clippy" => {
            cargo(&root, &["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"], &[])
        }
        "tidy" => tidy::check(&root),
        "dependencies" => dependencies::check(&root),
        "proto" => proto::check(&root, std::env::args().any(|arg| arg == "--write")),
        "doc" => cargo(
            &root,
            &["doc", "--workspace", "--no-deps", "--locked"],
            &[("RUSTDOCFLAGS", "-D warnings -A rustdoc::private_intra_doc_links")],
        ),
        "test" => readme::run_tests(&root),
        _ => bail!("no such task\n{USAGE}"),
    }
}

/// The root of the workspace.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map_or_else(|| PathBuf::from("."), Path::to_owned)
}

fn cargo(root: &Path, args: &[&str], environment: &[(&str, &str)]) -> Result<()> {
    let mut command = Command::new("cargo");
    command.current_dir(root).args(args).envs(environment.iter().copied());
    let status = command.status().with_context(|| format!("cannot start cargo {}", args.join(" ")))?;
    if !status.success() {
        bail!("cargo {} ended with {status}", args.join(" "));
    }
    Ok(())
}
