//! Attempts to break out, from inside a worker that is confined.
//!
//! Each attempt is a call that would do what is forbidden, so made that it does no harm where it succeeds. What the
//! kernel answered is compared with what the policy expects. Several layers would refuse most of these; the first one
//! answers, which is seccomp.

use std::ffi::{CStr, c_int, c_long};
use std::fs::File;
use std::mem::ManuallyDrop;
use std::os::fd::FromRawFd;

use super::{SOCKET_FD, rlimits};
use crate::constants::{errno, errno_name};
use crate::probe::PROBES;
use crate::{Policy, Probe, ProbeContext};

/// What succeeded, or the error number of the refusal; 0 where there was nothing to try.
type Attempt = Result<String, i32>;

/// Tries, in a confined worker, everything that a worker must not do, and compares what it saw with the policy.
#[must_use]
pub fn probes(policy: &Policy, context: &ProbeContext) -> Vec<Probe> {
    PROBES.into_iter().map(|name| judge(policy, name, attempt(name, context))).collect()
}

/// A probe passes only if it failed with exactly the error that the policy expects.
fn judge(policy: &Policy, name: &str, attempt: Attempt) -> Probe {
    let expected = policy.expected(name).unwrap_or("an expectation in the policy").to_owned();
    let (observed, seen) = match attempt {
        Ok(what) => (what, None),
        Err(0) => ("nothing to try it on".to_owned(), None),
        Err(number) => (errno_name(number), Some(number)),
    };
    let pass = seen.is_some() && seen == errno(&expected);
    Probe { name: name.to_owned(), expected, observed, errno: seen, pass }
}

fn attempt(name: &str, context: &ProbeContext) -> Attempt {
    // Process ids are far below 2^31.
    let supervisor = context.supervisor_pid as c_int;
    match name {
        "open_for_reading" => open(c"/etc/passwd", libc::O_RDONLY),
        "open_for_writing" => open(c"/dev/null", libc::O_WRONLY),
        "create_file" => create(c"/tmp/veritas-probe"),
        "stat_path" => stat(c"/etc/passwd"),
        "change_root" => call("chroot", libc::SYS_chroot, [address(c"/"), 0, 0, 0]),
        "connect_tcp" => reach_internet(libc::SOCK_STREAM),
        "send_udp" => reach_internet(libc::SOCK_DGRAM),
        "connect_unix" => socket(libc::AF_UNIX, libc::SOCK_STREAM),
        "socket_netlink" => socket(libc::AF_NETLINK, libc::SOCK_RAW),
        "socket_pair" => socket_pair(),
        // A file that exists nowhere: the attempt cannot replace this program, and says ENOENT if it is let through.
        "execute" => call("execve", libc::SYS_execve, [address(c"/veritas-probe-nothing"), 0, 0, 0]),
        "fork" => fork(),
        "vfork" => vfork(),
        // A combination that the kernel refuses with EINVAL if the filter lets it through, because a thread that is
        // made this way would run without a stack; exceed_threads makes a real one.
        "thread_clone" => call("clone", libc::SYS_clone, [libc::CLONE_THREAD as c_long, 0, 0, 0]),
        "thread_clone3" => clone3(),
        "ptrace_supervisor" => {
            call("ptrace", libc::SYS_ptrace, [c_long::from(libc::PTRACE_SEIZE), supervisor.into(), 0, 0])
        }
        "read_memory_of_supervisor" => read_memory(supervisor),
        "read_proc_of_supervisor" => read_proc(supervisor),
        // Signal 0 asks whether the process may be signalled, and sends nothing.
        "signal_supervisor" => call("kill", libc::SYS_kill, [supervisor.into(), 0, 0, 0]),
        "add_key" => add_key(),
        "load_bpf" => call("bpf", libc::SYS_bpf, [0; 4]),
        "perf_event" => perf_event(),
        "userfaultfd" => descriptor("userfaultfd", libc::SYS_userfaultfd, [libc::O_CLOEXEC.into(), 0, 0, 0]),
        "io_uring" => io_uring(),
        "mount" => call("mount", libc::SYS_mount, [address(c"none"), address(c"/"), address(c"tmpfs"), 0]),
        "unshare_namespace" => call("unshare", libc::SYS_unshare, [libc::CLONE_NEWUSER.into(), 0, 0, 0]),
        "enter_namespace" => call("setns", libc::SYS_setns, [0; 4]),
        "change_user" => call("setuid", libc::SYS_setuid, [0; 4]),
        "raise_limit" => set_limit(),
        "become_dumpable" => call("prctl", libc::SYS_prctl, [libc::PR_SET_DUMPABLE.into(), 1, 0, 0]),
        "map_writable_and_executable" => map(READ_WRITE | libc::PROT_EXEC, libc::MAP_PRIVATE, None),
        "make_executable" => map(READ_WRITE, libc::MAP_PRIVATE, Some(libc::PROT_READ | libc::PROT_EXEC)),
        "map_shared_memory" => map(READ_WRITE, libc::MAP_SHARED, None),
        "map_growing_stack" => map(READ_WRITE, libc::MAP_PRIVATE | libc::MAP_GROWSDOWN, None),
        "control_terminal" => control_terminal(),
        "memory_file" => descriptor("memfd_create", libc::SYS_memfd_create, [address(c"probe"), 0, 0, 0]),
        "exceed_memory" => of_rustix("memory beyond the limit is mapped", rlimits::exceed_memory()),
        "exceed_threads" => start_thread(),
        "exceed_descriptors" => {
            of_rustix("descriptors beyond the limit are open", rlimits::exceed_descriptors())
        }
        "exceed_file_size" => exceed_file_size(context.writable_file),
        _ => Err(0),
    }
}

