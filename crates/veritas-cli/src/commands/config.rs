//! `config`: what the daemon would be told.

use std::io::Write;
use std::path::Path;

use serde_json::{Value, json};
use veritas_runtime::config::{Overrides, Resolved, load, schema};

use crate::daemon_args::{ConfigArgs, ConfigCommand, config_failure, environment};
use crate::failure::Failure;
use crate::report;

pub(crate) fn run(args: &ConfigArgs) -> Result<(), Failure> {
    let mut stdout = std::io::stdout().lock();
    match &args.command {
        ConfigCommand::Check { file, output } => {
            let resolved = resolve(file.as_deref())?;
            let place = resolved.file.as_ref().map(|file| file.display().to_string());
            if output.json {
                writeln!(stdout, "{}", report::line(&json!({"valid": true, "file": place})))?;
            } else if !output.quiet {
                writeln!(stdout, "{}: good", place.as_deref().unwrap_or("no file"))?;
            }
        }
        ConfigCommand::Show { file, origin, output } => {
            let resolved = resolve(file.as_deref())?;
            if output.json {
                writeln!(stdout, "{}", report::line(&effective(&resolved)))?;
            } else {
                stdout.write_all(resolved.show(*origin).as_bytes())?;
            }
        }
        ConfigCommand::Schema => writeln!(stdout, "{:#}", schema())?,
    }
    Ok(())
}

fn resolve(file: Option<&Path>) -> Result<Resolved, Failure> {
    load(file, &environment(), &Overrides::default()).map_err(|errors| config_failure(&errors))
}

fn effective(resolved: &Resolved) -> Value {
    let settings = resolved.effective.iter().map(|setting| {
        let setting =
            json!({"key": setting.path(), "value": setting.value, "origin": setting.origin.to_string()});
        setting
    });
    json!({"file": resolved.file, "settings": settings.collect::<Vec<_>>()})
}
