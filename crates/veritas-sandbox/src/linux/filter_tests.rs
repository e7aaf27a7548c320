//! The filter's programs, run by an interpreter of classic BPF that reads like its definition, against the policy's
//! own words.

use seccompiler::sock_filter;

use super::super::network;
use super::*;
use crate::policy::Operand;

const PID: u32 = 4711;
const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
const KILL: u32 = libc::SECCOMP_RET_KILL_PROCESS;

/// What a filter sees of a call.
#[derive(Clone, Copy)]
struct Call {
    arch: u32,
    number: u32,
    args: [u64; 6],
}

impl Call {
    fn new(arch: Arch, name: &str, args: [u64; 6]) -> Self {
        Self { arch: audit(arch), number: syscalls::number(name, arch).unwrap(), args }
    }

    /// The word at an offset of `struct seccomp_data`: number, architecture, address, six arguments, little-endian.
    fn word(&self, offset: u32) -> u32 {
        match offset {
            0 => self.number,
            4 => self.arch,
            16..64 => {
                let arg = self.args[(offset as usize - 16) / 8];
                if offset.is_multiple_of(8) { arg as u32 } else { (arg >> 32) as u32 }
            }
            _ => panic!("offset {offset}"),
        }
    }
}

fn audit(arch: Arch) -> u32 {
    match arch {
        Arch::X86_64 => 0xc000_003e,
        Arch::Aarch64 => 0xc000_00b7,
    }
}

/// Runs a program: the instructions that seccomp allows and that are used here, one by one.
fn run(program: &[sock_filter], call: Call) -> u32 {
    let mut accumulator = 0;
    let mut at = 0;
    loop {
        let sock_filter { code, jt, jf, k } = program[at].clone();
        at += 1;
        let jump = |holds: bool| usize::from(if holds { jt } else { jf });
        match code {
            0x20 => accumulator = call.word(k),
            0x54 => accumulator &= k,
            0x05 => at += k as usize,
            0x15 => at += jump(accumulator == k),
            0x25 => at += jump(accumulator > k),
            0x35 => at += jump(accumulator >= k),
            0x45 => at += jump(accumulator & k != 0),
            0x06 => return k,
            _ => panic!("instruction {code:#x}"),
        }
    }
}

fn refused(errno: i32) -> u32 {
    libc::SECCOMP_RET_ERRNO | errno as u32
}

/// The policy's own words, read one after the other.
fn says(policy: &Policy, arch: Arch, name: &str, args: [u64; 6]) -> u32 {
    for refusal in &policy.seccomp.refuse {
        if refusal.calls.iter().any(|call| call == name) {
            return refused(errno(&refusal.errno).unwrap());
        }
    }
    let is_allowed = policy.groups(arch).any(|group| {
        group.calls.iter().any(|call| call == name)
            && group.when.iter().all(|condition| holds(condition, args))
    });
    if is_allowed { ALLOW } else { refused(errno(&policy.seccomp.refused).unwrap()) }
}

fn holds(condition: &Condition, args: [u64; 6]) -> bool {
    let mask = if condition.bits == 32 { u64::from(u32::MAX) } else { u64::MAX };
    let arg = args[usize::from(condition.arg)] & mask;
    let value = |operand: &Operand| operand.value(PID).unwrap();
    match &condition.test {
        Test::Is(values) => values.iter().any(|operand| arg == value(operand)),
        Test::With(values) => values.iter().all(|operand| arg & value(operand) == value(operand)),
        Test::Without(values) => values.iter().all(|operand| arg & value(operand) == 0),
    }
}

/// Arguments that lie on both sides of every condition of the policy.
fn interesting_args(policy: &Policy) -> Vec<[u64; 6]> {
    let mut values = vec![0, 1, u64::MAX, u64::from(u32::MAX), 1 << 32, u64::from(PID)];
    for condition in policy.seccomp.allow.iter().flat_map(|group| &group.when) {
        let (Test::Is(operands) | Test::With(operands) | Test::Without(operands)) = &condition.test;
        for operand in operands {
            let value = operand.value(PID).unwrap();
            values.extend([value, value + 1, value ^ (1 << 32), value | 1 << 63]);
        }
    }
    values.sort_unstable();
    values.dedup();
    let mut args = values.iter().map(|value| [*value; 6]).collect::<Vec<_>>();
    // Each value in each place, with zeros elsewhere; and the two conditions of one call together.
    for place in 0..6 {
        args.extend(values.iter().map(|value| {
            let mut args = [0; 6];
            args[place] = *value;
            args
        }));
    }
    args.push([u64::from(PID), 0, libc::SIGABRT as u64, 0, 0, 0]);
    args
}

