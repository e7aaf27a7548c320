//! The scheduling of threads that compute without a pause beside others that wait and answer.

use std::io;

/// The time slice in nanoseconds, for kernels that know such a wish (6.12 and newer): longer than any default (0.7 to
/// 2.8 ms), because a thread that wakes may interrupt one whose slice is longer than its own.
const SLICE_NS: u64 = 4_000_000;

/// The kernel's `struct sched_attr` (sched_setattr(2)) in its first version.
#[repr(C)]
struct SchedAttr {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
}

/// Lets other threads of the machine interrupt this one, and those that it starts from now on, as soon as they wake, where
/// the kernel knows time slices of a thread's own. Its share of the processors stays what it was.
///
/// # Errors
/// What the kernel answers. The thread then computes as it did before.
pub fn give_way() -> io::Result<()> {
    // SAFETY: only numbers are passed; 0 is the calling thread.
    let nice = unsafe {
        *libc::__errno_location() = 0;
        libc::getpriority(libc::PRIO_PROCESS, 0)
    };
    // -1 is a niceness, too.
    if nice == -1 {
        let error = io::Error::last_os_error();
        if error.raw_os_error() != Some(0) {
            return Err(error);
        }
    }
    let attributes = SchedAttr {
        size: size_of::<SchedAttr>() as u32,
        policy: libc::SCHED_OTHER as u32,
        flags: 0,
        // A nicer thread would lose to everybody else on the machine who computes.
        nice,
        priority: 0,
        runtime: SLICE_NS,
        deadline: 0,
        period: 0,
    };
    // SAFETY: the structure is alive, has the layout that the kernel reads, and names its own size.
    let outcome = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) };
    if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The niceness of this thread, as the kernel tells it: field 19 of `/proc/thread-self/stat`, which proc(5) counts
    /// from 1 and of which the name is the second.
    fn nice() -> i32 {
        let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
        let (_, fields) = stat.rsplit_once(')').unwrap();
        fields.split_ascii_whitespace().nth(16).unwrap().parse().unwrap()
    }

    #[test]
    fn a_thread_that_gives_way_is_no_nicer_than_before() {
        std::thread::spawn(|| {
            let before = nice();
            give_way().unwrap();
            assert_eq!(nice(), before);
            assert_eq!(std::thread::spawn(nice).join().unwrap(), before);
        })
        .join()
        .unwrap();
    }
}
