//! The clock of a host.

use core::time::Duration;
use k2k::{Host, Platform};
use rustix::time::{ClockId, clock_gettime};
use std::sync::Mutex;
use std::time::{Instant, SystemTime};

fn system_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
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
    // The error is below 1 µs unless the clock is being slewed just now.
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

#[test]
fn the_wall_time_is_the_systems() {
    let host = Host::new();
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(5) {
        let now_ns = host.now_ns();
        let wall_ns = now_ns.wrapping_add(host.wall_offset_ns());
        let system_ns = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos() as u64;
        assert!(system_ns.abs_diff(wall_ns) < 1_000_000_000, "{wall_ns} {system_ns}");
    }
}

/// Clocks of several threads, each with lines of its own, beside one another: read one after the other, they never
/// go back by as much as the margin.
#[test]
fn the_clocks_of_several_threads_stay_within_the_margin() {
    let (latest, start) = (Mutex::new(0), Instant::now());
    let watch = || {
        let (host, mut back) = (Host::new(), 0);
        while start.elapsed() < Duration::from_millis(400) {
            let before: u64 = *latest.lock().unwrap();
            let now = host.now_ns();
            back = back.max(before.saturating_sub(now));
            let mut latest = latest.lock().unwrap();
            *latest = now.max(*latest);
        }
        back
    };
    let back = std::thread::scope(|scope| {
        let threads = [0, 1, 2].map(|_| scope.spawn(watch));
        threads.into_iter().map(|thread| thread.join().unwrap()).max().unwrap()
    });
    println!("behind by {back} ns at most");
    assert!(back < k2k::CLOCK_MARGIN_NS, "{back} ns");
}
