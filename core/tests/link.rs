//! Halves of a link: what is wrong with those that are not, and what a gateway makes of a side that lies.
#![allow(clippy::incompatible_msrv, reason = "the declared version is that of the library; tests use the newest")]

mod common;

use common::{Manual, fabric};
use core::mem::offset_of;
use k2k_core::gateway::{Gateway, GatewayConfig};
use k2k_core::link::{FixedFrames, Frames, HalfRef, LINK_MAGIC, LINK_VERSION, LinkError, LinkGeometry, ReadFrames};
use k2k_core::{Config, DeliveryStatus, Fabric, Header, KernelId, LinkEnd, LinkHalf, Message, Priority, Registration};
use proptest::prelude::*;

const FRAMES: usize = 8;
type Half = LinkHalf<FRAMES, 64>;
const SIZE: usize = size_of::<Half>();

/// Memory for a half, which is read and written behind its back.
struct Memory(Box<Bytes>);

#[repr(C, align(128))]
struct Bytes(core::cell::UnsafeCell<[u8; SIZE + 128]>);

impl Memory {
    fn zeroed() -> Self {
        // SAFETY: an array of bytes.
        Self(unsafe { Box::<Bytes>::new_zeroed().assume_init() })
    }

    fn base(&self) -> *mut u8 {
        self.0.0.get().cast()
    }

    fn half(&self) -> &Half {
        // SAFETY: valid for as long as `self`; other accesses are `poke`'s, between the half's own.
        unsafe { Half::attach_raw(self.base(), SIZE) }.unwrap()
    }

    fn poke<T: bytemuck::Pod>(&self, at: usize, value: T) {
        assert!(at + size_of::<T>() <= SIZE);
        // SAFETY: inside, one thread.
        unsafe { self.base().add(at).cast::<T>().write_volatile(value) };
    }
}

/// The two halves of each link of these tests make one link.
fn open_end<'l, const N: usize>(
    near: &'l LinkHalf<N, 64>,
    far: &'l LinkHalf<N, 64>,
) -> Result<LinkEnd<'l, FixedFrames<N, 64>>, LinkError> {
    // SAFETY: see above.
    unsafe { LinkEnd::open(near.handle(), far.handle()) }
}

/// Where the header's words stand, as both sides must have them.
#[derive(Clone, Copy)]
#[repr(C)]
#[allow(dead_code, reason = "for its offsets")]
struct LinkHeader {
    magic: u64,
    version: u32,
    frames: u32,
    payload: u32,
    claimed: u32,
    size: u64,
    taken: u64,
}

const HEARTBEAT: usize = 128;
const CREDIT: usize = 256;
const SLOTS: usize = 384;
const SLOT: usize = 128;

#[test]
fn a_half_is_set_up_once_and_found_afterwards() {
    let memory = Memory::zeroed();
    assert_eq!(memory.half().check(), Err(LinkError::NotSetUp));
    assert_eq!(memory.half().set_up(), Ok(()));
    assert_eq!((memory.half().set_up(), memory.half().check()), (Ok(()), Ok(())));
    assert_eq!((LINK_MAGIC, LINK_VERSION), (u64::from_le_bytes(*b"K2Klink0"), 2));
    memory.poke(offset_of!(LinkHeader, magic), u64::from_le_bytes(*b"K2Kbegun"));
    assert_eq!(memory.half().set_up(), Err(LinkError::NotSetUp), "somebody is at it");
}

