//! The library's kernels in sessions on the emulated device, joined with a host's fabric.
#![cfg(feature = "emulated")]

use core::error::Error as _;
use core::time::Duration;
use k2k::{Broker, Endpoint, Fixed, KernelId, Memory, Message, Wait};
use k2k_cuda::k2k_core::gateway::GatewayConfig;
use k2k_cuda::k2k_core::{Command, Config, RegisterError};
use k2k_cuda::{BridgeError, Device, EmulatedOptions, Error, Grid, Outcome, Ptx, Running, Session};
use k2k_kernels::shape::{DeviceShape, FRAMES, KERNELS, PAYLOAD, SLOTS};
use std::time::Instant;

type LibrarySession = Session<DeviceShape>;
type LibraryRunning = Running<DeviceShape>;

const LONG: Duration = Duration::from_secs(60);

fn device() -> Device {
    Device::emulated(EmulatedOptions::default()).unwrap()
}

fn session(device: &Device, grids: &[&str]) -> LibrarySession {
    let mut session = LibrarySession::new(device, &Config::default()).unwrap();
    session.load(&Ptx::library()).unwrap();
    for entry in grids {
        // SAFETY: the library's own entry points, of this shape; these take no parameters.
        unsafe { session.add(Grid::new(entry)).unwrap() };
    }
    session
}

/// The first that there is.
fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(started.elapsed() < LONG, "{what} did not come");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Asks as often, and gets each question back.
fn ask<const THEIRS: usize, const PER_PAIR: usize>(
    me: &mut Endpoint<Fixed<THEIRS, PER_PAIR, PAYLOAD>>,
    echo: KernelId,
    count: u64,
) {
    for number in 0..count {
        let asked = me.send(echo, &Message::from_value(1, &number)).unwrap();
        let answer = me.receive(LONG).unwrap();
        assert_eq!((answer.value::<u64>().unwrap(), answer.header.correlation_id), (number, asked.sequence));
    }
}

fn stop(running: &mut LibraryRunning) {
    for block in running.stop(LONG).unwrap() {
        assert_eq!(block.outcome(), Some(Outcome::Finished), "{block}");
    }
}

#[test]
fn a_relay_passes_on_what_is_routed_through_it() {
    let device = device();
    let memory = Memory::<Fixed<KERNELS, SLOTS, PAYLOAD>>::heap(&Config::default()).unwrap();
    let mut session = session(&device, &["k2k_echo", "k2k_relay"]);
    session.bridge("gateway", &memory, GatewayConfig::default()).unwrap();
    let broker = Broker::new(memory);
    let mut me = broker.register_parking("me").unwrap();
    let mut running = session.start().unwrap();
    let ids = running.wait_ready(LONG).unwrap();
    let [echo, relay, _] = ids[..] else { panic!("{ids:?}") };
    let to = until("the echo", || broker.find("k2k_echo"));
    let proxy = until("a proxy of the asker", || running.observe().unwrap().find("me"));

    let forwarded = |running: &LibraryRunning| running.observe().unwrap().stats(relay).unwrap().forwarded;
    ask(&mut me, to, 3);
    assert_eq!(forwarded(&running), 0, "without a route, answers go straight to the proxy");
    running.set_route(echo, proxy, Some(relay)).unwrap();
    ask(&mut me, to, 5);
    // A message may arrive before the relay has counted it.
    until("the relay's count", || (forwarded(&running) == 5).then_some(()));
    running.set_route(echo, proxy, None).unwrap();
    ask(&mut me, to, 2);
    assert_eq!(forwarded(&running), 5);
    stop(&mut running);
}

#[test]
fn a_bridge_takes_a_gateway_of_the_callers_and_a_host_fabric_of_another_shape() {
    let device = device();
    let memory = Memory::<Fixed<4, 8, PAYLOAD>>::heap(&Config::default()).unwrap();
    let mut session = session(&device, &["k2k_echo"]);
    let no_entry = {
        // SAFETY: there is no such entry point, so nothing is started.
        unsafe { session.bridge_with::<_, FRAMES>("my_gateway", "link", &memory, GatewayConfig::default()) }
    };
    assert!(matches!(no_entry, Err(Error::NoEntry { asked, .. }) if asked == "my_gateway"));
    assert_eq!(memory.find("link"), None, "a bridge that was not built leaves nobody behind");
    // SAFETY: the library's gateway is of this session's shape, with links of so many frames.
    unsafe { session.bridge_with::<_, FRAMES>("k2k_gateway", "link", &memory, GatewayConfig::default()).unwrap() };
    assert!(memory.find("link").is_some());
    let broker = Broker::new(memory);
    let mut me = broker.register_parking("me").unwrap().with_wait(Wait::Yield);
    let mut running = session.start().unwrap();
    let echo = until("the echo", || broker.find("k2k_echo"));
    ask(&mut me, echo, 10);
    stop(&mut running);
}

#[test]
fn a_bridge_leaves_when_a_supervisor_tells_its_gateway_to() {
    let device = device();
    for command in [Command::Stop, Command::Drain] {
        let memory = Memory::<Fixed<2, 8, PAYLOAD>>::heap(&Config::default()).unwrap();
        let broker = Broker::new(memory.clone());
        let mut session = session(&device, &[]);
        session.bridge("gateway", &memory, GatewayConfig::default()).unwrap();
        let gateway = broker.find("gateway").unwrap();
        broker.command(gateway, command).unwrap();
        until("the end of the gateway", || (!broker.is_registered(gateway)).then_some(()));
    }
}

#[test]
fn a_bridge_that_cannot_be_built_says_why_and_may_be_tried_again() {
    let device = device();
    let memory = Memory::<Fixed<2, 8, PAYLOAD>>::heap(&Config::default()).unwrap();
    let broker = Broker::new(memory.clone());
    let mut session = session(&device, &["k2k_echo"]);
    let mut refused = |name: &str| match session.bridge(name, &memory, GatewayConfig::default()) {
        Err(Error::Bridge(why)) => why,
        other => panic!("{name}: {other:?}"),
    };

    let other = broker.register("other").unwrap();
    let why = refused("other");
    assert!(matches!(why, BridgeError::Register(RegisterError::NameInUse { by }) if by == other.id()), "{why}");
    let one_more = broker.register("one more").unwrap();
    let why = refused("gateway");
    assert!(matches!(why, BridgeError::Register(RegisterError::NoFreeIndex { kernels: 2, .. })), "{why}");
    let why = refused("");
    assert!(matches!(why, BridgeError::Name(_)), "{why}");
    let error = Error::from(why);
    assert_eq!(
        error.to_string(),
        "no bridge to the host's fabric: its gateway cannot be called that: a kernel's name has 1 to 32 bytes and no \
         NUL, not 0"
    );
    let bridge = error.source().unwrap();
    assert!(bridge.is::<BridgeError>() && bridge.source().is_some());

    // Both sides are as they were, so there is one gateway in the end.
    drop((other, one_more));
    session.bridge("gateway", &memory, GatewayConfig::default()).unwrap();
    let mut running = session.start().unwrap();
    assert_eq!(running.wait_ready(LONG).unwrap().len(), 2);
    stop(&mut running);
}
