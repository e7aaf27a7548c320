//! `inspect`: what a model file holds, whether or not it can be run.

use veritas_runtime::host::OpenModel;
use veritas_runtime::jobs::{InspectJob, Job};
use veritas_runtime::{Code, Paint};

use crate::args::InspectArgs;
use crate::confined::{Working, launch};
use crate::failure::Failure;
use crate::interrupt;
use crate::screen::Screen;

pub(crate) fn run(args: &InspectArgs, paint: Paint) -> Result<(), Failure> {
    interrupt::install()?;
    if args.file.is_dir() {
        let message = format!("{} is a folder; inspect takes a GGUF file", args.file.display());
        return Err(Failure::new(Code::UnsupportedModel, message));
    }
    let policy = args.sandbox.policy()?;
    let model = OpenModel::open(&args.file)?;
    let job = Job::Inspect(InspectJob { json: args.output.json, tensors: args.tensors, paint });
    let working = Working::start(launch(&model, &[], job, &policy), args.output.verbose)?;
    working.finish(&mut Screen::stdout(paint.is_enabled()), &mut |_| {})?;
    Ok(())
}
