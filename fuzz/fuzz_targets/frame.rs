//! Any bytes as a connection: the same frames however they are cut, and each body taken or refused for a reason.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = veritas_testkit::fuzz::frame::check(bytes);
});
