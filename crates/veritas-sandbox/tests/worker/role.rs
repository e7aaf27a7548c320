//! What this program does when it is executed again: as a worker, or as another supervisor.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde::Serialize;
use veritas_sandbox::{
    Error, Inherited, Policy, ProbeContext, SpawnSpec, confine, inherited, network_refused, probes, spawn,
};

use crate::start::{Confined, Orders};

/// Plays the role, and says whether it was one.
pub(crate) fn run(role: &str, args: &[&str]) -> bool {
    match role {
        "worker" => worker(args[0].parse().unwrap()),
        "try-namespaces" => try_namespaces(),
        "contained" => contained(),
        "mark-delegated" => {
            rustix::fs::setxattr(args[0], "user.delegate", b"1", rustix::fs::XattrFlags::empty()).unwrap()
        }
        "refuse-network" => refuse_network(),
        "not-a-worker" => assert!(matches!(inherited(0), Err(Error::NotInherited { fd: 3, .. }))),
        "supervisor" => supervise(),
        "replaced-supervisor" => replaced_supervisor(),
        _ => return false,
    }
    true
}

fn try_namespaces() {
    let all = libc::CLONE_NEWUSER
        | libc::CLONE_NEWNS
        | libc::CLONE_NEWNET
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWUTS;
    // SAFETY: numbers alone; the process ends right away.
    let answer = unsafe { libc::unshare(all) };
    std::process::exit(i32::from(answer != 0));
}

/// Forbids what the usual containers forbid, and runs all tests.
fn contained() {
    use seccompiler::{
        SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    };
    use std::os::unix::process::CommandExt;
    let target = if cfg!(target_arch = "x86_64") {
        seccompiler::TargetArch::x86_64
    } else {
        seccompiler::TargetArch::aarch64
    };
    let new_user = libc::CLONE_NEWUSER as u64;
    let makes_namespaces =
        SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::MaskedEq(new_user), new_user)
            .unwrap();
    let rules = [
        (libc::SYS_clone, vec![SeccompRule::new(vec![makes_namespaces]).unwrap()]),
        (libc::SYS_unshare, Vec::new()),
        (libc::SYS_mount, Vec::new()),
        (libc::SYS_pivot_root, Vec::new()),
    ];
    let forbidden = SeccompAction::Errno(libc::EPERM as u32);
    let filter = SeccompFilter::new(rules.into(), SeccompAction::Allow, forbidden, target).unwrap();
    let program = seccompiler::BpfProgram::try_from(filter).unwrap();
    seccompiler::apply_filter(&program).unwrap();
    panic!("{}", std::process::Command::new("/proc/self/exe").exec());
}

/// Refuses the network while another thread exists already, and looks from both.
fn refuse_network() {
    let (sender, receiver) = std::sync::mpsc::channel::<()>();
    let other = std::thread::spawn(move || receiver.recv().is_ok() && network_refused());
    veritas_sandbox::refuse_network().unwrap();
    assert!(network_refused());
    sender.send(()).unwrap();
    assert!(other.join().unwrap(), "a thread that was there before can reach the network");
    assert_eq!(socket_error(libc::AF_INET), Some(libc::EAFNOSUPPORT));
    assert_eq!(socket_error(libc::AF_NETLINK), Some(libc::EAFNOSUPPORT));
    assert_eq!(socket_error(libc::AF_VSOCK), Some(libc::EAFNOSUPPORT));
    assert_eq!(socket_error(libc::AF_PACKET), Some(libc::EAFNOSUPPORT));
    assert_eq!(socket_error(libc::AF_UNIX), None);
    // SAFETY: no ring is made; a null pointer would be refused.
    let ring = unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, std::ptr::null::<u8>()) };
    assert_eq!((ring, std::io::Error::last_os_error().raw_os_error()), (-1, Some(libc::ENOSYS)));
    // What a process starts is bound as well.
    let child = std::process::Command::new("/proc/self/exe").arg("not-a-worker").status();
    assert!(child.unwrap().success());
    assert!(std::net::TcpListener::bind("127.0.0.1:0").is_err());
    UnixStream::pair().unwrap();
}

fn socket_error(family: i32) -> Option<i32> {
    // SAFETY: numbers alone; a descriptor that is made stays open until the process ends.
    let fd = unsafe { libc::socket(family, libc::SOCK_DGRAM, 0) };
    if fd < 0 { std::io::Error::last_os_error().raw_os_error() } else { None }
}

/// Starts a worker, says its process id on standard output, and waits to be killed.
fn supervise() {
    let confined = Confined::plain("wait");
    println!("{}", confined.worker.pid());
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
    // Standard input stays open until this process is killed.
    unreachable!();
}

/// Removes the file that it runs from and starts a worker all the same.
fn replaced_supervisor() {
    let program = std::env::current_exe().unwrap();
    std::fs::remove_file(&program).unwrap();
    std::fs::write(&program, "something else").unwrap();
    let mut confined = Confined::plain("exit");
    assert_eq!(confined.worker.wait().unwrap(), veritas_sandbox::Exit::Code(42));
}

