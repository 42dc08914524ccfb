//! One kernel floods another with messages of both priorities, while two polite kernels try to get theirs in. Prints
//! which part of the polite kernels' tries was accepted, without shares and with them.
//!
//! ```text
//! cargo run --release -p k2k --example overload
//! ```
//!
//! The receiver takes fewer messages than are sent. Each sender has a ring of its own for normal priority. All senders
//! use one ring for high priority: without shares, how much of it is left depends on how often the flooder gets to run. (The
//! test `under_overload_high_priority_is_the_better_way_in` of `k2k-core` shows the worst case: nothing is left.)

use core::error::Error;
use core::time::Duration;
use k2k::{Broker, Endpoint, Fixed, KernelId, Message, Priority, SendError};
use k2k_command::{complain, say};
use k2k_core::sync::{AtomicU32, Ordering};
use std::process::ExitCode;
use std::thread;
use std::time::Instant;

type Mesh = Broker<Fixed<8, 64, 64>>;
type Sender = Endpoint<Fixed<8, 64, 64>>;

/// How long each of the two rounds lasts.
const ROUND: Duration = Duration::from_secs(1);

/// Time between two tries of a polite kernel.
const PACE: Duration = Duration::from_micros(100);

/// How long the receiver works on a message: it takes 5000 a second, where the polite kernels alone send 40 000.
const WORK: Duration = Duration::from_micros(200);

fn main() -> ExitCode {
    if let Some(argument) = std::env::args().nth(1) {
        complain("overload", format_args!("{argument:?}: it takes no arguments"));
        return ExitCode::from(2);
    }
    let rounds = round("without shares", u32::MAX).and_then(|()| round("equal shares", 0));
    k2k_command::end("overload", 1, rounds.map(|()| ExitCode::SUCCESS))
}

/// Tries and accepted messages, by priority.
#[derive(Default)]
struct Tally {
    tried: [u64; 2],
    accepted: [u64; 2],
}

impl Tally {
    fn percent(&self, priority: Priority) -> f64 {
        let at = priority as usize;
        100.0 * self.accepted[at] as f64 / self.tried[at].max(1) as f64
    }

    fn send(&mut self, from: &mut Sender, to: KernelId) -> Result<(), SendError> {
        for priority in [Priority::Normal, Priority::High] {
            let at = priority as usize;
            self.tried[at] += 1;
            match from.send_priority(to, &Message::new(1), priority) {
                Ok(_) => self.accepted[at] += 1,
                Err(SendError::QueueFull { .. }) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}

fn round(name: &str, share: u32) -> Result<(), Box<dyn Error>> {
    let mesh: Mesh = Broker::builder().high_share(share).delivery_timeout(Duration::from_secs(60)).build()?;
    let mut receiver = mesh.register("receiver")?;
    let to = receiver.id();
    let mut flooder = mesh.register("flooder")?;
    let polite = [mesh.register("polite-1")?, mesh.register("polite-2")?];
    let over = AtomicU32::new(0);
    let tallies = thread::scope(|scope| {
        scope.spawn(|| {
            let mut tally = Tally::default();
            while over.load(Ordering::Relaxed) == 0 && tally.send(&mut flooder, to).is_ok() {}
        });
        let polite = polite.map(|mut from| {
            let over = &over;
            scope.spawn(move || {
                let mut tally = Tally::default();
                while over.load(Ordering::Relaxed) == 0 {
                    tally.send(&mut from, to)?;
                    thread::sleep(PACE);
                }
                Ok::<_, SendError>(tally)
            })
        });
        let until = Instant::now() + ROUND;
        while Instant::now() < until {
            let _ = receiver.try_receive();
            thread::sleep(WORK);
        }
        over.store(1, Ordering::Relaxed);
        polite.map(|thread| thread.join().expect("no panics"))
    });
    for (tally, number) in tallies.into_iter().zip(1..) {
        let tally = tally?;
        let [normal, high] = [Priority::Normal, Priority::High].map(|priority| tally.percent(priority));
        say!(
            "{name:>14}: polite-{number} has {normal:5.1} % of normal priority accepted, {high:5.1} % of high priority"
        )?;
    }
    Ok(())
}
