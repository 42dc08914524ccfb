//! Results: a code for programs, and words for people, which are those of the Rust library.

use core::cell::RefCell;
use core::ffi::{CStr, c_char};
use core::fmt;
use core::panic::AssertUnwindSafe;
use k2k::k2k_core::RegisterError;
use k2k::{
    ControlError, EndpointError, MemoryError, PresenceError, ReceiptError, ReceiveError, RequestError, SendError,
};
use std::ffi::CString;
use std::panic::catch_unwind;

/// What a call came to. The numbers never change; later versions may add some.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum k2k_result {
    /// It has done what it was asked.
    K2K_OK = 0,
    /// An argument is NULL that must not be.
    K2K_NULL = 1,
    /// The handle was closed, or never opened.
    K2K_BAD_HANDLE = 2,
    /// Another thread, or a handler further up, uses this endpoint at this moment.
    K2K_IN_USE = 3,
    /// The `size` of a struct is none that this library knows.
    K2K_BAD_SIZE = 4,
    /// An argument has a value that it cannot have.
    K2K_BAD_ARGUMENT = 5,
    /// The buffer is too small for the message, which was kept: receive again with `len` bytes.
    K2K_BUFFER_TOO_SMALL = 6,
    /// Too many brokers or endpoints are open.
    K2K_TOO_MANY_HANDLES = 7,
    /// A mistake of this library: it panicked, and caught the panic.
    K2K_PANIC = 8,

    /// There is no such file.
    K2K_FILE_NOT_FOUND = 20,
    /// There is a file of that name already.
    K2K_FILE_EXISTS = 21,
    /// The file system has too little room.
    K2K_NO_SPACE = 22,
    /// The name cannot be a file's.
    K2K_BAD_FILE_NAME = 23,
    /// The file is not one that may be used: its type, owner, group or mode.
    K2K_FILE_REFUSED = 24,
    /// The file is no fabric, or one of another version, clock or shape; or no fabric has the shape asked for.
    K2K_NOT_A_FABRIC = 25,
    /// The system refused.
    K2K_SYSTEM = 26,

    /// No kernel can have this name.
    K2K_BAD_NAME = 40,
    /// Another kernel has this name.
    K2K_NAME_IN_USE = 41,
    /// The fabric has no free kernel index, or not the one asked for.
    K2K_FULL = 42,

    /// There is no such kernel, or no such kernel any more.
    K2K_NOT_FOUND = 60,
    /// The inbox has no room for this sender now.
    K2K_QUEUE_FULL = 61,
    /// It did not happen in time.
    K2K_TIMEOUT = 62,
    /// A supervisor told this kernel to stop.
    K2K_STOPPED = 63,
    /// The receiver may not receive from this kernel.
    K2K_NOT_ALLOWED = 64,
    /// The payload is longer than a message of this fabric.
    K2K_PAYLOAD_TOO_LONG = 65,
    /// This process was forked: the handle is the parent's.
    K2K_FORKED = 66,
    /// This kernel was taken for dead, and its kernel index taken away.
    K2K_EVICTED = 67,

    /// The request was not received, and will not be: see its status.
    K2K_NOT_RECEIVED = 80,
    /// No answer came in time; the request was received, or may have been: see its status.
    K2K_NO_ANSWER = 81,
    /// The service left without an answer.
    K2K_GONE = 82,
    /// Too many other messages came while the answer was waited for: receive them first.
    K2K_CROWDED = 83,
    /// The service answered no. For `k2k.hpp`; in C an answer of the kind `K2K_REFUSAL` says so.
    K2K_REFUSED = 84,

    /// The receipt was overwritten by a later message.
    K2K_RECEIPT_OVERWRITTEN = 100,
    /// No message with this id was sent.
    K2K_RECEIPT_UNKNOWN = 101,
}

use k2k_result::{
    K2K_BAD_ARGUMENT, K2K_BAD_FILE_NAME, K2K_BAD_NAME, K2K_CROWDED, K2K_EVICTED, K2K_FILE_EXISTS, K2K_FILE_NOT_FOUND,
    K2K_FILE_REFUSED, K2K_FORKED, K2K_FULL, K2K_GONE, K2K_NAME_IN_USE, K2K_NO_ANSWER, K2K_NO_SPACE, K2K_NOT_A_FABRIC,
    K2K_NOT_ALLOWED, K2K_NOT_FOUND, K2K_NOT_RECEIVED, K2K_NULL, K2K_OK, K2K_PANIC, K2K_PAYLOAD_TOO_LONG,
    K2K_QUEUE_FULL, K2K_RECEIPT_OVERWRITTEN, K2K_RECEIPT_UNKNOWN, K2K_STOPPED, K2K_SYSTEM, K2K_TIMEOUT,
};

