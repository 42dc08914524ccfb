//! Forwarding: a message from `a` to `b` directly, and through a third kernel, all three on one thread. The difference
//! is what a hop costs.

use crate::element::{Element, Envelope};
use crate::peers::ours::{End, fabric};
use crate::sample::{Role, Sample, Sampler, Setting, fill, together};
use core::hint::black_box;
use k2k_core::Message;

pub const METRICS: &[&str] = &["direct ns", "one hop ns", "per hop ns"];

const SLOTS: usize = 1024;

pub struct Forward<const PAYLOAD: usize> {
    /// `a`, the forwarder, `b`; dropped before the fabric.
    ends: Vec<End<3, SLOTS, PAYLOAD>>,
    fabric: crate::peers::Shared<k2k_core::Fabric<3, SLOTS, PAYLOAD>>,
    burst: u64,
    messages: u64,
}

impl<const PAYLOAD: usize> Forward<PAYLOAD> {
    pub fn boxed(burst: u64) -> Box<dyn Sampler> {
        let (fabric, ends) = fabric(3, false);
        Box::new(Self { ends, fabric, burst, messages: 0 })
    }

    fn route(&self, through: bool) {
        let [a, f, b] = [0, 1, 2].map(|i: usize| self.ends[i].id());
        if through {
            self.fabric.set_route(a, b, f).expect("all are registered");
        } else {
            self.fabric.remove_route(a, b);
        }
    }

    fn run(&mut self, setting: &Setting, through: bool, count: u64) -> Result<Sample, String> {
        self.route(through);
        let burst = self.burst;
        let [a, f, b] = self.ends.as_mut_slice() else { return Err("three kernels".to_owned()) };
        let to = b.id();
        let mut right = true;
        let role: Role<'_> = Box::new(|n| {
            let mut message = Envelope::<PAYLOAD>::numbered(1);
            let mut received = Message::new(0);
            for i in 0..n / burst {
                for j in 0..burst {
                    message.renumber(i * burst + j);
                    right &= a.send(to, black_box(&message.0)).is_ok();
                }
                if through {
                    right &= f.poll() as u64 == burst;
                }
                for j in 0..burst {
                    right &= b.try_receive_into(black_box(&mut received));
                    right &=
                        received.header.correlation_id == i * burst + j && received.header.hops == u8::from(through);
                }
            }
        });
        let run = together(&setting.cores, vec![role], count / 4 / burst * burst, count)?;
        if right { Ok(run.per(count)) } else { Err("a message was lost on the way".to_owned()) }
    }
}

impl<const PAYLOAD: usize> Sampler for Forward<PAYLOAD> {
    fn prepare(&mut self, setting: &Setting) -> Result<(), String> {
        let pilot = 64 * self.burst;
        let sample = self.run(setting, true, pilot)?;
        let elapsed = sample.values[0] * pilot as f64;
        self.messages = fill(setting, elapsed, pilot, pilot, 1 << 20) / self.burst * self.burst;
        Ok(())
    }

    fn sample(&mut self, setting: &Setting) -> Result<Sample, String> {
        let direct = self.run(setting, false, self.messages)?;
        let hop = self.run(setting, true, self.messages)?;
        let values = vec![direct.values[0], hop.values[0], hop.values[0] - direct.values[0]];
        Ok(Sample { values, preempted: direct.preempted || hop.preempted, distance: None })
    }
}
