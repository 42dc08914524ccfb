//! Which process owns a kernel, and whether that process is gone.
//!
//! A kernel's entry in the fabric names its owner by a *tag*: the process id and the start time of the process,
//! which together identify a process within a boot.
//!
//! ```text
//!    63   62                      22 21            0
//!   +---+--------------------------+---------------+
//!   | 1 | start, ticks since boot  | process id    |
//!   +---+--------------------------+---------------+
//! ```
//!
//! Both numbers have a meaning only within a boot of a machine, a namespace of process ids and a namespace of times. These
//! form the [`ProcessDomain`]; the creator of a fabric writes its own domain into the header. A process of another
//! domain registers with the tag [`NOT_SAID`], and no process can say whether such an owner lives.
//!
//! | found | answer |
//! | --- | --- |
//! | no process of this id, or a process with another start time | [`OwnerState::Dead`] |
//! | the owner's process, but all its threads have ended and its parent has not waited for it | [`OwnerState::Dead`] |
//! | the owner's process, stopped or not | [`OwnerState::Alive`] |
//! | another domain, no tag, or no view of the owner's process | [`OwnerState::Unknown`] |
//!
//! A process that calls `exec` stays the same process to the system: it counts as alive until the new program ends.

use crate::process::Origin;
use k2k_core::ProcessDomain;
use k2k_core::sync::AtomicU64;
use k2k_core::sync::Ordering::{Acquire, Relaxed, Release};
use rustix::io::Errno;
use rustix::process::{Pid, getpid, test_kill_process};
use std::fs;
use std::io;

/// The tag of an owner without a recorded process.
pub const NOT_SAID: u64 = 1;

/// Whether the process that owns a kernel lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OwnerState {
    /// The process exists, though it may be stopped.
    Alive,
    /// The process is gone: none of its threads will ever run again.
    Dead,
    /// This process cannot tell.
    Unknown,
}

const PID_BITS: u32 = 22;
const START_BITS: u32 = 41;
const KNOWN: u64 = 1 << 63;

/// The domain of this process. All zero, so unknown, if the system does not tell.
#[must_use]
pub fn domain() -> ProcessDomain {
    ownership().domain
}

/// The tag under which this process registers kernels in a fabric of that domain: [`NOT_SAID`] in a foreign domain.
#[must_use]
pub fn tag_in(fabric: ProcessDomain) -> u64 {
    let own = ownership();
    if own.knows(fabric) { own.tag } else { NOT_SAID }
}

/// Whether the process that registered with this tag, in a fabric of that domain, is gone.
#[must_use]
pub fn state_of(tag: u64, fabric: ProcessDomain) -> OwnerState {
    let own = ownership();
    let Some((pid, start)) = decode(tag).filter(|_| own.knows(fabric)) else { return OwnerState::Unknown };
    if tag == own.tag {
        return OwnerState::Alive;
    }
    match Stat::of(pid) {
        Ok(stat) if stat.start != start || stat.is_over() => OwnerState::Dead,
        Ok(_) => OwnerState::Alive,
        // Not listed: the process may be hidden (`hidepid`), or its parent has just waited for it.
        Err(_) => match test_kill_process(pid) {
            Err(Errno::SRCH) => OwnerState::Dead,
            _ => OwnerState::Unknown,
        },
    }
}

/// The id of the process that registered with this tag, in a fabric of that domain; `None` if the tag names no process, or
/// a process of another domain. The id may have been given to another process since: see [`state_of`].
#[must_use]
pub fn process_of(tag: u64, fabric: ProcessDomain) -> Option<u32> {
    let known = decode(tag).filter(|_| ownership().knows(fabric));
    known.map(|(pid, _)| pid.as_raw_nonzero().get().unsigned_abs())
}

/// Whether the process that registered with this tag, in a fabric of that domain, is stopped: by SIGSTOP, a terminal, or a
/// debugger. Its kernels are alive, but do no work until the process goes on.
#[must_use]
pub fn is_suspended(tag: u64, fabric: ProcessDomain) -> bool {
    let own = ownership();
    let Some((pid, start)) = decode(tag).filter(|_| own.knows(fabric)) else { return false };
    Stat::of(pid).is_ok_and(|stat| stat.start == start && matches!(stat.state, b'T' | b't'))
}

fn encode(pid: Pid, start: u64) -> u64 {
    let pid = u64::from(pid.as_raw_nonzero().get().unsigned_abs());
    KNOWN | (start & ((1 << START_BITS) - 1)) << PID_BITS | (pid & ((1 << PID_BITS) - 1))
}

/// Process id and start time of a tag that holds both.
fn decode(tag: u64) -> Option<(Pid, u64)> {
    let pid = Pid::from_raw((tag & ((1 << PID_BITS) - 1)) as i32)?;
    (tag & KNOWN != 0).then_some((pid, (tag & !KNOWN) >> PID_BITS))
}

