//! The clock of a host.

use core::time::Duration;
use k2k_host::{Host, Platform};
use std::time::{Instant, SystemTime};

fn system_ns() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos() as u64
}

/// Readings that were taken within a few µs of the system's clock on both sides tell how far off it is.
#[test]
fn the_clock_stays_with_the_system_clock() {
    let host = Host::new();
    let start = Instant::now();
    let (mut worst, mut looked) = (0, 0u64);
    while start.elapsed() < Duration::from_millis(500) || looked < 1000 {
        let before = system_ns();
        let now = host.now_ns();
        let after = system_ns();
        if after.saturating_sub(before) < 5_000 && after > before {
            worst = worst.max(before.saturating_sub(now)).max(now.saturating_sub(after));
            looked += 1;
        }
        assert!(start.elapsed() < Duration::from_secs(60), "no undisturbed readings");
    }
    println!("worst of {looked}: {worst} ns");
    // The error is below 1 µs unless the clock is being set just now.
    assert!(worst < 20_000, "off by {worst} ns");
}

#[test]
fn a_clock_that_was_not_read_for_a_while_is_right_at_once() {
    let host = Host::new();
    for pause_ms in [0, 1, 3, 30, 300] {
        std::thread::sleep(Duration::from_millis(pause_ms));
        let before = system_ns();
        let now = host.now_ns();
        let after = system_ns();
        assert!(now + 20_000 >= before && now <= after + 20_000, "{before} {now} {after}");
    }
}

#[test]
fn a_platform_can_move_to_another_thread() {
    let host = Host::new();
    let before = host.now_ns();
    let after = std::thread::spawn(move || host.now_ns()).join().unwrap();
    assert!(after + 20_000 >= before);
}
