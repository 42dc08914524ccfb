//! Calls on a kernel: sending, receiving, asking, and its run loop.

use crate::broker::{limit, put, text};
use crate::error::{Failure, guard, k2k_result};
use crate::table::{InUse, Table};
use crate::types::{
    K2K_FOREVER, k2k_endpoint, k2k_kernel_id, k2k_message, k2k_message_id, k2k_send_options, read_struct, write_struct,
};
use crate::{Any, PAYLOAD};
use core::cell::Cell;
use core::ffi::{c_char, c_int, c_void};
use core::marker::PhantomData;
use core::ptr::NonNull;
use core::time::Duration;
use k2k::message::PayloadTooLong;
use k2k::{
    Client, Context, DeliveryReceipt, Descriptor, Endpoint, Idle, KernelId, MessageId, Priority, ReceiptError,
    RequestError, SendError, boxed,
};
use std::collections::VecDeque;
use std::os::fd::AsRawFd as _;

/// A message, as the library has it.
type Mail = k2k::Message<PAYLOAD>;

pub(crate) static ENDPOINTS: Table<Kernel> = Table::new("endpoint");

fn message() -> Box<Mail> {
    boxed(|memory| Mail::new_in(memory, 0))
}

/// A kernel of a C program. Messages are large, so each call uses those that are here.
pub(crate) struct Kernel {
    client: Client<Any>,
    outgoing: Box<Mail>,
    incoming: Box<Mail>,
    /// The request that a reply is for.
    request: Box<Mail>,
    /// Messages that were too long for the caller's buffer, oldest first.
    held: VecDeque<Box<Mail>>,
    /// How many messages it keeps at most, those among them.
    room: usize,
    capacity: usize,
    /// From the first call of `k2k_arm` on.
    descriptor: Option<Descriptor>,
}

impl Kernel {
    pub(crate) fn new(endpoint: Endpoint<Any>, keeps: u32) -> Self {
        let capacity = endpoint.fabric().geometry().payload as usize;
        let client = Client::new(endpoint);
        let client = if keeps == 0 { client } else { client.with_room(keeps as usize) };
        let room = client.room();
        Self {
            client,
            outgoing: message(),
            incoming: message(),
            request: message(),
            held: VecDeque::new(),
            room,
            capacity,
            descriptor: None,
        }
    }
}

/// What a handler may do with its kernel, which its run loop uses at the same time.
trait Talks {
    fn id(&self) -> KernelId;
    fn send(&mut self, to: KernelId, message: &Mail, priority: Priority) -> Result<MessageId, SendError>;
    fn reply(&mut self, request: &Mail, answer: &Mail) -> Result<MessageId, SendError>;
    fn receipt(&mut self, id: MessageId) -> Result<DeliveryReceipt, ReceiptError>;
    fn deadline_in(&self, time: Duration) -> u64;
    fn stop(&mut self);
}

/// The context of a handler, of whatever type.
struct InHandler<'c, C>(&'c mut C);

impl<C: Context<PAYLOAD>> Talks for InHandler<'_, C> {
    fn id(&self) -> KernelId {
        self.0.id()
    }
    fn send(&mut self, to: KernelId, message: &Mail, priority: Priority) -> Result<MessageId, SendError> {
        self.0.send_priority(to, message, priority)
    }
    fn reply(&mut self, request: &Mail, answer: &Mail) -> Result<MessageId, SendError> {
        self.0.reply(request, answer)
    }
    fn receipt(&mut self, id: MessageId) -> Result<DeliveryReceipt, ReceiptError> {
        self.0.receipt(id)
    }
    fn deadline_in(&self, time: Duration) -> u64 {
        self.0.deadline_in(time)
    }
    fn stop(&mut self) {
        self.0.stop();
    }
}

impl Talks for Endpoint<Any> {
    fn id(&self) -> KernelId {
        Self::id(self)
    }
    fn send(&mut self, to: KernelId, message: &Mail, priority: Priority) -> Result<MessageId, SendError> {
        self.send_priority(to, message, priority)
    }
    fn reply(&mut self, request: &Mail, answer: &Mail) -> Result<MessageId, SendError> {
        Self::reply(self, request, answer)
    }
    fn receipt(&mut self, id: MessageId) -> Result<DeliveryReceipt, ReceiptError> {
        Self::receipt(self, id)
    }
    fn deadline_in(&self, time: Duration) -> u64 {
        Self::deadline_in(self, time)
    }
    fn stop(&mut self) {}
}