/// The words of a failure. Frequent failures are put into words only when the program asks for them.
#[derive(Debug)]
enum Words {
    Text(String),
    Send(SendError),
    Receive(ReceiveError),
}

impl fmt::Display for Words {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Send(e) => e.fmt(f),
            Self::Receive(e) => e.fmt(f),
        }
    }
}

/// Why a call did not do what it was asked.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) code: k2k_result,
    words: Words,
}

impl Failure {
    pub(crate) const fn new(code: k2k_result, words: String) -> Self {
        Self { code, words: Words::Text(words) }
    }

    pub(crate) fn null(what: &str) -> Self {
        Self::new(K2K_NULL, format!("{what} is NULL"))
    }

    pub(crate) fn argument(words: impl Into<String>) -> Self {
        Self::new(K2K_BAD_ARGUMENT, words.into())
    }
}

const fn code_of_send(e: &SendError) -> k2k_result {
    match e {
        SendError::NotFound { .. } => K2K_NOT_FOUND,
        SendError::QueueFull { .. } => K2K_QUEUE_FULL,
        SendError::Timeout { .. } => K2K_TIMEOUT,
        SendError::Stopped { .. } => K2K_STOPPED,
        SendError::NotAllowed { .. } => K2K_NOT_ALLOWED,
        SendError::PayloadTooLong(_) => K2K_PAYLOAD_TOO_LONG,
        SendError::Forked => K2K_FORKED,
        SendError::Evicted { .. } => K2K_EVICTED,
        _ => K2K_BAD_ARGUMENT,
    }
}

const fn code_of_receive(e: ReceiveError) -> k2k_result {
    match e {
        ReceiveError::Timeout => K2K_TIMEOUT,
        ReceiveError::Forked => K2K_FORKED,
        ReceiveError::Evicted => K2K_EVICTED,
        _ => K2K_STOPPED,
    }
}

impl From<SendError> for Failure {
    fn from(e: SendError) -> Self {
        Self { code: code_of_send(&e), words: Words::Send(e) }
    }
}

impl From<ReceiveError> for Failure {
    fn from(e: ReceiveError) -> Self {
        Self { code: code_of_receive(e), words: Words::Receive(e) }
    }
}

impl From<RequestError> for Failure {
    fn from(e: RequestError) -> Self {
        let code = match &e {
            RequestError::Send(e) => code_of_send(e),
            RequestError::NotReceived(_) => K2K_NOT_RECEIVED,
            RequestError::NoAnswer(_) => K2K_NO_ANSWER,
            RequestError::Gone(_) => K2K_GONE,
            RequestError::Crowded { .. } => K2K_CROWDED,
            RequestError::Forked => K2K_FORKED,
            RequestError::Evicted => K2K_EVICTED,
            RequestError::Stopped => K2K_STOPPED,
            _ => K2K_BAD_ARGUMENT,
        };
        Self::new(code, e.to_string())
    }
}

impl From<MemoryError> for Failure {
    fn from(e: MemoryError) -> Self {
        let code = match &e {
            MemoryError::BadName { .. } => K2K_BAD_FILE_NAME,
            MemoryError::Exists { .. } => K2K_FILE_EXISTS,
            MemoryError::NotFound { .. } => K2K_FILE_NOT_FOUND,
            MemoryError::NoSpace { .. } | MemoryError::FileSizeLimit { .. } | MemoryError::CannotReserve { .. } => {
                K2K_NO_SPACE
            }
            MemoryError::NotAFile { .. }
            | MemoryError::BadMode { .. }
            | MemoryError::SymbolicLink { .. }
            | MemoryError::Owner { .. }
            | MemoryError::Mode { .. }
            | MemoryError::Group { .. } => K2K_FILE_REFUSED,
            MemoryError::TooShort { .. } | MemoryError::Attach { .. } => K2K_NOT_A_FABRIC,
            _ => K2K_SYSTEM,
        };
        Self::new(code, e.to_string())
    }
}

