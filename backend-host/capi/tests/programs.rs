//! Programs in C and C++, compiled with whichever compiler is there, that talk with Rust and with one another.

mod common;
use common::{GUARD, Program, Shm, compile};
use core::time::Duration;
use k2k::service::{Refused, Request};
use k2k::{Broker, Command, Fixed, Message, ReceiveError, Service, StartOptions};

/// What `ping.c` and `pong.c` create, and the example `ping_pong` as well.
type Table = Broker<Fixed<2, 64, 64>>;

const BALL: u32 = 1;
const GOODBYE: u32 = 2;

#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct Double(u64);
impl Request for Double {
    const KIND: u32 = 5;
    type Answer = u64;
}
const ODD: Refused = Refused(3);

fn doubler() -> Service<u64> {
    Service::new(0u64).on(|answered: &mut u64, Double(number)| {
        *answered += 1;
        if number % 2 == 1 { Err(ODD) } else { Ok(2 * number) }
    })
}

#[test]
fn c_plays_ping_pong_with_rust() {
    for linked_statically in [false, true] {
        let Some(ping) = compile("examples/ping.c", linked_statically) else { return };
        let shm = Shm::new("ping");
        let table = Table::builder().create(&shm.0).build().unwrap();
        let mut pong = table.register_parking("pong").unwrap();
        let ping = Program::start(&ping, &[&shm.0, "500"]);
        let mut balls = 0u64;
        loop {
            let message = pong.receive(GUARD).unwrap();
            if message.header.kind == GOODBYE {
                break;
            }
            assert_eq!((message.header.kind, message.value::<u64>()), (BALL, Ok(balls)));
            pong.reply(&message, &message).unwrap();
            balls += 1;
        }
        drop(pong);
        assert!(ping.succeed().starts_with("500 round trips"));
        assert_eq!((balls, table.pending()), (500, 0));
    }
}

#[test]
fn rust_plays_ping_pong_with_c() {
    let Some(pong) = compile("examples/pong.c", false) else { return };
    let shm = Shm::new("pong");
    let table = Table::builder().create(&shm.0).build().unwrap();
    let pong = Program::start(&pong, &[&shm.0]);
    let mut me = table.client("ping").unwrap();
    let to = me.endpoint_mut().wait_for_kernel("pong", GUARD).unwrap();
    for number in 0..500u64 {
        let ball = me.request(to, &Message::from_value(BALL, &number), GUARD).unwrap();
        assert_eq!((ball.value::<u64>(), ball.header.source()), (Ok(number), to));
    }
    me.endpoint_mut().send(to, &Message::new(GOODBYE)).unwrap();
    assert_eq!(pong.succeed(), "500 balls\n");
    assert!(!table.is_registered(to));
}

#[test]
fn c_plays_ping_pong_with_c() {
    let (Some(ping), Some(pong)) = (compile("examples/ping.c", false), compile("examples/pong.c", true)) else {
        return;
    };
    let shm = Shm::new("both");
    let pong = Program::start(&pong, &[&shm.0]);
    let ping = Program::start(&ping, &[&shm.0, "500"]);
    assert!(ping.succeed().starts_with("500 round trips"));
    assert_eq!(pong.succeed(), "500 balls\n");
}

#[test]
fn cpp_asks_a_service_of_rust() {
    let Some(typed) = compile("examples/typed.cpp", false) else { return };
    let shm = Shm::new("ask");
    let broker: Broker = Broker::builder().create(&shm.0).build().unwrap();
    let service = broker.start("double", doubler(), StartOptions::default()).unwrap();
    let said = Program::start(&typed, &["ask", &shm.0]).succeed();
    assert_eq!(said, "double(7): the service refused with 3\n100 answers are right\n");
    assert_eq!(service.stop_and_join(GUARD).unwrap().into_state(), 101);
}