fn agree(policy: &Policy) {
    let args = interesting_args(policy);
    for arch in Arch::ALL {
        let program = of_policy(policy, arch, PID).unwrap();
        for (name, _) in syscalls::all(arch) {
            for args in &args {
                let found = run(&program, Call::new(arch, name, *args));
                assert_eq!(found, says(policy, arch, name, *args), "{} {name} {args:x?}", arch.name());
            }
        }
    }
}

#[test]
fn the_program_does_what_the_default_policy_says_for_every_call_on_both_architectures() {
    agree(&Policy::default());
}

#[test]
fn several_conditions_and_several_groups_of_one_call_are_joined_as_documented() {
    let text = r#"
        [seccomp]
        refused = "EACCES"
        refuse = [{ why = "x", calls = ["clone3", "openat"], errno = "ENOSYS" }]
        [[seccomp.allow]]
        why = "two values and a mask"
        calls = ["prctl", "ioctl"]
        when = [{ arg = 0, is = [1, 2] }, { arg = 1, with = [5] }, { arg = 2, bits = 32, without = [1, 8] }]
        [[seccomp.allow]]
        why = "another way to be allowed"
        calls = ["prctl"]
        when = [{ arg = 3, is = [0xffffffffff] }]
        [[seccomp.allow]]
        why = "an unconditional group wins over a conditional one"
        calls = ["ioctl"]
    "#;
    let policy = Policy::parse(text).unwrap();
    agree(&policy);
    let program = of_policy(&policy, Arch::X86_64, PID).unwrap();
    let prctl = |args| run(&program, Call::new(Arch::X86_64, "prctl", args));
    assert_eq!(prctl([2, 5, 0, 0, 0, 0]), ALLOW);
    assert_eq!(prctl([2, 4, 0, 0, 0, 0]), refused(libc::EACCES));
    assert_eq!(prctl([2, 5, 8, 0, 0, 0]), refused(libc::EACCES));
    assert_eq!(prctl([9, 0, 0, 0xff_ffff_ffff, 0, 0]), ALLOW);
}

#[test]
fn a_worker_can_only_signal_itself_and_only_to_abort() {
    for arch in Arch::ALL {
        let program = of_policy(&Policy::default(), arch, PID).unwrap();
        let tgkill = |pid, signal| run(&program, Call::new(arch, "tgkill", [pid, 9, signal, 0, 0, 0]));
        assert_eq!(tgkill(u64::from(PID), 6), ALLOW);
        assert_eq!(tgkill(u64::from(PID), 9), refused(libc::EPERM));
        assert_eq!(tgkill(1, 6), refused(libc::EPERM));
    }
}

