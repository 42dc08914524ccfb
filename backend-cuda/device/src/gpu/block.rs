//! One kernel per block: the run loop of `core`, for as long as nobody tells it to stop.
//!
//! ```text
//!   thread 0          sets up endpoint and handler in the workspace, then pass after pass:
//!                     command, heartbeat, one message to the handler
//!   its warp          waits for the pass; when there was nothing to do, each thread looks at every 32nd sender's
//!                     doorbell, so that an idle poll of 32 senders is one load
//!   other warps       leave at once; or, for a handler that shares work out, wait for it (`workers.rs`)
//! ```

use super::clock::Clock;
use super::thread::{block_index, globaltimer_ns, rest, thread_index};
use super::warp::Warp;
use crate::launch::{Launch, Outcome, Report};
use core::mem::MaybeUninit;
use k2k_core::sync::Ordering::{Relaxed, Release};
use k2k_core::sync::{AtomicU64, Gpu, System};
use k2k_core::{Endpoint, FabricRef, Kernel, KernelId, Message, Pass, RegisterError, Registration, RunLoop, Shape};

/// Rounds of polling by the warp before thread 0 looks for commands and overdue receipts again.
const POLLS: u32 = 64;
/// Rest between two rounds, ns.
const REST_NS: u32 = 20;

/// A block's share of a launch.
#[derive(Clone, Copy, Debug)]
pub struct Block<'l> {
    launch: &'l Launch,
    index: u32,
}

impl<'l> Block<'l> {
    /// This block's.
    ///
    /// # Safety
    /// `launch` is the argument of the entry point that runs.
    #[must_use]
    pub unsafe fn of(launch: *const Launch) -> Self {
        // SAFETY: the host wrote a launch there, and leaves it alone until the grid has ended.
        Self { launch: unsafe { &*launch }, index: block_index() }
    }

    /// The launch.
    #[must_use]
    pub const fn launch(&self) -> &'l Launch {
        self.launch
    }

    /// Number of this block in the grid.
    #[must_use]
    pub const fn index(&self) -> u32 {
        self.index
    }

    /// A parameter of the launch.
    #[must_use]
    pub fn parameter(&self, i: usize) -> u64 {
        self.launch.parameters.get(i).copied().unwrap_or(0)
    }

    /// The clock that all kernels of this device read.
    #[must_use]
    pub const fn clock(&self) -> Clock {
        Clock::new(self.launch)
    }

    /// Says where this block is. For one thread of it.
    pub fn report(&self, outcome: Outcome, kernel: KernelId, values: [u64; 7]) {
        // SAFETY: the host has put a report per block there, eight words of which this block writes. It reads them any
        // time.
        let words: &[AtomicU64<System>; 8] =
            unsafe { &*(self.launch.reports as *const [AtomicU64<System>; 8]).add(self.index as usize) };
        // Index by index: an iterator over both keeps the values in local memory.
        for i in 0..values.len() {
            // Relaxed: published by the release below.
            words[i + 1].store(values[i], Relaxed);
        }
        // Release [reported]: the values above are there for a copy that the host begins after one that has this
        // outcome, and for every copy after the grid has ended. A copy engine reads in parts, in no order: the values
        // in the first copy that has the outcome may be older. Outcome and kernel are one word.
        words[0].store(Report::first_word(outcome, kernel), Release);
    }

    /// The fabric.
    ///
    /// # Safety
    /// The host has put a fabric's bytes there, and lets nobody but kernels use them.
    pub(super) unsafe fn fabric<Sh: Shape<Scope = Gpu>>(&self) -> Result<FabricRef<'static, Sh>, (Outcome, [u64; 7])> {
        // SAFETY: passed on: as many bytes as its shape needs, which this program was compiled for.
        let fabric = unsafe { FabricRef::open_raw(self.launch().fabric as *mut u8, Sh::LEAST) };
        fabric.map_err(|_| {
            let [kernels, slots, payload] = Sh::USUAL.map(|n| n as u64);
            (Outcome::WrongFabric, [kernels, slots, payload, Sh::LEAST as u64, 0, 0, 0])
        })
    }

    /// The workspace, as bytes: address and length.
    pub(super) fn workspace(&self) -> (*mut u8, u64) {
        let len = self.launch.workspace_len;
        ((self.launch.workspace + u64::from(self.index) * len) as *mut u8, len)
    }

    /// Name of this block's kernel, in `name`.
    #[cold]
    #[inline(never)]
    fn name<'n>(&self, name: &'n mut [u8; 32]) -> &'n str {
        *name = self.launch.name;
        let mut len = name.iter().position(|b| *b == 0).unwrap_or(name.len());
        if self.launch.blocks > 1 {
            let mut digits = [0; 10];
            let (mut first, mut rest) = (digits.len(), self.index);
            while first == digits.len() || rest > 0 {
                first -= 1;
                digits[first] = b'0' + (rest % 10) as u8;
                rest /= 10;
            }
            for byte in core::iter::once(&b'-').chain(&digits[first..]) {
                if let Some(index) = name.get_mut(len) {
                    *index = *byte;
                    len += 1;
                }
            }
        }
        core::str::from_utf8(&name[..len]).unwrap_or("")
    }
}

