//! Any changes of a sound header: a typed error, or a plan within the file.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| veritas_testkit::fuzz::plan::check(bytes));
