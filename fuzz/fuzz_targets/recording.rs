//! Arbitrary bytes are read as a recording.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| k2k_fuzz::recording(input));
