//! Looking into fabrics that other processes work in. This test program starts itself again as the processes that are
//! looked at.

mod common;
use common::{Echo, GUARD, Process, Shm, eventually, fill, patient};
use core::time::Duration;
use k2k::fabric::{AttachError, LAYOUT_VERSION, MAGIC};
use k2k::inspect::{Condition, Detail, FileState, InspectError, KernelLook, Report, View, Watch, find};
use k2k::owner::OwnerState;
use k2k::{
    Broker, Builder, Command, Config, Context, DeliveryStatus, Fixed, Host, Kernel, Memory, Message, Phase,
    Platform as _, Priority, Read, SendError, StartOptions,
};
use rustix::process::{Pid, Signal, kill_process};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

type Shared = Broker<Fixed<4, 16, 64>>;

/// Never comes back.
struct Hangs;

impl Kernel<64> for Hangs {
    fn on_message(&mut self, _: &mut impl Context<64>, _: &Message<64>) {
        std::thread::sleep(GUARD);
    }
}

/// The other process: joins the fabric under the name that it is told, and does what that says.
#[test]
fn other() {
    let Ok(file) = std::env::var("K2K_LOOK_FILE") else { return };
    let role = std::env::var("K2K_LOOK_ROLE").unwrap();
    let broker: Shared = Builder::new().open(&file).build().unwrap();
    match &*role {
        "hangs" => {
            let _kernel = broker.start("hangs", Hangs, StartOptions::default()).unwrap();
            std::thread::sleep(GUARD);
        }
        "echo" => {
            let _kernel = broker.start("echo", Echo::default(), StartOptions::default()).unwrap();
            std::thread::sleep(GUARD);
        }
        // Takes some mail, much slower than it comes.
        "slow" => {
            let mut endpoint = broker.register_parking("slow").unwrap();
            while endpoint.receive(GUARD).is_ok() {
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        _ => {
            let _endpoint = broker.register_parking(&role).unwrap();
            std::thread::sleep(GUARD);
        }
    }
}

fn start(shm: &Shm, broker: &Shared, role: &str) -> Process {
    let process = Process::start("other", &[("K2K_LOOK_FILE", &shm.0), ("K2K_LOOK_ROLE", role)]);
    eventually("the other process has registered", || broker.find(role).is_some());
    process
}

fn shared(test: &str) -> (Shm, Shared) {
    let shm = Shm::new(test);
    let broker = patient().create(&shm.0).build().unwrap();
    (shm, broker)
}

/// Watches with little patience.
fn watch(shm: &Shm) -> Watch {
    Watch::new(View::open(&shm.0).unwrap()).patience(Duration::from_millis(600))
}

fn named<'r>(report: &'r Report, name: &str) -> (&'r KernelLook, &'r Detail) {
    report.kernels().find(|(kernel, _)| kernel.label() == name).expect("a kernel of that name")
}

/// Looks until a kernel is in this condition.
fn becomes(watch: &mut Watch, name: &str, condition: Condition) -> Report {
    let mut last = watch.look().unwrap();
    eventually(&format!("{name} is {condition}"), || {
        last = watch.look().unwrap();
        named(&last, name).1.condition == condition
    });
    last
}

/// What a view says of a fabric of some shape that this process works in.
fn agrees<const K: usize, const S: usize, const P: usize>() {
    let shm = Shm::new(&format!("look-{K}-{S}-{P}"));
    let broker: Broker<Fixed<K, S, P>> = patient().create(&shm.0).build().unwrap();
    let (mut a, mut b) = (broker.register("a").unwrap(), broker.register_parking("b").unwrap());
    let normal = S.min(5) as u64;
    fill(&mut a, b.id(), normal as u32);
    a.send_priority(b.id(), &Message::new(77), Priority::High).unwrap();
    assert_eq!(b.try_receive().unwrap().header.kind, 77, "high first");
    b.try_receive().unwrap();

    let mut view = View::open(&shm.0).unwrap();
    let geometry = view.geometry();
    assert_eq!([geometry.kernels as usize, geometry.slots as usize, geometry.payload as usize], [K, S, P]);
    assert!(view.is_on_this_clock() && view.path() == shm.path());
    let look = view.look().unwrap();
    assert_eq!((look.file, look.config), (FileState::Named, broker.memory().config()));
    assert_eq!(look.kernels.iter().map(KernelLook::label).collect::<Vec<_>>(), ["a", "b"]);
    for kernel in &look.kernels {
        assert_eq!(Some(kernel.stats), broker.memory().stats(kernel.id));
        let owner = kernel.owner.unwrap();
        assert_eq!((owner.process, owner.state, owner.stopped), (Some(std::process::id()), OwnerState::Alive, false));
    }
    assert_eq!((look.kernels[0].parks, look.kernels[1].parks), (false, true));
    assert_eq!((look.kernels[0].waiting(), look.kernels[1].waiting()), (0, normal - 1));
    assert_eq!(look.total(), broker.stats());
    let receipts = view.receipts(a.id().index() as u16).unwrap();
    assert_eq!((receipts.delivered, receipts.pending, receipts.overdue), (2, normal - 1, 0), "{receipts:?}");
    let mail = view.inbox(b.id().index() as u16, 2).unwrap();
    assert_eq!(
        mail.iter().map(|mail| mail.header.kind).collect::<Vec<_>>(),
        (1..normal.min(3) as u32).collect::<Vec<_>>()
    );
    // After memory was given back, the view still sees all.
    assert_eq!(view.look().unwrap().kernels, look.kernels);
}

#[test]
fn a_view_of_any_shape_shows_what_its_processes_know() {
    agrees::<2, 1, 0>();
    agrees::<3, 8, 64>();
    agrees::<16, 256, 192>();
    agrees::<20, 4, 4096>();
    agrees::<200, 2, 64>();
}

#[test]
fn a_view_of_a_shape_that_was_read_shows_the_same() {
    let shm = Shm::new("look-read");
    let broker = Broker::<Read>::builder().kernels(7).slots(32).payload(128).create(&shm.0).build().unwrap();
    let endpoint = broker.register("x").unwrap();
    let mut view = View::open(&shm.0).unwrap();
    assert_eq!((view.geometry().kernels, view.look().unwrap().kernels[0].id), (7, endpoint.id()));
}

#[test]
fn routes_denials_deferred_messages_and_who_waits_for_whom_are_seen() {
    let (shm, broker) = shared("look-routes");
    let [mut a, mut b, c] = ["a", "b", "c"].map(|name| broker.register(name).unwrap());
    broker.memory().set_route(a.id(), c.id(), b.id()).unwrap();
    broker.deny(a.id(), c.id()).unwrap();
    // `b` fills its own shard at `c`, so what it forwards has to stay.
    fill(&mut b, c.id(), 16);
    fill(&mut a, c.id(), 3);
    b.poll();
    assert!(matches!(b.send(c.id(), &Message::new(0)), Err(SendError::QueueFull { .. })));

    let mut view = View::open(&shm.0).unwrap();
    let look = view.look().unwrap();
    let [of_a, of_b, of_c] = &look.kernels[..] else { panic!("three kernels") };
    assert_eq!((of_b.deferred(), of_b.deferred.get(&2), &*of_b.waits_for), (3, Some(&3), &[2][..]));
    assert_eq!((of_a.waits_for.len(), of_c.waiting(), of_c.backlog[0].sender), (0, 16, 1));
    let routes = view.routes(&look).unwrap();
    assert_eq!(routes.len(), 1);
    assert_eq!((routes[0].at, routes[0].destination, routes[0].next_hop), (a.id(), c.id(), b.id()));
    let denials = view.denials(&look).unwrap();
    assert_eq!(denials.iter().map(|d| (d.receiver, d.sender)).collect::<Vec<_>>(), [(a.id(), c.id())]);
}

#[test]
fn traces_are_read_oldest_first() {
    let shm = Shm::new("look-trace");
    let config = Config { tracing: true, ..Config::default() };
    let broker: Shared = Broker::new(Memory::create(&shm.0, &config).unwrap());
    let (mut a, b) = (broker.register("a").unwrap(), broker.register("b").unwrap());
    fill(&mut a, b.id(), 10);
    let mut view = View::open(&shm.0).unwrap();
    let trace = view.trace(a.id().index() as u16).unwrap();
    assert_eq!(trace.iter().map(|entry| entry.number).collect::<Vec<_>>(), (0..10).collect::<Vec<_>>());
}

#[test]
fn a_kernel_that_hangs_in_its_handler_is_hung_and_one_that_idles_is_not() {
    let (shm, broker) = shared("look-hung");
    let mut me = broker.register("me").unwrap();
    let _others = ["hangs", "echo"].map(|role| start(&shm, &broker, role));
    let to = |name| broker.find(name).unwrap();
    let mut watch = watch(&shm);
    eventually("both are in their run loops", || {
        let report = watch.look().unwrap();
        ["hangs", "echo"].iter().all(|name| named(&report, name).0.phase == Phase::Running)
    });
    // Also with nothing more in its inbox.
    me.send(to("hangs"), &Message::new(1)).unwrap();
    me.send(to("echo"), &Message::new(1)).unwrap();
    let report = becomes(&mut watch, "hangs", Condition::Hung);
    assert_eq!(named(&report, "hangs").0.waiting(), 0);
    me.send(to("hangs"), &Message::new(2)).unwrap();
    let report = becomes(&mut watch, "hangs", Condition::Hung);
    let (hung, detail) = named(&report, "hangs");
    assert_eq!((hung.waiting(), hung.stats.received), (1, 1));
    assert!(detail.still >= Duration::from_millis(600), "{detail:?}");
    let (echo, detail) = named(&report, "echo");
    assert!(detail.condition >= Condition::Busy && echo.heartbeat > 0, "{detail:?}");
}

#[test]
fn a_killed_and_a_stopped_process_are_told_apart_from_a_slow_one() {
    let (shm, broker) = shared("look-dead");
    let mut me = broker.register("me").unwrap();
    let (mut dies, stops, _slow) =
        (start(&shm, &broker, "dies"), start(&shm, &broker, "stops"), start(&shm, &broker, "slow"));
    let slow = broker.find("slow").unwrap();
    dies.kill();
    kill_process(Pid::from_child(&stops.0), Signal::STOP).unwrap();
    let mut watch = watch(&shm);
    let report = becomes(&mut watch, "stops", Condition::Stopped);
    let (dead, detail) = named(&report, "dies");
    assert_eq!((dead.owner.unwrap().process, detail.condition), (Some(dies.0.id()), Condition::Dead));
    kill_process(Pid::from_child(&stops.0), Signal::CONT).unwrap();
    becomes(&mut watch, "stops", Condition::Idle);

    let mut last = watch.look().unwrap();
    eventually("the flood is seen", || {
        while me.send(slow, &Message::new(0)).is_ok() {}
        last = watch.look().unwrap();
        named(&last, "slow").1.condition == Condition::Flooded
    });
    let (flooded, detail) = named(&last, "slow");
    assert!(flooded.waiting() > 0 && flooded.backlog[0].full && detail.high_water >= flooded.waiting(), "{flooded:?}");
    assert_eq!(named(&last, "me").0.waits_for, [slow.index() as u16]);
    assert!(last.per_second(named(&last, "me").1.change.refused) > 0.0);
}

#[test]
fn mail_that_is_not_taken_and_a_command_that_is_not_followed_are_seen() {
    let (shm, broker) = shared("look-deaf");
    let (mut a, b, c) = (broker.register("a").unwrap(), broker.register("b").unwrap(), broker.register("c").unwrap());
    a.send(b.id(), &Message::new(1)).unwrap();
    broker.command(c.id(), Command::Stop).unwrap();
    let mut watch = watch(&shm);
    let report = becomes(&mut watch, "b", Condition::Stalled);
    assert_eq!(named(&report, "a").1.condition, Condition::Idle);
    let report = becomes(&mut watch, "c", Condition::Unheard);
    assert_eq!(named(&report, "c").0.command, Command::Stop);
}

#[test]
fn a_kernel_whose_messages_are_all_refused_does_not_pass_for_busy() {
    let (shm, broker) = shared("look-refused");
    let (mut a, b) = (broker.register("a").unwrap(), broker.register("b").unwrap());
    let (gone, mut watch) = (b.id(), watch(&shm));
    drop(b);
    watch.look().unwrap();
    assert!(a.send(gone, &Message::new(1)).is_err());
    assert_eq!(named(&watch.look().unwrap(), "a").1.condition, Condition::Refused);
    // One that also sends is busy.
    assert!(a.send(gone, &Message::new(1)).is_err());
    a.send(a.id(), &Message::new(1)).unwrap();
    assert_eq!(named(&watch.look().unwrap(), "a").1.condition, Condition::Busy);
}

#[test]
fn a_paused_kernel_is_paused_also_when_mail_waits() {
    let (shm, broker) = shared("look-paused");
    let mut me = broker.register("me").unwrap();
    let kernel = broker.start("echo", Echo::default(), StartOptions::default()).unwrap();
    broker.command(kernel.id(), Command::Pause).unwrap();
    me.send(kernel.id(), &Message::new(1)).unwrap();
    let mut watch = watch(&shm);
    becomes(&mut watch, "echo", Condition::Paused);
    std::thread::sleep(Duration::from_millis(700));
    let report = watch.look().unwrap();
    assert_eq!((named(&report, "echo").1.condition, named(&report, "echo").0.waiting()), (Condition::Paused, 1));
}

#[test]
fn a_kernel_that_takes_a_used_index_has_a_watch_of_its_own() {
    let (shm, broker) = shared("look-again");
    let mut a = broker.register("a").unwrap();
    let b = broker.register("b").unwrap();
    fill(&mut a, b.id(), 9);
    let mut watch = watch(&shm);
    assert_eq!(named(&watch.look().unwrap(), "b").1.high_water, 9);
    drop(b);
    assert!(watch.look().unwrap().kernels().all(|(kernel, _)| kernel.label() != "b"));
    // All other indices once, so that this one is next.
    for _ in 0..4 {
        let b = broker.register("b").unwrap();
        assert_eq!(named(&watch.look().unwrap(), "b").1.high_water, 0);
        drop(b);
    }
}

fn every_question(view: &mut View) -> Result<(), InspectError> {
    let look = view.look()?;
    view.routes(&look)?;
    view.denials(&look)?;
    for kernel in &look.kernels {
        let index = kernel.id.index() as u16;
        view.receipts(index)?;
        view.inbox(index, 3)?;
        view.trace(index)?;
        view.failures(index)?;
    }
    Ok(())
}

#[test]
fn looking_changes_no_byte_maps_nothing_and_holds_nothing_writable() {
    let (shm, broker) = shared("look-reads");
    let (mut a, b) = (broker.register("a").unwrap(), broker.register("b").unwrap());
    a.send(b.id(), &Message::new(1)).unwrap();
    let before = std::fs::read(shm.path()).unwrap();
    let mapped = || std::fs::read_to_string("/proc/self/maps").unwrap().matches(&shm.0).count();
    let already = mapped();
    let mut view = View::open(&shm.0).unwrap();
    every_question(&mut view).unwrap();
    assert_eq!(mapped(), already, "the broker's own mapping alone");
    assert!(std::fs::read(shm.path()).unwrap() == before, "a byte has changed");
    let open = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
    let of_file: Vec<_> =
        open.filter(|fd| std::fs::read_link(fd.path()).is_ok_and(|path| path == shm.path())).collect();
    assert_eq!(of_file.len(), 1, "the view's");
    let info = std::fs::read_to_string(Path::new("/proc/self/fdinfo").join(of_file[0].file_name())).unwrap();
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap().trim();
    assert_eq!(u32::from_str_radix(flags, 8).unwrap() & 3, 0, "O_RDONLY: {info}");
}

#[test]
fn looking_at_a_sparse_file_commits_none_of_it() {
    let shm = Shm::new("look-sparse");
    let options = k2k::memory::FileOptions::new().sparse();
    let _memory = Memory::<Fixed<16, 256, 192>>::create_with(&shm.0, &Config::default(), &options).unwrap();
    let blocks = || std::os::unix::fs::MetadataExt::blocks(&std::fs::metadata(shm.path()).unwrap());
    let before = blocks();
    let mut view = View::open(&shm.0).unwrap();
    every_question(&mut view).unwrap();
    (0..16).for_each(|index| assert!(view.receipts(index).is_ok() && view.inbox(index, 3).is_ok()));
    assert_eq!(blocks(), before);
}

#[test]
fn a_file_made_shorter_is_an_error_at_whichever_length() {
    let (shm, broker) = shared("look-shorter");
    let (mut a, b) = (broker.register("a").unwrap(), broker.register("b").unwrap());
    a.send(b.id(), &Message::new(1)).unwrap();
    let mut view = View::open(&shm.0).unwrap();
    every_question(&mut view).unwrap();
    // Nothing of these may touch the file any more: that is what ends a program which maps it.
    let _ = core::mem::ManuallyDrop::new((a, b, broker));
    let whole = view.geometry().size;
    let file = std::fs::File::options().write(true).open(shm.path()).unwrap();
    for len in [whole - 1, whole / 2, 4096, 128, 127, 8, 0] {
        file.set_len(len).unwrap();
        let of_open = View::open(&shm.0).unwrap_err();
        match &of_open {
            InspectError::Shorter { found, expected, .. } => assert_eq!((*found, *expected), (len, whole)),
            InspectError::Attach { why: AttachError::TooSmall { .. }, .. } => assert!(len < 128, "{len}"),
            other => panic!("{other}"),
        }
        // What is asked for may all lie in the part that is left.
        match every_question(&mut view) {
            Err(InspectError::Shorter { found, expected, .. }) => assert_eq!((found, expected), (len, whole)),
            Err(other) => panic!("{other}"),
            Ok(()) => assert_eq!(len, whole - 1),
        }
    }
}

#[test]
fn a_removed_and_a_replaced_file_are_still_looked_at_and_said_to_be() {
    let (shm, broker) = shared("look-removed");
    let _a = broker.register("a").unwrap();
    let mut view = View::open(&shm.0).unwrap();
    k2k::memory::remove(&shm.0).unwrap();
    let look = view.look().unwrap();
    assert_eq!((look.file, look.kernels.len()), (FileState::Removed, 1));
    assert!(matches!(View::open(&shm.0), Err(InspectError::NotFound { .. })));
    let _other = Memory::<Fixed<4, 16, 64>>::create(&shm.0, &Config::default()).unwrap();
    assert_eq!(view.look().unwrap().file, FileState::Replaced);
    assert_eq!(View::open(&shm.0).unwrap().look().unwrap().kernels.len(), 0);
}

#[test]
fn what_is_no_fabric_is_refused_with_a_reason() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let refused = |name: &str, says: &str| {
        let error = View::open(&path(name)).expect_err("it is no fabric").to_string();
        assert!(error.contains(says) && error.contains(name) && !error.contains('\n'), "{error}");
    };
    refused("missing", "does not exist");
    std::fs::create_dir(path("folder")).unwrap();
    refused("folder", "not a regular file");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        path("pipe"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )
    .unwrap();
    refused("pipe", "not a regular file");
    std::fs::write(path("empty"), []).unwrap();
    refused("empty", "too short for a fabric");
    std::fs::write(path("text"), [b'x'; 5000]).unwrap();
    refused("text", "not a fabric");
    std::fs::write(path("zeros"), [0; 5000]).unwrap();
    refused("zeros", "no fabric");
    let header = |words: &[(usize, u32)]| {
        let mut bytes = vec![0; 5000];
        bytes[..8].copy_from_slice(&MAGIC.to_le_bytes());
        for (at, word) in words {
            bytes[*at..at + 4].copy_from_slice(&word.to_le_bytes());
        }
        bytes
    };
    std::fs::write(path("version"), header(&[(8, LAYOUT_VERSION + 1)])).unwrap();
    refused("version", "layout version");
    let v = (8, LAYOUT_VERSION);
    for (number, shape) in [[0, 4, 64], [4097, 4, 64], [4, 3, 64], [4, 4, 63], [u32::MAX; 3]].iter().enumerate() {
        let name = format!("shape{number}");
        std::fs::write(path(&name), header(&[v, (12, shape[0]), (16, shape[1]), (20, shape[2])])).unwrap();
        refused(&name, "kernels may be 1 to 4096");
    }
    std::fs::write(path("size"), header(&[v, (12, 4), (16, 4), (20, 64), (24, 5000)])).unwrap();
    refused("size", "another shape");
    let error = View::open("").unwrap_err();
    assert!(matches!(error, InspectError::Name(_)), "{error}");
}

