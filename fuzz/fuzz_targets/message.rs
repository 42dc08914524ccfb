//! Arbitrary bytes are read as messages.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| k2k_fuzz::message(input));
