//! For a supervisor that cannot map a fabric, because it lies in a GPU's memory: which bytes to copy in order to look
//! at it, and which word to write in order to command a kernel.
//!
//! The supervisor copies ranges into zeroed memory of its own, takes that for a fabric of the same shape, and calls its
//! methods. A copy is no snapshot: each aligned word was there at some moment, but two words may be of different
//! moments.

use super::{Command, Entry, FabricRef, Latencies, NotRegistered, Trace};
use crate::message::KernelId;
use crate::shape::Shape;
use crate::sync::AtomicU64;
use crate::sync::Ordering::Relaxed;
use core::ops::Range;

impl<Sh: Shape> FabricRef<'_, Sh> {
    /// Where the header and the kernel table are: configuration, names, states, commands, phases, heartbeats, counters.
    /// In bytes from the fabric's start; multiples of 8.
    #[must_use]
    pub fn table_bytes(&self) -> Range<usize> {
        let numbers = self.shape().numbers();
        0..numbers.entries + numbers.kernels * size_of::<Entry<Sh::Scope>>()
    }

    /// Where the traces are. As [`table_bytes`](Self::table_bytes).
    #[must_use]
    pub fn trace_bytes(&self) -> Range<usize> {
        let numbers = self.shape().numbers();
        numbers.traces..numbers.traces + numbers.kernels * size_of::<Trace>()
    }

    /// Where the traces, the notes of failures and the counts of latencies are, which lie side by side. As
    /// [`table_bytes`](Self::table_bytes).
    #[must_use]
    pub fn record_bytes(&self) -> Range<usize> {
        let numbers = self.shape().numbers();
        numbers.traces..numbers.latencies + numbers.kernels * size_of::<Latencies>()
    }

    /// Where the routes are. As [`table_bytes`](Self::table_bytes).
    #[must_use]
    pub fn route_bytes(&self) -> Range<usize> {
        let numbers = self.shape().numbers();
        numbers.routes..numbers.senders
    }

    /// Lets onlookers see in this fabric what another one of the same shape shows, which lies in memory that they cannot
    /// map, or is a copy of such a one: kernel table, switches, routes, traces, failures, latencies, and how much mail of
    /// normal priority waits. Inboxes and receipts stay empty. To be called again and again, while onlookers look. `false`,
    /// and nothing is written, if the shapes are not the same.
    ///
    /// This fabric is marked as a copy: nobody can open it in order to register there. No kernel must have done so before.
    pub fn show<T: Shape>(&self, from: FabricRef<'_, T>) -> bool {
        if !self.shape().numbers().is(&from.shape().numbers()) {
            return false;
        }
        // Magic, geometry and configuration are this fabric's own.
        let entries = self.shape().numbers().entries..self.table_bytes().end;
        for range in [entries, self.route_bytes(), self.record_bytes()] {
            for (to, from) in self.words(range.clone()).iter().zip(from.words(range)) {
                // Relaxed, both: numbers to show.
                to.store(from.load(Relaxed), Relaxed);
            }
        }
        for (to, other) in self.indices().zip(from.indices()) {
            self.sharded(to).show(from.sharded(other));
        }
        self.header().show(from.header());
        true
    }

    /// Whether this is a copy for onlookers, made by [`show`](Self::show): how often it was brought up to date, modulo 2³².
    #[must_use]
    pub fn shown(&self) -> Option<u32> {
        self.header().shown()
    }

    /// The words of a part that consists of words.
    fn words(&self, range: Range<usize>) -> &[AtomicU64] {
        let size = self.shape().numbers().size;
        let range = range.start.min(size)..range.end.min(size);
        // SAFETY: inside of the fabric, which is borrowed and aligned to more than 8. Table, routes and records are behind
        // atomics; where a smaller one is part of a word, it is only read, or is a copy's, which nobody else uses.
        unsafe {
            let start = self.as_ptr().add(range.start).cast::<AtomicU64>();
            core::slice::from_raw_parts(start, range.len() / size_of::<AtomicU64>())
        }
    }

    /// Where it stands how much mail waits at a kernel index, for [`waiting`](Self::waiting). As
    /// [`table_bytes`](Self::table_bytes); empty if there is no such index.
    #[must_use]
    pub fn doorbell_bytes(&self, index: usize) -> Range<usize> {
        let numbers = self.shape().numbers();
        if index >= numbers.kernels {
            return 0..0;
        }
        // A queue begins with its doorbells, and the notes are behind them.
        let start = numbers.inboxes + index * numbers.inbox;
        start..start + numbers.queue.notes + numbers.kernels * size_of::<AtomicU64<Sh::Scope>>()
    }

    /// Messages of normal priority that wait in a kernel's inbox: those that its senders have put there, less those that
    /// it has noted as consumed.
    #[must_use]
    pub fn waiting(&self, id: KernelId) -> Option<u64> {
        Some(self.sharded(self.index(id.index())?).waiting())
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
        let numbers = self.shape().numbers();
        let entry = at.index() * numbers.kernels + destination.index();
        let offset = numbers.routes + entry * size_of::<AtomicU64<Sh::Scope>>();
        Ok((offset, next_hop.map_or(0, |next_hop| super::route::word(at, destination, next_hop))))
    }

    /// What [`command`](Self::command) would write if it could: the word's offset, in bytes from the fabric's start,
    /// and the word. Asked of a copy of the table; the word is then stored, little-endian and in one piece, in the
    /// fabric itself. The kernel must not be one that parks, since nobody wakes it.
    ///
    /// # Errors
    /// [`NotRegistered`] if the kernel is not registered in this copy.
    pub fn command_word(&self, id: KernelId, command: Command) -> Result<(usize, u64), NotRegistered> {
        if !self.is_registered(id) {
            return Err(NotRegistered(id));
        }
        let entry = self.shape().numbers().entries + id.index() * size_of::<Entry<Sh::Scope>>();
        let offset = entry + Entry::<Sh::Scope>::COMMAND_OFFSET;
        Ok((offset, Entry::<Sh::Scope>::command_word(id.generation(), command)))
    }
}

