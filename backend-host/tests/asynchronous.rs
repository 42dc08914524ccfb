//! Receiving in `async` code.

mod common;
use common::{GUARD, broker, cpu_time_of, eventually, threads_named};
use core::time::Duration;
use k2k::{Broker, Command, Endpoint, Fixed, Message, ReceiveError};
use tokio::time::timeout;

type Small = Endpoint<Fixed<8, 16, 64>>;

async fn next(endpoint: &mut Small) -> Message<64> {
    timeout(GUARD, endpoint.receive_async()).await.expect("a wake-up").expect("nobody stops it")
}

#[tokio::test(flavor = "current_thread")]
async fn two_tasks_on_one_thread_ask_and_answer() {
    let broker: Broker<Fixed<8, 16, 64>> = broker();
    let mut client = broker.register_parking("client").unwrap();
    let mut server = broker.register_parking("server").unwrap();
    let to = server.id();
    let server = tokio::spawn(async move {
        for _ in 0..500 {
            let request = next(&mut server).await;
            server.reply(&request, &Message::new(request.header.kind + 1)).unwrap();
        }
    });
    for i in 0..500 {
        let request = client.send(to, &Message::new(i)).unwrap();
        let answer = next(&mut client).await;
        assert_eq!((answer.header.kind, answer.header.correlation_id), (i + 1, request.sequence));
    }
    server.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sender_on_another_thread_wakes_the_task() {
    let broker: Broker<Fixed<8, 16, 64>> = broker();
    let mut receiver = broker.register_parking("receiver").unwrap();
    let mut sender = broker.register("sender").unwrap();
    let to = receiver.id();
    let thread = std::thread::spawn(move || {
        for i in 0..1000u32 {
            sender.send_blocking(to, &Message::new(i)).unwrap();
            if i % 7 == 0 {
                std::thread::sleep(Duration::from_micros(u64::from(i) % 400));
            }
        }
    });
    for i in 0..1000 {
        assert_eq!(next(&mut receiver).await.header.kind, i);
    }
    thread.join().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_future_that_is_dropped_loses_no_message() {
    let broker: Broker<Fixed<8, 16, 64>> = broker();
    let mut receiver = broker.register_parking("receiver").unwrap();
    let mut sender = broker.register("sender").unwrap();
    let to = receiver.id();
    let thread = std::thread::spawn(move || {
        for i in 0..500u32 {
            sender.send_blocking(to, &Message::new(i)).unwrap();
            std::thread::sleep(Duration::from_micros(200));
        }
    });
    let (mut received, mut cancelled) = (0, 0u32);
    let start = std::time::Instant::now();
    while received < 500 {
        tokio::select! {
            message = receiver.receive_async() => {
                assert_eq!(message.unwrap().header.kind, received);
                received += 1;
            }
            () = tokio::time::sleep(Duration::from_micros(50)) => cancelled += 1,
        }
        assert!(start.elapsed() < GUARD, "message {received} was lost after {cancelled} cancelled futures");
    }
    assert!(cancelled > 0);
    thread.join().unwrap();
}

#[tokio::test]
async fn blocking_and_async_receives_can_alternate() {
    let broker: Broker<Fixed<8, 16, 64>> = broker();
    let mut receiver = broker.register_parking("receiver").unwrap();
    let mut sender = broker.register("sender").unwrap();
    let to = receiver.id();
    assert!(timeout(Duration::from_millis(5), receiver.receive_async()).await.is_err());
    for i in 0..50 {
        let thread = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(1));
            sender.send(to, &Message::new(i)).unwrap();
            sender
        });
        let message = if i % 2 == 0 { receiver.receive(GUARD).unwrap() } else { next(&mut receiver).await };
        assert_eq!(message.header.kind, i);
        sender = thread.join().unwrap();
    }
}

#[tokio::test]
async fn an_endpoint_that_does_not_park_is_looked_at_from_time_to_time() {
    let broker: Broker<Fixed<8, 16, 64>> = broker();
    let mut receiver = broker.register("receiver").unwrap();
    let mut sender = broker.register("sender").unwrap();
    let to = receiver.id();
    let task = tokio::spawn(async move { next(&mut receiver).await.header.kind });
    tokio::time::sleep(Duration::from_millis(20)).await;
    sender.send(to, &Message::new(3)).unwrap();
    assert_eq!(task.await.unwrap(), 3);
}

#[tokio::test]
async fn a_supervisor_ends_a_receive() {
    let broker: Broker<Fixed<8, 16, 64>> = broker();
    let mut receiver = broker.register_parking("receiver").unwrap();
    let id = receiver.id();
    let task = tokio::spawn(async move { receiver.receive_async().await });
    tokio::time::sleep(Duration::from_millis(20)).await;
    broker.command(id, Command::Stop).unwrap();
    assert_eq!(timeout(GUARD, task).await.unwrap().unwrap(), Err(ReceiveError::Stopped));
}

