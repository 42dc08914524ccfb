//! Values that are made where they are to lie. A GPU moves a large value byte by byte and through local memory, so
//! endpoints, gateways and run loops are never returned by their constructors.

use core::mem::MaybeUninit;

/// Makes a `Self` in the given memory, a `MaybeUninit<Self>`, field by field and in this order, and returns a reference
/// to it. Each field is written once: a missing, unknown or repeated field does not compile.
///
/// A field is either a value, `name: value`, or made in place by a function, `name => function`, that takes the
/// `&mut MaybeUninit` of the field and returns the reference to what it has made there.
macro_rules! make_in {
    ($memory:expr, Self { $($field:ident $how:tt $value:expr),* $(,)? }) => {{
        let memory: &mut ::core::mem::MaybeUninit<Self> = $memory;
        let to = memory.as_mut_ptr();
        $($crate::in_place::make_in!(@field to, $field $how $value);)*
        // SAFETY: the pattern below names each field, and above each of its names was made.
        let made = unsafe { memory.assume_init_mut() };
        let Self { $($field: _),* } = &*made;
        made
    }};
    (@field $to:ident, $field:ident : $value:expr) => {{
        let value = $value;
        // SAFETY: `to` is valid for writing a `Self`.
        unsafe { (&raw mut (*$to).$field).write(value) }
    }};
    (@field $to:ident, $field:ident => $make:expr) => {{
        // SAFETY: as above; there is no other reference to the field.
        let memory = unsafe { $crate::in_place::memory_of(&raw mut (*$to).$field) };
        $crate::in_place::make(memory, $make);
    }};
}
pub(crate) use make_in;

/// The memory of a field.
///
/// # Safety
/// For `'m`, `field` is valid for writing, and there is no other reference to it.
#[inline(always)]
pub(crate) const unsafe fn memory_of<'m, T>(field: *mut T) -> &'m mut MaybeUninit<T> {
    // SAFETY: the caller's promise; `MaybeUninit` has no more to it than what is inside.
    unsafe { &mut *field.cast::<MaybeUninit<T>>() }
}

/// Makes an array in the given memory, thing by thing.
#[inline(always)]
pub(crate) fn array_in<T, const N: usize>(
    memory: &mut MaybeUninit<[T; N]>,
    mut make: impl FnMut(usize) -> T,
) -> &mut [T; N] {
    for i in 0..N {
        // SAFETY: inside of the array.
        unsafe { memory.as_mut_ptr().cast::<T>().add(i).write(make(i)) };
    }
    // SAFETY: all of it was written.
    unsafe { memory.assume_init_mut() }
}

/// Lets a function make a value in the given memory. That the function returns a reference says that it has made it.
#[inline(always)]
pub(crate) fn make<T>(memory: &mut MaybeUninit<T>, make: impl FnOnce(&mut MaybeUninit<T>) -> &mut T) {
    make(memory);
}

#[cfg(test)]
#[cfg(not(k2k_loom))]
mod tests {
    use super::*;

    struct Inner {
        numbers: [u8; 3],
    }

    impl Inner {
        fn new_in(memory: &mut MaybeUninit<Self>) -> &mut Self {
            make_in!(memory, Self { numbers: [1, 2, 3] })
        }
    }

    struct Outer<'a, T> {
        name: &'a str,
        inner: Inner,
        value: T,
    }

    impl<'a, T> Outer<'a, T> {
        fn new_in<'m>(memory: &'m mut MaybeUninit<Self>, name: &'a str, value: T) -> &'m mut Self {
            make_in!(memory, Self { name: name, inner => Inner::new_in, value: value })
        }
    }

    #[test]
    fn a_value_is_made_of_values_and_of_parts_that_are_made_in_place() {
        let mut memory = MaybeUninit::uninit();
        let made = Outer::new_in(&mut memory, "a", 7_u64);
        assert_eq!((made.name, made.inner.numbers, made.value), ("a", [1, 2, 3], 7));
    }
}