#[test]
fn rust_and_cpp_ask_a_service_of_cpp() {
    let Some(typed) = compile("examples/typed.cpp", true) else { return };
    let shm = Shm::new("serve");
    let broker: Broker = Broker::builder().create(&shm.0).build().unwrap();
    let service = Program::start(&typed, &["serve", &shm.0]);
    let mut client = broker.client("me").unwrap();
    let to = client.endpoint_mut().wait_for_kernel("double", GUARD).unwrap();
    assert_eq!(client.ask(to, &Double(21 * 2), GUARD), Ok(84));
    assert_eq!(client.ask(to, &Double(7), GUARD), Err(k2k::RequestError::Refused(ODD)));
    Program::start(&typed, &["ask", &shm.0]).succeed();
    broker.command(to, Command::Stop).unwrap();
    assert_eq!(service.succeed(), "101 answers\n");
}

#[test]
fn a_program_that_is_killed_is_reaped_and_its_successor_serves_on() {
    let Some(pong) = compile("examples/pong.c", false) else { return };
    let shm = Shm::new("killed");
    let table = Table::builder().create(&shm.0).build().unwrap();
    let mut me = table.client("ping").unwrap();
    for _ in 0..3 {
        let program = Program::start(&pong, &[&shm.0]);
        let to = me.endpoint_mut().wait_for_kernel("pong", GUARD).unwrap();
        assert!(me.request(to, &Message::new(BALL), GUARD).is_ok());
        // Killed when it is dropped.
        drop(program);
        let report = table.reap();
        assert_eq!(report.reaped.len(), 1, "{report}");
        assert!(me.request(to, &Message::new(BALL), GUARD).is_err());
    }
}

#[test]
fn a_forked_process_has_no_use_of_its_parents_handles() {
    let Some(fork) = compile("tests/fork.c", false) else { return };
    let shm = Shm::new("fork");
    assert_eq!(Program::start(&fork, &[&shm.0]).succeed(), "ok\n");
}

#[test]
fn cpp_has_owners_results_types_and_exceptions() {
    let Some(program) = compile("tests/cpp.cpp", false) else { return };
    assert_eq!(Program::start(&program, &[]).succeed(), "ok\n");
}

/// The programs of the README, and a program that includes both headers in the other order.
#[test]
fn the_programs_of_the_readme_compile_without_warnings() {
    let readme = std::fs::read_to_string(common::root().join("README.md")).unwrap();
    let block = |language: &str| {
        let begin = format!("\n```{language}\n");
        let (_, rest) = readme.split_once(&begin).expect("a program in this language");
        rest.split_once("\n```\n").expect("its end").0.to_owned() + "\n"
    };
    let both = "#include <k2k.h>\n#include <k2k.hpp>\nint main() { return k2k::forever.count() == 0; }\n".to_owned();
    for (name, text) in [("readme.c", block("c")), ("readme.cpp", block("cpp")), ("both.cpp", both)] {
        let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::write(&path, text).unwrap();
        // An absolute path stays as it is.
        let _ = compile(path.to_str().unwrap(), false);
    }
}

#[test]
fn a_fabric_of_another_shape_is_used_as_it_is() {
    let Some(pong) = compile("examples/pong.c", false) else { return };
    let shm = Shm::new("shape");
    let broker: Broker<Fixed<7, 16, 4096>> = Broker::builder().create(&shm.0).build().unwrap();
    let pong = Program::start(&pong, &[&shm.0]);
    let mut me = broker.register_parking("me").unwrap();
    let to = me.wait_for_kernel("pong", GUARD).unwrap();
    me.send(to, &Message::from_bytes(BALL, &[7; 4096]).unwrap()).unwrap();
    assert_eq!(me.receive(GUARD).unwrap().payload(), [7; 4096]);
    me.send(to, &Message::new(GOODBYE)).unwrap();
    pong.succeed();
    assert_eq!(me.receive(Duration::ZERO), Err(ReceiveError::Timeout));
}
