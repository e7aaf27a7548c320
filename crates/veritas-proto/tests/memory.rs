//! How much memory a body takes at most when it is decoded, as the kernel counts it: what was reserved counts, touched
//! or not. Each body is decoded in a process of its own, since the peak of an address space never falls.
#![cfg(target_os = "linux")]

use std::process::Command;

use veritas_proto::{Frame, Kind, Name, limits, v1};

const MIB: u64 = 1 << 20;

/// How many times more than what `limits` counts may be taken: vectors reserve up to twice what they hold, and a text of
/// two letters costs an allocation of 32 bytes.
const ALLOCATOR_FACTOR: u64 = 3;

/// Names the case that a process is to measure.
const VARIABLE: &str = "VERITAS_PROTO_MEMORY_CASE";

/// A body, whether it is taken, and the bytes that what is decoded of it holds at least.
struct Case {
    name: &'static str,
    run: fn() -> Measured,
    is_taken: bool,
    held_bytes: u64,
}

/// What a process found: by how many bytes its address space grew at most, and whether the body was taken.
struct Measured {
    grown: u64,
    body_bytes: u64,
    is_taken: bool,
}

const CASES: [Case; 6] = [
    Case {
        name: "empty texts",
        run: || measure::<v1::EmbedRequest>(Kind::EMBED, MIB, &[0x12, 0]),
        is_taken: false,
        held_bytes: 0,
    },
    Case {
        name: "empty models",
        run: || measure::<v1::ModelList>(Kind::MODEL_REPLY, MIB, &[10, 0]),
        is_taken: false,
        held_bytes: 0,
    },
    Case {
        name: "empty choices",
        run: || measure::<v1::Finish>(Kind::FINISH, MIB, &[10, 0]),
        is_taken: false,
        held_bytes: 0,
    },
    Case {
        name: "numbers in packs",
        run: || measure::<v1::DetokenizeRequest>(Kind::DETOKENIZE, 4 * MIB, &[0x12, 6, 1, 2, 3, 4, 5, 6]),
        is_taken: true,
        // Six numbers of 4 bytes in 8 bytes of the body.
        held_bytes: 4 * MIB / 8 * 6 * 4,
    },
    Case {
        name: "vectors",
        run: || {
            measure::<v1::EmbedReply>(Kind::EMBED_REPLY, 4 * MIB, &[10, 10, 10, 8, 1, 1, 1, 1, 1, 1, 1, 1])
        },
        is_taken: true,
        // A vector of 24 bytes with two numbers of 4 bytes in 12 bytes of the body.
        held_bytes: 4 * MIB / 12 * (24 + 8),
    },
    Case {
        name: "short texts",
        // One more than a power of two, so that the vector reserves almost twice what it holds.
        run: || measure::<v1::EmbedRequest>(Kind::EMBED, 4 * MIB + 4, &[0x12, 2, b'x', b'y']),
        is_taken: true,
        // A text of 24 bytes with two letters in 4 bytes of the body.
        held_bytes: 4 * MIB / 4 * (24 + 2),
    },
];

/// Bytes of a line of /proc/self/status, which gives them in KiB.
fn status(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux has this file");
    let line = status.lines().find(|line| line.starts_with(name)).expect("the line exists");
    let kib = line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok());
    1024 * kib.expect("the line has a number")
}

/// Decodes a body of so many bytes of `part`.
fn measure<M: Name + Default>(kind: Kind, bytes: u64, part: &[u8]) -> Measured {
    let body = part.repeat(bytes as usize / part.len());
    let frame = Frame { kind, request_id: 1, body };
    let before = status("VmSize:");
    let message = frame.message::<M>();
    let grown = status("VmPeak:") - before;
    Measured { grown, body_bytes: frame.body.len() as u64, is_taken: message.is_ok() }
}

#[test]
fn a_body_takes_little_more_memory_than_its_length_allows() {
    if let Some(name) = std::env::var_os(VARIABLE) {
        let case = CASES.iter().find(|case| name == case.name).expect("a case");
        return check(case, &(case.run)());
    }
    for case in &CASES {
        let mut child = Command::new(std::env::current_exe().expect("this program"));
        child.args(["--exact", "a_body_takes_little_more_memory_than_its_length_allows"]);
        // One arena: for each further thread that of the GNU C library reserves 64 MiB beforehand.
        let child = child.env("MALLOC_ARENA_MAX", "1");
        let output = child.env(VARIABLE, case.name).output().expect("a process");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.contains("1 passed"), "{}: {said}", case.name);
    }
}

fn check(case: &Case, found: &Measured) {
    let Measured { grown, body_bytes, is_taken } = *found;
    assert_eq!(is_taken, case.is_taken);
    if !is_taken {
        assert!(grown <= MIB, "what is refused takes nothing, not {grown} bytes");
        return;
    }
    let counted = limits::DECODED_BYTES_PER_BYTE * body_bytes + limits::DECODED_BYTES_FREE;
    assert!(grown <= ALLOCATOR_FACTOR * counted, "{grown} bytes, where {counted} are counted");
    // Less cannot be: the measurement would have seen nothing. A mebibyte may have been free before.
    assert!(grown + MIB >= case.held_bytes, "{grown} bytes, where the message holds {}", case.held_bytes);
}
