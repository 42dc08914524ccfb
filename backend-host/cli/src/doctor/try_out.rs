//! Tries the foundations of the host part: messages between threads that park, and a fabric in shared memory.

use core::time::Duration;
use k2k::{Broker, Builder, Context, Fixed, Kernel, Message, StartOptions};
use std::time::Instant;

/// Enough to show that messages work, and few enough to take no time.
const ROUND_TRIPS: u64 = 1000;

const PATIENCE: Duration = Duration::from_secs(5);

/// Result of the round trips.
pub(super) struct Tried {
    pub(super) count: u64,
    pub(super) ns_each: f64,
}

/// Sends every message back.
struct Echo;

impl Kernel<64> for Echo {
    fn on_message(&mut self, context: &mut impl Context<64>, message: &Message<64>) {
        // If the answer cannot be sent, the waiting thread reports a missing answer.
        let _ = context.reply(message, message);
    }
}

/// Lets a thread answer the messages of this thread.
pub(super) fn round_trips() -> Result<Tried, String> {
    let broker: Broker<Fixed<2, 64, 64>> = Builder::new().build().map_err(|e| e.to_string())?;
    let echo = broker.start("echo", Echo, StartOptions::default()).map_err(|e| e.to_string())?;
    let mut me = broker.register_parking("doctor").map_err(|e| e.to_string())?;
    let began = Instant::now();
    for number in 0..ROUND_TRIPS {
        me.send(echo.id(), &Message::from_value(0, &number)).map_err(|e| e.to_string())?;
        let answer = me.receive(PATIENCE).map_err(|e| format!("message {number} was not answered: {e}"))?;
        if answer.value() != Ok(number) {
            return Err(format!("the answer to message {number} is not what was sent"));
        }
    }
    let ns_each = began.elapsed().as_nanos() as f64 / ROUND_TRIPS as f64;
    echo.stop_and_join(PATIENCE).map_err(|e| e.to_string())?;
    Ok(Tried { count: ROUND_TRIPS, ns_each })
}

/// A fabric created under a name, opened again, and removed.
pub(super) fn shared_fabric() -> Result<(), String> {
    let name = format!("k2k-doctor-{}", std::process::id());
    let made: Broker<Fixed<2, 64, 64>> = Builder::new().create(&name).build().map_err(|e| e.to_string())?;
    let opened = Builder::<Fixed<2, 64, 64>>::new().open(&name).build();
    let removed = k2k::memory::remove(&name);
    let mut kernel = made.register("doctor").map_err(|e| e.to_string())?;
    let opened = opened.map_err(|e| e.to_string())?;
    removed.map_err(|e| e.to_string())?;
    let found = opened.find("doctor").ok_or("a kernel registered in one mapping is not seen in another")?;
    kernel.send(found, &Message::new(0)).map_err(|e| e.to_string())?;
    kernel.try_receive().map(|_| ()).ok_or_else(|| "a message did not arrive".to_owned())
}
