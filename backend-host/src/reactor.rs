//! Wakes the tasks of this process that `await` mail.
//!
//! A sender, perhaps in another process, wakes a sleeping kernel through a futex, and no task can `await` a futex. So each
//! awaited endpoint leaves its task's waker here, under the address of its wake flag:
//!
//! ```text
//!   task:              look ── none ── fall asleep ── look again ── arm ── Pending              poll: look ── Ready
//!                                                                    ↓                           ↑
//!   reactor:                                             flag, sleep, waker ─────────────> wake the task
//!                                                                    ↑ takes it
//!   sender in here:                             publish ── end the sleep                         ↑
//!   sender elsewhere:                           publish ── end the sleep, futex wake ──> helper thread
//! ```
//!
//! A sender in the same process takes the waker and calls it: no system call, no other thread. For all other wake-ups
//! there is one helper thread per process, as long as any endpoint has been awaited and lives. The helper thread sleeps in
//! the futexes of all wake flags that other processes can reach (`futex_waitv`), at most until the first armed sleep ends.
//!
//! # Why no wake-up is lost
//!
//! 1. An endpoint is entered here before its first armed sleep. A sender that sees the flag raised for such a
//!    sleep therefore finds the entry, under the lock.
//! 2. A sender in this process ends the sleep under the lock; arming looks under the lock whether the sleep is over. The
//!    later of these two steps wakes the task.
//! 3. A sender in another process ends the sleep and wakes the futex in one step. The helper thread reads the flag's word
//!    before it looks whether the armed sleep is over, and sleeps only while the word holds the value read. It
//!    stays in the futex while later sleeps come and go: a futex wakes by address. So arming costs no system call.
//! 4. No armed sleep lasts longer than its time, at most a [slice](crate::wait): the task then looks for itself.
//!
//! Wakers are the executor's code: they are cloned, called and dropped outside of the lock, and a waker's panic reaches
//! neither the sender nor the helper thread. A waker may poll the task at once, also on the sender's thread, and may drop
//! the endpoint.

use crate::contain::contain;
use crate::platform::monotonic_ns;
use crate::process::Origin;
use core::hash::{BuildHasherDefault, Hasher};
use core::task::Waker;
use core::time::Duration;
use k2k_core::sync::AtomicU32;
use k2k_core::sync::Ordering::Relaxed;
use k2k_core::{Sleep, WakeFlag};
use rustix::io::Errno;
use rustix::thread::futex;
use rustix::time::{ClockId, Timespec};
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;

/// Most futexes in one call, including the reactor's own (the system's `FUTEX_WAITV_MAX`).
const FUTEXES: usize = 128;

/// Time between looks at sleeps whose futexes do not fit into the call, or if the system has no such call.
const LOOK_NS: u64 = 1_000_000;

/// The wakers of a process.
#[derive(Debug)]
pub(crate) struct Reactor {
    state: Mutex<State>,
    /// Changes when the helper thread is to look again.
    nudges: AtomicU32,
}

