//! The thread that templates are compiled and rendered on. Its stack is so large that no template overflows it.
//!
//! Each call has a thread of its own. Where the system will refuse to start threads, as in a sandbox,
//! [`start_render_thread`] starts one in advance, which does all such work of the process from then on.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::OnceLock;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;

use super::Error;
use super::limits::{MAX_STACK_BYTES, RENDER_THREAD_QUEUE};

/// The thread of the process, once [`start_render_thread`] was called.
static RENDER_THREAD: OnceLock<RenderThread> = OnceLock::new();

/// Starts the one thread that every template of this process is compiled and rendered on from then on, one at a time, in
/// the order of the calls. It stays until the process ends; to call this again does nothing.
///
/// Its stack takes [`MAX_STACK_BYTES`] (1,040,777,216) of address space, which count against limits such as
/// `RLIMIT_AS` and `RLIMIT_DATA`. They become memory only as far as a template nests values or expressions: published ones
/// take some kilobytes. Memory that a hostile one has touched stays with the process.
///
/// # Errors
/// [`Error::NoThread`] if the system starts no thread with such a stack.
pub fn start_render_thread() -> Result<(), Error> {
    if RENDER_THREAD.get().is_none() {
        // Where another call was faster, the thread started here finds that nobody can send to it, and ends.
        let _ = RENDER_THREAD.set(RenderThread::start(MAX_STACK_BYTES)?);
    }
    Ok(())
}

/// Runs `work` on a stack of at least so many bytes.
pub(super) fn with_stack<T: Send + 'static>(
    bytes: usize,
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let answer = match RENDER_THREAD.get() {
        Some(thread) => thread.run(work),
        None => builder(bytes).spawn(work).map_err(|e| no_thread(bytes, &e))?.join().ok(),
    };
    // A panic of the template engine is the template's fault as far as a caller is concerned.
    let failed = "the template engine failed on this template";
    answer.unwrap_or_else(|| Err(Error::Render { line: 0, message: failed.to_owned() }))
}

type Job = Box<dyn FnOnce() + Send>;

/// A thread that works until this is dropped.
struct RenderThread {
    jobs: SyncSender<Job>,
}

impl RenderThread {
    fn start(stack_bytes: usize) -> Result<Self, Error> {
        let (jobs, received) = sync_channel::<Job>(RENDER_THREAD_QUEUE);
        let work = move || {
            for job in received {
                // A job owns whatever it touches, so nobody sees in what state a panic leaves it.
                let _ = catch_unwind(AssertUnwindSafe(job));
            }
        };
        builder(stack_bytes).spawn(work).map_err(|e| no_thread(stack_bytes, &e))?;
        Ok(Self { jobs })
    }

    /// Runs `work` there and waits for its answer: `None` if it panics.
    fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        let (sender, answer) = sync_channel(1);
        // The receiver is waiting, so that the answer finds it.
        let job = move || drop(sender.send(work()));
        self.jobs.send(Box::new(job)).ok()?;
        answer.recv().ok()
    }
}

fn builder(stack_bytes: usize) -> thread::Builder {
    thread::Builder::new().name("chat-template".to_owned()).stack_size(stack_bytes)
}

fn no_thread(bytes: usize, error: &std::io::Error) -> Error {
    Error::NoThread { bytes, message: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_no_answer_and_the_thread_goes_on() {
        let thread = RenderThread::start(1 << 20).unwrap();
        assert_eq!(thread.run(|| 1), Some(1));
        assert_eq!(thread.run(|| -> u32 { panic!("as a template engine might") }), None);
        let id = || thread::current().id();
        assert_eq!(thread.run(id), thread.run(id));
        assert_ne!(thread.run(id), Some(id()));
    }

    #[test]
    fn a_panic_on_a_thread_of_its_own_is_an_error() {
        let failed = with_stack(1 << 20, || -> Result<u32, Error> { panic!("as a template engine might") });
        assert!(matches!(failed, Err(Error::Render { .. })), "{failed:?}");
    }

    #[test]
    fn callers_beyond_the_queue_wait_for_their_turn() {
        let thread = RenderThread::start(1 << 20).unwrap();
        let n_callers = 4 * RENDER_THREAD_QUEUE;
        thread::scope(|scope| {
            let call = |n| {
                scope.spawn({
                    let thread = &thread;
                    move || thread.run(move || n)
                })
            };
            let calls = (0..n_callers).map(call).collect::<Vec<_>>();
            for (n, call) in calls.into_iter().enumerate() {
                assert_eq!(call.join().unwrap(), Some(n));
            }
        });
    }

    #[test]
    fn a_stack_that_the_system_does_not_give_is_an_error() {
        let refused = with_stack(usize::MAX / 2, || Ok(()));
        assert!(matches!(refused, Err(Error::NoThread { .. })), "{refused:?}");
    }
}
