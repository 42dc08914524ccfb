//! Each kind of memory, and each reason for refusing a file.

mod common;
use common::Shm;
use core::time::Duration;
use k2k::fabric::AttachError;
use k2k::{Backing, Broker, Config, Fixed, Memory, MemoryError, Message, memory, owner};
use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;

type Small = Memory<Fixed<4, 8, 64>>;

fn carries_a_message<const K: usize, const S: usize, const P: usize>(memory: Memory<Fixed<K, S, P>>) {
    let broker = Broker::new(memory);
    let (mut a, mut b) = (broker.register("a").unwrap(), broker.register("b").unwrap());
    a.send(b.id(), &Message::from_bytes(1, b"payload").unwrap()).unwrap();
    assert_eq!(b.receive(common::GUARD).unwrap().payload(), b"payload");
}

/// Bytes of the mapping around `address` that the system has committed. The whole process's would not do: the other
/// tests map and unmap beside this one.
fn resident_around(address: usize) -> usize {
    let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let mut lines = smaps.lines().skip_while(|line| {
        let range = line.split(' ').next().and_then(|range| range.split_once('-'));
        let within = range.and_then(|(start, end)| {
            Some(usize::from_str_radix(start, 16).ok()? <= address && address < usize::from_str_radix(end, 16).ok()?)
        });
        within != Some(true)
    });
    let rss = lines.find_map(|line| line.strip_prefix("Rss:")).expect("the mapping is listed");
    rss.trim().strip_suffix(" kB").unwrap().parse::<usize>().unwrap() << 10
}

#[test]
fn heap_is_committed_only_where_it_is_touched() {
    let memory = Memory::<Fixed<64, 1024, 192>>::heap(&Config::default()).unwrap();
    assert_eq!(*memory.backing(), Backing::Heap);
    const { assert!(Memory::<Fixed<64, 1024, 192>>::SIZE > 1 << 30) };
    carries_a_message(memory.clone());
    let resident = resident_around(core::ptr::from_ref(memory.fabric().storage()).addr());
    assert!((4 << 10..256 << 20).contains(&resident), "touched {} KiB", resident >> 10);
}

#[test]
fn huge_pages_fall_back_with_a_notice() {
    let memory = Memory::<Fixed<4, 1024, 192>>::huge_pages(&Config::default()).unwrap();
    match memory.backing() {
        Backing::HugePages { page_size } => assert!(page_size.is_power_of_two()),
        other => assert!(other.notice().unwrap().contains("nr_hugepages"), "{other}"),
    }
    println!("{}", memory.backing());
    carries_a_message(memory);
}

#[test]
fn memory_lives_as_long_as_any_endpoint() {
    let broker = common::broker::<4, 8, 64>();
    let (mut a, mut b) = (broker.register("a").unwrap(), broker.register("b").unwrap());
    drop(broker);
    a.send(b.id(), &Message::new(1)).unwrap();
    drop(a);
    assert!(b.try_receive().is_some());
}

#[test]
fn a_file_is_seen_by_all_who_open_it() {
    let shm = Shm::new("seen");
    let config = Config { hop_limit: 3, delivery_timeout_ns: 77_000_000_000, ..Config::default() };
    let created = Small::create(&shm.0, &config).unwrap();
    assert_eq!(created.path(), Some(&*shm.path()));
    let opened = Small::open(&shm.0).unwrap();
    let expected = Config { clock: k2k::platform::clock_id(), domain: owner::domain(), ..config };
    assert_eq!(opened.config(), expected);
    assert_ne!(
        core::ptr::from_ref(opened.fabric().storage()),
        core::ptr::from_ref(created.fabric().storage()),
        "two mappings"
    );
    let mut b = Broker::new(created).register_parking("b").unwrap();
    let mut a = Broker::new(opened.clone()).register("a").unwrap();
    let to = opened.find("b").unwrap();
    let receiver = std::thread::spawn(move || b.receive(common::GUARD).unwrap());
    a.send(to, &Message::from_bytes(5, b"through the file").unwrap()).unwrap();
    assert_eq!(receiver.join().unwrap().payload(), b"through the file");
}

#[test]
fn only_the_owner_may_open_a_file_and_no_draft_is_left() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("fabric");
    let _memory = Small::create(path.to_str().unwrap(), &Config::default()).unwrap();
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn create_refuses_a_name_in_use() {
    let shm = Shm::new("taken");
    let _memory = Small::create(&shm.0, &Config::default()).unwrap();
    let error = Small::create(&shm.0, &Config::default()).unwrap_err();
    assert!(matches!(&error, MemoryError::Exists { path } if *path == shm.path()));
    assert!(error.to_string().ends_with("exists: open it, or remove it if its processes are gone"), "{error}");
}

#[test]
fn open_and_remove_say_what_is_missing() {
    let shm = Shm::new("missing");
    let error = Small::open(&shm.0).unwrap_err();
    assert!(matches!(&error, MemoryError::NotFound { path } if *path == shm.path()), "{error}");
    assert!(matches!(memory::remove(&shm.0), Err(MemoryError::NotFound { .. })));
}

#[test]
fn remove_leaves_the_fabric_to_those_who_have_it() {
    let shm = Shm::new("removed");
    let memory = Small::create(&shm.0, &Config::default()).unwrap();
    memory::remove(&shm.0).unwrap();
    assert!(matches!(Small::open(&shm.0), Err(MemoryError::NotFound { .. })));
    carries_a_message(memory);
}