#[cfg(test)]
#[cfg(not(k2k_loom))]
mod tests {
    extern crate std;

    use super::*;
    use crate::fabric::Fabric;
    use crate::message::Message;
    use crate::platform::Platform;
    use crate::sync::Gpu;
    use crate::{Config, Registration, WakeFlag};
    use std::string::ToString as _;

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
        static FABRIC: Observed = Fabric::new();
        static OF_GPU: Fabric<3, 8, 64, Gpu> = Fabric::new();
        fn ranges_of<Sh: Shape>(fabric: FabricRef<'_, Sh>) -> [Range<usize>; 5] {
            [
                fabric.table_bytes(),
                fabric.trace_bytes(),
                fabric.record_bytes(),
                fabric.doorbell_bytes(0),
                fabric.doorbell_bytes(2),
            ]
        }
        let ranges = ranges_of(FABRIC.handle());
        for range in &ranges {
            assert!(range.start < range.end && range.end <= size_of::<Observed>(), "{range:?}");
            assert!(range.start % 8 == 0 && range.end % 8 == 0, "{range:?}");
        }
        assert_eq!(ranges, ranges_of(OF_GPU.handle()));
        assert!(FABRIC.handle().doorbell_bytes(3).is_empty());
        // Those of a shape that is read at run time are the same.
        let mut bytes = std::vec![0_u128; size_of::<Observed>() / 16 + 8];
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(&mut bytes);
        let start = bytes.as_ptr().align_offset(128);
        let read = crate::Read::<4, 64>::new(3, 8, 64).unwrap();
        assert_eq!(ranges, ranges_of(FabricRef::create(&mut bytes[start..], read, &Config::default()).unwrap()));
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
        // The last sender: what is said of it stands at the end.
        let mut c = FABRIC.register(&Registration::new("c").unwrap(), Manual).unwrap();
        for _ in 0..3 {
            c.send(b.id(), &Message::from_value(1, &1u64)).unwrap();
        }
        while b.try_receive().is_some_and(|message| message.header.source() != c.id()) {}
        let waiting = FABRIC.handle().waiting(b.id());
        assert!(waiting > Some(0) && waiting < Some(7), "{waiting:?}");
        // All of it, byte by byte.
        static COPY: Observed = Fabric::new();
        let (fabric, copy) = (FABRIC.handle(), COPY.handle());
        for range in [fabric.table_bytes(), fabric.trace_bytes(), fabric.doorbell_bytes(0), fabric.doorbell_bytes(1)] {
            for at in range {
                // SAFETY: inside of both; nobody uses either now. All of it is behind cells.
                unsafe {
                    let from = core::ptr::from_ref(&FABRIC).cast::<u8>().add(at);
                    core::ptr::from_ref(&COPY).cast_mut().cast::<u8>().add(at).write(from.read());
                }
            }
        }
        assert_eq!((COPY.find("a"), COPY.find("b")), (Some(a.id()), Some(b.id())));
        assert_eq!((copy.waiting(a.id()), copy.waiting(b.id())), (Some(0), waiting));
        let (at, word) = copy.route_word(a.id(), b.id(), Some(a.id())).unwrap();
        // SAFETY: inside; nobody uses it now.
        unsafe { core::ptr::from_ref(&FABRIC).cast_mut().cast::<u8>().add(at).cast::<u64>().write(word) };
        assert_eq!(FABRIC.route(a.id(), b.id()), Some(a.id()));
        assert_eq!(COPY.stats(a.id()), FABRIC.stats(a.id()));
        assert_eq!(COPY.trace(a.id()).unwrap().read().count(), 5);
        let (offset, word) = copy.command_word(b.id(), Command::Drain).unwrap();
        FABRIC.command(b.id(), Command::Drain, &Manual).unwrap();
        // SAFETY: as above; a word of the table.
        assert_eq!(unsafe { core::ptr::from_ref(&FABRIC).cast::<u8>().add(offset).cast::<u64>().read() }, word);
        // What a copy shows can be shown once more, also by way of a fabric that has its doorbells elsewhere.
        static OF_GPU: Fabric<3, 8, 64, Gpu> = Fabric::new();
        static SHOWN: Observed = Fabric::new();
        OF_GPU.init(&Config::default()).unwrap();
        SHOWN.init(&Config { clock: 7, ..Config::default() }).unwrap();
        let shown = SHOWN.handle();
        assert_eq!(shown.shown(), None);
        assert!(OF_GPU.handle().show(copy) && shown.show(OF_GPU.handle()) && shown.show(OF_GPU.handle()));
        assert_eq!((shown.shown(), SHOWN.config().tracing), (Some(2), true));
        assert_eq!((SHOWN.find("a"), SHOWN.find("b")), (Some(a.id()), Some(b.id())));
        assert_eq!((shown.waiting(a.id()), shown.waiting(b.id())), (Some(0), waiting));
        assert_eq!(SHOWN.stats(a.id()), FABRIC.stats(a.id()));
        assert_eq!(SHOWN.trace(a.id()).unwrap().read().count(), 5);
        assert!(shown.check_clock(7).unwrap_err().to_string().starts_with("it is a copy, for onlookers"));
        static OTHER: Fabric<2, 8, 64> = Fabric::new();
        assert!(!OTHER.handle().show(copy) && OTHER.handle().shown().is_none(), "another shape");
        let gone = KernelId::new(2, c.id().generation() + 1);
        assert_eq!(copy.command_word(gone, Command::Stop), Err(NotRegistered(gone)));
    }
}
