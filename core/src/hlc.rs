//! A hybrid logical clock: timestamps that respect causality and stay close to the wall clock.
//!
//! Kulkarni, Demirbas, Madappa, Avva and Leone, "Logical Physical Clocks and Consistent Snapshots in Globally
//! Distributed Databases" (OPODIS 2014), figure 5. The names are CockroachDB's (`pkg/util/hlc`).
//!
//! A timestamp is (wall time, logical). If event *a* can have influenced event *b*, then `a < b`. The wall part is
//! never behind the physical clock of any kernel heard from, nor more than the allowed skew ahead of the own one.
//!
//! The physical clock is a parameter of each call, so that tests turn it by hand. Kernels pass the wall time, which may
//! be set at any time; nothing but timestamps hangs on it.
//!
//! | hazard | what happens |
//! | --- | --- |
//! | the physical clock stands still or goes back | the wall part stays, the logical part counts |
//! | a peer's clock is ahead by no more than `max_offset_ns` | the wall part follows it |
//! | a peer's clock is ahead by more | [`Clock::update`] refuses, and the own clock is as before |
//! | 2¹⁶ events in one nanosecond of wall time | the wall part moves on by 1 ns: order is kept, closeness costs 1 ns |

use core::fmt;

/// A point in hybrid time. Ordered by wall time, then logical.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp {
    /// ns since the Unix epoch. 64 bits last until the year 2554.
    pub wall_time_ns: u64,
    /// Counts events within one `wall_time_ns`.
    pub logical: u16,
}

impl Timestamp {
    /// The smallest timestamp after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        match self.logical.checked_add(1) {
            Some(logical) => Self { wall_time_ns: self.wall_time_ns, logical },
            // The logical part is used up: borrow a nanosecond.
            None => Self { wall_time_ns: self.wall_time_ns.saturating_add(1), logical: 0 },
        }
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:09},{}", self.wall_time_ns / 1_000_000_000, self.wall_time_ns % 1_000_000_000, self.logical)
    }
}

/// A peer's timestamp was too far ahead of the physical clock to follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SkewTooLarge {
    /// How far the peer is ahead, in ns.
    pub ahead_ns: u64,
    /// How far it may be, in ns.
    pub max_offset_ns: u64,
}

impl fmt::Display for SkewTooLarge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "peer's timestamp is {} ns ahead of the physical clock, more than the allowed {} ns: check the clocks",
            self.ahead_ns, self.max_offset_ns
        )
    }
}

impl core::error::Error for SkewTooLarge {}

/// One kernel's hybrid clock.
///
/// ```
/// use k2k_core::hlc::Clock;
///
/// let mut clock = Clock::new(1_000_000);
/// let sent = clock.now(100);
/// let later = clock.now(100); // the physical clock has not moved
/// assert!(sent < later);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    last: Timestamp,
    max_offset_ns: u64,
}

impl Clock {
    /// A clock that follows peers that are up to `max_offset_ns` ahead.
    #[must_use]
    pub const fn new(max_offset_ns: u64) -> Self {
        Self { last: Timestamp { wall_time_ns: 0, logical: 0 }, max_offset_ns }
    }

    /// The timestamp of a local event or of a message being sent; greater than every one before.
    #[inline]
    pub const fn now(&mut self, physical_ns: u64) -> Timestamp {
        self.last = if physical_ns > self.last.wall_time_ns {
            Timestamp { wall_time_ns: physical_ns, logical: 0 }
        } else {
            self.last.next()
        };
        self.last
    }

    /// The timestamp of receiving a message that was sent at `remote`; greater than `remote` and every one before.
    ///
    /// # Errors
    /// [`SkewTooLarge`] if `remote` is more than the allowed offset ahead of `physical_ns`. The clock is unchanged:
    /// one broken peer cannot drag everybody into the future.
    #[inline]
    pub const fn update(&mut self, physical_ns: u64, remote: Timestamp) -> Result<Timestamp, SkewTooLarge> {
        let ahead_ns = remote.wall_time_ns.saturating_sub(physical_ns);
        if ahead_ns > self.max_offset_ns {
            return Err(SkewTooLarge { ahead_ns, max_offset_ns: self.max_offset_ns });
        }
        let greatest = if remote.wall_time_ns > self.last.wall_time_ns
            || (remote.wall_time_ns == self.last.wall_time_ns && remote.logical > self.last.logical)
        {
            remote
        } else {
            self.last
        };
        self.last = if physical_ns > greatest.wall_time_ns {
            Timestamp { wall_time_ns: physical_ns, logical: 0 }
        } else {
            greatest.next()
        };
        Ok(self.last)
    }

    /// The last timestamp given out.
    #[must_use]
    pub const fn last(&self) -> Timestamp {
        self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const fn at(wall_time_ns: u64, logical: u16) -> Timestamp {
        Timestamp { wall_time_ns, logical }
    }

    #[test]
    fn a_standing_physical_clock_counts_logically() {
        let mut clock = Clock::new(0);
        assert_eq!([clock.now(5), clock.now(5), clock.now(5)], [at(5, 0), at(5, 1), at(5, 2)]);
    }

    #[test]
    fn a_physical_clock_that_goes_back_is_not_followed() {
        let mut clock = Clock::new(0);
        clock.now(10);
        assert_eq!(clock.now(3), at(10, 1));
        assert_eq!(clock.now(11), at(11, 0));
    }

    #[test]
    fn a_peer_ahead_within_the_bound_is_followed() {
        let mut clock = Clock::new(100);
        assert_eq!(clock.update(10, at(60, 7)), Ok(at(60, 8)));
        assert_eq!(clock.now(20), at(60, 9));
    }

    #[test]
    fn a_peer_too_far_ahead_is_refused_and_leaves_no_trace() {
        let mut clock = Clock::new(100);
        clock.now(10);
        let refused = clock.update(10, at(111, 0));
        assert_eq!(refused, Err(SkewTooLarge { ahead_ns: 101, max_offset_ns: 100 }));
        assert_eq!(clock.last(), at(10, 0));
    }

    #[test]
    fn a_used_up_logical_part_borrows_a_nanosecond() {
        let mut clock = Clock::new(0);
        clock.update(5, at(5, u16::MAX - 1)).unwrap();
        assert_eq!(clock.last(), at(5, u16::MAX));
        assert_eq!(clock.now(5), at(6, 0));
    }

    #[test]
    fn the_end_of_time_saturates() {
        let mut clock = Clock::new(u64::MAX);
        clock.update(0, at(u64::MAX, u16::MAX)).unwrap();
        assert_eq!(clock.last().wall_time_ns, u64::MAX);
    }

    proptest! {
        #[test]
        fn time_never_goes_back_and_follows_causes(
            steps in prop::collection::vec((any::<u32>(), prop::option::of((any::<u32>(), any::<u16>()))), 1..100),
        ) {
            let mut clock = Clock::new(1 << 20);
            let mut last = clock.last();
            for (physical, remote) in steps {
                let physical = u64::from(physical);
                let now = match remote {
                    None => clock.now(physical),
                    Some((wall, logical)) => {
                        let remote = at(u64::from(wall), logical);
                        match clock.update(physical, remote) {
                            Ok(now) => { prop_assert!(now > remote); now }
                            Err(e) => {
                                prop_assert!(e.ahead_ns > 1 << 20);
                                prop_assert_eq!(clock.last(), last);
                                continue;
                            }
                        }
                    }
                };
                prop_assert!(now > last);
                prop_assert!(now.wall_time_ns >= physical);
                last = now;
            }
        }
    }
}
