//! `sandbox test`: a worker with a model, as in service, tries to break out.

use std::fs::File;
use std::io::Write;

use serde::Deserialize;
use veritas_runtime::jobs::Job;
use veritas_runtime::{Code, Paint, harmless, json_line};
use veritas_sandbox::Probe;

use crate::args::SandboxTestArgs;
use crate::confined::{Working, launch};
use crate::failure::Failure;
use crate::interrupt;
use crate::load::open_model;

/// What the worker answers.
#[derive(Deserialize)]
struct Probes {
    probes: Vec<Probe>,
}

pub(crate) fn run(args: &SandboxTestArgs, paint: Paint) -> Result<(), Failure> {
    interrupt::install()?;
    let policy = args.model.sandbox.policy()?;
    let model = open_model(&args.model)?;
    let mut launch = launch(&model, &args.model.override_kv, Job::Probe, &policy);
    launch.others.push(writable_file()?);
    let working = Working::start(launch, args.output.verbose)?;
    let result = working.finish(&mut std::io::sink(), &mut |_| {})?;
    let mut stdout = std::io::stdout().lock();
    if args.output.json {
        writeln!(stdout, "{}", json_line(&result))?;
    }
    let Probes { probes } = serde_json::from_value(result)?;
    if !args.output.json {
        stdout.write_all(table(&probes, paint).as_bytes())?;
    }
    stdout.flush()?;
    // A sandbox that nothing was tried on has not been tested.
    if !probes.is_empty() && probes.iter().all(|probe| probe.pass) {
        Ok(())
    } else {
        Err(Failure::answered_no())
    }
}

/// A file without a name, open for writing, that the worker tries to make too large.
fn writable_file() -> Result<File, Failure> {
    let path = std::env::temp_dir().join(format!("veritas-sdr-probe.{}", std::process::id()));
    let cannot = |error| Failure::new(Code::Internal, format!("cannot write {}: {error}", path.display()));
    let file = File::create_new(&path).map_err(cannot)?;
    std::fs::remove_file(&path).map_err(cannot)?;
    Ok(file)
}

fn table(probes: &[Probe], paint: Paint) -> String {
    let cells = |probe: &Probe| [&probe.name, &probe.expected, &probe.observed].map(|text| harmless(text));
    let rows = probes.iter().map(cells).collect::<Vec<_>>();
    let head = ["probe", "expected", "observed"].map(str::to_owned);
    let width =
        |column: usize| rows.iter().chain([&head]).map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; 3] = std::array::from_fn(width);
    let line = |row: &[String; 3], verdict: &str| {
        let [name, expected, observed] = row;
        let [a, b, c] = widths;
        format!("{name:a$}  {expected:b$}  {observed:c$}  {verdict}\n")
    };
    let mut out = paint.bold(line(&head, "pass").trim_end()) + "\n";
    for (row, probe) in rows.iter().zip(probes) {
        out.push_str(&line(row, &if probe.pass { paint.green("yes") } else { paint.red("no") }));
    }
    let n_passed = probes.iter().filter(|probe| probe.pass).count();
    out.push_str(&format!("{n_passed} of {} pass\n", probes.len()));
    out
}
