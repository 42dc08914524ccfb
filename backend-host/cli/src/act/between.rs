//! A kernel put by a route between two kernels, to look at their messages: for `k2k tap` and `record`.
//!
//! 1. The kernel copies the route of `from` to `to` for itself, and then makes itself the next hop in the route of `from`.
//! 2. Earlier messages of `from` are on their way without the tap, and must not be overtaken: the tap waits, with the first
//!    message, until the next hop has taken the earlier messages.
//! 3. [`Endpoint::tap`] passes messages on, and shows them.
//! 4. At the end, the tap waits for a moment without messages on their way through it, leads all routes round itself, and
//!    passes on the messages that `from` was just sending to the tap.
//!
//! If no such moment comes within `PATIENCE`, because the receiver cannot keep up, messages may overtake earlier messages
//! on their way through the tap. No message is lost; the tap reports how many may be overtaken.
//!
//! A reaper finds a killed tap, leads routes round the tap as well, and passes its mail on.

use crate::fabric::{Any, Failure};
use crate::interrupt;
use core::time::Duration;
use k2k::{Broker, Command, Endpoint, KernelId, Message, Phase, ReceiveError, Wait};
use std::thread;
use std::time::Instant;

/// How long the end waits for a moment without messages on their way.
const PATIENCE: Duration = Duration::from_secs(2);

/// Longest time from a sender's look at its route to the message in the inbox, when the route has changed.
const STRAGGLE: Duration = Duration::from_millis(50);

/// Time between two checks whether the tap is to end.
const SLICE: Duration = Duration::from_millis(50);

/// Tries to replace a route while other programs replace it, too.
const TRIES: usize = 64;

/// Why a tap has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// The tap has seen enough.
    Enough,
    /// A signal, or `k2k stop`.
    Asked,
    /// The sender or the receiver has left.
    Left(KernelId),
}

/// How a tap has ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ended {
    pub(super) why: Why,
    /// Messages that went through the tap.
    pub(super) passed: u64,
    /// Messages on their way through the tap at its end: later messages may have overtaken them.
    pub(super) overtaken: u64,
}

impl Ended {
    /// Remarks for the user, a line each.
    pub(super) fn remarks(&self) -> Vec<String> {
        let mut remarks = vec![format!("{} messages went through", self.passed)];
        if let Why::Left(kernel) = self.why {
            remarks.push(format!("{kernel} has left"));
        }
        if self.overtaken > 0 {
            remarks.push(format!(
                "{} messages were on their way through the tap when it ended: later ones may have overtaken them",
                self.overtaken
            ));
        }
        remarks
    }
}

/// A tap.
pub(super) struct Between<'b> {
    broker: &'b Broker<Any>,
    me: Endpoint<Any>,
    from: KernelId,
    to: KernelId,
    passed: u64,
    /// Whether the wait for earlier messages is over.
    is_open: bool,
}

impl<'b> Between<'b> {
    /// Puts the kernel `me` between `from` and `to`.
    pub(super) fn new(
        broker: &'b Broker<Any>,
        mut me: Endpoint<Any>,
        from: KernelId,
        to: KernelId,
    ) -> Result<Self, Failure> {
        me.set_phase(Phase::Running);
        let fabric = broker.memory().fabric();
        for _ in 0..TRIES {
            let found = fabric.route(from, to);
            match found {
                Some(next_hop) => fabric.set_route(me.id(), to, next_hop)?,
                None => fabric.remove_route(me.id(), to),
            }
            if fabric.reroute(from, to, found, Some(me.id()))? {
                return Ok(Self { broker, me, from, to, passed: 0, is_open: false });
            }
        }
        Err(format!("the route of {from} to {to} changes all the time").into())
    }