/// Tag and domain of this process.
#[derive(Clone, Copy, Debug)]
struct Ownership {
    tag: u64,
    domain: ProcessDomain,
}

impl Ownership {
    const UNKNOWN: Self = Self { tag: NOT_SAID, domain: ProcessDomain { boot: 0, namespace: 0 } };

    /// Whether this process sees the processes of that domain.
    fn knows(&self, fabric: ProcessDomain) -> bool {
        self.domain == fabric && fabric.boot != 0 && fabric.namespace != 0
    }

    fn read() -> Self {
        let pid = getpid();
        let (Ok(stat), Some(boot), Some(namespace)) = (Stat::read("self"), boot(), namespace()) else {
            return Self::UNKNOWN;
        };
        // A /proc of another namespace lists foreign processes under this namespace's numbers.
        if stat.pid != pid {
            return Self::UNKNOWN;
        }
        Self { tag: encode(pid, stat.start), domain: ProcessDomain { boot, namespace } }
    }
}

/// Tag and domain of this process, read once, and once more in each forked process.
fn ownership() -> Ownership {
    static LIFE: AtomicU64 = AtomicU64::new(0);
    static WORDS: [AtomicU64; 3] = [const { AtomicU64::new(0) }; 3];
    let life = Origin::here().life();
    // Acquire [owner-known]: pairs with the store below; the words of this life are visible.
    if LIFE.load(Acquire) == life {
        // Relaxed: made visible by the load above.
        let [tag, boot, namespace] = WORDS.each_ref().map(|word| word.load(Relaxed));
        return Ownership { tag, domain: ProcessDomain { boot, namespace } };
    }
    let own = Ownership::read();
    for (word, value) in WORDS.iter().zip([own.tag, own.domain.boot, own.domain.namespace]) {
        // Relaxed: published by the store below. Threads that run this at the same time store the same.
        word.store(value, Relaxed);
    }
    // Release [owner-known]: a thread that sees the life sees the words.
    LIFE.store(life, Release);
    own
}

/// A number for the boot: one half of the system's random boot id, xored with the second half.
fn boot() -> Option<u64> {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let digits: String = id.chars().filter(char::is_ascii_hexdigit).collect();
    let id = u128::from_str_radix(&digits, 16).ok()?;
    Some((id >> 64) as u64 ^ id as u64).filter(|&number| number != 0)
}

/// A number for the namespaces of process ids and start times.
fn namespace() -> Option<u64> {
    let inode = |of: &str| {
        let name = fs::read_link(format!("/proc/self/ns/{of}")).ok()?;
        name.to_str()?.split_once('[')?.1.strip_suffix(']')?.parse::<u32>().ok()
    };
    // Systems without namespaces of times have a single time.
    Some(u64::from(inode("pid")?) | u64::from(inode("time").unwrap_or(0)) << 32)
}

/// The system's record of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stat {
    pid: Pid,
    state: u8,
    threads: u64,
    /// Ticks since boot.
    start: u64,
}

impl Stat {
    fn of(pid: Pid) -> io::Result<Self> {
        Self::read(&pid.as_raw_nonzero().to_string())
    }

    fn read(process: &str) -> io::Result<Self> {
        let text = fs::read(format!("/proc/{process}/stat"))?;
        // The name may be no UTF-8.
        Self::parse(&String::from_utf8_lossy(&text)).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
    }

    /// Fields are counted from 1 in proc(5); the second, a name, may contain anything.
    fn parse(text: &str) -> Option<Self> {
        let (pid, rest) = text.split_once(' ')?;
        let mut fields = rest.rsplit_once(')')?.1.split_ascii_whitespace();
        let state = *fields.next()?.as_bytes().first()?;
        let threads = fields.nth(20 - 4)?.parse().ok()?;
        let start = fields.nth(22 - 21)?.parse().ok()?;
        Some(Self { pid: Pid::from_raw(pid.parse().ok()?)?, state, threads, start })
    }

