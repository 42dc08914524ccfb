//! Falling asleep: the last look before a kernel sleeps at its [wake flag](crate::WakeFlag).

use super::Endpoint;
use crate::fabric::Command;
use crate::platform::Platform;
use crate::shape::Shape;
use crate::wake_flag::Sleep;

/// Stamps that a kernel looks at before it sleeps: a stamp in a cold line costs a third of a microsecond.
const STAMPS_PER_SLEEP: usize = 16;

impl<'f, P: Platform, Sh: Shape> Endpoint<'f, P, Sh> {
    /// Begins a sleep until there is mail or a command other than `obeyed`, and looks for both once more: `None` if one is
    /// there. The look for mail is at all doorbells, and at the stamps of 16 shards in turn, for a sender that died before
    /// its doorbell. The backend then sleeps until [`Sleep::is_over`], but for no
    /// longer than a slice of its choice, and [ends](Sleep::end) the sleep. The kernel must have registered as
    /// [parking](crate::Registration::parking), or nobody wakes it. Senders with no room in a shard see it freed.
    pub fn fall_asleep(&mut self, obeyed: Command) -> Option<Sleep<'f>> {
        self.sleep_unless(|me| me.inbox.look(&me.member, STAMPS_PER_SLEEP) || me.command() != obeyed)
    }

    /// As [`fall_asleep`](Self::fall_asleep), for a kernel that obeys [`Command::Pause`]: until there is traffic in
    /// transit or another command. Mail for this kernel is left where it is. While a claim of high priority waits for its
    /// message, whose sender may be dead, the sleep is a [short](Sleep::soon) one: what lies behind wakes nobody again.
    pub fn fall_asleep_paused(&mut self) -> Option<Sleep<'f>> {
        let sleep = self.sleep_unless(|me| me.poll() > 0 || me.command() != Command::Pause)?;
        Some(sleep.with_soon(sleep.soon() || self.inbox.is_stalled()))
    }

    fn sleep_unless(&mut self, stays_awake: impl FnOnce(&mut Self) -> bool) -> Option<Sleep<'f>> {
        if !self.may_write() {
            return None;
        }
        let flag = &self.member.entry().wake_flag;
        self.inbox.publish(&self.member);
        let sleep = flag.fall_asleep();
        if stays_awake(self) {
            sleep.end();
            return None;
        }
        Some(sleep.with_soon(!self.deferred.is_empty()))
    }

    /// Whether nothing is left to receive or to pass on, by the stamps of all shards.
    #[must_use]
    pub fn is_drained(&mut self) -> bool {
        !self.inbox.look(&self.member, self.member.fabric().shape().producers()) && self.deferred.is_empty()
    }
}

#[cfg(test)]
#[cfg(not(k2k_loom))]
mod tests {
    use super::*;
    use crate::{Config, Fabric, Fixed, KernelId, Message, Registration, WakeFlag};

    struct Still;
    impl Platform for Still {
        fn now_ns(&self) -> u64 {
            1
        }
        fn wake(&self, flag: &WakeFlag) {
            flag.wake_up();
        }
    }

    type Small = Fabric<4, 128, 64>;
    type End<'f> = Endpoint<'f, Still, Fixed<4, 128, 64>>;

