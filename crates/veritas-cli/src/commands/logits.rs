//! `logits`: the model's output for given tokens, as a safetensors file.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use serde_json::Value;
use veritas_base::TokenId;
use veritas_runtime::jobs::{Job, LogitsJob, WrittenTensor};
use veritas_runtime::{Code, harmless};

use crate::args::LogitsArgs;
use crate::commands::input::file_text;
use crate::confined::{Working, launch};
use crate::failure::Failure;
use crate::load::open_model;
use crate::unfinished::Unfinished;
use crate::{interrupt, terminal};

pub(crate) fn run(args: &LogitsArgs) -> Result<(), Failure> {
    interrupt::install()?;
    let sequences = sequences(args)?;
    if args.hidden && sequences.len() != 1 {
        return Err(Failure::usage("--hidden takes one list of ids"));
    }
    let policy = args.model.sandbox.policy()?;
    let model = open_model(&args.model)?;
    let n_sequences = if args.batch { sequences.len().max(1) } else { 1 };
    let job = Job::Logits(LogitsJob {
        sequences,
        is_single: args.ids.is_some(),
        batch: args.batch,
        hidden: args.hidden,
        engine: args.engine.spec(n_sequences)?,
    });
    let working = Working::start(launch(&model, &args.model.override_kv, job, &policy), args.output.verbose)?;
    let tensors = write(&args.out, working)?;
    let tensors: Vec<WrittenTensor> = serde_json::from_value(tensors)?;
    if !args.output.quiet && !args.output.json {
        let one = |tensor: &WrittenTensor| format!("{} {:?}", harmless(&tensor.name), tensor.shape);
        let tensors = tensors.iter().map(one).collect::<Vec<_>>().join(", ");
        terminal::say(format_args!("wrote {tensors} to {}", args.out.display()));
    }
    Ok(())
}

/// Writes the file beside its place and moves it there when it is whole. What is no regular file, such as a pipe, is
/// written to as it is.
fn write(path: &Path, working: Working<'_>) -> Result<Value, Failure> {
    let is_special = std::fs::metadata(path).is_ok_and(|metadata| !metadata.is_file());
    let (unfinished, file) = if is_special {
        (None, File::options().write(true).open(path).map_err(|error| cannot_write(path, &error))?)
    } else {
        let (unfinished, file) = Unfinished::create(path)?;
        (Some(unfinished), file)
    };
    let mut out = BufWriter::new(file);
    let result = working.finish(&mut out, &mut |_| {})?;
    out.flush().map_err(|error| cannot_write(path, &error))?;
    if let Some(unfinished) = unfinished {
        unfinished.finish()?;
    }
    Ok(result)
}

fn cannot_write(path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(Code::Internal, format!("cannot write {}: {error}", path.display()))
}

fn sequences(args: &LogitsArgs) -> Result<Vec<Vec<TokenId>>, Failure> {
    match (&args.ids, &args.ids_file) {
        (Some(ids), _) => Ok(vec![ids.clone()]),
        (None, Some(path)) => Ok(serde_json::from_str(&file_text(path)?)?),
        (None, None) => Err(Failure::usage("--ids or --ids-file is needed")),
    }
}