/// What a block keeps in its workspace while it runs a kernel. The handler finds what is left behind it.
#[repr(C, align(256))]
struct State<H, Sh: Shape, const PAYLOAD: usize> {
    endpoint: MaybeUninit<Endpoint<'static, Clock, Sh>>,
    passes: MaybeUninit<RunLoop<PAYLOAD>>,
    handler: MaybeUninit<H>,
}

/// Bytes of workspace per block that a kernel needs before anything that its handler asks for.
#[must_use]
pub const fn workspace_len<H, Sh: Shape<Item = Message<PAYLOAD>>, const PAYLOAD: usize>() -> u64 {
    size_of::<State<H, Sh, PAYLOAD>>() as u64
}

/// What a pass of thread 0 means for its warp.
const ENDED: u32 = 0;
const WORKED: u32 = 1;
const IDLE: u32 = 2;
const SOON: u32 = 3;

/// Runs `make`'s handler as this block's kernel, until it stops itself or is told to. `make` gets the block and the
/// rest of its workspace; `values` makes the report's values of the handler at the end.
///
/// # Safety
/// Called by all threads of an entry point's grid with its argument, once.
pub unsafe fn run<H, Sh: Shape<Item = Message<PAYLOAD>, Scope = Gpu>, const PAYLOAD: usize>(
    launch: *const Launch,
    make: impl FnOnce(&Block<'_>, &'static mut [u8]) -> Result<H, (Outcome, [u64; 7])>,
    values: impl FnOnce(&H) -> [u64; 7],
) where
    H: Kernel<PAYLOAD>,
{
    if thread_index() >= 32 {
        return;
    }
    // SAFETY: passed on.
    let block = unsafe { Block::of(launch) };
    let warp = Warp::this();
    let (workspace, len) = block.workspace();
    let state = workspace.cast::<State<H, Sh, PAYLOAD>>();
    let begun = warp.is_leader() && begin(&block, state, len, make);
    // What the leader has written is visible to the warp.
    warp.sync();
    if warp.leaders(u32::from(begun)) == 0 {
        return;
    }
    loop {
        let step = if warp.is_leader() {
            // SAFETY: `begin` has written all three; the warp looks at them only while the leader waits for it.
            unsafe { pass(&mut *state) }
        } else {
            0
        };
        warp.sync();
        match warp.leaders(step) {
            ENDED => break,
            WORKED => continue,
            SOON => {
                rest(REST_NS);
                continue;
            }
            _ => {}
        }
        for _ in 0..POLLS {
            // SAFETY: written by `begin`; nobody changes it before the warp has met again.
            let endpoint = unsafe { (*state).endpoint.assume_init_ref() };
            let has_rung = endpoint.has_rung(warp.lane() as usize, warp.size() as usize);
            if warp.any(has_rung) {
                break;
            }
            rest(REST_NS);
        }
        warp.sync();
    }
    if warp.is_leader() {
        // SAFETY: written by `begin`, and used by nobody any more.
        unsafe { end(&block, &mut *state, values) };
    }
}

/// Drops the state, and says so. Apart from the loop, as `begin`.
///
/// # Safety
/// `begin` has written the state, and nobody uses it afterwards.
#[cold]
#[inline(never)]
unsafe fn end<H, Sh: Shape<Item = Message<PAYLOAD>, Scope = Gpu>, const PAYLOAD: usize>(
    block: &Block<'_>,
    state: &mut State<H, Sh, PAYLOAD>,
    values: impl FnOnce(&H) -> [u64; 7],
) where
    H: Kernel<PAYLOAD>,
{
    // SAFETY: the caller's.
    unsafe {
        let handler = state.handler.assume_init_mut();
        let endpoint = state.endpoint.assume_init_mut();
        state.passes.assume_init_mut().finish(endpoint, handler);
        let kernel = endpoint.id();
        let values = values(handler);
        state.handler.assume_init_drop();
        state.endpoint.assume_init_drop();
        block.report(Outcome::Finished, kernel, values);
    }
}

/// Takes the block's index, and writes the state; `false` if that cannot be, which it has said. Apart from the loop, so
/// that what it needs of local memory is not the loop's.
#[cold]
#[inline(never)]
fn begin<H, Sh: Shape<Item = Message<PAYLOAD>, Scope = Gpu>, const PAYLOAD: usize>(
    block: &Block<'_>,
    state: *mut State<H, Sh, PAYLOAD>,
    len: u64,
    make: impl FnOnce(&Block<'_>, &'static mut [u8]) -> Result<H, (Outcome, [u64; 7])>,
) -> bool
where
    H: Kernel<PAYLOAD>,
{
    match set_up(block, state, len, make) {
        Ok(()) => true,
        Err((outcome, values)) => {
            block.report(outcome, KernelId::NONE, values);
            false
        }
    }
}

