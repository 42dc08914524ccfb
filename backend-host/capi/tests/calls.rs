//! The calls, made from Rust: what they do, each bad input, and any sequence of them.

use core::ffi::{CStr, c_char, c_void};
use core::ptr::{null, null_mut};
use core::time::Duration;
use k2k_capi::k2k_result::*;
use k2k_capi::*;
use std::ffi::CString;
use std::thread;

fn words() -> String {
    // SAFETY: a string that ends with a NUL.
    unsafe { CStr::from_ptr(k2k_error_message()) }.to_str().unwrap().to_owned()
}

fn zeroed<T: bytemuck::Zeroable>() -> T {
    T::zeroed()
}

/// A fabric of this process: 3 kernels, 2 messages per pair, 64 bytes.
fn heap() -> k2k_broker {
    let config =
        k2k_config { size: size_of::<k2k_config>(), kernels: 3, slots: 2, payload: 64, ..zeroed::<k2k_config>() };
    let mut broker = zeroed();
    // SAFETY: good pointers.
    assert_eq!(unsafe { k2k_create(null(), &raw const config, &raw mut broker) }, K2K_OK, "{}", words());
    broker
}

fn register(broker: k2k_broker, name: &CStr) -> k2k_endpoint {
    let mut endpoint = zeroed();
    // SAFETY: good pointers.
    let result = unsafe { k2k_register(broker, name.as_ptr(), null(), &raw mut endpoint) };
    assert_eq!(result, K2K_OK, "{}", words());
    endpoint
}

fn id_of(endpoint: k2k_endpoint) -> k2k_kernel_id {
    let mut id = 0;
    // SAFETY: a good pointer.
    assert_eq!(unsafe { k2k_endpoint_id(endpoint, &raw mut id) }, K2K_OK, "{}", words());
    id
}

fn send(endpoint: k2k_endpoint, to: k2k_kernel_id, payload: &[u8]) -> (k2k_result, k2k_message_id) {
    let mut id = zeroed();
    // SAFETY: good pointers.
    let result = unsafe { k2k_send(endpoint, to, 1, payload.as_ptr().cast(), payload.len(), null(), &raw mut id) };
    (result, id)
}

fn receive(endpoint: k2k_endpoint, capacity: usize, timeout_ns: u64) -> Result<(k2k_message, Vec<u8>), k2k_result> {
    let mut message = k2k_message { size: size_of::<k2k_message>(), ..zeroed::<k2k_message>() };
    let mut buffer = vec![0u8; capacity];
    // SAFETY: good pointers.
    let result = unsafe { k2k_receive(endpoint, &raw mut message, buffer.as_mut_ptr().cast(), capacity, timeout_ns) };
    if result != K2K_OK {
        assert!(result == K2K_BUFFER_TOO_SMALL || message.len == 0);
        return Err(result);
    }
    buffer.truncate(message.len as usize);
    Ok((message, buffer))
}

fn close(broker: k2k_broker, endpoints: &[k2k_endpoint]) {
    for &endpoint in endpoints {
        assert_eq!(k2k_endpoint_close(endpoint), K2K_OK);
    }
    assert_eq!(k2k_broker_close(broker), K2K_OK);
}

#[test]
fn messages_receipts_replies_and_counters() {
    let broker = heap();
    let (a, b) = (register(broker, c"a"), register(broker, c"b"));
    let (to, mut found, mut status) = (id_of(b), 0, 0);
    // SAFETY: good pointers.
    unsafe {
        assert_eq!(k2k_find(broker, c"b".as_ptr(), &raw mut found), K2K_OK);
        assert_eq!(found, to);
        let (sent, id) = send(a, to, b"hello");
        assert_eq!(sent, K2K_OK);
        assert_eq!((k2k_receipt(a, id, &raw mut status), status), (K2K_OK, K2K_STATUS_PENDING));
        let (message, payload) = receive(b, 64, 0).unwrap();
        assert_eq!((payload.as_slice(), message.source, message.kind), (&b"hello"[..], id_of(a), 1));
        assert_eq!((message.sequence, message.is_reply, message.hops), (id.sequence, 0, 0));
        assert_eq!((k2k_receipt(a, id, &raw mut status), status), (K2K_OK, K2K_STATUS_DELIVERED));
        let options = k2k_send_options {
            size: size_of::<k2k_send_options>(),
            flags: 9,
            timeout_ns: 1_000_000_000,
            ..zeroed::<k2k_send_options>()
        };
        assert_eq!(k2k_reply(b, &raw const message, 2, null(), 0, &raw const options, null_mut()), K2K_OK);
        let (answer, payload) = receive(a, 0, K2K_FOREVER).unwrap();
        assert_eq!((answer.correlation_id, answer.is_reply, answer.flags, payload.len()), (id.sequence, 1, 9, 0));
        let mut stats = k2k_stats { size: size_of::<k2k_stats>(), ..zeroed::<k2k_stats>() };
        assert_eq!(k2k_broker_stats(broker, 0, &raw mut stats), K2K_OK);
        assert_eq!((stats.sent, stats.received), (2, 2));
        let mut pending = 7;
        assert_eq!((k2k_broker_pending(broker, &raw mut pending), pending), (K2K_OK, 0));
        let mut shape = k2k_shape { size: size_of::<k2k_shape>(), ..zeroed::<k2k_shape>() };
        assert_eq!(k2k_broker_shape(broker, &raw mut shape), K2K_OK);
        assert_eq!((shape.kernels, shape.slots, shape.payload), (3, 2, 64));
    }
    close(broker, &[a, b]);
}

