//! The control block: what a supervisor did before a command is done for the kernel, and the other way round.
#![cfg(k2k_loom)]

mod world;

use k2k_core::WakeFlag;
use k2k_core::sync::spin_hint;
use k2k_core::{Command, Context, DeliveryStatus, Fabric, Kernel, Message, Phase, Platform, Priority, run};
use k2k_loom_tests::model;
use loom::cell::UnsafeCell;
use loom::thread;
use world::{assert_adds_up, fabric, register, send, shared};

type Two = &'static Fabric<2, 1, 0>;

/// The supervisor's backend: nobody parks here.
struct Nobody;

impl Platform for Nobody {
    fn now_ns(&self) -> u64 {
        world::EARLY
    }

    fn wake(&self, _: &WakeFlag) {}
}

/// A word that may be used by one thread at a time: loom fails the model if it is not.
#[derive(Debug)]
struct Word(UnsafeCell<u32>);

// SAFETY: for the model to check.
unsafe impl Sync for Word {}

impl Word {
    fn new() -> Self {
        Self(UnsafeCell::new(0))
    }

    fn set(&self, value: u32) {
        // SAFETY: loom fails the model unless this thread has the word alone.
        self.0.with_mut(|word| unsafe { *word = value });
    }

    fn get(&self) -> u32 {
        // SAFETY: as above.
        self.0.with(|word| unsafe { *word })
    }
}

fn wait_for(fabric: Two, id: k2k_core::KernelId, phase: Phase) {
    while fabric.phase(id) != Some(phase) {
        spin_hint();
    }
}

/// Counts messages in a word that is the supervisor's before and after.
struct Counting {
    word: &'static Word,
}

impl Kernel<0> for Counting {
    fn on_message(&mut self, _: &mut impl Context<0>, _: &Message<0>) {
        self.word.set(self.word.get() + 1);
    }
}

/// What was sent before the command to drain is handled, and what the handler did is done when the phase says so.
#[test]
fn drain() {
    model("control.drain", 622, || {
        shared(Word::new(), |word| {
            fabric(|fabric: Two| {
                let mut supervisor = register(fabric, 0, "s");
                let mut worker = register(fabric, 1, "w");
                let id = worker.id();
                let worker = thread::spawn(move || {
                    run(&mut worker, &mut Counting { word }, |_, _| spin_hint());
                    worker
                });
                send(&mut supervisor, id, 1);
                fabric.command(id, Command::Drain, &Nobody).unwrap();
                wait_for(fabric, id, Phase::Stopped);
                assert_eq!(word.get(), 1, "handled before it stopped");
                assert_adds_up(&fabric.total_stats());
                drop(worker.join().unwrap());
            });
        });
    });
}

/// What the supervisor prepared is there for the kernel that obeys, and what the kernel did for the supervisor.
#[test]
fn both_ways() {
    model("control.both_ways", 22, || {
        shared([Word::new(), Word::new()], |words| {
            fabric(|fabric: Two| {
                let mut worker = register(fabric, 1, "w");
                let id = worker.id();
                let worker = thread::spawn(move || {
                    while worker.command() != Command::Pause {
                        spin_hint();
                    }
                    words[1].set(words[0].get() + 1);
                    worker.set_phase(Phase::Paused);
                    worker
                });
                words[0].set(4);
                fabric.command(id, Command::Pause, &Nobody).unwrap();
                wait_for(fabric, id, Phase::Paused);
                assert_eq!(words[1].get(), 5);
                drop(worker.join().unwrap());
            });
        });
    });
}

/// Pause, resume and stop while messages come: none is handled between, none is lost.
#[test]
fn pause_and_stop() {
    model("control.pause_and_stop", 94, || {
        shared(Word::new(), |word| {
            fabric(|fabric: Two| {
                let mut supervisor = register(fabric, 0, "s");
                let mut worker = register(fabric, 1, "w");
                let id = worker.id();
                fabric.command(id, Command::Pause, &Nobody).unwrap();
                let worker = thread::spawn(move || {
                    run(&mut worker, &mut Counting { word }, |_, _| spin_hint());
                    worker
                });
                send(&mut supervisor, id, 1);
                wait_for(fabric, id, Phase::Paused);
                assert_eq!(word.get(), 0, "nothing is handled in a pause");
                fabric.command(id, Command::Drain, &Nobody).unwrap();
                drop(worker.join().unwrap());
                assert_eq!(word.get(), 1);
                assert_adds_up(&fabric.total_stats());
            });
        });
    });
}

/// A kernel that only passes on, as in a pause, while a message of high priority comes: it is still there afterwards.
#[test]
fn a_poll_keeps_urgent_mail() {
    model("control.a_poll_keeps_urgent_mail", 15, || {
        fabric(|fabric: Two| {
            let mut sender = register(fabric, 0, "s");
            let mut receiver = register(fabric, 1, "r");
            let to = receiver.id();
            let receiver = thread::spawn(move || {
                receiver.poll();
                receiver
            });
            let id = sender.send_priority(to, &Message::new(1), Priority::High).unwrap();
            let mut receiver = receiver.join().unwrap();
            assert!(receiver.try_receive().is_some(), "passed over");
            assert_eq!(sender.receipt(id).unwrap().status, DeliveryStatus::Delivered);
            drop((sender, receiver));
            assert_adds_up(&fabric.total_stats());
        });
    });
}
