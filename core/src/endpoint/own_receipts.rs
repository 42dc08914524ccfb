//! What a kernel remembers of its own messages' receipts, so that it need not look at all of them: which may still be
//! pending, and on which it has a verdict of its own.

/// Calls of [`next_step`](OwnReceipts::next_step) between two sweeps over what is pending.
const SWEEP_EVERY: u32 = 1024;

/// A sweep over what may be pending, in steps.
pub(super) struct OwnReceipts {
    /// All receipts below this sequence are settled or overwritten.
    unresolved: u64,
    /// Where the next step of a sweep looks.
    swept: u64,
    /// The first message that this sweep has found pending.
    pending: Option<u64>,
    /// Calls until a sweep begins again.
    rest: u32,
    /// Up to this sequence, opening a receipt may overwrite a verdict of this kernel's own.
    retract_until: u64,
    /// How many messages back a receipt can be asked for.
    capacity: u64,
}

impl OwnReceipts {
    /// For a kernel index whose last owner has sent messages up to this sequence, if any.
    pub(super) const fn recover(last: Option<u64>, capacity: u64) -> Self {
        // What a predecessor has given up; an index that has never sent has none.
        let retract_until = match last {
            Some(last) => last.saturating_add(capacity),
            None => 0,
        };
        Self { unresolved: 1, swept: 1, pending: None, rest: 0, retract_until, capacity }
    }

    /// Whether the entry of a sequence may hold a verdict of this kernel's own on an earlier message.
    #[inline(always)]
    pub(super) const fn may_hold_verdict(&self, sequence: u64) -> bool {
        sequence <= self.retract_until
    }

    /// This kernel has given up a message.
    pub(super) fn gave_up(&mut self, sequence: u64) {
        self.retract_until = self.retract_until.max(sequence.saturating_add(self.capacity));
    }

    /// Whether messages up to `last` may be pending.
    // The oldest pending message is never behind the sweep, and the sweep ends just behind the last one sent.
    #[inline(always)]
    pub(super) const fn any_unresolved(&self, last: u64) -> bool {
        self.unresolved <= last
    }

    /// The oldest message up to `last` that may be pending.
    pub(super) fn oldest(&self, last: u64) -> u64 {
        self.first_from(self.unresolved, last)
    }

    /// Where the sweep goes on; `None` while it rests.
    pub(super) fn next_step(&mut self, last: u64) -> Option<u64> {
        if self.swept > last {
            self.rest = self.rest.saturating_sub(1);
            if self.rest == 0 {
                self.rest = SWEEP_EVERY;
                self.swept = self.unresolved;
                self.pending = None;
            }
            return None;
        }
        Some(self.first_from(self.swept, last))
    }

    /// The sweep has found this message pending.
    pub(super) fn found_pending(&mut self, sequence: u64) {
        self.pending.get_or_insert(sequence);
    }

    /// The sweep has come to this message, which it has not looked at.
    pub(super) fn end_step(&mut self, sequence: u64, last: u64) {
        self.swept = sequence;
        if sequence > last {
            self.end_sweep(self.pending, last);
        }
    }

    /// All messages up to `last` were looked at: none before this one is pending.
    pub(super) fn end_sweep(&mut self, first_pending: Option<u64>, last: u64) {
        self.swept = last.saturating_add(1);
        self.unresolved = first_pending.unwrap_or(self.swept);
        self.pending = first_pending;
        self.rest = SWEEP_EVERY;
    }

    /// Entries before that were used again.
    fn first_from(&self, from: u64, last: u64) -> u64 {
        from.max(last.saturating_sub(self.capacity - 1)).max(1)
    }
}
