//! Calls of users' code whose panics must harm no other code.

use core::any::Any;
use core::panic::AssertUnwindSafe;
use std::panic::catch_unwind;

/// Calls `f`. A panic of `f` is caught without any other effect, and its words are returned.
pub(crate) fn contain<R>(f: impl FnOnce() -> R) -> Result<R, String> {
    catch_unwind(AssertUnwindSafe(f)).map_err(words_of)
}

/// The words of a panic, if it has any.
pub(crate) fn words_of(panic: Box<dyn Any + Send>) -> String {
    let words = match (panic.downcast_ref::<String>(), panic.downcast_ref::<&str>()) {
        (Some(words), _) => words.clone(),
        (_, Some(words)) => (*words).to_owned(),
        _ => "a value that is no text".to_owned(),
    };
    // A payload is the user's, too: its destructor may panic, with another such payload.
    if let Err(worse) = catch_unwind(AssertUnwindSafe(|| drop(panic))) {
        core::mem::forget(worse);
    }
    words
}

/// A user's value whose destructor may panic: dropped under a guard that contains the panic.
#[derive(Debug)]
pub(crate) struct Contained<T>(Option<T>);

impl<T> Contained<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self(Some(value))
    }

    /// The value; `None` once it was taken.
    pub(crate) const fn get_mut(&mut self) -> Option<&mut T> {
        self.0.as_mut()
    }

    pub(crate) fn take(&mut self) -> Option<T> {
        self.0.take()
    }
}

impl<T> Drop for Contained<T> {
    fn drop(&mut self) {
        if let Some(value) = self.0.take() {
            // The panic hook has reported the panic.
            let _ = contain(|| drop(value));
        }
    }
}
