//! Asks a kernel on a GPU, by its name, from a thread of the host. Without a GPU, the CPU runs the same PTX.
//!
//! `cargo run -p k2k-double -- [PTX]`. The device's half is `lib.rs`.

use core::error::Error;
use core::time::Duration;
use k2k::k2k_core::Config;
use k2k::{Broker, Fixed, KernelId, Memory, Message};
use k2k_command::{note, say};
use k2k_cuda::k2k_core::gateway::GatewayConfig;
use k2k_cuda::k2k_core::sync::Gpu;
use k2k_cuda::{Device, EmulatedOptions, Grid, Ptx, Session};
use std::process::ExitCode;
use std::thread::sleep;
use std::time::Instant;

const SOON: Duration = Duration::from_secs(30);

const USAGE: &str = "usage: double [PTX]\nPTX is a file; without one, it is the committed double.ptx.";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let file = match &arguments[..] {
        [] => None,
        [help] if ["-h", "--help"].contains(&help.as_str()) => {
            return k2k_command::end("double", 1, say!("{USAGE}").map(|()| ExitCode::SUCCESS));
        }
        [file] if !file.starts_with('-') => Some(file.as_str()),
        _ => {
            note(USAGE);
            return ExitCode::from(2);
        }
    };
    k2k_command::end("double", 1, run(file).map(|()| ExitCode::SUCCESS))
}

fn run(file: Option<&str>) -> Result<(), Box<dyn Error>> {
    let ptx = match file {
        Some(file) => {
            let text = std::fs::read_to_string(file).map_err(|e| format!("{file}: {e}"))?;
            Ptx::new(text).map_err(|e| format!("{file}: {e}"))?
        }
        None => Ptx::new(include_str!("../double.ptx"))?,
    };
    let device = match Device::first() {
        Ok(device) => device,
        Err(why) => {
            say!("{why}\nSo the CPU runs the same PTX, much slower.")?;
            Device::emulated(EmulatedOptions::default())?
        }
    };
    say!("{}", device.probe())?;

    // A fabric for the host's kernels, one for the device's, and a bridge between them.
    let memory = Memory::<Fixed<16, 64, 192>>::heap(&Config::default())?;
    let mut session = Session::<Fixed<16, 64, 192, Gpu>>::new(&device, &Config::default())?;
    session.load(&ptx)?;
    // SAFETY: `double` is exported for this shape, and takes no parameters.
    unsafe { session.add(Grid::new("double"))? };
    session.bridge("gateway", &memory, GatewayConfig::default())?;
    let mut running = session.start()?;

    // The host's side: the device's kernel has a name here, like any other.
    let broker = Broker::new(memory);
    let mut me = broker.register_parking("me")?;
    let double = find(&broker, "double")?;
    for number in [1u64, 21, 4711] {
        let asked = me.send(double, &Message::from_value(1, &number))?;
        let answer = me.receive(SOON)?;
        say!("{number} doubled is {}", answer.value::<u64>()?)?;
        assert_eq!((answer.value::<u64>()?, answer.header.correlation_id), (2 * number, asked.sequence));
    }
    for block in running.stop(SOON)? {
        say!("{block}")?;
    }
    Ok(())
}

/// The kernel of that name, as soon as the gateway has announced it.
fn find(broker: &Broker<Fixed<16, 64, 192>>, name: &str) -> Result<KernelId, String> {
    let began = Instant::now();
    while began.elapsed() < SOON {
        match broker.find(name) {
            Some(id) => return Ok(id),
            None => sleep(Duration::from_millis(1)),
        }
    }
    Err(format!("no kernel {name:?} after {SOON:?}"))
}
