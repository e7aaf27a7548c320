//! Any bytes as blocks of any type: numbers, or a typed error.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| veritas_testkit::fuzz::quant::check(bytes));
