//! Measures the path: what the daemon, its sandbox and its socket cost over the engine in the same process.
//!
//! Both variants run the same requests on the same model with the same number of threads, in turns, so that a machine
//! that grows slower or faster in the meantime does so for both. Each answer of the daemon is compared with the one of
//! the engine, token by token: a path that loses work is not measured as fast.
#![forbid(unsafe_code)]

use std::process::ExitCode;

#[cfg(target_os = "linux")]
mod cpu_time;
#[cfg(target_os = "linux")]
mod daemon;
#[cfg(target_os = "linux")]
mod in_process;
#[cfg(target_os = "linux")]
mod measure;
#[cfg(target_os = "linux")]
mod report;
#[cfg(target_os = "linux")]
mod statistics;
#[cfg(target_os = "linux")]
mod workload;

#[cfg(target_os = "linux")]
fn main() -> ExitCode {
    use std::io::Write;

    let outcome = measure::run(&clap::Parser::parse()).and_then(|text| {
        std::io::stdout().lock().write_all(text.as_bytes())?;
        Ok(())
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // If stderr is closed as well, the exit code still tells.
            let _ = writeln!(std::io::stderr(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(not(target_os = "linux"))]
fn main() -> ExitCode {
    use std::io::Write;

    // If stderr is closed, the exit code still tells.
    let _ =
        writeln!(std::io::stderr(), "error: the processor time of the daemon is read from /proc: Linux only");
    ExitCode::FAILURE
}