impl From<EndpointError> for Failure {
    fn from(e: EndpointError) -> Self {
        let code = match &e {
            EndpointError::Name(_) => K2K_BAD_NAME,
            EndpointError::Register(RegisterError::NameInUse { .. }) => K2K_NAME_IN_USE,
            EndpointError::Register(_) => K2K_FULL,
            _ => K2K_FORKED,
        };
        Self::new(code, e.to_string())
    }
}

impl From<PresenceError> for Failure {
    fn from(e: PresenceError) -> Self {
        let code = match &e {
            PresenceError::Name(_) => K2K_BAD_NAME,
            PresenceError::NotRegistered { .. } | PresenceError::StillRegistered { .. } => K2K_TIMEOUT,
            PresenceError::Forked => K2K_FORKED,
            PresenceError::Evicted => K2K_EVICTED,
            _ => K2K_STOPPED,
        };
        Self::new(code, e.to_string())
    }
}

impl From<ControlError> for Failure {
    fn from(e: ControlError) -> Self {
        let code = if matches!(e, ControlError::Forked) { K2K_FORKED } else { K2K_NOT_FOUND };
        Self::new(code, e.to_string())
    }
}

impl From<ReceiptError> for Failure {
    fn from(e: ReceiptError) -> Self {
        let code = if matches!(e, ReceiptError::Overwritten) { K2K_RECEIPT_OVERWRITTEN } else { K2K_RECEIPT_UNKNOWN };
        Self::new(code, e.to_string())
    }
}

thread_local! {
    /// The last failure on this thread, and its words once they were asked for.
    static LAST: RefCell<(Option<Failure>, Option<CString>)> = const { RefCell::new((None, None)) };
}

/// Runs a call: no panic leaves it, and the words of a failure are kept for [`k2k_error_message`].
pub(crate) fn guard(call: impl FnOnce() -> Result<(), Failure>) -> k2k_result {
    let failure = match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(())) => return K2K_OK,
        Ok(Err(failure)) => failure,
        Err(panic) => {
            let words = match (panic.downcast_ref::<String>(), panic.downcast_ref::<&str>()) {
                (Some(words), _) => words.clone(),
                (_, Some(words)) => (*words).to_owned(),
                _ => "no words".to_owned(),
            };
            Failure::new(K2K_PANIC, format!("a mistake of this library, please report it: {words}"))
        }
    };
    let code = failure.code;
    // At the end of a thread there is no place for the words.
    let _ = LAST.try_with(|last| {
        if let Ok(mut last) = last.try_borrow_mut() {
            last.0 = Some(failure);
        }
    });
    code
}

/// The words of the last call on this thread that failed, as a string in UTF-8: what was wrong, and what would be right.
/// Empty if none has failed. Good until the next call of this function on this thread.
#[unsafe(no_mangle)]
pub extern "C" fn k2k_error_message() -> *const c_char {
    let words = LAST.try_with(|last| {
        let mut last = last.try_borrow_mut().ok()?;
        if let Some(failure) = last.0.take() {
            // Names come from callers and may contain anything but a NUL; a NUL would end the words early.
            last.1 = CString::new(failure.words.to_string().replace('\0', "\u{fffd}")).ok();
        }
        last.1.as_ref().map(|words| words.as_ptr())
    });
    words.ok().flatten().unwrap_or(c"".as_ptr())
}

/// The name of a result, such as `"K2K_QUEUE_FULL"`; `"unknown"` for a number that is none.
#[unsafe(no_mangle)]
pub extern "C" fn k2k_result_name(result: i32) -> *const c_char {
    ALL.iter().find(|(known, _)| *known as i32 == result).map_or(c"unknown", |(_, name)| name).as_ptr()
}

