//! `quantize`: a model file in another weight type.
//!
//! The worker gets the output as an open file, which lies beside its place and is moved there when it is whole.

use std::io::Write;

use serde_json::{Map, Value, json};
use veritas_runtime::host::{OpenModel, open_regular, part_paths};
use veritas_runtime::jobs::{ImportanceFile, Job, QuantizeJob, QuantizeResult};
use veritas_runtime::{Code, available_threads, json_line, short_bytes};
use veritas_sandbox::Limits;

use crate::args::QuantizeArgs;
use crate::confined::{Working, launch};
use crate::failure::Failure;
use crate::screen::Screen;
use crate::unfinished::Unfinished;
use crate::{interrupt, terminal};

pub(crate) fn run(args: &QuantizeArgs) -> Result<(), Failure> {
    interrupt::install()?;
    let job = job(args);
    job.check()?;
    let policy = args.sandbox.policy()?;
    let model = OpenModel::open(&args.input)?;
    check_output(args)?;
    let importance = args.imatrix.as_deref().map(open_regular).transpose()?;
    let (unfinished, output) = Unfinished::create(&args.output_file)?;
    let mut launch = launch(&model, &[], Job::Quantize(job), &policy);
    launch.others.extend(importance);
    launch.others.push(output);
    launch.limits =
        Limits { file_bytes: Some(QuantizeJob::output_bytes_max(model.bytes)), ..Limits::default() };
    let bar = terminal::progress_bar(model.bytes, "bytes", args.output.quiet);
    let result = Working::start(launch, args.output.verbose)?.finish(&mut std::io::sink(), &mut |progress| {
        terminal::show(&bar, &progress);
    });
    bar.finish_and_clear();
    let result = result.map_err(|failure| match failure.code() {
        Code::Cancelled => Failure::new(Code::Cancelled, "interrupted; no file was written"),
        _ => failure,
    })?;
    let result: QuantizeResult = serde_json::from_value(result)?;
    unfinished.finish()?;
    summarise(args, &result)
}

fn job(args: &QuantizeArgs) -> QuantizeJob {
    let importance = args.imatrix.as_deref().map(|path| ImportanceFile {
        path: path.display().to_string(),
        name: path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
    });
    QuantizeJob {
        kind: args.kind.clone(),
        allow_requantize: args.allow_requantize,
        pure: args.pure,
        importance,
        token_embedding_type: args.token_embedding_type.clone(),
        output_tensor_type: args.output_tensor_type.clone(),
        threads: args.threads.map_or_else(available_threads, usize::from),
    }
}

/// Refuses an output that is the input, or that a file cannot take the place of.
fn check_output(args: &QuantizeArgs) -> Result<(), Failure> {
    let path = &args.output_file;
    let Ok(found) = std::fs::metadata(path) else { return Ok(()) };
    if !found.is_file() {
        return Err(Failure::usage(format!("{} is no regular file", path.display())));
    }
    let place = path.canonicalize().ok();
    if place.is_some() && part_paths(&args.input).iter().any(|input| input.canonicalize().ok() == place) {
        return Err(Failure::usage(format!("{} is the input", path.display())).hint("name another output"));
    }
    Ok(())
}

/// Says how many tensors went from which type to which, and what became of the size.
fn summarise(args: &QuantizeArgs, result: &QuantizeResult) -> Result<(), Failure> {
    // Names come from the worker.
    let mut stdout = Screen::stdout(false);
    if args.output.json {
        let types = result.types.iter().map(|(ty, n)| (ty.clone(), json!(n))).collect::<Map<_, _>>();
        let report: Value = json!({
            "file_type": result.file_type,
            "tensors": result.types.iter().map(|(_, n)| n).sum::<u64>(),
            "types": types,
            "input_bytes": result.input_bytes,
            "output_bytes": result.output_bytes,
            "bits_per_weight": result.bits_per_weight,
        });
        writeln!(stdout, "{}", json_line(&report))?;
    } else if !args.output.quiet {
        for kind in &result.kinds {
            let sizes = (short_bytes(kind.bytes_from), short_bytes(kind.bytes_to));
            writeln!(
                stdout,
                "{:8} → {:8} {:>6} tensors {:>12} → {:>12}",
                kind.from, kind.to, kind.n_tensors, sizes.0, sizes.1
            )?;
        }
        let (size_in, size_out) = (short_bytes(result.input_bytes), short_bytes(result.output_bytes));
        let (name, bits) = (&result.file_type, result.bits_per_weight);
        writeln!(stdout, "{name}: {size_in} → {size_out}, {bits:.2} bits per weight")?;
    }
    Ok(stdout.flush()?)
}