fn address(text: &'static CStr) -> c_long {
    text.as_ptr() as c_long
}

fn last_errno() -> i32 {
    std::io::Error::last_os_error().raw_os_error().unwrap_or_default()
}

/// A system call whose answer is a number.
fn call(what: &str, number: c_long, args: [c_long; 4]) -> Attempt {
    // SAFETY: the callers pass numbers and static strings alone, and calls that write to no memory of ours.
    let answer = unsafe { libc::syscall(number, args[0], args[1], args[2], args[3], 0_usize, 0_usize) };
    if answer < 0 { Err(last_errno()) } else { Ok(format!("{what} succeeds")) }
}

/// A system call whose answer is a descriptor, which is closed.
fn descriptor(what: &str, number: c_long, args: [c_long; 4]) -> Attempt {
    // SAFETY: as in `call`.
    let answer = unsafe { libc::syscall(number, args[0], args[1], args[2], args[3], 0_usize, 0_usize) };
    let Ok(fd @ 0..) = c_int::try_from(answer) else { return Err(last_errno()) };
    // SAFETY: the kernel has just made it, and nobody else knows it.
    unsafe { libc::close(fd) };
    Ok(format!("{what} succeeds"))
}

fn open(path: &'static CStr, flags: c_int) -> Attempt {
    let args = [libc::AT_FDCWD.into(), address(path), c_long::from(flags | libc::O_CLOEXEC), 0];
    descriptor("open", libc::SYS_openat, args)
}

fn create(path: &'static CStr) -> Attempt {
    let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL | libc::O_CLOEXEC;
    let made = descriptor(
        "creating a file",
        libc::SYS_openat,
        [libc::AT_FDCWD.into(), address(path), flags.into(), 0o600],
    );
    if made.is_ok() {
        // What the attempt made is removed as well as may be.
        let _ = call("unlink", libc::SYS_unlinkat, [libc::AT_FDCWD.into(), address(path), 0, 0]);
    }
    made
}

fn stat(path: &'static CStr) -> Attempt {
    // SAFETY: all-zero bytes are a stat; the kernel writes at most one.
    let answer = unsafe {
        let mut found: libc::stat = std::mem::zeroed();
        libc::syscall(libc::SYS_newfstatat, libc::AT_FDCWD, path.as_ptr(), &raw mut found, 0)
    };
    if answer < 0 { Err(last_errno()) } else { Ok("stat of a path succeeds".to_owned()) }
}

fn socket(family: c_int, kind: c_int) -> Attempt {
    descriptor("socket", libc::SYS_socket, [family.into(), c_long::from(kind | libc::SOCK_CLOEXEC), 0, 0])
}

