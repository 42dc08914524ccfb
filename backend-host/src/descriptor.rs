//! A file descriptor that becomes readable when an endpoint has mail.

use crate::Endpoint;
use core::task::Waker;
use k2k_core::sync::System;
use k2k_core::{Platform as _, Shape};
use rustix::event::{EventfdFlags, eventfd};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::task::Wake;

/// A descriptor for event loops that wait with `epoll`, `poll` or `select`: readable when an [armed](Self::arm) endpoint may
/// have something to receive. Needs no thread except the helper thread shared by all tasks of a process.
///
/// ```
/// use k2k::{Broker, Descriptor, Message};
/// use rustix::event::{PollFd, PollFlags, poll};
///
/// let broker: Broker = Broker::builder().build()?;
/// let mut endpoint = broker.register_parking("a")?;
/// let descriptor = Descriptor::new()?;
/// let mut sender = broker.register("b")?;
/// sender.send(endpoint.id(), &Message::new(7))?;
/// let mut received = 0;
/// while received == 0 {
///     while let Some(message) = endpoint.try_receive() {
///         received += message.header.kind;
///     }
///     if descriptor.arm(&mut endpoint) && received == 0 {
///         poll(&mut [PollFd::new(&descriptor, PollFlags::IN)], None)?;
///     }
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Descriptor {
    event: Arc<Event>,
    waker: Waker,
}

#[derive(Debug)]
struct Event(OwnedFd);

impl Wake for Event {
    fn wake(self: Arc<Self>) {
        // Fails only at a count of 2^64, and then the descriptor is readable already.
        let _ = rustix::io::write(&self.0, &1_u64.to_ne_bytes());
    }
}

impl Descriptor {
    /// A descriptor not yet armed by any endpoint. Closed when the process executes a program.
    ///
    /// # Errors
    /// The system's error if it has no descriptor to give.
    pub fn new() -> io::Result<Self> {
        let event = Arc::new(Event(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?));
        let waker = Waker::from(Arc::clone(&event));
        Ok(Self { event, waker })
    }

    /// Makes the descriptor unreadable until the endpoint may have something to receive: mail, or a command to stop. The
    /// endpoint should have registered as parking; without parking, the descriptor becomes readable every millisecond. Arm
    /// anew each time after [`try_receive`](Endpoint::try_receive) has returned `None`. `false` if there is mail
    /// now, or the endpoint was told to stop: do not wait.
    ///
    /// Each endpoint needs a descriptor of its own: arming for a second endpoint would clear the first endpoint's signal.
    pub fn arm<Sh: Shape<Scope = System>>(&self, endpoint: &mut Endpoint<Sh>) -> bool {
        if !endpoint.as_core().platform().is_here() {
            // A forked process: the descriptor is the parent's as well.
            return false;
        }
        // Clears an earlier signal; fails if the descriptor is not readable.
        let _ = rustix::io::read(&self.event.0, &mut [0; 8]);
        endpoint.arm_for_mail(&self.waker).is_some()
    }
}

impl AsFd for Descriptor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.0.as_fd()
    }
}

impl AsRawFd for Descriptor {
    fn as_raw_fd(&self) -> RawFd {
        self.event.0.as_raw_fd()
    }
}
