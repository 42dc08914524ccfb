//! For a supervisor that cannot map a fabric, because it lies in a GPU's memory: which bytes to copy in order to look
//! at it, and which word to write in order to command a kernel.
//!
//! The supervisor copies ranges into zeroed memory of its own, takes that for a fabric of the same type, and calls its
//! methods. A copy is no snapshot: each aligned word was there at some moment, but two words may be of different
//! moments.

use super::{Command, Entry, Fabric, Inbox, NotRegistered};
use crate::message::{KernelId, Message};
use crate::ring::Lanes;
use crate::sync::Scope;
use core::mem::offset_of;
use core::ops::Range;

impl<const KERNELS: usize, const SLOTS: usize, const PAYLOAD: usize, S: Scope> Fabric<KERNELS, SLOTS, PAYLOAD, S> {
    /// Where the header and the kernel table are: configuration, names, states, commands, phases, heartbeats, counters.
    /// In bytes from the fabric's start; multiples of 8.
    #[must_use]
    pub const fn table_bytes() -> Range<usize> {
        0..offset_of!(Self, kernels) + KERNELS * size_of::<Entry<S>>()
    }

    /// Where the traces are. As [`table_bytes`](Self::table_bytes).
    #[must_use]
    pub const fn trace_bytes() -> Range<usize> {
        let start = offset_of!(Self, traces);
        start..start + KERNELS * size_of::<super::Trace>()
    }

    /// Where it stands how much mail waits at a place, for [`waiting`](Self::waiting). As
    /// [`table_bytes`](Self::table_bytes); empty if there is no such place.
    #[must_use]
    pub const fn bell_bytes(place: usize) -> Range<usize> {
        if place >= KERNELS {
            return 0..0;
        }
        let start = offset_of!(Self, inboxes)
            + place * size_of::<Inbox<KERNELS, SLOTS, PAYLOAD, S>>()
            + offset_of!(Inbox<KERNELS, SLOTS, PAYLOAD, S>, lanes);
        start..start + Lanes::<Message<PAYLOAD>, KERNELS, SLOTS, S>::BELL_BYTES
    }

    /// Messages of normal priority that wait in a kernel's inbox: what its senders have put there, less what it has
    /// noted as taken.
    pub fn waiting(&self, id: KernelId) -> Option<u64> {
        self.inboxes.get(id.index()).map(|inbox| inbox.lanes.view().waiting())
    }

    /// What [`set_route`](Self::set_route) would write if it could, as for [`command_word`](Self::command_word); with
    /// `None`, what [`remove_route`](Self::remove_route) would.
    ///
    /// # Errors
    /// [`NotRegistered`] names the address nobody is registered at in this copy.
    pub fn route_word(
        &self,
        at: KernelId,
        destination: KernelId,
        next_hop: Option<KernelId>,
    ) -> Result<(usize, u64), NotRegistered> {
        for id in [at, destination].into_iter().chain(next_hop) {
            if !self.is_registered(id) {
                return Err(NotRegistered(id));
            }
        }
        let entry = at.index() * KERNELS + destination.index();
        let place = offset_of!(Self, routes) + entry * size_of::<u64>();
        Ok((place, next_hop.map_or(0, |next_hop| super::route::word(at, destination, next_hop))))
    }