#[test]
fn high_priority_overtakes_and_waiting_for_room_ends_at_the_deadline() {
    let broker = heap();
    let (a, b) = (register(broker, c"a"), register(broker, c"b"));
    let to = id_of(b);
    let mut options =
        k2k_send_options { size: size_of::<k2k_send_options>(), priority: 1, ..zeroed::<k2k_send_options>() };
    assert_eq!(send(a, to, b"1").0, K2K_OK);
    assert_eq!(send(a, to, b"2").0, K2K_OK);
    assert_eq!(send(a, to, b"3").0, K2K_QUEUE_FULL);
    assert!(words().contains("has no room for this sender"), "{}", words());
    // SAFETY: good pointers.
    let send_so =
        |options: &k2k_send_options| unsafe { k2k_send(a, to, 7, null(), 0, core::ptr::from_ref(options), null_mut()) };
    assert_eq!(send_so(&options), K2K_OK);
    options.priority = 0;
    options.wait_for_room = 1;
    options.timeout_ns = 5_000_000;
    assert_eq!(send_so(&options), K2K_TIMEOUT);
    let kinds: Vec<_> = (0..3).map(|_| receive(b, 64, 0).unwrap().0.kind).collect();
    assert_eq!(kinds, [7, 1, 1]);
    close(broker, &[a, b]);
}

#[test]
fn a_buffer_that_is_too_small_costs_no_message() {
    let broker = heap();
    let (a, b) = (register(broker, c"a"), register(broker, c"b"));
    send(a, id_of(b), b"hello");
    send(a, id_of(b), b"x");
    for _ in 0..3 {
        assert_eq!(receive(b, 4, 0).map(|_| ()), Err(K2K_BUFFER_TOO_SMALL));
        assert!(words().starts_with("the message carries 5 bytes, and the buffer holds 4"), "{}", words());
    }
    assert_eq!(receive(b, 5, 0).unwrap().1, b"hello");
    assert_eq!(receive(b, 5, 0).unwrap().1, b"x");
    assert_eq!(receive(b, 5, 0).map(|_| ()), Err(K2K_TIMEOUT));
    assert_eq!(words(), k2k::ReceiveError::Timeout.to_string(), "the same words as in Rust");
    // SAFETY: no message struct, and no buffer, are wanted.
    unsafe {
        send(a, id_of(b), b"");
        assert_eq!(k2k_receive(b, null_mut(), null_mut(), 0, 0), K2K_OK);
        send(a, id_of(b), b"y");
        assert_eq!(k2k_receive(b, null_mut(), null_mut(), 100, 0), K2K_BUFFER_TOO_SMALL);
    }
    close(broker, &[a, b]);
}

#[test]
fn answers_that_no_buffer_holds_are_kept_up_to_a_bound() {
    let broker = heap();
    let (a, b) = (register(broker, c"a"), register(broker, c"b"));
    let to = id_of(b);
    let ask = || {
        // SAFETY: no answer, no buffer and no status are wanted.
        unsafe { k2k_request(a, to, 1, null(), 0, 10_000_000_000, null_mut(), null_mut(), 0, null_mut()) }
    };
    // One for each kernel and slot.
    let serving = thread::spawn(move || {
        for _ in 0..6 {
            let (request, _) = receive(b, 64, 10_000_000_000).unwrap();
            let answer = b"answer".as_ptr().cast();
            // SAFETY: good pointers.
            assert_eq!(unsafe { k2k_reply(b, &raw const request, 1, answer, 6, null(), null_mut()) }, K2K_OK);
        }
    });
    for _ in 0..6 {
        assert_eq!(ask(), K2K_BUFFER_TOO_SMALL, "{}", words());
    }
    serving.join().unwrap();
    assert_eq!(ask(), K2K_CROWDED);
    for _ in 0..6 {
        assert_eq!(receive(a, 6, 0).unwrap().1, b"answer");
    }
    close(broker, &[a, b]);
}

