//! K2K for Python: the module `k2k._k2k`, on which the package `k2k` in Python is built.
//!
//! A thin layer over the package `k2k` of Rust. Every call that may wait releases the interpreter, and looks for signals
//! every 20 ms, so that Ctrl-C ends it, and so that other calls on the same endpoint have their turn.

use core::time::Duration;
use k2k::message::PayloadTooLong;
use k2k::process::Own;
use k2k::service::StartedRequest;
use k2k::{
    Broker, Builder, Client, Command, ControlError, Descriptor, EndpointError, KernelId, MemoryError, MessageId,
    PresenceError, Priority, ReceiptError, ReceiveError, Registration, RequestError, SendError, Stats, boxed, memory,
};
use pyo3::buffer::PyBuffer;
use pyo3::create_exception;
use pyo3::exceptions::{PyException, PyFileExistsError, PyFileNotFoundError, PyOSError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};
use std::os::fd::AsRawFd as _;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Bytes of payload that the largest message carries.
const PAYLOAD: usize = 65_472;
/// A fabric of whatever shape, for up to 512 kernels.
type Any = k2k::Read<512, PAYLOAD>;
type Mail = k2k::Message<PAYLOAD>;

/// How long a wait goes on before it looks for signals, and lets other calls use its endpoint.
const SLICE: Duration = Duration::from_millis(20);
/// How often a call that waits for room tries to send.
const ROOM: Duration = Duration::from_millis(1);

create_exception!(k2k, Error, PyException, "A call did not do what it was asked; its text says why.");
create_exception!(k2k, QueueFull, Error, "The inbox has no room for this sender now: try again.");
create_exception!(k2k, NotFound, Error, "There is no such kernel, or not any more.");
create_exception!(k2k, Timeout, Error, "It did not happen in time.");
create_exception!(k2k, Stopped, Error, "A supervisor told this kernel to stop.");
create_exception!(k2k, NotReceived, Error, "The request was not received, and will not be: it is safe to repeat.");
create_exception!(k2k, NoAnswer, Error, "No answer came; the request was received, or may have been.");
create_exception!(k2k, Forked, Error, "This process was forked: the object is its parent's.");
create_exception!(k2k, Closed, Error, "The broker or endpoint was closed.");

fn of_send(e: SendError) -> PyErr {
    let words = e.to_string();
    match e {
        SendError::QueueFull { .. } => QueueFull::new_err(words),
        SendError::NotFound { .. } => NotFound::new_err(words),
        SendError::Timeout { .. } => Timeout::new_err(words),
        SendError::Stopped { .. } => Stopped::new_err(words),
        SendError::Forked => Forked::new_err(words),
        SendError::PayloadTooLong(_) => PyValueError::new_err(words),
        _ => Error::new_err(words),
    }
}

fn of_receive(e: ReceiveError) -> PyErr {
    let words = e.to_string();
    match e {
        ReceiveError::Timeout => Timeout::new_err(words),
        ReceiveError::Stopped => Stopped::new_err(words),
        ReceiveError::Forked => Forked::new_err(words),
        _ => Error::new_err(words),
    }
}

fn of_request(e: RequestError) -> PyErr {
    let words = e.to_string();
    match e {
        RequestError::Send(e) => of_send(e),
        RequestError::NotReceived(_) => NotReceived::new_err(words),
        RequestError::NoAnswer(_) | RequestError::Gone(_) => NoAnswer::new_err(words),
        RequestError::Stopped => Stopped::new_err(words),
        RequestError::Forked => Forked::new_err(words),
        _ => Error::new_err(words),
    }
}

fn of_presence(e: PresenceError) -> PyErr {
    let words = e.to_string();
    match e {
        PresenceError::Name(_) => PyValueError::new_err(words),
        PresenceError::NotRegistered { .. } | PresenceError::StillRegistered { .. } => Timeout::new_err(words),
        PresenceError::Stopped => Stopped::new_err(words),
        PresenceError::Forked => Forked::new_err(words),
        _ => Error::new_err(words),
    }
}

