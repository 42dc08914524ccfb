//! How long messages were on their way to a kernel: counts on a logarithmic scale.
//!
//! While that is switched on, the receiver of a message counts, for one message of [`LATENCY_SAMPLE`], the time from its
//! sending to its receipt, both on the hybrid clock: what a trace would show between the two events. Which messages these
//! are depends on their sequence alone, in a way that no regular pattern of sending meets.
//!
//! 1. All words are written by the owner of the kernel index, and read by anyone. No access has an order: each count is
//!    right by itself, and two of them may be of different moments. Counts go on when the kernel index changes hands.

use crate::sync::Ordering::Relaxed;
use crate::sync::{AtomicU64, shared_struct};

/// Of so many received messages one is counted, on average.
pub const LATENCY_SAMPLE: u64 = 1 << SAMPLE_BITS;
const SAMPLE_BITS: u32 = 4;

/// Steps per power of two.
const STEPS: u64 = 4;

/// Counts: four steps for each power of two up to 2⁴⁰ ns, 18 minutes; the last one also has what took longer. A model
/// checker's words are large, so there are fewer there.
const BUCKETS: usize = if cfg!(k2k_loom) { 2 } else { 156 };

/// Whether a message of this sequence is one of those that are counted.
#[inline(always)]
pub(crate) const fn is_sampled(sequence: u64) -> bool {
    // 2⁶⁴ divided by the golden ratio: of any arithmetic progression of sequences, the same share is counted.
    sequence.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (u64::BITS - SAMPLE_BITS) == 0
}

/// Which count a time belongs to.
const fn bucket(ns: u64) -> usize {
    let bucket = if ns < STEPS {
        ns
    } else {
        let power = ns.ilog2() as u64;
        (power - 1) * STEPS + (ns >> (power - 2)) % STEPS
    };
    if bucket < BUCKETS as u64 { bucket as usize } else { BUCKETS - 1 }
}

/// The longest time of a count, ns.
const fn longest(bucket: usize) -> u64 {
    let next = bucket as u64 + 1;
    if bucket + 1 >= BUCKETS {
        u64::MAX
    } else if next < STEPS {
        next - 1
    } else {
        ((STEPS + next % STEPS) << (next / STEPS - 1)) - 1
    }
}

shared_struct! {
    /// One kernel's counts.
    #[repr(align(128))]
    pub(crate) struct Latencies[][] {
        sum_ns: AtomicU64,
        counts: [AtomicU64; BUCKETS],
    }
}

impl Latencies {
    /// Counts a message that was on its way for so long. Only the owner of the kernel index calls this.
    pub(crate) fn count(&self, ns: u64) {
        let add = |word: &AtomicU64, by| {
            // Relaxed, both: rule 1.
            word.store(word.load(Relaxed).wrapping_add(by), Relaxed);
        };
        add(&self.counts[bucket(ns)], 1);
        add(&self.sum_ns, ns);
    }

    pub(crate) fn read(&self) -> Latency {
        // Relaxed, both: rule 1.
        let mut latency = Latency { sum_ns: self.sum_ns.load(Relaxed), counts: [0; BUCKETS] };
        for (count, word) in latency.counts.iter_mut().zip(&self.counts) {
            *count = word.load(Relaxed);
        }
        latency
    }
}

#[cfg(not(k2k_loom))]
const _: () = assert!(size_of::<Latencies>() == 10 * 128);

/// How long messages were on their way to a kernel index, as far as they were counted: one of [`LATENCY_SAMPLE`], while
/// that was switched on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Latency {
    sum_ns: u64,
    counts: [u64; BUCKETS],
}

impl Latency {
    /// Messages that were counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// The sum of their times, ns.
    #[must_use]
    pub const fn sum_ns(&self) -> u64 {
        self.sum_ns
    }

    /// How many of them took how long: the longest time of each step, ns, and the count, from short to long. The last step
    /// has no longest time: `u64::MAX`.
    pub fn steps(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.counts.iter().enumerate().map(|(bucket, count)| (longest(bucket), *count))
    }

    /// A time that this share of the messages (0 to 1) did not exceed, ns: at most a quarter too long. `None` if none was
    /// counted.
    #[must_use]
    pub fn quantile(&self, share: f64) -> Option<u64> {
        let rank = (self.count() as f64 * share) as u64;
        let mut sum = 0_u64;
        self.steps().filter(|(_, count)| *count > 0).find_map(|(longest, count)| {
            sum = sum.saturating_add(count);
            (sum > rank || sum == self.count()).then_some(longest)
        })
    }

    /// What has been counted since.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let mut latency = self.clone();
        latency.sum_ns = self.sum_ns.wrapping_sub(before.sum_ns);
        for (count, before) in latency.counts.iter_mut().zip(&before.counts) {
            *count = count.saturating_sub(*before);
        }
        latency
    }
}

#[cfg(test)]
#[cfg(not(k2k_loom))]
mod tests {
    extern crate std;
    use super::*;
    use proptest::prelude::*;

    fn latencies() -> Latencies {
        // SAFETY: `Shared`: zero is the idle state.
        unsafe { core::mem::zeroed() }
    }

    proptest! {
        #[test]
        fn a_time_is_in_the_count_that_ends_at_most_a_quarter_above_it(ns in prop_oneof![0..100_u64, 0..1_u64 << 40]) {
            let bucket = bucket(ns);
            prop_assert!(longest(bucket) >= ns && (bucket + 1 == BUCKETS || longest(bucket) <= ns + ns / 4));
            prop_assert!(bucket == 0 || longest(bucket - 1) < ns);
        }
    }

    #[test]
    fn quantiles_are_of_what_was_counted_since() {
        let latencies = latencies();
        assert_eq!(latencies.read().quantile(0.5), None);
        (0..100).for_each(|_| latencies.count(1_000));
        let before = latencies.read();
        assert_eq!((before.count(), before.sum_ns(), before.quantile(0.5)), (100, 100_000, Some(1_023)));
        (0..98).for_each(|_| latencies.count(100));
        latencies.count(1_000_000);
        latencies.count(u64::MAX);
        let since = latencies.read().since(&before);
        assert_eq!((since.count(), since.quantile(0.0), since.quantile(0.5)), (100, Some(111), Some(111)));
        assert_eq!((since.quantile(0.98), since.quantile(0.99)), (Some(1_048_575), Some(u64::MAX)));
        assert_eq!(since.quantile(1.0), Some(u64::MAX));
        assert_eq!(since.steps().map(|(_, count)| count).sum::<u64>(), 100);
    }

    #[test]
    fn one_of_sixteen_is_counted_of_every_regular_pattern() {
        for every in 1..=64 {
            let counted = (0..1 << 14).filter(|n| is_sampled(n * every + 3)).count();
            assert!((1_000..=1_048).contains(&counted), "{counted} of every {every}");
        }
    }
}
