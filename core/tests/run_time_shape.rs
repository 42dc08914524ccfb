//! The tests of other files once more, with kernels that have read the fabric's shape from its header; and what is of run-time
//! shapes alone.

#![allow(clippy::duplicate_mod, reason = "the shape that `common` chooses is another for each")]

#[path = "endpoint.rs"]
mod endpoint;
#[path = "fairness.rs"]
mod fairness;
#[path = "gateway.rs"]
mod gateway;
#[path = "kernel_loop.rs"]
mod kernel_loop;
#[path = "recovery.rs"]
mod recovery;
#[path = "routing.rs"]
mod routing;
#[path = "statuses.rs"]
mod statuses;

use k2k_core::fabric::{AttachError, FabricHeader};
use k2k_core::gateway::GatewayConfig;
use k2k_core::link::{Frames, HalfRef, LinkError, LinkGeometry, ReadFrames};
use k2k_core::{
    Config, DeliveryStatus, Fabric, FabricRef, Fixed, Gateway, LinkEnd, LinkHalf, Message, Platform, Read,
    Registration, Shape, WakeFlag,
};
use proptest::prelude::*;

#[derive(Clone)]
struct Still;

impl Platform for Still {
    fn now_ns(&self) -> u64 {
        1
    }

    fn wake(&self, _: &WakeFlag) {}
}

/// Zeroed bytes where a fabric may begin.
struct Bytes(Vec<u128>, usize);

impl Bytes {
    fn new(len: usize) -> Self {
        Self(vec![0; (len + 128).div_ceil(16)], len)
    }

    fn get(&mut self) -> &mut [u8] {
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(&mut self.0);
        let start = bytes.as_ptr().align_offset(128);
        &mut bytes[start..start + self.1]
    }
}

fn who(name: &str) -> Registration {
    Registration::new(name).expect("short")
}

#[test]
fn kernels_of_both_kinds_of_shape_talk_in_one_fabric() {
    let mut bytes = Bytes::new(Fabric::<3, 16, 192>::GEOMETRY.size as usize);
    let bytes = bytes.get();
    let (base, len) = (bytes.as_mut_ptr(), bytes.len());
    // SAFETY: nothing else accesses the bytes.
    let fixed = unsafe { Fabric::<3, 16, 192>::attach_raw(base, len, &Config::default()) }.unwrap();
    // SAFETY: as above.
    let read = unsafe { FabricRef::<Read<8, 1024>>::open_raw(base, len) }.unwrap();
    assert_eq!(read.geometry(), Fabric::<3, 16, 192>::GEOMETRY);
    let mut a = fixed.register(&who("a"), Still).unwrap();
    let mut b = read.register(&who("b"), Still).unwrap();
    let (mut message, mut answer) = (Message::<192>::new(1), Message::<1024>::new(2));
    for len in [0, 1, 56, 57, 120, 121, 184, 192] {
        message.payload_mut(len).unwrap().fill(len as u8);
        a.send(b.id(), &message).unwrap();
        let request = b.try_receive().unwrap();
        assert_eq!((request.payload(), request.header.kind), (message.payload(), 1));
        answer.set_payload(request.payload()).unwrap();
        b.reply(&request, &answer).unwrap();
        assert_eq!(a.try_receive().unwrap().payload(), message.payload());
    }
    answer.payload_mut(193).unwrap();
    let refused = b.send(a.id(), &answer).unwrap_err().to_string();
    assert!(refused.contains("193") && refused.contains("192"), "{refused}");
    drop((a, b));
    assert_eq!((fixed.total_stats(), fixed.pending()), (read.total_stats(), 0));
}

