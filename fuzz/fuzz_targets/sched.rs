//! Any calls to the scheduler: its invariants hold, and everything ends.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| veritas_testkit::fuzz::sched::check(bytes));
