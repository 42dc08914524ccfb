//! A parked receiver: each sender that has something for it wakes it. A wake-up that is lost shows as a deadlock.
#![cfg(k2k_loom)]

mod world;

use k2k_core::sync::spin_hint;
use k2k_core::{Command, Endpoint, Fabric, Fixed, Message, Platform, Priority, Registration, Sleep, WakeFlag};
use k2k_loom_tests::model;
use loom::sync::{Condvar, Mutex};
use loom::thread;
use world::{CONFIG, EARLY, shared};

/// What a system does for sleepers: it clears the flag and wakes in one step, and compares the word and sleeps in one
/// step. One kernel parks, so one bed is enough.
struct Bed {
    /// Slices end, that of each later sleep as well.
    slices_end: Mutex<bool>,
    changed: Condvar,
}

impl Bed {
    fn new() -> Self {
        Self { slices_end: Mutex::new(false), changed: Condvar::new() }
    }

    /// Sleeps until woken, or until the slice ends.
    fn sleep(&self, sleep: Sleep<'_>) {
        let mut slices_end = self.slices_end.lock().unwrap();
        while !sleep.is_over() && !*slices_end {
            slices_end = self.changed.wait(slices_end).unwrap();
        }
    }

    fn end_slices(&self) {
        *self.slices_end.lock().unwrap() = true;
        self.changed.notify_all();
    }
}

/// A kernel's platform, and whether the kernel's process dies where it would wake another.
#[derive(Clone, Copy)]
struct On {
    bed: &'static Bed,
    dies: bool,
}

impl Platform for On {
    fn now_ns(&self) -> u64 {
        EARLY
    }

    fn wake(&self, flag: &WakeFlag) {
        if !self.dies {
            let slices_end = self.bed.slices_end.lock().unwrap();
            flag.wake_up();
            self.bed.changed.notify_all();
            drop(slices_end);
        }
    }
}

type Two = Fabric<2, 1, 0>;
type End = Endpoint<'static, On, Fixed<2, 1, 0>>;

/// A fabric with a kernel that sends and one that parks.
fn sleeper_and_sender(dies: bool, f: impl FnOnce(&'static Two, &'static Bed, End, End)) {
    shared((Two::new(), Bed::new()), |(fabric, bed)| {
        fabric.init(&CONFIG).unwrap();
        let sender = fabric.register(&Registration::new("a").unwrap().at(0), On { bed, dies }).unwrap();
        let parks = Registration::new("b").unwrap().parking();
        let sleeper = fabric.register(&parks.at(1), On { bed, dies: false }).unwrap();
        f(fabric, bed, sender, sleeper);
    });
}

fn receive_parked<const KERNELS: usize>(bed: &Bed, sleeper: &mut Endpoint<'static, On, Fixed<KERNELS, 1, 0>>) -> u32 {
    loop {
        if let Some(message) = sleeper.try_receive() {
            return message.header.kind;
        }
        match sleeper.fall_asleep(Command::Run) {
            Some(sleep) => {
                bed.sleep(sleep);
                sleep.end();
            }
            // Something is there, or about to be: a position of the ticket ring is claimed.
            None => spin_hint(),
        }
    }
}

/// A message of normal priority, which comes by a shard.
#[test]
fn message() {
    model("park.message", 51, || {
        sleeper_and_sender(false, |_, bed, mut sender, mut sleeper| {
            let to = sleeper.id();
            let sleeper = thread::spawn(move || {
                assert_eq!(receive_parked(bed, &mut sleeper), 1);
                sleeper
            });
            sender.send(to, &Message::new(1)).unwrap();
            drop(sleeper.join().unwrap());
        });
    });
}

/// One of high priority, which comes by the ticket ring.
#[test]
fn urgent_message() {
    model("park.urgent_message", 75, || {
        sleeper_and_sender(false, |_, bed, mut sender, mut sleeper| {
            let to = sleeper.id();
            let sleeper = thread::spawn(move || {
                assert_eq!(receive_parked(bed, &mut sleeper), 1);
                sleeper
            });
            sender.send_priority(to, &Message::new(1), Priority::High).unwrap();
            drop(sleeper.join().unwrap());
        });
    });
}