#[test]
fn a_broker_is_closed_also_while_other_calls_use_it() {
    for _ in 0..200 {
        let broker = heap();
        let using = thread::spawn(move || {
            let mut found = 0;
            // SAFETY: good pointers.
            while unsafe { k2k_find(broker, c"a".as_ptr(), &raw mut found) } == K2K_NOT_FOUND {}
        });
        thread::yield_now();
        assert_eq!(k2k_broker_close(broker), K2K_OK);
        using.join().unwrap();
    }
}

#[test]
fn a_request_is_answered_by_a_handler_and_says_why_it_is_not() {
    unsafe extern "C" fn on_message(
        user: *mut c_void,
        me: k2k_endpoint,
        message: *const k2k_message,
        payload: *const c_void,
    ) {
        // SAFETY: what `k2k_run` promises; the user's word is that of the test.
        unsafe {
            *user.cast::<u32>() += 1;
            let mut id = 0;
            assert_eq!(k2k_endpoint_id(me, &raw mut id), K2K_OK);
            // Other calls would use the kernel a second time.
            assert_eq!(receive(me, 64, 0).map(|_| ()), Err(K2K_IN_USE));
            assert_eq!(k2k_endpoint_close(me), K2K_IN_USE);
            assert_eq!(k2k_run(me, Some(on_message), None, user, 0), K2K_IN_USE);
            let waiting = k2k_send_options {
                size: size_of::<k2k_send_options>(),
                wait_for_room: 1,
                ..zeroed::<k2k_send_options>()
            };
            assert_eq!(k2k_send(me, id, 1, null(), 0, &raw const waiting, null_mut()), K2K_IN_USE);
            match (*message).kind {
                // No answer.
                3 => return,
                4 => assert_eq!(k2k_stop(me), K2K_OK),
                _ => {}
            }
            let (len, mut sent) = ((*message).len as usize, zeroed());
            assert_eq!(k2k_reply(me, message, 9, payload, len, null(), &raw mut sent), K2K_OK);
            let mut status = 0;
            assert_eq!(k2k_receipt(me, sent, &raw mut status), K2K_OK);
        }
    }
    let broker = heap();
    let (a, b) = (register(broker, c"a"), register(broker, c"b"));
    let to = id_of(b);
    assert_eq!(k2k_stop(b), K2K_BAD_ARGUMENT, "no handler runs");
    let serving = thread::spawn(move || {
        let mut handled = 0u32;
        // SAFETY: the number outlives the call.
        let result = unsafe { k2k_run(b, Some(on_message), None, (&raw mut handled).cast(), 0) };
        (result, handled)
    });
    let ask = |kind, timeout_ns| {
        let mut message = k2k_message { size: size_of::<k2k_message>(), ..zeroed::<k2k_message>() };
        let (mut buffer, mut status) = ([0u8; 64], 0);
        // SAFETY: good pointers.
        let result = unsafe {
            let to_buffer = buffer.as_mut_ptr().cast();
            let payload = b"ping".as_ptr().cast();
            k2k_request(a, to, kind, payload, 4, timeout_ns, &raw mut message, to_buffer, 64, &raw mut status)
        };
        (result, message.kind, buffer[..message.len as usize].to_vec(), status)
    };
    for _ in 0..10 {
        assert_eq!(ask(1, 10_000_000_000), (K2K_OK, 9, b"ping".to_vec(), 0));
    }
    assert_eq!(ask(3, 20_000_000), (K2K_NO_ANSWER, 0, vec![], K2K_STATUS_DELIVERED));
    assert_eq!(words(), k2k::RequestError::NoAnswer(k2k::DeliveryStatus::Delivered).to_string());
    assert_eq!(ask(4, 10_000_000_000).0, K2K_OK);
    assert_eq!(serving.join().unwrap(), (K2K_OK, 12));
    assert_eq!(ask(1, 20_000_000), (K2K_NOT_RECEIVED, 0, vec![], K2K_STATUS_TIMEOUT));
    assert_eq!(k2k_endpoint_close(b), K2K_OK);
    assert_eq!(ask(1, 20_000_000).0, K2K_NOT_FOUND);
    close(broker, &[a]);
}

