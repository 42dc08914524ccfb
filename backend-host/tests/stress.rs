//! More kernels than cores, all sending to all.

mod common;
use common::{GUARD, eventually, patient};
use core::time::Duration;
use k2k::{
    Broker, Context, Fixed, Idle, Kernel, KernelHandle, KernelId, Message, Priority, SendError, StartOptions, Wait,
};

const KERNELS: usize = 12;
const PER_PEER: u32 = 400;

/// Sends `PER_PEER` numbered messages to every other kernel, and checks that those of every other one come in order.
#[derive(Default)]
struct Talker {
    peers: Vec<KernelId>,
    /// Sent to each peer so far.
    sent: Vec<u32>,
    /// Expected next from each index, of normal and of high priority.
    expected: [[u32; 2]; KERNELS + 1],
    received: u64,
    refused: u64,
}

impl Kernel<128> for Talker {
    fn on_message(&mut self, _: &mut impl Context<128>, message: &Message<128>) {
        let header = &message.header;
        let expected = &mut self.expected[header.source().index()][usize::from(header.priority)];
        let number = message.value::<u32>().unwrap();
        assert!(number >= *expected, "{} came after {expected}", message.header.id());
        *expected = number + 1;
        self.received += 1;
    }

    fn on_idle(&mut self, context: &mut impl Context<128>) -> Idle {
        let (mut busy, mut waits) = (false, false);
        for (peer, sent) in self.peers.iter().zip(&mut self.sent) {
            if *sent == PER_PEER {
                continue;
            }
            let priority = if *sent % 16 == 0 { Priority::High } else { Priority::Normal };
            match context.send_priority(*peer, &Message::from_value(*sent, sent), priority) {
                Ok(_) => {
                    *sent += 1;
                    busy = true;
                }
                Err(SendError::QueueFull { .. }) => {
                    self.refused += 1;
                    waits = true;
                }
                Err(e) => panic!("{e}"),
            }
        }
        match (busy, waits) {
            (true, _) => Idle::Again,
            (false, true) => Idle::Soon,
            (false, false) => Idle::Done,
        }
    }
}

fn all_to_all(wait: Wait) {
    let broker: Broker<Fixed<{ KERNELS + 1 }, 16, 128>> = patient().build().unwrap();
    // All register before the first one sends: each waits for its first message.
    struct Gated(Talker);
    impl Kernel<128> for Gated {
        fn on_message(&mut self, context: &mut impl Context<128>, message: &Message<128>) {
            if message.header.flags == 1 {
                let peers: &[u64] = &(0..message.payload().len() / 8)
                    .map(|i| u64::from_le_bytes(message.payload()[8 * i..][..8].try_into().unwrap()))
                    .collect::<Vec<_>>();
                self.0.peers = peers.iter().map(|&p| KernelId::from_raw(p)).filter(|p| *p != context.id()).collect();
                self.0.sent = vec![0; self.0.peers.len()];
            } else {
                self.0.on_message(context, message);
            }
        }
        fn on_idle(&mut self, context: &mut impl Context<128>) -> Idle {
            self.0.on_idle(context)
        }
    }
    // Long: a kernel that finds no room says that it wants to try again soon.
    let options = StartOptions { wait, heartbeat: Duration::from_secs(5), pin: None };
    let handles: Vec<KernelHandle<Gated, Fixed<{ KERNELS + 1 }, 16, 128>>> =
        (0..KERNELS).map(|i| broker.start(&format!("t{i}"), Gated(Talker::default()), options).unwrap()).collect();
    let mut starter = broker.register("starter").unwrap();
    let peers: Vec<u8> = handles.iter().flat_map(|h| h.id().raw().to_le_bytes()).collect();
    for handle in &handles {
        starter.send(handle.id(), &Message::from_bytes(0, &peers).unwrap().with_flags(1)).unwrap();
    }
    let all = (KERNELS * (KERNELS - 1)) as u64 * u64::from(PER_PEER) + KERNELS as u64;
    eventually("all messages have been received", || broker.stats().received == all);
    let states: Vec<Gated> = handles.into_iter().map(|h| h.stop_and_join(GUARD).unwrap()).collect();
    assert!(states.iter().all(|s| s.0.received == (KERNELS as u64 - 1) * u64::from(PER_PEER)));
    let stats = broker.stats();
    assert_eq!((stats.sent, stats.received, stats.failed(), broker.pending()), (all, all, 0, 0), "{stats:?}");
    assert_eq!(stats.refused, states.iter().map(|s| s.0.refused).sum::<u64>());
    println!("{wait:?}: {all} messages, {} refused and sent again", stats.refused);
}

#[test]
fn twelve_parking_kernels_lose_nothing() {
    all_to_all(Wait::Park);
}

#[test]
fn twelve_yielding_kernels_lose_nothing() {
    all_to_all(Wait::Yield);
}

/// Kernels come and go while others send to them: every message ends in something, whatever it is.
#[test]
fn the_accounting_holds_while_kernels_come_and_go() {
    let broker: Broker<Fixed<8, 8, 64>> =
        k2k::Builder::new().delivery_timeout(Duration::from_millis(200)).build().unwrap();
    let stop = std::sync::Barrier::new(7);
    let done = std::sync::Mutex::new(false);
    std::thread::scope(|scope| {
        for i in 0..3 {
            let (broker, stop, done) = (&broker, &stop, &done);
            scope.spawn(move || {
                for round in 0..60u64 {
                    let mut endpoint = broker.register_parking(&format!("guest{i}")).unwrap();
                    for _ in 0..20 + round % 7 {
                        let _ = endpoint.receive(Duration::from_millis(round % 5));
                    }
                }
                *done.lock().unwrap() = true;
                stop.wait();
            });
        }
        for i in 0..4 {
            let (broker, stop, done) = (&broker, &stop, &done);
            scope.spawn(move || {
                let mut endpoint = broker.register(&format!("host{i}")).unwrap();
                while !*done.lock().unwrap() {
                    for (id, name) in broker.kernels() {
                        if name.as_str().starts_with("guest") {
                            let _ = endpoint.send(id, &Message::new(0));
                        }
                    }
                    std::thread::yield_now();
                }
                stop.wait();
                eventually("nothing is pending", || endpoint.expire() == 0);
            });
        }
    });
    let stats = broker.stats();
    assert!(stats.received > 0 && stats.not_found > 0, "{stats:?}");
    assert_eq!((stats.unaccounted(), broker.pending()), (0, 0), "{stats:?}");
}
