//! The fuzz targets' bodies on some pseudo-random inputs, so that a broken one shows without a fuzzer.

/// SplitMix64 (Steele, Lea and Flood, 2014): the same inputs in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ x >> 31
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next() as u8).collect()
    }
}

fn replay(seed: u64, inputs: usize, max_len: usize, body: fn(&[u8])) {
    let mut random = Random(seed);
    body(&[]);
    for number in 0..inputs {
        let len = random.next() as usize % max_len;
        let input = random.bytes(len);
        let outcome = std::panic::catch_unwind(|| body(&input));
        assert!(outcome.is_ok(), "input {number} of seed {seed} ({len} bytes): {input:02x?}");
    }
}

#[test]
fn attach_survives_random_bytes() {
    replay(1, 400, 8192, k2k_fuzz::attach);
}

#[test]
fn hostile_peer_survives_random_programs() {
    replay(2, 400, 4096, k2k_fuzz::hostile_peer);
}

#[test]
fn ring_ops_agree_with_their_models() {
    replay(3, 1000, 1024, k2k_fuzz::ring_ops);
}

#[test]
fn message_decoding_keeps_its_promises() {
    replay(4, 1000, 320, k2k_fuzz::message);
}

#[test]
fn a_gateway_survives_random_links() {
    replay(5, 600, 4096, k2k_fuzz::gateway);
}

#[test]
fn an_onlooker_survives_random_bytes() {
    replay(6, 2000, 2048, k2k_fuzz::look);
}

#[test]
fn recordings_of_random_bytes_are_refused_and_written_ones_are_read() {
    replay(7, 2000, 1024, k2k_fuzz::recording);
}