#[test]
fn waits_end_in_time_and_when_the_kernel_is_told_to_stop() {
    let broker = heap();
    let a = register(broker, c"a");
    let id = id_of(a);
    let mut found = 0;
    // SAFETY: good pointers.
    unsafe {
        assert_eq!(k2k_wait_for_kernel(broker, c"b".as_ptr(), 5_000_000, &raw mut found), K2K_TIMEOUT);
        assert_eq!(words(), "no kernel registered as \"b\" within 5ms");
        assert_eq!(k2k_endpoint_wait_for_kernel(a, c"b".as_ptr(), 5_000_000, &raw mut found), K2K_TIMEOUT);
        assert_eq!(k2k_wait_for_kernel(broker, c"a".as_ptr(), 0, &raw mut found), K2K_OK);
        assert_eq!(found, id);
        assert_eq!(k2k_wait_until_gone(broker, id, 5_000_000), K2K_TIMEOUT);
        let stopping = thread::spawn(move || {
            thread::sleep(Duration::from_millis(20));
            k2k_command(broker, id, K2K_COMMAND_STOP)
        });
        assert_eq!(k2k_endpoint_wait_for_kernel(a, c"b".as_ptr(), K2K_FOREVER, &raw mut found), K2K_STOPPED);
        assert_eq!(stopping.join().unwrap(), K2K_OK);
        assert_eq!(receive(a, 64, K2K_FOREVER).map(|_| ()), Err(K2K_STOPPED));
    }
    assert_eq!(k2k_endpoint_close(a), K2K_OK);
    assert_eq!(k2k_wait_until_gone(broker, id, K2K_FOREVER), K2K_OK);
    assert_eq!(k2k_broker_close(broker), K2K_OK);
}

#[test]
fn an_endpoint_that_another_thread_uses_says_so() {
    let broker = heap();
    let (a, b) = (register(broker, c"a"), register(broker, c"b"));
    // The looks below may be amid a call when this thread makes its own.
    let waiting = thread::spawn(move || {
        loop {
            match receive(b, 64, K2K_FOREVER) {
                Err(K2K_IN_USE) => thread::yield_now(),
                received => return received.map(|(_, payload)| payload),
            }
        }
    });
    let to = {
        let mut found = 0;
        // SAFETY: good pointers.
        unsafe { k2k_find(broker, c"b".as_ptr(), &raw mut found) };
        found
    };
    // Once the thread is in its call, it stays there until a message comes.
    while receive(b, 64, 0).map(|_| ()) != Err(K2K_IN_USE) {
        thread::yield_now();
    }
    assert_eq!(words(), "another call uses this endpoint: one thread at a time");
    assert_eq!(k2k_endpoint_close(b), K2K_IN_USE);
    assert_eq!(send(a, to, b"wake up").0, K2K_OK);
    assert_eq!(waiting.join().unwrap(), Ok(b"wake up".to_vec()));
    close(broker, &[a, b]);
}

/// A struct as a program has it whose header is older or newer than the library.
#[repr(C)]
struct Grown<T> {
    known: T,
    more: [u64; 4],
}

#[test]
fn structs_of_other_versions_are_taken_as_far_as_they_are_known() {
    let broker = heap();
    let (a, b) = (register(broker, c"a"), register(broker, c"b"));
    let to = id_of(b);
    let mut options = Grown { known: zeroed::<k2k_send_options>(), more: [0; 4] };
    // SAFETY: as large as the size says.
    let send_so = |options: &Grown<k2k_send_options>| unsafe {
        k2k_send(a, to, 1, null(), 0, &raw const options.known, null_mut())
    };
    for wrong in [0, 1, size_of::<usize>() - 1, 5000, usize::MAX] {
        options.known.size = wrong;
        assert_eq!(send_so(&options), K2K_BAD_SIZE);
        let right = size_of::<k2k_send_options>();
        assert_eq!(
            words(),
            format!(
                "the size of a k2k_send_options is {wrong}: set it to sizeof(k2k_send_options), which is {right} here"
            )
        );
    }
    // Older: what it has not is zero.
    options.known.flags = 70_000;
    options.known.size = size_of::<usize>();
    assert_eq!(send_so(&options), K2K_OK);
    // Newer: as long as it asks for nothing that this library does not know.
    options.known.flags = 0;
    options.known.size = size_of::<Grown<k2k_send_options>>();
    assert_eq!(send_so(&options), K2K_OK);
    options.more[1] = 1;
    assert_eq!(send_so(&options), K2K_BAD_SIZE);
    // A smaller place is not written beyond.
    let mut message = k2k_message { size: 24, kind: 77, ..zeroed::<k2k_message>() };
    // SAFETY: larger than the size says.
    assert_eq!(unsafe { k2k_receive(b, &raw mut message, null_mut(), 0, 0) }, K2K_OK);
    assert_eq!((message.size, message.source, message.kind, message.correlation_id), (24, id_of(a), 77, 0));
    // A wrong one costs no message.
    message.size = 3;
    // SAFETY: as above.
    assert_eq!(unsafe { k2k_receive(b, &raw mut message, null_mut(), 0, 0) }, K2K_BAD_SIZE);
    assert!(receive(b, 64, 0).is_ok());
    close(broker, &[a, b]);
}

