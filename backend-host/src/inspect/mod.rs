//! Looking into a fabric from outside, while its kernels run: any file, of any shape, created by any program.
//!
//! | item | gives |
//! | --- | --- |
//! | [`find()`] | the fabrics on this machine |
//! | [`begins_like_a_fabric`] | whether an open file may be a fabric |
//! | [`View`] | a fabric: its header, its kernels and their owners, backlogs, routes, denials, receipts, waiting messages, failures, latencies, traces |
//! | [`Watch`] | changes from look to look: rates, high-water marks, and which kernels are stuck, and how |
//!
//! # Looking costs the watched kernels nothing
//!
//! A view never maps the file: it reads ranges of the file (`pread`) into a private image, and queries the image. The
//! descriptor is read-only, so no store can reach the fabric, by type and by the system. A view takes no lock, and no
//! kernel knows of its onlookers. A look costs the onlooker's time; the cache lines read are shared for a
//! moment, as with any load.
//!
//! Why no read-only mapping: the fabric's owner may make the file shorter at any moment, and a program that then touches
//! its mapping ends by SIGBUS. A read just returns fewer bytes, reported as [`InspectError::Shorter`]. A mapping would also
//! commit memory for each untouched page of a sparse file; a read does not. The price is a copy: per look some kilobytes
//! of each kernel, and no payloads.
//!
//! # The file is untrusted
//!
//! The shape is read once, when the view opens, and checked by the same formula as everywhere. Indices are clamped, names
//! are cut at the first byte that is not UTF-8, the shape bounds all loops. A changed header is
//! [`InspectError::Changed`]. A copy is no snapshot: each aligned word existed at some moment, but two words may be of
//! different moments, and counts of a busy fabric differ by the traffic in between.
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

/// The largest possible shape; a fabric's own shape is read from its header.
type Any = k2k_core::Read<4096, 65472>;
