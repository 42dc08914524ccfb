//! Push and pop by one thread: what the bookkeeping costs when no line has to move. ns per message.

use crate::element::Element;
use crate::queue::{Pop, Push, Queue, Seen, Verify};
use crate::sample::{Role, Sample, Sampler, Setting, fill, together};
use core::hint::black_box;

/// Messages that are pushed before they are popped.
pub const BURST: u64 = 64;

pub struct OneThread<E: Element, Q: Queue<E>> {
    tx: Q::Tx,
    rx: Q::Rx,
    burst: u64,
    messages: u64,
    marker: core::marker::PhantomData<E>,
}

impl<E: Element, Q: Queue<E>> OneThread<E, Q> {
    pub fn boxed(capacity: usize, burst: u64) -> Box<dyn Sampler> {
        let (mut tx, rx) = Q::open(capacity, 1);
        let tx = tx.pop().expect("one producer");
        Box::new(Self { tx, rx, burst, messages: 0, marker: core::marker::PhantomData })
    }

    fn run(&mut self, setting: &Setting, warm: u64, count: u64) -> Result<Sample, String> {
        let (tx, rx, burst) = (&mut self.tx, &mut self.rx, self.burst);
        let role: Role<'_> = Box::new(move |n| work(tx, rx, burst, n));
        Ok(together(&setting.cores, vec![role], warm, count)?.per(count))
    }
}

#[inline(never)]
fn work<E: Element>(tx: &mut impl Push<E>, rx: &mut impl Pop<E>, burst: u64, count: u64) {
    let mut seen = Seen;
    let message = E::numbered(0);
    if burst == 1 {
        for _ in 0..count {
            assert!(tx.push(black_box(&message)));
            assert!(rx.pop(&mut seen));
        }
        return;
    }
    for _ in 0..count / burst {
        for _ in 0..burst {
            assert!(tx.push(black_box(&message)));
        }
        for _ in 0..burst {
            assert!(rx.pop(&mut seen));
        }
    }
}

impl<E: Element, Q: Queue<E>> Sampler for OneThread<E, Q> {
    fn prepare(&mut self, setting: &Setting) -> Result<(), String> {
        let mut verify = Verify::new(1);
        for i in 0..4000 / self.burst * self.burst {
            if !self.tx.push(&E::numbered(i)) {
                return Err("a queue with room refused a message".to_owned());
            }
            if i % self.burst == self.burst - 1 {
                while self.rx.pop(&mut verify) {}
            }
        }
        if let Some(wrong) = verify.wrong {
            return Err(wrong);
        }
        let pilot = 64 * BURST;
        let sample = self.run(setting, pilot, pilot)?;
        let elapsed = sample.values[0] * pilot as f64;
        self.messages = fill(setting, elapsed, pilot, pilot, 1 << 20) / BURST * BURST;
        Ok(())
    }

    fn sample(&mut self, setting: &Setting) -> Result<Sample, String> {
        self.run(setting, self.messages / 4, self.messages)
    }
}
