//! The list of checks on the emulated device: few messages, several seeds. With `K2K_SEEDS=200`, many.
#![cfg(feature = "emulated")]

use core::time::Duration;
use k2k_cuda::check::{CheckOptions, run};
use k2k_cuda::{Device, EmulatedOptions};

#[test]
fn every_check_passes_on_the_emulated_device() {
    let seeds = std::env::var("K2K_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(2);
    let options = CheckOptions { messages: 200, patience: Duration::from_secs(60) };
    for seed in 1..=seeds {
        let device = Device::emulated(EmulatedOptions { seed, races: true, ..EmulatedOptions::default() }).unwrap();
        let results = run(&device, options, |result| println!("seed {seed}: {result}"));
        let failed: Vec<_> = results.iter().filter(|result| !result.passed()).map(|result| result.name).collect();
        assert!(failed.is_empty(), "seed {seed}: {failed:?}");
    }
}
