//! Helpers for the loom models in `tests/`. Without `--cfg k2k_loom` there is nothing here: run `loom-tests/run`.

#[cfg(k2k_loom)]
mod checker;
#[cfg(k2k_loom)]
pub use checker::{model, must_fail};

#[cfg(all(test, not(k2k_loom)))]
mod tests {
    /// Says in every ordinary test run what was not tested.
    #[test]
    #[ignore = "loom models: run loom-tests/run"]
    fn loom_models() {}
}
