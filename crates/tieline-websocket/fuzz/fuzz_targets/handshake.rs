//! Any headers of a request, and the answer to them. The target itself is in `tests/targets`, where proptest drives it too.

#![no_main]
#![allow(dead_code, reason = "each target uses a part of what they share")]

#[path = "../../tests/reference/mod.rs"]
mod reference;
#[path = "../../tests/targets/mod.rs"]
mod targets;

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::handshake(data));
