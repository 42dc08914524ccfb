//! Arbitrary bytes are attached to and used.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| k2k_fuzz::attach(input));