fn set_up<H, Sh: Shape<Item = Message<PAYLOAD>, Scope = Gpu>, const PAYLOAD: usize>(
    block: &Block<'_>,
    state: *mut State<H, Sh, PAYLOAD>,
    len: u64,
    make: impl FnOnce(&Block<'_>, &'static mut [u8]) -> Result<H, (Outcome, [u64; 7])>,
) -> Result<(), (Outcome, [u64; 7])>
where
    H: Kernel<PAYLOAD>,
{
    let needed = workspace_len::<H, Sh, PAYLOAD>();
    if len < needed || !(state as u64).is_multiple_of(align_of::<State<H, Sh, PAYLOAD>>() as u64) {
        return Err((Outcome::SmallWorkspace, [len, needed, 0, 0, 0, 0, 0]));
    }
    // SAFETY: the host says so.
    let fabric = unsafe { block.fabric::<Sh>()? };
    let rest = (state as u64 + needed) as *mut u8;
    // SAFETY: the rest of this block's workspace, zeroed, and nobody else's.
    let rest = unsafe { core::slice::from_raw_parts_mut(rest, (len - needed) as usize) };
    // SAFETY: large enough and aligned, checked above; this block's. Zero, as the host has left it, is a valid
    // `MaybeUninit`.
    let State { endpoint, passes, handler } = unsafe { &mut *state };
    let made = handler.write(make(block, rest)?);
    match register(block, |who, clock| fabric.register_in(endpoint, who, clock)) {
        Ok(endpoint) => {
            block.report(Outcome::Running, endpoint.id(), [0; 7]);
            RunLoop::new_in(passes).start(endpoint, made);
            Ok(())
        }
        Err(refused) => {
            // SAFETY: written above, used by nobody any more.
            unsafe { handler.assume_init_drop() };
            Err(refused)
        }
    }
}

/// Registers this block's kernel at its index: `with` is told how, and the clock.
pub(super) fn register<E>(
    block: &Block<'_>,
    with: impl FnOnce(&Registration, Clock) -> Result<E, RegisterError>,
) -> Result<E, (Outcome, [u64; 7])> {
    let index = block.launch.first_index as usize + block.index as usize;
    let mut name = [0; 32];
    let in_use = (Outcome::IndexInUse, [index as u64, 0, 0, 0, 0, 0, 0]);
    let who = Registration::new(block.name(&mut name)).map_err(|_| in_use)?.at(index);
    with(&who, block.clock()).map_err(|_| in_use)
}

/// # Safety
/// `begin` has written the state.
unsafe fn pass<H, Sh: Shape<Item = Message<PAYLOAD>, Scope = Gpu>, const PAYLOAD: usize>(
    state: &mut State<H, Sh, PAYLOAD>,
) -> u32
where
    H: Kernel<PAYLOAD>,
{
    let State { endpoint, passes, handler } = state;
    // SAFETY: passed on.
    let (endpoint, passes, handler) =
        unsafe { (endpoint.assume_init_mut(), passes.assume_init_mut(), handler.assume_init_mut()) };
    match passes.pass(endpoint, handler) {
        Pass::Stopped => ENDED,
        Pass::Worked => WORKED,
        Pass::Idle(hint) if hint.soon => SOON,
        Pass::Idle(_) => IDLE,
    }
}

/// Looks at what is waited for between two looks at the timer, which take longer.
const LOOKS: u32 = 64;

/// An end to each wait of a test or a benchmark.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    until_ns: u64,
}

impl Patience {
    /// `ns` from now.
    #[must_use]
    pub fn new(ns: u64) -> Self {
        Self { until_ns: globaltimer_ns().saturating_add(ns) }
    }

    /// Calls `is_met` until it says yes; `false` if the patience is over before. The timer is read after every 64
    /// calls, which are a loop of their own: a counter and a timer in one condition become, in machine code, a timer
    /// that is read each time.
    #[inline(always)]
    #[must_use]
    pub fn wait_until(self, is_met: impl FnMut() -> bool) -> bool {
        self.wait(is_met, |is_over| is_over)
    }

    /// The same by all threads of a warp, which give up together. `is_met` says the same to all.
    #[inline(always)]
    #[must_use]
    pub fn wait_until_all(self, warp: &Warp, is_met: impl FnMut() -> bool) -> bool {
        self.wait(is_met, |is_over| warp.any(is_over))
    }

    #[inline(always)]
    fn wait(self, mut is_met: impl FnMut() -> bool, agree: impl Fn(bool) -> bool) -> bool {
        loop {
            // 64, or 65 when the timer has gone for 292 years: a number that neither compiler nor assembler knows, or
            // they would write out the rounds one by one.
            let mut left = LOOKS + (self.until_ns >> 63) as u32;
            while left > 0 {
                if is_met() {
                    return true;
                }
                left -= 1;
            }
            if agree(globaltimer_ns() > self.until_ns) {
                return false;
            }
        }
    }
}
