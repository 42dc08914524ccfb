//! Of each way in which messages fail: when a kernel counted the first and the last one, and which message the last was.
//!
//! The kernel that counts a failed message notes it here afterwards. So a message that is received costs nothing here, and
//! a supervisor that comes an hour later still finds out when something began to go wrong, and for whom. How many failed
//! says the kernel table ([`Stats`](super::Stats)).
//!
//! 1. All words are written by the owner of the kernel index, and read by anyone, in whatever order the memory makes of it:
//!    no access has an order, as in a [trace](super::trace).
//! 2. Each kind of failure has two records, which are written in turn. A reader that caught words of two writes finds that
//!    `check`, a hash of all others, does not fit, and takes the other record: that of the failure before. An owner that
//!    dies while it writes leaves that one, too.
//! 3. The owner takes the time of the first failure from the newest whole record: so it stays as long as the fabric, also
//!    when the kernel index changes hands, like the counts.

use super::DeliveryStatus;
use super::trace::check;
use crate::message::{KernelId, MessageId};
use crate::sync::Ordering::Relaxed;
use crate::sync::{AtomicU64, shared_struct};

/// Pairs of records: one for each kind of failure. A model checker's words are large, so there all kinds share one.
const PAIRS: usize = if cfg!(k2k_loom) { 1 } else { 6 };

/// What is noted of one kind of failure at one kernel index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The kind: none of `Pending` and `Delivered`.
    pub status: DeliveryStatus,
    /// Wall time at which the first one was counted, ns since 1970.
    pub first_wall_ns: u64,
    /// Wall time at which the last one was counted, ns since 1970.
    pub last_wall_ns: u64,
    /// The message of the last one.
    pub example: MessageId,
    /// Hops that it had made, as far as the kernel that counted it knew.
    pub hops: u8,
}

shared_struct! {
    struct Record[][] {
        /// 0: never used; else the records of this kind that were written up to this one.
        number: AtomicU64,
        /// source << 16 | hops << 8 | status
        what: AtomicU64,
        sequence: AtomicU64,
        first_wall_ns: AtomicU64,
        last_wall_ns: AtomicU64,
        check: AtomicU64,
    }
}

impl Record {
    /// Everything but the check, in order.
    const fn words(&self) -> [&AtomicU64; 5] {
        [&self.number, &self.what, &self.sequence, &self.first_wall_ns, &self.last_wall_ns]
    }

    /// The words, if the record was used and is whole.
    fn read(&self) -> Option<[u64; 5]> {
        // Relaxed: rule 2 makes readers independent of order.
        let words = self.words().map(|word| word.load(Relaxed));
        (words[0] != 0 && self.check.load(Relaxed) == check(&words)).then_some(words)
    }

    fn write(&self, values: &[u64; 5]) {
        // Relaxed: as in `read`. Index by index: an iterator over both keeps them in a GPU's local memory.
        let words = self.words();
        for i in 0..values.len() {
            words[i].store(values[i], Relaxed);
        }
        self.check.store(check(values), Relaxed);
    }
}

shared_struct! {
    struct Pair[][] {
        even: Record,
        odd: Record,
    }
}

impl Pair {
    /// The newest whole record's words.
    fn newest(&self) -> Option<[u64; 5]> {
        match (self.even.read(), self.odd.read()) {
            (Some(even), Some(odd)) => Some(if even[0] > odd[0] { even } else { odd }),
            (even, odd) => even.or(odd),
        }
    }
}

shared_struct! {
    /// What is noted of the failures at one kernel index.
    #[repr(align(128))]
    pub struct Failures[][] {
        pairs: [Pair; PAIRS],
    }
}

impl Failures {
    /// Notes a failure that was counted at this wall time. Only the owner of the kernel index calls this.
    pub(crate) fn write(&self, status: DeliveryStatus, id: MessageId, hops: u8, wall_ns: u64) {
        let Some(pair) = self.pair(status) else { return };
        let (number, first_wall_ns) = match pair.newest() {
            Some([number, _, _, first_wall_ns, _]) => (number.wrapping_add(1), first_wall_ns),
            None => (1, wall_ns),
        };
        let what = id.source.raw() << 16 | u64::from(hops) << 8 | status as u64;
        let record = if number % 2 == 0 { &pair.even } else { &pair.odd };
        record.write(&[number, what, id.sequence, first_wall_ns, wall_ns]);
    }

    /// What is noted, by kind. Of a kind whose records are all being written, or were written over, nothing.
    pub fn read(&self) -> impl Iterator<Item = Failure> + '_ {
        self.pairs.iter().enumerate().filter_map(|(i, pair)| {
            let [_, what, sequence, first_wall_ns, last_wall_ns] = pair.newest()?;
            let status = DeliveryStatus::from_number(what as u8).filter(|&status| place(status) == Some(i))?;
            let example = MessageId { source: KernelId::from_raw(what >> 16), sequence };
            Some(Failure { status, first_wall_ns, last_wall_ns, example, hops: (what >> 8) as u8 })
        })
    }

    fn pair(&self, status: DeliveryStatus) -> Option<&Pair> {
        self.pairs.get(place(status)?)
    }
}

