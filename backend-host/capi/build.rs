//! The name under which programs that are linked with the shared library look for it.

use std::io::{self, Write as _};

fn main() -> io::Result<()> {
    let mut cargo = io::stdout();
    writeln!(cargo, "cargo::rustc-cdylib-link-arg=-Wl,-soname,libk2k.so.0")?;
    writeln!(cargo, "cargo::rerun-if-changed=build.rs")
}
