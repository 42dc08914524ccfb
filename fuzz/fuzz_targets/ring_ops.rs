//! Sequences of ring operations against queues.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| k2k_fuzz::ring_ops(input));