/// What a call needs that a handler may make as well.
struct Desk<'k> {
    talks: &'k mut dyn Talks,
    outgoing: &'k mut Mail,
    request: &'k mut Mail,
    capacity: usize,
}

/// The kernel whose handler runs on this thread.
#[derive(Clone, Copy)]
struct Current {
    handle: u64,
    desk: NonNull<Desk<'static>>,
}

thread_local! {
    static CURRENT: Cell<Option<Current>> = const { Cell::new(None) };
}

/// Puts what was there into `CURRENT` again, however a call ends.
struct Restore(Option<Current>);

impl Drop for Restore {
    fn drop(&mut self) {
        CURRENT.set(self.0);
    }
}

/// Calls `f` with the desk of a kernel: of one that no call uses, or of the one whose handler makes this call.
fn at_desk<R>(handle: u64, f: impl FnOnce(&mut Desk<'_>) -> Result<R, Failure>) -> Result<R, Failure> {
    match ENDPOINTS.enter(handle) {
        Ok(mut kernel) => {
            let Kernel { client, outgoing, request, capacity, .. } = &mut *kernel;
            f(&mut Desk { talks: client.endpoint_mut(), outgoing, request, capacity: *capacity })
        }
        Err(failure) => {
            // Taken out, so that nothing in `f` could find it once more; put back however `f` ends.
            let current = Restore(CURRENT.take());
            match current.0 {
                // SAFETY: the handler's caller, further up on this thread, has put it here, does not use it until the
                // handler returns, and takes it away then.
                Some(mut current) if current.handle == handle => f(unsafe { current.desk.as_mut() }),
                _ => Err(failure),
            }
        }
    }
}

/// A payload of the caller's.
///
/// # Safety
/// `data` is NULL or there are `len` bytes.
unsafe fn write_payload(message: &mut Mail, capacity: usize, data: *const c_void, len: usize) -> Result<(), Failure> {
    if len > capacity {
        return Err(SendError::PayloadTooLong(PayloadTooLong { len, capacity }).into());
    }
    if data.is_null() && len > 0 {
        return Err(Failure::null("the payload"));
    }
    let room = message.payload_mut(len).map_err(SendError::PayloadTooLong)?;
    if len > 0 {
        // SAFETY: the caller vouches for `data`; `room` is as long, and this library's.
        unsafe { core::ptr::copy_nonoverlapping(data.cast::<u8>(), room.as_mut_ptr(), len) };
    }
    Ok(())
}

impl Desk<'_> {
    /// Makes the outgoing message of what the caller has given, and returns its priority.
    ///
    /// # Safety
    /// Pointers are NULL or good.
    unsafe fn write(
        &mut self,
        kind: u32,
        data: *const c_void,
        len: usize,
        given: &k2k_send_options,
    ) -> Result<Priority, Failure> {
        let priority = match given.priority {
            0 => Priority::Normal,
            1 => Priority::High,
            other => {
                return Err(Failure::argument(format!("{other} is no priority: 0 is normal, 1 is high")));
            }
        };
        let flags = u8::try_from(given.flags)
            .map_err(|_| Failure::argument(format!("flags are 0 to 255, not {}", given.flags)))?;
        let message = &mut *self.outgoing;
        // SAFETY: passed on.
        unsafe { write_payload(message, self.capacity, data, len) }?;
        message.header.kind = kind;
        message.header.correlation_id = given.correlation_id;
        message.header.flags = flags;
        message.header.hop_limit = given.hop_limit.min(127) as u8;
        message.header.deadline_ns = match given.timeout_ns {
            0 => 0,
            K2K_FOREVER => u64::MAX,
            timeout_ns => self.talks.deadline_in(Duration::from_nanos(timeout_ns)),
        };
        Ok(priority)
    }
}

/// Closes an endpoint: its kernel leaves.
#[unsafe(no_mangle)]
pub extern "C" fn k2k_endpoint_close(endpoint: k2k_endpoint) -> k2k_result {
    guard(|| ENDPOINTS.close(endpoint.handle).map(drop))
}