fn worker(n_files: usize) {
    // Standard error is nowhere; what a panic has to say goes to the test.
    std::panic::set_hook(Box::new(|panic| {
        let line = format!("{panic}\n");
        // SAFETY: descriptor 3 is the connection, or the kernel says that it is not open; the length is the line's.
        unsafe { libc::write(3, line.as_ptr().cast(), line.len()) };
    }));
    let Inherited { socket, files } = inherited(n_files).unwrap();
    let mut lines = BufReader::new(socket.try_clone().unwrap());
    // The copy above is a descriptor that `confine` must close, so the original is the one to keep.
    let mut line = String::new();
    lines.read_line(&mut line).unwrap();
    std::mem::forget(lines);
    let orders = serde_json::from_str::<Orders>(&line).unwrap();
    if orders.deed == "confine-with-threads" {
        let (_sender, receiver) = std::sync::mpsc::channel::<()>();
        std::thread::spawn(move || receiver.recv());
        tell(&socket, &confined(&orders, || Ok(())).map(|_| ()));
        return;
    }
    if orders.deed == "inherit-twice" {
        tell(&socket, &inherited(n_files).map(|_| ()).map_err(|error| error.to_string()));
        return;
    }
    if orders.deed == "crowd" {
        tell(&socket, &confined(&orders, crowd).map(|((), report)| report));
        return;
    }
    let started = confined(&orders, || Ok(Player::start()));
    tell(&socket, &started.as_ref().map(|(_, report)| report));
    let Ok((player, _)) = started else { return };
    perform(&orders, &socket, files, player);
}

/// Confines this process as the orders say.
fn confined<T>(
    orders: &Orders,
    start_threads: impl FnOnce() -> std::io::Result<T>,
) -> Result<(T, veritas_sandbox::Report), String> {
    confine(&orders.policy, &orders.limits, &orders.facts, start_threads).map_err(|error| error.to_string())
}

fn perform(orders: &Orders, socket: &UnixStream, files: Vec<File>, player: Player) {
    match orders.deed.as_str() {
        "wait" => wait(socket),
        "exit" => std::process::exit(42),
        "panic" => panic!("as it was told"),
        "abort" => std::process::abort(),
        // SAFETY: it is not safe: the kernel is to end this process here.
        "fault" => unsafe { std::ptr::null_mut::<u8>().write_volatile(1) },
        "overflow" => assert_ne!(overflow(1), 0),
        "shrink" => touch_shrunken(socket, &files[0]),
        "probe" => {
            let writable_file = (!files.is_empty()).then_some(0);
            tell(
                socket,
                &probes(
                    &orders.policy,
                    &ProbeContext { supervisor_pid: orders.supervisor_pid, writable_file },
                ),
            );
        }
        "contents" => {
            let contents = files.iter().map(|mut file| {
                let mut text = String::new();
                file.read_to_string(&mut text).unwrap();
                text
            });
            tell(socket, &contents.collect::<Vec<_>>());
            wait(socket);
        }
        "exhaust" => exhaust(),
        "grow" => tell(socket, &grow(&files[0])),
        "work" => tell(socket, &work(&files[0], player)),
        "paths" => tell(socket, &paths()),
        "spawn" => tell(socket, &spawn_from_within().to_string()),
        other => panic!("nobody knows the deed {other}"),
    }
}

fn tell(mut socket: &UnixStream, what: &impl Serialize) {
    let mut line = serde_json::to_string(what).unwrap();
    line.push('\n');
    socket.write_all(line.as_bytes()).unwrap();
}

/// Waits until the supervisor says something or ends the connection.
fn wait(mut socket: &UnixStream) {
    let _ = socket.read(&mut [0; 1]);
}

#[inline(never)]
fn overflow(depth: u64) -> u64 {
    let frame = std::hint::black_box([depth; 512]);
    // Never so deep: the compiler does not know it.
    if depth == u64::MAX { 0 } else { overflow(depth + 1) + frame[depth as usize % 512] }
}

/// Maps the file, lets the supervisor shorten it, and reads what is gone.
fn touch_shrunken(socket: &UnixStream, file: &File) {
    let map = Map::of(file);
    tell(socket, &map.bytes()[0]);
    wait(socket);
    tell(socket, &map.bytes()[map.length - 1]);
}

/// Starts more threads than a control group of the tests allows; they wait for the end of the process.
fn crowd() -> std::io::Result<()> {
    for _ in 0..100 {
        std::thread::Builder::new().spawn(std::thread::park)?;
    }
    Ok(())
}

/// Uses 256 MiB, which is more than a control group of the tests allows.
fn exhaust() {
    let used = (0..256).map(|_| std::hint::black_box(vec![1_u8; 1 << 20])).collect::<Vec<_>>();
    assert_eq!(used.len(), 256);
}

/// Writes to the file until it is refused: how far it came, and the error.
fn grow(file: &File) -> (u64, Option<i32>) {
    let mut length = 0;
    loop {
        match file.write_at(&[1; 1000], length) {
            Ok(written) => length += written as u64,
            Err(error) => return (length, error.raw_os_error()),
        }
    }
}

