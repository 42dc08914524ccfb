//! Memory for a fabric, a clock, and everything that an endpoint can be asked to do.

use arbitrary::{Result, Unstructured};
use core::cell::Cell;
use core::marker::PhantomData;
use k2k_core::WakeFlag;
use k2k_core::{
    Command, Config, Context, Endpoint, Fabric, Fixed, IdleHint, Kernel, KernelId, Message, MessageId, Phase, Platform,
    Priority, Registration, SendError, run,
};
use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};

pub(crate) const KERNELS: usize = 3;
pub(crate) const SLOTS: usize = 4;
pub(crate) const PAYLOAD: usize = 64;
pub(crate) type Small = Fabric<KERNELS, SLOTS, PAYLOAD>;
type SmallEndpoint<'m> = Endpoint<'m, &'m Clock, Fixed<KERNELS, SLOTS, PAYLOAD>>;

/// Exactly as many bytes as a shared type needs, so that the address sanitizer sees a step beyond.
pub(crate) struct Block<T> {
    base: *mut u8,
    of: PhantomData<T>,
}

pub(crate) type Memory = Block<Small>;

impl<T> Block<T> {
    pub(crate) const LEN: usize = size_of::<T>();
    const LAYOUT: Layout = Layout::new::<T>();

    pub(crate) fn zeroed() -> Self {
        // SAFETY: the layout is not of size 0.
        let base = unsafe { alloc_zeroed(Self::LAYOUT) };
        if base.is_null() {
            handle_alloc_error(Self::LAYOUT);
        }
        Self { base, of: PhantomData }
    }

    pub(crate) const fn base(&self) -> *mut u8 {
        self.base
    }

    /// Writes as another process would: whenever it likes, whatever it likes.
    pub(crate) fn poke(&self, word: usize, value: u64) {
        assert!(word < Self::LEN / 8);
        // SAFETY: inside the block and aligned; shared types hold no references to plain data in it, and there is one thread.
        unsafe { self.base.cast::<u64>().add(word).write_volatile(value) };
    }

    pub(crate) fn peek(&self, word: usize) -> u64 {
        assert!(word < Self::LEN / 8);
        // SAFETY: as in `poke`; all of it is initialised.
        unsafe { self.base.cast::<u64>().add(word).read_volatile() }
    }
}

impl<const K: usize, const S: usize, const P: usize> Block<Fabric<K, S, P>> {
    pub(crate) fn fabric(
        &self,
        config: &Config,
    ) -> core::result::Result<&Fabric<K, S, P>, k2k_core::fabric::AttachError> {
        // SAFETY: valid for as long as `self` is, and accessed in no other way but by `poke` and `peek`.
        unsafe { Fabric::attach_raw(self.base, Self::LEN, config) }
    }
}

impl<T> Drop for Block<T> {
    fn drop(&mut self) {
        // SAFETY: allocated above, with this layout.
        unsafe { dealloc(self.base, Self::LAYOUT) };
    }
}

/// A clock that a test turns.
#[derive(Debug, Default)]
pub(crate) struct Clock {
    now_ns: Cell<u64>,
}

impl Clock {
    pub(crate) fn advance(&self, ns: u64) {
        self.now_ns.set(self.now_ns.get().saturating_add(ns));
    }
}

impl Platform for Clock {
    fn now_ns(&self) -> u64 {
        self.now_ns.get()
    }

    fn wake(&self, _: &WakeFlag) {}
}

/// A few endpoints in a fabric that may hold anything.
pub(crate) struct World<'m> {
    fabric: &'m Small,
    clock: &'m Clock,
    endpoints: [Option<SmallEndpoint<'m>>; KERNELS],
    known: KernelId,
    last: MessageId,
}

/// Answers everything and stops after a while.
struct Echo {
    left: u32,
}

impl Kernel<PAYLOAD> for Echo {
    fn on_message(&mut self, context: &mut impl Context<PAYLOAD>, message: &Message<PAYLOAD>) {
        let _ = context.reply(message, message);
        self.left = self.left.saturating_sub(1);
        if self.left == 0 {
            context.stop();
        }
    }
}