/// The kernel's address. Also in its handler.
///
/// # Safety
/// Pointers are NULL or good.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn k2k_endpoint_id(endpoint: k2k_endpoint, id: *mut k2k_kernel_id) -> k2k_result {
    guard(|| {
        let found = at_desk(endpoint.handle, |desk| Ok(desk.talks.id()))?;
        // SAFETY: the caller vouches for it.
        unsafe { put(id, found.raw(), "the place for the address") }
    })
}

/// Sends a message. `options` and `id` may be NULL, and `data` if `len` is 0. Does not wait unless the options say so.
/// Also in the kernel's handler.
///
/// `K2K_OK` means that it was accepted: `k2k_receipt` says later what became of it.
///
/// # Safety
/// Pointers are NULL or good, there are `len` bytes of `data`, and structs have the size that they say.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn k2k_send(
    endpoint: k2k_endpoint,
    to: k2k_kernel_id,
    kind: u32,
    data: *const c_void,
    len: usize,
    options: *const k2k_send_options,
    id: *mut k2k_message_id,
) -> k2k_result {
    guard(|| {
        let to = KernelId::from_raw(to);
        // SAFETY: the caller vouches for it.
        let given = unsafe { read_struct(options) }?;
        let sent = if given.wait_for_room != 0 {
            let mut kernel = enter(endpoint)?;
            let Kernel { client, outgoing, request, capacity, .. } = &mut *kernel;
            let mut desk = Desk { talks: client.endpoint_mut(), outgoing, request, capacity: *capacity };
            // SAFETY: as above.
            let priority = unsafe { desk.write(kind, data, len, &given) }?;
            client.endpoint_mut().send_priority_blocking(to, outgoing, priority)?
        } else {
            at_desk(endpoint.handle, |desk| {
                // SAFETY: as above.
                let priority = unsafe { desk.write(kind, data, len, &given) }?;
                Ok(desk.talks.send(to, desk.outgoing, priority)?)
            })?
        };
        if id.is_null() {
            return Ok(());
        }
        // SAFETY: not NULL, and the caller vouches for it.
        unsafe { put(id, sent.into(), "the place for the id") }
    })
}

/// Answers a message that was received: sends to its source, with its sequence as the correlation id, at its priority.
/// `options` and `id` may be NULL. Also in the kernel's handler.
///
/// # Safety
/// As for `k2k_send`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn k2k_reply(
    endpoint: k2k_endpoint,
    request: *const k2k_message,
    kind: u32,
    data: *const c_void,
    len: usize,
    options: *const k2k_send_options,
    id: *mut k2k_message_id,
) -> k2k_result {
    guard(|| {
        if request.is_null() {
            return Err(Failure::null("the request"));
        }
        // SAFETY: the caller vouches for both.
        let (request, given) = unsafe { (read_struct(request)?, read_struct(options)?) };
        if given.wait_for_room != 0 {
            return Err(Failure::argument("a reply does not wait for room"));
        }
        let sent = at_desk(endpoint.handle, |desk| {
            // SAFETY: as above.
            unsafe { desk.write(kind, data, len, &given) }?;
            request.write_request(&mut desk.request.header);
            Ok(desk.talks.reply(desk.request, desk.outgoing)?)
        })?;
        if id.is_null() {
            return Ok(());
        }
        // SAFETY: not NULL, and the caller vouches for it.
        unsafe { put(id, sent.into(), "the place for the id") }
    })
}

/// What became of a message that this kernel has sent: one of the `K2K_STATUS_` numbers. Also in the kernel's handler.
///
/// # Safety
/// Pointers are NULL or good.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn k2k_receipt(endpoint: k2k_endpoint, id: k2k_message_id, status: *mut u32) -> k2k_result {
    guard(|| {
        let receipt = at_desk(endpoint.handle, |desk| Ok(desk.talks.receipt(id.into())?))?;
        // SAFETY: the caller vouches for it.
        unsafe { put(status, receipt.status as u32, "the place for the status") }
    })
}

/// Lets the run loop of this kernel end after the message in hand. In the kernel's handler only; from elsewhere see
/// `k2k_command`.
#[unsafe(no_mangle)]
pub extern "C" fn k2k_stop(endpoint: k2k_endpoint) -> k2k_result {
    guard(|| {
        if CURRENT.get().is_none_or(|current| current.handle != endpoint.handle) {
            return Err(Failure::argument("no handler of this endpoint runs on this thread: see k2k_command"));
        }
        at_desk(endpoint.handle, |desk| {
            desk.talks.stop();
            Ok(())
        })
    })
}