    /// Passes messages on and shows them until `is_over`, asked some times a second, returns `true`, `show` returns `false`,
    /// or the command is asked to end.
    pub(super) fn run(
        mut self,
        is_over: impl Fn() -> bool,
        mut show: impl FnMut(&Message<65472>) -> bool,
    ) -> Result<Ended, Failure> {
        let why = loop {
            self.me.heartbeat();
            if interrupt::is_asked_for() || matches!(self.me.command(), Command::Drain | Command::Stop) {
                break Why::Asked;
            }
            if let Some(gone) = [self.from, self.to].into_iter().find(|id| !self.broker.is_registered(*id)) {
                break Why::Left(gone);
            }
            if is_over() {
                break Why::Enough;
            }
            if !self.is_open && !self.opens(SLICE) {
                continue;
            }
            let mut goes_on = true;
            match self.me.tap(SLICE, |message| goes_on = goes_on && show(message)) {
                Ok(tapped) => self.passed += tapped.passed as u64,
                Err(ReceiveError::Stopped) => break Why::Asked,
                Err(why) => return Err(why.into()),
            }
            if !goes_on {
                break Why::Enough;
            }
        };
        let overtaken = self.end()?;
        Ok(Ended { why, passed: self.passed, overtaken })
    }

    /// The next hop of messages through the tap.
    fn next_hop(&self) -> KernelId {
        self.broker.route(self.me.id(), self.to).unwrap_or(self.to)
    }

    /// Messages of a kernel in the inbox of the next hop: taken out so far, and waiting.
    fn mail(&self, of: KernelId) -> (u64, u64) {
        self.broker.memory().fabric().normal_mail(self.next_hop(), of).unwrap_or_default()
    }

    /// Waits for the first message, and until the next hop has taken all earlier messages. `false` if the wait takes
    /// longer than `timeout`: call again.
    fn opens(&mut self, timeout: Duration) -> bool {
        let began = Instant::now();
        let mut looks = 0;
        let mut nap = || {
            looks += 1;
            Wait::Park.nap(looks);
            began.elapsed() < timeout
        };
        while !self.me.has_mail_of(self.from) {
            if !nap() {
                return false;
            }
        }
        // High-priority messages are taken in the order of their arrival, from all senders alike.
        let (taken, waiting) = self.mail(self.from);
        while self.mail(self.from).0 < taken + waiting && self.broker.is_registered(self.next_hop()) {
            if !nap() {
                return false;
            }
        }
        self.is_open = true;
        true
    }

    /// Leads routes round the tap, and lets the tap leave. Returns the number of messages that may have been overtaken.
    fn end(&mut self) -> Result<u64, Failure> {
        let began = Instant::now();
        let in_tap = loop {
            self.pass_on()?;
            let in_tap = self.me.pending_count() + self.mail(self.me.id()).1;
            if in_tap == 0 || began.elapsed() > PATIENCE || interrupt::is_urgent() {
                break in_tap;
            }
            thread::yield_now();
        };
        let broker = self.broker;
        let fabric = broker.memory().fabric();
        let from = self.from;
        let sent = || fabric.stats(from).map_or(0, |stats| stats.sent);
        let sent_before = sent();
        fabric.bypass(self.me.id());
        // The sender may have looked at its route just before: after two more sends, it looks at the new route.
        let (changed, mut stragglers) = (Instant::now(), 0);
        loop {
            let passed = self.pass_on()?;
            stragglers += passed;
            let may_straggle = changed.elapsed() < STRAGGLE && sent().wrapping_sub(sent_before) < 2;
            // Messages left in the inbox have no room at their next hop: their deadlines bound this wait.
            if passed == 0 && !may_straggle && (self.me.pending_count() == 0 || interrupt::is_urgent()) {
                break;
            }
            Wait::Park.nap(u32::MAX);
        }
        Ok(in_tap.max(stragglers))
    }

    /// Passes the waiting messages on, without showing them.
    fn pass_on(&mut self) -> Result<u64, Failure> {
        self.me.heartbeat();
        match self.me.tap(Duration::ZERO, |_| {}) {
            Ok(tapped) => {
                self.passed += tapped.passed as u64;
                Ok(tapped.passed as u64)
            }
            Err(ReceiveError::Stopped) => Ok(0),
            Err(why) => Err(why.into()),
        }
    }
}

impl Drop for Between<'_> {
    fn drop(&mut self) {
        // Whatever the reason of the end: the kernel is about to leave, and must not stay any kernel's next hop.
        self.broker.memory().fabric().bypass(self.me.id());
    }
}
