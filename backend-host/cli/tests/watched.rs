//! What being watched costs.

mod common;
use common::{Process, Shm, patient};
use core::time::Duration;
use k2k::k2k_core::sync::{AtomicU32, Ordering::Relaxed};
use k2k::{Broker, Fixed, Message};

/// Prints how many messages a second go from one thread to another, by turns alone and with `k2k top` beside them.
#[test]
#[ignore = "measures: cargo test --release -p k2k-cli --test watched -- --ignored --nocapture the_price_of_being_watched"]
fn the_price_of_being_watched() {
    let shm = Shm::new("look-price");
    let broker: Broker<Fixed<16, 256, 192>> = patient().create(&shm.0).build().unwrap();
    let (mut from, mut to) = (broker.register("from").unwrap(), broker.register("to").unwrap());
    let (receiver, stop) = (to.id(), AtomicU32::new(0));
    let mut rates = [const { Vec::new() }; 2];
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while stop.load(Relaxed) == 0 {
                if from.send(receiver, &Message::new(1)).is_err() {
                    core::hint::spin_loop();
                }
            }
        });
        scope.spawn(|| {
            while stop.load(Relaxed) == 0 {
                while to.try_receive().is_some() {}
            }
        });
        for round in 0..24 {
            let mut top = None;
            if round % 2 == 1 {
                let child = std::process::Command::new(env!("CARGO_BIN_EXE_k2k"))
                    .args(["top", &shm.0, "--json", "--interval", "0.25"])
                    .stdout(std::process::Stdio::null())
                    .spawn()
                    .unwrap();
                top = Some(Process(child));
                std::thread::sleep(Duration::from_millis(100));
            }
            let (before, began) = (broker.stats().received, std::time::Instant::now());
            std::thread::sleep(Duration::from_secs(1));
            rates[round % 2].push((broker.stats().received - before) as f64 / began.elapsed().as_secs_f64());
            drop(top);
        }
        stop.store(1, Relaxed);
    });
    for (what, rates) in ["alone", "with top four times a second"].iter().zip(&mut rates) {
        rates.sort_unstable_by(f64::total_cmp);
        let of = |part: usize| rates[part * (rates.len() - 1) / 4] / 1e6;
        println!("{what}: {:.2} M/s in the middle, {:.2} to {:.2} for half of the rounds", of(2), of(1), of(3));
    }
}
