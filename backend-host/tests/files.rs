//! Files that hold a fabric: whose they are, what is checked before they are used, and that their room is taken.

mod common;
use common::Shm;
use k2k::fabric::{AttachError, MAGIC};
use k2k::memory::FileOptions;
use k2k::{Broker, Config, DefaultFabric, Fixed, Memory, MemoryError, Message, memory};
use rustix::process::{Resource, Rlimit, geteuid, getrlimit, setrlimit};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

type Small = Memory<Fixed<4, 8, 64>>;
/// As large as half of the tmpfs below, and a little more.
type Large = Memory<Fixed<32, 256, 192>>;
type Default = Memory<Fixed<16, 256, 192>>;

const NOBODY: u32 = 65_534;

fn config() -> Config {
    Config::default()
}

fn name_of(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
}

fn names_in(folder: &Path) -> Vec<String> {
    std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// Whether this process may change owners and mount; says what is left out if not.
fn is_root() -> bool {
    let is_root = geteuid().is_root();
    if !is_root {
        println!("not root: what needs another owner or a mount is left out");
    }
    is_root
}

/// A file that begins with eight zero bytes is another program's (a disk image is one), or was truncated and grown.
#[test]
fn opening_writes_into_no_file() {
    let shm = Shm::new("foreign");
    let foreign: Vec<u8> = (0..Small::SIZE).map(|i| if i < 8 { 0 } else { i as u8 }).collect();
    std::fs::write(shm.path(), &foreign).unwrap();
    set_mode(&shm.path(), 0o600);
    for result in [Small::open(&shm.0), Small::create_or_open(&shm.0, &config())] {
        let error = result.unwrap_err();
        assert!(matches!(error, MemoryError::Attach { why: AttachError::Empty, .. }), "{error}");
        assert!(error.to_string().contains("opening does not create one"), "{error}");
    }
    assert!(std::fs::read(shm.path()).unwrap() == foreign, "the file was changed");
}

#[test]
fn links_are_not_followed() {
    let folder = tempfile::tempdir().unwrap();
    let [real, link, dangling] = ["real", "link", "dangling"].map(|name| folder.path().join(name));
    let _memory = Small::create(name_of(&real), &config()).unwrap();
    symlink(&real, &link).unwrap();
    symlink(folder.path().join("nothing"), &dangling).unwrap();
    for path in [&link, &dangling] {
        let name = name_of(path);
        for result in [Small::open(name), Small::create(name, &config()), Small::create_or_open(name, &config())] {
            let error = result.unwrap_err();
            assert!(matches!(&error, MemoryError::SymbolicLink { path: found, .. } if found == path), "{error}");
            assert!(error.to_string().contains("remove the link"), "{error}");
        }
    }
    assert_eq!(names_in(folder.path()).len(), 3);
    memory::remove(name_of(&dangling)).unwrap();
    Small::create(name_of(&dangling), &config()).unwrap();
}

#[test]
fn a_file_that_others_can_write_is_opened_by_those_who_expect_it() {
    let shm = Shm::new("mode");
    let ours = FileOptions::new().mode(0o660);
    let _memory = Small::create_with(&shm.0, &config(), &ours).unwrap();
    assert_eq!(shm.path().metadata().unwrap().mode() & 0o7777, 0o660, "whatever the umask");
    let error = Small::open(&shm.0).unwrap_err();
    assert!(matches!(error, MemoryError::Mode { found: 0o660, expected: 0o600, .. }), "{error}");
    assert!(error.to_string().contains("mode 0660"), "{error}");
    Small::open_with(&shm.0, &ours).unwrap();
    assert!(Broker::<Fixed<4, 8, 64>>::new(Small::open_with(&shm.0, &ours).unwrap()).register("a").is_ok());

    set_mode(&shm.path(), 0o666);
    assert!(matches!(Small::open_with(&shm.0, &ours), Err(MemoryError::Mode { found: 0o666, .. })));
    // To read it is no harm to it.
    set_mode(&shm.path(), 0o644);
    Small::open(&shm.0).unwrap();
    for mode in [0o400, 0o700, 0o4600, 0] {
        let error = Small::create_with("k2k-never", &config(), &FileOptions::new().mode(mode)).unwrap_err();
        assert!(matches!(error, MemoryError::BadMode { .. }), "{error}");
    }
}

#[test]
fn a_file_is_given_to_a_group_and_expected_of_it() {
    let shm = Shm::new("group");
    let own = rustix::process::getegid().as_raw();
    let ours = FileOptions::new().mode(0o660).group(own);
    let _memory = Small::create_with(&shm.0, &config(), &ours).unwrap();
    assert_eq!(shm.path().metadata().unwrap().gid(), own);
    Small::open_with(&shm.0, &ours).unwrap();
    let error = Small::open_with(&shm.0, &ours.clone().group(own + 1)).unwrap_err();
    assert!(matches!(error, MemoryError::Group { found, expected, .. } if (found, expected) == (own, own + 1)));
    if is_root() {
        let theirs = Shm::new("group-nobody");
        let options = FileOptions::new().mode(0o660).group(NOBODY);
        let _memory = Small::create_with(&theirs.0, &config(), &options).unwrap();
        assert_eq!(theirs.path().metadata().unwrap().gid(), NOBODY);
    }
}

#[test]
fn a_file_of_another_user_is_refused_unless_that_user_is_trusted() {
    if !is_root() {
        return;
    }
    let shm = Shm::new("owner");
    let memory = Small::create(&shm.0, &config()).unwrap();
    std::os::unix::fs::chown(shm.path(), Some(NOBODY), Some(NOBODY)).unwrap();
    let before = std::fs::read(shm.path()).unwrap();
    let error = Small::open(&shm.0).unwrap_err();
    assert!(matches!(error, MemoryError::Owner { found: NOBODY, own: 0, .. }), "{error}");
    assert!(error.to_string().contains("belongs to user 65534, this process runs as user 0"), "{error}");
    assert!(matches!(Small::open_with(&shm.0, &FileOptions::new().trust_owner(7)), Err(MemoryError::Owner { .. })));
    assert!(std::fs::read(shm.path()).unwrap() == before);
    Small::open_with(&shm.0, &FileOptions::new().trust_owner(NOBODY)).unwrap();
    drop(memory);
}

/// The other way round: nobody opens what root has left open for all.
#[test]
fn nobody_is_not_tricked_by_roots_file() {
    const ROLE: &str = "K2K_TEST_NOBODY";
    if let Ok(name) = std::env::var(ROLE) {
        // SAFETY of the numbers: a user that exists everywhere; this process does nothing else.
        rustix::thread::set_thread_uid(rustix::process::Uid::from_raw(NOBODY)).unwrap();
        assert!(matches!(Small::open(&name), Err(MemoryError::Owner { found: 0, own: NOBODY, .. })));
        let shared = FileOptions::new().mode(0o666).trust_owner(0);
        return Small::open_with(&name, &shared).map(drop).unwrap();
    }
    if !is_root() {
        return;
    }
    let shm = Shm::new("root");
    let memory = Small::create_with(&shm.0, &config(), &FileOptions::new().mode(0o666)).unwrap();
    common::Process::start("nobody_is_not_tricked_by_roots_file", &[(ROLE, &shm.0)]).succeed();
    drop(memory);
    // And one that nobody could open anyway is named as what it is.
    let private = Shm::new("root-private");
    let _memory = Small::create(&private.0, &config()).unwrap();
    set_mode(&private.path(), 0o600);
}

#[test]
fn room_is_taken_when_a_file_is_created() {
    let (full, sparse) = (Shm::new("full"), Shm::new("sparse"));
    let _full = Default::create(&full.0, &config()).unwrap();
    let _sparse = Default::create_with(&sparse.0, &config(), &FileOptions::new().sparse()).unwrap();
    let taken = |shm: &Shm| shm.path().metadata().unwrap().blocks() * 512;
    assert!(taken(&full) >= Default::SIZE as u64, "{}", taken(&full));
    assert!(taken(&sparse) < 1 << 20, "{}", taken(&sparse));
    assert_eq!(sparse.path().metadata().unwrap().len(), Default::SIZE as u64);
    assert_eq!(Default::SIZE, size_of::<DefaultFabric>());
}

/// A tmpfs of its own.
struct Tmpfs(tempfile::TempDir);

impl Tmpfs {
    fn mount(options: &str) -> Option<Self> {
        if !is_root() {
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(folder.path()).status();
        if !mounted.is_ok_and(|status| status.success()) {
            println!("no mounts here: what needs one is left out");
            return None;
        }
        Some(Self(folder))
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.0.path()).status();
    }
}

/// Writes to every page, which ends the process by SIGBUS if one is missing.
fn use_all_of(path: &Path) {
    let file = std::fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let len = file.metadata().unwrap().len() as usize;
    let protection = rustix::mm::ProtFlags::READ | rustix::mm::ProtFlags::WRITE;
    // SAFETY: the system chooses the address.
    let base = unsafe {
        rustix::mm::mmap(core::ptr::null_mut(), len, protection, rustix::mm::MapFlags::SHARED, &file, 0).unwrap()
    };
    for at in (0..len).step_by(4096).skip(1) {
        // SAFETY: within the mapping, behind the header.
        unsafe { base.cast::<u8>().add(at).write_volatile(0) };
    }
    // SAFETY: mapped above.
    unsafe { rustix::mm::munmap(base, len).unwrap() };
}

#[test]
fn two_fabrics_do_not_both_find_the_same_room() {
    let Some(tmpfs) = Tmpfs::mount("size=100m") else { return };
    const { assert!(Large::SIZE > 50 << 20 && Large::SIZE < 100 << 20) };
    let (first, second) = (tmpfs.file("first"), tmpfs.file("second"));
    let _memory = Large::create(name_of(&first), &config()).unwrap();
    let error = Large::create(name_of(&second), &config()).unwrap_err();
    assert!(
        matches!(&error, MemoryError::NoSpace { needed, free, kernels: 32, slots: 256, payload: 192, .. }
            if *needed == Large::SIZE as u64 && *free < *needed),
        "{error}"
    );
    assert!(error.to_string().contains("lower KERNELS (32, counts twice), SLOTS (256) or PAYLOAD (192)"), "{error}");
    assert_eq!(names_in(tmpfs.0.path()), ["first"]);
    use_all_of(&first);
    assert!(Large::open(name_of(&first)).is_ok());
    // Whoever wants to take the risk can.
    Large::create_with(name_of(&second), &config(), &FileOptions::new().sparse()).unwrap();
}

#[test]
fn the_default_shape_fits_a_containers_shared_memory_twice() {
    const { assert!(2 * Default::SIZE < 48 << 20) };
    let Some(tmpfs) = Tmpfs::mount("size=64m") else { return };
    for name in ["one", "two"] {
        let path = tmpfs.file(name);
        let broker: Broker = Broker::builder().create(name_of(&path)).build().unwrap();
        let (mut a, mut b) = (broker.register("a").unwrap(), broker.register("b").unwrap());
        a.send(b.id(), &Message::new(1)).unwrap();
        assert!(b.try_receive().is_some());
        drop((a, b, broker));
        use_all_of(&path);
    }
}

/// Its `statvfs` has no blocks, of which none are free.
#[test]
fn a_file_system_without_a_limit_has_room() {
    let Some(tmpfs) = Tmpfs::mount("size=0") else { return };
    Small::create(name_of(&tmpfs.file("fabric")), &config()).unwrap();
}

#[test]
fn a_limit_on_files_is_an_error_and_no_signal() {
    const ROLE: &str = "K2K_TEST_LIMIT";
    if let Ok(path) = std::env::var(ROLE) {
        let maximum = getrlimit(Resource::Fsize).maximum;
        setrlimit(Resource::Fsize, Rlimit { current: Some(100_000), maximum }).unwrap();
        for options in [FileOptions::new(), FileOptions::new().sparse()] {
            let error = Default::create_with(&path, &config(), &options).unwrap_err();
            assert!(matches!(error, MemoryError::FileSizeLimit { limit: 100_000, .. }), "{error}");
            assert!(error.to_string().contains("ulimit -f"), "{error}");
        }
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("fabric");
    common::Process::start("a_limit_on_files_is_an_error_and_no_signal", &[(ROLE, name_of(&path))]).succeed();
    assert_eq!(names_in(folder.path()), <[&str; 0]>::default());
}

#[test]
fn a_file_is_whole_when_it_has_its_name() {
    let shm = Shm::new("whole");
    let begun = std::sync::Barrier::new(2);
    std::thread::scope(|scope| {
        let creator = scope.spawn(|| {
            begun.wait();
            Small::create(&shm.0, &config()).unwrap()
        });
        begun.wait();
        let bytes = loop {
            if let Ok(bytes) = std::fs::read(shm.path()) {
                break bytes;
            }
        };
        assert_eq!((bytes.len(), &bytes[..8]), (Small::SIZE, &MAGIC.to_le_bytes()[..]));
        creator.join().unwrap();
    });
}
