//! How workers start, work and end.

use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::process::{Command, Stdio};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use veritas_sandbox::{Exit, Limits, Policy, SpawnSpec, spawn};

use crate::start::{Confined, copied_program, file_with};

pub(crate) const TESTS: &[(&str, fn())] = &[
    ("every_end_is_reported_by_its_name", every_end_is_reported_by_its_name),
    (
        "a_mapped_file_that_shrinks_ends_the_worker_with_sigbus",
        a_mapped_file_that_shrinks_ends_the_worker_with_sigbus,
    ),
    ("threads_that_were_started_before_work_after", threads_that_were_started_before_work_after),
    ("files_arrive_in_order_and_nothing_else_does", files_arrive_in_order_and_nothing_else_does),
    ("a_stopped_worker_dies_with_its_supervisor", a_stopped_worker_dies_with_its_supervisor),
    ("a_worker_outlives_the_thread_that_asked_for_it", a_worker_outlives_the_thread_that_asked_for_it),
    ("a_dropped_worker_is_killed_and_reaped", a_dropped_worker_is_killed_and_reaped),
    ("workers_start_while_other_threads_allocate", workers_start_while_other_threads_allocate),
    ("a_program_that_was_replaced_starts_itself", a_program_that_was_replaced_starts_itself),
    ("what_cannot_be_a_worker_is_refused", what_cannot_be_a_worker_is_refused),
];

/// Whether the descriptor becomes readable before ten minutes have passed, which stand for never.
fn becomes_readable(descriptor: impl AsFd) -> bool {
    let mut wanted = [PollFd::new(&descriptor, PollFlags::IN)];
    poll(&mut wanted, Some(&Timespec { tv_sec: 600, tv_nsec: 0 })).unwrap() == 1
}

fn every_end_is_reported_by_its_name() {
    let ends = [
        ("exit", "exited with code 42"),
        ("panic", "exited with code 101"),
        ("abort", "killed by SIGABRT"),
        ("fault", "killed by SIGSEGV"),
        ("overflow", "killed by SIGABRT"),
    ];
    for off in ["[]", "[\"namespaces\"]"] {
        let policy = Policy::parse(&format!("[layers]\noff = {off}\n")).unwrap();
        for (deed, expected) in ends {
            let mut confined = Confined::start(&policy, Limits::default(), Vec::new(), deed).unwrap();
            assert!(becomes_readable(confined.worker.pidfd()));
            let exit = confined.worker.try_wait().unwrap().expect("it has ended");
            assert_eq!(exit.describe(), expected, "{deed}, off: {off}");
            // An end that was seen once is seen again.
            assert_eq!(confined.worker.wait().unwrap(), exit);
        }
        let mut confined = Confined::start(&policy, Limits::default(), Vec::new(), "wait").unwrap();
        assert_eq!(confined.worker.try_wait().unwrap(), None);
        confined.worker.kill();
        assert_eq!(confined.worker.wait().unwrap(), Exit::Signal(libc::SIGKILL));
        confined.worker.kill();
    }
}

fn a_mapped_file_that_shrinks_ends_the_worker_with_sigbus() {
    for off in ["[]", "[\"namespaces\"]"] {
        let policy = Policy::parse(&format!("[layers]\noff = {off}\n")).unwrap();
        let file = file_with(&[9; 64 << 10]);
        let copy = file.try_clone().unwrap();
        let mut confined = Confined::start(&policy, Limits::default(), vec![file.into()], "shrink").unwrap();
        assert_eq!(confined.hear::<u8>(), 9);
        copy.set_len(100).unwrap();
        confined.say("now");
        assert_eq!(confined.worker.wait().unwrap().describe(), "killed by SIGBUS");
    }
}

fn threads_that_were_started_before_work_after() {
    let bytes = (0..100_000).map(|i| (i % 251) as u8).collect::<Vec<_>>();
    let file = file_with(&bytes);
    let mut confined =
        Confined::start(&Policy::default(), Limits::default(), vec![file.into()], "work").unwrap();
    let seen = confined.hear::<std::collections::HashMap<String, u64>>();
    assert_eq!(seen["played"], 2001);
    assert_eq!(seen["allocated"], (100 << 20) + (2 << 20));
    assert_eq!(seen["mapped"], bytes.iter().map(|byte| u64::from(*byte)).sum::<u64>());
    assert_eq!(seen["file_bytes"], 100_000);
    assert!(seen["processors"] >= 1 && seen["slept_us"] >= 1000 && seen["now_s"] > 1_700_000_000);
    assert_eq!(confined.worker.wait().unwrap(), Exit::Code(0));
}

