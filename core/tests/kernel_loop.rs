//! The run loop and its supervisor.

mod common;

use common::{Manual, fabric, register_all};
use core::cell::RefCell;
use k2k_core::fabric::Event;
use k2k_core::{
    CLOCK_MARGIN_NS, Command, Config, Context, DeliveryStatus, Endpoint, Fabric, Idle, IdleHint, Kernel, Message, Pass,
    Phase, Registration, RunLoop, run,
};

type Small = Fabric<4, 8, 64>;

/// Writes down everything that happens to it, in order.
#[derive(Default)]
struct Diary {
    lines: Vec<String>,
    stop_at: u32,
    idle_work: u32,
}

impl Kernel<64> for Diary {
    fn on_start(&mut self, _: &mut impl Context<64>) {
        self.lines.push("start".into());
    }

    fn on_message(&mut self, context: &mut impl Context<64>, message: &Message<64>) {
        self.lines.push(format!("{}", message.header.kind));
        if message.header.kind == self.stop_at {
            context.stop();
        }
    }

    fn on_idle(&mut self, _: &mut impl Context<64>) -> Idle {
        self.lines.push("idle".into());
        self.idle_work = self.idle_work.saturating_sub(1);
        if self.idle_work > 0 { Idle::Again } else { Idle::Done }
    }

    fn on_stop(&mut self, _: &mut impl Context<64>) {
        self.lines.push("stop".into());
    }
}

