//! `perplexity`: how well a model predicts a text.

use std::fs::File;
use std::io::Write;

use veritas_runtime::jobs::{Job, PerplexityJob};
use veritas_runtime::{Code, json_line};

use crate::args::PerplexityArgs;
use crate::confined::{Working, launch};
use crate::failure::Failure;
use crate::load::open_model;
use crate::{interrupt, terminal};

pub(crate) fn run(args: &PerplexityArgs) -> Result<(), Failure> {
    interrupt::install()?;
    let text_name = args.file.display().to_string();
    let not_found = |error| Failure::new(Code::NotFound, format!("{text_name}: {error}"));
    // It is handed over as it is: a pipe will do.
    let text = File::open(&args.file).map_err(not_found)?;
    let policy = args.model.sandbox.policy()?;
    let model = open_model(&args.model)?;
    let job = Job::Perplexity(PerplexityJob { text_name, engine: args.engine.spec(1)? });
    let mut launch = launch(&model, &args.model.override_kv, job, &policy);
    launch.others.push(text);
    let bar = terminal::progress_bar(1, "chunks", args.output.quiet);
    let result =
        Working::start(launch, args.output.verbose)?.finish(&mut std::io::sink(), &mut |progress| {
            terminal::show(&bar, &progress);
        })?;
    bar.finish_and_clear();
    let mut stdout = std::io::stdout().lock();
    if args.output.json {
        writeln!(stdout, "{}", json_line(&result))?;
    } else {
        let number = |key: &str| result[key].as_f64().unwrap_or(f64::INFINITY);
        let n_tokens = result["tokens"].as_u64().unwrap_or(0);
        let (perplexity, stderr) = (number("perplexity"), number("stderr"));
        writeln!(stdout, "perplexity {perplexity:.4} ± {stderr:.4} over {n_tokens} tokens")?;
    }
    Ok(())
}