#[derive(Debug, Default)]
struct State {
    /// Entries by the address of the flag.
    entries: HashMap<usize, Entry, BuildHasherDefault<ByAddress>>,
    /// Number of endpoints entered so far.
    entered: u64,
    helper: Helper,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Helper {
    /// There is no helper thread.
    #[default]
    Absent,
    /// The helper thread will look at every entry before it sleeps.
    Awake,
    /// The helper thread sleeps until this monotonic time, ns; `None`: until nudged.
    Asleep(Option<u64>),
}

/// An awaited endpoint.
#[derive(Debug)]
struct Entry {
    /// Number of the endpoint: a later endpoint may have the same flag, when the kernel of the first was taken for dead.
    number: u64,
    /// Lives until the entry is removed: an endpoint drops its [`Entered`] before its memory.
    flag: &'static WakeFlag,
    /// Whether other processes can reach the flag.
    shared: bool,
    /// Whether the end of a sleep also wakes the helper thread, because this flag is among its futexes by now.
    reached: bool,
    armed: Option<Armed>,
}

#[derive(Debug)]
struct Armed {
    /// The armed sleep; `None` for a nap, which always lasts until `until`.
    sleep: Option<Sleep<'static>>,
    /// End of the sleep at the latest; monotonic, ns.
    until: u64,
    waker: Waker,
}

impl Armed {
    fn is_over(&self) -> bool {
        self.sleep.is_some_and(|sleep| sleep.is_over())
    }
}

impl Reactor {
    /// The reactor of this process: a forked process has a reactor of its own.
    pub(crate) fn here() -> &'static Self {
        /// The reactor of a life of the process, and a link to the reactor of the life after a fork.
        struct Life {
            number: u64,
            reactor: Reactor,
            next: OnceLock<&'static Life>,
        }
        static FIRST: OnceLock<&'static Life> = OnceLock::new();
        let number = Origin::here().life();
        let new = || -> &'static Life {
            let reactor = Reactor { state: Mutex::default(), nudges: AtomicU32::new(0) };
            Box::leak(Box::new(Life { number, reactor, next: OnceLock::new() }))
        };
        let mut life = *FIRST.get_or_init(new);
        while life.number != number {
            life = life.next.get_or_init(new);
        }
        &life.reactor
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code that can panic runs under this lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enters an endpoint, for as long as the returned value lives. `shared`: other processes can reach the flag.
    ///
    /// # Safety
    /// The flag lives at least as long as the returned value.
    ///
    /// # Panics
    /// If the system cannot start the helper thread.
    pub(crate) unsafe fn enter(&'static self, flag: &WakeFlag, shared: bool) -> Entered {
        // SAFETY: the caller vouches that the flag lives until the entry is removed.
        let flag: &'static WakeFlag = unsafe { &*core::ptr::from_ref(flag) };
        let mut state = self.lock();
        state.entered += 1;
        let number = state.entered;
        let old = state.entries.insert(address(flag), Entry { number, flag, shared, reached: !shared, armed: None });
        let entered = Entered { reactor: self, number, flag, origin: Origin::here() };
        if state.helper == Helper::Absent {
            self.start(state);
        } else if shared {
            // So that the helper thread sleeps in this futex, too.
            self.nudge(state);
        }
        // The waker of an endpoint whose kernel was taken over: its task finds out.
        wake(old.and_then(|entry| entry.armed));
        entered
    }

    /// Starts the helper thread.
    fn start(&'static self, mut state: MutexGuard<'_, State>) {
        state.helper = Helper::Awake;
        drop(state);
        if let Err(why) = thread::Builder::new().name("k2k-tasks".to_owned()).spawn(|| self.help()) {
            self.lock().helper = Helper::Absent;
            panic!("the system gives no thread to wake tasks with: {why}");
        }
    }

    /// For a sender: ends the sleep at the flag, if this process awaits it, and wakes the task. `false` if a thread may
    /// sleep in the flag's futex.
    pub(crate) fn wake(&self, flag: &WakeFlag) -> bool {
        let mut state = self.lock();
        let Some(entry) = state.entries.get_mut(&address(flag)) else { return false };
        let armed = entry.armed.take_if(|armed| armed.sleep.is_some());
        // A leaked future, or a blocking receive since, has left an earlier sleep here.
        let is_now = armed.as_ref().and_then(|armed| armed.sleep).is_some_and(|sleep| {
            let was_now = !sleep.is_over();
            sleep.end();
            // Relaxed: a sleep that begins later looks at the inbox first, and finds the message.
            was_now && entry.flag.word().load(Relaxed) == sleep.number().wrapping_sub(1)
        });
        if !is_now {
            // A sleep that is not armed yet, or of a thread in the futex. It ends before the lock is free: otherwise it could
            // be armed between the two, and would be over with nobody to wake the task.
            entry.flag.wake_up();
        }
        // No death comes between the end of the sleep and the wake-up: the sleeper is of this process.
        drop(state);
        wake(armed);
        is_now
    }

    fn nudge(&self, state: MutexGuard<'_, State>) {
        // Relaxed, both: one thread at a time, as the lock is held, and the helper thread reads it under the lock as well.
        self.nudges.store(self.nudges.load(Relaxed).wrapping_add(1), Relaxed);
        drop(state);
        let _ = futex::wake(self.nudges.as_std(), futex::Flags::PRIVATE, 1);
    }

    /// The loop of the helper thread.
    fn help(&self) {
        let (mut over, mut futexes) = (Vec::new(), Vec::with_capacity(FUTEXES));
        let mut has_waitv = true;
        while let Some((until, seen)) = self.look(&mut over, &mut futexes, has_waitv) {
            if over.is_empty() {
                has_waitv &= self.sleep(until, seen, &futexes);
                self.lock().helper = Helper::Awake;
            }
            for waker in over.drain(..) {
                // Outside of the lock: a waker may run the task, which may arm its endpoint or drop it.
                let _ = contain(|| Waker::wake(waker));
            }
        }
    }

