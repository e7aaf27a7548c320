//! Any bytes as a GGUF file: a typed error, or a header whose every promise holds.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = veritas_testkit::fuzz::gguf::check(bytes);
});
