//! What this machine allows: the same movements without any queue around them.

use super::latency::{METRICS, percentiles};
use crate::element::Element;
use crate::machine::ticks;
use crate::sample::{Apart, Role, Sample, Sampler, Setting, fill, together};
use core::cell::UnsafeCell;
use core::hint::black_box;
use core::sync::atomic::{AtomicU64, Ordering};

/// A floor as a closure: takes a sample of so many operations.
pub struct Floor<F> {
    take: F,
    operations: u64,
}

impl<F: FnMut(&Setting, u64) -> Result<(Sample, f64), String> + 'static> Floor<F> {
    /// `take` returns the sample and how long it took, ns.
    pub fn boxed(take: F) -> Box<dyn Sampler> {
        Box::new(Self { take, operations: 0 })
    }
}

impl<F: FnMut(&Setting, u64) -> Result<(Sample, f64), String>> Sampler for Floor<F> {
    fn prepare(&mut self, setting: &Setting) -> Result<(), String> {
        let (_, elapsed) = (self.take)(setting, 4096)?;
        self.operations = fill(setting, elapsed, 4096, 2048, 1 << 20).next_multiple_of(SEGMENT);
        Ok(())
    }

    fn sample(&mut self, setting: &Setting) -> Result<Sample, String> {
        Ok((self.take)(setting, self.operations)?.0)
    }
}

/// A message with its stamp: what a queue of one message without any bookkeeping would be.
#[repr(C, align(128))]
struct Mailbox<E> {
    stamp: AtomicU64,
    body: UnsafeCell<E>,
}

// SAFETY: the body is the writer's while the stamp is odd for it, the reader's afterwards: see `exchange`.
unsafe impl<E: Send> Sync for Mailbox<E> {}

impl<E: Element> Mailbox<E> {
    fn new() -> Self {
        Self { stamp: AtomicU64::new(0), body: UnsafeCell::new(E::default()) }
    }

    #[inline(always)]
    fn write(&self, stamp: u64, message: &E) {
        // SAFETY: the other side has answered the last message, so it does not look here until the stamp changes.
        unsafe { *self.body.get() = *message };
        self.stamp.store(stamp, Ordering::Release);
    }

    #[inline(always)]
    fn read(&self, stamp: u64) -> E {
        while self.stamp.load(Ordering::Acquire) != stamp {}
        // SAFETY: the stamp says that the message is whole, and the writer waits for the answer.
        unsafe { *self.body.get() }
    }
}

/// Round trips through two mailboxes; with `E` of seven words these are single lines.
pub fn mailbox<E: Element>() -> Box<dyn Sampler> {
    Floor::boxed(|setting, count| {
        let (there, back) = (Mailbox::<E>::new(), Mailbox::<E>::new());
        let mut trips = Vec::with_capacity(count as usize);
        let mut client_stamp = Apart(0);
        let mut server_stamp = Apart(0);
        let roles: Vec<Role<'_>> = vec![
            Box::new(|n| {
                trips.clear();
                let message = E::numbered(0);
                for _ in 0..n {
                    client_stamp.0 += 1;
                    let start = ticks();
                    there.write(client_stamp.0, black_box(&message));
                    black_box(&back.read(client_stamp.0));
                    trips.push(ticks() - start);
                }
            }),
            Box::new(|n| {
                let message = E::numbered(0);
                for _ in 0..n {
                    server_stamp.0 += 1;
                    black_box(&there.read(server_stamp.0));
                    back.write(server_stamp.0, black_box(&message));
                }
            }),
        ];
        let run = together(&setting.cores, roles, count / 8, count)?;
        Ok((run.sample(percentiles(&mut trips)), run.elapsed_ns))
    })
}

/// Round trips of a word: through one line that both write, or one line per direction.
pub fn bounce(lines: usize) -> Box<dyn Sampler> {
    assert_eq!(METRICS.len(), 3, "the percentiles of round trips");
    Floor::boxed(move |setting, count| {
        let words: [Apart<AtomicU64>; 2] = Default::default();
        let (there, back) = (&words[0].0, &words[lines - 1].0);
        let mut trips = Vec::with_capacity(count as usize);
        let (mut mine, mut theirs) = (Apart(0), Apart(0));
        let roles: Vec<Role<'_>> = vec![
            Box::new(|n| {
                trips.clear();
                for _ in 0..n {
                    let start = ticks();
                    there.store(mine.0 + 1, Ordering::Release);
                    while back.load(Ordering::Acquire) != mine.0 + 2 {}
                    trips.push(ticks() - start);
                    mine.0 += 2;
                }
            }),
            Box::new(|n| {
                for _ in 0..n {
                    while there.load(Ordering::Acquire) != theirs.0 + 1 {}
                    back.store(theirs.0 + 2, Ordering::Release);
                    theirs.0 += 2;
                }
            }),
        ];
        let run = together(&setting.cores, roles, count / 8, count)?;
        Ok((run.sample(percentiles(&mut trips)), run.elapsed_ns))
    })
}

/// Messages in a segment of the stream.
const SEGMENT: u64 = 64;

struct Segment<E> {
    full: Apart<AtomicU64>,
    free: Apart<AtomicU64>,
    messages: Apart<[UnsafeCell<E>; SEGMENT as usize]>,
}

// SAFETY: the messages are the producer's from `free` to `full`, the consumer's from `full` to `free`.
unsafe impl<E: Send> Sync for Segment<E> {}

