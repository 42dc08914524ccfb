//! The commands that act on a running fabric from outside: each is a kernel like any other, or writes a word as a
//! supervisor may.
//!
//! | file | command |
//! | --- | --- |
//! | `args` | the command lines |
//! | `send` | `k2k send`: a single message, and its outcome |
//! | `ping` | `k2k ping`: round trips |
//! | `between`, `copies` | a kernel on the route between two kernels, and copies of the messages through it |
//! | `tap` | `k2k tap`: prints the messages from one kernel to another |
//! | `record`, `replay` | `k2k record` and `replay`: the same into a file, and from a file |
//! | `trace` | `k2k trace`: the events of messages, for Perfetto |
//! | `control` | `k2k pause`, `resume`, `drain`, `stop` |

pub(crate) mod args;
mod between;
pub(crate) mod control;
mod copies;
pub(crate) mod ping;
pub(crate) mod record;
pub(crate) mod replay;
pub(crate) mod send;
pub(crate) mod tap;
pub(crate) mod trace;

use k2k::DeliveryStatus;

/// The meaning of a status for a message to the kernel `to`.
fn meaning(status: DeliveryStatus, to: &str) -> String {
    match status {
        DeliveryStatus::Pending => format!("{to} has not taken it out of its inbox yet, and may still do so"),
        DeliveryStatus::Delivered => format!("{to} has taken it out of its inbox"),
        DeliveryStatus::NotFound => format!("{to}, or the next kernel on the way there, has left; it was not received"),
        DeliveryStatus::QueueFull => "there was no room for it on the way; it was not received".to_owned(),
        DeliveryStatus::Timeout => format!("{to} did not take it out of its inbox in time; it was not received"),
        DeliveryStatus::MaxHopsExceeded => {
            "it was forwarded as often as it may be: the routes lead in a circle, or the fabric's hop limit is too low"
                .to_owned()
        }
        DeliveryStatus::Unanswered => {
            format!(
                "it crossed to another memory domain, which has not said what became of it: {to} may have received it"
            )
        }
        DeliveryStatus::NotAllowed => format!("a supervisor has denied this sender the inbox of {to}"),
    }
}

/// A status as a single word, for JSON.
const fn word(status: DeliveryStatus) -> &'static str {
    match status {
        DeliveryStatus::Pending => "pending",
        DeliveryStatus::Delivered => "delivered",
        DeliveryStatus::NotFound => "not_found",
        DeliveryStatus::QueueFull => "queue_full",
        DeliveryStatus::Timeout => "timeout",
        DeliveryStatus::MaxHopsExceeded => "max_hops_exceeded",
        DeliveryStatus::Unanswered => "unanswered",
        DeliveryStatus::NotAllowed => "not_allowed",
    }
}