#[test]
fn each_bad_input_is_an_error_with_words() {
    let broker = heap();
    let a = register(broker, c"a");
    let id = id_of(a);
    let mut at = zeroed::<k2k_endpoint>();
    let mut number = 0u64;
    let name = c"a".as_ptr();
    let long = CString::new("x".repeat(33)).unwrap();
    let message = k2k_message { size: size_of::<k2k_message>(), ..zeroed::<k2k_message>() };
    let registration = |change: fn(&mut k2k_registration)| {
        let mut registration = k2k_registration { size: size_of::<k2k_registration>(), ..zeroed::<k2k_registration>() };
        change(&mut registration);
        registration
    };
    let config = |change: fn(&mut k2k_config)| {
        let mut config = k2k_config { size: size_of::<k2k_config>(), ..zeroed::<k2k_config>() };
        change(&mut config);
        config
    };
    let options = |change: fn(&mut k2k_send_options)| {
        let mut options = k2k_send_options { size: size_of::<k2k_send_options>(), ..zeroed::<k2k_send_options>() };
        change(&mut options);
        options
    };
    let (bad_wait, far) = (registration(|r| r.wait = 3), registration(|r| r.index_plus_1 = 4));
    let (odd, large) = (config(|c| c.payload = 63), config(|c| c.kernels = 513));
    let (urgent, flagged) = (options(|o| o.priority = 2), options(|o| o.flags = 256));
    let mut made = zeroed::<k2k_broker>();
    // SAFETY: each pointer is NULL or good.
    unsafe {
        macro_rules! fails {
            ($call:expr, $code:expr, $said:expr) => {
                let found = $call;
                assert_eq!(found, $code, "{}", words());
                let (said, words): (String, String) = ($said.to_string(), words());
                assert!(words.contains(&said), "{words:?} does not say {said:?}");
            };
        }
        let (made, at, number, none) = (&raw mut made, &raw mut at, &raw mut number, k2k_broker { handle: 0 });
        fails!(k2k_create(null(), null(), null_mut()), K2K_NULL, "the place for the broker is NULL");
        fails!(k2k_create(null(), &raw const odd, made), K2K_NOT_A_FABRIC, "63");
        fails!(k2k_create(null(), &raw const large, made), K2K_NOT_A_FABRIC, "513");
        fails!(k2k_create(c"".as_ptr(), null(), made), K2K_BAD_FILE_NAME, "cannot name a fabric");
        fails!(k2k_create(c"\xff".as_ptr(), null(), made), K2K_BAD_ARGUMENT, "the name is no UTF-8");
        fails!(k2k_open(null(), made), K2K_NULL, "the name is NULL");
        fails!(k2k_open(c"k2k-capi-is-not-there".as_ptr(), made), K2K_FILE_NOT_FOUND, "does not exist");
        fails!(k2k_open(c"/dev/null".as_ptr(), made), K2K_FILE_REFUSED, "is not a regular file");
        fails!(k2k_remove(c"k2k-capi-is-not-there".as_ptr()), K2K_FILE_NOT_FOUND, "does not exist");
        fails!(k2k_broker_close(none), K2K_BAD_HANDLE, "this is no open broker");
        fails!(k2k_register(none, name, null(), at), K2K_BAD_HANDLE, "this is no open broker");
        fails!(k2k_register(broker, null(), null(), at), K2K_NULL, "the name is NULL");
        fails!(k2k_register(broker, name, null(), null_mut()), K2K_NULL, "the place for the endpoint");
        fails!(k2k_register(broker, long.as_ptr(), null(), at), K2K_BAD_NAME, "1 to 32 bytes");
        fails!(k2k_register(broker, name, null(), at), K2K_NAME_IN_USE, "");
        fails!(
            k2k_register(broker, c"b".as_ptr(), &raw const bad_wait, at),
            K2K_BAD_ARGUMENT,
            "3 is no way of waiting"
        );
        fails!(k2k_register(broker, c"b".as_ptr(), &raw const far, at), K2K_BAD_ARGUMENT, "no kernel index 3");
        fails!(k2k_find(broker, c"b".as_ptr(), number), K2K_NOT_FOUND, "no kernel is registered as \"b\"");
        fails!(k2k_find(broker, name, null_mut()), K2K_NULL, "the place for the kernel");
        fails!(k2k_command(broker, id, 4), K2K_BAD_ARGUMENT, "4 is no command");
        fails!(k2k_command(broker, 0, 3), K2K_NOT_FOUND, "");
        fails!(k2k_set_route(broker, id, 77, 88), K2K_NOT_FOUND, "");
        fails!(k2k_broker_stats(broker, 99, null_mut()), K2K_NULL, "the place for the counters");
        fails!(k2k_broker_shape(broker, null_mut()), K2K_NULL, "the place for the shape");
        fails!(k2k_broker_pending(broker, null_mut()), K2K_NULL, "the place for the number");
        fails!(k2k_endpoint_id(k2k_endpoint { handle: 5 }, number), K2K_BAD_HANDLE, "this is no open endpoint");
        fails!(k2k_endpoint_id(a, null_mut()), K2K_NULL, "the place for the address");
        fails!(k2k_send(a, id, 1, null(), 1, null(), null_mut()), K2K_NULL, "the payload is NULL");
        fails!(k2k_send(a, id, 1, name.cast(), 65, null(), null_mut()), K2K_PAYLOAD_TOO_LONG, "carries 64 bytes");
        fails!(k2k_send(a, id, 1, null(), usize::MAX, null(), null_mut()), K2K_PAYLOAD_TOO_LONG, "carries 64 bytes");
        fails!(k2k_send(a, 0, 1, null(), 0, null(), null_mut()), K2K_NOT_FOUND, "");
        fails!(k2k_send(a, id, 1, null(), 0, &raw const urgent, null_mut()), K2K_BAD_ARGUMENT, "2 is no priority");
        fails!(k2k_send(a, id, 1, null(), 0, &raw const flagged, null_mut()), K2K_BAD_ARGUMENT, "not 256");
        fails!(k2k_reply(a, null(), 1, null(), 0, null(), null_mut()), K2K_NULL, "the request is NULL");
        fails!(k2k_reply(a, &raw const message, 1, null(), 0, null(), null_mut()), K2K_NOT_FOUND, "");
        fails!(k2k_receipt(a, zeroed(), null_mut()), K2K_RECEIPT_UNKNOWN, "no message with this id was sent");
        fails!(k2k_run(a, None, None, null_mut(), 0), K2K_NULL, "the handler is NULL");
        let null_message = null_mut::<k2k_message>();
        fails!(
            k2k_request(a, id, 1, null(), 9, 1, null_message, null_mut(), 0, null_mut()),
            K2K_NULL,
            "the payload is NULL"
        );
    }
    assert_eq!(k2k_endpoint_close(a), K2K_OK);
    assert_eq!(k2k_endpoint_close(a), K2K_BAD_HANDLE);
    assert_eq!(words(), "this is no open endpoint: it was closed, or never opened");
    assert_eq!(send(a, id, b"").0, K2K_BAD_HANDLE);
    assert_eq!(k2k_broker_close(broker), K2K_OK);
    assert_eq!(k2k_broker_close(broker), K2K_BAD_HANDLE);
}