fn of_memory(e: MemoryError) -> PyErr {
    let words = e.to_string();
    match e {
        MemoryError::Exists { .. } => PyFileExistsError::new_err(words),
        MemoryError::NotFound { .. } => PyFileNotFoundError::new_err(words),
        MemoryError::BadName { .. } | MemoryError::Attach { .. } => PyValueError::new_err(words),
        _ => PyOSError::new_err(words),
    }
}

fn of_endpoint(e: EndpointError) -> PyErr {
    let words = e.to_string();
    match e {
        EndpointError::Name(_) => PyValueError::new_err(words),
        EndpointError::Forked => Forked::new_err(words),
        _ => Error::new_err(words),
    }
}

fn of_control(e: ControlError) -> PyErr {
    let words = e.to_string();
    if e == ControlError::Forked { Forked::new_err(words) } else { NotFound::new_err(words) }
}

fn of_receipt(e: ReceiptError) -> PyErr {
    Error::new_err(e.to_string())
}

/// Seconds as Python has them; `None`: for ever.
fn seconds(given: Option<f64>) -> PyResult<Option<Duration>> {
    let Some(given) = given else { return Ok(None) };
    if given.is_nan() {
        return Err(PyValueError::new_err("a time is a number of seconds, not NaN"));
    }
    Ok(Some(Duration::try_from_secs_f64(given.max(0.0)).unwrap_or(Duration::MAX)))
}

/// Calls `wait` in slices without the interpreter, and looks for signals in between, until it says anything but that the
/// slice is over.
fn in_slices<T: Send>(
    py: Python<'_>,
    timeout: Option<Duration>,
    mut wait: impl FnMut(Duration) -> Option<T> + Send,
) -> PyResult<Option<T>> {
    let ends = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    loop {
        let rest = ends.map_or(SLICE, |ends| ends.saturating_duration_since(Instant::now()).min(SLICE));
        if let Some(done) = py.detach(|| wait(rest)) {
            return Ok(Some(done));
        }
        py.check_signals()?;
        if ends.is_some_and(|ends| ends <= Instant::now()) {
            return Ok(None);
        }
    }
}

/// A fabric. Any thread may use it.
#[pyclass(frozen, module = "k2k")]
struct Fabric(Own<Mutex<Option<Broker<Any>>>>);

impl Fabric {
    fn broker(&self) -> PyResult<Broker<Any>> {
        // Before the lock, which another thread may have held when the process forked.
        if !self.0.is_here() {
            return Err(of_endpoint(EndpointError::Forked));
        }
        let broker = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        broker.clone().ok_or_else(|| Closed::new_err("this broker was closed"))
    }
}

#[pymethods]
impl Fabric {
    /// `how` is "create", "open", "create_or_open" or "heap".
    #[new]
    #[pyo3(signature = (how, name, kernels, slots, payload, delivery_timeout, tracing))]
    fn new(
        how: &str,
        name: &str,
        kernels: usize,
        slots: usize,
        payload: usize,
        delivery_timeout: f64,
        tracing: bool,
    ) -> PyResult<Self> {
        let timeout = seconds(Some(delivery_timeout))?.unwrap_or(Duration::MAX);
        let builder = Builder::<Any>::new().kernels(kernels).slots(slots).payload(payload);
        let builder = builder.delivery_timeout(timeout).tracing(tracing);
        let builder = match how {
            "create" => builder.create(name),
            "open" => builder.open(name),
            "create_or_open" => builder.create_or_open(name),
            _ => builder.heap(),
        };
        Ok(Self(Own::new(Mutex::new(Some(builder.build().map_err(of_memory)?)))))
    }

    fn shape(&self) -> PyResult<(u32, u32, u32)> {
        let shape = self.broker()?.memory().fabric().geometry();
        Ok((shape.kernels, shape.slots, shape.payload))
    }