/// An endpoint for a call that a handler cannot make.
fn enter(endpoint: k2k_endpoint) -> Result<InUse<'static, Kernel>, Failure> {
    ENDPOINTS.enter(endpoint.handle)
}

/// Gives a message to the caller.
///
/// # Safety
/// Pointers are NULL or good, and there are `capacity` bytes in the buffer.
unsafe fn hand_over(
    received: &Mail,
    message: *mut k2k_message,
    buffer: *mut c_void,
    capacity: usize,
) -> Result<bool, Failure> {
    let payload = received.payload();
    if !message.is_null() {
        // SAFETY: passed on.
        unsafe { write_struct(message, &k2k_message::of(&received.header, payload.len())) }?;
    }
    if payload.len() > capacity || (buffer.is_null() && !payload.is_empty()) {
        return Ok(false);
    }
    if !payload.is_empty() {
        // SAFETY: passed on; the payload is shorter, and this library's.
        unsafe { core::ptr::copy_nonoverlapping(payload.as_ptr(), buffer.cast::<u8>(), payload.len()) };
    }
    Ok(true)
}

fn too_small(received: &Mail, capacity: usize) -> Failure {
    let words = format!(
        "the message carries {} bytes, and the buffer holds {capacity}: it was kept, receive it with a larger buffer",
        received.payload().len()
    );
    Failure::new(k2k_result::K2K_BUFFER_TOO_SMALL, words)
}

/// Checks what a call will write to, before it takes a message.
///
/// # Safety
/// NULL, or a struct that has the size that it says.
unsafe fn check_place(message: *mut k2k_message) -> Result<(), Failure> {
    if message.is_null() {
        return Ok(());
    }
    // SAFETY: passed on.
    unsafe { crate::types::size_of_struct(message) }.map(drop)
}

/// The next message: waits for it for `timeout_ns`, 0: not at all, `K2K_FOREVER`: without a limit. Its payload goes into
/// the buffer, everything else into `message`, which may be NULL.
///
/// `K2K_TIMEOUT` if none came; `K2K_BUFFER_TOO_SMALL` if its payload is longer than `capacity`: then `message` says its
/// length, and the next call gets the same message.
///
/// # Safety
/// Pointers are NULL or good, there are `capacity` bytes in the buffer, and structs have the size that they say.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn k2k_receive(
    endpoint: k2k_endpoint,
    message: *mut k2k_message,
    buffer: *mut c_void,
    capacity: usize,
    timeout_ns: u64,
) -> k2k_result {
    guard(|| {
        // SAFETY: the caller vouches for it.
        unsafe { check_place(message) }?;
        let mut kernel = enter(endpoint)?;
        let kernel = &mut *kernel;
        if let Some(held) = kernel.held.front() {
            // SAFETY: as above.
            if !unsafe { hand_over(held, message, buffer, capacity) }? {
                return Err(too_small(held, capacity));
            }
            kernel.held.pop_front();
            return Ok(());
        }
        kernel.client.receive_into(&mut kernel.incoming, limit(timeout_ns))?;
        // SAFETY: as above.
        if !unsafe { hand_over(&kernel.incoming, message, buffer, capacity) }? {
            let failure = too_small(&kernel.incoming, capacity);
            kernel.held.push_back(core::mem::replace(&mut kernel.incoming, self::message()));
            return Err(failure);
        }
        Ok(())
    })
}