/// Two messages, and perhaps two sleeps.
#[test]
fn two_messages() {
    model("park.two_messages", 1_077, || {
        sleeper_and_sender(false, |_, bed, mut sender, mut sleeper| {
            let to = sleeper.id();
            let sleeper = thread::spawn(move || {
                let got = [receive_parked(bed, &mut sleeper), receive_parked(bed, &mut sleeper)];
                assert_eq!(got[0] + got[1], 3);
                sleeper
            });
            sender.send(to, &Message::new(1)).unwrap();
            sender.send_priority(to, &Message::new(2), Priority::High).unwrap();
            drop(sleeper.join().unwrap());
        });
    });
}

/// Two senders at once: one of them wakes, perhaps in a later sleep than the one it saw, and both messages are found.
#[test]
fn two_senders() {
    model("park.two_senders", 4_667, || {
        shared((Fabric::<3, 1, 0>::new(), Bed::new()), |(fabric, bed)| {
            fabric.init(&CONFIG).unwrap();
            let on = On { bed, dies: false };
            let mut sleeper = fabric.register(&Registration::new("c").unwrap().parking().at(2), on).unwrap();
            let to = sleeper.id();
            let senders = [0, 1].map(|i| {
                let mut sender = fabric.register(&Registration::new(["a", "b"][i]).unwrap().at(i), on).unwrap();
                thread::spawn(move || {
                    sender.send(to, &Message::new(1)).unwrap();
                    sender
                })
            });
            for _ in 0..2 {
                assert_eq!(receive_parked(bed, &mut sleeper), 1);
            }
            drop(senders.map(|thread| thread.join().unwrap()));
        });
    });
}

/// A sender that dies where it would wake the receiver leaves that to the next sender.
#[test]
fn a_sender_dies_before_it_wakes() {
    model("park.a_sender_dies_before_it_wakes", 387, || {
        shared((Fabric::<3, 1, 0>::new(), Bed::new()), |(fabric, bed)| {
            fabric.init(&CONFIG).unwrap();
            let alive = On { bed, dies: false };
            let mut sleeper = fabric.register(&Registration::new("c").unwrap().parking().at(2), alive).unwrap();
            let mut dies = fabric.register(&Registration::new("a").unwrap().at(0), On { bed, dies: true }).unwrap();
            let mut next = fabric.register(&Registration::new("b").unwrap().at(1), alive).unwrap();
            let to = sleeper.id();
            let senders = thread::spawn(move || {
                dies.send(to, &Message::new(1)).unwrap();
                next.send(to, &Message::new(2)).unwrap();
                (dies, next)
            });
            let got = [receive_parked(bed, &mut sleeper), receive_parked(bed, &mut sleeper)];
            assert_eq!(got[0] + got[1], 3);
            drop(senders.join().unwrap());
        });
    });
}

/// With no sender after it, the end of the receiver's slice finds its message; and a supervisor's command wakes, too.
#[test]
fn a_slice_ends_or_a_command_comes_after_such_a_death() {
    for commands in [false, true] {
        model("park.after_a_death", 38, move || {
            sleeper_and_sender(true, |fabric, bed, mut sender, mut sleeper| {
                let to = sleeper.id();
                let sleeper = thread::spawn(move || {
                    assert_eq!(receive_parked(bed, &mut sleeper), 1);
                    sleeper
                });
                sender.send(to, &Message::new(1)).unwrap();
                if commands {
                    // Anything but `Run` keeps the receiver from sleeping again.
                    fabric.command(to, Command::Stop, &On { bed, dies: false }).unwrap();
                } else {
                    bed.end_slices();
                }
                drop(sleeper.join().unwrap());
                drop(sender);
            });
        });
    }
}

/// A command.
#[test]
fn command() {
    model("park.command", 28, || {
        sleeper_and_sender(false, |fabric, bed, sender, mut sleeper| {
            let id = sleeper.id();
            let sleeper = thread::spawn(move || {
                while sleeper.command() != Command::Stop {
                    if let Some(sleep) = sleeper.fall_asleep(Command::Run) {
                        bed.sleep(sleep);
                    }
                }
                sleeper
            });
            fabric.command(id, Command::Stop, &On { bed, dies: false }).unwrap();
            drop(sleeper.join().unwrap());
            drop(sender);
        });
    });
}
