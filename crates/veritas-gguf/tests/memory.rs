//! How much memory the reader takes at most, as the kernel counts it: what was reserved counts, touched or not.
#![cfg(target_os = "linux")]

mod bytes;

use bytes::{array, file, info, pair, string};
use veritas_gguf::parse;

const MIB: u64 = 1 << 20;

/// Bytes of a line of /proc/self/status, which gives them in KiB.
fn status(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux has this file");
    let line = status.lines().find(|line| line.starts_with(name)).expect("the line exists");
    1024 * line
        .split_whitespace()
        .nth(1)
        .and_then(|kib| kib.parse::<u64>().ok())
        .expect("the line has a number")
}

/// Parses a file and checks that the address space did not grow by more than eight times its size.
fn measure(what: &str, file: &[u8], valid: bool) {
    let (before, peak_before) = (status("VmSize:"), status("VmPeak:"));
    let parsed = parse(file);
    assert_eq!(parsed.is_ok(), valid, "{what}: {parsed:.200?}");
    let allowed = (before + 8 * file.len() as u64 + MIB).max(peak_before);
    let peak = status("VmPeak:");
    assert!(
        peak <= allowed,
        "{what}: {} MiB for a file of {}",
        (peak - before) / MIB,
        file.len() as u64 / MIB
    );
}

/// One test alone in its program: nothing else may take memory meanwhile. The files grow from one to the next,
/// since the peak of the address space never falls.
#[test]
fn memory_stays_below_eight_times_the_file() {
    let strings =
        |n: u64, text: &[u8]| file(&[pair("a", 9, &array(8, n, &string(text).repeat(n as usize)))], &[], 0);
    let infos = |n: u64| (0..n).map(|i| info(&format!("{i:x}"), &[1], 24, 8 * i)).collect::<Vec<_>>();
    let alignment = pair("general.alignment", 4, &8u32.to_le_bytes());
    measure("tensors of one element", &file(&[alignment], &infos(60_000), 480_000), true);
    let pairs: Vec<_> = (0..65_000).map(|i| pair(&format!("{i:x}"), 0, &[1])).collect();
    measure("small pairs", &file(&pairs, &[], 0), true);
    measure("strings of one byte", &strings(500_000, b"x"), true);
    measure("empty strings", &strings(1_000_000, b""), true);
    // Arrays whose claims could each take the rest of the file, four levels deep, and then fail.
    let rest = 16 << 20;
    let claim = |used: u64| (rest - used) / 12 - 8;
    let nested =
        array(9, claim(0), &array(9, claim(12), &array(9, claim(24), &array(8, rest / 8 - 64, &[]))));
    measure("nested claims", &file(&[pair("a", 9, &nested)], &[], rest as usize), false);
    measure(
        "claims of everything",
        &file(&[pair("a", 9, &array(8, rest / 8 - 64, &[255; 8]))], &[], rest as usize),
        false,
    );
}