/// Sends a request and waits for its answer, `timeout_ns` at most. While there is no room it tries again; other mail is kept
/// for `k2k_receive`; a late answer to an earlier request is dropped. The answer goes into the buffer and `message`, as
/// in `k2k_receive`.
///
/// `K2K_NOT_RECEIVED`: the request was not received, so it is safe to repeat; `K2K_NO_ANSWER`: it was, or may have been.
/// `status`, which may be NULL, gets its status then. `K2K_GONE`: the service has left.
///
/// # Safety
/// As for `k2k_send` and `k2k_receive`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn k2k_request(
    endpoint: k2k_endpoint,
    to: k2k_kernel_id,
    kind: u32,
    data: *const c_void,
    len: usize,
    timeout_ns: u64,
    message: *mut k2k_message,
    buffer: *mut c_void,
    capacity: usize,
    status: *mut u32,
) -> k2k_result {
    guard(|| {
        // SAFETY: the caller vouches for it.
        unsafe { check_place(message) }?;
        let mut kernel = enter(endpoint)?;
        let kernel = &mut *kernel;
        let kept = kernel.held.len() + kernel.client.kept();
        if kept >= kernel.room {
            return Err(RequestError::Crowded { kept }.into());
        }
        // SAFETY: as above.
        unsafe { write_payload(&mut kernel.outgoing, kernel.capacity, data, len) }?;
        let header = &mut kernel.outgoing.header;
        (header.kind, header.correlation_id, header.flags, header.hop_limit) = (kind, 0, 0, 0);
        header.deadline_ns = 0;
        let timeout = limit(timeout_ns).unwrap_or(Duration::MAX);
        let (to, outgoing, incoming) = (KernelId::from_raw(to), &mut kernel.outgoing, &mut kernel.incoming);
        let asked = kernel.client.request_into(to, outgoing, incoming, timeout);
        if let Err(RequestError::NotReceived(found) | RequestError::NoAnswer(found)) = asked
            && !status.is_null()
        {
            // SAFETY: as above.
            unsafe { put(status, found as u32, "the place for the status") }?;
        }
        asked?;
        // SAFETY: as above.
        if !unsafe { hand_over(&kernel.incoming, message, buffer, capacity) }? {
            let failure = too_small(&kernel.incoming, capacity);
            kernel.held.push_front(core::mem::replace(&mut kernel.incoming, self::message()));
            return Err(failure);
        }
        Ok(())
    })
}

/// Waits for a kernel as `k2k_wait_for_kernel`, but passes messages for others on meanwhile, and ends with `K2K_STOPPED`
/// when this kernel is told to stop. `K2K_FOREVER`: without a limit.
///
/// # Safety
/// Pointers are NULL or good, and `name` ends with a NUL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn k2k_endpoint_wait_for_kernel(
    endpoint: k2k_endpoint,
    name: *const c_char,
    timeout_ns: u64,
    found: *mut k2k_kernel_id,
) -> k2k_result {
    guard(|| {
        let mut kernel = enter(endpoint)?;
        // SAFETY: the caller vouches for it.
        let name = unsafe { text(name, "the name") }?;
        let id = kernel.client.endpoint_mut().wait_for_kernel(name, limit(timeout_ns))?;
        // SAFETY: as above.
        unsafe { put(found, id.raw(), "the place for the kernel") }
    })
}

/// Passes messages for others on, without waiting. `passed`, which may be NULL, gets their number.
///
/// # Safety
/// Pointers are NULL or good.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn k2k_poll(endpoint: k2k_endpoint, passed: *mut u64) -> k2k_result {
    guard(|| {
        let number = enter(endpoint)?.client.endpoint_mut().poll() as u64;
        if passed.is_null() {
            return Ok(());
        }
        // SAFETY: not NULL, and the caller vouches for it.
        unsafe { put(passed, number, "the place for the number") }
    })
}

fn no_descriptor(why: std::io::Error) -> Failure {
    Failure::new(k2k_result::K2K_SYSTEM, format!("the system gives no descriptor: {why}"))
}

/// For loops around `poll`, `select` or `epoll`: gives a descriptor that becomes readable when the endpoint may have
/// something to receive, mail or a command to stop. It stays the same and is closed with the endpoint; do not read it or close it.
///
/// Call this each time after `k2k_receive` with no time to wait gave `K2K_TIMEOUT`. `wait` gets 1; or 0 if there is something
/// to receive by now, and then the loop must not wait. Register the kernel as one that parks, or the descriptor becomes readable
/// every millisecond.
///
/// # Safety
/// Pointers are NULL or good.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn k2k_arm(endpoint: k2k_endpoint, descriptor: *mut c_int, wait: *mut c_int) -> k2k_result {
    guard(|| {
        let mut kernel = enter(endpoint)?;
        let kernel = &mut *kernel;
        let armed = match &kernel.descriptor {
            Some(descriptor) => descriptor,
            None => kernel.descriptor.insert(Descriptor::new().map_err(no_descriptor)?),
        };
        let is_empty = kernel.held.is_empty() && kernel.client.kept() == 0;
        let waits = armed.arm(kernel.client.endpoint_mut()) && is_empty;
        // SAFETY: the caller vouches for both.
        unsafe {
            put(descriptor, armed.as_raw_fd(), "the place for the descriptor")?;
            put(wait, c_int::from(waits), "the place for the answer")
        }
    })
}

