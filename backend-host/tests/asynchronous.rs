//! Receiving in `async` code.

mod common;
use common::{GUARD, Process, Shm, broker, cpu_time_of, eventually, threads_named};
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

/// In a process of its own, in which no other test awaits anything.
#[test]
fn an_idle_process_has_one_helper_thread_that_uses_no_cpu_and_ends_with_the_last_endpoint() {
    if std::env::var_os("K2K_ALONE").is_none() {
        let name = "an_idle_process_has_one_helper_thread_that_uses_no_cpu_and_ends_with_the_last_endpoint";
        let mut process = Process::start(name, &[("K2K_ALONE", "1")]);
        assert!(process.0.wait().unwrap().success());
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        let shm = Shm::new("idle-tasks");
        let shared: Broker<Fixed<8, 16, 64>> = Broker::builder().create(&shm.0).build().unwrap();
        let private: Broker<Fixed<8, 16, 64>> = broker();
        assert_eq!(threads_named("k2k-tasks"), 0, "it starts only when there is something to wait for");
        let mut endpoints: Vec<Small> = (0..6)
            .map(|i| if i % 2 == 0 { &shared } else { &private }.register_parking(&i.to_string()).unwrap())
            .collect();
        let all = endpoints.iter_mut().map(|endpoint| timeout(Duration::from_millis(600), endpoint.receive_async()));
        let mut all: Vec<_> = all.map(Box::pin).collect();
        let (mut used, mut most) = (Duration::ZERO, 0);
        let waited = core::future::poll_fn(|context| {
            used = cpu_time_of("k2k-tasks");
            let waits = all.iter_mut().map(|one| one.as_mut().poll(context)).filter(|poll| poll.is_pending()).count();
            most = most.max(threads_named("k2k-tasks"));
            if waits == 0 { core::task::Poll::Ready(()) } else { core::task::Poll::Pending }
        });
        waited.await;
        assert_eq!(most, 1, "helper threads for six endpoints");
        assert!(used <= Duration::from_millis(40), "used {used:?} of CPU in 600 ms");
        drop(all);
        drop(endpoints);
        eventually("the helper thread has ended", || threads_named("k2k-tasks") == 0);
    });
}

/// Two tasks of one process over a file that another process could have open, as over memory of its own; and over two
/// mappings of it, whose flags have two addresses.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tasks_over_a_shared_file_ask_and_answer_also_through_two_mappings() {
    let shm = Shm::new("tasks-file");
    let here: Broker<Fixed<8, 16, 64>> = Broker::builder().create(&shm.0).build().unwrap();
    let there: Broker<Fixed<8, 16, 64>> = Broker::builder().open(&shm.0).build().unwrap();
    for (name, broker) in [("one", &here), ("two", &there)] {
        let (mut client, mut server) =
            (here.register_parking(name).unwrap(), broker.register_parking("server").unwrap());
        let to = server.id();
        let server = tokio::spawn(async move {
            for _ in 0..200 {
                let request = next(&mut server).await;
                server.reply(&request, &Message::new(request.header.kind + 1)).unwrap();
            }
        });
        for i in 0..200 {
            client.send(to, &Message::new(i)).unwrap();
            assert_eq!(next(&mut client).await.header.kind, i + 1);
        }
        server.await.unwrap();
    }
}

