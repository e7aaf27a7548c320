//! How much memory a body takes at most when it is decoded, as the kernel counts it: what was reserved counts, touched
//! or not.
#![cfg(target_os = "linux")]

use veritas_proto::{Frame, Kind, Name, limits, v1};

const MIB: u64 = 1 << 20;

/// How many times more than what `limits` counts may be taken: vectors reserve up to twice what they hold, and a text of
/// two letters costs an allocation of 32 bytes.
const ALLOCATOR_FACTOR: u64 = 3;

/// Bytes of a line of /proc/self/status, which gives them in KiB.
fn status(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux has this file");
    let line = status.lines().find(|line| line.starts_with(name)).expect("the line exists");
    let kib = line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok());
    1024 * kib.expect("the line has a number")
}

/// Decodes a body of as many mebibytes of `part` and checks how much the address space grew. Gives by how many bytes its
/// peak grew.
fn measure<M: Name + Default>(kind: Kind, mib: u64, part: &[u8], is_taken: bool) -> u64 {
    let body = part.repeat((mib * MIB) as usize / part.len());
    let frame = Frame { kind, request_id: 1, body };
    let (before, peak_before) = (status("VmSize:"), status("VmPeak:"));
    let message = frame.message::<M>();
    assert_eq!(message.is_ok(), is_taken, "{kind}: {:?}", message.err());
    let counted = limits::DECODED_BYTES_PER_BYTE * frame.body.len() as u64 + limits::DECODED_BYTES_FREE;
    let allowed = (before + ALLOCATOR_FACTOR * counted).max(peak_before);
    let peak = status("VmPeak:");
    assert!(peak <= allowed, "{kind}: {} MiB for a body of {mib}", (peak - before) / MIB);
    peak - peak_before
}

/// One test alone in its program: nothing else may take memory meanwhile. The bodies grow from one to the next, since
/// the peak of the address space never falls.
#[test]
fn a_body_takes_little_more_memory_than_its_length_allows() {
    let found = [
        measure::<v1::EmbedRequest>(Kind::EMBED, 1, &[0x12, 0], false),
        measure::<v1::ModelList>(Kind::MODEL_REPLY, 1, &[10, 0], false),
        measure::<v1::Finish>(Kind::FINISH, 1, &[10, 0], false),
        measure::<v1::DetokenizeRequest>(Kind::DETOKENIZE, 4, &[0x12, 6, 1, 2, 3, 4, 5, 6], true),
        measure::<v1::EmbedReply>(Kind::EMBED_REPLY, 8, &[10, 10, 10, 8, 1, 1, 1, 1, 1, 1, 1, 1], true),
        // One more than a power of two, so that the vector reserves almost twice what it holds.
        measure::<v1::EmbedRequest>(Kind::EMBED, 17, &[0x12, 2, b'x', b'y'], true),
    ];
    assert_eq!(found[..3], [0; 3], "what is refused takes nothing");
}