#[test]
fn a_fabric_in_a_file_is_made_opened_and_removed() {
    let name = CString::new(format!("k2k-capi-file-{}", std::process::id())).unwrap();
    let name: *const c_char = name.as_ptr();
    let (mut first, mut second) = (zeroed(), zeroed());
    // SAFETY: good pointers.
    unsafe {
        assert_eq!(k2k_create(name, null(), &raw mut first), K2K_OK, "{}", words());
        assert_eq!(k2k_create(name, null(), &raw mut second), K2K_FILE_EXISTS);
        assert_eq!(k2k_create_or_open(name, null(), &raw mut second), K2K_OK);
        let a = register(first, c"a");
        let mut found = 0;
        assert_eq!(k2k_find(second, c"a".as_ptr(), &raw mut found), K2K_OK);
        assert_eq!(found, id_of(a));
        let mut reaped = 7;
        assert_eq!((k2k_reap(second, &raw mut reaped), reaped), (K2K_OK, 0));
        assert_eq!(k2k_remove(name), K2K_OK);
        // An endpoint keeps the memory.
        close(first, &[]);
        assert_eq!(send(a, id_of(a), b"to myself").0, K2K_OK);
        assert_eq!(receive(a, 64, 0).unwrap().1, b"to myself");
        close(second, &[a]);
    }
}