    /// Whether no thread of the process will run again. An ended first thread is a zombie, too, while more threads run.
    fn is_over(&self) -> bool {
        matches!(self.state, b'X' | b'x') || self.state == b'Z' && self.threads <= 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::time::Duration;
    use std::process::{Child, Command};

    fn child() -> (Child, u64) {
        let child = Command::new("sleep").arg("100").spawn().unwrap();
        let pid = Pid::from_child(&child);
        let tag = encode(pid, Stat::of(pid).unwrap().start);
        (child, tag)
    }

    fn becomes(tag: u64, expected: OwnerState) {
        let began = std::time::Instant::now();
        while state_of(tag, domain()) != expected {
            assert!(began.elapsed() < Duration::from_secs(60), "{:?}", state_of(tag, domain()));
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn signal(child: &Child, signal: rustix::process::Signal) {
        rustix::process::kill_process(Pid::from_child(child), signal).unwrap();
    }

    fn state_letter(child: &Child) -> u8 {
        Stat::of(Pid::from_child(child)).unwrap().state
    }

    #[test]
    fn this_process_is_alive_under_its_own_tag() {
        let tag = tag_in(domain());
        assert_ne!(domain(), ProcessDomain::default());
        assert_eq!(decode(tag).map(|(pid, _)| pid), Some(getpid()));
        assert_eq!(state_of(tag, domain()), OwnerState::Alive);
        assert_eq!(tag_in(domain()), tag, "and has one tag");
    }

    #[test]
    fn a_stopped_process_is_alive_and_one_that_ended_is_dead() {
        let (mut child, tag) = child();
        assert_eq!(state_of(tag, domain()), OwnerState::Alive);
        signal(&child, rustix::process::Signal::STOP);
        while state_letter(&child) != b'T' {
            std::thread::yield_now();
        }
        assert_eq!(state_of(tag, domain()), OwnerState::Alive);
        signal(&child, rustix::process::Signal::KILL);
        // A zombie: its parent has not waited for it yet.
        becomes(tag, OwnerState::Dead);
        assert_eq!(state_letter(&child), b'Z');
        child.wait().unwrap();
        assert_eq!(state_of(tag, domain()), OwnerState::Dead);
    }

    #[test]
    fn another_process_with_the_same_id_is_not_the_owner() {
        let (mut child, tag) = child();
        let (pid, start) = decode(tag).unwrap();
        assert_eq!(state_of(encode(pid, start - 1), domain()), OwnerState::Dead);
        assert_eq!(state_of(encode(pid, start + 1), domain()), OwnerState::Dead);
        assert_eq!(state_of(encode(getpid(), 0), domain()), OwnerState::Dead, "nor this process");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn of_other_domains_and_of_those_who_have_not_said_nothing_is_known() {
        let (here, tag) = (domain(), tag_in(domain()));
        let gone = encode(Pid::from_raw((1 << PID_BITS) - 1).unwrap(), 5);
        assert_eq!(state_of(gone, here), OwnerState::Dead);
        let other_boot = ProcessDomain { boot: here.boot ^ 1, ..here };
        let other_namespace = ProcessDomain { namespace: here.namespace ^ 1, ..here };
        for other in [other_boot, other_namespace, ProcessDomain::default()] {
            assert_eq!((tag_in(other), state_of(tag, other)), (NOT_SAID, OwnerState::Unknown));
            assert_eq!(state_of(gone, other), OwnerState::Unknown);
        }
        for other in [0, NOT_SAID, gone & !KNOWN, KNOWN, u64::MAX << PID_BITS] {
            assert_eq!(state_of(other, here), OwnerState::Unknown, "{other:#x}");
        }
    }

    #[test]
    fn a_process_whose_first_thread_has_ended_is_alive() {
        // SAFETY: the child goes on with what a program may do: it allocates, as glibc allows after a fork.
        let child = unsafe { libc::fork() };
        if child == 0 {
            std::thread::spawn(|| {
                std::thread::sleep(Duration::from_secs(100));
                std::process::exit(0);
            });
            // SAFETY: ends this thread alone.
            unsafe { libc::syscall(libc::SYS_exit, 0) };
        }
        let pid = Pid::from_raw(child).unwrap();
        let tag = encode(pid, Stat::of(pid).unwrap().start);
        while Stat::of(pid).unwrap().state != b'Z' {
            std::thread::yield_now();
        }
        assert_eq!(state_of(tag, domain()), OwnerState::Alive);
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        becomes(tag, OwnerState::Dead);
        rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty()).unwrap();
        assert_eq!(state_of(tag, domain()), OwnerState::Dead);
    }

    #[test]
    fn a_forked_process_has_a_tag_of_its_own() {
        let parents = tag_in(domain());
        // SAFETY: as above.
        let child = unsafe { libc::fork() };
        if child == 0 {
            let own = tag_in(domain());
            let is_right = own != parents
                && decode(own).is_some_and(|(pid, _)| pid == getpid())
                && state_of(parents, domain()) == OwnerState::Alive
                && state_of(own, domain()) == OwnerState::Alive;
            // SAFETY: ends the process at once, without the exit work of the harness.
            unsafe { libc::_exit(i32::from(!is_right)) };
        }
        let mut status = 0;
        // SAFETY: the status is this function's.
        assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
        assert_eq!(status, 0);
        assert_eq!(tag_in(domain()), parents);
    }

    #[test]
    fn a_name_may_contain_what_separates_fields() {
        let fields = "S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 77 18 987654 20 21";
        let stat = Stat::parse(&format!("42 (a) b ) Z 1 (c) {fields}")).unwrap();
        assert_eq!(stat, Stat { pid: Pid::from_raw(42).unwrap(), state: b'S', threads: 77, start: 987_654 });
        for bad in ["", "42", "42 (x)", "42 (x) S 1 2", "0 (x) S", "x (y) S 1"] {
            assert_eq!(Stat::parse(bad), None, "{bad}");
        }
    }
}
