//! A gateway works while the remote side of its link writes what it likes.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| k2k_fuzz::gateway(input));
