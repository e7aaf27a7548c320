//! The seccomp filter: from the policy to a program for the kernel.
//!
//! `seccompiler` builds the lists of calls with their conditions. It knows one answer for what matches and one for
//! what does not, and nothing of the x32 ABI, so a short prologue of our own goes before its program. The prologue is
//! position-independent, because jumps in such a program are relative.

use std::collections::BTreeMap;

use rustix::thread::{SecureComputingMode, secure_computing_mode};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch, sock_filter,
};

use crate::Error;
use crate::constants::errno;
use crate::policy::{Condition, Policy, Test};
use crate::syscalls::{self, Arch};

/// Bit 30 of a call's number marks the x32 ABI on x86-64.
const X32_SYSCALL_BIT: u32 = 0x4000_0000;

// Instructions of classic BPF, from linux/bpf_common.h: load a word of the call's description, jumps, return.
const LOAD: u16 = 0x20;
const JUMP_IF_EQUAL: u16 = 0x15;
const JUMP_IF_AT_LEAST: u16 = 0x35;
const RETURN: u16 = 0x06;

// Offsets in `struct seccomp_data`.
const OFFSET_NUMBER: u32 = 0;
const OFFSET_ARCH: u32 = 4;

/// The program that allows what the policy allows, in a process with the id `own_pid`.
pub(super) fn of_policy(policy: &Policy, arch: Arch, own_pid: u32) -> Result<BpfProgram, Error> {
    let mut rules = BTreeMap::<i64, Vec<SeccompRule>>::new();
    // A call that is allowed without a condition is allowed whatever other groups say of it.
    let mut always = Vec::new();
    for group in policy.groups(arch) {
        for call in &group.calls {
            let number = i64::from(number(call, arch)?);
            if group.when.is_empty() {
                always.push(number);
            } else {
                rules.entry(number).or_default().extend(alternatives(&group.when, own_pid)?);
            }
        }
    }
    for number in always {
        rules.insert(number, Vec::new());
    }
    let mut answers = Vec::new();
    for refusal in &policy.seccomp.refuse {
        for call in &refusal.calls {
            answers.push((number(call, arch)?, known_errno(&refusal.errno)?));
        }
    }
    let refused = SeccompAction::Errno(known_errno(&policy.seccomp.refused)?);
    build(rules, refused, SeccompAction::Allow, arch, &answers)
}

/// A program that refuses the calls of `rules` with `refused` and those of `answers` with their own answers, and
/// allows the rest.
pub(super) fn refusing(
    rules: BTreeMap<i64, Vec<SeccompRule>>,
    refused: u32,
    arch: Arch,
    answers: &[(u32, u32)],
) -> Result<BpfProgram, Error> {
    build(rules, SeccompAction::Allow, SeccompAction::Errno(refused), arch, answers)
}

/// Puts every thread of this process under the program. It also sets `no_new_privs`.
pub(super) fn install(program: &BpfProgram) -> Result<(), Error> {
    seccompiler::apply_filter_all_threads(program)
        .map_err(|error| Error::InstallFilter { reason: error.to_string() })
}

/// Tries a socket and a file, both of which must answer as the policy says, and reads the mode back where it can be.
pub(super) fn observe(policy: &Policy) -> Result<(), String> {
    let expected = known_errno(&policy.seccomp.refused).map_err(|error| error.to_string())?;
    // SAFETY: no pointer is passed.
    let socket = unsafe { libc::syscall(libc::SYS_socket, libc::AF_INET, libc::SOCK_STREAM, 0) };
    answered(socket, expected).map_err(|seen| format!("socket {seen}"))?;
    // SAFETY: the path is a string that ends with zero.
    let file = unsafe { libc::syscall(libc::SYS_openat, libc::AT_FDCWD, c"/".as_ptr(), libc::O_RDONLY) };
    answered(file, expected).map_err(|seen| format!("openat {seen}"))?;
    match secure_computing_mode() {
        // A policy need not allow the question.
        Ok(SecureComputingMode::Filter) | Err(_) => Ok(()),
        Ok(other) => Err(format!("the mode reads back as {other:?}")),
    }
}

fn answered(answer: libc::c_long, expected: u32) -> Result<(), String> {
    let errno = std::io::Error::last_os_error();
    let is_expected = errno.raw_os_error().is_some_and(|errno| u32::try_from(errno) == Ok(expected));
    match answer {
        -1 if is_expected => Ok(()),
        -1 => Err(format!("answers {errno}, which the policy does not say")),
        _ => Err("succeeds".to_owned()),
    }
}

