//! Any chat template, and any message in templates of ours: no panic, no forged control token.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| veritas_testkit::fuzz::template::check(bytes));