    /// Takes the wakers whose sleeps are over, and chooses the futexes and the end of the next sleep. `None` if no endpoint
    /// is awaited any more.
    fn look(
        &self,
        over: &mut Vec<Waker>,
        futexes: &mut Vec<futex::Wait>,
        has_waitv: bool,
    ) -> Option<(Option<u64>, u32)> {
        let mut state = self.lock();
        if state.entries.is_empty() {
            state.helper = Helper::Absent;
            return None;
        }
        // Relaxed: written under the lock.
        let seen = self.nudges.load(Relaxed);
        futexes.clear();
        futexes.push(wait_at(&self.nudges, seen, futex::WaitFlags::PRIVATE));
        let now = monotonic_ns();
        let mut until: Option<u64> = None;
        for entry in state.entries.values_mut() {
            entry.reached = if !entry.shared {
                true
            } else if has_waitv && futexes.len() < FUTEXES {
                let word = entry.flag.word();
                // Relaxed: read before the look at the sleep below, which is of the same word.
                futexes.push(wait_at(word, word.load(Relaxed), futex::WaitFlags::empty()));
                true
            } else {
                false
            };
            let Some(armed) = entry.armed.take_if(|armed| armed.is_over() || armed.until <= now) else {
                if let Some(armed) = &entry.armed {
                    let at = if entry.reached { armed.until } else { armed.until.min(now + LOOK_NS) };
                    until = Some(until.map_or(at, |until| until.min(at)));
                }
                continue;
            };
            over.push(armed.waker);
        }
        if over.is_empty() {
            state.helper = Helper::Asleep(until);
        }
        Some((until, seen))
    }

    /// Sleeps until `until`, or until a futex is woken. `false` if the system has no call for several futexes.
    fn sleep(&self, until: Option<u64>, seen: u32, futexes: &[futex::Wait]) -> bool {
        if futexes.len() > 1 {
            let end = until.map(timespec);
            match futex::waitv(futexes, futex::WaitvFlags::empty(), end.as_ref(), ClockId::Monotonic) {
                // An unmapped address is the flag of an endpoint that has just left.
                Ok(_) | Err(Errno::AGAIN | Errno::TIMEDOUT | Errno::INTR | Errno::FAULT) => return true,
                // Before Linux 5.16, or a sandbox refuses it.
                Err(Errno::NOSYS | Errno::PERM | Errno::ACCESS | Errno::INVAL) => return false,
                // The system lacks memory, say.
                Err(_) => {
                    thread::sleep(Duration::from_nanos(LOOK_NS));
                    return true;
                }
            }
        }
        let rest = until.map(|until| timespec(until.saturating_sub(monotonic_ns())));
        // Every way out is a reason to look again.
        let _ = futex::wait(self.nudges.as_std(), futex::Flags::PRIVATE, seen, rest.as_ref());
        true
    }
}

/// An endpoint's entry in the reactor. Dropping it forgets the task.
#[derive(Debug)]
pub(crate) struct Entered {
    reactor: &'static Reactor,
    number: u64,
    flag: &'static WakeFlag,
    origin: Origin,
}

impl Entered {
    /// Has the task woken when the sleep is over, at `until` (monotonic, ns) at the latest; without a sleep, at `until`.
    pub(crate) fn arm(&self, waker: &Waker, sleep: Option<Sleep<'static>>, until: u64) {
        let mut new = Armed { sleep, until, waker: waker.clone() };
        let reactor = self.reactor;
        let mut state = reactor.lock();
        let Some(entry) = self.entry(&mut state) else {
            drop(state);
            // This kernel was taken over, and a later endpoint has its flag: the task finds out.
            return wake(Some(new));
        };
        if !entry.reached {
            new.until = until.min(monotonic_ns() + LOOK_NS);
        }
        let until = new.until;
        let old = entry.armed.replace(new);
        let over = entry.armed.take_if(|armed| armed.is_over());
        match state.helper {
            Helper::Absent => reactor.start(state),
            // A single nudge is enough for all sleeps armed until the helper thread looks.
            Helper::Asleep(at) if over.is_none() && at.is_none_or(|at| until < at) => {
                state.helper = Helper::Asleep(Some(until));
                reactor.nudge(state);
            }
            _ => drop(state),
        }
        // A task or event loop that waited before, such as with a descriptor, has to look and to arm anew.
        wake(old.filter(|old| !old.waker.will_wake(waker)));
        wake(over);
    }

