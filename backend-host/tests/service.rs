//! Requests and answers, services, waiting for kernels, publishing.

mod common;
use common::{GUARD, Process, Shm, broker, eventually, patient};
use core::time::Duration;
use k2k::service::{Refused, Request};
use k2k::{
    Broker, Client, Command, DeliveryStatus, Endpoint, Fixed, KernelId, Message, PresenceError, ReceiveError,
    RequestError, SendError, Service, StartOptions,
};
use std::thread;
use std::time::Instant;

type Small = Fixed<8, 4, 64>;

/// Time for what must not happen, and a limit that is to pass.
const SHORT: Duration = Duration::from_millis(50);

#[derive(Clone, Copy, Debug, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct Double(u64);
impl Request for Double {
    const KIND: u32 = 5;
    type Answer = u64;
}

/// A request that `Double`'s service takes for one of another size.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct Short(u32);
impl Request for Short {
    const KIND: u32 = 5;
    type Answer = u64;
}

/// A request that nobody answers.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct Unknown(u32);
impl Request for Unknown {
    const KIND: u32 = 6;
    type Answer = ();
}

const ODD: Refused = Refused(3);

fn doubler() -> Service<u64, 64> {
    Service::new(0u64).on(|answered: &mut u64, Double(number)| {
        *answered += 1;
        if number % 2 == 1 { Err(ODD) } else { Ok(2 * number) }
    })
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// A request in a thread, or in a task.
fn request(client: &mut Client<Small>, to: KernelId, kind: u32, timeout: Duration, task: bool) -> Answer {
    let message = Message::new(kind);
    if task { block_on(client.request_async(to, &message, timeout)) } else { client.request(to, &message, timeout) }
}

type Answer = Result<Message<64>, RequestError>;

/// A service by hand: handles one request.
fn serve(mut service: Endpoint<Small>, handle: impl FnOnce(&mut Endpoint<Small>, Message<64>) + Send + 'static) {
    thread::spawn(move || {
        let message = service.receive(GUARD).unwrap();
        handle(&mut service, message);
    });
}

#[test]
fn a_service_answers_refuses_and_tells_what_it_does_not_know() {
    let broker: Broker<Small> = broker();
    let service = broker.start("doubler", doubler(), StartOptions::default()).unwrap();
    let (mut client, to) = (broker.client("me").unwrap(), service.id());
    for number in (0..200).step_by(2) {
        assert_eq!(client.ask(to, &Double(number), GUARD), Ok(2 * number));
    }
    assert_eq!(client.ask(to, &Double(1), GUARD), Err(RequestError::Refused(ODD)));
    assert_eq!(client.ask(to, &Short(1), GUARD), Err(RequestError::Refused(Refused::WRONG_SIZE)));
    assert_eq!(block_on(client.ask_async(to, &Unknown(1), GUARD)), Err(RequestError::Refused(Refused::UNKNOWN_KIND)));
    let service = service.stop_and_join(GUARD).unwrap();
    assert_eq!((service.answered(), service.undelivered(), service.into_state()), (103, 0, 101));
}

#[test]
fn a_service_runs_as_a_task_and_obeys_its_supervisor() {
    let broker: Broker<Small> = broker();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let mut endpoint = broker.register_parking("doubler").unwrap();
        let to = endpoint.id();
        let serving = tokio::spawn(async move {
            let mut service = doubler();
            endpoint.run_async(&mut service, Duration::from_millis(20)).await;
            service
        });
        let mut client = broker.client("me").unwrap();
        for number in (0..400).step_by(2) {
            assert_eq!(client.ask_async(to, &Double(number), GUARD).await, Ok(2 * number));
        }
        // It gives signs of life while nothing comes.
        let before = broker.memory().fabric().heartbeat(to);
        tokio::time::timeout(GUARD, async {
            while broker.memory().fabric().heartbeat(to) == before {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
        .await
        .expect("a heartbeat");
        broker.command(to, Command::Pause).unwrap();
        let paused = client.ask_async(to, &Double(2), SHORT).await;
        assert_eq!(paused, Err(RequestError::NotReceived(DeliveryStatus::Timeout)), "paused");
        broker.command(to, Command::Run).unwrap();
        assert_eq!(client.ask_async(to, &Double(2), GUARD).await, Ok(4));
        broker.command(to, Command::Stop).unwrap();
        let service = tokio::time::timeout(GUARD, serving).await.expect("it stops").unwrap();
        assert_eq!(service.into_state(), 201);
        client.endpoint_mut().wait_until_gone_async(to, GUARD).await.unwrap();
    });
}

#[test]
fn many_messages_in_a_row_leave_other_tasks_their_turn() {
    let broker: Broker<Fixed<4, 256, 64>> = broker();
    block_on(async {
        let (mut service, mut me) = (broker.register_parking("s").unwrap(), broker.register("me").unwrap());
        for _ in 0..200 {
            me.send(service.id(), &Message::new(1)).unwrap();
        }
        let mut counter = Service::new(0u32).on_message(1, |count, _| {
            *count += 1;
            None
        });
        let run = service.run_async(&mut counter, GUARD);
        let mut turns = 0;
        tokio::select! {
            biased;
            () = run => panic!("nobody stops it"),
            () = async { turns += 1; tokio::task::yield_now().await } => {}
        }
        assert_eq!(turns, 1);
        assert!((64..200).contains(counter.state()), "{}", counter.state());
    });
}

#[test]
fn other_mail_is_kept_while_an_answer_is_waited_for() {
    for task in [false, true] {
        let broker: Broker<Small> = broker();
        let (mut client, service) = (broker.client("me").unwrap(), broker.register_parking("s").unwrap());
        let (me, to) = (client.endpoint().id(), service.id());
        serve(service, move |service, message| {
            for kind in 10..13 {
                service.send(me, &Message::new(kind)).unwrap();
            }
            service.reply(&message, &Message::new(20)).unwrap();
            assert_eq!(service.receive(GUARD), Err(ReceiveError::Stopped));
        });
        assert_eq!(request(&mut client, to, 1, GUARD, task).unwrap().header.kind, 20);
        for kind in 10..13 {
            let next = if task { block_on(client.receive_async()) } else { client.receive(GUARD) };
            assert_eq!(next.unwrap().header.kind, kind);
        }
        broker.command(to, Command::Stop).unwrap();
    }
}

#[test]
fn a_client_that_can_keep_no_more_says_so_and_loses_nothing() {
    for task in [false, true] {
        let broker: Broker<Small> = broker();
        let mut client = broker.client("me").unwrap().with_room(2);
        let mut other = broker.register("other").unwrap();
        for kind in 0..3 {
            other.send(client.endpoint().id(), &Message::new(kind)).unwrap();
        }
        let crowded = request(&mut client, other.id(), 1, GUARD, task).unwrap_err();
        assert_eq!(crowded, RequestError::Crowded { kept: 2 });
        assert!(crowded.may_have_been_received());
        for kind in 0..3 {
            assert_eq!(client.receive(GUARD).unwrap().header.kind, kind);
        }
    }
}

#[test]
fn a_client_keeps_1024_messages_unless_told_otherwise() {
    let broker: Broker<Fixed<4, 512, 64>> = broker();
    let mut client = broker.client("me").unwrap();
    let mut others = [broker.register("a").unwrap(), broker.register("b").unwrap()];
    for other in &mut others {
        for kind in 0..512 {
            other.send(client.endpoint().id(), &Message::new(kind)).unwrap();
        }
    }
    assert_eq!(client.room(), 1024);
    let crowded = client.request(others[0].id(), &Message::new(1), GUARD);
    assert_eq!(crowded.map(|_| ()), Err(RequestError::Crowded { kept: 1024 }));
}

#[test]
fn an_answer_that_a_forwarder_still_has_when_the_service_leaves_is_received() {
    for task in [false, true] {
        let broker: Broker<Small> = broker();
        let (mut client, service) = (broker.client("me").unwrap(), broker.register_parking("s").unwrap());
        let mut forwarder = broker.register("forwarder").unwrap();
        let (me, to) = (client.endpoint().id(), service.id());
        broker.add_route(to, me, forwarder.id()).unwrap();
        serve(service, |service, message| {
            service.reply(&message, &Message::new(20)).unwrap();
        });
        let forwarding = thread::spawn(move || {
            broker.wait_until_gone(to, GUARD).unwrap();
            // The client sees meanwhile that the service has left.
            thread::sleep(3 * SHORT);
            while forwarder.poll() == 0 {}
        });
        assert_eq!(request(&mut client, to, 1, GUARD, task).unwrap().header.kind, 20);
        forwarding.join().unwrap();
    }
}

#[test]
fn started_requests_receive_and_ask_beside_one_another() {
    let broker: Broker<Small> = broker();
    let mut client = broker.client("me").unwrap();
    let (mut a, mut b) = (broker.register("a").unwrap(), broker.register("b").unwrap());
    let (me, mut message, mut answer) = (client.endpoint().id(), Message::new(1), Message::new(0));
    let mut first = client.start_request(a.id(), &mut message, GUARD);
    let mut given_up = client.start_request(a.id(), &mut message, GUARD);
    for request in [&mut first, &mut given_up] {
        assert_eq!(client.look_at_request(request, &message, &mut answer, Duration::ZERO), Ok(false));
    }
    for number in [7, 8] {
        let request = a.receive(GUARD).unwrap();
        a.reply(&request, &Message::new(number)).unwrap();
    }
    b.send(me, &Message::new(9)).unwrap();
    // The answers go to their requests, whoever receives them.
    assert_eq!(client.receive(GUARD).unwrap().header.kind, 9);
    assert_eq!(client.put_aside(), 2);
    client.abandon_request(given_up);
    assert_eq!((client.put_aside(), client.late()), (1, 1));
    assert_eq!(client.look_at_request(&mut first, &message, &mut answer, GUARD), Ok(true));
    assert_eq!((answer.header.kind, client.put_aside()), (7, 0));
    // One that comes to nothing says why, however short the looks.
    let mut silent = client.start_request(b.id(), &mut message, SHORT);
    let failed = loop {
        match client.look_at_request(&mut silent, &message, &mut answer, Duration::from_millis(1)) {
            Ok(false) => assert!(silent.next_look().is_some()),
            ended => break ended,
        }
    };
    assert!(failed.is_err_and(|why| !why.may_have_been_received()), "{failed:?}");
}

#[test]
fn a_reply_is_no_request() {
    let broker: Broker<Small> = broker();
    let service = broker.start("doubler", doubler(), StartOptions::default()).unwrap();
    let mut client = broker.client("me").unwrap();
    let answer = client.request(service.id(), &Message::from_value(5, &Double(2)), GUARD).unwrap();
    client.endpoint_mut().reply(&answer, &Message::from_value(5, &Double(4))).unwrap();
    assert_eq!(client.ask(service.id(), &Double(6), GUARD), Ok(12));
    let service = service.stop_and_join(GUARD).unwrap();
    assert_eq!((service.answered(), service.undelivered(), service.into_state()), (2, 0, 2));
}

#[test]
fn a_late_answer_is_dropped_and_the_next_request_gets_its_own() {
    for task in [false, true] {
        let broker: Broker<Small> = broker();
        let (mut client, service) = (broker.client("me").unwrap(), broker.register_parking("s").unwrap());
        let to = service.id();
        serve(service, move |service, first| {
            let second = service.receive(GUARD).unwrap();
            // By hand, so without the request's deadline.
            service.reply(&first, &Message::new(100)).unwrap();
            service.reply(&second, &Message::new(200)).unwrap();
            let _ = service.receive(GUARD);
        });
        assert_eq!(
            request(&mut client, to, 1, SHORT, task).unwrap_err(),
            RequestError::NoAnswer(DeliveryStatus::Delivered)
        );
        assert_eq!(request(&mut client, to, 2, GUARD, task).unwrap().header.kind, 200);
        assert_eq!(client.late(), 1);
        assert_eq!(client.receive(Duration::ZERO), Err(ReceiveError::Timeout), "nothing else was kept");
        broker.command(to, Command::Stop).unwrap();
    }
}

#[test]
fn a_late_answer_of_a_service_is_not_even_received() {
    let broker: Broker<Small> = broker();
    let slow = Service::<(), 64>::new(()).on_message(1, |(), message| {
        thread::sleep(2 * SHORT);
        Some(*message)
    });
    let slow = broker.start("slow", slow, StartOptions::default()).unwrap();
    let mut client = broker.client("me").unwrap();
    let late = client.request(slow.id(), &Message::new(1), SHORT).unwrap_err();
    assert_eq!(late, RequestError::NoAnswer(DeliveryStatus::Delivered));
    let slow = slow.stop_and_join(GUARD).unwrap();
    assert_eq!((slow.answered(), slow.undelivered()), (0, 1));
}

#[test]
fn a_request_waits_for_room_until_its_deadline() {
    for task in [false, true] {
        let broker: Broker<Small> = broker();
        let (mut client, mut service) = (broker.client("me").unwrap(), broker.register_parking("s").unwrap());
        let to = service.id();
        for _ in 0..4 {
            client.endpoint_mut().send(to, &Message::new(0)).unwrap();
        }
        let full = request(&mut client, to, 1, SHORT, task).unwrap_err();
        assert_eq!(full, RequestError::Send(SendError::QueueFull { next_hop: to }));
        assert!(!full.may_have_been_received());
        let serving = thread::spawn(move || {
            thread::sleep(SHORT);
            loop {
                let message = service.receive(GUARD).unwrap();
                if message.header.kind == 1 {
                    return service.reply(&message, &message).unwrap();
                }
            }
        });
        assert_eq!(request(&mut client, to, 1, GUARD, task).unwrap().header.kind, 1);
        serving.join().unwrap();
    }
}

#[test]
fn a_request_that_a_forwarder_had_no_room_for_is_sent_again() {
    for task in [false, true] {
        let broker: Broker<Small> = broker();
        let (mut client, mut hop) = (broker.client("me").unwrap(), broker.register_parking("hop").unwrap());
        let mut service = broker.register_parking("s").unwrap();
        let to = service.id();
        broker.add_route(client.endpoint().id(), to, hop.id()).unwrap();
        // The forwarder fills the service's inbox, and its own store for what finds no room there.
        for _ in 0..4 {
            hop.send(to, &Message::new(0)).unwrap();
        }
        for _ in 0..4 {
            client.endpoint_mut().send(to, &Message::new(0)).unwrap();
            hop.poll();
        }
        let stop = broker.clone();
        let forwarding = thread::spawn(move || {
            let id = hop.id();
            let failed = || stop.kernel_stats(id).unwrap().queue_full;
            let (before, mut hop_ends) = (failed(), false);
            while !hop_ends {
                hop.poll();
                thread::sleep(Duration::from_micros(200));
                // Once it has refused the request, the service begins.
                if failed() > before && stop.find("serving").is_none() && stop.find("done").is_none() {
                    core::mem::forget(stop.register("serving").unwrap());
                }
                hop_ends = stop.find("done").is_some();
            }
        });
        let serving = {
            let broker = broker.clone();
            thread::spawn(move || {
                broker.wait_for_kernel("serving", GUARD).unwrap();
                loop {
                    let message = service.receive(GUARD).unwrap();
                    if message.header.kind == 1 {
                        return service.reply(&message, &message).unwrap();
                    }
                }
            })
        };
        assert_eq!(request(&mut client, to, 1, GUARD, task).unwrap().header.kind, 1);
        serving.join().unwrap();
        let _done = broker.register("done").unwrap();
        forwarding.join().unwrap();
        assert!(broker.stats().queue_full > 0);
    }
}

#[test]
fn a_request_says_whether_it_was_received() {
    for task in [false, true] {
        let broker: Broker<Small> = broker();
        let (mut client, service) = (broker.client("me").unwrap(), broker.register_parking("s").unwrap());
        let to = service.id();
        // Nobody receives it, and nobody ever will.
        let unreceived = request(&mut client, to, 1, SHORT, task).unwrap_err();
        assert_eq!(unreceived, RequestError::NotReceived(DeliveryStatus::Timeout));
        assert!(!unreceived.may_have_been_received());
        assert_eq!(unreceived.to_string(), "the request was not received: timed out");
        // Its own deadline counts, if that is earlier.
        let began = Instant::now();
        let brief = Message::new(1).with_timeout(client.endpoint(), SHORT);
        assert!(client.request(to, &brief, GUARD).is_err() && began.elapsed() < GUARD);
        drop(service);
        let nobody = request(&mut client, to, 1, GUARD, task).unwrap_err();
        assert_eq!(nobody, RequestError::Send(SendError::NotFound { kernel: to }));
        assert_eq!(broker.pending(), 0);
    }
}

#[test]
fn a_client_hears_that_its_service_leaves() {
    for (task, receives) in [(false, false), (false, true), (true, false), (true, true)] {
        let broker: Broker<Small> = broker();
        let (mut client, mut service) = (broker.client("me").unwrap(), broker.register_parking("s").unwrap());
        let to = service.id();
        let leaving = thread::spawn(move || {
            eventually("a request is there", || service.pending_count() > 0);
            if receives {
                assert!(service.try_receive().is_some());
            }
        });
        let gone = request(&mut client, to, 1, GUARD, task).unwrap_err();
        let expected =
            if receives { RequestError::Gone(to) } else { RequestError::NotReceived(DeliveryStatus::NotFound) };
        assert_eq!(gone, expected);
        leaving.join().unwrap();
    }
}

#[test]
fn an_answer_that_came_before_its_service_left_is_received() {
    for task in [false, true] {
        let broker: Broker<Small> = broker();
        let mut client = broker.client("me").unwrap();
        for _ in 0..50 {
            let service = broker.register_parking("s").unwrap();
            let to = service.id();
            serve(service, |service, message| {
                service.reply(&message, &message).unwrap();
            });
            assert_eq!(request(&mut client, to, 1, GUARD, task).unwrap().header.kind, 1);
            broker.wait_until_gone(to, GUARD).unwrap();
        }
    }
}

#[test]
fn every_wait_hears_stop() {
    let broker: Broker<Small> = patient().build().unwrap();
    let service = broker.register_parking("s").unwrap();
    let to = service.id();
    type Wait = fn(&mut Client<Small>, KernelId) -> bool;
    let waits: [(&str, Wait); 12] = [
        ("request", |c, to| c.request(to, &Message::new(1), GUARD) == Err(RequestError::Stopped)),
        ("request_async", |c, to| {
            block_on(c.request_async(to, &Message::new(1), Duration::MAX)) == Err(RequestError::Stopped)
        }),
        ("request for room", |c, to| {
            while c.endpoint_mut().send(to, &Message::new(1)).is_ok() {}
            c.request(to, &Message::new(1), GUARD) == Err(RequestError::Stopped)
        }),
        ("receive", |c, _| c.receive(None) == Err(ReceiveError::Stopped)),
        ("receive_async", |c, _| block_on(c.receive_async()) == Err(ReceiveError::Stopped)),
        ("wait_for_kernel", |c, _| c.endpoint_mut().wait_for_kernel("x", None) == Err(PresenceError::Stopped)),
        ("wait_for_kernel_async", |c, _| {
            block_on(c.endpoint_mut().wait_for_kernel_async("x", None)) == Err(PresenceError::Stopped)
        }),
        ("wait_until_gone", |c, to| c.endpoint_mut().wait_until_gone(to, None) == Err(PresenceError::Stopped)),
        ("wait_until_gone_async", |c, to| {
            block_on(c.endpoint_mut().wait_until_gone_async(to, None)) == Err(PresenceError::Stopped)
        }),
        ("publish_blocking", |c, to| {
            while c.endpoint_mut().send(to, &Message::new(1)).is_ok() {}
            let published = c.endpoint_mut().publish_blocking(&[to], &Message::new(1));
            matches!(published.copies()[0].sent(), Err(SendError::QueueFull { .. }))
        }),
        ("publish_async", |c, to| {
            while c.endpoint_mut().send(to, &Message::new(1)).is_ok() {}
            let published = block_on(c.endpoint_mut().publish_async(&[to], &Message::new(1)));
            matches!(published.copies()[0].sent(), Err(SendError::QueueFull { .. }))
        }),
        ("Published::wait", |c, to| {
            let mut published = c.endpoint_mut().publish(&[to], &Message::new(1));
            published.wait(c.endpoint_mut(), None) == Err(ReceiveError::Stopped)
        }),
    ];
    for (name, wait) in waits {
        let mut client = broker.client("me").unwrap();
        let id = client.endpoint().id();
        let waiting = thread::spawn(move || wait(&mut client, to));
        thread::sleep(Duration::from_millis(5));
        assert!(!waiting.is_finished(), "{name} waits");
        broker.command(id, Command::Stop).unwrap();
        assert!(waiting.join().unwrap(), "{name} says that its kernel was told to stop");
    }
}

#[test]
fn a_client_that_drains_still_gets_its_answer() {
    for task in [false, true] {
        let broker: Broker<Small> = broker();
        let (mut client, service) = (broker.client("me").unwrap(), broker.register_parking("s").unwrap());
        let to = service.id();
        broker.command(client.endpoint().id(), Command::Drain).unwrap();
        serve(service, |service, message| {
            thread::sleep(SHORT);
            service.reply(&message, &message).unwrap();
            let _ = service.receive(SHORT);
        });
        assert_eq!(request(&mut client, to, 1, GUARD, task).unwrap().header.kind, 1);
    }
}

#[test]
fn a_request_that_is_cancelled_loses_no_mail() {
    let broker: Broker<Fixed<8, 256, 64>> = broker();
    let mut client = broker.client("me").unwrap();
    let me = client.endpoint().id();
    let silent = broker.register("silent").unwrap();
    let mut other = broker.register("other").unwrap();
    let sending = thread::spawn(move || {
        for kind in 0..200 {
            other.send(me, &Message::new(kind)).unwrap();
            thread::sleep(Duration::from_micros(100));
        }
    });
    block_on(async {
        let mut got = 0;
        while got < 200 {
            let request = Message::new(1);
            let _ =
                tokio::time::timeout(Duration::from_micros(300), client.request_async(silent.id(), &request, GUARD))
                    .await;
            while let Ok(message) = client.receive(Duration::ZERO) {
                assert_eq!(message.header.kind, got);
                got += 1;
            }
        }
    });
    sending.join().unwrap();
}

#[test]
fn kernels_are_waited_for_and_missed() {
    let broker: Broker<Small> = broker();
    let mut me = broker.register("me").unwrap();
    let name = |e: PresenceError| matches!(e, PresenceError::Name(_));
    assert!(name(me.wait_for_kernel("", GUARD).unwrap_err()) && name(broker.wait_for_kernel("", GUARD).unwrap_err()));
    assert!(name(block_on(me.wait_for_kernel_async(&"x".repeat(33), GUARD)).unwrap_err()));
    for missing in [
        me.wait_for_kernel("x", SHORT),
        broker.wait_for_kernel("x", SHORT),
        block_on(me.wait_for_kernel_async("x", SHORT)),
    ] {
        assert_eq!(missing.unwrap_err().to_string(), "no kernel registered as \"x\" within 50ms");
    }
    let id = me.id();
    for staying in [
        me.wait_until_gone(id, SHORT),
        broker.wait_until_gone(id, SHORT),
        block_on(me.wait_until_gone_async(id, SHORT)),
    ] {
        assert_eq!(staying, Err(PresenceError::StillRegistered { kernel: id, waited: SHORT }));
    }
    for task in [false, true] {
        let registering = broker.clone();
        let coming = thread::spawn(move || {
            thread::sleep(Duration::from_millis(10));
            let late = registering.register("late").unwrap();
            let id = late.id();
            thread::sleep(Duration::from_millis(10));
            id
        });
        let found = if task {
            block_on(me.wait_for_kernel_async("late", None)).unwrap()
        } else {
            me.wait_for_kernel("late", None).unwrap()
        };
        if task {
            block_on(me.wait_until_gone_async(found, GUARD)).unwrap();
        } else {
            me.wait_until_gone(found, GUARD).unwrap();
        }
        assert_eq!(coming.join().unwrap(), found);
    }
}

#[test]
fn mail_and_transit_traffic_do_not_disturb_a_wait_for_a_kernel() {
    for task in [false, true] {
        let broker: Broker<Small> = broker();
        let (mut a, mut b) = (broker.register("a").unwrap(), broker.register("b").unwrap());
        let mut hop = broker.register_parking("hop").unwrap();
        broker.add_route(a.id(), b.id(), hop.id()).unwrap();
        b.send(hop.id(), &Message::new(1)).unwrap();
        a.send(b.id(), &Message::new(2)).unwrap();
        let waited =
            if task { block_on(hop.wait_for_kernel_async("x", SHORT)) } else { hop.wait_for_kernel("x", SHORT) };
        assert!(matches!(waited, Err(PresenceError::NotRegistered { .. })));
        assert_eq!(b.pending_count(), 1, "passed on");
        assert_eq!(hop.try_receive().unwrap().header.kind, 1);
    }
}

#[test]
fn a_message_to_several_is_told_apart_by_receiver() {
    let broker: Broker<Small> = broker();
    let mut me = broker.register("me").unwrap();
    let (mut a, mut b) = (broker.register("a").unwrap(), broker.register("b").unwrap());
    let (gone, denied) = (broker.register("gone").unwrap().id(), broker.register("denied").unwrap());
    broker.deny(denied.id(), me.id()).unwrap();
    for _ in 0..4 {
        me.send(b.id(), &Message::new(0)).unwrap();
    }
    let to = [a.id(), b.id(), gone, denied.id()];
    let mut news = me.publish(&to, &Message::new(1).with_deadline_ns(me.deadline_in(2 * SHORT)));
    assert_eq!(news.copies().iter().map(|copy| copy.to()).collect::<Vec<_>>(), to);
    let status = |news: &k2k::Published| news.copies().iter().map(|copy| copy.status()).collect::<Vec<_>>();
    use DeliveryStatus::{Delivered, NotAllowed, NotFound, Pending, QueueFull};
    assert_eq!(status(&news), [Some(Pending), Some(QueueFull), Some(NotFound), Some(NotAllowed)]);
    assert_eq!((news.sent().count(), news.refused().count(), news.is_settled()), (1, 3, false));
    assert_eq!(news.wait(&mut me, Duration::ZERO), Err(ReceiveError::Timeout));
    assert!(a.try_receive().is_some());
    news.wait(&mut me, GUARD).unwrap();
    assert_eq!(status(&news)[0], Some(Delivered));
    assert_eq!(news.failed().count(), 3);
    assert!(news.is_settled() && !news.is_delivered_to_all());
    while b.try_receive().is_some() {}
    let mut all = me.publish(&[a.id(), b.id()], &Message::new(2));
    assert!(a.try_receive().is_some() && b.try_receive().is_some());
    all.update(&mut me);
    assert!(all.is_delivered_to_all());
    assert!(me.publish(&[], &Message::new(2)).is_delivered_to_all());
}

#[test]
fn a_copy_whose_receipt_was_overwritten_has_not_failed() {
    let broker: Broker<Small> = broker();
    let (mut me, mut a) = (broker.register("me").unwrap(), broker.register("a").unwrap());
    let mut news = me.publish(&[a.id()], &Message::new(1));
    assert!(a.try_receive().is_some());
    for _ in 0..8 * 4 {
        me.send(a.id(), &Message::new(2)).unwrap();
        assert!(a.try_receive().is_some());
    }
    news.update(&mut me);
    assert_eq!((news.copies()[0].status(), news.is_settled()), (None, true));
    assert_eq!((news.failed().count(), news.unknown().collect::<Vec<_>>()), (0, vec![(a.id(), None)]));
}

#[test]
fn a_message_to_several_waits_for_room_until_its_deadline() {
    for task in [false, true] {
        let broker: Broker<Small> = broker();
        let mut me = broker.register("me").unwrap();
        let (mut a, b) = (broker.register_parking("a").unwrap(), broker.register("b").unwrap());
        let to = [a.id(), b.id()];
        for _ in 0..4 {
            me.send(a.id(), &Message::new(0)).unwrap();
        }
        let mut publish = |message: &Message<64>| {
            if task { block_on(me.publish_async(&to, message)) } else { me.publish_blocking(&to, message) }
        };
        let full = publish(&Message::new(1).with_deadline_ns(b.deadline_in(SHORT)));
        assert!(matches!(full.copies()[0].sent(), Err(SendError::Timeout { .. })), "{full:?}");
        assert!(full.copies()[1].sent().is_ok());
        let receiving = thread::spawn(move || {
            thread::sleep(SHORT);
            for _ in 0..5 {
                a.receive(GUARD).unwrap();
            }
        });
        let sent = publish(&Message::new(2));
        assert_eq!(sent.sent().count(), 2);
        receiving.join().unwrap();
    }
}

#[test]
fn requests_work_where_the_shape_is_read() {
    let broker: Broker<k2k::Read> = Broker::builder().kernels(3).slots(4).payload(64).build().unwrap();
    let service = Service::<(), 4096>::new(()).on(|(), Double(number)| Ok(2 * number));
    let service = broker.start("doubler", service, StartOptions::default()).unwrap();
    let mut client = broker.client("me").unwrap();
    assert_eq!(client.ask(service.id(), &Double(4), GUARD), Ok(8));
    let long = client.request(service.id(), &Message::from_bytes(5, &[0; 65]).unwrap(), GUARD).unwrap_err();
    assert!(matches!(long, RequestError::Send(SendError::PayloadTooLong(_))), "{long:?}");
}

/// The service's process of the test below.
#[test]
fn serve_in_another_process() {
    let Ok(name) = std::env::var("K2K_SERVE") else { return };
    let broker: Broker<Small> = Broker::builder().open(&name).build().unwrap();
    let mut endpoint = broker.register_parking("doubler").unwrap();
    // It dies with the request 1000 in hand.
    let mut service = Service::<(), 64>::new(())
        .on(|(), Double(number)| if number == 1000 { std::process::abort() } else { Ok(2 * number) });
    endpoint.run(&mut service, Duration::from_millis(100));
}

#[test]
fn a_client_survives_its_service_and_finds_the_next_one() {
    let shm = Shm::new("service-restart");
    let broker: Broker<Small> = patient().create(&shm.0).build().unwrap();
    let _supervisor = broker.supervise(Duration::from_millis(20), |_| {}).unwrap();
    let mut client = broker.client("me").unwrap();
    for _ in 0..3 {
        let mut process = Process::start("serve_in_another_process", &[("K2K_SERVE", &shm.0)]);
        let to = client.endpoint_mut().wait_for_kernel("doubler", GUARD).unwrap();
        assert_eq!(client.ask(to, &Double(21), GUARD), Ok(42));
        assert_eq!(client.ask(to, &Double(1000), GUARD), Err(RequestError::Gone(to)));
        client.endpoint_mut().wait_until_gone(to, GUARD).unwrap();
        assert_eq!(client.ask(to, &Double(21), GUARD), Err(RequestError::Send(SendError::NotFound { kernel: to })));
        assert!(!process.0.wait().unwrap().success());
    }
    eventually("all messages are accounted for", || broker.pending() == 0);
}
