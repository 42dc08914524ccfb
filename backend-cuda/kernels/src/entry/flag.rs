//! Bare flags and bare rings, there and back: the floors that messages are compared with, and what comes close to them.

use crate::shape::TestSpsc;
use k2k_core::KernelId;
use k2k_core::ring::{Consumer, Producer};
use k2k_core::sync::Ordering::Relaxed;
use k2k_core::sync::{AtomicU64, Gpu, ReachesHere, Scope, System};
use k2k_device::{Block, Launch, Outcome, Patience, thread};

/// Two words, written from one side each. Parameters: address of the word that this side polls, of the one that it
/// writes, how many round trips, patience in ns.
struct Flags<'l, S: Scope> {
    block: Block<'l>,
    polled: &'l AtomicU64<S>,
    written: &'l AtomicU64<S>,
    count: u64,
    patience: Patience,
}

impl<'l, S: Scope> Flags<'l, S> {
    /// # Safety
    /// `launch` is a launch with such parameters.
    unsafe fn of(launch: *const Launch, polled: usize, written: usize) -> Self {
        // SAFETY: passed on.
        unsafe {
            let block = Block::of(launch);
            Self {
                block,
                polled: &*(block.parameter(polled) as *const AtomicU64<S>),
                written: &*(block.parameter(written) as *const AtomicU64<S>),
                count: block.parameter(2),
                patience: Patience::new(block.parameter(3)),
            }
        }
    }

    fn wait_for(&self, number: u64) -> bool {
        // Relaxed: nothing is published by it.
        self.patience.wait_until(|| self.polled.load(Relaxed) == number)
    }

    fn answer(&self) {
        let done = (1..=self.count).take_while(|i| {
            let seen = self.wait_for(*i);
            // Relaxed: nothing is published by it.
            self.written.store(*i, Relaxed);
            seen
        });
        self.end(done.count() as u64, 0);
    }

    fn end(&self, done: u64, ns: u64) {
        let outcome = if done == self.count { Outcome::Finished } else { Outcome::CheckFailed };
        self.block.report(outcome, KernelId::NONE, [done, ns, 0, 0, 0, 0, 0]);
    }
}

/// Answers each number that the host writes.
///
/// # Safety
/// `launch` is a launch with such parameters.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "ptx-kernel" fn k2k_flag_sys(launch: *const Launch) {
    if thread::thread_index() == 0 {
        // SAFETY: the caller's.
        unsafe { Flags::<System>::of(launch, 0, 1) }.answer();
    }
}

/// Block 0 asks, block 1 answers. Value 1 of block 0: ns for all round trips.
///
/// # Safety
/// As for `k2k_flag_sys`.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "ptx-kernel" fn k2k_flag_gpu(launch: *const Launch) {
    if thread::thread_index() != 0 {
        return;
    }
    if thread::block_index() == 1 {
        // SAFETY: the caller's.
        return unsafe { Flags::<Gpu>::of(launch, 0, 1) }.answer();
    }
    // SAFETY: the caller's.
    let flags = unsafe { Flags::<Gpu>::of(launch, 1, 0) };
    let began_ns = thread::globaltimer_ns();
    let done = (1..=flags.count).take_while(|i| {
        // Relaxed: nothing is published by it.
        flags.written.store(*i, Relaxed);
        flags.wait_for(*i)
    });
    let done = done.count() as u64;
    flags.end(done, thread::globaltimer_ns() - began_ns);
}

/// Two rings. Parameters as for flags.
struct Rings<'l, S: Scope> {
    block: Block<'l>,
    from: Consumer<'l, crate::shape::Body, { crate::shape::RING_SLOTS }, S>,
    to: Producer<'l, crate::shape::Body, { crate::shape::RING_SLOTS }, S>,
    count: u64,
    patience: Patience,
}

impl<S: ReachesHere> Rings<'_, S> {
    /// # Safety
    /// `launch` is a launch with such parameters.
    unsafe fn of(launch: *const Launch, from: usize, to: usize) -> Option<Self> {
        // SAFETY: passed on.
        unsafe {
            let block = Block::of(launch);
            let from = (*(block.parameter(from) as *const TestSpsc<S>)).consumer().ok()?;
            let to = (*(block.parameter(to) as *const TestSpsc<S>)).producer().ok()?;
            Some(Self { block, from, to, count: block.parameter(2), patience: Patience::new(block.parameter(3)) })
        }
    }

    /// Sends back what comes; or asks first, and waits for it.
    fn exchange(&mut self, asks: bool) {
        let began_ns = thread::globaltimer_ns();
        let (mut done, mut bad) = (0, 0);
        let mut sent = u64::from(!asks);
        let _ = self.patience.wait_until(|| {
            if asks && sent == done {
                sent += u64::from(self.to.push(&[sent; 7]).is_ok());
            }
            let Some(body) = self.from.pop() else { return false };
            // A ring with one message is not full.
            let wrong = if asks { body[6] != done } else { self.to.push(&body).is_err() };
            bad += u64::from(wrong);
            done += 1;
            done == self.count
        });
        let ns = thread::globaltimer_ns() - began_ns;
        let outcome = if done == self.count && bad == 0 { Outcome::Finished } else { Outcome::CheckFailed };
        self.block.report(outcome, KernelId::NONE, [done, ns, bad, 0, 0, 0, 0]);
    }
}

/// Sends back each message that the host sends.
///
/// # Safety
/// As for `k2k_flag_sys`, with rings.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "ptx-kernel" fn k2k_pong_sys(launch: *const Launch) {
    if thread::thread_index() == 0 {
        // SAFETY: the caller's.
        if let Some(mut rings) = unsafe { Rings::<System>::of(launch, 0, 1) } {
            rings.exchange(false);
        }
    }
}

/// Block 0 asks through one ring, block 1 answers through the other. Value 1 of block 0: ns for all round trips.
///
/// # Safety
/// As for `k2k_flag_sys`, with rings.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "ptx-kernel" fn k2k_pong_gpu(launch: *const Launch) {
    if thread::thread_index() != 0 {
        return;
    }
    let asks = thread::block_index() == 0;
    let (from, to) = if asks { (1, 0) } else { (0, 1) };
    // SAFETY: the caller's.
    if let Some(mut rings) = unsafe { Rings::<Gpu>::of(launch, from, to) } {
        rings.exchange(asks);
    }
}