#[test]
fn create_or_open_gives_all_callers_one_fabric() {
    let shm = Shm::new("race");
    let names: Vec<String> = (0..4).map(|i| format!("k{i}")).collect();
    let endpoints: Vec<_> = std::thread::scope(|scope| {
        let start = |name| {
            let shm = &shm;
            scope.spawn(move || {
                let memory = Small::create_or_open(&shm.0, &Config::default()).unwrap();
                Broker::new(memory).register(name).unwrap()
            })
        };
        let threads: Vec<_> = names.iter().map(String::as_str).map(start).collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    assert_eq!(endpoints[0].fabric().kernels().count(), 4);
}

#[test]
fn a_file_that_is_too_short_is_not_mapped() {
    let shm = Shm::new("short");
    File::create(shm.path()).unwrap().write_all(&[1; 100]).unwrap();
    let error = Small::open(&shm.0).unwrap_err();
    let expected = Small::SIZE as u64;
    assert!(
        matches!(error, MemoryError::TooShort { found: 100, expected: e, is_fabric: false, .. } if e == expected),
        "{error}"
    );
    assert!(error.to_string().contains("100 bytes") && error.to_string().contains(&expected.to_string()));
}

#[test]
fn a_file_that_is_no_fabric_is_refused() {
    let shm = Shm::new("magic");
    File::create(shm.path()).unwrap().write_all(&vec![b'x'; Small::SIZE]).unwrap();
    let error = Small::open(&shm.0).unwrap_err();
    assert!(
        matches!(error, MemoryError::Attach { why: AttachError::Magic { found: 0x7878_7878_7878_7878 }, .. }),
        "{error}"
    );
    assert!(error.to_string().starts_with(shm.path().to_str().unwrap()), "{error}");
}

#[test]
fn a_fabric_of_another_shape_is_refused() {
    let shm = Shm::new("shape");
    let _memory = Small::create(&shm.0, &Config::default()).unwrap();
    let error = Memory::<Fixed<2, 8, 64>>::open(&shm.0).unwrap_err();
    assert!(matches!(error, MemoryError::Attach { why: AttachError::Geometry { .. }, .. }), "{error}");
    let error = Memory::<Fixed<8, 8, 64>>::open(&shm.0).unwrap_err();
    assert!(matches!(error, MemoryError::TooShort { is_fabric: true, .. }), "{error}");
}

#[test]
fn what_is_not_a_file_or_cannot_be_one_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let error = Small::open(dir.path().to_str().unwrap()).unwrap_err();
    assert!(matches!(error, MemoryError::NotAFile { .. }), "{error}");
    let error = Small::open("/dev/null").unwrap_err();
    assert!(matches!(error, MemoryError::NotAFile { .. }), "{error}");
    for name in ["", ".", "..", "a\0b", "dir/"] {
        let error = Small::create(name, &Config::default()).unwrap_err();
        assert!(matches!(error, MemoryError::BadName { .. }), "{error}");
    }
    let error = Small::create(dir.path().join("no/such/dir").to_str().unwrap(), &Config::default()).unwrap_err();
    assert!(matches!(error, MemoryError::System { action: "create", .. }), "{error}");
}

#[test]
fn a_file_system_without_room_is_refused() {
    let shm = Shm::new("room");
    let error = Memory::<Fixed<4096, 4096, 192>>::create(&shm.0, &Config::default()).unwrap_err();
    assert!(matches!(error, MemoryError::NoSpace { .. }), "{error}");
    assert!(!shm.path().exists());
}

#[test]
fn nobody_waits_for_the_other_end_of_a_pipe() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pipe");
    rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR).unwrap();
    let (done, is_done) = std::sync::mpsc::channel();
    std::thread::spawn(move || done.send(Small::open(path.to_str().unwrap()).map(drop)));
    let result = is_done.recv_timeout(Duration::from_secs(60)).expect("open returns");
    assert!(matches!(result, Err(MemoryError::NotAFile { .. })));
}

/// As after a reboot, or from a container with a time of its own.
#[test]
fn a_file_whose_times_are_on_another_clock_is_refused_with_both_clocks() {
    use std::os::unix::fs::FileExt as _;
    let shm = Shm::new("clock");
    let here = k2k::platform::clock_id();
    let memory = Small::create(&shm.0, &Config { clock: 7, ..Config::default() }).unwrap();
    assert_eq!(memory.config().clock, here, "whatever was asked for: this is the clock that its endpoints read");
    drop(memory);
    assert!(Small::open(&shm.0).is_ok());
    let file = File::options().read(true).write(true).open(memory::path_of(&shm.0).unwrap()).unwrap();
    let mut header = [0; 128];
    file.read_exact_at(&mut header, 0).unwrap();
    let at = header.chunks_exact(8).position(|word| word == here.to_le_bytes()).expect("in the header");
    let other = here ^ 1;
    file.write_all_at(&other.to_le_bytes(), 8 * at as u64).unwrap();
    for result in [Small::open(&shm.0), Small::create_or_open(&shm.0, &Config::default())] {
        let error = result.unwrap_err();
        let MemoryError::Attach { why: AttachError::Clock { found, expected }, .. } = &error else { panic!("{error}") };
        assert_eq!((*found, *expected), (other, here));
        assert!(error.to_string().contains(&shm.0), "{error}");
    }
}