#[test]
fn results_have_their_names() {
    for (number, name) in [(0, "K2K_OK"), (61, "K2K_QUEUE_FULL"), (101, "K2K_RECEIPT_UNKNOWN"), (-1, "unknown")] {
        // SAFETY: a string that ends with a NUL.
        assert_eq!(unsafe { CStr::from_ptr(k2k_result_name(number)) }.to_str(), Ok(name));
    }
    // SAFETY: as above.
    assert_eq!(unsafe { CStr::from_ptr(k2k_version()) }.to_str(), Ok(env!("CARGO_PKG_VERSION")));
}

/// One call of a random sequence: on handles that are open, closed, or made up.
#[test]
fn a_descriptor_is_readable_when_there_is_mail_and_stays_the_same() {
    let broker = heap();
    let (a, b) = (register(broker, c"a"), register(broker, c"b"));
    let arm = || {
        let (mut descriptor, mut wait) = (-1, -1);
        // SAFETY: good pointers.
        assert_eq!(unsafe { k2k_arm(a, &raw mut descriptor, &raw mut wait) }, K2K_OK, "{}", words());
        (descriptor, wait)
    };
    let is_readable = |descriptor, wait_ms| {
        let mut poll = libc::pollfd { fd: descriptor, events: libc::POLLIN, revents: 0 };
        // SAFETY: one struct.
        unsafe { libc::poll(&raw mut poll, 1, wait_ms) == 1 }
    };
    let (descriptor, wait) = arm();
    assert!(descriptor >= 0 && wait == 1 && !is_readable(descriptor, 0));
    for len in [3, 9] {
        assert_eq!(send(b, id_of(a), &vec![1; len]).0, K2K_OK);
        assert!(is_readable(descriptor, 60_000));
        assert_eq!(arm(), (descriptor, 0), "there is mail");
        assert_eq!(receive(a, 1, 0).map(|_| ()), Err(K2K_BUFFER_TOO_SMALL));
        assert_eq!(arm(), (descriptor, 0), "it was kept");
        assert_eq!(receive(a, 64, 0).unwrap().1.len(), len);
        assert_eq!(arm(), (descriptor, 1));
    }
    // SAFETY: NULL is refused.
    assert_eq!(unsafe { k2k_arm(a, null_mut(), null_mut()) }, K2K_NULL);
    assert_eq!(k2k_endpoint_close(a), K2K_OK);
    // SAFETY: a number.
    assert_eq!(unsafe { libc::fcntl(descriptor, libc::F_GETFD) }, -1, "closed with the endpoint");
}

#[derive(Clone, Debug)]
enum Call {
    Register(usize, u8),
    Close(usize),
    Send(usize, usize, u8),
    Receive(usize, u8),
    Reply(usize),
    Request(usize, usize),
    Receipt(usize),
    Command(usize, u32),
    Poll(usize),
    Arm(usize),
    CloseBroker(usize),
    MakeBroker,
    Stats(usize),
}

