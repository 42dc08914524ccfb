//! The fabrics on this machine.

use super::image::{begins_like_a_fabric, open_file};
use crate::memory::SHM;
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::DirEntryExt as _;
use std::path::{Path, PathBuf};

/// Result of a search.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Files that begin like a fabric, in order.
    pub fabrics: Vec<PathBuf>,
    /// Unreadable files in the usual folder: they may be fabrics as well.
    pub unreadable: Vec<PathBuf>,
}

/// Looks for fabrics: in `/dev/shm`, the folder of names without a `/`, and among all files mapped as shared memory by
/// running processes, as far as this user may see the processes.
#[must_use]
pub fn find() -> Found {
    let mut paths: BTreeSet<PathBuf> =
        fs::read_dir(SHM).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    paths.extend(shared_by_processes());
    let mut found = Found::default();
    for path in paths {
        // Also a folder, a dangling link, or a file that was removed meanwhile: none is a fabric.
        match open_file(&path) {
            Ok(file) if begins_like_a_fabric(&file) => found.fabrics.push(path),
            Err(super::InspectError::NotReadable { .. }) if path.starts_with(SHM) => found.unreadable.push(path),
            _ => {}
        }
    }
    found
}

/// Files that processes have mapped shared and writable, from the start of the file.
fn shared_by_processes() -> BTreeSet<PathBuf> {
    let is_process = |path: &Path| path.file_name().and_then(|n| n.to_str()).is_some_and(|n| n.parse::<u32>().is_ok());
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten().map(|entry| entry.path());
    let maps = processes.filter(|path| is_process(path)).filter_map(|path| fs::read(path.join("maps")).ok());
    // A path that is not UTF-8 is not found.
    let mapped: BTreeSet<_> = maps
        .flat_map(|maps| String::from_utf8_lossy(&maps).lines().filter_map(shared_file).collect::<Vec<_>>())
        .collect();
    mapped.into_iter().filter_map(|(path, inode)| named(path, inode)).collect()
}

/// The file and inode of a line of proc(5)'s `maps`: address, permissions, offset, device, inode, path.
fn shared_file(line: &str) -> Option<(PathBuf, u64)> {
    let mut rest = line;
    let mut field = || {
        let (field, after) = rest.split_once(' ')?;
        rest = after.trim_start();
        Some(field)
    };
    let (_, permissions, offset) = (field()?, field()?, field()?);
    let is_whole = permissions.starts_with("rw") && permissions.ends_with('s') && offset.bytes().all(|b| b == b'0');
    let (_, inode) = (field()?, field()?.parse().ok()?);
    (is_whole && rest.starts_with('/')).then(|| (PathBuf::from(rest), inode))
}

/// The name of a mapped file. The creator of a fabric names the complete file, and goes on with the earlier mapping, shown
/// by the system as a removed file: `#` and the inode.
fn named(path: PathBuf, inode: u64) -> Option<PathBuf> {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()?.to_str()) else { return Some(path) };
    if !name.strip_prefix('#').is_some_and(|rest| rest.ends_with(" (deleted)")) {
        return Some(path);
    }
    fs::read_dir(folder).ok()?.flatten().find(|entry| entry.ino() == inode).map(|entry| entry.path())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_shared_writable_files_are_looked_at() {
        let line = |permissions: &str, offset: &str, path: &str| {
            shared_file(&format!("7f0000000000-7f0000001000 {permissions} {offset} 00:19 42        {path}"))
        };
        assert_eq!(line("rw-s", "00000000", "/dev/shm/a b"), Some((PathBuf::from("/dev/shm/a b"), 42)));
        assert_eq!(line("r--s", "00000000", "/x"), None);
        assert_eq!(line("rw-p", "00000000", "/x"), None);
        assert_eq!(line("rw-s", "00001000", "/x"), None);
        assert_eq!(line("rw-s", "00000000", "[heap]"), None);
        for bad in ["", "a", "a b c", "7f00-7f01 rw-s 00000000 00:01 0"] {
            assert_eq!(shared_file(bad), None, "{bad}");
        }
    }
}