    #[pyo3(signature = (name, parks, index))]
    fn register(&self, name: &str, parks: bool, index: Option<usize>) -> PyResult<Kernel> {
        let broker = self.broker()?;
        let mut who = Registration::new(name).map_err(|e| PyValueError::new_err(e.to_string()))?;
        if parks {
            who = who.parking();
        }
        if let Some(index) = index {
            let kernels = broker.memory().fabric().geometry().kernels as usize;
            if index >= kernels {
                let words = format!("there is no kernel index {index}: the fabric has {kernels}, from 0");
                return Err(PyValueError::new_err(words));
            }
            who = who.at(index);
        }
        let endpoint = broker.register_as(&who).map_err(of_endpoint)?;
        let (id, capacity) = (endpoint.id().raw(), endpoint.fabric().geometry().payload as usize);
        let empty = || boxed(|memory| Mail::new_in(memory, 0));
        let desk = Box::new(Desk { client: Client::new(endpoint), outgoing: empty(), incoming: empty() });
        let descriptor = Descriptor::new().map_err(|e| PyOSError::new_err(e.to_string()))?;
        let turns = Turns { next: Mutex::new(()), desk: Mutex::new(Some(desk)), descriptor };
        Ok(Kernel { id, capacity, turns: Own::new(turns) })
    }

    fn find(&self, name: &str) -> PyResult<Option<u64>> {
        Ok(self.broker()?.find(name).map(KernelId::raw))
    }

    fn kernels(&self) -> PyResult<Vec<(u64, String)>> {
        Ok(self.broker()?.kernels().into_iter().map(|(id, name)| (id.raw(), name.as_str().to_owned())).collect())
    }

    fn wait_for_kernel(&self, py: Python<'_>, name: &str, timeout: Option<f64>) -> PyResult<u64> {
        let (broker, timeout) = (self.broker()?, seconds(timeout)?);
        let found = in_slices(py, timeout, |slice| match broker.wait_for_kernel(name, slice) {
            Err(PresenceError::NotRegistered { .. }) => None,
            decided => Some(decided),
        })?;
        match found {
            Some(found) => Ok(found.map_err(of_presence)?.raw()),
            None => Err(Timeout::new_err(format!("no kernel registered as {name:?} in time"))),
        }
    }

    fn wait_until_gone(&self, py: Python<'_>, kernel: u64, timeout: Option<f64>) -> PyResult<()> {
        let (broker, timeout, kernel) = (self.broker()?, seconds(timeout)?, KernelId::from_raw(kernel));
        let gone = in_slices(py, timeout, |slice| broker.wait_until_gone(kernel, slice).ok())?;
        gone.ok_or_else(|| Timeout::new_err(format!("{kernel} did not leave in time")))
    }

    fn command(&self, kernel: u64, command: &str) -> PyResult<()> {
        let command = match command {
            "run" => Command::Run,
            "pause" => Command::Pause,
            "drain" => Command::Drain,
            "stop" => Command::Stop,
            other => {
                let words = format!("{other:?} is no command: run, pause, drain, stop");
                return Err(PyValueError::new_err(words));
            }
        };
        self.broker()?.command(KernelId::from_raw(kernel), command).map_err(of_control)
    }

    fn stats<'py>(&self, py: Python<'py>, kernel: Option<u64>) -> PyResult<Bound<'py, PyDict>> {
        let broker = self.broker()?;
        let stats = match kernel {
            None => broker.stats(),
            Some(kernel) => broker
                .kernel_stats(KernelId::from_raw(kernel))
                .ok_or_else(|| NotFound::new_err("no kernel has had this address yet"))?,
        };
        counters(py, &stats)
    }

    fn pending(&self) -> PyResult<u64> {
        Ok(self.broker()?.pending())
    }

    fn reap(&self) -> PyResult<usize> {
        Ok(self.broker()?.reap().reaped.len())
    }

    fn close(&self) {
        // A forked process's copy is its parent's.
        if !self.0.is_here() {
            return;
        }
        drop(self.0.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

fn counters<'py>(py: Python<'py>, stats: &Stats) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    for (name, count) in [
        ("sent", stats.sent),
        ("received", stats.received),
        ("not_found", stats.not_found),
        ("queue_full", stats.queue_full),
        ("timeout", stats.timeout),
        ("max_hops_exceeded", stats.max_hops_exceeded),
        ("unanswered", stats.unanswered),
        ("not_allowed", stats.not_allowed),
        ("forwarded", stats.forwarded),
        ("refused", stats.refused),
    ] {
        dict.set_item(name, count)?;
    }
    Ok(dict)
}