    /// What [`command`](Self::command) would write if it could: the word's place, in bytes from the fabric's start, and
    /// the word. Asked of a copy of the table; the word is then stored, little-endian and in one piece, in the fabric
    /// itself. The kernel must not be one that parks, since nobody wakes it.
    ///
    /// # Errors
    /// [`NotRegistered`] if the kernel is not registered in this copy.
    pub fn command_word(&self, id: KernelId, command: Command) -> Result<(usize, u64), NotRegistered> {
        let entry = self.kernels.get(id.index()).ok_or(NotRegistered(id))?;
        entry.registered(id).ok_or(NotRegistered(id))?;
        let place = offset_of!(Self, kernels) + id.index() * size_of::<Entry<S>>() + Entry::<S>::COMMAND_OFFSET;
        Ok((place, Entry::<S>::command_word(id.generation(), command)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::Platform;
    use crate::sync::Gpu;
    use crate::{Config, Registration, WakeFlag};

    struct Manual;

    impl Platform for Manual {
        fn now_ns(&self) -> u64 {
            1
        }

        fn wake(&self, _: &WakeFlag) {}
    }

    type Observed = Fabric<3, 8, 64>;

    #[test]
    fn ranges_are_whole_words_inside_of_the_fabric_and_the_scope_changes_none() {
        let ranges =
            [Observed::table_bytes(), Observed::trace_bytes(), Observed::bell_bytes(0), Observed::bell_bytes(2)];
        for range in &ranges {
            assert!(range.start < range.end && range.end <= size_of::<Observed>(), "{range:?}");
            assert!(range.start % 8 == 0 && range.end % 8 == 0, "{range:?}");
        }
        type OfGpu = Fabric<3, 8, 64, Gpu>;
        assert_eq!(ranges, [OfGpu::table_bytes(), OfGpu::trace_bytes(), OfGpu::bell_bytes(0), OfGpu::bell_bytes(2)]);
        assert!(Observed::bell_bytes(3).is_empty());
    }

    #[test]
    fn a_copy_of_the_ranges_shows_what_the_fabric_does_and_takes_commands_for_it() {
        static FABRIC: Observed = Fabric::new();
        FABRIC.init(&Config { tracing: true, ..Config::default() }).unwrap();
        let mut a = FABRIC.register(&Registration::new("a").unwrap(), Manual).unwrap();
        let mut b = FABRIC.register(&Registration::new("b").unwrap(), Manual).unwrap();
        for _ in 0..5 {
            a.send(b.id(), &Message::from_value(1, &1u64)).unwrap();
        }
        b.try_receive().unwrap();
        // All of it, byte by byte, into a fabric of the other scope.
        static COPY: Fabric<3, 8, 64, Gpu> = Fabric::new();
        for range in
            [Observed::table_bytes(), Observed::trace_bytes(), Observed::bell_bytes(0), Observed::bell_bytes(1)]
        {
            for at in range {
                // SAFETY: inside of both; nobody uses either now. All of it is behind cells.
                unsafe {
                    let from = core::ptr::from_ref(&FABRIC).cast::<u8>().add(at);
                    core::ptr::from_ref(&COPY).cast_mut().cast::<u8>().add(at).write(from.read());
                }
            }
        }
        assert_eq!((COPY.find("a"), COPY.find("b")), (Some(a.id()), Some(b.id())));
        assert_eq!((COPY.waiting(a.id()), COPY.waiting(b.id())), (Some(0), Some(4)));
        let (at, word) = COPY.route_word(a.id(), b.id(), Some(a.id())).unwrap();
        // SAFETY: inside; nobody uses it now.
        unsafe { core::ptr::from_ref(&FABRIC).cast_mut().cast::<u8>().add(at).cast::<u64>().write(word) };
        assert_eq!(FABRIC.route(a.id(), b.id()), Some(a.id()));
        assert_eq!(COPY.stats(a.id()), FABRIC.stats(a.id()));
        assert_eq!(COPY.trace(a.id()).unwrap().read().count(), 5);
        let (place, word) = COPY.command_word(b.id(), Command::Drain).unwrap();
        FABRIC.command(b.id(), Command::Drain, &Manual).unwrap();
        // SAFETY: as above; a word of the table.
        assert_eq!(unsafe { core::ptr::from_ref(&FABRIC).cast::<u8>().add(place).cast::<u64>().read() }, word);
        let gone = KernelId::new(2, 1);
        assert_eq!(COPY.command_word(gone, Command::Stop), Err(NotRegistered(gone)));
    }
}
