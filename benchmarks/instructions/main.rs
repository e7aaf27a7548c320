//! Runs kernels once each and nothing else, for a tool that counts instructions (`instructions.py`).
//!
//! One thread, small operands that are the same in every run, and no clock: what two runs of this program differ by is
//! what the kernels execute. A kernel runs between a call of [`counting_begins`] and one of [`counting_ends`], at which
//! the tool looks at its counter. It has run once before, so that its buffers are there.
#![forbid(unsafe_code)]

mod cases;

use std::hint::black_box;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use veritas_kernels::{Isa, Kernels, Team};

use cases::{Cases, Machine};

/// Run kernels, for a tool that counts their instructions
#[derive(Debug, Parser)]
struct Args {
    /// The file that says which kernels there are
    #[arg(long, value_name = "FILE")]
    cases: PathBuf,
    /// Print a line `LEVEL NAME` for each instead
    #[arg(long)]
    list: bool,
    /// The instruction set of those that run
    #[arg(long, default_value = "portable")]
    isa: Isa,
    /// Their names, in the order in which they run
    names: Vec<String>,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // If stderr is closed as well, the exit code still tells.
            let _ = writeln!(std::io::stderr(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<()> {
    let path = args.cases.display();
    let text = std::fs::read_to_string(&args.cases).with_context(|| format!("cannot read {path}"))?;
    let cases = toml::from_str::<Cases>(&text).with_context(|| format!("{path} is not understood"))?;
    let all = cases.all()?;
    if args.list {
        let mut out = std::io::stdout().lock();
        for level in &cases.levels {
            for case in &all {
                writeln!(out, "{level} {}", case.name())?;
            }
        }
        return Ok(());
    }
    let machine = Machine { kernels: Kernels::new(args.isa)?, team: Team::new(1) };
    for name in &args.names {
        let case = all.iter().find(|case| case.name() == *name);
        let case = case.with_context(|| format!("{path} defines no kernel {name:?}"))?;
        let mut call = case.call(&machine)?;
        call()?;
        counting_begins();
        call()?;
        counting_ends();
    }
    Ok(())
}

// The two do something, and not the same, so that the compiler makes two functions of them and calls both.

#[inline(never)]
fn counting_begins() {
    black_box("begins");
}

#[inline(never)]
fn counting_ends() {
    black_box("ends");
}