    fn entry<'s>(&self, state: &'s mut State) -> Option<&'s mut Entry> {
        state.entries.get_mut(&address(self.flag)).filter(|entry| entry.number == self.number)
    }

    /// Forgets the task.
    pub(crate) fn disarm(&self) {
        let mut state = self.reactor.lock();
        let armed = self.entry(&mut state).and_then(|entry| entry.armed.take());
        drop(state);
        forget(armed);
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        if !self.origin.is_here() {
            // A forked process: the lock may be held, and the thread is the parent's.
            return;
        }
        let mut state = self.reactor.lock();
        let is_mine = self.entry(&mut state).is_some();
        let entry = if is_mine { state.entries.remove(&address(self.flag)) } else { None };
        // The helper thread forgets the futex, and ends if this was the last entry.
        self.reactor.nudge(state);
        forget(entry.and_then(|entry| entry.armed));
    }
}

/// Wakes a task, with the lock free. The panic hook has reported any panic.
fn wake(armed: Option<Armed>) {
    if let Some(armed) = armed {
        let _ = contain(|| armed.waker.wake());
    }
}

/// Drops a waker, with the lock free.
fn forget(armed: Option<Armed>) {
    let _ = contain(|| drop(armed));
}

fn address(flag: &WakeFlag) -> usize {
    core::ptr::from_ref(flag).addr()
}

fn timespec(ns: u64) -> Timespec {
    Timespec { tv_sec: (ns / 1_000_000_000).cast_signed(), tv_nsec: (ns % 1_000_000_000).cast_signed() }
}

fn wait_at(word: &AtomicU32, value: u32, flags: futex::WaitFlags) -> futex::Wait {
    let mut wait = futex::Wait::new();
    wait.val = value.into();
    wait.uaddr = futex::WaitPtr::new(word.as_std().as_ptr().cast());
    wait.flags = flags | futex::WaitFlags::SIZE_U32;
    wait
}

/// Spreads addresses of wake flags, which are multiples of 64.
#[derive(Debug, Default)]
struct ByAddress(u64);

