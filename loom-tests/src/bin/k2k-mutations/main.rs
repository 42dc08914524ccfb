//! `loom-tests/mutations`: weakens each ordering of `core/src` and requires that a loom model notices.

// Not built with loom, which would build a TOML parser for every run of the models.
#[cfg(not(loom))]
mod list;
#[cfg(not(loom))]
mod runner;
#[cfg(not(loom))]
mod sites;

fn main() -> std::process::ExitCode {
    #[cfg(not(loom))]
    return runner::main();
    #[cfg(loom)]
    std::process::ExitCode::FAILURE
}
