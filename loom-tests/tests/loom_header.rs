//! Two attach to the same zeroed memory at the same moment.
#![cfg(k2k_loom)]

mod world;

use k2k_core::fabric::AttachError;
use k2k_core::sync::spin_hint;
use k2k_core::{Config, Fabric};
use k2k_loom_tests::model;
use loom::thread;
use world::{CONFIG, shared};

/// One of them sets the fabric up, both see what that one wrote, and never less than all of it.
#[test]
fn two_attach() {
    model("header.two_attach", 9, || {
        shared(Fabric::<1, 1, 0>::new(), |fabric| {
            let attach = move |delivery_timeout_ns| {
                let config = Config { delivery_timeout_ns, hop_limit: delivery_timeout_ns as u8, ..CONFIG };
                loop {
                    match fabric.init(&config) {
                        Ok(()) => break fabric.config(),
                        // The other one is at it, longer than this model waits.
                        Err(AttachError::Unfinished) => spin_hint(),
                        Err(e) => panic!("{e}"),
                    }
                }
            };
            let other = thread::spawn(move || attach(7));
            let (one, two) = (attach(8), other.join().unwrap());
            assert_eq!(one, two, "both see one configuration");
            assert_eq!(u64::from(one.hop_limit), one.delivery_timeout_ns, "of one of them");
            assert_eq!(one, fabric.config(), "and it stays");
        });
    });
}
