//! `completions` and `man`: what a shell and `man` need to know about the commands.

use std::io::Write;

use clap::CommandFactory;

use crate::args::{Cli, CompletionsArgs, ManArgs};
use crate::failure::{Code, Failure};
use crate::terminal;

/// The name under which the program is installed.
const NAME: &str = "veritas-sdr";

pub(crate) fn completions(args: &CompletionsArgs) -> Result<(), Failure> {
    // Into memory first: the generator panics if a reader goes away.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), NAME, &mut script);
    Ok(std::io::stdout().lock().write_all(&script)?)
}

pub(crate) fn man(args: &ManArgs) -> Result<(), Failure> {
    let cannot = |error: std::io::Error| {
        Failure::new(Code::Internal, format!("cannot write to {}: {error}", args.folder.display()))
    };
    std::fs::create_dir_all(&args.folder).map_err(cannot)?;
    clap_mangen::generate_to(Cli::command(), &args.folder).map_err(cannot)?;
    terminal::say(format_args!("wrote the manual pages to {}", args.folder.display()));
    Ok(())
}
