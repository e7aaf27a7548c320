//! `generate`: an answer from the daemon.

use std::io::Write;

use serde_json::json;
use veritas_proto::v1;

use crate::commands::talk::Remote;
use crate::daemon_args::{GenerateArgs, Priority};
use crate::failure::Failure;
use crate::screen::Screen;
use crate::{answer, interrupt, prompt, report};

pub(crate) fn run(args: &GenerateArgs) -> Result<(), Failure> {
    interrupt::install()?;
    let as_json = args.output.json || args.stream_json;
    let mut request = prompt::request(&args.prompt, &args.sampling, as_json)?;
    let shows_text = !as_json && args.prompt.n_choices == 1;
    // What nobody sees grow need not be sent in pieces, and survives the death of a worker.
    request.stream = shows_text || args.stream_json;
    request.priority = priority(args.priority).into();
    request.deadline_ms = args.deadline_ms.unwrap_or(0);
    let mut remote = Remote::connect(&args.daemon, args.model.as_deref().unwrap_or_default())?;
    let mut stdout = Screen::stdout(false);
    let finish = remote.generate(request, &mut |part| {
        if args.stream_json {
            let delta = json!({"index": part.index, "text": part.text, "ids": part.ids});
            writeln!(stdout, "{}", report::line(&delta))?;
            stdout.flush()?;
        } else if shows_text && !part.text.is_empty() {
            stdout.write_all(part.text.as_bytes())?;
            stdout.flush()?;
        }
        Ok(())
    })?;
    drop(stdout);
    if as_json {
        answer::print_json(&finish, args.prompt.prompt_logprobs)?;
    } else {
        answer::print_text(&finish, shows_text, args.output.quiet)?;
    }
    if answer::was_cancelled(&finish) { Err(Failure::interrupted()) } else { Ok(()) }
}

fn priority(priority: Priority) -> v1::Priority {
    match priority {
        Priority::Low => v1::Priority::Low,
        Priority::Normal => v1::Priority::Normal,
        Priority::High => v1::Priority::High,
        Priority::Critical => v1::Priority::Critical,
    }
}