fn files_arrive_in_order_and_nothing_else_does() {
    // Twenty files whose numbers here collide with their numbers there.
    let files = (0..20).map(|i| file_with(format!("file {i}").as_bytes())).collect::<Vec<_>>();
    for file in &files {
        rewind(file);
    }
    let descriptors = files.into_iter().rev().map(Into::into).collect();
    let mut confined =
        Confined::start(&Policy::default(), Limits::default(), descriptors, "contents").unwrap();
    let expected = (0..20).rev().map(|i| format!("file {i}")).collect::<Vec<_>>();
    assert_eq!(confined.hear::<Vec<String>>(), expected);
}

fn rewind(mut file: &std::fs::File) {
    use std::io::Seek;
    file.rewind().unwrap();
    assert!(file.read_at(&mut [0; 1], 0).is_ok());
}

fn a_stopped_worker_dies_with_its_supervisor() {
    let mut supervisor = Command::new("/proc/self/exe")
        .arg("supervisor")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(supervisor.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let worker = Pid::from_raw(line.trim().parse().unwrap()).unwrap();
    let worker_end = pidfd_open(worker, PidfdFlags::empty()).unwrap();
    kill_process(worker, Signal::STOP).unwrap();
    supervisor.kill().unwrap();
    supervisor.wait().unwrap();
    assert!(becomes_readable(worker_end), "the worker lives on without its supervisor");
}

fn a_worker_outlives_the_thread_that_asked_for_it() {
    let mut confined = std::thread::spawn(|| Confined::plain("wait")).join().unwrap();
    assert_eq!(confined.worker.try_wait().unwrap(), None);
    // It answers: it waits for a byte, and ends as it should.
    confined.say("go on");
    assert_eq!(confined.worker.wait().unwrap(), Exit::Code(0));
}

fn a_dropped_worker_is_killed_and_reaped() {
    let Confined { worker, .. } = Confined::plain("wait");
    let pid = Pid::from_raw(worker.pid() as i32).unwrap();
    let end = pidfd_open(pid, PidfdFlags::empty()).unwrap();
    drop(worker);
    assert!(becomes_readable(&end));
    // Nothing is left of it to wait for.
    let left = rustix::process::waitid(
        rustix::process::WaitId::PidFd(end.as_fd()),
        rustix::process::WaitIdOptions::EXITED | rustix::process::WaitIdOptions::NOHANG,
    );
    assert_eq!(left.err(), Some(rustix::io::Errno::CHILD));
}

fn workers_start_while_other_threads_allocate() {
    use std::sync::atomic::{AtomicBool, Ordering};
    static IS_OVER: AtomicBool = AtomicBool::new(false);
    let busy = std::thread::spawn(|| {
        let mut kept = Vec::new();
        while !IS_OVER.load(Ordering::Relaxed) {
            kept.push(vec![0_u8; 100_000]);
            kept.truncate(10);
            std::io::sink().write_all(format!("{}", kept.len()).as_bytes()).unwrap();
        }
    });
    let starters = (0..4).map(|_| {
        std::thread::spawn(|| {
            for _ in 0..4 {
                let mut confined = Confined::plain("exit");
                assert_eq!(confined.worker.wait().unwrap(), Exit::Code(42));
                assert!(confined.is_silent());
            }
        })
    });
    for starter in starters.collect::<Vec<_>>() {
        starter.join().unwrap();
    }
    IS_OVER.store(true, Ordering::Relaxed);
    busy.join().unwrap();
}

fn a_program_that_was_replaced_starts_itself() {
    let (_folder, program) = copied_program();
    let status = Command::new(program).arg("replaced-supervisor").status().unwrap();
    assert!(status.success());
}

fn what_cannot_be_a_worker_is_refused() {
    // A process that nobody started as a worker.
    let status = Command::new("/proc/self/exe").arg("not-a-worker").status().unwrap();
    assert!(status.success());
    let with_deed = |deed| Confined::start(&Policy::default(), Limits::default(), Vec::new(), deed).err();
    assert!(with_deed("confine-with-threads").unwrap().contains("threads before it is confined"));
    assert!(with_deed("inherit-twice").unwrap().contains("taken already"));
    let policy = Policy::default();
    let long = "x".repeat(70_000);
    for arg in [long.as_str(), "a\0b"] {
        let refused = spawn(SpawnSpec {
            args: &["worker", arg],
            descriptors: Vec::new(),
            policy: &policy,
            allow_missing: false,
        });
        assert!(matches!(refused, Err(veritas_sandbox::Error::Arguments { .. })));
    }
    let many = (0..257).map(|_| file_with(b"").into()).collect();
    let refused =
        spawn(SpawnSpec { args: &["worker"], descriptors: many, policy: &policy, allow_missing: false });
    assert!(matches!(refused, Err(veritas_sandbox::Error::TooManyDescriptors { count: 257, .. })));
}