#[test]
fn garbage_over_the_whole_file_between_looks_is_an_error_or_a_look() {
    let shm = Shm::new("look-garbage");
    let memory = Memory::<Fixed<4, 16, 64>>::create(&shm.0, &Config::default()).unwrap();
    let size = Memory::<Fixed<4, 16, 64>>::SIZE;
    drop(memory);
    let whole = std::fs::read(shm.path()).unwrap();
    let mut view = View::open(&shm.0).unwrap();
    let mut random = fastrand::Rng::with_seed(7);
    let mut looks = 0;
    for round in 0..200 {
        let mut bytes = whole.clone();
        // The header stays in all but some rounds.
        let from = if round % 5 == 0 { 0 } else { 128 };
        for word in bytes[from..].chunks_mut(8) {
            let value = random.u64(..);
            let value = if round % 3 == 0 { value & 0x0000_0001_0000_0003 } else { value };
            word.copy_from_slice(&value.to_le_bytes()[..word.len()]);
        }
        assert_eq!(bytes.len(), size);
        std::fs::write(shm.path(), &bytes).unwrap();
        match every_question(&mut view) {
            Ok(()) => looks += 1,
            Err(error) => assert!(matches!(error, InspectError::Changed { .. }) && from == 0, "{error}"),
        }
    }
    assert_eq!(looks, 160);
}

