//! Messages from producers to a consumer, each on its thread: ns per message, over all producers.

use crate::element::Element;
use crate::peers::BATCH;
use crate::queue::{Patience, Pop, Push, Queue, Seen, Sink, Verify, numbering};
use crate::sample::{Apart, Role, Run, Sample, Sampler, Setting, consumer_apart, crowded, fill, together};
use core::hint::black_box;

/// Which calls are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Calls {
    Single,
    Batch,
    /// The calls that wait, sleeping where the competitor can.
    Waiting,
}

pub struct Throughput<E: Element, Q: Queue<E>> {
    calls: Calls,
    txs: Vec<Apart<Q::Tx>>,
    rx: Apart<Q::Rx>,
    messages: u64,
    /// Messages that fill the queue once, so that its memory is there before the clock runs.
    lap: u64,
}

impl<E: Element, Q: Queue<E>> Throughput<E, Q> {
    pub fn boxed(calls: Calls, capacity: usize, producers: usize) -> Box<dyn Sampler> {
        let (txs, rx) = Q::open(capacity, producers);
        let txs = txs.into_iter().map(Apart).collect();
        Box::new(Self { calls, txs, rx: Apart(rx), messages: 0, lap: capacity as u64 })
    }

    fn run<S: Sink<E> + Send>(
        &mut self,
        setting: &Setting,
        sink: &mut S,
        whole: bool,
        warm: u64,
        count: u64,
    ) -> Result<Run, String> {
        let calls = self.calls;
        let producers = self.txs.len() as u64;
        let cores = consumer_apart(&setting.cores, self.txs.len());
        let yields = crowded(&cores, self.txs.len() + 1);
        let rx = &mut self.rx.0;
        let mut roles: Vec<Role<'_>> =
            vec![Box::new(move |n| consume::<E, Q>(rx, sink, calls, n / producers * producers, Patience::new(yields)))];
        for (id, Apart(tx)) in self.txs.iter_mut().enumerate() {
            let mut sent = 0;
            roles.push(Box::new(move |n| {
                let count = (n / producers) as usize;
                produce::<E, Q>(tx, Numbers { id, next: sent, left: count }, calls, whole, Patience::new(yields));
                sent += count as u64;
            }));
        }
        let mut run = together(&cores, roles, warm, count)?;
        if yields {
            // With more threads than cores someone is always preempted, and there is no distance.
            run.preempted = false;
            run.distance = None;
        }
        Ok(run)
    }
}

/// The numbers of one producer's messages.
struct Numbers {
    id: usize,
    next: u64,
    left: usize,
}

impl Iterator for Numbers {
    type Item = u64;

    #[inline(always)]
    fn next(&mut self) -> Option<u64> {
        self.left = self.left.checked_sub(1)?;
        self.next += 1;
        Some(numbering(self.id, self.next - 1))
    }
}

#[inline(never)]
fn produce<E: Element, Q: Queue<E>>(
    tx: &mut Q::Tx,
    mut numbers: Numbers,
    calls: Calls,
    whole: bool,
    mut patience: Patience,
) {
    match calls {
        Calls::Single | Calls::Waiting => {
            let mut message = E::numbered(0);
            for number in numbers {
                if whole {
                    message = E::numbered(number);
                }
                // The same message each time, which the compiler does not know: a fresh word in it would make the wide
                // loads of the copy wait for the narrow store, and that for all stores before it.
                let message = black_box(&message);
                if Q::PARKS && calls == Calls::Waiting {
                    tx.push_waiting(message, &mut patience);
                    continue;
                }
                while !tx.push(message) {
                    patience.miss();
                }
                patience.hit();
            }
        }
        Calls::Batch if !Q::BATCH => unreachable!("left out of the column"),
        Calls::Batch => {
            let mut batch = [E::numbered(0); BATCH];
            while numbers.left > 0 {
                let count = numbers.left.min(BATCH);
                for (place, number) in batch[..count].iter_mut().zip(&mut numbers) {
                    if whole {
                        *place = E::numbered(number);
                    }
                }
                let mut left = &black_box(&batch)[..count];
                while !left.is_empty() {
                    match tx.push_batch(left) {
                        0 => patience.miss(),
                        pushed => {
                            left = &left[pushed..];
                            patience.hit();
                        }
                    }
                }
            }
        }
    }
}

#[inline(never)]
fn consume<E: Element, Q: Queue<E>>(
    rx: &mut Q::Rx,
    sink: &mut impl Sink<E>,
    calls: Calls,
    count: u64,
    mut patience: Patience,
) {
    let mut left = count;
    while left > 0 {
        let taken = match calls {
            Calls::Waiting if Q::PARKS => {
                rx.pop_waiting(sink, &mut patience);
                1
            }
            Calls::Batch if Q::BATCH => rx.pop_batch(sink, BATCH.min(left as usize)) as u64,
            _ => u64::from(rx.pop(sink)),
        };
        if taken == 0 {
            patience.miss();
        } else {
            patience.hit();
        }
        left -= taken;
    }
}

impl<E: Element, Q: Queue<E>> Sampler for Throughput<E, Q> {
    fn prepare(&mut self, setting: &Setting) -> Result<(), String> {
        let mut verify = Verify::new(self.txs.len());
        self.run(setting, &mut verify, true, 0, 2 * self.lap + 4096)?;
        if let Some(wrong) = verify.wrong {
            return Err(wrong);
        }
        let pilot = 4096;
        let run = self.run(setting, &mut Seen, false, 1024, pilot)?;
        self.messages = fill(setting, run.elapsed_ns, pilot, 2048, 1 << 21).next_multiple_of(64);
        Ok(())
    }

    fn sample(&mut self, setting: &Setting) -> Result<Sample, String> {
        let run = self.run(setting, &mut Seen, false, self.messages / 4, self.messages)?;
        Ok(run.per(self.messages))
    }
}