/// Which pair a kind of failure has; `None` for what is no failure.
const fn place(status: DeliveryStatus) -> Option<usize> {
    let kind = match status {
        DeliveryStatus::NotFound => 0,
        DeliveryStatus::QueueFull => 1,
        DeliveryStatus::Timeout => 2,
        DeliveryStatus::MaxHopsExceeded => 3,
        DeliveryStatus::Unanswered => 4,
        DeliveryStatus::NotAllowed => 5,
        DeliveryStatus::Pending | DeliveryStatus::Delivered => return None,
    };
    Some(kind % PAIRS)
}

#[cfg(not(k2k_loom))]
const _: () = assert!(size_of::<Failures>() == 5 * 128);

#[cfg(test)]
#[cfg(not(k2k_loom))]
mod tests {
    extern crate std;
    use super::*;
    use std::vec::Vec;

    fn failures() -> Failures {
        // SAFETY: `Shared`: zero is the idle state.
        unsafe { core::mem::zeroed() }
    }

    const fn id(sequence: u64) -> MessageId {
        MessageId { source: KernelId::new(3, 7), sequence }
    }

    fn all(failures: &Failures) -> Vec<Failure> {
        failures.read().collect()
    }

    #[test]
    fn the_first_time_stays_and_the_last_message_is_the_example() {
        let failures = failures();
        assert_eq!(all(&failures), []);
        let kinds = [
            DeliveryStatus::NotFound,
            DeliveryStatus::QueueFull,
            DeliveryStatus::Timeout,
            DeliveryStatus::MaxHopsExceeded,
            DeliveryStatus::Unanswered,
            DeliveryStatus::NotAllowed,
        ];
        for (i, status) in kinds.into_iter().enumerate() {
            for n in 0..5 {
                failures.write(status, id(n), 2, 100 * i as u64 + n);
            }
            let newest = Failure {
                status,
                first_wall_ns: 100 * i as u64,
                last_wall_ns: 100 * i as u64 + 4,
                example: id(4),
                hops: 2,
            };
            assert_eq!((all(&failures).len(), all(&failures)[i]), (i + 1, newest));
        }
        failures.write(DeliveryStatus::Delivered, id(9), 0, 9);
        failures.write(DeliveryStatus::Pending, id(9), 0, 9);
        assert!(all(&failures).iter().all(|failure| failure.example != id(9)));
    }

    #[test]
    fn a_record_that_a_death_cut_off_leaves_the_one_before() {
        let failures = failures();
        for n in 1..=2 {
            failures.write(DeliveryStatus::Timeout, id(n), 0, n);
        }
        let pair = failures.pair(DeliveryStatus::Timeout).unwrap();
        // The third one was being written.
        pair.odd.number.store(3, Relaxed);
        pair.odd.last_wall_ns.store(3, Relaxed);
        let second = all(&failures);
        assert_eq!((second[0].example, second[0].first_wall_ns, second[0].last_wall_ns), (id(2), 1, 2));
        // A successor goes on from there.
        failures.write(DeliveryStatus::Timeout, id(4), 0, 4);
        let fourth = all(&failures);
        assert_eq!((fourth[0].example, fourth[0].first_wall_ns, fourth[0].last_wall_ns), (id(4), 1, 4));
    }

    #[test]
    fn words_that_nobody_wrote_are_no_failure() {
        let failures = failures();
        failures.write(DeliveryStatus::Timeout, id(1), 0, 1);
        let timeout = failures.pair(DeliveryStatus::Timeout).unwrap();
        let words = timeout.newest().unwrap();
        // A whole record of another kind.
        failures.pair(DeliveryStatus::NotFound).unwrap().odd.write(&words);
        assert_eq!(all(&failures).len(), 1);
        for pair in &failures.pairs {
            for record in [&pair.even, &pair.odd] {
                record.words().into_iter().for_each(|word| word.store(u64::MAX, Relaxed));
                record.check.store(u64::MAX, Relaxed);
            }
        }
        assert_eq!(all(&failures), []);
        // The highest number that there is: the next one begins again.
        timeout.odd.write(&[u64::MAX, words[1], 1, 1, 1]);
        failures.write(DeliveryStatus::Timeout, id(2), 0, 2);
        failures.write(DeliveryStatus::Timeout, id(3), 0, 3);
        assert_eq!(all(&failures)[0].status, DeliveryStatus::Timeout);
    }
}
