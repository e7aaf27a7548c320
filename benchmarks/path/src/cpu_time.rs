//! Processor time of a process, as the scheduler counts it: in nanoseconds.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

/// Long enough for a thread to leave its processor.
const MOMENT: Duration = Duration::from_micros(100);

/// Time that each thread of a process has run so far.
pub(crate) struct Threads {
    by_tid: HashMap<String, Duration>,
}

impl Threads {
    /// The threads of a process, without those that end meanwhile. The scheduler brings a thread's time up to date when
    /// it leaves the processor, so those that count should be waiting.
    ///
    /// # Errors
    /// If there is no such process, or the kernel keeps no such account.
    pub(crate) fn of(pid: u32) -> Result<Self> {
        let path = format!("/proc/{pid}/task");
        let folder = std::fs::read_dir(&path).with_context(|| format!("cannot read {path}"))?;
        let mut by_tid = HashMap::new();
        for thread in folder {
            let thread = thread?;
            if let Some(time) = of_thread(&thread.path())? {
                by_tid.insert(thread.file_name().to_string_lossy().into_owned(), time);
            }
        }
        Ok(Self { by_tid })
    }

    /// Time since an earlier look. A thread that has ended in between does not count: of a daemon only the one that
    /// computed the digest of the model ends, after it has waited idly for more.
    pub(crate) fn since(&self, before: &Self) -> Duration {
        let threads = self.by_tid.iter();
        threads
            .map(|(tid, time)| time.saturating_sub(before.by_tid.get(tid).copied().unwrap_or_default()))
            .sum()
    }
}

/// The time of a thread, or `None` if it has ended: its file is gone, or, opened before, has no process (`ESRCH`).
fn of_thread(folder: &Path) -> Result<Option<Duration>> {
    let path = folder.join("schedstat");
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(_) if !folder.exists() => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    };
    let ran = ran_of(&text).with_context(|| format!("{} has no time: {text}", path.display()))?;
    Ok(Some(ran))
}

/// The first field: time on a processor (Documentation/scheduler/sched-stats.rst of the kernel).
fn ran_of(schedstat: &str) -> Option<Duration> {
    let ran = schedstat.split_ascii_whitespace().next()?;
    Some(Duration::from_nanos(ran.parse().ok()?))
}

/// The threads of this process. The calling one leaves the processor for a moment, so that its time is up to date, too.
///
/// # Errors
/// If the kernel keeps no such account.
pub(crate) fn own() -> Result<Threads> {
    std::thread::sleep(MOMENT);
    Threads::of(std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_field_is_the_time() {
        assert_eq!(ran_of("1500 20 3\n"), Some(Duration::from_nanos(1500)));
        assert_eq!(ran_of(""), None);
        assert_eq!(ran_of("-1 20 3"), None);
    }

    #[test]
    fn a_thread_that_is_new_counts_and_one_that_has_ended_does_not() {
        let threads = |times: &[(&str, u64)]| Threads {
            by_tid: times.iter().map(|&(tid, ns)| (tid.to_owned(), Duration::from_nanos(ns))).collect(),
        };
        let (before, after) = (threads(&[("1", 100), ("2", 50)]), threads(&[("1", 130), ("3", 7)]));
        assert_eq!(after.since(&before), Duration::from_nanos(37));
    }

    #[test]
    fn a_thread_that_has_ended_is_left_out_and_an_account_that_is_missing_is_an_error() {
        assert_eq!(of_thread(Path::new("/proc/self/task/0")).unwrap(), None);
        assert!(of_thread(Path::new("/proc/self/fd")).is_err());
    }

    /// Ticks of user and system time of this thread: fields 14 and 15 of `/proc/thread-self/stat` (proc(5)), which counts
    /// from 1 and has the name as field 2. A tick is a hundredth of a second.
    fn own_ticks() -> u64 {
        let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
        let (_, fields) = stat.rsplit_once(')').unwrap();
        fields.split_ascii_whitespace().skip(11).take(2).map(|field| field.parse::<u64>().unwrap()).sum()
    }

    /// The oracle is the kernel's other account, which is coarse, and the time that has passed.
    #[test]
    fn a_thread_that_works_has_the_time_that_it_worked() {
        let began = std::time::Instant::now();
        let before = own().unwrap();
        let spent = std::thread::spawn(move || {
            while own_ticks() < 5 {}
            own().unwrap().since(&before)
        });
        let spent = spent.join().unwrap();
        assert!(spent >= Duration::from_millis(50), "{spent:?}");
        // Other tests run beside it, each on a thread.
        let n_threads = std::thread::available_parallelism().unwrap().get() as u32;
        assert!(spent <= began.elapsed() * n_threads, "{spent:?}");
    }
}
