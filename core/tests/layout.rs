//! The numbers that every program on a fabric must agree on, written out.

mod common;

use bytemuck::Zeroable;
use common::{Manual, fabric, register_all};
use core::mem::offset_of;
use k2k_core::LinkHalf;
use k2k_core::WakeFlag;
use k2k_core::fabric::{Event, FabricHeader, Failures, LAYOUT_VERSION, MAGIC, Status, TRACE_EVENTS, Trace};
use k2k_core::link::{LINK_MAGIC, LINK_VERSION, LinkHeader, LinkHeartbeat};
use k2k_core::ring::{Sharded, Spsc, Ticket};
use k2k_core::sync::{Gpu, Shared, System};
use k2k_core::{Command, Config, DeliveryStatus, Fabric, HIGH_BURST, Header, KernelId, Message, Phase, Priority};

#[test]
fn codes_that_stand_in_shared_memory_never_change() {
    use DeliveryStatus::*;
    assert_eq!(
        [Pending, Delivered, NotFound, QueueFull, Timeout, MaxHopsExceeded, Unanswered, NotAllowed].map(|s| s as u8),
        [1, 2, 3, 4, 5, 6, 7, 10]
    );
    let events = [Event::Sent, Event::Received, Event::Forwarded, Event::Deferred, Event::Failed, Event::Discarded];
    assert_eq!(events.map(|event| event as u8), [1, 2, 3, 4, 5, 6]);
    assert_eq!([Command::Run, Command::Pause, Command::Drain, Command::Stop].map(|c| c as u8), [0, 1, 2, 3]);
    let phases = [Phase::Idle, Phase::Running, Phase::Paused, Phase::Draining, Phase::Stopped, Phase::Failed];
    assert_eq!(phases.map(|phase| phase as u8), [0, 1, 2, 3, 4, 5]);
    let states = [Status::Free, Status::Registering, Status::Registered, Status::Leaving, Status::Failed];
    assert_eq!(states.map(|status| status as u8), [0, 1, 2, 3, 4]);
    assert_eq!([Priority::Normal, Priority::High].map(|priority| priority as u8), [0, 1]);
    assert_eq!((MAGIC, LAYOUT_VERSION), (0x6972_6261_664b_324b, 3));
    assert_eq!((TRACE_EVENTS, HIGH_BURST), (64, 16));
    assert_eq!(KernelId::new(0x1234, 0xabcd_ef01).raw(), 0xabcd_ef01_1234);
}

#[test]
fn a_header_is_what_a_stamp_leaves_of_a_line() {
    assert_eq!((size_of::<Header>(), align_of::<Header>()), (56, 8));
    let offsets = [
        offset_of!(Header, sequence),
        offset_of!(Header, correlation_id),
        offset_of!(Header, wall_time_ns),
        offset_of!(Header, deadline_ns),
        offset_of!(Header, source_generation),
        offset_of!(Header, destination_generation),
        offset_of!(Header, kind),
        offset_of!(Header, source_index),
        offset_of!(Header, destination_index),
        offset_of!(Header, payload_len),
        offset_of!(Header, logical),
        offset_of!(Header, flags),
        offset_of!(Header, hops),
        offset_of!(Header, hop_limit),
        offset_of!(Header, priority),
    ];
    assert_eq!(offsets, [0, 8, 16, 24, 32, 36, 40, 44, 46, 48, 50, 52, 53, 54, 55]);
    assert_eq!([size_of::<Message<0>>(), size_of::<Message<64>>(), size_of::<Message<192>>()], [56, 120, 248]);
    assert_eq!(offset_of!(Message<64>, header), 0);
}

#[test]
fn a_header_lies_in_memory_byte_by_byte_as_documented() {
    let header = Header {
        sequence: 0x0807_0605_0403_0201,
        correlation_id: 0x1817_1615_1413_1211,
        wall_time_ns: 0x2827_2625_2423_2221,
        deadline_ns: 0x3837_3635_3433_3231,
        source_generation: 0x4443_4241,
        destination_generation: 0x4847_4645,
        kind: 0x5453_5251,
        source_index: 0x5655,
        destination_index: 0x5857,
        payload_len: 0x6261,
        logical: 0x6463,
        flags: 0x65,
        hops: 0x66,
        hop_limit: 0x67,
        priority: 0x68,
    };
    let expected: Vec<u8> = (0..7u8).flat_map(|row| (1..=8).map(move |column| row << 4 | column)).collect();
    // Rows 4 to 6 hold the smaller fields: all little-endian, all in order.
    if cfg!(target_endian = "little") {
        assert_eq!(bytemuck::bytes_of(&header), expected);
    }
    assert_ne!(header, Header::zeroed());
}

#[test]
fn rings_have_the_sizes_that_every_side_expects() {
    assert_eq!((size_of::<Spsc<u64, 64>>(), align_of::<Spsc<u64, 64>>()), (1280, 128));
    assert_eq!((size_of::<Ticket<u64, 64>>(), align_of::<Ticket<u64, 64>>()), (1280, 128));
    assert_eq!(align_of::<Sharded<u64, 4, 64>>(), 128);
}