#[test]
fn a_type_that_is_too_small_for_the_shape_is_refused_with_all_numbers() {
    let shape = Read::<8, 256>::new(5, 4, 128).unwrap();
    let mut bytes = Bytes::new(shape.size());
    FabricRef::create(bytes.get(), shape, &Config::default()).unwrap();
    assert!(FabricRef::<Read<5, 128>>::open(bytes.get()).is_ok());
    assert!(FabricRef::<Fixed<5, 4, 128>>::open(bytes.get()).is_ok());
    let refused = FabricRef::<Read<4, 128>>::open(bytes.get()).unwrap_err();
    assert!(matches!(refused, AttachError::Shape { kernels: 5, most_kernels: 4, .. }), "{refused}");
    let refused = FabricRef::<Read<5, 64>>::open(bytes.get()).unwrap_err();
    assert!(matches!(refused, AttachError::Shape { payload: 128, most_payload: 64, .. }), "{refused}");
    let refused = FabricRef::<Fixed<5, 4, 64>>::open(bytes.get()).unwrap_err();
    assert!(matches!(refused, AttachError::Geometry { .. }), "{refused}");
    let short = shape.size() - 1;
    let refused = FabricRef::<Read<8, 256>>::open(&mut bytes.get()[..short]).unwrap_err();
    assert_eq!(refused, AttachError::TooSmall { found: short, expected: shape.size() });
    for (kernels, slots, payload) in [(0, 4, 64), (9, 4, 64), (2, 3, 64), (2, 0, 64), (2, 4, 63), (2, 4, 320)] {
        assert!(Read::<8, 256>::new(kernels, slots, payload).is_err());
    }
}

/// Half of a link in zeroed bytes, which hold two.
fn half(bytes: &mut Bytes, number: usize, payload: usize) -> HalfRef<'_, ReadFrames<8, 256>> {
    let frames = ReadFrames::new(payload).unwrap();
    let len = frames.geometry().size as usize;
    // SAFETY: nothing else accesses this half of the bytes.
    unsafe { HalfRef::attach_raw(bytes.get()[number * len..].as_mut_ptr(), len, frames) }.unwrap()
}

#[test]
fn half_of_a_link_is_found_by_its_header_and_refused_with_all_numbers() {
    let mut bytes = Bytes::new(2 * LinkHalf::<8, 128>::GEOMETRY.size as usize);
    let found = half(&mut bytes, 0, 128);
    found.set_up().unwrap();
    assert_eq!(found.frames().geometry(), LinkHalf::<8, 128>::GEOMETRY);
    let (base, len) = (bytes.get().as_mut_ptr(), bytes.get().len());
    // SAFETY: nothing else accesses the bytes.
    let open = unsafe { HalfRef::<ReadFrames<8, 256>>::open_raw(base, len) }.unwrap();
    assert_eq!(open.frames().payload(), 128);
    // SAFETY: as above.
    assert!(unsafe { LinkHalf::<8, 128>::attach_raw(base, len) }.unwrap().check().is_ok());
    // SAFETY: as above.
    let refused = unsafe { HalfRef::<ReadFrames<8, 64>>::open_raw(base, len) }.unwrap_err();
    let [found, expected] = [LinkHalf::<8, 128>::GEOMETRY, LinkHalf::<8, 64>::GEOMETRY];
    assert_eq!(refused, LinkError::Geometry { found, expected });
    // SAFETY: as above.
    let refused = unsafe { HalfRef::<ReadFrames<16, 256>>::open_raw(base, len) }.unwrap_err();
    assert!(matches!(refused, LinkError::Geometry { expected: LinkGeometry { frames: 16, .. }, .. }), "{refused}");
    let size = LinkHalf::<8, 128>::GEOMETRY.size as usize;
    // SAFETY: as above.
    let refused = unsafe { HalfRef::<ReadFrames<8, 256>>::open_raw(base, size - 1) }.unwrap_err();
    assert_eq!(refused, LinkError::TooSmall { found: size - 1, expected: size });
    for payload in [1, 63, 320, usize::MAX] {
        assert!(ReadFrames::<8, 256>::new(payload).is_err(), "{payload}");
    }
}