/// Whoever opens a half says of which shape it is, or how large it may be: it is opened as what its header says.
#[test]
fn a_half_of_another_shape_is_not_opened() {
    fn open<F: Frames>(memory: &Memory, len: usize) -> Result<F, LinkError> {
        // SAFETY: of this size, and all of it is behind cells.
        unsafe { HalfRef::<F>::open_raw(memory.base(), len) }.map(|half| half.frames())
    }
    let memory = Memory::zeroed();
    assert!(matches!(open::<FixedFrames<FRAMES, 64>>(&memory, SIZE), Err(LinkError::NotSetUp)));
    memory.half().set_up().unwrap();
    assert_eq!(open::<FixedFrames<FRAMES, 64>>(&memory, SIZE).unwrap().payload(), 64);
    assert_eq!(open::<ReadFrames<FRAMES, 192>>(&memory, SIZE).unwrap().payload(), 64);
    let found = LinkGeometry { frames: 8, payload: 64, size: SIZE as u64 };
    let refused = |error: Option<LinkError>| matches!(error, Some(LinkError::Geometry { found: f, expected }) if f == found && expected != found);
    assert!(refused(open::<FixedFrames<FRAMES, 0>>(&memory, SIZE).err()));
    assert!(refused(open::<FixedFrames<{ FRAMES / 2 }, 64>>(&memory, SIZE).err()));
    assert!(refused(open::<FixedFrames<{ 2 * FRAMES }, 64>>(&memory, SIZE).err()));
    assert!(refused(open::<ReadFrames<FRAMES, 0>>(&memory, SIZE).err()));
    assert!(refused(open::<ReadFrames<{ FRAMES / 2 }, 64>>(&memory, SIZE).err()));
}

#[test]
fn what_is_wrong_with_a_half_is_named() {
    let memory = Memory::zeroed();
    let base = memory.base();
    // SAFETY: refused before it is looked at.
    unsafe {
        let found = SIZE - 1;
        assert_eq!(Half::attach_raw(base, found).err(), Some(LinkError::TooSmall { found, expected: SIZE }));
        let misaligned = LinkError::Misaligned { remainder: 8, expected: 128 };
        assert_eq!(Half::attach_raw(base.add(8), SIZE).err(), Some(misaligned));
    }
    memory.half().set_up().unwrap();
    memory.poke(offset_of!(LinkHeader, version), 9u32);
    assert_eq!(memory.half().check(), Err(LinkError::Version { found: 9, expected: LINK_VERSION }));
    memory.poke(offset_of!(LinkHeader, version), LINK_VERSION);
    memory.poke(offset_of!(LinkHeader, frames), 16u32);
    let expected = LinkGeometry { frames: 8, payload: 64, size: SIZE as u64 };
    let error = LinkError::Geometry { found: LinkGeometry { frames: 16, ..expected }, expected };
    assert_eq!(memory.half().check(), Err(error));
    assert!(error.to_string().contains("16 frames of 64 bytes"), "{error}");
    memory.poke(offset_of!(LinkHeader, magic), 77u64);
    assert_eq!(memory.half().set_up(), Err(LinkError::Magic { found: 77 }));
    for error in [LinkError::NotSetUp, LinkError::InUse, LinkError::SameHalf, LinkError::Magic { found: 1 }] {
        assert!(!error.to_string().is_empty());
    }
}

#[test]
fn an_end_is_opened_by_one_at_a_time() {
    let (near, far) = (Memory::zeroed(), Memory::zeroed());
    near.half().set_up().unwrap();
    assert_eq!(open_end(near.half(), far.half()).err(), Some(LinkError::NotSetUp));
    far.half().set_up().unwrap();
    assert_eq!(open_end(near.half(), near.half()).err(), Some(LinkError::SameHalf));
    let end = open_end(near.half(), far.half()).unwrap();
    assert_eq!(open_end(near.half(), far.half()).err(), Some(LinkError::InUse));
    let other = open_end(far.half(), near.half()).unwrap();
    drop(end);
    assert!(open_end(near.half(), far.half()).is_ok());
    core::mem::forget(other);
    // SAFETY: it was forgotten.
    assert!(unsafe { LinkEnd::recover(far.half().handle(), near.half().handle()) }.is_ok());
}

/// What the remote side writes, whatever that is.
#[derive(Clone, Debug)]
enum Lie {
    Frame { fields: Header, payload: u8 },
    Credit(u64),
    Beat,
    Word { at: usize, value: u64 },
}

#[derive(Clone, Debug)]
enum Step {
    Lie(Lie),
    Pass,
    Send { to: usize, high: bool },
    Receive(usize),
    Advance(u64),
    Leave(usize),
}

/// Numbers of which some mean something.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![4 => 0..12u64, 1 => Just(u64::MAX), 1 => any::<u64>(), 1 => (0..64u32).prop_map(|bit| 1 << bit)]
}

fn address() -> impl Strategy<Value = KernelId> {
    prop_oneof![
        8 => (0..6u16, 0..4u32).prop_map(|(index, generation)| KernelId::new(index, generation)),
        1 => any::<u64>().prop_map(KernelId::from_raw),
    ]
}

