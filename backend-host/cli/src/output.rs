//! Files written by a command.

use k2k::inspect::begins_like_a_fabric;
use std::fs::{self, File};
use std::io;
use std::path::Path;

/// Opens a file to write, and to read again: a new file, or the existing file, emptied.
///
/// # Errors
/// The system's error. A fabric is refused, under any of its names: programs with the fabric open would end by SIGBUS.
pub(crate) fn create(path: &Path) -> io::Result<File> {
    // A pipe or a terminal is for writing alone.
    let is_file = fs::metadata(path).map_or(true, |meta| meta.is_file());
    let file = File::options().read(is_file).write(true).create(is_file).truncate(false).open(path)?;
    if is_file {
        // Checks the open file, not the path: the path may name another file by now.
        if begins_like_a_fabric(&file) {
            return Err(io::Error::other("it is a fabric, which programs may use: name another file"));
        }
        file.set_len(0)?;
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use k2k::fabric::MAGIC;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_fabric_is_refused_under_each_of_its_names_and_stays_whole() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let bytes = [&MAGIC.to_le_bytes()[..], &[7; 100]].concat();
        fs::write(at("fabric"), &bytes).unwrap();
        fs::hard_link(at("fabric"), at("hard")).unwrap();
        symlink(at("fabric"), at("soft")).unwrap();
        for name in ["fabric", "hard", "soft"] {
            assert!(create(&at(name)).unwrap_err().to_string().contains("it is a fabric"), "{name}");
            assert_eq!(fs::read(at(name)).unwrap(), bytes, "{name}");
        }
    }

    #[test]
    fn any_other_file_is_emptied_and_a_device_is_written_to() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        create(&path).unwrap();
        fs::write(&path, "some text").unwrap();
        create(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().len(), 0);
        create(Path::new("/dev/null")).unwrap();
        assert!(create(Path::new("/nowhere/file")).is_err());
    }
}
