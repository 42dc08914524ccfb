//! Endpoints work in a fabric that someone else scribbles on.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| k2k_fuzz::hostile_peer(input));
