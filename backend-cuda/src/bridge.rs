//! A link between a host's fabric and the fabric of a session, with a gateway at each end.
//!
//! ```text
//!       host's fabric                pinned, mapped host memory                 device's fabric
//!   +------------------+     +--------------------------------------+      +------------------+
//!   | kernels, proxies |<--->| host's half       <-- frames --      |<---->| proxies, kernels |
//!   |    gateway:      |     |    -- frames -->      device's half  |      |    gateway:      |
//!   |    a thread      |     +--------------------------------------+      |    a block       |
//!   +------------------+                                                   +------------------+
//! ```
//!
//! Both halves lie in host memory, where both sides reach them without anything but the driver: the device's reads of
//! its half cross the bus.

use crate::buffer::HostBuffer;
use crate::device::Device;
use crate::error::{BridgeError, Error};
use core::time::Duration;
use k2k::process::Own;
use k2k::{Host, Memory};
use k2k_core::gateway::{Gateway, GatewayConfig, GatewayStats};
use k2k_core::link::{Frames, HalfRef, LinkEnd, LinkError};
use k2k_core::sync::Ordering::{Acquire, Release};
use k2k_core::sync::{AtomicU32, System, spin_hint};
use k2k_core::{Backlog, Command, Platform, Registration, Shape};
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::Instant;

/// Passes that find nothing before the host's gateway yields its processor, and before it naps.
const SPINS: u32 = 2_000;
const YIELDS: u32 = 20_000;
/// How long it naps, at first and at most: what an idle link costs is a look every so often.
const SHORT_NAP: Duration = Duration::from_micros(50);
const LONG_NAP: Duration = Duration::from_millis(1);
/// How long a gateway that is told to stop waits for what is on its way.
const LEAVE: Duration = Duration::from_millis(500);

/// The two halves of a link, in host memory that the device sees: this side's first.
pub(crate) struct Halves {
    buffer: HostBuffer,
    /// Length of a half, bytes.
    len: usize,
}

impl Halves {
    /// Allocates both, for these frames, and sets them up, before the remote side runs.
    pub(crate) fn new(device: &Device, frames: impl Frames) -> Result<Self, Error> {
        let len = frames.geometry().size as usize;
        let halves = Self { buffer: device.allocate_host(2 * len)?, len };
        for i in 0..2 {
            // SAFETY: as in `half`.
            let half = unsafe { HalfRef::attach_raw(halves.at(i), len, frames) };
            half.and_then(|half| half.set_up()).map_err(BridgeError::Link)?;
        }
        Ok(halves)
    }

    fn at(&self, i: usize) -> *mut u8 {
        self.buffer.as_ptr().wrapping_add(i * self.len)
    }

    /// A half, as gateways of the host see it.
    fn half<F: Frames>(&self, i: usize) -> Result<HalfRef<'_, F>, LinkError> {
        // SAFETY: the buffer has room for two halves, and lives as long as `self`. The device reaches it as the remote
        // side of the link.
        unsafe { HalfRef::open_raw(self.at(i), self.len) }
    }

    /// Addresses for the device: of its own half, of the host's.
    pub(crate) const fn addresses(&self) -> [u64; 2] {
        [self.buffer.address() + self.len as u64, self.buffer.address()]
    }
}

/// What a bridge's thread is told.
const RUN: u32 = 0;
const STOP: u32 = 1;

/// The host's end of a bridge: a thread that runs the gateway. Dropping it stops the thread, as does a supervisor that
/// commands the gateway, a kernel of the host's fabric, to stop or to drain.
#[derive(Debug)]
pub struct Bridge {
    word: Arc<AtomicU32>,
    thread: Option<Own<JoinHandle<GatewayStats>>>,
}