#[test]
fn fabrics_are_found_in_the_usual_folder_and_where_processes_share_them() {
    let (shm, _broker) = shared("look-find");
    let dir = tempfile::tempdir().unwrap();
    let elsewhere = dir.path().join("fabric");
    let _shared: Shared = patient().create(elsewhere.to_str().unwrap()).build().unwrap();
    let found = find().fabrics;
    assert!(found.contains(&shm.path()) && found.contains(&elsewhere), "{found:?}");
}

#[test]
fn a_file_that_may_not_be_read_is_refused_and_says_whose_it_is() {
    let (shm, _broker) = shared("look-secret");
    std::fs::set_permissions(shm.path(), PermissionsExt::from_mode(0o600)).unwrap();
    if !rustix::process::geteuid().is_root() {
        println!("not root: no file of another user to try");
        return;
    }
    let program = std::env::current_exe().unwrap();
    let mut child = std::process::Command::new(program);
    child.args(["--exact", "as_nobody", "--nocapture"]).env("K2K_LOOK_SECRET", &shm.0);
    std::os::unix::process::CommandExt::uid(&mut child, 65_534);
    // Where nobody may run this very program, there is nothing to try.
    match child.output() {
        Ok(output) => assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout)),
        Err(why) => println!("user 65534 cannot run the tests: {why}"),
    }
}