impl<'m> World<'m> {
    pub(crate) fn new(fabric: &'m Small, clock: &'m Clock) -> Self {
        Self { fabric, clock, endpoints: [None, None, None], known: KernelId::NONE, last: MessageId::default() }
    }

    pub(crate) fn register(&mut self, index: usize, parks: bool) {
        let who = Registration::new(["a", "b", "c"][index]).expect("a short name");
        let who = if parks { who.parking() } else { who };
        if self.endpoints[index].is_none() {
            self.endpoints[index] = self.fabric.register(&who.at(index), self.clock).ok();
        }
    }

    fn some_id(&self, input: &mut Unstructured<'_>) -> Result<KernelId> {
        Ok(match input.int_in_range(0..=7)? {
            0 => KernelId::from_raw(input.arbitrary()?),
            1 => self.known,
            2 => self.fabric.statuses().next().map_or(KernelId::NONE, |(id, _)| id),
            _ => {
                let index = input.choose_index(KERNELS)?;
                self.endpoints[index].as_ref().map_or(KernelId::new(index as u16, 1), Endpoint::id)
            }
        })
    }

    fn some_message(&self, input: &mut Unstructured<'_>) -> Result<Message<PAYLOAD>> {
        let len = input.int_in_range(0..=PAYLOAD)?;
        let mut message = Message::from_bytes(1, &[7; PAYLOAD][..len]).expect("it fits");
        match input.int_in_range(0..=7)? {
            0 => message.header.payload_len = input.arbitrary()?,
            1 => message = message.with_deadline_ns(self.clock.now_ns().saturating_add(input.int_in_range(0..=64)?)),
            2 => message = message.with_deadline_ns(input.arbitrary()?),
            3 => message = message.with_hop_limit(input.arbitrary()?),
            _ => {}
        }
        Ok(message)
    }

    /// One thing that an endpoint, a supervisor or an observer may do.
    pub(crate) fn step(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        let index = input.choose_index(KERNELS)?;
        let operation = input.int_in_range(0..=25u8)?;
        let fabric = self.fabric;
        match operation {
            0 => self.register(index, input.arbitrary()?),
            1 => drop(fabric.register(&Registration::new("d").expect("a short name"), self.clock)),
            2 => {
                let (at, to, via) = (self.some_id(input)?, self.some_id(input)?, self.some_id(input)?);
                let _ = fabric.set_route(at, to, via);
            }
            3 => fabric.remove_route(self.some_id(input)?, self.some_id(input)?),
            4 => self.clock.advance(input.int_in_range(0..=100)?),
            5 => self.clock.advance(20_000_000),
            6 => self.observe(input)?,
            7 => {
                let id = self.some_id(input)?;
                let command = *input.choose(&[Command::Run, Command::Pause, Command::Drain, Command::Stop])?;
                let _ = fabric.command(id, command, &self.clock);
            }
            24 => {
                let (receiver, sender) = (self.some_id(input)?, self.some_id(input)?);
                let _ = (fabric.deny(receiver, sender), fabric.is_allowed(receiver, sender));
            }
            25 => fabric.allow(self.some_id(input)?, self.some_id(input)?),
            _ => self.endpoint_step(index, operation, input)?,
        }
        Ok(())
    }