impl Bridge {
    /// Registers the gateway and starts its thread.
    pub(crate) fn start<Sh: Shape<Scope = System>, const FRAMES: usize>(
        name: &str,
        memory: &Memory<Sh>,
        halves: Arc<Halves>,
        config: GatewayConfig,
    ) -> Result<Self, BridgeError> {
        let who = Registration::new(name).map_err(BridgeError::Name)?;
        let word = Arc::new(AtomicU32::new(RUN));
        let (told, memory) = (Arc::clone(&word), memory.clone());
        let (ready, started) = mpsc::sync_channel(1);
        let thread = thread::Builder::new().name(format!("k2k {name}")).spawn(move || {
            let host = Host::in_domain(memory.fabric().config().domain);
            // SAFETY: a link of this bridge alone, whose other end the device's gateway opens.
            let link = halves.half(0).and_then(|near| unsafe { LinkEnd::open(near, halves.half(1)?) });
            let opened = link.map_err(BridgeError::Link).and_then(|link| {
                let endpoint = memory.fabric().register(&who, &host).map_err(BridgeError::Register)?;
                Ok((link, endpoint))
            });
            let (link, endpoint) = match opened {
                Ok(opened) => opened,
                Err(e) => {
                    let _ = ready.send(Err(e));
                    return GatewayStats::default();
                }
            };
            // Large, and only ever used in place.
            let mut place = Box::new(core::mem::MaybeUninit::uninit());
            let gateway = Gateway::<_, _, FRAMES>::new_in(&mut place, endpoint, link, config);
            let _ = ready.send(Ok(()));
            serve(gateway, &told);
            let stats = gateway.stats();
            // SAFETY: written by `new_in`, used by nobody any more. It takes its leave.
            unsafe { core::ptr::drop_in_place(gateway) };
            stats
        });
        let thread = thread.map_err(BridgeError::NoThread)?;
        let bridge = Self { word, thread: Some(Own::new(thread)) };
        match started.recv() {
            Ok(Ok(())) => Ok(bridge),
            Ok(Err(e)) => Err(e),
            Err(_) => Err(BridgeError::ThreadEnded),
        }
    }

    /// Stops the thread, and says what the gateway did. It waits half a second for messages that are on their way.
    pub(crate) fn stop(&mut self) -> GatewayStats {
        // Release [bridge-stopped]: nothing but the word itself.
        self.word.store(STOP, Release);
        self.thread.take().and_then(Own::into_inner).and_then(|thread| thread.join().ok()).unwrap_or_default()
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        self.stop();
    }
}

fn serve<Sh: Shape, const FRAMES: usize>(
    gateway: &mut Gateway<'_, impl Platform + Clone, Sh, FRAMES>,
    word: &AtomicU32,
) {
    let mut idle = 0u32;
    let mut nap = SHORT_NAP;
    let mut leaving: Option<Instant> = None;
    let mut moved = (0, 0);
    loop {
        // A supervisor of the host's fabric may command the gateway as any other kernel.
        let command = gateway.endpoint().command();
        // Acquire [bridge-stopped]: nothing but the word itself.
        let stops = word.load(Acquire) == STOP || command == Command::Stop;
        if stops || command == Command::Drain {
            let done = gateway.in_flight() == (0, 0) && gateway.endpoint().backlog() == Backlog::None;
            let waited = stops && leaving.get_or_insert_with(Instant::now).elapsed() > LEAVE;
            if done || waited || !gateway.is_connected() {
                return;
            }
        }
        if gateway.pass() {
            let stats = gateway.stats();
            if moved != (stats.sent, stats.received) || gateway.in_flight() != (0, 0) {
                moved = (stats.sent, stats.received);
                (idle, nap) = (0, SHORT_NAP);
            }
            // If not, it said who is there, as it does from time to time: nothing that more will follow.
            continue;
        }
        idle = idle.saturating_add(1);
        match idle {
            0..SPINS => spin_hint(),
            SPINS..YIELDS => thread::yield_now(),
            _ => {
                thread::sleep(nap);
                nap = (nap * 2).min(LONG_NAP);
            }
        }
    }
}
