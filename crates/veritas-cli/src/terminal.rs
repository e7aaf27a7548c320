//! What people see on stderr: lines, and progress bars where a terminal shows them.

use std::fmt;
use std::io::{IsTerminal, Write};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use veritas_runtime::harmless;
use veritas_runtime::link::Progress;

/// Writes a line, or several, to stderr. If nobody reads it, there is nobody to tell.
///
/// A worker may have said a part of it, and a worker may be an enemy's by then, so that it cannot command a terminal.
pub(crate) fn say(line: fmt::Arguments<'_>) {
    let lines = line.to_string();
    for line in lines.split('\n') {
        let _ = writeln!(std::io::stderr(), "{}", harmless(line));
    }
}

/// Shows how far a worker is.
pub(crate) fn show(bar: &ProgressBar, progress: &Progress) {
    bar.set_length(progress.total);
    bar.set_position(progress.done);
    bar.set_message(harmless(&progress.message));
}

/// A progress bar over `total` units, which shows nothing unless stderr is a terminal and `quiet` is off.
pub(crate) fn progress_bar(total: u64, unit: &str, quiet: bool) -> ProgressBar {
    let shown = !quiet && std::io::stderr().is_terminal();
    let target = if shown { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let template = match unit {
        "bytes" => "{msg:16} {wide_bar} {bytes}/{total_bytes} {binary_bytes_per_sec} {eta}",
        _ => "{msg:16} {wide_bar} {pos}/{len} {eta}",
    };
    let bar = ProgressBar::with_draw_target(Some(total), target);
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    if shown {
        bar.enable_steady_tick(Duration::from_millis(200));
    }
    bar
}
