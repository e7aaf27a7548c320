//! `models`: what a daemon has loaded.

use std::io::Write;
use std::path::Path;

use serde_json::{Value, json};
use veritas_proto::v1;
use veritas_runtime::config::ModelFlag;

use crate::commands::status::{connect, model_json};
use crate::daemon_args::{AskArgs, ModelsArgs, ModelsCommand};
use crate::failure::{Code, Failure};
use crate::report;
use crate::screen::Screen;

pub(crate) fn run(args: &ModelsArgs) -> Result<(), Failure> {
    match &args.command {
        ModelsCommand::Load { model, ask } => {
            let flag = ModelFlag::parse(model).map_err(|error| Failure::usage(error.to_string()))?;
            let path = std::path::absolute(&flag.path)?;
            let mut client = connect(ask)?;
            // Loading takes as long as it takes; the daemon has its own limit.
            client.set_timeout(None);
            print(ask, &client.model_load(&flag.name, text(&path)?)?, false)
        }
        ModelsCommand::Unload { name, ask } => {
            let mut client = connect(ask)?;
            client.set_timeout(None);
            client.model_unload(name)?;
            if ask.output.json {
                writeln!(Screen::stdout(false), "{}", json!({"unloaded": name}))?;
            } else if !ask.output.quiet {
                writeln!(Screen::stdout(false), "{name} is unloaded")?;
            }
            Ok(())
        }
        ModelsCommand::List { ask } => print(ask, &connect(ask)?.model_list()?, true),
        ModelsCommand::Info { name, ask } => print(ask, &connect(ask)?.model_info(name)?, false),
    }
}

fn text(path: &Path) -> Result<&str, Failure> {
    path.to_str().ok_or_else(|| Failure::usage(format!("{} is not UTF-8", path.display())))
}

/// Prints models: as a list, or the only one.
fn print(ask: &AskArgs, models: &[v1::Model], as_list: bool) -> Result<(), Failure> {
    let mut stdout = Screen::stdout(false);
    if ask.output.json {
        let json = match models {
            [model] if !as_list => model_json(model),
            models => Value::Array(models.iter().map(model_json).collect()),
        };
        return Ok(writeln!(stdout, "{}", report::line(&json))?);
    }
    if models.is_empty() && !as_list {
        return Err(Failure::new(Code::Internal, "the daemon did not say which model"));
    }
    for model in models {
        let worker = model.worker.clone().unwrap_or_default();
        let pid = worker.pid.map_or("–".to_owned(), |pid| pid.to_string());
        let digest = if model.digest.is_empty() { "–" } else { &model.digest };
        writeln!(
            stdout,
            "{:20} {:12} {:10} context {:<7} worker {pid:8} {digest}",
            model.name, model.state, model.architecture, model.n_context
        )?;
        if !model.reason.is_empty() {
            writeln!(stdout, "{:20} {}", "", model.reason)?;
        }
    }
    Ok(())
}
