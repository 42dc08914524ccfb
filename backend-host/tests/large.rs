//! Rings and messages that are larger than a thread's stack.

mod common;
use k2k::k2k_core::ring::{Sharded, Spsc, Ticket};
use k2k::k2k_core::{Fabric, LinkHalf};
use k2k::{Broker, Config, Fixed, Message, boxed};
use std::thread;

/// Runs on a thread whose stack is much smaller than what it makes. An overflow ends the test program.
fn on_a_small_stack(stack_size: usize, work: impl FnOnce() + Send + 'static) {
    thread::Builder::new().stack_size(stack_size).spawn(work).unwrap().join().unwrap();
}

#[test]
fn rings_of_megabytes_are_made_on_the_heap() {
    on_a_small_stack(64 << 10, || {
        let ring = boxed(Spsc::<[u64; 32], 32_768>::new_in);
        const { assert!(size_of::<Spsc<[u64; 32], 32_768>>() > 8 << 20) };
        let (mut producer, mut consumer) = (ring.producer().unwrap(), ring.consumer().unwrap());
        producer.push(&[7; 32]).unwrap();
        assert_eq!(consumer.pop(), Some([7; 32]));

        drop(boxed(Sharded::<[u64; 32], 8, 4096>::new_in));
        drop(boxed(Ticket::<[u64; 32], 32_768>::new_in));
        drop(boxed(LinkHalf::<1024, 1024>::new_in));
        let fabric = boxed(Fabric::<16, 256, 192>::new_in);
        fabric.init(&Config::default()).unwrap();
        assert_eq!(fabric.kernels().count(), 0);
    });
}

#[test]
fn a_ring_of_megabytes_can_be_a_static() {
    static RING: Spsc<[u64; 32], 32_768> = Spsc::new();
    on_a_small_stack(64 << 10, || {
        let (mut producer, mut consumer) = (RING.producer().unwrap(), RING.consumer().unwrap());
        producer.push(&[7; 32]).unwrap();
        assert_eq!(consumer.pop(), Some([7; 32]));
    });
}

#[test]
fn the_largest_messages_need_no_large_stack() {
    on_a_small_stack(192 << 10, || {
        let broker: Broker<Fixed<2, 4, 65_472>> = Broker::builder().build().unwrap();
        let (mut a, mut b) = (broker.register("a").unwrap(), broker.register_parking("b").unwrap());
        let mut message = boxed(|place| Message::new_in(place, 1));
        message.set_payload(&[5; 65_000]).unwrap();
        let to = b.id();
        for priority in [k2k::Priority::Normal, k2k::Priority::High] {
            a.send_priority(to, &message, priority).unwrap();
            message.header.kind = 9;
            b.receive_into(&mut message, common::GUARD).unwrap();
            assert_eq!((message.header.kind, message.payload().len()), (1, 65_000));
        }
        b.poll();
    });
}
