//! Channels: bounded queues that can also put a receiver to sleep.

use crate::element::Element;
use crate::queue::{Patience, Pop, Push, Queue, Sink};
use std::sync::mpsc as std_mpsc;
use thingbuf::mpsc::blocking as thingbuf;
use tokio::sync::mpsc as tokio_mpsc;

pub struct Std;
pub struct Tokio;
pub struct Kanal;
pub struct Flume;
pub struct Thingbuf;
pub struct CrossfireSpsc;
pub struct CrossfireMpsc;

macro_rules! channel {
    ($($name:ident: $tx:ty, $rx:ty, $open:expr;
        $to:ident, $out:ident => try_send $try_send:expr, try_recv $try_recv:expr, send $send:expr, recv $recv:expr;)*) => {$(
        impl<E: Element> Queue<E> for $name {
            type Tx = $tx;
            type Rx = $rx;
            const PARKS: bool = true;

            fn open(capacity: usize, producers: usize) -> (Vec<Self::Tx>, Self::Rx) {
                let (tx, rx) = $open(capacity);
                (copies(tx, producers), rx)
            }
        }

        impl<E: Element> Push<E> for $tx {
            #[inline(always)]
            fn push(&mut self, message: &E) -> bool {
                let $to = self;
                $try_send(*message)
            }

            #[inline(always)]
            fn push_waiting(&mut self, message: &E, _: &mut Patience) {
                let $to = self;
                assert!($send(*message), "the receiver lives");
            }
        }

        impl<E: Element> Pop<E> for $rx {
            #[inline(always)]
            fn pop<S: Sink<E>>(&mut self, sink: &mut S) -> bool {
                let $out = self;
                $try_recv.map(|message| sink.take(message)).is_some()
            }

            #[inline(always)]
            fn pop_waiting<S: Sink<E>>(&mut self, sink: &mut S, _: &mut Patience) {
                let $out = self;
                sink.take($recv.expect("a sender lives"));
            }
        }
    )*};
}

/// As many senders as there are producers; the last one is the original.
fn copies<T: MaybeClone>(tx: T, producers: usize) -> Vec<T> {
    let mut all: Vec<T> = (1..producers).map(|_| tx.another()).collect();
    all.push(tx);
    all
}

trait MaybeClone {
    fn another(&self) -> Self;
}

macro_rules! clone {
    ($($tx:ty),*) => {$(
        impl<E: Element> MaybeClone for $tx {
            fn another(&self) -> Self {
                self.clone()
            }
        }
    )*};
}

clone!(
    std_mpsc::SyncSender<E>,
    tokio_mpsc::Sender<E>,
    kanal::Sender<E>,
    flume::Sender<E>,
    thingbuf::Sender<E>,
    crossfire::MTx<crossfire::mpsc::Array<E>>
);

impl<E: Element> MaybeClone for crossfire::Tx<crossfire::spsc::Array<E>> {
    fn another(&self) -> Self {
        unreachable!("one producer")
    }
}

channel! {
    Std: std_mpsc::SyncSender<E>, std_mpsc::Receiver<E>, std_mpsc::sync_channel;
        tx, rx => try_send |m| tx.try_send(m).is_ok(), try_recv rx.try_recv().ok(), send |m| tx.send(m).is_ok(), recv rx.recv();
    Tokio: tokio_mpsc::Sender<E>, tokio_mpsc::Receiver<E>, tokio_mpsc::channel;
        tx, rx => try_send |m| tx.try_send(m).is_ok(), try_recv rx.try_recv().ok(),
        send |m| tx.blocking_send(m).is_ok(), recv rx.blocking_recv();
    Kanal: kanal::Sender<E>, kanal::Receiver<E>, kanal::bounded;
        tx, rx => try_send |m| tx.try_send(m) == Ok(true), try_recv rx.try_recv().ok().flatten(),
        send |m| tx.send(m).is_ok(), recv rx.recv();
    Flume: flume::Sender<E>, flume::Receiver<E>, flume::bounded;
        tx, rx => try_send |m| tx.try_send(m).is_ok(), try_recv rx.try_recv().ok(), send |m| tx.send(m).is_ok(), recv rx.recv();
    Thingbuf: thingbuf::Sender<E>, thingbuf::Receiver<E>, thingbuf::channel;
        tx, rx => try_send |m| tx.try_send(m).is_ok(), try_recv rx.try_recv().ok(), send |m| tx.send(m).is_ok(), recv rx.recv();
    CrossfireSpsc: crossfire::Tx<crossfire::spsc::Array<E>>, crossfire::Rx<crossfire::spsc::Array<E>>,
        crossfire::spsc::bounded_blocking;
        tx, rx => try_send |m| tx.try_send(m).is_ok(), try_recv rx.try_recv().ok(), send |m| tx.send(m).is_ok(), recv rx.recv();
    CrossfireMpsc: crossfire::MTx<crossfire::mpsc::Array<E>>, crossfire::Rx<crossfire::mpsc::Array<E>>,
        crossfire::mpsc::bounded_blocking;
        tx, rx => try_send |m| tx.try_send(m).is_ok(), try_recv rx.try_recv().ok(), send |m| tx.send(m).is_ok(), recv rx.recv();
}