fn build(
    rules: BTreeMap<i64, Vec<SeccompRule>>,
    otherwise: SeccompAction,
    matched: SeccompAction,
    arch: Arch,
    answers: &[(u32, u32)],
) -> Result<BpfProgram, Error> {
    let target = match arch {
        Arch::X86_64 => TargetArch::x86_64,
        Arch::Aarch64 => TargetArch::aarch64,
    };
    let filter = SeccompFilter::new(rules, otherwise, matched, target).map_err(build_error)?;
    let mut program = prologue(arch, answers);
    program.extend(BpfProgram::try_from(filter).map_err(build_error)?);
    Ok(program)
}

fn build_error(error: seccompiler::BackendError) -> Error {
    Error::BuildFilter { reason: error.to_string() }
}

fn number(call: &str, arch: Arch) -> Result<u32, Error> {
    let reason = || format!("{} has no system call {call:?}", arch.name());
    syscalls::number(call, arch).ok_or_else(|| Error::BuildFilter { reason: reason() })
}

fn known_errno(name: &str) -> Result<u32, Error> {
    let value = errno(name).and_then(|value| u32::try_from(value).ok());
    value.ok_or_else(|| Error::BuildFilter { reason: format!("no error number is called {name:?}") })
}

/// The rules that together say that all conditions hold: one for each combination of the values of `is`.
fn alternatives(conditions: &[Condition], own_pid: u32) -> Result<Vec<SeccompRule>, Error> {
    let mut rules = vec![Vec::new()];
    for condition in conditions {
        let tests = tests_of(condition, own_pid)?;
        rules = rules
            .into_iter()
            .flat_map(|rule| tests.iter().map(move |test| [rule.clone(), vec![test.clone()]].concat()))
            .collect();
    }
    rules.into_iter().map(|rule| SeccompRule::new(rule).map_err(build_error)).collect()
}

/// The tests of which one must hold.
fn tests_of(condition: &Condition, own_pid: u32) -> Result<Vec<SeccompCondition>, Error> {
    let length = if condition.bits == 32 { SeccompCmpArgLen::Dword } else { SeccompCmpArgLen::Qword };
    let test = |operator, value| {
        SeccompCondition::new(condition.arg, length.clone(), operator, value).map_err(build_error)
    };
    let (Test::Is(operands) | Test::With(operands) | Test::Without(operands)) = &condition.test;
    let mut values = Vec::with_capacity(operands.len());
    for operand in operands {
        let reason = || format!("no constant is called {operand:?}");
        values.push(operand.value(own_pid).ok_or_else(|| Error::BuildFilter { reason: reason() })?);
    }
    let bits = values.iter().fold(0, |bits, value| bits | value);
    match &condition.test {
        Test::Is(_) => values.into_iter().map(|value| test(SeccompCmpOp::Eq, value)).collect(),
        Test::With(_) => Ok(vec![test(SeccompCmpOp::MaskedEq(bits), bits)?]),
        Test::Without(_) => Ok(vec![test(SeccompCmpOp::MaskedEq(bits), 0)?]),
    }
}

/// Kills on a foreign architecture, refuses the x32 ABI, and gives calls answers of their own.
fn prologue(arch: Arch, answers: &[(u32, u32)]) -> BpfProgram {
    let instruction = |code, jt, jf, k| sock_filter { code, jt, jf, k };
    let answer =
        |errno: u32| instruction(RETURN, 0, 0, libc::SECCOMP_RET_ERRNO | (errno & libc::SECCOMP_RET_DATA));
    let audit_arch = match arch {
        Arch::X86_64 => 0xc000_003e,  // AUDIT_ARCH_X86_64
        Arch::Aarch64 => 0xc000_00b7, // AUDIT_ARCH_AARCH64
    };
    let mut program = vec![
        instruction(LOAD, 0, 0, OFFSET_ARCH),
        instruction(JUMP_IF_EQUAL, 1, 0, audit_arch),
        instruction(RETURN, 0, 0, libc::SECCOMP_RET_KILL_PROCESS),
        instruction(LOAD, 0, 0, OFFSET_NUMBER),
    ];
    if arch == Arch::X86_64 {
        program.push(instruction(JUMP_IF_AT_LEAST, 0, 1, X32_SYSCALL_BIT));
        program.push(answer(libc::ENOSYS as u32));
    }
    for (number, errno) in answers {
        program.push(instruction(JUMP_IF_EQUAL, 0, 1, *number));
        program.push(answer(*errno));
    }
    program
}

#[cfg(test)]
#[path = "filter_tests.rs"]
mod tests;