fn frame() -> impl Strategy<Value = Header> {
    let kind = prop_oneof![4 => 0..2u8, 8 => 16..22u8, 1 => any::<u8>()];
    let name = prop_oneof![Just(u64::from(b'a')), Just(u64::from(b'x')), Just(u64::from(b'y')), number()];
    let small = (prop_oneof![8 => 0..9u16, 1 => any::<u16>()], number(), number());
    (kind, (name, number(), number(), number()), (address(), address()), prop_oneof![0..8u32, any::<u32>()], small)
        .prop_map(
            |(priority, (sequence, correlation_id, wall_time_ns, deadline_ns), (source, destination), kind, small)| {
                let (logical, payload_len, limits) = small;
                Header {
                    sequence,
                    correlation_id,
                    wall_time_ns,
                    deadline_ns,
                    source_generation: source.generation(),
                    destination_generation: destination.generation(),
                    kind,
                    source_index: source.index() as u16,
                    destination_index: destination.index() as u16,
                    payload_len: payload_len as u16,
                    logical,
                    flags: 0,
                    hops: limits as u8,
                    hop_limit: (limits >> 8) as u8 | 4,
                    priority,
                }
            },
        )
}

fn step() -> impl Strategy<Value = Step> {
    let lie = prop_oneof![
        12 => (frame(), any::<u8>()).prop_map(|(fields, payload)| Lie::Frame { fields, payload }),
        2 => number().prop_map(Lie::Credit),
        2 => Just(Lie::Beat),
        2 => (HEARTBEAT / 8..SIZE / 8, number()).prop_map(|(at, value)| Lie::Word { at: at * 8, value }),
    ];
    prop_oneof![
        10 => lie.prop_map(Step::Lie),
        10 => Just(Step::Pass),
        3 => (0..6usize, any::<bool>()).prop_map(|(to, high)| Step::Send { to, high }),
        3 => (0..2usize).prop_map(Step::Receive),
        2 => (0..2_000u64).prop_map(Step::Advance),
        1 => (0..2usize).prop_map(Step::Leave),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 2 } else { 400 }))]

    /// Rule: no content of the link causes a panic, an endless loop, or a count that does not add up in this domain.
    #[test]
    fn a_side_that_lies_is_survived(steps in proptest::collection::vec(step(), 0..if cfg!(miri) { 40 } else { 300 })) {
        let (near, far) = (Memory::zeroed(), Memory::zeroed());
        near.half().set_up().unwrap();
        far.half().set_up().unwrap();
        let config = Config { delivery_timeout_ns: 1_000, hop_limit: 4, ..Config::default() };
        let platform = Manual::at(10_000);
        let fabric: Box<Fabric<6, 4, 64>> = fabric(&config);
        let register = |name: &str| fabric.register(&Registration::new(name).unwrap(), &platform);
        let end = open_end(near.half(), far.half()).unwrap();
        let config = GatewayConfig { silence_ns: 500_000, grace_ns: 200_000, export_all: true };
        let mut gateway = Gateway::new(register("gateway").unwrap(), end, config);
        let mut kernels = [register("a").ok(), register("b").ok()];
        let (mut tail, mut heartbeat) = (0u64, 0u64);
        let mut own = Vec::new();
        for step in steps {
            match step {
                Step::Lie(Lie::Frame { fields, payload }) => {
                    let at = SLOTS + (tail as usize % FRAMES) * SLOT;
                    near.poke(at + 64, [payload; 64]);
                    near.poke(at + 8, fields);
                    tail += 1;
                    near.poke(at, tail);
                }
                Step::Lie(Lie::Credit(position)) => near.poke(CREDIT, position),
                Step::Lie(Lie::Beat) => {
                    heartbeat += 1;
                    near.poke(HEARTBEAT, heartbeat);
                }
                Step::Lie(Lie::Word { at, value }) => near.poke(at, value),
                Step::Pass => {
                    gateway.pass();
                }
                Step::Send { to, high } => {
                    let to = fabric.kernels().map(|(id, _)| id).nth(to);
                    if let (Some(kernel), Some(to)) = (&mut kernels[0], to) {
                        let priority = if high { Priority::High } else { Priority::Normal };
                        own.extend(kernel.send_priority(to, &Message::new(1), priority));
                    }
                }
                Step::Receive(at) => {
                    if let Some(kernel) = &mut kernels[at] && let Some(message) = kernel.try_receive() {
                        prop_assert_eq!(message.header.check(64), Ok(()));
                        prop_assert_eq!(message.header.destination(), kernel.id());
                        // Not with the message itself: its deadline may be years away, and the reply would wait as long.
                        own.extend(kernel.reply(&message, &Message::new(1)));
                    }
                }
                Step::Advance(ns) => platform.advance(ns),
                Step::Leave(at) => kernels[at] = match kernels[at].take() {
                    Some(_) => None,
                    None => register(["a", "b"][at]).ok(),
                },
            }
        }
        // What the remote side has sent may be counted twice, or pending, since its numbers and its deadlines are its
        // own: also at an index that one of this domain's kernels has now. This domain's own messages may not.
        platform.advance(1_000_000);
        for _ in 0..64 {
            gateway.pass();
            for kernel in kernels.iter_mut().flatten() {
                while kernel.try_receive().is_some() {}
                kernel.expire();
            }
        }
        for id in own {
            let ended = fabric.receipt(id, &&platform);
            prop_assert!(ended.is_err() || ended.is_ok_and(|receipt| receipt.status != DeliveryStatus::Pending), "{:?}", ended);
        }
        drop(gateway);
        drop(kernels);
        prop_assert_eq!(fabric.kernels().count(), 0);
    }
}

