//! Helpers for the loom models in `tests/`. Without `--cfg loom` there is nothing here: run `loom-tests/run`.

#[cfg(loom)]
mod checker;
#[cfg(loom)]
pub use checker::{model, must_fail};

#[cfg(all(test, not(loom)))]
mod tests {
    /// Says in every ordinary test run what was not tested.
    #[test]
    #[ignore = "loom models: run loom-tests/run"]
    fn loom_models() {}
}