/// Not a test by itself: see above.
#[test]
fn as_nobody() {
    let Ok(file) = std::env::var("K2K_LOOK_SECRET") else { return };
    let error = View::open(&file).unwrap_err();
    assert!(matches!(error, InspectError::NotReadable { owner: Some(0), .. }), "{error}");
    assert!(find().unreadable.iter().any(|path| path.ends_with(&file)));
}

#[test]
fn the_outcome_of_a_message_is_seen_by_state() {
    let (shm, broker) = shared("look-states");
    let (mut a, b) = (broker.register("a").unwrap(), broker.register("b").unwrap());
    let lost = a.send(b.id(), &Message::new(1)).unwrap();
    let mut late = Message::new(2);
    late.header.deadline_ns = Host::default().now_ns() + 1_000_000;
    let late = a.send(b.id(), &late).unwrap();
    std::thread::sleep(Duration::from_millis(2));
    let mut view = View::open(&shm.0).unwrap();
    let counts = view.receipts(0).unwrap();
    assert_eq!((counts.pending, counts.overdue), (2, 1));
    eventually("it is late enough", || a.receipt(late).unwrap().status == DeliveryStatus::Timeout);
    drop(b);
    let look = view.look().unwrap();
    assert_eq!((look.left.len(), look.left[0].1.not_found, look.total()), (1, 1, broker.stats()));
    let [by_b, by_a] = [1, 0].map(|index| view.failures(index).unwrap());
    assert_eq!((by_b.len(), by_b[0].status, by_b[0].example), (1, DeliveryStatus::NotFound, lost));
    assert_eq!((by_a.len(), by_a[0].status, by_a[0].example), (1, DeliveryStatus::Timeout, late));
    assert_eq!(a.receipt(lost).unwrap().status, DeliveryStatus::NotFound);
    let counts = view.receipts(0).unwrap();
    assert_eq!((counts.not_found, counts.timeout, counts.pending), (1, 1, 0), "{counts:?}");
}

/// Prints how long a look takes, with all kernels registered and a message at each.
#[test]
#[ignore = "measures: cargo test --release -p k2k --test inspect -- --ignored --nocapture the_time_of_a_look"]
fn the_time_of_a_look() {
    for kernels in [16, 256, 1024] {
        let shm = Shm::new(&format!("look-time-{kernels}"));
        let broker =
            Broker::<Read<1024, 64>>::builder().kernels(kernels).slots(4).payload(0).create(&shm.0).build().unwrap();
        let mut all: Vec<_> = (0..kernels).map(|i| broker.register(&format!("kernel-{i}")).unwrap()).collect();
        for i in 0..kernels {
            let to = all[(i + 1) % kernels].id();
            all[i].send(to, &Message::new(1)).unwrap();
        }
        let mut watch = watch(&shm);
        let mut times: Vec<_> = (0..50).map(|_| watch.look().unwrap().look.took).collect();
        times.sort_unstable();
        println!("{kernels} kernels: {:?} at best, {:?} in the middle", times[0], times[times.len() / 2]);
    }
}
