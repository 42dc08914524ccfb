//! Receiving in a fabric of many kernels: one thread sends one message and receives it, or polls an empty inbox.

use crate::element::{Element, Envelope};
use crate::peers::Shared;
use crate::peers::ours::{End, fabric};
use crate::sample::{Role, Sample, Sampler, Setting, fill, together};
use core::hint::black_box;
use k2k_core::{Fabric, Message};

const SLOTS: usize = 64;
const PAYLOAD: usize = 64;

/// `senders`: the kernels that send in turn, one message at a time; none: the inbox stays empty.
pub struct Receive<const KERNELS: usize> {
    /// Dropped before the fabric.
    ends: Vec<End<KERNELS, SLOTS, PAYLOAD>>,
    _fabric: Shared<Fabric<KERNELS, SLOTS, PAYLOAD>>,
    senders: &'static [usize],
    rounds: u64,
}

impl<const KERNELS: usize> Receive<KERNELS> {
    pub fn boxed(senders: &'static [usize]) -> Box<dyn Sampler> {
        let (fabric, ends) = fabric(KERNELS, false);
        Box::new(Self { ends, _fabric: fabric, senders, rounds: 0 })
    }

    fn run(&mut self, setting: &Setting, count: u64) -> Result<Sample, String> {
        let senders = self.senders;
        let (receiver, others) = self.ends.split_first_mut().ok_or("no kernels")?;
        let to = receiver.id();
        let mut right = true;
        let role: Role<'_> = Box::new(|n| {
            let mut message = Envelope::<PAYLOAD>::numbered(1);
            let mut received = Message::new(0);
            let mut turn = senders.iter().cycle();
            for i in 0..n {
                if let Some(sender) = turn.next() {
                    message.renumber(i);
                    right &= others[*sender - 1].send(to, black_box(&message.0)).is_ok();
                    right &= receiver.try_receive_into(black_box(&mut received));
                    right &= received.header.correlation_id == i;
                } else {
                    right &= !receiver.try_receive_into(black_box(&mut received));
                }
            }
        });
        let run = together(&setting.cores, vec![role], count / 4, count)?;
        if right { Ok(run.per(count)) } else { Err("a message was lost or came from nowhere".to_owned()) }
    }
}

impl<const KERNELS: usize> Sampler for Receive<KERNELS> {
    fn prepare(&mut self, setting: &Setting) -> Result<(), String> {
        let sample = self.run(setting, 4096)?;
        self.rounds = fill(setting, sample.values[0] * 4096.0, 4096, 4096, 1 << 20);
        Ok(())
    }

    fn sample(&mut self, setting: &Setting) -> Result<Sample, String> {
        self.run(setting, self.rounds)
    }
}
