//! All benchmarks on the emulated device, with few messages: they run through, end, and have figures and floors. What
//! they are there means nothing.
#![cfg(feature = "emulated")]

use k2k_cuda::{Device, EmulatedOptions};
use k2k_gpu::bench::{BenchOptions, Missing, Verdict, names, run, run_some};

#[test]
fn every_benchmark_runs_on_the_emulated_device() {
    let device = Device::emulated(EmulatedOptions::default()).unwrap();
    let rows = run(&device, BenchOptions::few(), |row| println!("{row}"));
    for row in &rows {
        if row.name == "the device's, mapped, p50" {
            assert!(matches!(row.figure, Err(Missing::Unavailable(_))), "{row}");
            continue;
        }
        let figure = row.figure.as_ref().unwrap_or_else(|why| panic!("{}, {}: {why}", row.benchmark, row.name));
        assert!(figure.value > 0.0, "{row}");
        let floors = ["bare flag", "launch and wait", "an empty loop", "a copy of"];
        let is_floor = floors.iter().any(|floor| row.name.starts_with(floor));
        assert_eq!(figure.ratio().is_none(), is_floor, "{row}");
        assert!(
            row.verdict().is_none_or(|verdict| verdict == Verdict::NotMeasured),
            "no GPU meets a target here: {row}"
        );
    }
    for name in names() {
        assert!(rows.iter().any(|row| row.benchmark == name), "{name}");
    }
    assert!(!device.is_busy());
}

#[test]
fn what_is_not_wanted_is_not_measured() {
    let device = Device::emulated(EmulatedOptions::default()).unwrap();
    let rows = run_some(&device, BenchOptions::few(), |name| name == "rings over the chip", |_| {});
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0].benchmark, "rings over the chip");
}