/// Connects to a port of this machine, or sends a datagram there.
fn reach_internet(kind: c_int) -> Attempt {
    // SAFETY: numbers alone are passed.
    let fd = unsafe { libc::socket(libc::AF_INET, kind | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(last_errno());
    }
    // SAFETY: all-zero bytes are an address; its length is passed with it. The descriptor is ours, and closed once.
    let (answer, errno) = unsafe {
        let mut to: libc::sockaddr_in = std::mem::zeroed();
        to.sin_family = libc::AF_INET as libc::sa_family_t;
        to.sin_port = 9_u16.to_be();
        to.sin_addr.s_addr = u32::from(std::net::Ipv4Addr::LOCALHOST).to_be();
        let length = size_of_val(&to) as libc::socklen_t;
        let answer = libc::connect(fd, (&raw const to).cast(), length);
        let errno = last_errno();
        libc::close(fd);
        (answer, errno)
    };
    if answer < 0 {
        Ok(format!("a socket can be made; connecting gives {}", errno_name(errno)))
    } else {
        Ok("connects".to_owned())
    }
}

fn socket_pair() -> Attempt {
    let mut pair = [-1; 2];
    // SAFETY: the kernel writes two descriptors, which are ours.
    unsafe {
        if libc::socketpair(libc::AF_UNIX, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0, pair.as_mut_ptr()) < 0 {
            return Err(last_errno());
        }
        libc::close(pair[0]);
        libc::close(pair[1]);
    }
    Ok("socketpair succeeds".to_owned())
}

/// What a call that makes a process answered: the new process ends at once, and is waited for.
fn process_made(answer: c_long) -> Attempt {
    match answer {
        // SAFETY: this is the new process, which has a copy of the memory; it ends without running anything.
        0 => unsafe { libc::_exit(0) },
        pid @ 1.. => {
            // SAFETY: no status is asked for.
            unsafe { libc::waitpid(pid as libc::pid_t, std::ptr::null_mut(), 0) };
            Ok("a process is made".to_owned())
        }
        _ => Err(last_errno()),
    }
}

fn fork() -> Attempt {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the new process has a copy of the memory, and ends at once.
    let answer = unsafe { libc::syscall(libc::SYS_fork) };
    // AArch64 has no fork; the C library makes it of clone.
    #[cfg(not(target_arch = "x86_64"))]
    // SAFETY: as above; without CLONE_VM it is a fork.
    let answer = unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0_usize, 0_usize, 0_usize, 0_usize) };
    process_made(answer)
}

#[cfg(target_arch = "x86_64")]
fn vfork() -> Attempt {
    let answer: c_long;
    // The new process shares this stack, so it must not return: it ends within these instructions.
    // SAFETY: the only memory that is touched is what the kernel is asked to; rcx and r11 are what `syscall` changes.
    unsafe {
        std::arch::asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor edi, edi",
            "mov eax, {exit}",
            "syscall",
            "2:",
            exit = const libc::SYS_exit_group,
            inlateout("rax") libc::SYS_vfork => answer,
            out("rdi") _,
            out("rcx") _,
            out("r11") _,
            options(nostack),
        );
    }
    if answer > 0 {
        return process_made(answer);
    }
    // An answer below zero is an error number.
    Err(-answer as i32)
}

/// AArch64 has no vfork; this is what the C library makes it of, less the shared memory.
#[cfg(not(target_arch = "x86_64"))]
fn vfork() -> Attempt {
    let flags = libc::CLONE_VFORK | libc::SIGCHLD;
    // SAFETY: without CLONE_VM the new process has a copy of the memory, and ends at once.
    let answer = unsafe { libc::syscall(libc::SYS_clone, flags, 0_usize, 0_usize, 0_usize, 0_usize) };
    process_made(answer)
}

fn clone3() -> Attempt {
    // SAFETY: all-zero bytes are its arguments; with no flag and a signal it is a fork.
    let answer = unsafe {
        let mut args: libc::clone_args = std::mem::zeroed();
        args.exit_signal = libc::SIGCHLD as u64;
        libc::syscall(libc::SYS_clone3, &raw const args, size_of_val(&args))
    };
    process_made(answer)
}

fn start_thread() -> Attempt {
    match std::thread::Builder::new().spawn(|| ()) {
        Ok(thread) => {
            let _ = thread.join();
            Ok("a thread starts".to_owned())
        }
        Err(error) => Err(error.raw_os_error().unwrap_or_default()),
    }
}

fn read_memory(pid: c_int) -> Attempt {
    let mut byte = 0_u8;
    let local = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
    // The address is that of our own variable: a copy of this program may well have memory there.
    // SAFETY: the kernel writes at most the one byte that `local` describes.
    let answer = unsafe { libc::process_vm_readv(pid, &raw const local, 1, &raw const local, 1, 0) };
    if answer < 0 { Err(last_errno()) } else { Ok("memory of another process is read".to_owned()) }
}

fn read_proc(pid: c_int) -> Attempt {
    match File::open(format!("/proc/{pid}/environ")) {
        Ok(_) => Ok("the environment of another process opens".to_owned()),
        Err(error) => Err(error.raw_os_error().unwrap_or_default()),
    }
}