/// The index is one that no other test of this file uses, so that the watcher's name is its alone.
#[tokio::test]
async fn an_idle_watcher_uses_no_cpu_and_ends_with_its_endpoint() {
    let broker: Broker<Fixed<8, 16, 64>> = broker();
    let mut receiver =
        broker.memory().register_owned(&k2k::Registration::new("idle").unwrap().parking().at(7)).unwrap();
    assert_eq!(threads_named("k2k-watch-7"), 0, "it starts only when there is something to wait for");
    assert!(timeout(Duration::from_millis(500), receiver.receive_async()).await.is_err());
    assert_eq!(threads_named("k2k-watch-7"), 1);
    let used = cpu_time_of("k2k-watch-7");
    assert!(used <= Duration::from_millis(20), "used {used:?} of CPU in 500 ms");
    drop(receiver);
    eventually("the watcher has ended", || threads_named("k2k-watch-7") == 0);
}

#[tokio::test]
async fn an_endpoint_may_be_dropped_while_its_future_waits() {
    for _ in 0..50 {
        let broker: Broker<Fixed<8, 16, 64>> = broker();
        let mut receiver = broker.register_parking("receiver").unwrap();
        let mut sender = broker.register("sender").unwrap();
        let to = receiver.id();
        let task = tokio::spawn(async move { next(&mut receiver).await });
        tokio::task::yield_now().await;
        let thread = std::thread::spawn(move || sender.send(to, &Message::new(1)).is_ok());
        task.abort();
        let _ = task.await;
        thread.join().unwrap();
        assert!(!broker.is_registered(to));
    }
}

/// An executor whose waker runs, and then drops, the task on the thread that wakes it: the watcher's own.
#[test]
fn a_watcher_may_drop_its_own_endpoint() {
    use core::pin::Pin;
    use core::task::{Context, Poll, Waker};
    use std::sync::{Arc, Mutex, mpsc};
    use std::task::Wake;
    type Task = Pin<Box<dyn Future<Output = u32> + Send>>;
    struct Inline(Mutex<Option<Task>>, mpsc::Sender<u32>);
    impl Wake for Inline {
        fn wake(self: Arc<Self>) {
            let mut task = self.0.lock().unwrap();
            let waker = Waker::from(Arc::clone(&self));
            let Some(running) = task.as_mut() else { return };
            if let Poll::Ready(kind) = running.as_mut().poll(&mut Context::from_waker(&waker)) {
                *task = None;
                self.1.send(kind).unwrap();
            }
        }
    }
    let broker: Broker<Fixed<8, 16, 64>> = broker();
    let mut receiver = broker.register_parking("receiver").unwrap();
    let mut sender = broker.register("sender").unwrap();
    let to = receiver.id();
    let (done, is_done) = mpsc::channel();
    let task: Task = Box::pin(async move { receiver.receive_async().await.unwrap().header.kind });
    let inline = Arc::new(Inline(Mutex::new(Some(task)), done));
    Arc::clone(&inline).wake();
    std::thread::sleep(Duration::from_millis(10));
    sender.send(to, &Message::new(42)).unwrap();
    assert_eq!(is_done.recv_timeout(GUARD).unwrap(), 42);
    eventually("the endpoint has left", || !broker.is_registered(to));
}

/// A waker that panics harms no later one.
#[test]
fn a_waker_that_panics_does_not_end_the_watcher() {
    use core::pin::pin;
    use core::task::{Context, Waker};
    use std::sync::{Arc, mpsc};
    use std::task::Wake;
    struct Panics;
    impl Wake for Panics {
        fn wake(self: Arc<Self>) {
            panic!("a waker");
        }
    }
    struct Tells(mpsc::Sender<()>);
    impl Wake for Tells {
        fn wake(self: Arc<Self>) {
            let _ = self.0.send(());
        }
    }
    let broker: Broker<Fixed<8, 16, 64>> = broker();
    let mut receiver = broker.register_parking("receiver").unwrap();
    let mut sender = broker.register("sender").unwrap();
    let to = receiver.id();
    {
        let mut future = pin!(receiver.receive_async());
        assert!(future.as_mut().poll(&mut Context::from_waker(&Waker::from(Arc::new(Panics)))).is_pending());
        sender.send(to, &Message::new(1)).unwrap();
        std::thread::sleep(Duration::from_millis(50));
        assert!(future.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready());
    }
    let (tell, told) = mpsc::channel();
    let waker = Waker::from(Arc::new(Tells(tell)));
    let mut future = pin!(receiver.receive_async());
    assert!(future.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    sender.send(to, &Message::new(2)).unwrap();
    told.recv_timeout(GUARD).expect("a wake-up");
}
