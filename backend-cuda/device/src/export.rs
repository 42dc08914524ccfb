//! The line that makes a handler an entry point.

/// Exports handlers as GPU entry points: one kernel per block, run by `core`'s loop until it stops.
///
/// ```
/// #![cfg_attr(target_arch = "nvptx64", no_std, feature(abi_ptx))]
/// use k2k_core::{Context, Kernel, Message};
///
/// /// Answers with the double of every number.
/// pub struct Double;
///
/// impl Kernel<192> for Double {
///     fn on_message(&mut self, context: &mut impl Context<192>, request: &Message<192>) {
///         if let Ok(number) = request.value::<u64>() {
///             let _ = context.reply(request, &Message::from_value(1, &(2 * number)));
///         }
///     }
/// }
///
/// k2k_device::export! {
///     /// An entry point `double` for a fabric of 16 indices, 64 messages per pair, 192 bytes each.
///     pub fn double(16, 64, 192) = |_block, _workspace| Ok(Double);
/// }
/// # fn main() {}
/// ```
///
/// The expression makes the handler of one block. It gets the `Block` and a zeroed `&'static mut [u8]`, the part of
/// the block's workspace that the loop does not need. After a comma may follow a second one, that makes seven
/// `u64` of the handler when it has stopped: the values of the block's [`Report`](crate::Report).
///
/// With `fn name(16, 64, 192; Job)`, the expression gets `Workers` between the two, and the block is
/// launched with more threads than 32: the handler cuts a [`Job`](crate::Job) into parts, which all do at once.
///
/// Build the crate with `k2k-ptx build`. Its root needs `feature(abi_ptx)` on the device, as above. On other targets
/// the line is nothing, so that the handler can be tested on the host.
#[macro_export]
macro_rules! export {
    ($(
        $(#[$attribute:meta])*
        $visibility:vis fn $name:ident($kernels:expr, $slots:expr, $payload:expr) = $make:expr $(, $values:expr)?;
    )*) => { $(
        $crate::entry_point! {
            $(#[$attribute])*
            $visibility fn $name(launch) {
                // SAFETY: the host launches entry points with a launch that it leaves alone until the grid has ended.
                unsafe {
                $crate::run::<_, $crate::DeviceShape<{ $kernels }, { $slots }, { $payload }>, { $payload }>(
                    launch,
                    $make,
                    $crate::export!(@values $($values)?),
                )
                }
            }
        }
    )* };
    ($(
        $(#[$attribute:meta])*
        $visibility:vis fn $name:ident($kernels:expr, $slots:expr, $payload:expr; $job:ty) = $make:expr $(, $values:expr)?;
    )*) => { $(
        $crate::entry_point! {
            $(#[$attribute])*
            $visibility fn $name(launch) {
                // SAFETY: the host launches entry points with a launch that it leaves alone until the grid has ended.
                unsafe {
                $crate::run_with_workers::<_, $job, $crate::DeviceShape<{ $kernels }, { $slots }, { $payload }>, { $payload }>(
                    launch,
                    $make,
                    $crate::export!(@values $($values)?),
                )
                }
            }
        }
    )* };
    (@values) => { |_| [0; 7] };
    (@values $values:expr) => { $values };
}

/// An entry point: a function that a compiler of device code lets the host launch.
#[cfg(not(k2k_rust_cuda))]
#[doc(hidden)]
#[macro_export]
macro_rules! entry_point {
    ($(#[$attribute:meta])* $visibility:vis fn $name:ident($launch:ident) $body:block) => {
        $(#[$attribute])*
        #[cfg(target_arch = "nvptx64")]
        #[unsafe(no_mangle)]
        #[allow(unused_unsafe, reason = "an expression of the caller's may have to say so for itself")]
        $visibility unsafe extern "ptx-kernel" fn $name($launch: *const $crate::Launch) $body
    };
}

/// The same for rust-cuda, which knows entry points by an attribute of its own; its `cuda_builder` registers that tool.
#[cfg(k2k_rust_cuda)]
#[doc(hidden)]
#[macro_export]
macro_rules! entry_point {
    ($(#[$attribute:meta])* $visibility:vis fn $name:ident($launch:ident) $body:block) => {
        $(#[$attribute])*
        #[cfg(target_arch = "nvptx64")]
        #[unsafe(no_mangle)]
        #[nvvm_internal::kernel]
        #[allow(unused_unsafe, reason = "an expression of the caller's may have to say so for itself")]
        $visibility unsafe extern "C" fn $name($launch: *const $crate::Launch) $body
    };
}
