//! Round trips: one message in flight, there and back through two queues. Both sides poll without a pause.

use crate::element::Element;
use crate::machine::{nanoseconds, ticks};
use crate::queue::{Patience, Pop, Push, Queue, Seen, Sink, Verify};
use crate::sample::{Apart, Role, Sample, Sampler, Setting, fill, together};
use core::hint::black_box;

/// The metrics of a round trip.
pub const METRICS: &[&str] = &["p50 ns", "p99 ns", "p99.9 ns"];

/// p50, p99 and p99.9 of round trips, ns.
pub fn percentiles(trips: &mut [u64]) -> Vec<f64> {
    trips.sort_unstable();
    let at = |share: f64| {
        let i = (trips.len() as f64 * share) as usize;
        trips.get(i.min(trips.len().saturating_sub(1))).map_or(f64::NAN, |t| nanoseconds(*t))
    };
    vec![at(0.5), at(0.99), at(0.999)]
}

pub struct RoundTrip<E: Element, Q: Queue<E>> {
    there: (Apart<Q::Tx>, Apart<Q::Rx>),
    back: (Apart<Q::Tx>, Apart<Q::Rx>),
    trips: u64,
    marker: core::marker::PhantomData<E>,
}

impl<E: Element, Q: Queue<E>> RoundTrip<E, Q> {
    pub fn boxed(capacity: usize) -> Box<dyn Sampler> {
        let open = || {
            let (mut tx, rx) = Q::open(capacity, 1);
            (Apart(tx.pop().expect("one producer")), Apart(rx))
        };
        Box::new(Self { there: open(), back: open(), trips: 0, marker: core::marker::PhantomData })
    }
}

#[inline(never)]
fn client<E: Element>(tx: &mut impl Push<E>, rx: &mut impl Pop<E>, trips: &mut Vec<u64>, count: u64) {
    let mut patience = Patience::new(false);
    let mut seen = Seen;
    let message = E::numbered(0);
    trips.clear();
    for _ in 0..count {
        let start = ticks();
        while !tx.push(black_box(&message)) {
            patience.miss();
        }
        while !rx.pop(&mut seen) {
            patience.miss();
        }
        trips.push(ticks() - start);
        patience.hit();
    }
}

#[inline(never)]
fn server<E: Element>(tx: &mut impl Push<E>, rx: &mut impl Pop<E>, count: u64) {
    let mut patience = Patience::new(false);
    let mut seen = Seen;
    let message = E::numbered(0);
    for _ in 0..count {
        while !rx.pop(&mut seen) {
            patience.miss();
        }
        while !tx.push(black_box(&message)) {
            patience.miss();
        }
        patience.hit();
    }
}

/// One message at a time, all of them looked at.
fn checked<E: Element>(tx: &mut impl Push<E>, rx: &mut impl Pop<E>, sink: &mut impl Sink<E>, first: bool, count: u64) {
    let mut patience = Patience::new(false);
    for i in 0..count {
        for push in [first, !first] {
            if push {
                tx.push_waiting(&E::numbered(i), &mut patience);
            } else {
                while !rx.pop(sink) {
                    patience.miss();
                }
                patience.hit();
            }
        }
    }
}

impl<E: Element, Q: Queue<E>> Sampler for RoundTrip<E, Q> {
    fn prepare(&mut self, setting: &Setting) -> Result<(), String> {
        let (mut here, mut there) = (Verify::new(1), Verify::new(1));
        let roles: Vec<Role<'_>> = vec![
            Box::new(|n| checked(&mut self.there.0.0, &mut self.back.1.0, &mut here, true, n)),
            Box::new(|n| checked(&mut self.back.0.0, &mut self.there.1.0, &mut there, false, n)),
        ];
        let run = together(&setting.cores, roles, 0, 3000)?;
        if let Some(wrong) = here.wrong.or(there.wrong) {
            return Err(wrong);
        }
        self.trips = fill(setting, run.elapsed_ns, 3000, 2000, 40_000);
        Ok(())
    }

    fn sample(&mut self, setting: &Setting) -> Result<Sample, String> {
        let mut trips = Vec::with_capacity(self.trips as usize);
        let roles: Vec<Role<'_>> = vec![
            Box::new(|n| client(&mut self.there.0.0, &mut self.back.1.0, &mut trips, n)),
            Box::new(|n| server(&mut self.back.0.0, &mut self.there.1.0, n)),
        ];
        let run = together(&setting.cores, roles, self.trips / 8, self.trips)?;
        Ok(run.sample(percentiles(&mut trips)))
    }
}
