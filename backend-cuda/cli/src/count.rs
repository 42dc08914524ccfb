//! A kernel that counts in a word of host memory, written by hand: it needs nothing but the driver.

use core::mem::offset_of;
use k2k_cuda::{Launch, Outcome, Report};

/// Waits for a gate, and then writes 1, 2, 3 and so on into a word of host memory. Parameters: address of the gate, a word of
/// 64 bits; patience in ns; address of the word; up to which number.
pub(crate) fn text() -> String {
    let parameters = offset_of!(Launch, parameters);
    format!(
        ".version 7.0
.target sm_70
.address_size 64

.visible .entry {ENTRY}(
    .param .u64 launch
)
{{
    .reg .pred %p<5>;
    .reg .b32 %r<2>;
    .reg .b64 %rd<12>;
    mov.u32 %r1, %tid.x;
    setp.ne.u32 %p1, %r1, 0;
    @%p1 bra END;
    mov.u64 %rd7, %globaltimer;
    ld.param.u64 %rd1, [launch];
    ld.global.u64 %rd2, [%rd1+{reports}];
    ld.global.u64 %rd3, [%rd1+{parameters}];
    ld.global.u64 %rd4, [%rd1+{patience}];
    ld.global.u64 %rd5, [%rd1+{word}];
    ld.global.u64 %rd6, [%rd1+{last}];
    mov.u64 %rd8, 0;
WAIT:
    ld.acquire.sys.b64 %rd9, [%rd3];
    setp.ne.u64 %p2, %rd9, 0;
    @%p2 bra COUNT;
    nanosleep.u32 1000;
    mov.u64 %rd9, %globaltimer;
    sub.u64 %rd9, %rd9, %rd7;
    setp.lt.u64 %p3, %rd9, %rd4;
    @%p3 bra WAIT;
    bra DONE;
COUNT:
    add.u64 %rd8, %rd8, 1;
    st.release.sys.b64 [%rd5], %rd8;
    setp.lt.u64 %p4, %rd8, %rd6;
    @%p4 bra COUNT;
DONE:
    st.global.u64 [%rd2+{values}], %rd8;
    mov.u64 %rd10, {finished};
    st.release.sys.global.b64 [%rd2], %rd10;
END:
    ret;
}}
",
        reports = offset_of!(Launch, reports),
        patience = parameters + 8,
        word = parameters + 16,
        last = parameters + 24,
        values = offset_of!(Report, values),
        finished = Outcome::Finished as u16,
    )
}

/// The entry point of [`text`].
pub(crate) const ENTRY: &str = "k2k_count";
