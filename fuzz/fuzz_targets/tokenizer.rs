//! Any vocabulary and any text: no panic, no id out of range, no control token that a text names.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../crates/veritas-tokenizer/tests/oracle/mod.rs"]
mod oracle;

fuzz_target!(|bytes: &[u8]| {
    oracle::check_bytes(bytes);
});
