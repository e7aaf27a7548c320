//! `template`: what a chat template makes of messages.

use serde_json::Value;
use veritas_runtime::host::OpenModel;
use veritas_runtime::jobs::{Job, TemplateJob};

use crate::args::TemplateArgs;
use crate::commands::input::{file_text, stdin_text};
use crate::confined::{Working, launch};
use crate::failure::Failure;
use crate::interrupt;
use crate::load::{BUILT_IN, open_model};
use crate::screen::Screen;

pub(crate) fn run(args: &TemplateArgs) -> Result<(), Failure> {
    let request = match serde_json::from_str(&stdin_text()?) {
        Ok(Value::Object(request)) => request,
        Ok(_) => return Err(Failure::usage("stdin is no JSON object")),
        Err(error) => return Err(Failure::usage(format!("stdin is no JSON object: {error}"))),
    };
    let template = args.template.as_deref().map(file_text).transpose()?;
    interrupt::install()?;
    // A template in a file stands alone, unless a model lends it the texts of its tokens.
    let uses_model = template.is_none() || args.model.model.is_some();
    let policy = args.model.sandbox.policy()?;
    let model = if uses_model { open_model(&args.model)? } else { OpenModel::built_in(BUILT_IN) };
    let job = Job::Template(TemplateJob { request, template, uses_model });
    let working = Working::start(launch(&model, &args.model.override_kv, job, &policy), args.output.verbose)?;
    working.finish(&mut Screen::stdout(false), &mut |_| {})?;
    Ok(())
}
