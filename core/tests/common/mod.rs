//! What the tests of the fabric share: a platform whose clock is turned by hand, and fabrics on the heap.
#![allow(clippy::incompatible_msrv, reason = "the declared version is that of the library; tests use the newest")]
#![allow(dead_code, reason = "each test file uses its part")]

use core::cell::Cell;
use core::time::Duration;
use k2k_core::sync::System;
use k2k_core::{Config, Endpoint, Fabric, FabricRef, Fixed, Message, Platform, Read, Registration, Shape, WakeFlag};

/// A thread that waits for another longer than this has found a mistake.
pub(crate) const GUARD: Duration = Duration::from_secs(60);

/// A clock that stands still unless it is told otherwise, for one thread.
#[derive(Debug, Default)]
pub(crate) struct Manual {
    pub(crate) now_ns: Cell<u64>,
    pub(crate) wakes: Cell<u32>,
}

impl Manual {
    pub(crate) fn at(now_ns: u64) -> Self {
        Self { now_ns: Cell::new(now_ns), wakes: Cell::new(0) }
    }

    pub(crate) fn advance(&self, ns: u64) {
        self.now_ns.set(self.now_ns.get() + ns);
    }
}

impl Platform for Manual {
    fn now_ns(&self) -> u64 {
        self.now_ns.get()
    }

    fn wake(&self, flag: &WakeFlag) {
        flag.wake_up();
        self.wakes.set(self.wakes.get() + 1);
    }
}

/// A zeroed fabric on the heap, set up.
pub(crate) fn fabric<const K: usize, const S: usize, const P: usize>(config: &Config) -> Box<Fabric<K, S, P>> {
    // SAFETY: all zero is a valid, idle fabric.
    let fabric = unsafe { Box::<Fabric<K, S, P>>::new_zeroed().assume_init() };
    fabric.init(config).expect("zeroed memory is an idle fabric");
    fabric
}

/// Which kind of shape the tests are for.
pub(crate) struct Kind<const READ: bool>;

/// The shape of a kind.
pub(crate) trait Shapes {
    /// For `K` kernels, `S` slots and `P` bytes of payload.
    type Of<const K: usize, const S: usize, const P: usize>: Shape<Item = Message<P>, Scope = System>;
}

impl Shapes for Kind<false> {
    type Of<const K: usize, const S: usize, const P: usize> = Fixed<K, S, P>;
}

impl Shapes for Kind<true> {
    type Of<const K: usize, const S: usize, const P: usize> = Read<K, P>;
}

/// `run_time_shape.rs` has the tests of other files once more.
const READ: bool = {
    let (path, name) = (module_path!().as_bytes(), b"run_time_shape");
    let mut i = 0;
    while i < name.len() && i < path.len() && path[i] == name[i] {
        i += 1;
    }
    i == name.len()
};

pub(crate) type Chosen<const K: usize, const S: usize, const P: usize> = <Kind<READ> as Shapes>::Of<K, S, P>;

pub(crate) type ManualEndpoint<'f, const K: usize, const S: usize, const P: usize> =
    Endpoint<'f, &'f Manual, Chosen<K, S, P>>;

/// A fabric as kernels of the kind of shape see it that the tests are for.
pub(crate) fn handle<const K: usize, const S: usize, const P: usize>(
    fabric: &Fabric<K, S, P>,
) -> FabricRef<'_, Chosen<K, S, P>> {
    let base = core::ptr::from_ref(fabric).cast_mut().cast();
    // SAFETY: all of a fabric is behind atomics and cells.
    unsafe { FabricRef::open_raw(base, size_of::<Fabric<K, S, P>>()) }.expect("a fabric of this shape")
}

/// Registers `count` kernels named k0, k1, ...
pub(crate) fn register_all<'f, const K: usize, const S: usize, const P: usize>(
    fabric: &'f Fabric<K, S, P>,
    platform: &'f Manual,
    count: usize,
) -> Vec<ManualEndpoint<'f, K, S, P>> {
    (0..count)
        .map(|i| {
            let who = Registration::new(&format!("k{i}")).expect("a short name");
            handle(fabric).register(&who, platform).expect("a free index")
        })
        .collect()
}
