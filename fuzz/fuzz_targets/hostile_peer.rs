//! Endpoints work in a fabric that another process overwrites.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| k2k_fuzz::hostile_peer(input));