    fn with_kernels(f: impl FnOnce(&Small, [End<'_>; 4])) {
        extern crate std;
        // SAFETY: all zero is a valid, idle fabric.
        let fabric = unsafe { std::boxed::Box::<Small>::new_zeroed().assume_init() };
        fabric.init(&Config::default()).unwrap();
        let kernels = ["a", "b", "c", "d"];
        f(&fabric, kernels.map(|name| fabric.register(&Registration::new(name).unwrap().parking(), Still).unwrap()));
    }

    /// Sends, and dies between the message's stamp and the doorbell word of its shard.
    fn send_and_die(fabric: &Small, from: &mut End<'_>, via: KernelId, to: KernelId) {
        fabric.set_route(from.id(), to, via).unwrap();
        from.send(to, &Message::new(7)).unwrap();
        let (via, from) = (via.index(), from.member.index());
        let fabric = fabric.handle();
        fabric.sharded(fabric.index(via).unwrap()).unring(from);
    }

    #[test]
    fn a_kernel_that_goes_to_sleep_finds_mail_whose_sender_died_before_its_doorbell() {
        with_kernels(|fabric, [_, mut b, mut c, mut d]| {
            for from in [&mut c, &mut d] {
                send_and_die(fabric, from, b.id(), b.id());
                assert_eq!(b.backlog(), crate::Backlog::None, "nothing has rung");
                assert!(b.fall_asleep(Command::Run).is_none() && !b.wake_flag().is_asleep());
                assert_eq!(b.try_receive().unwrap().header.kind, 7);
                let sleep = b.fall_asleep(Command::Run).unwrap();
                assert!(!sleep.is_over());
            }
        });
    }

    #[test]
    fn a_kernel_that_only_polls_finds_it_too() {
        with_kernels(|fabric, [mut a, mut b, mut c, _]| {
            // So that the shard of `c` is being served, and not that of `a`.
            c.send(b.id(), &Message::new(1)).unwrap();
            assert!(b.try_receive().is_some());
            send_and_die(fabric, &mut a, b.id(), b.id());
            assert!((0..64 * 4).any(|_| b.try_receive().is_some()));
        });
    }

    #[test]
    fn a_kernel_that_is_always_busy_finds_it_too() {
        with_kernels(|fabric, [mut a, mut b, mut c, _]| {
            a.send(b.id(), &Message::new(1)).unwrap();
            assert!(b.try_receive().is_some());
            send_and_die(fabric, &mut c, b.id(), b.id());
            let found = (0..64 * 64 * 4).any(|_| {
                a.send(b.id(), &Message::new(1)).unwrap();
                b.try_receive().unwrap().header.kind == 7
            });
            assert!(found);
        });
    }

    #[test]
    fn a_paused_kernel_passes_it_on_although_own_mail_that_has_not_rung_lies_before_it() {
        with_kernels(|fabric, [mut a, mut b, mut c, mut d]| {
            fabric.command(b.id(), Command::Pause, &Still).unwrap();
            for from in [&mut a, &mut d] {
                send_and_die(fabric, from, b.id(), b.id());
            }
            let (via, to) = (b.id(), a.id());
            send_and_die(fabric, &mut c, via, to);
            assert!(b.fall_asleep_paused().is_none());
            assert_eq!(a.try_receive().unwrap().header.kind, 7);
            assert!(b.fall_asleep_paused().is_some(), "its own mail does not keep it awake");
            assert!(b.fall_asleep(Command::Pause).is_none(), "unless it waits for that");
        });
    }

    #[test]
    fn a_kernel_is_not_drained_while_such_mail_waits() {
        with_kernels(|fabric, [mut a, mut b, ..]| {
            assert!(b.is_drained());
            send_and_die(fabric, &mut a, b.id(), b.id());
            assert!(!b.is_drained());
            assert!(b.try_receive().is_some() && b.is_drained());
        });
    }

    #[test]
    fn a_command_that_the_kernel_has_not_obeyed_keeps_it_awake() {
        with_kernels(|fabric, [_, mut b, ..]| {
            assert!(b.fall_asleep(Command::Run).is_some());
            fabric.command(b.id(), Command::Drain, &Still).unwrap();
            assert!(!b.wake_flag().is_asleep(), "and wakes it");
            assert!(b.fall_asleep(Command::Run).is_none() && b.fall_asleep_paused().is_none());
            assert!(b.fall_asleep(Command::Drain).is_some());
        });
    }

    struct Turned(core::cell::Cell<u64>);
    impl Platform for Turned {
        fn now_ns(&self) -> u64 {
            self.0.get()
        }
        fn wake(&self, flag: &WakeFlag) {
            flag.wake_up();
        }
    }

    /// A sender of high priority has died between its claim and its message; another's waits behind that.
    #[test]
    fn a_paused_kernel_does_not_sleep_a_whole_slice_on_traffic_behind_a_dead_senders_claim() {
        extern crate std;
        // SAFETY: all zero is a valid, idle fabric.
        let fabric = unsafe { std::boxed::Box::<Small>::new_zeroed().assume_init() };
        fabric.init(&Config::default()).unwrap();
        let clock = Turned(core::cell::Cell::new(1));
        let [mut a, mut b, c] =
            ["a", "b", "c"].map(|name| fabric.register(&Registration::new(name).unwrap().parking(), &clock).unwrap());
        fabric.command(b.id(), Command::Pause, &clock).unwrap();
        fabric.set_route(a.id(), c.id(), b.id()).unwrap();
        let mut dead = fabric.inboxes[b.member.index()].high.producer(3);
        core::mem::forget(dead.claim().unwrap());
        a.send_priority(c.id(), &Message::new(7), crate::Priority::High).unwrap();
        let mut slept_ms = 0;
        let mut slept_long = 0;
        while c.pending_count() == 0 {
            assert!(slept_ms < 1_000, "it is passed on");
            if let Some(sleep) = b.fall_asleep_paused() {
                let slice_ms = if sleep.soon() { 1 } else { 48 };
                slept_long += u32::from(!sleep.soon());
                sleep.end();
                slept_ms += slice_ms;
                clock.0.set(clock.0.get() + slice_ms * 1_000_000);
            }
        }
        assert!(slept_long == 0 && slept_ms <= 12, "{slept_ms} ms");
        assert!(!b.fall_asleep_paused().unwrap().soon(), "and sleeps well then");
    }
}
