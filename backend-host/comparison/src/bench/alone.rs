//! Producers alone: all push at once into a queue with room for all of it, and nobody pops. ns per push over all of
//! them.

use crate::element::Element;
use crate::queue::{Patience, Pop, Push, Queue, Seen, Verify, numbering};
use crate::sample::{Apart, Role, Run, Sample, Sampler, Setting, crowded, together};
use core::hint::black_box;

/// Room in the queue: our rings hold at most 32768 messages.
pub const CAPACITY: usize = 32_768;

pub struct Alone<E: Element, Q: Queue<E>> {
    txs: Vec<Apart<Q::Tx>>,
    rx: Q::Rx,
    marker: core::marker::PhantomData<E>,
}

impl<E: Element, Q: Queue<E>> Alone<E, Q> {
    pub fn boxed(producers: usize) -> Box<dyn Sampler> {
        let (txs, rx) = Q::open(CAPACITY, producers);
        Box::new(Self { txs: txs.into_iter().map(Apart).collect(), rx, marker: core::marker::PhantomData })
    }

    /// Messages of one producer, and of its warm-up: an eighth of the queue stays free.
    fn share(&self) -> (u64, u64) {
        let room = (CAPACITY / 8 * 7 / self.txs.len()) as u64;
        (room / 8, room / 8 * 7)
    }

    fn push(&mut self, setting: &Setting, whole: bool) -> Result<Run, String> {
        let yields = crowded(&setting.cores, self.txs.len());
        let (warm, count) = self.share();
        let roles = self.txs.iter_mut().enumerate().map(|(id, Apart(tx))| {
            let mut sent = 0;
            let role: Role<'_> = Box::new(move |n| {
                let mut patience = Patience::new(yields);
                let mut message = E::numbered(0);
                for i in sent..sent + n {
                    if whole {
                        message = E::numbered(numbering(id, i));
                    }
                    while !tx.push(black_box(&message)) {
                        patience.miss();
                    }
                }
                sent += n;
            });
            role
        });
        together(&setting.cores, roles.collect(), warm, count)
    }
}

impl<E: Element, Q: Queue<E>> Sampler for Alone<E, Q> {
    fn prepare(&mut self, setting: &Setting) -> Result<(), String> {
        self.push(setting, true)?;
        let mut verify = Verify::new(self.txs.len());
        let (warm, count) = self.share();
        let expected = (warm + count) * self.txs.len() as u64;
        let found = (0..).take_while(|_| self.rx.pop(&mut verify)).count() as u64;
        if found != expected {
            return Err(format!("{found} messages came out, {expected} went in"));
        }
        verify.wrong.map_or(Ok(()), Err)
    }

    fn sample(&mut self, setting: &Setting) -> Result<Sample, String> {
        let run = self.push(setting, false)?;
        while self.rx.pop(&mut Seen) {}
        Ok(run.per(self.share().1 * self.txs.len() as u64))
    }
}
