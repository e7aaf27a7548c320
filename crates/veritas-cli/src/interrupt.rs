//! Ctrl-C and SIGTERM: the first asks the command to end with what it has, the second ends it at once.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::failure::{Code, Failure};

static REQUESTED: AtomicBool = AtomicBool::new(false);

/// Exit status of a program that a user interrupted.
const EXIT_INTERRUPTED: i32 = 130;

/// From now on, an interrupt is noted instead of ending the process.
pub(crate) fn install() -> Result<(), Failure> {
    ctrlc::set_handler(|| {
        if REQUESTED.swap(true, Ordering::Relaxed) {
            std::process::exit(EXIT_INTERRUPTED);
        }
    })
    .map_err(|error| Failure::new(Code::Internal, format!("cannot listen for interrupts: {error}")))
}

/// Whether the user has interrupted.
pub(crate) fn requested() -> bool {
    REQUESTED.load(Ordering::Relaxed)
}

/// Forgets an interrupt that has been answered; an interactive command goes on after it.
pub(crate) fn clear() {
    REQUESTED.store(false, Ordering::Relaxed);
}