    fn endpoint_step(&mut self, index: usize, operation: u8, input: &mut Unstructured<'_>) -> Result<()> {
        let (fabric, clock) = (self.fabric, self.clock);
        let to = self.some_id(input)?;
        let Some(endpoint) = &mut self.endpoints[index] else {
            self.register(index, false);
            return Ok(());
        };
        match operation {
            8 => {
                self.known = endpoint.id();
                endpoint_gone(self.endpoints[index].take());
            }
            9 => {
                self.known = endpoint.id();
                if let Some(endpoint) = self.endpoints[index].take() {
                    endpoint.fail();
                }
                let _ = fabric.clear_failed(self.known);
            }
            10 => {
                let id = endpoint.id();
                core::mem::forget(self.endpoints[index].take());
                // SAFETY: it was forgotten.
                self.endpoints[index] = unsafe { fabric.take_over(id, clock) }.ok();
            }
            11 => drop(endpoint.poll()),
            12 => drop(endpoint.expire()),
            13 => {
                let _ =
                    (endpoint.pending_count(), endpoint.backlog(), endpoint.command(), endpoint.stats().unaccounted());
            }
            14 => {
                let command = endpoint.command();
                let sleep = if command == Command::Pause && input.arbitrary()? {
                    endpoint.fall_asleep_paused()
                } else {
                    endpoint.fall_asleep(command)
                };
                if let Some(sleep) = sleep {
                    let _ = (sleep.flag().must_wake(), sleep.is_over());
                    sleep.end();
                }
            }
            15 => {
                let id = MessageId { source: endpoint.id(), sequence: input.arbitrary()? };
                let _ = endpoint.receipt(id);
            }
            16 => drop(endpoint.receipt(self.last)),
            17 => {
                // A supervisor that watches from outside ends it in the end, whatever the words say.
                let mut kernel = Echo { left: 4 };
                run(endpoint, &mut kernel, |endpoint, IdleHint { empty_passes, .. }| {
                    clock.advance(1_000_000);
                    if empty_passes > 3 {
                        endpoint.stop();
                    }
                });
                endpoint.set_phase(Phase::Idle);
            }
            18 => {
                let message = self.some_message(input)?;
                let mut pause_ns = 1u64;
                let endpoint = self.endpoints[index].as_mut().expect("looked at above");
                // The timeout may be anything, so time has to pass faster and faster.
                let sent = endpoint.send_waiting(to, &message, Priority::Normal, || {
                    clock.advance(pause_ns);
                    pause_ns = pause_ns.saturating_mul(2);
                });
                self.note(sent);
            }
            19..=20 => {
                let message = self.some_message(input)?;
                let priority = if operation == 19 { Priority::Normal } else { Priority::High };
                let endpoint = self.endpoints[index].as_mut().expect("looked at above");
                let sent = endpoint.send_priority(to, &message, priority);
                self.note(sent);
            }
            _ => {
                if let Some(message) = endpoint.try_receive() {
                    assert_eq!(message.header.check(PAYLOAD), Ok(()), "what is received has been checked");
                    assert_eq!(message.header.destination(), endpoint.id(), "and is for its receiver");
                    assert!(message.payload().len() <= PAYLOAD);
                    if input.arbitrary()? {
                        let _ = endpoint.reply(&message, &message);
                    }
                }
            }
        }
        Ok(())
    }

    fn note(&mut self, sent: core::result::Result<MessageId, SendError>) {
        match sent {
            Ok(id) => self.last = id,
            Err(error) => drop(error.to_string()),
        }
    }

    fn observe(&self, input: &mut Unstructured<'_>) -> Result<()> {
        let fabric = self.fabric;
        let id = self.some_id(input)?;
        for (id, name) in fabric.kernels() {
            let _ = (fabric.find(name.as_str()), fabric.name(id));
        }
        let _ = (fabric.stats(id), fabric.pending(), fabric.phase(id), fabric.heartbeat(id));
        let _ =
            (fabric.route(id, self.known), fabric.config(), fabric.receipt(self.last, self.clock), fabric.find("a"));
        if let Some(trace) = fabric.trace(id) {
            trace.read().for_each(|entry| drop((entry.failure(), format!("{entry:?}"))));
        }
        if let Some(failures) = fabric.failures(id) {
            failures.read().for_each(|failure| drop(format!("{failure:?}")));
        }
        _ = fabric.latency(id).map(|latency| latency.quantile(0.99));
        fabric.set_tracing(input.arbitrary()?);
        fabric.set_latency(input.arbitrary()?);
        Ok(())
    }
}

fn endpoint_gone(endpoint: Option<SmallEndpoint<'_>>) {
    if let Some(endpoint) = endpoint {
        endpoint.unregister();
    }
}
