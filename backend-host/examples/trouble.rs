//! A fabric in which several things go wrong, to look at with `k2k top`: kernels that work, one that is flooded, one that
//! hangs in its handler, one that takes no mail, one whose process is stopped, and one whose process was killed.
//!
//! ```text
//! cargo run --release -p k2k --example trouble        # in one terminal; Ctrl-C ends it
//! cargo run --release -p k2k -- top trouble           # in another
//! ```

use core::error::Error;
use core::time::Duration;
use k2k::{Broker, Builder, Context, Endpoint, Fixed, Kernel, KernelId, Message, StartOptions, memory};
use k2k_command::{complain, say};
use std::process::{Child, Command, ExitCode};
use std::thread;

type Shape = Fixed<16, 64, 192>;
type Shared = Broker<Shape>;

/// The fabric's file, in /dev/shm.
const FILE: &str = "trouble";

/// Tells a process that it is a child, and under which name it registers.
const CHILD: &str = "K2K_TROUBLE_CHILD";

fn main() -> ExitCode {
    if let Some(argument) = std::env::args().nth(1) {
        complain("trouble", format_args!("{argument:?}: it takes no arguments"));
        return ExitCode::from(2);
    }
    let result = match std::env::var(CHILD) {
        Ok(name) => child(&name),
        Err(_) => scene(),
    };
    k2k_command::end("trouble", 1, result)
}

/// Takes messages, each in its time.
struct Worker(Duration);

impl Kernel<192> for Worker {
    fn on_message(&mut self, _: &mut impl Context<192>, _: &Message<192>) {
        if !self.0.is_zero() {
            thread::sleep(self.0);
        }
    }
}

fn child(name: &str) -> Result<ExitCode, Box<dyn Error>> {
    let broker: Shared = Builder::new().open(FILE).build()?;
    let _endpoint = broker.register_parking(name)?;
    loop {
        thread::park();
    }
}

fn start_child(broker: &Shared, name: &str) -> Result<Child, Box<dyn Error>> {
    let child = Command::new(std::env::current_exe()?).env(CHILD, name).spawn()?;
    while broker.find(name).is_none() {
        thread::sleep(Duration::from_millis(5));
    }
    Ok(child)
}

/// Sends on and on, with a pause after each message.
fn send(mut from: Endpoint<Shape>, to: KernelId, pause: Duration) {
    thread::spawn(move || {
        loop {
            let _ = from.send(to, &Message::new(1));
            from.poll();
            thread::sleep(pause);
        }
    });
}

fn scene() -> Result<ExitCode, Box<dyn Error>> {
    // Left by one that was interrupted.
    let _ = memory::remove(FILE);
    let broker: Shared = Builder::new().create(FILE).delivery_timeout(Duration::from_secs(3)).build()?;
    let work = |name: &str, time| broker.start(name, Worker(time), StartOptions::default());
    let (sink, relay) = (work("sink", Duration::ZERO)?, work("relay", Duration::ZERO)?);
    let (slow, hangs) = (work("slow", Duration::from_millis(4))?, work("hangs", Duration::MAX)?);
    for (number, pause) in [200, 400, 900].into_iter().enumerate() {
        let source = broker.register(&format!("source-{number}"))?;
        broker.memory().set_route(source.id(), sink.id(), relay.id())?;
        send(source, sink.id(), Duration::from_micros(pause));
    }
    send(broker.register("eager")?, slow.id(), Duration::from_micros(500));
    let mut one = broker.register("visitor")?;
    one.send(hangs.id(), &Message::new(1))?;
    let deaf = broker.register("deaf")?;
    for to in [hangs.id(), deaf.id()] {
        (0..5).try_for_each(|kind| one.send(to, &Message::new(kind)).map(drop))?;
    }

    let stopped = start_child(&broker, "stopped")?;
    Command::new("kill").args(["-STOP", &stopped.id().to_string()]).status()?;
    let mut killed = start_child(&broker, "killed")?;
    killed.kill()?;
    killed.wait()?;
    say!("look at it with: k2k top {FILE}")?;
    loop {
        thread::park();
    }
}