fn calls() -> impl proptest::strategy::Strategy<Value = Vec<Call>> {
    use proptest::prelude::*;
    let n = 0..6usize;
    let call = prop_oneof![
        3 => (n.clone(), any::<u8>()).prop_map(|(b, name)| Call::Register(b, name)),
        2 => n.clone().prop_map(Call::Close),
        6 => (n.clone(), n.clone(), any::<u8>()).prop_map(|(a, b, len)| Call::Send(a, b, len)),
        5 => (n.clone(), any::<u8>()).prop_map(|(a, len)| Call::Receive(a, len)),
        3 => n.clone().prop_map(Call::Reply),
        1 => (n.clone(), n.clone()).prop_map(|(a, b)| Call::Request(a, b)),
        2 => n.clone().prop_map(Call::Receipt),
        1 => (n.clone(), 0..5u32).prop_map(|(a, command)| Call::Command(a, command)),
        1 => n.clone().prop_map(Call::Poll),
        1 => n.clone().prop_map(Call::Arm),
        1 => n.clone().prop_map(Call::CloseBroker),
        2 => Just(Call::MakeBroker),
        1 => n.prop_map(Call::Stats),
    ];
    proptest::collection::vec(call, 1..60)
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig { failure_persistence: None, ..proptest::prelude::ProptestConfig::with_cases(64) })]

    #[test]
    fn no_sequence_of_calls_panics_or_leaks_a_handle(calls in calls()) {
        let mut brokers = vec![heap()];
        let mut endpoints: Vec<(k2k_endpoint, k2k_kernel_id)> = Vec::new();
        let mut open = std::collections::HashSet::new();
        let mut last = zeroed::<k2k_message>();
        let mut last_id = zeroed::<k2k_message_id>();
        last.size = size_of::<k2k_message>();
        let made_up = (k2k_endpoint { handle: 123_456_789 }, 7);
        for call in calls {
            let pick = |i: usize| endpoints.get(i).copied().unwrap_or(made_up);
            let pick_broker = |i: usize| brokers.get(i).copied().unwrap_or(k2k_broker { handle: u64::MAX });
            // SAFETY: good pointers.
            let result = unsafe {
                match call {
                    Call::Register(broker, name) => {
                        let (mut endpoint, name) = (zeroed(), CString::new(vec![name.max(1)]).unwrap());
                        let result = k2k_register(pick_broker(broker), name.as_ptr(), null(), &raw mut endpoint);
                        if result == K2K_OK {
                            open.insert(endpoint.handle);
                            let id = id_of(endpoint);
                            if endpoints.len() == 6 {
                                endpoints.remove(0);
                            }
                            endpoints.push((endpoint, id));
                        }
                        result
                    }
                    Call::Close(a) => {
                        let (endpoint, _) = pick(a);
                        let result = k2k_endpoint_close(endpoint);
                        assert_eq!(result == K2K_OK, open.remove(&endpoint.handle));
                        result
                    }
                    Call::Send(a, b, len) => {
                        let payload = vec![len; len.into()];
                        let (result, id) = send(pick(a).0, pick(b).1, &payload);
                        assert!(result != K2K_OK || len <= 64);
                        last_id = if result == K2K_OK { id } else { last_id };
                        result
                    }
                    Call::Receive(a, capacity) => match receive(pick(a).0, capacity.into(), 0) {
                        Ok((message, payload)) => {
                            assert!(payload.iter().all(|&byte| usize::from(byte) == payload.len()));
                            last = message;
                            K2K_OK
                        }
                        Err(result) => result,
                    },
                    Call::Reply(a) => k2k_reply(pick(a).0, &raw const last, 2, null(), 0, null(), null_mut()),
                    Call::Request(a, b) => {
                        let (message, buffer) = (null_mut(), null_mut());
                        k2k_request(pick(a).0, pick(b).1, 3, null(), 0, 200_000, message, buffer, 0, null_mut())
                    }
                    Call::Receipt(a) => {
                        let mut status = 0;
                        k2k_receipt(pick(a).0, last_id, &raw mut status)
                    }
                    Call::Command(a, command) => k2k_command(brokers[0], pick(a).1, command),
                    Call::Poll(a) => k2k_poll(pick(a).0, null_mut()),
                    Call::Arm(a) => {
                        let (mut descriptor, mut wait) = (-1, -1);
                        k2k_arm(pick(a).0, &raw mut descriptor, &raw mut wait)
                    }
                    Call::CloseBroker(broker) => k2k_broker_close(pick_broker(broker)),
                    Call::MakeBroker if brokers.len() < 6 => {
                        brokers.push(heap());
                        K2K_OK
                    }
                    Call::MakeBroker => K2K_OK,
                    Call::Stats(a) => {
                        let mut stats = k2k_stats { size: size_of::<k2k_stats>(), ..zeroed::<k2k_stats>() };
                        k2k_broker_stats(pick_broker(0), pick(a).1, &raw mut stats)
                    }
                }
            };
            assert_ne!(result, K2K_PANIC, "{}", words());
            assert!(result == K2K_OK || !words().is_empty());
        }
        for handle in open {
            assert_eq!(k2k_endpoint_close(k2k_endpoint { handle }), K2K_OK);
        }
        for broker in brokers {
            let result = k2k_broker_close(broker);
            assert!(result == K2K_OK || result == K2K_BAD_HANDLE);
        }
    }
}