fn add_key() -> Attempt {
    /// The keyring of the process, KEY_SPEC_PROCESS_KEYRING in linux/keyctl.h.
    const OWN_KEYRING: c_long = -2;
    // SAFETY: static strings, and one byte of a static string with its length.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_add_key,
            c"user".as_ptr(),
            c"veritas".as_ptr(),
            c"x".as_ptr(),
            1_usize,
            OWN_KEYRING,
        )
    };
    if answer < 0 { Err(last_errno()) } else { Ok("a key is added".to_owned()) }
}

fn perf_event() -> Attempt {
    /// Size of the first version of perf_event_attr.
    const ATTR_BYTES: usize = 64;
    // An attribute is ATTR_BYTES long, and says so in its second word; all else is zero: counting processor cycles.
    let mut attr = [0_u32; ATTR_BYTES / 4];
    attr[1] = ATTR_BYTES as u32;
    let anywhere: c_int = -1;
    // SAFETY: the kernel reads the bytes whose length stands in them.
    let answer =
        unsafe { libc::syscall(libc::SYS_perf_event_open, attr.as_ptr(), 0, anywhere, anywhere, 0_usize) };
    close_if_open(answer, "a performance counter opens")
}

fn io_uring() -> Attempt {
    /// Size of io_uring_params.
    const PARAMS_BYTES: usize = 120;
    let mut params = [0_u64; PARAMS_BYTES / 8];
    // SAFETY: the kernel reads and writes PARAMS_BYTES.
    let answer = unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, params.as_mut_ptr()) };
    close_if_open(answer, "a ring is made")
}

fn close_if_open(answer: c_long, what: &str) -> Attempt {
    let Ok(fd @ 0..) = c_int::try_from(answer) else { return Err(last_errno()) };
    // SAFETY: the kernel has just made it, and nobody else knows it.
    unsafe { libc::close(fd) };
    Ok(what.to_owned())
}

/// Sets the limit of core dumps to what it is, zero.
fn set_limit() -> Attempt {
    let none = libc::rlimit64 { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the kernel reads one limit.
    let answer = unsafe {
        libc::syscall(libc::SYS_prlimit64, 0, libc::RLIMIT_CORE, &raw const none, std::ptr::null_mut::<u8>())
    };
    if answer < 0 { Err(last_errno()) } else { Ok("a limit is set".to_owned()) }
}

const READ_WRITE: c_int = libc::PROT_READ | libc::PROT_WRITE;

/// Maps a page of memory with the protection and the flags, and gives it another protection where one is said.
fn map(protection: c_int, flags: c_int, later: Option<c_int>) -> Attempt {
    let length = rustix::param::page_size();
    // SAFETY: a new mapping at an address that the kernel chooses; it is unmapped before anybody else knows it.
    unsafe {
        let start = libc::mmap(std::ptr::null_mut(), length, protection, flags | libc::MAP_ANONYMOUS, -1, 0);
        if start == libc::MAP_FAILED {
            return Err(last_errno());
        }
        let answer = later.map_or(0, |later| libc::mprotect(start, length, later));
        let errno = last_errno();
        libc::munmap(start, length);
        if answer < 0 { Err(errno) } else { Ok("the memory is there".to_owned()) }
    }
}

/// Puts a character into the input of the terminal, as if it had been typed.
fn control_terminal() -> Attempt {
    let typed = b'x';
    // SAFETY: the kernel reads one byte.
    let answer = unsafe { libc::ioctl(0, libc::TIOCSTI, &raw const typed) };
    if answer < 0 { Err(last_errno()) } else { Ok("a character is typed".to_owned()) }
}

/// Writes one byte behind the limit.
fn exceed_file_size(file: Option<usize>) -> Attempt {
    use std::os::unix::fs::FileExt;
    let Some(fd) = file.and_then(|index| c_int::try_from(index).ok()?.checked_add(SOCKET_FD + 1)) else {
        return Err(0);
    };
    // SAFETY: it is one of the files that were inherited, whose owner lives; `ManuallyDrop` leaves it open. Where the
    // number is none of them, the kernel says so.
    let file = ManuallyDrop::new(unsafe { File::from_raw_fd(fd) });
    let limit = rustix::process::getrlimit(rustix::process::Resource::Fsize).current.unwrap_or(u64::MAX >> 1);
    match file.write_at(b"x", limit) {
        Ok(_) => Ok("a file grows beyond the limit".to_owned()),
        Err(error) => Err(error.raw_os_error().unwrap_or_default()),
    }
}

fn of_rustix(what: &str, answer: Result<(), rustix::io::Errno>) -> Attempt {
    answer.map(|()| what.to_owned()).map_err(rustix::io::Errno::raw_os_error)
}