/// Called for each message. In it, `k2k_send`, `k2k_reply`, `k2k_receipt`, `k2k_endpoint_id` and `k2k_stop` work on the
/// endpoint; other calls on it give `K2K_IN_USE`. The message and the payload are good until it returns. It must return:
/// an exception or a `longjmp` that leaves it is undefined.
pub type k2k_on_message = Option<
    unsafe extern "C" fn(
        user: *mut c_void,
        endpoint: k2k_endpoint,
        message: *const k2k_message,
        payload: *const c_void,
    ),
>;

/// Called when there is no message: one of the `K2K_IDLE_` numbers says when to call it again.
pub type k2k_on_idle = Option<unsafe extern "C" fn(user: *mut c_void, endpoint: k2k_endpoint) -> u32>;

/// A handler of C functions.
struct Handler<'k> {
    endpoint: k2k_endpoint,
    outgoing: &'k mut Mail,
    request: &'k mut Mail,
    capacity: usize,
    on_message: unsafe extern "C" fn(*mut c_void, k2k_endpoint, *const k2k_message, *const c_void),
    on_idle: k2k_on_idle,
    user: *mut c_void,
    not_send: PhantomData<*mut ()>,
}

impl Handler<'_> {
    /// Calls `f`, in which the endpoint's handle means this context.
    fn at_desk<R>(&mut self, context: &mut impl Context<PAYLOAD>, f: impl FnOnce() -> R) -> R {
        let mut talks = InHandler(context);
        let mut desk =
            Desk { talks: &mut talks, outgoing: self.outgoing, request: self.request, capacity: self.capacity };
        let desk = NonNull::from(&mut desk).cast::<Desk<'static>>();
        // Takes the desk away, however the handler ends.
        let _restore = Restore(CURRENT.replace(Some(Current { handle: self.endpoint.handle, desk })));
        f()
    }
}

impl k2k::Kernel<PAYLOAD> for Handler<'_> {
    fn on_message(&mut self, context: &mut impl Context<PAYLOAD>, message: &Mail) {
        let (on_message, user, endpoint) = (self.on_message, self.user, self.endpoint);
        let payload = message.payload();
        let found = k2k_message::of(&message.header, payload.len());
        // SAFETY: the caller of `k2k_run` vouches for the function.
        self.at_desk(context, || unsafe { on_message(user, endpoint, &raw const found, payload.as_ptr().cast()) });
    }

    fn on_idle(&mut self, context: &mut impl Context<PAYLOAD>) -> Idle {
        let Some(on_idle) = self.on_idle else { return Idle::Done };
        let (user, endpoint) = (self.user, self.endpoint);
        // SAFETY: as above.
        match self.at_desk(context, || unsafe { on_idle(user, endpoint) }) {
            1 => Idle::Again,
            2 => Idle::Soon,
            _ => Idle::Done,
        }
    }
}

/// Runs the kernel on this thread until `k2k_stop` in its handler or a `K2K_COMMAND_STOP` or `DRAIN`: calls `on_message`
/// for each message, and `on_idle`, which may be NULL, when there is none. Gives a sign of life every `heartbeat_ns`, 0:
/// every 250 ms.
///
/// Messages that were kept while an answer was waited for are not handled here: receive them before.
///
/// # Safety
/// The functions may be called with `user`, on this thread, until this call returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn k2k_run(
    endpoint: k2k_endpoint,
    on_message: k2k_on_message,
    on_idle: k2k_on_idle,
    user: *mut c_void,
    heartbeat_ns: u64,
) -> k2k_result {
    guard(|| {
        let on_message = on_message.ok_or_else(|| Failure::null("the handler"))?;
        let mut kernel = enter(endpoint)?;
        let Kernel { client, outgoing, request, capacity, .. } = &mut *kernel;
        let mut handler = Handler {
            endpoint,
            outgoing,
            request,
            capacity: *capacity,
            on_message,
            on_idle,
            user,
            not_send: PhantomData,
        };
        let heartbeat = if heartbeat_ns == 0 { 250_000_000 } else { heartbeat_ns };
        client.endpoint_mut().run(&mut handler, Duration::from_nanos(heartbeat));
        Ok(())
    })
}
