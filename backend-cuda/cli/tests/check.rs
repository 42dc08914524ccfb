//! The list of checks on the emulated device: few messages, several seeds. With `K2K_SEEDS=200`, many; with
//! `K2K_SECONDS=300`, for minutes. `K2K_SEED` is the first one.
#![cfg(feature = "emulated")]

use core::time::Duration;
use k2k_cuda::{Device, EmulatedOptions};
use k2k_gpu::check::{CheckOptions, run};

#[test]
fn every_check_passes_on_the_emulated_device() {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let (first, seeds) = (number("K2K_SEED").unwrap_or(1), number("K2K_SEEDS").unwrap_or(2));
    let seconds = number("K2K_SECONDS");
    let began = std::time::Instant::now();
    let options = CheckOptions { messages: 200, patience: Duration::from_secs(60) };
    for seed in first.. {
        if seconds.map_or(seed - first >= seeds, |seconds| began.elapsed().as_secs() >= seconds) {
            break;
        }
        let device = Device::emulated(EmulatedOptions { seed, races: true, ..EmulatedOptions::default() }).unwrap();
        let results = run(&device, options, |result| println!("seed {seed}: {result}"));
        let failed: Vec<_> = results.iter().filter(|result| !result.passed()).map(|result| result.name).collect();
        assert!(failed.is_empty(), "seed {seed}: {failed:?}");
    }
}
