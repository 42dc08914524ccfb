//! `loom-tests/mutations`: weakens each ordering of `core/src` and requires that a loom model notices.

// Not built with loom, which would build a TOML parser for every run of the models.
#[cfg(not(k2k_loom))]
mod list;
#[cfg(not(k2k_loom))]
mod runner;
#[cfg(not(k2k_loom))]
mod sites;

fn main() -> std::process::ExitCode {
    #[cfg(not(k2k_loom))]
    return runner::main();
    #[cfg(k2k_loom)]
    std::process::ExitCode::FAILURE
}
