//! The auto traits of public types: which of them may move to, or be shared with, another thread.

use core::panic::{RefUnwindSafe, UnwindSafe};
use k2k::{
    Broker, Builder, Client, Endpoint, EndpointError, Fixed, HangReport, Host, KernelFailure, KernelHandle, Memory,
    MemoryError, PresenceError, Published, ReceiveError, RequestError, SendError, Service, StartError, StartOptions,
    StopError, Wait,
};

const fn moves<T: Send + Unpin>() {}
const fn shared<T: Send + Sync + Unpin>() {}
const fn error<T: core::error::Error + Send + Sync + 'static>() {}
const fn unwinds<T: UnwindSafe + RefUnwindSafe>() {}

/// A handler's state that may move, and nothing else.
struct Moves(#[expect(dead_code)] core::cell::Cell<u32>);

const _: () = {
    shared::<Broker>();
    shared::<Builder>();
    shared::<Memory<Fixed<4, 8, 64>>>();
    shared::<KernelHandle<Moves>>();
    shared::<HangReport<Moves, Fixed<4, 8, 64>>>();
    shared::<StartOptions>();
    shared::<Wait>();
    shared::<Published>();
    moves::<Client>();
    moves::<Endpoint>();
    moves::<Host>();
    moves::<Service<Moves>>();
    error::<EndpointError>();
    error::<KernelFailure>();
    error::<MemoryError>();
    error::<PresenceError>();
    error::<ReceiveError>();
    error::<RequestError>();
    error::<SendError>();
    error::<StartError>();
    error::<StopError<Moves, Fixed<4, 8, 64>>>();
    unwinds::<Builder>();
    unwinds::<KernelFailure>();
    unwinds::<ReceiveError>();
    unwinds::<SendError>();
    unwinds::<StartOptions>();
};

const fn future_moves<F: Future + Send + Unpin>(_: &F) {}

#[test]
fn the_future_of_a_receive_moves_with_its_task() {
    let broker: Broker<Fixed<4, 8, 64>> = Builder::new().build().unwrap();
    let mut endpoint = broker.register_parking("a").unwrap();
    future_moves(&endpoint.receive_async());
}