/// Prints the time of an ask and reply between two tasks: of one thread, and of a runtime with two; and beside tokio's own
/// channels, `mpsc` for the question and `oneshot` for the answer.
#[test]
#[ignore = "measures: cargo test --release -p k2k --test asynchronous -- --ignored --nocapture the_time_of_an_ask"]
fn the_time_of_an_ask() {
    use tokio::runtime::Builder;
    use tokio::sync::{mpsc, oneshot};
    const ASKS: u32 = 100_000;

    async fn by_k2k(clients: u32) -> Duration {
        let broker: Broker<Fixed<16, 64, 64>> = Broker::builder().build().unwrap();
        let mut server = broker.register_parking("server").unwrap();
        let to = server.id();
        let server = tokio::spawn(async move {
            for _ in 0..ASKS {
                let request = server.receive_async().await.unwrap();
                server.reply(&request, &Message::new(request.header.kind)).unwrap();
            }
        });
        let begun = std::time::Instant::now();
        let clients: Vec<_> = (0..clients)
            .map(|i| {
                let mut client = broker.register_parking(&format!("client-{i}")).unwrap();
                tokio::spawn(async move {
                    for i in 0..ASKS / clients {
                        client.send(to, &Message::new(i)).unwrap();
                        assert_eq!(client.receive_async().await.unwrap().header.kind, i);
                    }
                })
            })
            .collect();
        for client in clients {
            client.await.unwrap();
        }
        server.await.unwrap();
        begun.elapsed() / ASKS
    }

    async fn by_tokio(clients: u32) -> Duration {
        let (ask, mut asked) = mpsc::channel::<([u64; 8], oneshot::Sender<[u64; 8]>)>(64);
        let server = tokio::spawn(async move {
            for _ in 0..ASKS {
                let (request, answer) = asked.recv().await.unwrap();
                answer.send(request).unwrap();
            }
        });
        let begun = std::time::Instant::now();
        let clients: Vec<_> = (0..clients)
            .map(|_| {
                let ask = ask.clone();
                tokio::spawn(async move {
                    for i in 0..ASKS / clients {
                        let (answer, answered) = oneshot::channel();
                        ask.send(([i.into(); 8], answer)).await.unwrap();
                        assert_eq!(answered.await.unwrap()[0], u64::from(i));
                    }
                })
            })
            .collect();
        for client in clients {
            client.await.unwrap();
        }
        server.await.unwrap();
        begun.elapsed() / ASKS
    }

    let runtimes = [
        ("one thread", Builder::new_current_thread().enable_all().build().unwrap()),
        ("two threads", Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()),
    ];
    for (name, runtime) in runtimes {
        for clients in [1, 8] {
            let mut rounds: Vec<[Duration; 2]> = (0..9)
                .map(|_| {
                    [
                        runtime.block_on(async { tokio::spawn(by_k2k(clients)).await.unwrap() }),
                        runtime.block_on(async { tokio::spawn(by_tokio(clients)).await.unwrap() }),
                    ]
                })
                .collect();
            let mut middle = |which: usize| {
                rounds.sort_unstable_by_key(|round| round[which]);
                rounds[rounds.len() / 2][which].as_nanos()
            };
            let (k2k, tokio) = (middle(0), middle(1));
            println!(
                "{name}, {clients} asking: k2k {k2k} ns, tokio mpsc + oneshot {tokio} ns, {:.2} of it",
                k2k as f64 / tokio as f64
            );
        }
    }
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

/// An executor whose waker runs, and then drops, the task on the thread that wakes it: within the sender's `send`.
#[test]
fn a_waker_may_drop_its_own_endpoint() {
    use core::pin::Pin;
    use core::task::{Context, Poll, Waker};
    use std::sync::{Arc, Mutex, mpsc};
    use std::task::Wake;
    type Task = Pin<Box<dyn Future<Output = u32> + Send>>;
    struct Inline {
        task: Mutex<Option<Task>>,
        /// Somebody wants it polled; a task may wake itself while it is.
        wanted: Mutex<bool>,
        done: mpsc::Sender<u32>,
    }
    impl Wake for Inline {
        fn wake(self: Arc<Self>) {
            *self.wanted.lock().unwrap() = true;
            let Ok(mut task) = self.task.try_lock() else { return };
            let waker = Waker::from(Arc::clone(&self));
            while core::mem::take(&mut *self.wanted.lock().unwrap()) {
                let Some(running) = task.as_mut() else { return };
                if let Poll::Ready(kind) = running.as_mut().poll(&mut Context::from_waker(&waker)) {
                    *task = None;
                    self.done.send(kind).unwrap();
                }
            }
        }
    }
    let broker: Broker<Fixed<8, 16, 64>> = broker();
    let mut receiver = broker.register_parking("receiver").unwrap();
    let mut sender = broker.register("sender").unwrap();
    let to = receiver.id();
    let (done, is_done) = mpsc::channel();
    let task: Task = Box::pin(async move { receiver.receive_async().await.unwrap().header.kind });
    let inline = Arc::new(Inline { task: Mutex::new(Some(task)), wanted: Mutex::new(false), done });
    Arc::clone(&inline).wake();
    std::thread::sleep(Duration::from_millis(10));
    sender.send(to, &Message::new(42)).unwrap();
    assert_eq!(is_done.recv_timeout(GUARD).unwrap(), 42);
    eventually("the endpoint has left", || !broker.is_registered(to));
}

/// A waker that panics harms no later one.
#[test]
fn a_waker_that_panics_harms_neither_sender_nor_later_wakers() {
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
        // The first look lets other tasks run; the second one falls asleep.
        assert!(future.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        assert!(future.as_mut().poll(&mut Context::from_waker(&Waker::from(Arc::new(Panics)))).is_pending());
        sender.send(to, &Message::new(1)).unwrap();
        std::thread::sleep(Duration::from_millis(50));
        assert!(future.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready());
    }
    let (tell, told) = mpsc::channel();
    let waker = Waker::from(Arc::new(Tells(tell)));
    let mut future = pin!(receiver.receive_async());
    assert!(future.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    told.recv_timeout(GUARD).expect("a second look");
    assert!(future.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    sender.send(to, &Message::new(2)).unwrap();
    told.recv_timeout(GUARD).expect("a wake-up");
}

/// A run loop whose heartbeat has no length does not keep its executor.
#[tokio::test(flavor = "current_thread")]
async fn a_run_loop_without_a_heartbeat_leaves_other_tasks_their_turn() {
    let broker: Broker<Fixed<8, 16, 64>> = broker();
    let mut echo = broker.register_parking("echo").unwrap();
    let mut me = broker.register_parking("me").unwrap();
    let (to, mut kernel) = (echo.id(), common::Echo::default());
    let running = tokio::spawn(async move { echo.run_async(&mut kernel, Duration::ZERO).await });
    me.send(to, &Message::new(5)).unwrap();
    assert_eq!(next(&mut me).await.header.kind, 5);
    broker.command(to, Command::Stop).unwrap();
    timeout(GUARD, running).await.unwrap().unwrap();
}
