//! The binary `veritas-sdr`: the command line.
//!
//! `args` says what can be asked, `commands` answers, one file per command; `failure` turns every error into a code, a
//! message, a hint and an exit status. Data goes to stdout, everything else to stderr.
#![forbid(unsafe_code)]

mod args;
mod color;
mod commands;
mod failure;
mod interrupt;
mod load;
mod report;
mod terminal;

use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches};

use crate::args::{Cli, Command};
use crate::color::Paint;
use crate::failure::Failure;

fn main() -> ExitCode {
    let wants_json = std::env::args_os().any(|arg| arg == "--json");
    // Errors of parsing are coloured too, so the choice is looked for before.
    let command = Cli::command().color(color::asked(std::env::args_os()).into());
    let cli = match command.try_get_matches().and_then(|matches| Cli::from_arg_matches(&matches)) {
        Ok(cli) => cli,
        Err(error) => return failure::report_usage(&error, wants_json),
    };
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(wants_json),
    }
}

fn run(cli: Cli) -> Result<(), Failure> {
    match cli.command {
        Command::Run(args) => commands::run::run(&args),
        Command::Chat(args) => commands::chat::run(&args),
        Command::Logits(args) => commands::logits::run(&args),
        Command::Perplexity(args) => commands::perplexity::run(&args),
        Command::Bench(args) => commands::bench::run(&args),
        Command::Tokenize(args) => commands::tokenize::tokenize(&args),
        Command::Detokenize(args) => commands::tokenize::detokenize(&args),
        Command::Template(args) => commands::template::run(&args),
        Command::Inspect(args) => commands::inspect::run(&args, Paint::stdout(cli.color)),
        Command::Quantize(args) => commands::quantize::run(&args),
        Command::Completions(args) => commands::shell::completions(&args),
        Command::Man(args) => commands::shell::man(&args),
    }
}
