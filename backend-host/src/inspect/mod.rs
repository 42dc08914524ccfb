//! Looking into a fabric from outside, while its kernels run: any file, of any shape, by whichever program it was made.
//!
//! | what | gives |
//! | --- | --- |
//! | [`find()`] | the fabrics on this machine |
//! | [`begins_like_a_fabric`] | whether an open file may be one |
//! | [`View`] | one fabric: its header, its kernels and their owners, backlogs, routes, denials, receipts, waiting messages, failures, latencies, traces |
//! | [`Watch`] | what changes from look to look: rates, high-water marks, and which kernels are stuck, and how |
//!
//! # Looking costs the watched nothing
//!
//! A view never maps the file: it reads ranges of it (`pread`) into an image of its own, and asks the image. The
//! descriptor is read-only, so no store can reach the fabric, by type and by the system. Nothing is locked, no kernel
//! knows of its onlookers. What a look costs is the onlooker's time, and that lines which it reads are shared for a
//! moment, as with any load.
//!
//! Why no read-only mapping: the fabric's owner may make the file shorter at any moment, and a program that then touches
//! its mapping ends by SIGBUS. A read just comes back short, which is [`InspectError::Shorter`]. A mapping would also
//! commit memory for each untouched page of a sparse file that it looks at; a read does not. The price is a copy: what is
//! read of a kernel at each look is some kilobytes, and of payloads nothing.
//!
//! # Nothing is believed
//!
//! The shape is read once, when the view opens, and checked by the one formula that there is. Indices are clamped, names
//! are cut at what is no UTF-8, loops are bounded by the shape. A fabric whose header changes, is
//! [`InspectError::Changed`]. A copy is no snapshot: each aligned word was there at some moment, but two words may be of
//! different moments, and counts of a busy fabric differ by what happened in between.
//!
//! ```
//! use k2k::{Broker, Config, Fixed, Memory, Message, inspect::View, memory};
//! # let name = format!("k2k-doc-inspect-{}", std::process::id());
//! let broker = Broker::new(Memory::<Fixed<4, 8, 64>>::create(&name, &Config::default())?);
//! let (mut a, b) = (broker.register("a")?, broker.register("b")?);
//! a.send(b.id(), &Message::new(1))?;
//!
//! let look = View::open(&name)?.look()?;
//! let [a, b] = &look.kernels[..] else { unreachable!("two kernels") };
//! assert_eq!((a.stats.sent, b.waiting()), (1, 1));
//! # memory::remove(&name)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod error;
mod find;
mod image;
mod look;
mod watch;

pub use error::InspectError;
pub use find::{Found, find};
pub use image::begins_like_a_fabric;
pub use look::{Denial, FileState, KernelLook, Look, Mail, Owner, ReceiptCounts, Route, SenderBacklog, View};
pub use watch::{Condition, Detail, Quantiles, Report, Watch};

/// The largest shape that there is; what a fabric has is read from its header.
type Any = k2k_core::Read<4096, 65472>;
