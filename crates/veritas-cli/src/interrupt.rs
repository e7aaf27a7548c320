//! Ctrl-C and SIGTERM: the first asks the command to end with what it has, the second ends it at once.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::failure::{Code, Failure};

/// What an interrupt does besides being noted.
type Hook = Box<dyn FnMut() + Send>;

static REQUESTED: AtomicBool = AtomicBool::new(false);
static HOOK: Mutex<Option<Hook>> = Mutex::new(None);

/// Exit status of a program that a user interrupted.
const EXIT_INTERRUPTED: i32 = 130;

/// From now on, an interrupt is noted instead of ending the process.
pub(crate) fn install() -> Result<(), Failure> {
    ctrlc::set_handler(|| {
        if REQUESTED.swap(true, Ordering::SeqCst) {
            std::process::exit(EXIT_INTERRUPTED);
        }
        if let Some(hook) = HOOK.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            hook();
        }
    })
    .map_err(|error| Failure::new(Code::Internal, format!("cannot listen for interrupts: {error}")))
}

/// From now on, an interrupt ends the process: for commands that have nothing to finish.
pub(crate) fn install_ending() -> Result<(), Failure> {
    install()?;
    on_request(|| std::process::exit(EXIT_INTERRUPTED));
    Ok(())
}

/// From now on an interrupt calls `hook`, on a thread of its own: to cancel what this one waits for. If there was one
/// already, it is called at once.
pub(crate) fn on_request(mut hook: impl FnMut() + Send + 'static) {
    let mut place = HOOK.lock().unwrap_or_else(PoisonError::into_inner);
    if requested() {
        hook();
    }
    *place = Some(Box::new(hook));
}

/// Whether the user has interrupted.
pub(crate) fn requested() -> bool {
    REQUESTED.load(Ordering::SeqCst)
}

/// Forgets an interrupt that has been answered; an interactive command goes on after it.
pub(crate) fn clear() {
    REQUESTED.store(false, Ordering::SeqCst);
}