/// A received message.
#[pyclass(frozen, get_all, module = "k2k")]
struct Message {
    /// The sender's address.
    source: u64,
    /// The sender's count.
    sequence: u64,
    /// The request's sequence, if this is a reply; otherwise the sender's choice.
    correlation_id: u64,
    /// What the payload means: the sender's number.
    kind: u32,
    /// The sender's choice.
    flags: u8,
    /// How often it was forwarded.
    hops: u8,
    /// Whether it had high priority.
    high: bool,
    /// Whether it answers a message of this kernel.
    is_reply: bool,
    /// When it was sent, ns since the Unix epoch.
    wall_time_ns: u64,
    /// The bytes.
    payload: Py<PyBytes>,
}

impl Message {
    fn of(py: Python<'_>, mail: &Mail) -> Self {
        let header = &mail.header;
        Self {
            source: header.source().raw(),
            sequence: header.sequence,
            correlation_id: header.correlation_id,
            kind: header.kind,
            flags: header.flags,
            hops: header.hops,
            high: header.priority != 0,
            is_reply: header.is_reply(),
            wall_time_ns: header.wall_time_ns,
            payload: PyBytes::new(py, mail.payload()).unbind(),
        }
    }
}

#[pymethods]
impl Message {
    fn __repr__(&self, py: Python<'_>) -> String {
        let source = KernelId::from_raw(self.source);
        let len = self.payload.bind(py).as_bytes().len();
        format!("<k2k.Message kind {} of {len} bytes from {source}>", self.kind)
    }
}

/// What the calls on an endpoint use, one at a time.
struct Desk {
    client: Client<Any>,
    outgoing: Box<Mail>,
    incoming: Box<Mail>,
}

/// The turns that calls on an endpoint take. A forked process does not touch its copy: a thread of its parent may have had
/// its turn.
struct Turns {
    /// Held by the call whose turn is next, so that a call that waits in slices does not overtake it between two slices.
    next: Mutex<()>,
    /// In a box: an endpoint is aligned to 128 bytes, and Python's objects to 16. `None`: closed.
    desk: Mutex<Option<Box<Desk>>>,
    /// Stays open until the object goes, so that no event loop waits for a descriptor that has become another one's.
    descriptor: Descriptor,
}

impl Turns {
    fn take(&self) -> MutexGuard<'_, Option<Box<Desk>>> {
        let _next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A kernel. Calls of several threads take turns.
#[pyclass(frozen, module = "k2k")]
struct Kernel {
    #[pyo3(get)]
    id: u64,
    capacity: usize,
    turns: Own<Turns>,
}

/// A request that a task waits for.
#[pyclass(frozen, module = "k2k")]
struct Started(Mutex<Option<Asking>>);

/// A request and its message.
struct Asking {
    request: StartedRequest,
    message: Box<Mail>,
}

/// What the caller says of a message that is to be sent.
struct Given<'g> {
    kind: u32,
    flags: u8,
    correlation_id: u64,
    timeout: Option<Duration>,
    payload: &'g [u8],
}

impl Kernel {
    /// Calls `f` without the interpreter, when no other call uses the endpoint.
    fn at_desk<T: Send>(&self, py: Python<'_>, f: impl FnOnce(&mut Desk) -> T + Send) -> PyResult<T> {
        let turns = self.turns()?;
        py.detach(|| turns.take().as_deref_mut().map(f)).ok_or_else(closed)
    }

    /// As [`at_desk`](Self::at_desk), in slices, until `f` says anything but that its slice is over.
    fn in_turns<T: Send>(
        &self,
        py: Python<'_>,
        timeout: Option<Duration>,
        mut f: impl FnMut(&mut Desk, Duration) -> Option<T> + Send,
    ) -> PyResult<Option<T>> {
        let turns = self.turns()?;
        let done = in_slices(py, timeout, |slice| match turns.take().as_deref_mut() {
            Some(desk) => f(desk, slice).map(Some),
            None => Some(None),
        })?;
        done.map(|open| open.ok_or_else(closed)).transpose()
    }

    /// What calls take turns at, unless this is a forked process's copy.
    fn turns(&self) -> PyResult<&Turns> {
        // Before any lock, which another thread may have held when the process forked.
        if self.turns.is_here() { Ok(&self.turns) } else { Err(of_receive(ReceiveError::Forked)) }
    }