impl Hasher for ByAddress {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_usize((*byte).into());
        }
    }

    fn write_usize(&mut self, address: usize) {
        // The golden ratio, as in Fibonacci hashing: the upper bits choose within a group, the lower bits the group.
        self.0 = (self.0 ^ address as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(20);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Memory;
    use k2k_core::{Command, Config, Fixed, Registration};
    use std::sync::{Arc, mpsc};
    use std::task::Wake;

    const LONG_NS: u64 = 600_000_000_000;

    struct Tells(mpsc::Sender<()>);
    impl Wake for Tells {
        fn wake(self: Arc<Self>) {
            let _ = self.0.send(());
        }
    }

    #[test]
    fn the_helper_hears_of_a_shorter_sleep_whether_it_is_asleep_or_not() {
        let memory: Memory<Fixed<4, 8, 64>> = Memory::heap(&Config::default()).unwrap();
        let mut endpoint = memory.register_owned(&Registration::new("a").unwrap().parking()).unwrap();
        let (tell, told) = mpsc::channel();
        let waker = Waker::from(Arc::new(Tells(tell)));
        for shared in [false, true] {
            let first = endpoint.core().fall_asleep(Command::Run).unwrap();
            // SAFETY: the endpoint, and with it the memory, lives longer.
            let entered = unsafe { Reactor::here().enter(first.flag(), shared) };
            for pause in [Duration::ZERO, Duration::from_millis(20)] {
                for rest in [LONG_NS, 10_000_000] {
                    let sleep = endpoint.core().fall_asleep(Command::Run).unwrap();
                    entered.arm(&waker, Some(sleep), monotonic_ns() + rest);
                    thread::sleep(pause);
                }
                told.recv_timeout(Duration::from_secs(60)).expect("the end of the shorter sleep");
            }
        }
    }

    /// A sender in another process ends the sleep and wakes the futex, and knows of no reactor.
    #[test]
    fn a_sender_elsewhere_wakes_the_task_through_the_futex_also_without_waitv_or_with_too_many_flags() {
        let memory: Memory<Fixed<4, 8, 64>> = Memory::heap(&Config::default()).unwrap();
        let mut endpoint = memory.register_owned(&Registration::new("a").unwrap().parking()).unwrap();
        let (tell, told) = mpsc::channel();
        let waker = Waker::from(Arc::new(Tells(tell)));
        let mut sleep = endpoint.core().fall_asleep(Command::Run).unwrap();
        let flag = sleep.flag();
        // SAFETY: as above.
        let entered = unsafe { Reactor::here().enter(flag, true) };
        for i in 0..100 {
            sleep = endpoint.core().fall_asleep(Command::Run).unwrap();
            entered.arm(&waker, Some(sleep), monotonic_ns() + LONG_NS);
            if i % 3 == 0 {
                thread::sleep(Duration::from_micros(300));
            }
            sleep.end();
            crate::platform::nudge(flag);
            told.recv_timeout(Duration::from_secs(60)).expect("the futex wakes the helper thread");
        }
        // No futex of a flag: the sleep is looked at.
        let (mut over, mut futexes) = (Vec::new(), Vec::new());
        sleep = endpoint.core().fall_asleep(Command::Run).unwrap();
        entered.arm(&waker, Some(sleep), monotonic_ns() + LONG_NS);
        let (until, _) = Reactor::here().look(&mut over, &mut futexes, false).unwrap();
        assert!(until.unwrap() <= monotonic_ns() + LOOK_NS && futexes.len() == 1);
        let memories: Vec<Memory<Fixed<4, 8, 64>>> =
            (0..FUTEXES).map(|_| Memory::heap(&Config::default()).unwrap()).collect();
        let _others: Vec<_> = memories
            .iter()
            .map(|memory| {
                let mut other = memory.register_owned(&Registration::new("b").unwrap().parking()).unwrap();
                let sleep = other.core().fall_asleep(Command::Run).unwrap();
                // SAFETY: as above.
                (unsafe { Reactor::here().enter(sleep.flag(), true) }, other)
            })
            .collect();
        for _ in 0..10 {
            sleep = endpoint.core().fall_asleep(Command::Run).unwrap();
            entered.arm(&waker, Some(sleep), monotonic_ns() + LONG_NS);
            sleep.end();
            crate::platform::nudge(flag);
            told.recv_timeout(Duration::from_secs(60)).expect("a look, at the latest");
        }
    }

    #[test]
    fn a_sleep_that_was_left_here_wakes_nobody_who_sleeps_in_the_futex_instead() {
        let memory: Memory<Fixed<4, 8, 64>> = Memory::heap(&Config::default()).unwrap();
        let mut endpoint = memory.register_owned(&Registration::new("a").unwrap().parking()).unwrap();
        let (tell, told) = mpsc::channel();
        let leaked = endpoint.core().fall_asleep(Command::Run).unwrap();
        let reactor = Reactor::here();
        // SAFETY: as above.
        let entered = unsafe { reactor.enter(leaked.flag(), false) };
        entered.arm(&Waker::from(Arc::new(Tells(tell))), Some(leaked), monotonic_ns() + LONG_NS);
        let blocking = endpoint.core().fall_asleep(Command::Run).unwrap();
        assert!(!reactor.wake(blocking.flag()), "the thread in the futex has to be woken, too");
        assert!(blocking.is_over());
        told.recv_timeout(Duration::from_secs(60)).expect("the task is told as well");
        assert!(!reactor.wake(blocking.flag()), "nothing is armed");
        drop(entered);
        assert!(!reactor.wake(blocking.flag()), "and nothing entered");
    }

    #[test]
    fn a_sleep_that_follows_at_once_is_ended_in_the_futex() {
        let memory: Memory<Fixed<4, 8, 64>> = Memory::heap(&Config::default()).unwrap();
        let mut endpoint = memory.register_owned(&Registration::new("a").unwrap().parking()).unwrap();
        let (tell, told) = mpsc::channel();
        let waker = Waker::from(Arc::new(Tells(tell)));
        let reactor = Reactor::here();
        for is_followed in [false, true] {
            let sleep = endpoint.core().fall_asleep(Command::Run).unwrap();
            // SAFETY: as above.
            let entered = unsafe { reactor.enter(sleep.flag(), false) };
            entered.arm(&waker, Some(sleep), monotonic_ns() + LONG_NS);
            let last = if is_followed { endpoint.core().fall_asleep(Command::Run).unwrap() } else { sleep };
            assert_eq!(reactor.wake(sleep.flag()), !is_followed);
            assert!(last.is_over());
            told.recv_timeout(Duration::from_secs(60)).expect("a wake-up");
        }
    }

    /// The sender comes between the beginning of the sleep and its arming.
    #[test]
    fn a_sleep_that_was_ended_before_it_is_armed_wakes_its_task() {
        let memory: Memory<Fixed<4, 8, 64>> = Memory::heap(&Config::default()).unwrap();
        let mut endpoint = memory.register_owned(&Registration::new("a").unwrap().parking()).unwrap();
        let (tell, told) = mpsc::channel();
        let waker = Waker::from(Arc::new(Tells(tell)));
        let flag = endpoint.core().wake_flag();
        // SAFETY: as above.
        let entered = unsafe { Reactor::here().enter(flag, false) };
        for has_earlier in [false, true] {
            let sleep = endpoint.core().fall_asleep(Command::Run).unwrap();
            if has_earlier {
                entered.arm(Waker::noop(), Some(sleep), monotonic_ns() + LONG_NS);
            }
            let sleep = endpoint.core().fall_asleep(Command::Run).unwrap();
            assert!(!Reactor::here().wake(flag));
            assert!(sleep.is_over(), "under the lock, not by the caller afterwards");
            entered.arm(&waker, Some(sleep), monotonic_ns() + LONG_NS);
            told.recv_timeout(Duration::from_secs(60)).expect("a wake-up");
        }
    }

    #[test]
    fn an_endpoint_whose_flag_a_later_one_has_harms_it_not_and_its_task_is_woken() {
        let memory: Memory<Fixed<4, 8, 64>> = Memory::heap(&Config::default()).unwrap();
        let mut endpoint = memory.register_owned(&Registration::new("a").unwrap().parking()).unwrap();
        let (tell, told) = mpsc::channel();
        let waker = Waker::from(Arc::new(Tells(tell)));
        let is_told = || told.recv_timeout(Duration::from_secs(60)).expect("a wake-up");
        let first_sleep = endpoint.core().fall_asleep(Command::Run).unwrap();
        let (reactor, flag) = (Reactor::here(), first_sleep.flag());
        // SAFETY: as above.
        let first = unsafe { reactor.enter(flag, false) };
        first.arm(&waker, Some(first_sleep), monotonic_ns() + LONG_NS);
        // SAFETY: as above.
        let second = unsafe { reactor.enter(flag, false) };
        is_told();
        first.arm(&waker, Some(first_sleep), monotonic_ns() + LONG_NS);
        is_told();
        let sleep = endpoint.core().fall_asleep(Command::Run).unwrap();
        second.arm(&waker, Some(sleep), monotonic_ns() + LONG_NS);
        first.disarm();
        drop(first);
        assert!(reactor.wake(flag), "the later one is still entered");
        is_told();
    }

    #[test]
    fn a_waker_that_is_replaced_is_woken_and_one_whose_destructor_panics_harms_nobody() {
        struct PanicsInDrop;
        impl Wake for PanicsInDrop {
            fn wake(self: Arc<Self>) {}
        }
        impl Drop for PanicsInDrop {
            fn drop(&mut self) {
                panic!("a destructor");
            }
        }
        let memory: Memory<Fixed<4, 8, 64>> = Memory::heap(&Config::default()).unwrap();
        let mut endpoint = memory.register_owned(&Registration::new("a").unwrap().parking()).unwrap();
        let (tell, told) = mpsc::channel();
        let sleep = endpoint.core().fall_asleep(Command::Run).unwrap();
        // SAFETY: as above.
        let entered = unsafe { Reactor::here().enter(sleep.flag(), false) };
        entered.arm(&Waker::from(Arc::new(Tells(tell))), Some(sleep), monotonic_ns() + LONG_NS);
        entered.arm(Waker::noop(), Some(sleep), monotonic_ns() + LONG_NS);
        told.recv_timeout(Duration::from_secs(60)).expect("so that it looks and arms anew");
        for panics_when in 0..3 {
            let waker = Waker::from(Arc::new(PanicsInDrop));
            entered.arm(&waker, Some(sleep), monotonic_ns() + LONG_NS);
            drop(waker);
            match panics_when {
                0 => entered.disarm(),
                1 => entered.arm(Waker::noop(), Some(sleep), monotonic_ns() + LONG_NS),
                _ => {}
            }
        }
        drop(entered);
    }
}