/// A file mapped for reading.
struct Map {
    start: *mut libc::c_void,
    length: usize,
}

impl Map {
    fn of(file: &File) -> Self {
        use rustix::mm::{MapFlags, ProtFlags, mmap};
        let length = usize::try_from(file.metadata().unwrap().len()).unwrap();
        // SAFETY: a new mapping at an address that the kernel chooses.
        let start =
            unsafe { mmap(std::ptr::null_mut(), length, ProtFlags::READ, MapFlags::SHARED, file.as_fd(), 0) };
        Self { start: start.unwrap(), length }
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY: the mapping has this length and is never undone; that the file shrinks is what is tested.
        unsafe { std::slice::from_raw_parts(self.start.cast(), self.length) }
    }
}

/// A thread that answers each number with the next one: it must have been started before seccomp.
struct Player {
    table: Arc<(Mutex<u64>, Condvar)>,
    thread: JoinHandle<u64>,
}

/// The number at which the player ends.
const LAST: u64 = 2001;

impl Player {
    fn start() -> Self {
        let table = Arc::new((Mutex::new(0), Condvar::new()));
        let theirs = Arc::clone(&table);
        let thread = std::thread::spawn(move || {
            let (number, turn) = &*theirs;
            let mut number = number.lock().unwrap();
            loop {
                number = turn.wait_while(number, |number| *number % 2 == 0).unwrap();
                if *number >= LAST {
                    return *number;
                }
                *number += 1;
                turn.notify_all();
            }
        });
        Self { table, thread }
    }

    /// Plays to the end, and waits for the thread's.
    fn play(self) -> u64 {
        let (number, turn) = &*self.table;
        let mut number = number.lock().unwrap();
        while *number < LAST {
            *number += 1;
            turn.notify_all();
            if *number < LAST {
                number = turn.wait_while(number, |number| *number % 2 == 1).unwrap();
            }
        }
        drop(number);
        self.thread.join().unwrap()
    }
}

/// What an engine does once it is confined. Each line fails loudly if the filter is too narrow.
fn work(file: &File, player: Player) -> HashMap<String, u64> {
    use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, mremap, munmap};
    let mut seen = HashMap::new();
    seen.insert("played".to_owned(), player.play());
    // 100 MB, touched, grown by moving, and given back.
    let mut large = vec![1_u8; 100 << 20];
    large.extend_from_slice(&[2; 1 << 20]);
    seen.insert("allocated".to_owned(), large.iter().map(|byte| u64::from(*byte)).sum());
    drop(large);
    let map = Map::of(file);
    seen.insert("mapped".to_owned(), map.bytes().iter().map(|byte| u64::from(*byte)).sum());
    let both = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: a new mapping, which nobody else uses, of the lengths given.
    unsafe {
        let start = mmap_anonymous(std::ptr::null_mut(), 4 << 20, both, MapFlags::PRIVATE).unwrap();
        madvise(start, 4 << 20, Advice::LinuxHugepage).unwrap();
        let start = mremap(start, 4 << 20, 8 << 20, rustix::mm::MremapFlags::MAYMOVE).unwrap();
        start.cast::<u8>().write_bytes(7, 8 << 20);
        madvise(start, 8 << 20, Advice::LinuxDontNeed).unwrap();
        munmap(start, 8 << 20).unwrap();
    }
    let mut processors = rustix::thread::sched_getaffinity(None).unwrap();
    seen.insert("processors".to_owned(), u64::from(processors.count()));
    let first = (0..1024).find(|processor| processors.is_set(*processor)).unwrap();
    processors.clear();
    processors.set(first);
    rustix::thread::sched_setaffinity(None, &processors).unwrap();
    let start = Instant::now();
    std::thread::sleep(Duration::from_millis(1));
    seen.insert("slept_us".to_owned(), start.elapsed().as_micros() as u64);
    let today = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    seen.insert("now_s".to_owned(), today.as_secs());
    seen.insert("file_bytes".to_owned(), file.metadata().unwrap().len());
    std::thread::yield_now();
    assert!(std::thread::available_parallelism().is_ok());
    std::panic::set_hook(Box::new(|_| ()));
    assert!(std::panic::catch_unwind(|| panic!("caught")).is_err());
    seen
}

/// What answers a look at a path and the making of a folder, where the policy lets both calls through.
fn paths() -> (Option<i32>, Option<i32>) {
    let error = |answer: i32| if answer < 0 { std::io::Error::last_os_error().raw_os_error() } else { None };
    // SAFETY: static strings; all-zero bytes are a stat, and the kernel writes one.
    unsafe {
        let mut found: libc::stat = std::mem::zeroed();
        let stat = error(libc::fstatat(libc::AT_FDCWD, c"/etc/passwd".as_ptr(), &raw mut found, 0));
        (stat, error(libc::mkdirat(libc::AT_FDCWD, c"/tmp/veritas-probe-folder".as_ptr(), 0o700)))
    }
}

fn spawn_from_within() -> Error {
    let policy = Policy::default();
    spawn(SpawnSpec { args: &[], descriptors: Vec::new(), policy: &policy, allow_missing: false })
        .expect_err("a worker starts a worker")
}
