//! Runs PTX on the CPU, on real memory, and says where it races.
//!
//! The executor takes the text that LLVM emits for `nvptx64` and interprets grids of it, one turn of one thread at a
//! time. It is for testing device code without a device: which thread gets the next turn is drawn from a seed, so a
//! test runs many interleavings and can repeat each; a [detector](RaceKind) knows the order and scope of every access;
//! and since an address in global space is a real address of this process, host threads and interpreted device threads
//! can share one ring or one fabric.
//!
//! ```
//! use k2k_ptx_executor::{Machine, Module, Options};
//!
//! let module = Module::parse("
//!     .version 7.0
//!     .target sm_70
//!     .address_size 64
//!     .visible .entry add_thread(.param .u64 numbers) {
//!         .reg .b32 %r<3>;
//!         .reg .b64 %rd<3>;
//!         ld.param.u64 %rd1, [numbers];
//!         mov.u32 %r1, %tid.x;
//!         mul.wide.u32 %rd2, %r1, 4;
//!         add.s64 %rd1, %rd1, %rd2;
//!         ld.global.u32 %r2, [%rd1];
//!         add.u32 %r2, %r2, %r1;
//!         st.global.u32 [%rd1], %r2;
//!         ret;
//!     }")?;
//! let mut machine = Machine::new(1, Options::default());
//! machine.load(&module);
//! let numbers = machine.allocate("numbers", 4 * 64);
//! let launch = machine.launch("add_thread", 1, 64, &[numbers.into()])?;
//! machine.run(100_000)?;
//! machine.join(launch);
//! let mut last = [0; 4];
//! machine.host_read(numbers + 4 * 63, &mut last)?;
//! assert_eq!(u32::from_le_bytes(last), 63);
//! # Ok::<(), Box<dyn core::error::Error>>(())
//! ```
//!
//! # Ways to run
//!
//! | way | interleaving | host |
//! | --- | --- | --- |
//! | [`Machine::run`], [`Machine::step`] | seeded | waits, or goes between steps |
//! | [`Machine::run_until`] | seeded | a closure between turns: its operations, through [`Machine::host_load`] and kin, are part of the race detection |
//! | [`LaunchConfig::plays_host`] | seeded | its half of the protocol is PTX too, and counts as the host in scopes |
//! | [`explore`] | all, up to a number of preemptions | as above |
//! | [`Background`] | the machine's own thread beside real host threads | native code at the same time |
//!
//! Host code that works on shared memory natively, between turns, is not seen by the detector: see
//! [`Options::native_host`].
//!
//! # The part of PTX that is known
//!
//! Everything else is refused by [`Module::parse`], with its line. Section numbers are those of the PTX ISA manual 8.5.
//!
//! | what | instructions |
//! | --- | --- |
//! | integer (9.7.1, 9.7.2) | add, sub (sat, cc), addc, subc, mul, mad (lo, hi, wide), sad, div, rem, abs, neg, min, max, popc, clz, bfind, brev, bfe, bfi |
//! | floating point (9.7.3) | f32 and f64: add, sub, mul, div, fma, mad, neg, abs, min, max (NaN), copysign, sqrt, rcp (all to nearest even); rsqrt, sin, cos, lg2, ex2, tanh (as exact as the host) |
//! | comparison (9.7.5) | set, setp (two results, combined with a predicate), selp, slct |
//! | logic and shifts (9.7.7) | and, or, xor, not, cnot, lop3, shl, shr, shf |
//! | movement (9.7.9) | mov (packing, unpacking, addresses), cvt (rounding to integers, sat), cvta, isspacep, prmt, ld, ldu, st (vectors; generic, global, const, shared, local, param), prefetch |
//! | control (9.7.12) | bra, brx.idx, call (direct, through pointers), ret, exit, trap, predicates |
//! | synchronisation (9.7.13) | bar.sync, barrier.sync, bar.warp.sync, fence and membar (cta, gpu, sys), atom and red (add, exch, cas, min, max, and, or, xor, inc, dec), ld and st (weak, volatile, relaxed, acquire, release), vote.sync, match.sync, activemask, redux.sync, elect.sync, shfl.sync |
//! | other (9.7.19) | nanosleep |
//! | registers (10) | tid, ntid, ctaid, nctaid, laneid, warpid, nwarpid, lanemasks, smid, nsmid, gridid, clock, clock64, globaltimer, shared memory sizes |
//! | variables (5) | global, const (initialised, with addresses), shared (static, dynamic), local, param |
//!
//! Not known: half precision, `.ftz`, rounding other than to nearest, textures, clusters, asynchronous copies, tensor
//! cores, `cp`, `mbarrier`, barriers other than `sync`, proxies, 128-bit accesses as one unit.
//!
//! # What a run means
//!
//! Values are sequentially consistent: a load finds the last store. Weaker outcomes do not happen, but where they could
//! because an order or a scope is missing, two accesses are unordered and the detector says so. It cannot tell that a
//! *strong* read could have found an older value: an order that protects only such values (the acquire of a claim
//! behind which every word is read relaxed; `fence.sc` between a store and a load) can be dropped unnoticed.
//!
//! All blocks of a launch are resident, each scheduled independently, lanes of a warp too (Volta and later). Scheduling
//! is fair at random. Uninitialised shared and local memory holds `0xa5`.

mod decode;
mod error;
mod exec;
mod machine;
mod memory;
mod op;
mod parse;
mod race;

pub use decode::Module;
pub use error::{Doing, Error, Fault, FaultKind, Place, ThreadReport, Who};
pub use machine::{
    Arg, Background, Bounds, Clock, Dim, LaunchConfig, LaunchId, Machine, Options, explore, host_clock_ns,
};
pub use memory::Region;
pub use op::{Order, Scope};
pub use parse::ParseError;
pub use race::{Party, Race, RaceKind};