/// A frame as the remote side writes it, by hand.
#[test]
fn a_frame_written_by_hand_is_understood() {
    let (near, far) = (Memory::zeroed(), Memory::zeroed());
    near.half().set_up().unwrap();
    far.half().set_up().unwrap();
    let platform = Manual::at(10_000);
    let fabric: Box<Fabric<4, 4, 64>> = fabric(&Config::default());
    let mut kernel = fabric.register(&Registration::new("k").unwrap(), &platform).unwrap();
    let endpoint = fabric.register(&Registration::new("gateway").unwrap(), &platform).unwrap();
    let end = open_end(near.half(), far.half()).unwrap();
    let mut gateway = Gateway::new(endpoint, end, GatewayConfig::default());
    let blank: Header = bytemuck::Zeroable::zeroed();
    let remote = KernelId::new(300, 7 << 16);
    let from = |mut header: Header| {
        header.set_source(remote);
        header
    };
    let frames = [
        // Hello, announce "r", and a message with number 5.
        Header { priority: 16, kind: 1, ..blank },
        from(Header { priority: 18, sequence: u64::from(b'r'), ..blank }),
        from(Header {
            sequence: 1 << 40,
            deadline_ns: 20_000,
            destination_index: kernel.id().index() as u16,
            destination_generation: kernel.id().generation(),
            kind: 3,
            payload_len: 2,
            logical: 5,
            hops: 1,
            hop_limit: 2,
            ..blank
        }),
    ];
    for (frame, header) in frames.into_iter().enumerate() {
        let at = SLOTS + frame * SLOT;
        near.poke(at + 64, [b'h', b'i']);
        near.poke(at + 8, header);
        near.poke(at, frame as u64 + 1);
    }
    gateway.pass();
    assert_eq!(gateway.proxies().map(|(_, remote)| remote).collect::<Vec<_>>(), [remote]);
    let message = kernel.try_receive().expect("placed");
    assert_eq!((message.payload(), message.header.sequence, message.header.kind), (&b"hi"[..], 1 << 32, 3));
    assert_eq!(Some(message.header.source()), fabric.find("r"));
    gateway.pass();
    assert_eq!((gateway.in_flight(), gateway.stats().rejected), ((0, 0), 0));
    // The answer stands in the remote side's half, behind this side's hello and announcements.
    // SAFETY: one thread.
    let answers = (0..FRAMES).map(|i| unsafe { far.base().add(SLOTS + i * SLOT + 8).cast::<Header>().read_volatile() });
    let answer = answers.into_iter().find(|header| header.priority == 21).expect("answered");
    assert_eq!((answer.source(), answer.sequence, answer.logical), (remote, 1 << 40, 5));
    assert_eq!(answer.kind, DeliveryStatus::Delivered as u32);
}