/// How lines are streamed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Lines {
    /// The consumer only reads them.
    Read,
    /// The consumer writes a word into each that it has read.
    Written,
    /// The same, and the producer asks for those of two messages ahead before it writes one.
    AskedFor,
}

/// Asks for the lines of a message that will be written soon, where the processor has an instruction for it.
#[inline(always)]
fn ask_for<E>(message: *const E) {
    for line in 0..size_of::<E>().div_ceil(64) {
        let address = message.cast::<u8>().wrapping_add(line * 64);
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a hint: no address makes it fault.
        unsafe {
            core::arch::asm!("prefetchw [{}]", in(reg) address, options(nostack, preserves_flags));
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = address;
    }
}

/// Lines streamed through that many segments of 64 messages, each handed over as a whole. ns per message.
pub fn stream<E: Element>(segments: u64, lines: Lines) -> Box<dyn Sampler> {
    let segment = |_| Segment {
        full: Apart::default(),
        free: Apart::default(),
        messages: Apart(core::array::from_fn(|_| UnsafeCell::new(E::default()))),
    };
    let segments: Box<[Segment<E>]> = (0..segments).map(segment).collect();
    let (mut filled, mut emptied) = (Apart(0), Apart(0));
    let length = segments.len() as u64;
    Floor::boxed(move |setting, count| {
        let roles: Vec<Role<'_>> = vec![
            Box::new(|n| {
                for _ in 0..n / SEGMENT {
                    let segment = &segments[(emptied.0 % length) as usize];
                    while segment.full.0.load(Ordering::Acquire) != emptied.0 / length + 1 {}
                    for message in &segment.messages.0 {
                        empty(message.get(), lines != Lines::Read);
                    }
                    emptied.0 += 1;
                    segment.free.0.store(emptied.0.div_ceil(length), Ordering::Release);
                }
            }),
            Box::new(|n| {
                let message = E::numbered(0);
                for _ in 0..n / SEGMENT {
                    let segment = &segments[(filled.0 % length) as usize];
                    while segment.free.0.load(Ordering::Acquire) != filled.0 / length {}
                    for (i, place) in segment.messages.0.iter().enumerate() {
                        if lines == Lines::AskedFor {
                            ask_for(segment.messages.0[(i + 2) % SEGMENT as usize].get());
                        }
                        // SAFETY: `free` says that the segment is this side's.
                        unsafe { *place.get() = *black_box(&message) };
                    }
                    filled.0 += 1;
                    segment.full.0.store(filled.0.div_ceil(length), Ordering::Release);
                }
            }),
        ];
        let run = together(&setting.cores, roles, count / SEGMENT / 4 * SEGMENT, count)?;
        Ok((run.per(count), run.elapsed_ns))
    })
}

#[inline(always)]
fn empty<E: Element>(message: *mut E, dirty: bool) {
    // SAFETY: `full` says that the segment is this side's.
    black_box(&unsafe { *message });
    if dirty {
        for line in 0..size_of::<E>().div_ceil(64) {
            // SAFETY: as above, and inside the message.
            unsafe { message.cast::<u64>().add(line * 8).write_volatile(line as u64) };
        }
    }
}

/// One thread writes a message into one of 64 slots and reads it back.
pub fn slot<E: Element>(burst: u64) -> Box<dyn Sampler> {
    let mut slots = vec![E::default(); 64];
    Floor::boxed(move |setting, count| {
        let slots = &mut slots;
        let role: Role<'_> = Box::new(move |n| {
            let message = E::numbered(0);
            for i in 0..n / burst {
                for j in 0..burst {
                    slots[((i + j) % 64) as usize] = *black_box(&message);
                    black_box(&mut *slots);
                }
                for j in 0..burst {
                    let copy = slots[((i + j) % 64) as usize];
                    black_box(&copy);
                }
            }
        });
        let run = together(&setting.cores, vec![role], count / 4, count)?;
        Ok((run.per(count), run.elapsed_ns))
    })
}

/// That many threads add to one word. ns per addition over all of them.
pub fn fetch_add(threads: u64) -> Box<dyn Sampler> {
    let word = Apart(AtomicU64::new(0));
    Floor::boxed(move |setting, count| {
        let add = |n: u64| {
            for _ in 0..n {
                black_box(word.0.fetch_add(1, Ordering::AcqRel));
            }
        };
        let roles = (0..threads).map(|_| Box::new(add) as Role<'_>).collect();
        let run = together(&setting.cores, roles, count / 4, count)?;
        Ok((run.per(count * threads), run.elapsed_ns))
    })
}

/// That many threads add to one word by compare-exchange, until it succeeds.
pub fn compare_exchange(threads: u64) -> Box<dyn Sampler> {
    let word = Apart(AtomicU64::new(0));
    Floor::boxed(move |setting, count| {
        let add = |n: u64| {
            for _ in 0..n {
                let mut seen = word.0.load(Ordering::Relaxed);
                while let Err(found) = word.0.compare_exchange_weak(seen, seen + 1, Ordering::AcqRel, Ordering::Relaxed)
                {
                    seen = found;
                }
            }
        };
        let roles = (0..threads).map(|_| Box::new(add) as Role<'_>).collect();
        let run = together(&setting.cores, roles, count / 4, count)?;
        Ok((run.per(count * threads), run.elapsed_ns))
    })
}