macro_rules! names {
    ($($name:ident),* $(,)?) => {
        /// All results with their names.
        pub(crate) const ALL: &[(k2k_result, &CStr)] = &[$((k2k_result::$name, {
            match CStr::from_bytes_with_nul(concat!(stringify!($name), "\0").as_bytes()) {
                Ok(name) => name,
                Err(_) => c"",
            }
        })),*];
    };
}
names!(
    K2K_OK,
    K2K_NULL,
    K2K_BAD_HANDLE,
    K2K_IN_USE,
    K2K_BAD_SIZE,
    K2K_BAD_ARGUMENT,
    K2K_BUFFER_TOO_SMALL,
    K2K_TOO_MANY_HANDLES,
    K2K_PANIC,
    K2K_FILE_NOT_FOUND,
    K2K_FILE_EXISTS,
    K2K_NO_SPACE,
    K2K_BAD_FILE_NAME,
    K2K_FILE_REFUSED,
    K2K_NOT_A_FABRIC,
    K2K_SYSTEM,
    K2K_BAD_NAME,
    K2K_NAME_IN_USE,
    K2K_FULL,
    K2K_NOT_FOUND,
    K2K_QUEUE_FULL,
    K2K_TIMEOUT,
    K2K_STOPPED,
    K2K_NOT_ALLOWED,
    K2K_PAYLOAD_TOO_LONG,
    K2K_FORKED,
    K2K_EVICTED,
    K2K_NOT_RECEIVED,
    K2K_NO_ANSWER,
    K2K_GONE,
    K2K_CROWDED,
    K2K_REFUSED,
    K2K_RECEIPT_OVERWRITTEN,
    K2K_RECEIPT_UNKNOWN
);

#[cfg(test)]
mod tests {
    use super::*;

    fn words() -> String {
        // SAFETY: a string that ends with a NUL.
        unsafe { CStr::from_ptr(k2k_error_message()) }.to_str().unwrap().to_owned()
    }

    #[test]
    fn a_panic_does_not_leave_a_call_and_its_words_are_kept() {
        assert_eq!(words(), "");
        assert_eq!(guard(|| panic!("no {}", 7)), K2K_PANIC);
        assert_eq!(words(), "a mistake of this library, please report it: no 7");
        assert_eq!(guard(|| std::panic::panic_any(7)), K2K_PANIC);
        assert!(words().ends_with("no words"));
        assert_eq!(guard(|| Ok(())), K2K_OK);
        assert!(words().ends_with("no words"), "of the last call that failed");
        assert_eq!(guard(|| Err(Failure::argument("a\0b"))), K2K_BAD_ARGUMENT);
        assert_eq!(words(), "a\u{fffd}b", "a NUL ends no words");
    }

    /// The words are the Rust library's, and each code is that of its kind of error.
    #[test]
    fn each_error_has_its_code_and_its_words() {
        let kernel = k2k::KernelId::new(1, 1);
        let cases: [(Failure, k2k_result, String); 9] = {
            let full = SendError::QueueFull { next_hop: kernel };
            let memory = || MemoryError::BadName { name: "".into() };
            [
                (full.into(), K2K_QUEUE_FULL, full.to_string()),
                (SendError::Forked.into(), K2K_FORKED, SendError::Forked.to_string()),
                (ReceiveError::Evicted.into(), K2K_EVICTED, ReceiveError::Evicted.to_string()),
                (RequestError::Gone(kernel).into(), K2K_GONE, RequestError::Gone(kernel).to_string()),
                (RequestError::Send(full).into(), K2K_QUEUE_FULL, full.to_string()),
                (memory().into(), K2K_BAD_FILE_NAME, memory().to_string()),
                (EndpointError::Forked.into(), K2K_FORKED, EndpointError::Forked.to_string()),
                (ReceiptError::Overwritten.into(), K2K_RECEIPT_OVERWRITTEN, ReceiptError::Overwritten.to_string()),
                (PresenceError::Stopped.into(), K2K_STOPPED, PresenceError::Stopped.to_string()),
            ]
        };
        for (failure, code, expected) in cases {
            assert_eq!(failure.code, code);
            assert_eq!(guard(|| Err(failure)), code);
            assert_eq!(words(), expected);
        }
    }

    /// They stand in programs that were compiled long ago.
    #[test]
    fn the_numbers_of_results_are_pinned() {
        let numbers: Vec<i32> = ALL.iter().map(|(result, _)| *result as i32).collect();
        let pinned = [
            0, 1, 2, 3, 4, 5, 6, 7, 8, 20, 21, 22, 23, 24, 25, 26, 40, 41, 42, 60, 61, 62, 63, 64, 65, 66, 67, 80, 81,
            82, 83, 84, 100, 101,
        ];
        assert_eq!(numbers, pinned);
    }
}
