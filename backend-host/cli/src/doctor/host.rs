//! Requirements of kernels on a host, and means to make them faster.

use super::Check;
use crate::text;
use std::path::Path;
use std::{fs, thread};

pub(super) fn checks() -> Vec<Check> {
    vec![cores(), memory(), messages(), shared_memory(), clock(), huge_pages()]
}

fn cores() -> Check {
    const NEEDED_FOR: &str = "a kernel on each";
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let model = cpu_field("model name").or_else(|| cpu_field("Model")).unwrap_or_else(|| "unknown model".to_owned());
    let plural = if cores == 1 { "" } else { "s" };
    Check::ok("cores", NEEDED_FOR, format!("{cores} core{plural}, {} ({model})", std::env::consts::ARCH)).required()
}

/// The value of the first line with this name in /proc/cpuinfo.
fn cpu_field(name: &str) -> Option<String> {
    field(&fs::read_to_string("/proc/cpuinfo").ok()?, name)
}

/// The value of the first line `name : value`.
fn field(text: &str, name: &str) -> Option<String> {
    let mut pairs = text.lines().filter_map(|line| line.split_once(':'));
    pairs.find(|(key, _)| key.trim() == name).map(|(_, value)| value.trim().to_owned())
}

/// A line of /proc/meminfo in its own unit: bytes for kB, otherwise a count.
fn meminfo(name: &str) -> Option<u64> {
    let value = field(&fs::read_to_string("/proc/meminfo").ok()?, name)?;
    let (number, unit) = value.split_once(' ').unwrap_or((&value, ""));
    Some(number.parse::<u64>().ok()? * if unit == "kB" { 1024 } else { 1 })
}

/// A size in bytes, or `?` if the size is unknown.
fn size(bytes: Option<u64>) -> String {
    bytes.map_or_else(|| "?".to_owned(), text::bytes)
}

fn memory() -> Check {
    const NEEDED_FOR: &str = "fabrics: k2k run says how large its own is";
    let found = format!("{} free of {}", size(meminfo("MemAvailable")), size(meminfo("MemTotal")));
    Check::ok("memory", NEEDED_FOR, found)
}

/// Sends messages between kernels on threads, waiting and being woken.
fn messages() -> Check {
    const NAME: &str = "messages";
    const NEEDED_FOR: &str = "everything";
    match super::try_out::round_trips() {
        Ok(tried) => {
            let each = text::time_ns(tried.ns_each);
            let found = format!("{} round trips between two parking threads, {each} each", text::grouped(tried.count));
            Check::ok(NAME, NEEDED_FOR, found)
        }
        Err(e) => Check::missing(NAME, NEEDED_FOR, e, "please report this, with the output of uname -a"),
    }
    .required()
}

fn shared_memory() -> Check {
    const NAME: &str = "shared memory";
    const NEEDED_FOR: &str = "kernels in several processes";
    let shm = Path::new("/dev/shm");
    let space =
        rustix::fs::statvfs(shm).ok().map(|stat| (stat.f_bavail * stat.f_frsize, stat.f_blocks * stat.f_frsize));
    let remedy = "mount -t tmpfs tmpfs /dev/shm (in a container: --shm-size=1g); or name a fabric by a path elsewhere";
    match (super::try_out::shared_fabric(), space) {
        (Ok(()), Some((free, total))) => {
            let found = format!("{} free of {} in /dev/shm", text::bytes(free), text::bytes(total));
            Check::ok(NAME, NEEDED_FOR, found)
        }
        (Ok(()), None) => Check::ok(NAME, NEEDED_FOR, "works"),
        (Err(e), _) => Check::missing(NAME, NEEDED_FOR, e, remedy),
    }
}

fn clock() -> Check {
    const NAME: &str = "clock";
    const NEEDED_FOR: &str = "the time without a system call";
    let source = fs::read_to_string("/sys/devices/system/clocksource/clocksource0/current_clocksource");
    let source = source.map(|name| name.trim().to_owned()).unwrap_or_default();
    let flags = cpu_field("flags").unwrap_or_default();
    let has = |flag| flags.split(' ').any(|f| f == flag);
    if source == "tsc" && has("constant_tsc") && has("nonstop_tsc") {
        return Check::ok(NAME, NEEDED_FOR, "constant, nonstop TSC, and the system uses it");
    }
    if cfg!(not(target_arch = "x86_64")) {
        return Check::ok(NAME, NEEDED_FOR, "the system's, read in user space");
    }
    let source = if source.is_empty() { "unknown" } else { &source };
    let found =
        format!("no time stamp counter that can be relied on (clock source: {source}); reading the clock is slower");
    Check::missing(NAME, NEEDED_FOR, found, "on a machine whose TSC is stable, boot with clocksource=tsc")
}

fn huge_pages() -> Check {
    const NAME: &str = "huge pages";
    const NEEDED_FOR: &str = "fewer TLB misses in large fabrics";
    let page = size(meminfo("Hugepagesize"));
    if let Some(free) = meminfo("HugePages_Free").filter(|&free| free > 0) {
        return Check::ok(NAME, NEEDED_FOR, format!("{} free, {page} each", text::grouped(free)));
    }
    let transparent = fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled").unwrap_or_default();
    let found = if transparent.contains("[always]") || transparent.contains("[madvise]") {
        format!("none reserved; transparent ones of {page} are tried instead")
    } else {
        "none reserved, and transparent ones are off".to_owned()
    };
    Check::missing(NAME, NEEDED_FOR, found, "sysctl vm.nr_hugepages=512")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_their_whole_name() {
        let text = "processor\t: 0\nmodel\t\t: 207\nmodel name\t: A: fast one\n";
        assert_eq!(field(text, "model name").as_deref(), Some("A: fast one"));
        assert_eq!(field(text, "model").as_deref(), Some("207"));
        assert_eq!(field(text, "flags"), None);
    }
}
