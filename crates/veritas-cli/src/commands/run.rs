//! `run`: continue a prompt, or answer it, with a confined worker of its own.

use std::io::Write;

use crate::args::RunArgs;
use crate::failure::Failure;
use crate::load::{open_model, serve};
use crate::screen::Screen;
use crate::{answer, interrupt, prompt};

/// The number of the one request.
const REQUEST: u64 = 1;

pub(crate) fn run(args: &RunArgs) -> Result<(), Failure> {
    interrupt::install()?;
    let request = prompt::request(&args.prompt, &args.sampling, args.output.json)?;
    let model = open_model(&args.model)?;
    let n_choices = args.prompt.n_choices;
    let quiet = args.output.quiet || args.output.json;
    let mut served = serve(&model, &args.model, &args.engine, n_choices as usize, quiet)?;
    if args.output.verbose {
        served.describe();
    }
    let streams = !args.output.json && n_choices == 1;
    let mut stdout = Screen::stdout(false);
    let finish = served.generate(REQUEST, &request, &mut |part| {
        if streams && !part.text.is_empty() {
            stdout.write_all(part.text.as_bytes())?;
            stdout.flush()?;
        }
        Ok(())
    })?;
    drop(stdout);
    if args.output.json {
        answer::print_json(&finish, args.prompt.prompt_logprobs)?;
    } else {
        answer::print_text(&finish, streams, args.output.quiet)?;
    }
    if answer::was_cancelled(&finish) { Err(Failure::interrupted()) } else { Ok(()) }
}
