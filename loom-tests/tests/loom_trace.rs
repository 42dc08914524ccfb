//! The trace: a reader gets an event whole or not at all.
#![cfg(k2k_loom)]

mod world;

use k2k_core::{Fabric, Message, Priority};
use k2k_loom_tests::model;
use loom::thread;
use world::{fabric, receive, register};

/// Both places of the trace are used again while they are read. In each, every word changes.
#[test]
fn whole_events() {
    model("trace.whole_events", 24_500, || {
        fabric(|fabric: &'static Fabric<1, 1, 0>| {
            fabric.set_tracing(true);
            let mut kernel = register(fabric, 0, "k");
            let id = kernel.id();
            kernel.platform().0.set(10);
            kernel.send(id, &Message::new(0)).unwrap();
            kernel.send_priority(id, &Message::new(0), Priority::High).unwrap();
            let read = || fabric.trace(id).unwrap().read().collect::<Vec<_>>();
            // What stands there when nobody writes.
            let mut events = read();
            let writer = thread::spawn(move || {
                kernel.platform().0.set(20);
                // So that no word of a later event equals that of the one before in its place.
                kernel.now();
                // The urgent one first, then the other.
                receive(&mut kernel);
                receive(&mut kernel);
                kernel
            });
            let seen = read();
            drop(writer.join().unwrap());
            events.extend(read());
            assert_eq!(events.iter().map(|event| event.number).collect::<Vec<_>>(), [0, 1, 2, 3]);
            for [before, after] in [[0, 2], [1, 3]].map(|pair| pair.map(|i| &events[i])) {
                assert!(before.event != after.event && before.id != after.id);
                assert!(before.at.wall_time_ns != after.at.wall_time_ns && before.at.logical != after.at.logical);
            }
            for event in seen {
                assert_eq!(event, events[event.number as usize], "words of two events");
            }
        });
    });
}

/// A kind of failure is noted twice while it is read, so both of its records change, the first one over a whole one.
#[test]
fn whole_failures() {
    model("trace.whole_failures", 15_300, || {
        fabric(|fabric: &'static Fabric<1, 1, 0>| {
            let mut kernel = register(fabric, 0, "k");
            let id = kernel.id();
            let fail = move |kernel: &mut world::End<1, 1>, at: u64| {
                kernel.platform().0.set(at);
                kernel.send(id, &Message::new(0).with_deadline_ns(at + 1)).unwrap();
                kernel.platform().0.set(at + 2);
                assert!(kernel.try_receive().is_none());
            };
            let read = || fabric.failures(id).unwrap().read().collect::<Vec<_>>();
            fail(&mut kernel, 10);
            let writer = thread::spawn(move || {
                fail(&mut kernel, 20);
                fail(&mut kernel, 30);
                kernel
            });
            let seen = read();
            drop(writer.join().unwrap());
            let last = read();
            assert_eq!((last.len(), last[0].example.sequence, last[0].first_wall_ns), (1, 3, 12));
            for failure in seen {
                assert_eq!((failure.first_wall_ns, failure.example.source), (12, id));
                assert_eq!(failure.last_wall_ns, 10 * failure.example.sequence + 2, "words of two failures");
            }
        });
    });
}