    /// A request that is not sent yet.
    fn asking(&self, py: Python<'_>, to: u64, payload: &Bound<'_, PyAny>, kind: u32, timeout: f64) -> PyResult<Asking> {
        let payload = self.bytes(py, payload)?;
        let timeout = seconds(Some(timeout))?.unwrap_or(Duration::MAX);
        let to = KernelId::from_raw(to);
        self.at_desk(py, |desk| {
            let mut message = boxed(|memory| Mail::new_in(memory, kind));
            message.set_payload(&payload).map_err(|e| of_send(SendError::PayloadTooLong(e)))?;
            let request = desk.client.start_request(to, &mut message, timeout);
            Ok(Asking { request, message })
        })?
    }

    /// The bytes of an object: `bytes`, a numpy array, anything with a contiguous buffer.
    fn bytes(&self, py: Python<'_>, payload: &Bound<'_, PyAny>) -> PyResult<Vec<u8>> {
        if let Ok(bytes) = payload.cast::<PyBytes>() {
            return self.fits(bytes.as_bytes().len()).map(|()| bytes.as_bytes().to_vec());
        }
        let cast = py.import("builtins")?.getattr("memoryview")?.call1((payload,))?.call_method1("cast", ("B",))?;
        let buffer = PyBuffer::<u8>::get(&cast)?;
        self.fits(buffer.len_bytes())?;
        buffer.to_vec(py)
    }

    fn fits(&self, len: usize) -> PyResult<()> {
        if len > self.capacity {
            return Err(PyValueError::new_err(PayloadTooLong { len, capacity: self.capacity }.to_string()));
        }
        Ok(())
    }
}

impl Started {
    fn take(&self) -> Option<Asking> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn put(&self, asking: Asking) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(asking);
    }
}

impl Asking {
    /// The answer, if it comes within a slice.
    fn look(&mut self, desk: &mut Desk, slice: Duration) -> Result<Option<Message>, RequestError> {
        let answered = desk.client.look_at_request(&mut self.request, &self.message, &mut desk.incoming, slice)?;
        Ok(answered.then(|| Python::attach(|py| Message::of(py, &desk.incoming))))
    }
}

fn closed() -> PyErr {
    Closed::new_err("this endpoint was closed")
}

impl Desk {
    /// Messages that were received and wait for their receivers in this process.
    fn put_aside(&self) -> usize {
        self.client.kept() + self.client.put_aside()
    }

    fn write(&mut self, given: &Given<'_>) -> Result<(), SendError> {
        let deadline_ns = given.timeout.map_or(0, |timeout| self.client.endpoint().deadline_in(timeout));
        self.outgoing.set_payload(given.payload).map_err(SendError::PayloadTooLong)?;
        let header = &mut self.outgoing.header;
        (header.kind, header.flags, header.correlation_id) = (given.kind, given.flags, given.correlation_id);
        header.deadline_ns = deadline_ns;
        Ok(())
    }
}

#[pymethods]
impl Kernel {
    #[pyo3(signature = (to, payload, kind, high, timeout, correlation_id, flags, wait))]
    #[allow(clippy::too_many_arguments, reason = "keywords, in Python")]
    fn send(
        &self,
        py: Python<'_>,
        to: u64,
        payload: &Bound<'_, PyAny>,
        kind: u32,
        high: bool,
        timeout: Option<f64>,
        correlation_id: u64,
        flags: u8,
        wait: bool,
    ) -> PyResult<(u64, u64)> {
        let payload = self.bytes(py, payload)?;
        let given = Given { kind, flags, correlation_id, timeout: seconds(timeout)?, payload: &payload };
        let (to, priority) = (KernelId::from_raw(to), if high { Priority::High } else { Priority::Normal });
        let mut deadline_ns = None;
        let mut send = |desk: &mut Desk| {
            desk.write(&given)?;
            let (endpoint, header) = (desk.client.endpoint_mut(), &mut desk.outgoing.header);
            if !wait {
                return endpoint.send_priority(to, &desk.outgoing, priority);
            }
            // The same however often it is tried.
            header.deadline_ns = *deadline_ns.get_or_insert_with(|| match header.deadline_ns {
                0 => {
                    let timeout_ns = endpoint.fabric().config().delivery_timeout_ns;
                    endpoint.deadline_in(Duration::from_nanos(timeout_ns))
                }
                given => given,
            });
            match endpoint.send_priority(to, &desk.outgoing, priority) {
                Err(SendError::QueueFull { next_hop }) if endpoint.command() == Command::Stop => {
                    Err(SendError::Stopped { next_hop })
                }
                Err(full @ SendError::QueueFull { .. }) => {
                    endpoint.poll();
                    Err(full)
                }
                sent => sent,
            }
        };
        let sent = loop {
            match self.at_desk(py, &mut send)? {
                Err(SendError::QueueFull { .. }) if wait => {
                    py.detach(|| std::thread::sleep(ROOM));
                    py.check_signals()?;
                }
                sent => break sent,
            }
        };
        sent.map(|id| (id.source.raw(), id.sequence)).map_err(of_send)
    }

