//! A death at every step. In core's own tests, each store to shared memory, each compare-exchange and each call of the
//! platform is a numbered step ([`step`]). A driver runs every scenario once per step: the actor dies there, or stops
//! and goes on after everybody else has timed out. Then a successor takes over (and may die at each of its steps, too),
//! or a supervisor takes the index away, or nothing happens; the other kernels run on, and all promises are checked.
//!
//! | promise | checked |
//! | --- | --- |
//! | a message is received at most once, in order, at the address that it was sent to | ledgers of all kernels |
//! | it has one outcome | receipts against the ledgers: nothing is `Pending` past deadline and grace, `Delivered` was received (or its receiver died with it), any other status was not |
//! | counters add up | sent = received + failed, at rest and after all have left |
//! | a sleeper is woken | by the next message of a living sender |
//! | indices come back | all of them can be taken at the end |
//!
//! Random kills find none of the windows that this finds: they are a few nanoseconds wide, between two instructions.
//!
//! A scenario is a few lines in `scenarios.rs`: which kernels there are, what happened before, and what the actor does.

extern crate std;

mod gateways;
mod scenarios;
mod world;

use core::cell::{Cell, RefCell};
use std::boxed::Box;
use std::sync::mpsc::{Receiver, Sender, channel};

/// What is done to the thread that comes to a step.
enum Fate {
    /// Dies: unwinds, without a word to anybody.
    Dies,
    /// Says that it has stopped, and waits until it may go on.
    Stops { stopped: Sender<()>, go_on: Receiver<()> },
}

std::thread_local! {
    /// The step at which this thread's fate comes, counted down; `None`: nobody counts.
    static LEFT: Cell<Option<u32>> = const { Cell::new(None) };
    static FATE: RefCell<Option<Fate>> = const { RefCell::new(None) };
    /// Whether this thread was killed, and unwinds.
    static DEAD: Cell<bool> = const { Cell::new(false) };
}

/// What a killed actor unwinds with.
struct Killed;

/// The hook of `sync.rs`: called before each store and each compare-exchange.
pub(crate) fn step() {
    // A thread that ends has no thread-local values any more, and no fate either.
    let fated = LEFT.try_with(|left| {
        let Some(n) = left.get() else { return false };
        left.set(n.checked_sub(1));
        n == 0
    });
    if fated == Ok(true) {
        match FATE.with(|fate| fate.borrow_mut().take()) {
            // Not a panic: nobody prints anything.
            Some(Fate::Dies) => {
                DEAD.set(true);
                std::panic::resume_unwind(Box::new(Killed));
            }
            Some(Fate::Stops { stopped, go_on }) => {
                stopped.send(()).expect("the driver waits");
                go_on.recv().expect("the driver lets it go on");
            }
            None => {}
        }
    }
}

/// Whether this thread was killed: what it drops while it unwinds does nothing, as in a process that is gone.
fn is_dead() -> bool {
    DEAD.get()
}

/// Runs `act` on this thread and lets it meet its fate at a step. `false` if it ended before that step.
fn with_fate(at: u32, fate: Fate, act: impl FnOnce()) -> bool {
    FATE.with(|slot| *slot.borrow_mut() = Some(fate));
    LEFT.with(|left| left.set(Some(at)));
    let result = std::panic::catch_unwind(core::panic::AssertUnwindSafe(act));
    LEFT.with(|left| left.set(None));
    DEAD.set(false);
    let unmet = FATE.with(|slot| slot.borrow_mut().take()).is_some();
    match result {
        Err(panic) if !panic.is::<Killed>() => std::panic::resume_unwind(panic),
        _ => !unmet,
    }
}

/// The two ends of a stop: the actor's and the driver's.
fn stop() -> (Fate, Receiver<()>, Sender<()>) {
    let (stopped, is_stopped) = channel();
    let (go, go_on) = channel();
    (Fate::Stops { stopped, go_on }, is_stopped, go)
}
