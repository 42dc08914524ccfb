//! A host's endpoint and a device's run loop share one fabric: the host's native code and interpreted code from the
//! same source, on the same bytes.
#![allow(clippy::incompatible_msrv, reason = "the declared version is that of the library; tests use the newest")]

mod common;

use common::module;
use core::cell::Cell;
use core::time::Duration;
use k2k_core::WakeFlag;
use k2k_core::{Command, Config, DeliveryStatus, Fabric, Message, Platform, Registration};
use k2k_ptx_executor::{Background, Clock, Error, LaunchConfig, Machine, Module, Options, Order, host_clock_ns};
use std::time::Instant;

type TestFabric = Fabric<4, 8, 64>;

/// The machine's virtual clock.
struct Device<'c>(&'c Cell<u64>);

impl Platform for Device<'_> {
    fn now_ns(&self) -> u64 {
        self.0.get()
    }

    fn wake(&self, _: &WakeFlag) {}
}

struct Host;

impl Platform for Host {
    fn now_ns(&self) -> u64 {
        host_clock_ns()
    }

    fn wake(&self, _: &WakeFlag) {}
}

fn fabric() -> Box<TestFabric> {
    // SAFETY: all zero is a valid, idle fabric.
    let fabric = unsafe { Box::<TestFabric>::new_zeroed().assume_init() };
    fabric.init(&Config::default()).unwrap();
    fabric
}

/// Whether the fixtures were compiled from a fabric of this size; if not, the test says so and does nothing.
fn same_layout(machine: &mut Machine) -> bool {
    let out = machine.allocate("size", 8);
    let launch = machine.launch("fabric_size", 1, 1, &[out.into()]).unwrap();
    machine.run(1000).unwrap();
    machine.join(launch);
    let (device, host) = (machine.host_load(out, 8, Order::Weak).unwrap(), size_of::<TestFabric>() as u64);
    if device != host {
        println!("skipped: the fixtures know a fabric of {device} bytes, not {host}; run tests/fixtures/regenerate.sh");
    }
    device == host
}

fn with_fabric(machine: &mut Machine, fabric: &mut TestFabric) {
    let start = core::ptr::from_mut(fabric);
    // SAFETY: the fabric outlives the machine's last turn, and all of it is shared cells and atomics.
    unsafe { machine.register("fabric", start.cast(), size_of::<TestFabric>()).unwrap() };
    let failed = machine.allocate("failed", 4);
    machine.launch("fabric_echo", 1, 1, &[start.into(), failed.into()]).unwrap();
}

#[test]
fn a_device_echoes_to_a_host_turn_by_turn() {
    for seed in 0..20 {
        let mut machine = Machine::new(seed, Options { native_host: true, ..Options::default() });
        machine.load(module());
        if !same_layout(&mut machine) {
            return;
        }
        let mut fabric = fabric();
        with_fabric(&mut machine, &mut fabric);
        let clock = Cell::new(machine.now_ns());
        let platform = Device(&clock);
        let mut host = fabric.register(&Registration::new("host").unwrap().at(3), &platform).unwrap();
        let (mut sent, mut received, mut stopping) = (0u32, 0u32, false);
        let mut receipts = Vec::new();
        machine
            .run_until(20_000_000, |m| {
                clock.set(m.now_ns());
                // Before it has registered and after it has stopped, it is not to be found.
                let Some(echo) = fabric.find("echo") else { return Ok(stopping) };
                if sent < 50 && sent - received < 8 {
                    let message = Message::from_value(7, &[u64::from(sent); 5]).with_correlation_id(u64::from(sent));
                    if let Ok(id) = host.send(echo, &message) {
                        receipts.push(id);
                        sent += 1;
                    }
                }
                while let Some(message) = host.try_receive() {
                    assert_eq!(message.value::<[u64; 5]>().unwrap(), [u64::from(received); 5]);
                    received += 1;
                }
                if received == 50 && !stopping {
                    fabric.command(echo, Command::Stop, &platform).unwrap();
                    stopping = true;
                }
                Ok(false)
            })
            .unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        machine.run(1_000_000).unwrap();
        // Receipts of old messages have made room for later ones.
        let statuses: Vec<_> = receipts.iter().filter_map(|id| host.receipt(*id).ok()).map(|r| r.status).collect();
        assert!(!statuses.is_empty() && statuses.iter().all(|s| *s == DeliveryStatus::Delivered), "{statuses:?}");
    }
}

#[test]
fn a_device_echoes_to_a_host_at_the_same_time() {
    let options = Options { races: false, clock: Clock::Host, ..Options::default() };
    let mut machine = Machine::new(1, options);
    machine.load(module());
    if !same_layout(&mut machine) {
        return;
    }
    let mut fabric = fabric();
    with_fabric(&mut machine, &mut fabric);
    let mut running = Background::start(machine).unwrap();
    let mut host = fabric.register(&Registration::new("host").unwrap().at(3), &Host).unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    let (mut sent, mut received) = (0u64, 0u64);
    while received < 1000 {
        assert!(Instant::now() < deadline && running.error().is_none(), "{:?}", running.error());
        let Some(echo) = fabric.find("echo") else { continue };
        // No more than fit into the host's inbox: the kernel loses what it cannot answer.
        if sent < 1000 && sent - received < 8 && host.send(echo, &Message::from_value(7, &[sent; 5])).is_ok() {
            sent += 1;
        }
        while let Some(message) = host.try_receive() {
            assert_eq!(message.value::<[u64; 5]>().unwrap(), [received; 5]);
            received += 1;
        }
    }
    let echo = fabric.find("echo").unwrap();
    fabric.command(echo, Command::Stop, &Host).unwrap();
    while !running.with(|m| m.threads().is_empty()) {
        assert!(Instant::now() < deadline, "the kernel does not stop");
    }
    running.stop();
}

/// Both kernels are PTX, so the detector sees everything; the one that asks plays the host if `host` says so.
fn asked(seed: u64, module: &Module, host: bool) -> Option<Result<(), Error>> {
    let mut m = Machine::new(seed, Options::default());
    m.load(module);
    if !same_layout(&mut m) {
        return None;
    }
    let mut fabric = fabric();
    with_fabric(&mut m, &mut fabric);
    let out = m.allocate("out", 16);
    let fabric_at = core::ptr::from_mut(&mut *fabric);
    let config = LaunchConfig { plays_host: host, ..LaunchConfig::new(1, 1) };
    let launch = m.launch_with("fabric_ask", config, &[fabric_at.into(), 20u64.into(), out.into()]).unwrap();
    Some(m.run(20_000_000).and_then(|()| {
        m.join(launch);
        assert_eq!(common::read_words(&mut m, out, 2)?, [20, 0]);
        Ok(())
    }))
}

#[test]
fn a_fabric_between_kernels_is_clean_and_each_kind_of_order_matters() {
    for seed in 0..20 {
        for host in [false, true] {
            let Some(result) = asked(seed, module(), host) else { return };
            result.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        }
    }
    for (from, to, host) in [
        ("st.release.sys", "st.relaxed.sys", false),
        ("ld.acquire.sys", "ld.relaxed.sys", false),
        ("st.release.sys", "st.release.gpu", true),
        ("ld.acquire.sys", "ld.acquire.gpu", true),
    ] {
        // In all functions: what is not inlined is shared by both kernels.
        let text = common::PTX.replace(from, to);
        let module = Module::parse(&text).unwrap();
        let race = (0..20).any(|seed| matches!(asked(seed, &module, host), Some(Err(Error::Race(_)))));
        assert!(race, "{from} to {to} was not found");
    }
}
