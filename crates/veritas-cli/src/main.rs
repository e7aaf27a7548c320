//! The binary `veritas-sdr`: the command line.
//!
//! `args` says what can be asked, `commands` answers, one file per command; `failure` turns every error into a code, a
//! message, a hint and an exit status. Data goes to stdout, everything else to stderr.
#![forbid(unsafe_code)]

mod answer;
mod args;
mod color;
mod commands;
mod confined;
mod daemon_args;
mod failure;
mod interrupt;
mod load;
mod prompt;
mod report;
mod screen;
mod terminal;
mod unfinished;

use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches};

use crate::args::{Cli, Command, SandboxCommand};
use crate::failure::{Code, Failure};

fn main() -> ExitCode {
    // The first act of every process of this binary: from now on the kernel refuses it any socket but a Unix socket.
    // Where there is no such filter yet, `health` and `status` say that the network is open.
    match veritas_sandbox::refuse_network() {
        Ok(()) | Err(veritas_sandbox::Error::Unsupported { .. }) => {}
        Err(error) => {
            let message = format!("the network cannot be refused: {error}");
            return Failure::new(Code::Internal, message).report(false);
        }
    }
    if let Some(n_files) = worker_files(std::env::args_os()) {
        return veritas_runtime::worker::main(n_files, load::BUILT_IN);
    }
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

/// The number of files that this process was given as a worker; `None` for a process that a user has started.
fn worker_files(mut args: std::env::ArgsOs) -> Option<usize> {
    let is_worker = args.nth(1)? == veritas_runtime::link::WORKER_ARGUMENT;
    is_worker.then(|| args.next()?.to_str()?.parse().ok()).flatten()
}

fn run(cli: Cli) -> Result<(), Failure> {
    match cli.command {
        Command::Run(args) => commands::run::run(&args),
        Command::Chat(args) => commands::chat::run(&args),
        Command::Serve(args) => commands::serve::run(&args),
        Command::Generate(args) => commands::generate::run(&args),
        Command::Health(args) => commands::probe::health(&args),
        Command::Live(args) => commands::probe::live(&args),
        Command::Ready(args) => commands::probe::ready(&args),
        Command::Status(args) => commands::status::status(&args),
        Command::Metrics(args) => commands::status::metrics(&args),
        Command::Models(args) => commands::models::run(&args),
        Command::Drain(args) => commands::status::drain(&args),
        Command::Reload(args) => commands::status::reload(&args),
        Command::Config(args) => commands::config::run(&args),
        Command::Embed(args) => commands::embed::run(&args),
        Command::Logits(args) => commands::logits::run(&args),
        Command::Perplexity(args) => commands::perplexity::run(&args),
        Command::Bench(args) => commands::bench::run(&args),
        Command::Tokenize(args) => commands::tokenize::tokenize(&args),
        Command::Detokenize(args) => commands::tokenize::detokenize(&args),
        Command::Template(args) => commands::template::run(&args),
        Command::Inspect(args) => commands::inspect::run(&args, color::stdout(cli.color)),
        Command::Quantize(args) => commands::quantize::run(&args),
        Command::Sandbox(SandboxCommand::Test(args)) => {
            commands::sandbox::run(&args, color::stdout(cli.color))
        }
        Command::Completions(args) => commands::shell::completions(&args),
        Command::Man(args) => commands::shell::man(&args),
    }
}
