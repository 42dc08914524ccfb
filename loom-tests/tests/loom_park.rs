//! A parked receiver: whoever has something for it wakes it. A wake-up that is lost shows as a deadlock.
#![cfg(loom)]

mod world;

use k2k_core::WakeFlag;
use k2k_core::sync::spin_hint;
use k2k_core::{Command, Endpoint, Fabric, Message, Platform, Priority, Register};
use k2k_loom_tests::model;
use loom::sync::Notify;
use loom::thread;
use world::{CONFIG, EARLY, shared};

/// One kernel parks, so one bell is enough.
struct Bell(Notify);

impl Platform for Bell {
    fn now_ns(&self) -> u64 {
        EARLY
    }

    fn wake(&self, _: &WakeFlag) {
        self.0.notify();
    }
}

type Two = Fabric<2, 1, 0>;
type End = Endpoint<'static, &'static Bell, 2, 1, 0>;

/// A fabric with a kernel that sends and one that parks.
fn sleeper_and_sender(f: impl FnOnce(&'static Two, &'static Bell, End, End)) {
    shared((Two::new(), Bell(Notify::new())), |(fabric, bell)| {
        fabric.init(&CONFIG).unwrap();
        let sender = fabric.register_at(0, &Register::new("a").unwrap(), bell).unwrap();
        let sleeper = fabric.register_at(1, &Register::new("b").unwrap().parking(), bell).unwrap();
        f(fabric, bell, sender, sleeper);
    });
}

/// As a backend sleeps: until woken, however often that is for nothing.
fn sleep(bell: &Bell, wake_flag: &WakeFlag) {
    while wake_flag.is_asleep() {
        bell.0.wait();
    }
}

fn receive_parked(bell: &Bell, sleeper: &mut End) -> u32 {
    loop {
        if let Some(message) = sleeper.try_receive() {
            return message.header.kind;
        }
        match sleeper.fall_asleep() {
            Some(wake_flag) => sleep(bell, wake_flag),
            // Something is there, or about to be: a position of the ticket ring is claimed.
            None => spin_hint(),
        }
    }
}

/// A message of normal priority, which comes by a lane.
#[test]
fn message() {
    model("park.message", 40, || {
        sleeper_and_sender(|_, bell, mut sender, mut sleeper| {
            let to = sleeper.id();
            let sleeper = thread::spawn(move || {
                assert_eq!(receive_parked(bell, &mut sleeper), 1);
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
    model("park.urgent_message", 69, || {
        sleeper_and_sender(|_, bell, mut sender, mut sleeper| {
            let to = sleeper.id();
            let sleeper = thread::spawn(move || {
                assert_eq!(receive_parked(bell, &mut sleeper), 1);
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
    model("park.two_messages", 1_200, || {
        sleeper_and_sender(|_, bell, mut sender, mut sleeper| {
            let to = sleeper.id();
            let sleeper = thread::spawn(move || {
                let got = [receive_parked(bell, &mut sleeper), receive_parked(bell, &mut sleeper)];
                assert_eq!(got[0] + got[1], 3);
                sleeper
            });
            sender.send(to, &Message::new(1)).unwrap();
            sender.send_priority(to, &Message::new(2), Priority::High).unwrap();
            drop(sleeper.join().unwrap());
        });
    });
}

/// Two senders at once: one of them wakes, and the message of the other is found as well.
///
/// One sleep only: loom lets the sender's exchange of the bell come after a store that it must precede, and then sees a
/// deadlock in the second sleep that cannot be. With exchanges in place of the stores, two sleeps pass as well.
#[test]
fn two_senders() {
    model("park.two_senders", 8_800, || {
        shared((Fabric::<3, 1, 0>::new(), Bell(Notify::new())), |(fabric, bell)| {
            fabric.init(&CONFIG).unwrap();
            let mut sleeper = fabric.register_at(2, &Register::new("b").unwrap().parking(), bell).unwrap();
            let to = sleeper.id();
            let senders = [0, 1].map(|i| {
                let mut sender = fabric.register_at(i, &Register::new("a").unwrap(), bell).unwrap();
                thread::spawn(move || {
                    sender.send(to, &Message::new(1)).unwrap();
                    sender
                })
            });
            if let Some(wake_flag) = sleeper.fall_asleep() {
                sleep(bell, wake_flag);
            }
            for _ in 0..2 {
                while sleeper.try_receive().is_none() {
                    spin_hint();
                }
            }
            drop(senders.map(|thread| thread.join().unwrap()));
        });
    });
}

/// A command.
#[test]
fn command() {
    model("park.command", 22, || {
        sleeper_and_sender(|fabric, bell, sender, mut sleeper| {
            let id = sleeper.id();
            let sleeper = thread::spawn(move || {
                while sleeper.command() != Command::Stop {
                    if let Some(wake_flag) = sleeper.fall_asleep() {
                        sleep(bell, wake_flag);
                    }
                }
                sleeper
            });
            fabric.command(id, Command::Stop, &bell).unwrap();
            drop(sleeper.join().unwrap());
            drop(sender);
        });
    });
}