#[test]
fn nothing_dangerous_is_on_the_default_list_whatever_its_arguments() {
    let dangerous = [
        "open",
        "openat",
        "openat2",
        "creat",
        "open_by_handle_at",
        "socket",
        "socketpair",
        "connect",
        "bind",
        "listen",
        "accept",
        "accept4",
        "execve",
        "execveat",
        "fork",
        "vfork",
        "clone",
        "clone3",
        "ptrace",
        "process_vm_readv",
        "process_vm_writev",
        "kill",
        "tkill",
        "rt_sigqueueinfo",
        "rt_tgsigqueueinfo",
        "pidfd_open",
        "pidfd_getfd",
        "pidfd_send_signal",
        "add_key",
        "request_key",
        "keyctl",
        "bpf",
        "perf_event_open",
        "userfaultfd",
        "io_uring_setup",
        "io_uring_enter",
        "io_uring_register",
        "mount",
        "umount2",
        "pivot_root",
        "chroot",
        "unshare",
        "setns",
        "setuid",
        "setgid",
        "setresuid",
        "setresgid",
        "setgroups",
        "capset",
        "ioctl",
        "memfd_create",
        "memfd_secret",
        "shmat",
        "shmget",
        "pkey_mprotect",
        "personality",
        "seccomp",
        "setrlimit",
        "unlink",
        "unlinkat",
        "rename",
        "mkdir",
        "symlink",
        "link",
        "chmod",
        "fchmod",
        "chown",
        "fchown",
        "setsid",
        "init_module",
        "finit_module",
        "kexec_load",
        "reboot",
        "swapon",
        "syslog",
        "acct",
        "settimeofday",
        "clock_settime",
        "adjtimex",
        "modify_ldt",
        "arch_prctl",
        "process_madvise",
        "move_pages",
        "splice",
        "vmsplice",
        "tee",
        "inotify_init1",
        "fanotify_init",
        "name_to_handle_at",
        "quotactl",
        "setxattr",
        "landlock_create_ruleset",
        "mount_setattr",
        "move_mount",
        "open_tree",
        "fsopen",
        "fsconfig",
        "fsmount",
        "fspick",
        "sched_setscheduler",
        "setpriority",
    ];
    let policy = Policy::default();
    let args = interesting_args(&policy);
    for arch in Arch::ALL {
        let program = of_policy(&policy, arch, PID).unwrap();
        for name in dangerous.into_iter().filter(|name| syscalls::number(name, arch).is_some()) {
            for args in &args {
                assert_ne!(run(&program, Call::new(arch, name, *args)), ALLOW, "{} {name}", arch.name());
            }
        }
    }
}

#[test]
fn foreign_architectures_are_killed_and_x32_is_refused_by_both_filters() {
    for arch in Arch::ALL {
        let own = if arch == Arch::X86_64 { Arch::Aarch64 } else { Arch::X86_64 };
        for program in [of_policy(&Policy::default(), arch, PID).unwrap(), network::program(arch).unwrap()] {
            let mut call = Call::new(own, "read", [0; 6]);
            assert_eq!(run(&program, call), KILL);
            // 32-bit x86 and 32-bit Arm.
            for foreign in [0x4000_0003, 0x4000_0028] {
                call.arch = foreign;
                assert_eq!(run(&program, call), KILL);
            }
        }
    }
    for program in
        [of_policy(&Policy::default(), Arch::X86_64, PID).unwrap(), network::program(Arch::X86_64).unwrap()]
    {
        for name in ["socket", "read", "openat"] {
            let mut call = Call::new(Arch::X86_64, name, [0; 6]);
            call.number |= X32_SYSCALL_BIT;
            assert_eq!(run(&program, call), refused(libc::ENOSYS), "{name}");
        }
    }
}

#[test]
fn the_network_filter_refuses_every_family_but_unix_and_nothing_else() {
    for arch in Arch::ALL {
        let program = network::program(arch).unwrap();
        for family in 0..256_u64 {
            let expected = if family == 1 { ALLOW } else { refused(libc::EAFNOSUPPORT) };
            for name in ["socket", "socketpair"] {
                assert_eq!(
                    run(&program, Call::new(arch, name, [family, 1, 0, 0, 0, 0])),
                    expected,
                    "{name} {family}"
                );
                // The kernel reads an int: what stands above it does not make another family of it.
                let high = [family | 0xdead << 32, 1, 0, 0, 0, 0];
                assert_eq!(run(&program, Call::new(arch, name, high)), expected, "{name} {family}");
            }
        }
        for (name, _) in syscalls::all(arch) {
            let expected = match name {
                "socket" | "socketpair" => refused(libc::EAFNOSUPPORT),
                "io_uring_setup" => refused(libc::ENOSYS),
                _ => ALLOW,
            };
            assert_eq!(run(&program, Call::new(arch, name, [2, 1, 0, 0, 0, 0])), expected, "{name}");
        }
    }
}

#[test]
fn a_name_that_nobody_knows_in_a_deserialised_policy_is_an_error() {
    let mut policy = Policy::default();
    policy.seccomp.allow[0].calls.push("raed".to_owned());
    assert!(matches!(of_policy(&policy, Arch::X86_64, PID), Err(Error::BuildFilter { .. })));
    let mut policy = Policy::default();
    policy.seccomp.refused = "ENOPE".to_owned();
    assert!(matches!(of_policy(&policy, Arch::X86_64, PID), Err(Error::BuildFilter { .. })));
}
