//! An onlooker copies arbitrary bytes, and asks the copy.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| k2k_fuzz::look(input));
