//! The tests of other files once more, with kernels that have read the fabric's shape from its header; and what is of run-time
//! shapes alone.

#![allow(clippy::duplicate_mod, reason = "the shape that `common` chooses is another for each")]

#[path = "endpoint.rs"]
mod endpoint;
#[path = "fairness.rs"]
mod fairness;
#[path = "kernel_loop.rs"]
mod kernel_loop;
#[path = "recovery.rs"]
mod recovery;
#[path = "routing.rs"]
mod routing;
#[path = "statuses.rs"]
mod statuses;

use k2k_core::fabric::{AttachError, FabricHeader};
use k2k_core::{Config, Fabric, FabricRef, Fixed, Message, Platform, Read, Register, Shape, WakeFlag};
use proptest::prelude::*;

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

fn who(name: &str) -> Register {
    Register::new(name).expect("short")
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
