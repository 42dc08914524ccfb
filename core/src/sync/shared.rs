//! What may lie in memory that other programs write: types that are valid whatever their bytes are.

/// What makes a shared type: any byte pattern is a valid value, and all zero is its idle state.
///
/// # Safety
/// The type is `repr(C)` or `repr(transparent)`, has no padding that is read, and consists only of atomics of this
/// module, `SharedCell`s and other `Shared` types, so that a shared reference to memory that another process writes
/// asserts nothing about its contents.
pub unsafe trait Shared: Sized + Sync {
    /// The idle state, by value: what zeroed memory is everywhere else. Models use small shapes only.
    #[cfg(k2k_loom)]
    fn idle() -> Self;

    /// A number made of the size, the alignment, and every field's offset and own layout, all the way down: two
    /// programs that share memory, or a host and a device, were compiled alike if theirs is the same.
    #[cfg(not(k2k_loom))]
    const LAYOUT: u64 = layout_of(0, &[size_of::<Self>(), align_of::<Self>()]);
}

/// Continues a layout's number by some sizes or offsets (FNV-1a, a word at a time).
#[cfg(not(k2k_loom))]
pub(crate) const fn layout_of(before: u64, numbers: &[usize]) -> u64 {
    let mut hash = before ^ 0xcbf2_9ce4_8422_2325;
    let mut i = 0;
    while i < numbers.len() {
        hash = (hash ^ numbers[i] as u64).wrapping_mul(0x0000_0100_0000_01b3);
        i += 1;
    }
    hash
}

// SAFETY: an array has no padding of its own.
unsafe impl<T: Shared, const N: usize> Shared for [T; N] {
    #[cfg(not(k2k_loom))]
    const LAYOUT: u64 = layout_of(T::LAYOUT, &[N]);

    #[cfg(k2k_loom)]
    fn idle() -> Self {
        core::array::from_fn(|_| T::idle())
    }
}

/// The idle state, made where it is to lie.
#[cfg(not(k2k_loom))]
#[inline]
pub(crate) const fn idle_in<T: Shared>(place: &mut core::mem::MaybeUninit<T>) -> &mut T {
    // SAFETY: the place has room for a `T`. `Shared`: zero is the idle state, and valid.
    unsafe {
        place.as_mut_ptr().write_bytes(0, 1);
        place.assume_init_mut()
    }
}

/// Declares a `repr(C)` struct of [`Shared`] fields and implements [`Shared`] for it. Generics come in brackets, each
/// with a comma behind it, once with their bounds and once as arguments; `in S` adds the `Scope` `S`, by default
/// `System`: `struct Name[const N: usize,][N,] in S { .. }`.
macro_rules! shared_struct {
    (
        $(#[$attr:meta])*
        $vis:vis struct $name:ident [$($gen:tt)*] [$($arg:tt)*] $(in $scope:ident)? {
            $( $(#[$fattr:meta])* $fvis:vis $field:ident : $ty:ty ),* $(,)?
        }
    ) => {
        $(#[$attr])*
        #[repr(C)]
        $vis struct $name<$($gen)* $($scope: $crate::sync::Scope = $crate::sync::System)?> {
            $( $(#[$fattr])* $fvis $field: $ty ),*
        }

        // SAFETY: `repr(C)`, and every field is `Shared`, which what follows makes the compiler check.
        unsafe impl<$($gen)* $($scope: $crate::sync::Scope)?> $crate::sync::Shared for $name<$($arg)* $($scope)?> {
            #[cfg(k2k_loom)]
            fn idle() -> Self {
                Self { $( $field: <$ty as $crate::sync::Shared>::idle() ),* }
            }
            #[cfg(not(k2k_loom))]
            const LAYOUT: u64 = {
                let hash = $crate::sync::layout_of(0, &[size_of::<Self>(), align_of::<Self>()]);
                $(
                    let hash = $crate::sync::layout_of(hash, &[core::mem::offset_of!(Self, $field)]);
                    let hash = $crate::sync::layout_of(hash ^ <$ty as $crate::sync::Shared>::LAYOUT, &[]);
                )*
                hash
            };
        }

        impl<$($gen)* $($scope: $crate::sync::Scope)?> core::fmt::Debug for $name<$($arg)* $($scope)?> {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                f.debug_struct(stringify!($name)).finish_non_exhaustive()
            }
        }
    };
}
pub(crate) use shared_struct;
