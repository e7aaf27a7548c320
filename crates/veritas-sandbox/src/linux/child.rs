//! Between clone and exec: the new process makes itself ready and runs the program.
//!
//! The supervisor has other threads, and any of them may have held a lock when the copy was made. So nothing here
//! allocates, locks or panics: there are system calls alone, on numbers and on memory that was prepared before. For
//! the same reason failures are one number and one step, written to a socket.

use std::ffi::c_char;

/// What the new process needs, prepared before it was made.
pub(super) struct Plan {
    /// Arguments, ended by a null pointer.
    pub(super) argv: Vec<*const c_char>,
    /// The descriptors that become 0, 1, 2, …
    pub(super) descriptors: Vec<i32>,
    /// Copies of them, out of the way; as long as `descriptors`.
    pub(super) copies: Vec<i32>,
    /// The program.
    pub(super) program: i32,
    /// The socket over which the supervisor says when to go on, and hears what failed.
    pub(super) control: i32,
    /// Whether the process has a user namespace and becomes its user 0.
    pub(super) becomes_user_0: bool,
    /// Whether it gives up its supplementary groups.
    pub(super) drops_groups: bool,
}

/// What the process was doing when it failed.
pub(super) const STEPS: [&str; 8] = [
    "wait for the supervisor",
    "start a session",
    "become the user of its namespace",
    "be bound to the supervisor's life",
    "enter the root folder",
    "put its descriptors in order",
    "close the other descriptors",
    "execute the program",
];

/// Length of a failure's message: the step and the error number.
pub(super) const FAILURE_BYTES: usize = 8;

/// Makes the process ready and runs the program. On failure it says which step failed, and ends.
///
/// # Safety
/// It must run in a process that has just been made by clone without CLONE_VM, and that nobody else uses. `argv` ends
/// with a null pointer, its strings are alive, and `copies` is as long as `descriptors`.
pub(super) unsafe fn run(plan: &mut Plan) -> ! {
    // SAFETY: the caller's promises are those of `prepare`.
    let (step, errno) = unsafe { prepare(plan) };
    let mut message = [0; FAILURE_BYTES];
    message[..4].copy_from_slice(&step.to_ne_bytes());
    message[4..].copy_from_slice(&errno.to_ne_bytes());
    // SAFETY: `control` is this process's descriptor or, if the failure came with it, any number; the kernel checks.
    unsafe {
        libc::write(plan.control, message.as_ptr().cast(), message.len());
        libc::_exit(127)
    }
}

/// Returns only where a step failed: which, and the error number.
///
/// # Safety
/// As `run`.
unsafe fn prepare(plan: &mut Plan) -> (u32, i32) {
    // SAFETY: every call below passes numbers, or pointers to memory of `plan` or of this frame with its length.
    unsafe {
        // The maps of ids must be written before this process can become anybody.
        let mut go = 0_u8;
        if libc::read(plan.control, (&raw mut go).cast(), 1) != 1 {
            // The supervisor has gone or has given up.
            return (0, last_errno());
        }
        default_signals();
        if libc::syscall(libc::SYS_setsid) < 0 {
            return (1, last_errno());
        }
        if plan.becomes_user_0 && !become_user_0(plan.drops_groups) {
            return (2, last_errno());
        }
        // After the change of ids, which would cancel it. The worker asks again when its ids are final.
        if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0 {
            return (3, last_errno());
        }
        // So that the supervisor's folder is not held; there is always a root folder.
        if libc::chdir(c"/".as_ptr()) != 0 {
            return (4, last_errno());
        }
        if !place_descriptors(plan) {
            return (5, last_errno());
        }
        // The control socket and the program stand after the worker's own, and close on exec.
        if libc::syscall(libc::SYS_close_range, plan.descriptors.len() + 2, u32::MAX, 0) != 0 {
            return (6, last_errno());
        }
        let no_environment = [std::ptr::null::<c_char>()];
        libc::syscall(
            libc::SYS_execveat,
            plan.program,
            c"".as_ptr(),
            plan.argv.as_ptr(),
            no_environment.as_ptr(),
            libc::AT_EMPTY_PATH,
        );
        (7, last_errno())
    }
}

/// # Safety
/// As `run`. Only numbers are passed.
unsafe fn become_user_0(drops_groups: bool) -> bool {
    // The calls are made directly: the C library's forms speak to other threads, which do not exist here.
    // SAFETY: only numbers are passed; the list of groups has length zero.
    unsafe {
        (!drops_groups || libc::syscall(libc::SYS_setgroups, 0, std::ptr::null::<libc::gid_t>()) == 0)
            && libc::syscall(libc::SYS_setresgid, 0, 0, 0) == 0
            && libc::syscall(libc::SYS_setresuid, 0, 0, 0) == 0
    }
}

/// The supervisor's handlers do not exist in the program; what it ignores would stay ignored.
///
/// # Safety
/// As `run`.
unsafe fn default_signals() {
    /// The highest signal of Linux.
    const SIGNAL_MAX: i32 = 64;
    // SAFETY: all-zero bytes are a sigaction with SIG_DFL and an empty mask. SIGKILL, SIGSTOP and the C library's own
    // signals refuse, which is right. The mask is emptied only when no handler of the supervisor's is left.
    unsafe {
        let action: libc::sigaction = std::mem::zeroed();
        for signal in 1..=SIGNAL_MAX {
            libc::sigaction(signal, &raw const action, std::ptr::null_mut());
        }
        let none: libc::sigset_t = std::mem::zeroed();
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
    }
}

/// Moves the worker's descriptors to 0, 1, 2, …, then the control socket and the program behind them.
///
/// # Safety
/// As `run`.
unsafe fn place_descriptors(plan: &mut Plan) -> bool {
    // At most FILES_MAX + 4.
    let count = plan.descriptors.len() as i32;
    // SAFETY: only numbers are passed.
    unsafe {
        // First copies out of the way, so that no target overwrites a source that is still needed.
        for index in 0..plan.descriptors.len() {
            let copy = libc::fcntl(plan.descriptors[index], libc::F_DUPFD_CLOEXEC, count + 2);
            if copy < 0 {
                return false;
            }
            plan.copies[index] = copy;
        }
        let program = libc::fcntl(plan.program, libc::F_DUPFD_CLOEXEC, count + 2);
        let control = libc::fcntl(plan.control, libc::F_DUPFD_CLOEXEC, count + 2);
        if program < 0 || control < 0 {
            return false;
        }
        for index in 0..plan.copies.len() {
            if libc::dup3(plan.copies[index], index as i32, 0) < 0 {
                return false;
            }
        }
        // A failure after this line is written to the new number.
        if libc::dup3(control, count, libc::O_CLOEXEC) < 0 {
            return false;
        }
        plan.control = count;
        if libc::dup3(program, count + 1, libc::O_CLOEXEC) < 0 {
            return false;
        }
        plan.program = count + 1;
        true
    }
}

fn last_errno() -> i32 {
    // SAFETY: the C library's error number is a thread-local word, valid in this copy of the process.
    unsafe { *libc::__errno_location() }
}