/// The longest messages of the two fabrics and of the link differ: what fits everywhere crosses, the rest is refused.
#[test]
fn a_message_crosses_if_link_and_remote_fabric_carry_its_payload() {
    let mut memory = [256, 64].map(|payload| {
        let shape = Read::<4, 256>::new(4, 8, payload).unwrap();
        (Bytes::new(shape.size()), shape)
    });
    let [near, far] = memory
        .each_mut()
        .map(|(bytes, shape)| FabricRef::create(bytes.get(), *shape, &Config::default()).expect("zeroed"));
    let mut halves = [(); 2].map(|()| Bytes::new(LinkHalf::<8, 128>::GEOMETRY.size as usize));
    let [left, right] = halves.each_mut().map(|bytes| half(bytes, 0, 128));
    left.set_up().and(right.set_up()).unwrap();
    let mut sides = [(near, left, right), (far, right, left)].map(|(fabric, left, right)| {
        // SAFETY: the two halves make one link.
        let end = unsafe { LinkEnd::open(left, right) }.unwrap();
        Gateway::new(fabric.register(&who("gateway"), Still).unwrap(), end, GatewayConfig::default())
    });
    let (mut a, mut b) = (near.register(&who("a"), Still).unwrap(), far.register(&who("b"), Still).unwrap());
    let mut pass = || (0..16).for_each(|_| sides.iter_mut().for_each(|side| _ = side.pass()));
    pass();
    let to = near.find("b").unwrap();
    for (len, status) in [
        (64, DeliveryStatus::Delivered),
        (65, DeliveryStatus::QueueFull),
        (128, DeliveryStatus::QueueFull),
        (129, DeliveryStatus::QueueFull),
        (0, DeliveryStatus::Delivered),
    ] {
        let mut message = Message::new(1);
        message.payload_mut(len).unwrap().fill(7);
        let id = a.send(to, &message).unwrap();
        pass();
        let received = b.try_receive();
        assert_eq!(received.is_some(), status == DeliveryStatus::Delivered, "{len}");
        assert!(received.is_none_or(|received| received.payload() == message.payload()));
        pass();
        assert_eq!(a.receipt(id).unwrap().status, status, "{len}");
    }
    assert_eq!(sides[1].stats().received, 4, "129 bytes have not crossed");
}

proptest! {
    /// Whatever a header says of a shape, what is opened lies within the bytes, and can be used.
    #[test]
    fn no_header_leads_outside_the_bytes(
        shape in proptest::array::uniform3(prop_oneof![
            4 => prop_oneof![Just(1), Just(2), Just(4), Just(64)],
            1 => prop_oneof![0..12_u32, Just(128), Just(4096), any::<u32>()],
        ]),
        says in prop_oneof![Just(0), any::<u64>(), 0..200_000_u64],
        len in 0..40_000_usize,
        right in any::<bool>(),
    ) {
        let mut bytes = Bytes::new(len.max(size_of::<FabricHeader>()));
        let bytes = bytes.get();
        let [kernels, slots, payload] = shape;
        let expected = Read::<16, 256>::new(kernels as usize, slots as usize, payload as usize);
        let size = expected.map_or(says, |shape| if right { shape.size() as u64 } else { says });
        bytes[..8].copy_from_slice(b"K2Kfabri");
        bytes[8..12].copy_from_slice(&k2k_core::fabric::LAYOUT_VERSION.to_le_bytes());
        for (at, number) in [12, 16, 20].into_iter().zip(shape) {
            bytes[at..at + 4].copy_from_slice(&number.to_le_bytes());
        }
        bytes[24..32].copy_from_slice(&size.to_le_bytes());
        let found = FabricRef::<Read<16, 256>>::open(bytes);
        let fits = expected.is_ok_and(|shape| shape.size() <= len.max(size_of::<FabricHeader>()) && size == shape.size() as u64);
        prop_assert_eq!(found.is_ok(), fits);
        if let Ok(fabric) = found {
            let mut a = fabric.register(&who("a"), Still).unwrap();
            // The header gives messages no time.
            a.send(a.id(), &Message::new(1).with_deadline_ns(u64::MAX)).unwrap();
            prop_assert!(a.try_receive().is_some());
        }
    }
}