#[test]
fn messages_are_handled_in_order_between_start_and_stop() {
    let (platform, fabric) = (Manual::at(1), fabric::<4, 8, 64>(&Config::default()));
    let [mut a, mut b]: [Endpoint<'_, _, common::Chosen<4, 8, 64>>; 2] =
        register_all(&fabric, &platform, 2).try_into().unwrap();
    for kind in 1..=4 {
        a.send(b.id(), &Message::new(kind)).unwrap();
    }
    assert_eq!(fabric.phase(b.id()), Some(Phase::Idle));
    let mut diary = Diary { stop_at: 3, ..Diary::default() };
    run(&mut b, &mut diary, |_, _| unreachable!("there is always mail"));
    assert_eq!(diary.lines, ["start", "1", "2", "3", "stop"], "`stop` ends it after the message in hand");
    assert_eq!(fabric.phase(b.id()), Some(Phase::Stopped));
    assert_eq!(b.try_receive().unwrap().header.kind, 4, "the rest stays in the inbox");
}

#[test]
fn an_endpoint_whose_loop_was_stopped_can_run_again() {
    let (platform, fabric) = (Manual::at(1), fabric::<4, 8, 64>(&Config::default()));
    let [mut a, mut b]: [Endpoint<'_, _, common::Chosen<4, 8, 64>>; 2] =
        register_all(&fabric, &platform, 2).try_into().unwrap();
    for round in 0..2 {
        a.send(b.id(), &Message::new(7)).unwrap();
        let mut diary = Diary { stop_at: 7, ..Diary::default() };
        run(&mut b, &mut diary, |_, _| unreachable!("there is always mail"));
        assert_eq!(diary.lines, ["start", "7", "stop"], "round {round}");
    }
}

#[test]
fn idling_is_told_how_long_and_idle_work_starts_the_count_anew() {
    let (platform, fabric) = (Manual::at(1), fabric::<4, 8, 64>(&Config::default()));
    let mut b = register_all(&fabric, &platform, 1).remove(0);
    let mut diary = Diary { idle_work: 3, ..Diary::default() };
    let mut passes = Vec::new();
    run(&mut b, &mut diary, |endpoint, IdleHint { empty_passes, .. }| {
        assert_eq!(fabric.phase(endpoint.id()), Some(Phase::Running));
        passes.push(empty_passes);
        if empty_passes == 3 {
            endpoint.stop();
        }
    });
    assert_eq!(passes, [1, 2, 3]);
    assert_eq!(diary.lines.iter().filter(|line| *line == "idle").count(), 5, "2 with work, 3 without");
}

/// Waits for something that rings no doorbell, `soon` times.
struct Impatient {
    soon: u32,
}

impl Kernel<64> for Impatient {
    fn on_message(&mut self, _: &mut impl Context<64>, _: &Message<64>) {}

    fn on_idle(&mut self, _: &mut impl Context<64>) -> Idle {
        self.soon = self.soon.saturating_sub(1);
        if self.soon > 0 { Idle::Soon } else { Idle::Done }
    }
}

#[test]
fn a_loop_called_pass_by_pass_says_what_each_came_to() {
    let (platform, fabric) = (Manual::at(1), fabric::<4, 8, 64>(&Config::default()));
    let [mut a, mut b]: [Endpoint<'_, _, common::Chosen<4, 8, 64>>; 2] =
        register_all(&fabric, &platform, 2).try_into().unwrap();
    let mut kernel = Impatient { soon: 3 };
    let mut passes = RunLoop::new();
    for round in 0..2 {
        passes.start(&mut b, &mut kernel);
        assert_eq!(fabric.phase(b.id()), Some(Phase::Running), "round {round}");
        a.send(b.id(), &Message::new(1)).unwrap();
        assert_eq!(passes.pass(&mut b, &mut kernel), Pass::Worked);
        for empty_passes in 1..=3 {
            let soon = round == 0 && empty_passes < 3;
            assert_eq!(
                passes.pass(&mut b, &mut kernel),
                Pass::Idle(IdleHint { empty_passes, soon, command: Command::Run })
            );
        }
        b.stop();
        assert_eq!(passes.pass(&mut b, &mut kernel), Pass::Stopped);
        passes.finish(&mut b, &mut kernel);
        assert_eq!(fabric.phase(b.id()), Some(Phase::Stopped));
    }
}

#[test]
fn a_paused_kernel_forwards_and_handles_nothing_until_it_is_resumed() {
    let (platform, fabric) = (Manual::at(1), fabric::<4, 8, 64>(&Config::default()));
    let [mut a, mut b, c]: [Endpoint<'_, _, common::Chosen<4, 8, 64>>; 3] =
        register_all(&fabric, &platform, 3).try_into().unwrap();
    fabric.set_route(a.id(), c.id(), b.id()).unwrap();
    let transit = a.send(c.id(), &Message::new(7)).unwrap();
    a.send(b.id(), &Message::new(1)).unwrap();
    fabric.command(b.id(), Command::Pause, &platform).unwrap();
    let (b_id, a, c) = (b.id(), RefCell::new(a), RefCell::new(c));
    let mut diary = Diary { stop_at: 2, ..Diary::default() };
    let mut idles = 0;
    run(&mut b, &mut diary, |_, IdleHint { empty_passes, .. }| {
        idles += 1;
        match idles {
            1 => {
                assert_eq!((fabric.phase(b_id), empty_passes), (Some(Phase::Paused), 0), "it has forwarded something");
                assert_eq!(c.borrow_mut().try_receive().unwrap().header.id(), transit);
                a.borrow_mut().send(b_id, &Message::new(2)).unwrap();
            }
            2..5 => assert_eq!(empty_passes, idles - 1),
            5 => fabric.command(b_id, Command::Run, &platform).unwrap(),
            _ => unreachable!("both messages wait"),
        }
    });
    assert_eq!(diary.lines, ["start", "1", "2", "stop"]);
}

#[test]
fn draining_handles_everything_that_waits_and_then_stops() {
    let (platform, fabric) = (Manual::at(1), fabric::<4, 8, 64>(&Config::default()));
    let [mut a, mut b, mut c]: [Endpoint<'_, _, common::Chosen<4, 8, 64>>; 3] =
        register_all(&fabric, &platform, 3).try_into().unwrap();
    fabric.set_route(a.id(), c.id(), b.id()).unwrap();
    // What b has to forward does not fit into c's inbox yet.
    for _ in 0..8 {
        b.send(c.id(), &Message::new(0)).unwrap();
    }
    let transit = a.send(c.id(), &Message::new(7)).unwrap();
    for kind in 1..=3 {
        a.send(b.id(), &Message::new(kind)).unwrap();
    }
    fabric.command(b.id(), Command::Drain, &platform).unwrap();
    let id = b.id();
    let mut diary = Diary::default();
    let mut idles = 0;
    run(&mut b, &mut diary, |_, _| {
        assert_eq!(fabric.phase(id), Some(Phase::Draining));
        idles += 1;
        if idles == 3 {
            while c.try_receive().is_some() {}
        }
    });
    assert_eq!(diary.lines.iter().filter(|line| *line != "idle").collect::<Vec<_>>(), ["start", "1", "2", "3", "stop"]);
    assert_eq!(c.try_receive().unwrap().header.id(), transit);
    assert_eq!(fabric.pending(), 0);
    assert_eq!(fabric.phase(id), Some(Phase::Stopped));
}

#[test]
fn draining_ends_even_if_the_next_hop_never_has_room() {
    let (platform, fabric) =
        (Manual::at(1), fabric::<4, 8, 64>(&Config { delivery_timeout_ns: 100, ..Config::default() }));
    let [mut a, mut b, c]: [Endpoint<'_, _, common::Chosen<4, 8, 64>>; 3] =
        register_all(&fabric, &platform, 3).try_into().unwrap();
    fabric.set_route(a.id(), c.id(), b.id()).unwrap();
    for _ in 0..8 {
        b.send(c.id(), &Message::new(0)).unwrap();
    }
    let transit = a.send(c.id(), &Message::new(7)).unwrap();
    fabric.command(b.id(), Command::Drain, &platform).unwrap();
    run(&mut b, &mut Diary::default(), |_, _| platform.advance(10));
    assert_eq!(a.receipt(transit).unwrap().status, DeliveryStatus::Timeout);
}

#[test]
fn a_stop_command_leaves_the_mail_in_the_inbox() {
    let (platform, fabric) = (Manual::at(1), fabric::<4, 8, 64>(&Config::default()));
    let [mut a, mut b]: [Endpoint<'_, _, common::Chosen<4, 8, 64>>; 2] =
        register_all(&fabric, &platform, 2).try_into().unwrap();
    a.send(b.id(), &Message::new(1)).unwrap();
    fabric.command(b.id(), Command::Stop, &platform).unwrap();
    let mut diary = Diary::default();
    run(&mut b, &mut diary, |_, _| unreachable!());
    assert_eq!(diary.lines, ["start", "stop"]);
    assert_eq!((b.pending_count(), fabric.phase(b.id())), (1, Some(Phase::Stopped)));
}

#[test]
fn a_command_reaches_only_the_kernel_that_it_was_meant_for() {
    let (platform, fabric) = (Manual::at(1), fabric::<4, 8, 64>(&Config::default()));
    let first = register_all(&fabric, &platform, 1).remove(0);
    let old = first.id();
    fabric.command(old, Command::Stop, &platform).unwrap();
    assert_eq!(first.command(), Command::Stop);
    first.unregister();
    let second = common::handle(&fabric).register(&Registration::new("second").unwrap().at(0), &platform).unwrap();
    assert_eq!(second.command(), Command::Run, "the index's next owner starts anew");
    assert!(fabric.command(old, Command::Stop, &platform).is_err());
    assert_eq!(second.command(), Command::Run);
}

#[test]
fn the_heartbeat_moves_while_the_loop_does_and_goes_on_with_a_successor() {
    let (platform, fabric) = (Manual::at(1), fabric::<4, 8, 64>(&Config::default()));
    let mut b = register_all(&fabric, &platform, 1).remove(0);
    let id = b.id();
    assert_eq!(fabric.heartbeat(id), Some(0));
    let mut beats = Vec::new();
    run(&mut b, &mut Diary::default(), |endpoint, IdleHint { empty_passes, .. }| {
        beats.push(fabric.heartbeat(id).unwrap());
        if empty_passes == 4 {
            endpoint.stop();
        }
    });
    assert_eq!(beats, [1, 2, 3, 4]);
    core::mem::forget(b);
    // SAFETY: it was forgotten.
    let mut successor = unsafe { common::handle(&fabric).take_over(id, &platform) }.unwrap();
    successor.heartbeat();
    assert_eq!(fabric.heartbeat(id), Some(5));
}

/// One message that is not fetched, and as many as a sender has receipts after it: a pass looks at a few of them.
#[test]
fn a_message_that_is_not_fetched_does_not_make_passes_longer() {
    const CAPACITY: usize = 4 * 64;
    let (platform, fabric) = (Manual::at(1), fabric::<4, 64, 64>(&Config::default()));
    let [mut a, mut b, c]: [Endpoint<'_, _, common::Chosen<4, 64, 64>>; 3] =
        register_all(&fabric, &platform, 3).try_into().unwrap();
    a.send(c.id(), &Message::new(1)).unwrap();
    for _ in 0..CAPACITY - 64 {
        a.send(b.id(), &Message::new(1)).unwrap();
        assert!(b.try_receive().is_some());
    }
    while a.send(b.id(), &Message::new(1)).is_ok() {}
    for command in [Command::Run, Command::Pause] {
        fabric.command(a.id(), command, &&platform).unwrap();
        let mut run = RunLoop::new();
        run.start(&mut a, &mut Diary::default());
        // To the end of a sweep, and into the rest that follows.
        for _ in 0..CAPACITY {
            let _ = run.pass(&mut a, &mut Diary::default());
        }
        assert_eq!(a.stats().timeout, 0);
    }
    platform.advance(Config::default().delivery_timeout_ns + CLOCK_MARGIN_NS + 1);
    let mut run = RunLoop::new();
    run.start(&mut a, &mut Diary::default());
    let mut passes = 0;
    while a.stats().timeout < 63 {
        let before = a.stats().timeout;
        let _ = run.pass(&mut a, &mut Diary::default());
        assert!(a.stats().timeout - before <= 8);
        passes += 1;
        assert!(passes <= 1024 + 2 * CAPACITY / 8);
    }
}

#[test]
fn an_idle_loop_times_out_what_is_overdue() {
    let (platform, fabric) =
        (Manual::at(1), fabric::<4, 8, 64>(&Config { delivery_timeout_ns: 10, ..Config::default() }));
    let [mut a, b]: [Endpoint<'_, _, common::Chosen<4, 8, 64>>; 2] =
        register_all(&fabric, &platform, 2).try_into().unwrap();
    let id = a.send(b.id(), &Message::new(1)).unwrap();
    platform.advance(11 + CLOCK_MARGIN_NS);
    run(&mut a, &mut Diary::default(), |endpoint, _| endpoint.stop());
    assert_eq!(fabric.peek_receipt(id).unwrap().status, DeliveryStatus::Timeout);
}

#[test]
fn a_parking_kernel_is_woken_once_per_sleep_by_mail_and_by_commands() {
    let (platform, fabric) = (Manual::at(1), fabric::<4, 8, 64>(&Config::default()));
    let mut a = register_all(&fabric, &platform, 1).remove(0);
    let mut b = common::handle(&fabric).register(&Registration::new("parks").unwrap().parking(), &platform).unwrap();
    a.send(b.id(), &Message::new(1)).unwrap();
    assert_eq!((b.fall_asleep(Command::Run).is_some(), platform.wakes.get()), (false, 0), "there is mail");
    assert!(b.try_receive().is_some());
    let sleep = b.fall_asleep(Command::Run).unwrap();
    assert!(!sleep.is_over() && b.wake_flag().is_asleep());
    a.send(b.id(), &Message::new(1)).unwrap();
    a.send(b.id(), &Message::new(1)).unwrap();
    assert_eq!((platform.wakes.get(), b.wake_flag().is_asleep()), (1, false));
    while b.try_receive().is_some() {}
    assert!(sleep.is_over() && b.fall_asleep(Command::Run).is_some());
    fabric.command(b.id(), Command::Pause, &platform).unwrap();
    assert_eq!(platform.wakes.get(), 2);
    assert!(b.fall_asleep(Command::Run).is_none(), "there is a command to obey");
    // Kernels that never sleep are never woken.
    let id = a.id();
    b.send(id, &Message::new(1)).unwrap();
    assert_eq!(platform.wakes.get(), 2);
}

/// Sends an answer to everything, and looks at its own trace while it runs.
struct Watched<'f> {
    fabric: &'f Small,
    seen: usize,
}

impl Kernel<64> for Watched<'_> {
    fn on_message(&mut self, context: &mut impl Context<64>, message: &Message<64>) {
        let last = self.fabric.trace(context.id()).unwrap().read().max_by_key(|entry| entry.number).unwrap();
        assert_eq!((last.event, last.id, last.hops), (Event::Received, message.header.id(), message.header.hops));
        let answer = context.reply(message, &Message::new(9)).unwrap();
        let last = self.fabric.trace(context.id()).unwrap().read().max_by_key(|entry| entry.number).unwrap();
        assert_eq!((last.event, last.id), (Event::Sent, answer));
        assert!(last.at >= message.header.sent());
        self.seen += 1;
        if message.header.kind == 2 {
            context.stop();
        }
    }
}

#[test]
fn a_trace_can_be_read_while_its_kernel_runs() {
    let (platform, fabric) = (Manual::at(1), fabric::<4, 8, 64>(&Config { tracing: true, ..Config::default() }));
    let [mut a, mut b]: [Endpoint<'_, _, common::Chosen<4, 8, 64>>; 2] =
        register_all(&fabric, &platform, 2).try_into().unwrap();
    let request = a.send(b.id(), &Message::new(1)).unwrap();
    a.send(b.id(), &Message::new(2)).unwrap();
    let mut kernel = Watched { fabric: &fabric, seen: 0 };
    run(&mut b, &mut kernel, |_, _| unreachable!());
    assert_eq!(kernel.seen, 2);
    let answer = a.try_receive().unwrap();
    assert_eq!((answer.header.kind, answer.header.correlation_id), (9, request.sequence));
    let mut trace: Vec<_> = fabric.trace(b.id()).unwrap().read().collect();
    trace.sort_by_key(|entry| entry.number);
    assert_eq!(
        trace.iter().map(|entry| (entry.number, entry.event)).collect::<Vec<_>>(),
        [(0, Event::Received), (1, Event::Sent), (2, Event::Received), (3, Event::Sent)]
    );
    assert!(trace.windows(2).all(|pair| pair[0].at <= pair[1].at));
}

#[test]
fn a_trace_keeps_the_last_64_events() {
    let (platform, fabric) = (Manual::at(1), fabric::<4, 8, 64>(&Config { tracing: true, ..Config::default() }));
    let [mut a, mut b]: [Endpoint<'_, _, common::Chosen<4, 8, 64>>; 2] =
        register_all(&fabric, &platform, 2).try_into().unwrap();
    for _ in 0..100 {
        a.send(b.id(), &Message::new(1)).unwrap();
        assert!(b.try_receive().is_some());
    }
    let mut numbers: Vec<_> = fabric.trace(a.id()).unwrap().read().map(|entry| entry.number).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (36..100).collect::<Vec<_>>());
}

#[test]
fn tracing_that_is_off_writes_nothing_and_can_be_switched_while_running() {
    let (platform, fabric) = (Manual::at(1), fabric::<4, 8, 64>(&Config::default()));
    let [mut a, mut b]: [Endpoint<'_, _, common::Chosen<4, 8, 64>>; 2] =
        register_all(&fabric, &platform, 2).try_into().unwrap();
    let mut exchange = || {
        a.send(b.id(), &Message::new(1)).unwrap();
        assert!(b.try_receive().is_some());
        (fabric.trace(a.id()).unwrap().read().count(), fabric.trace(b.id()).unwrap().read().count())
    };
    assert_eq!(exchange(), (0, 0));
    fabric.set_tracing(true);
    assert_eq!(exchange(), (1, 1));
    fabric.set_tracing(false);
    assert_eq!(exchange(), (1, 1));
}

/// Writes down what its context says of the time.
#[derive(Default)]
struct Watch {
    now_ns: u64,
    deadline_ns: u64,
}

impl Kernel<64> for Watch {
    fn on_message(&mut self, context: &mut impl Context<64>, _: &Message<64>) {
        self.now_ns = context.now_ns();
        self.deadline_ns = context.deadline_in(core::time::Duration::from_nanos(30));
        context.stop();
    }
}

#[test]
fn a_handler_is_told_the_time_and_deadlines_by_its_context() {
    let (platform, fabric) = (Manual::at(7000), fabric::<4, 8, 64>(&Config::default()));
    let [mut a, mut b]: [Endpoint<'_, _, common::Chosen<4, 8, 64>>; 2] =
        register_all(&fabric, &platform, 2).try_into().unwrap();
    a.send(b.id(), &Message::new(1)).unwrap();
    let mut watch = Watch::default();
    run(&mut b, &mut watch, |_, _| unreachable!("there is mail"));
    assert_eq!((watch.now_ns, watch.deadline_ns), (7000, 7030));
}

#[test]
fn a_handler_finds_other_kernels_by_name() {
    let (fabric, platform) = (fabric::<4, 8, 64>(&Config::default()), Manual::at(1));
    let ends = register_all(&fabric, &platform, 2);
    let found = ["k1", "k0", "nobody"].map(|name| Context::<64>::find(&ends[0], name));
    assert_eq!(found, [Some(ends[1].id()), Some(ends[0].id()), None]);
}