    fn receive(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Message> {
        let received = self.in_turns(py, seconds(timeout)?, |desk, slice| {
            match desk.client.receive_into(&mut desk.incoming, slice) {
                // Copied while no other call can receive.
                Ok(()) => Some(Ok(Python::attach(|py| Message::of(py, &desk.incoming)))),
                Err(ReceiveError::Timeout) => None,
                Err(e) => Some(Err(e)),
            }
        })?;
        received.unwrap_or(Err(ReceiveError::Timeout)).map_err(of_receive)
    }

    /// The descriptor that becomes readable when an endpoint that `look` or `look_at` has armed may have something to receive.
    fn descriptor(&self) -> PyResult<i32> {
        Ok(self.turns()?.descriptor.as_raw_fd())
    }

    /// For a task: the next message, if there is one; whether the descriptor is armed; whether messages for others were put
    /// aside.
    fn look(&self, py: Python<'_>) -> PyResult<(Option<Message>, bool, bool)> {
        let descriptor = &self.turns()?.descriptor;
        let (received, armed, aside) = self.at_desk(py, |desk| {
            let before = desk.put_aside();
            let received = match desk.client.receive_into(&mut desk.incoming, Duration::ZERO) {
                Ok(()) => Ok(Some(Python::attach(|py| Message::of(py, &desk.incoming)))),
                Err(ReceiveError::Timeout) => Ok(None),
                Err(e) => Err(e),
            };
            let armed = matches!(received, Ok(None)) && descriptor.arm(desk.client.endpoint_mut());
            (received, armed, desk.put_aside() > before)
        })?;
        Ok((received.map_err(of_receive)?, armed, aside))
    }

    /// For a task: a request that `look_at` sends.
    #[pyo3(signature = (to, payload, kind, timeout))]
    fn start(&self, py: Python<'_>, to: u64, payload: &Bound<'_, PyAny>, kind: u32, timeout: f64) -> PyResult<Started> {
        let asking = self.asking(py, to, payload, kind, timeout)?;
        Ok(Started(Mutex::new(Some(asking))))
    }

    /// For a task: the answer, if there is one; otherwise for how many seconds to wait for the descriptor, and whether
    /// messages for others were put aside. A request whose answer or error was returned has ended.
    fn look_at(&self, py: Python<'_>, started: &Started) -> PyResult<(Option<Message>, f64, bool)> {
        let descriptor = &self.turns()?.descriptor;
        let Some(mut asking) = started.take() else {
            return Err(Error::new_err("another task looks at this request, or it has ended"));
        };
        let (found, next, aside) = self.at_desk(py, |desk| {
            let before = desk.put_aside();
            let found = asking.look(desk, Duration::ZERO);
            let armed = matches!(found, Ok(None)) && descriptor.arm(desk.client.endpoint_mut());
            let limit = if armed { SLICE } else { ROOM };
            let rest = |next: Instant| next.saturating_duration_since(Instant::now());
            let next = asking.request.next_look().map_or(limit, |next| rest(next).min(limit));
            (found, next, desk.put_aside() > before)
        })?;
        let found = found.map_err(of_request)?;
        if found.is_none() {
            started.put(asking);
        }
        Ok((found, next.as_secs_f64(), aside))
    }

    /// For a task that was cancelled: gives a request up.
    fn abandon(&self, py: Python<'_>, started: &Started) -> PyResult<()> {
        match started.take() {
            Some(asking) => self.at_desk(py, |desk| desk.client.abandon_request(asking.request)),
            None => Ok(()),
        }
    }

    #[pyo3(signature = (request, payload, kind, flags))]
    fn reply(
        &self,
        py: Python<'_>,
        request: &Message,
        payload: &Bound<'_, PyAny>,
        kind: u32,
        flags: u8,
    ) -> PyResult<(u64, u64)> {
        let payload = self.bytes(py, payload)?;
        let given = Given { kind, flags, correlation_id: 0, timeout: None, payload: &payload };
        let (source, sequence, high) = (KernelId::from_raw(request.source), request.sequence, request.high);
        let sent = self.at_desk(py, |desk| {
            desk.write(&given)?;
            let header = &mut desk.incoming.header;
            header.set_source(source);
            (header.sequence, header.priority) = (sequence, u8::from(high));
            desk.client.endpoint_mut().reply(&desk.incoming, &desk.outgoing)
        })?;
        sent.map(|id| (id.source.raw(), id.sequence)).map_err(of_send)
    }

    #[pyo3(signature = (to, payload, kind, timeout))]
    fn request(
        &self,
        py: Python<'_>,
        to: u64,
        payload: &Bound<'_, PyAny>,
        kind: u32,
        timeout: f64,
    ) -> PyResult<Message> {
        let mut asking = self.asking(py, to, payload, kind, timeout)?;
        let waited = self.in_turns(py, None, |desk, slice| asking.look(desk, slice).transpose());
        match waited {
            Ok(Some(answered)) => answered.map_err(of_request),
            // No time limit of this call's ends it.
            Ok(None) => Err(of_receive(ReceiveError::Timeout)),
            // Ctrl-C, or the endpoint was closed meanwhile.
            Err(why) => {
                let _ = self.at_desk(py, |desk| desk.client.abandon_request(asking.request));
                Err(why)
            }
        }
    }

    fn receipt(&self, py: Python<'_>, source: u64, sequence: u64) -> PyResult<String> {
        let id = MessageId { source: KernelId::from_raw(source), sequence };
        let receipt = self.at_desk(py, |desk| desk.client.endpoint_mut().receipt(id))?;
        receipt.map(|receipt| format!("{:?}", receipt.status)).map_err(of_receipt)
    }

    fn poll(&self, py: Python<'_>) -> PyResult<usize> {
        self.at_desk(py, |desk| desk.client.endpoint_mut().poll())
    }

    fn close(&self, py: Python<'_>) {
        // A forked process's copy is its parent's.
        if let Ok(turns) = self.turns() {
            py.detach(|| drop(turns.take().take()));
        }
    }
}

/// Removes a fabric's file. Processes that have it open keep it.
#[pyfunction]
fn remove(name: &str) -> PyResult<()> {
    memory::remove(name).map_err(of_memory)
}

/// Python aligns its objects to 16 bytes.
const _: () = assert!(align_of::<Fabric>() <= 16 && align_of::<Kernel>() <= 16 && align_of::<Message>() <= 16);
const _: () = assert!(align_of::<Started>() <= 16);

#[pymodule]
fn _k2k(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add_class::<Fabric>()?;
    module.add_class::<Kernel>()?;
    module.add_class::<Message>()?;
    module.add_class::<Started>()?;
    module.add_function(wrap_pyfunction!(remove, module)?)?;
    module.add("Error", py.get_type::<Error>())?;
    module.add("QueueFull", py.get_type::<QueueFull>())?;
    module.add("NotFound", py.get_type::<NotFound>())?;
    module.add("Timeout", py.get_type::<Timeout>())?;
    module.add("Stopped", py.get_type::<Stopped>())?;
    module.add("NotReceived", py.get_type::<NotReceived>())?;
    module.add("NoAnswer", py.get_type::<NoAnswer>())?;
    module.add("Forked", py.get_type::<Forked>())?;
    module.add("Closed", py.get_type::<Closed>())?;
    Ok(())
}