#[test]
fn a_fabric_has_the_size_that_every_side_expects() {
    assert_eq!((size_of::<FabricHeader>(), align_of::<FabricHeader>()), (128, 128));
    assert_eq!((size_of::<Trace>(), align_of::<Trace>()), (64 * 48, 128));
    assert_eq!((size_of::<Failures>(), align_of::<Failures>()), (640, 128));
    assert_eq!((size_of::<WakeFlag>(), align_of::<WakeFlag>()), (64, 64));
    assert_eq!(align_of::<Fabric<4, 8, 64>>(), 128);
    assert_eq!(
        [size_of::<Fabric<1, 1, 0>>(), size_of::<Fabric<4, 8, 64>>(), size_of::<Fabric<16, 64, 192>>()],
        [5_504 + 1_920, 53_120 + 4 * 1_920, 5_660_800 + 16 * 1_920]
    );
}

/// Each number stands for all offsets of a type, so that a host and a device can compare a word. Scopes change nothing.
#[test]
fn layouts_have_the_numbers_that_every_side_expects() {
    assert_eq!(Spsc::<[u64; 7], 64, System>::LAYOUT, Spsc::<[u64; 7], 64, Gpu>::LAYOUT);
    assert_eq!(Fabric::<4, 8, 64, System>::LAYOUT, Fabric::<4, 8, 64, Gpu>::LAYOUT);
    let numbers = [
        Header::LAYOUT,
        Spsc::<u64, 64>::LAYOUT,
        Spsc::<u64, 128>::LAYOUT,
        Sharded::<u64, 4, 64>::LAYOUT,
        Ticket::<u64, 64>::LAYOUT,
        Fabric::<4, 8, 64>::LAYOUT,
        Fabric::<4, 8, 128>::LAYOUT,
    ];
    for (i, number) in numbers.iter().enumerate() {
        assert!(!numbers[..i].contains(number), "two types have the same number");
    }
}

#[test]
fn half_of_a_link_has_the_size_that_both_sides_expect() {
    assert_eq!((LINK_MAGIC, LINK_VERSION), (0x306b_6e69_6c4b_324b, 2));
    assert_eq!((size_of::<LinkHeader>(), size_of::<LinkHeartbeat>()), (128, 128));
    assert_eq!((align_of::<LinkHeader>(), align_of::<LinkHeartbeat>()), (128, 128));
    assert_eq!((size_of::<LinkHalf<4, 0>>(), align_of::<LinkHalf<4, 0>>()), (640, 128));
    assert_eq!([size_of::<LinkHalf<4, 64>>(), size_of::<LinkHalf<256, 192>>()], [896, 65_920]);
}

/// The message of a slot stands where another program looks for it.
#[test]
fn a_sent_message_can_be_found_in_the_bytes_of_the_fabric() {
    let platform = Manual::at(1_000);
    let fabric = fabric::<2, 4, 64>(&Config::default());
    let mut kernels = register_all(&fabric, &platform, 2);
    let to = kernels[1].id();
    kernels[0].send(to, &Message::from_bytes(0x0102_0304, b"look for me").unwrap()).unwrap();
    let received = kernels[1].try_receive().unwrap();
    // SAFETY: `Message<64>` has no padding.
    let bytes: [u8; 120] = unsafe { core::mem::transmute(received) };
    assert_eq!(bytes[56..67], *b"look for me");
    assert_eq!(received.header.kind.to_le_bytes(), [4, 3, 2, 1]);
}

/// A supervisor in another program reads and writes the kernel table at these places; see `backend-cuda/tests`.
#[test]
fn a_kernels_entry_can_be_found_in_the_bytes_of_the_fabric() {
    let platform = Manual::at(1_000);
    let fabric = fabric::<2, 4, 64>(&Config::default());
    assert_eq!(fabric.handle().table_bytes(), 0..128 + 2 * 384);
    let mut kernels = register_all(&fabric, &platform, 2);
    let [a, b] = [0, 1].map(|i| kernels[i].id());
    kernels[1].heartbeat();
    kernels[1].set_phase(Phase::Running);
    kernels[1].send(a, &Message::new(1)).unwrap();
    fabric.command(b, Command::Drain, &platform).unwrap();
    fabric.set_route(a, b, a).unwrap();
    let word = |at: usize| {
        // SAFETY: inside of the fabric; nobody uses it now.
        unsafe { core::ptr::from_ref(&*fabric).cast::<u8>().add(at).cast::<u64>().read() }
    };
    let entry = 128 + 384;
    assert_eq!(word(entry), 1 << 32 | Status::Registered as u64, "state");
    assert_eq!(word(entry + 8), u64::from_le_bytes(*b"k1\0\0\0\0\0\0"), "name");
    assert_eq!(word(entry + 40), 1, "owner");
    assert_eq!(word(entry + 128), 1 << 32 | Command::Drain as u64, "command");
    assert_eq!(word(entry + 136), 1, "heartbeat");
    assert_eq!(word(entry + 144), Phase::Running as u64, "phase");
    assert_eq!(word(entry + 256), 1, "the first counter: sent");
    assert_eq!(word(128 + 2 * 384 + 8), 0x0101 << 48 | 1 << 16, "the route from 0 to 1, marked with both generations");
    assert_eq!(core::mem::align_of_val(&*fabric), 128);
}
