//! Large values on the heap, without a copy on the stack.

use core::mem::MaybeUninit;

/// A value on the heap, made in place by `make`: `new_in` of a ring, a fabric, a link's half or a message.
///
/// `Box::new(Spsc::new())` makes the ring on the stack first, unless the optimiser sees through the move; a ring of 8 MB
/// overflows the stack.
///
/// ```
/// use k2k::boxed;
/// use k2k::k2k_core::ring::Spsc;
/// use k2k::{Fixed, Broker, Message};
///
/// let ring = boxed(Spsc::<[u64; 32], 32_768>::new_in);
/// let (mut producer, mut consumer) = (ring.producer()?, ring.consumer()?);
/// producer.push(&[7; 32])?;
/// assert_eq!(consumer.pop(), Some([7; 32]));
///
/// // Messages are lent to `send` and received into: none is moved.
/// let broker: Broker<Fixed<2, 4, 65_472>> = Broker::builder().build()?;
/// let (mut a, mut b) = (broker.register("a")?, broker.register("b")?);
/// let mut message = boxed(|place| Message::new_in(place, 1));
/// message.set_payload(&[5; 65_000])?;
/// a.send(b.id(), &message)?;
/// assert!(b.try_receive_into(&mut message));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Panics
/// If `make` returns a reference to another place.
pub fn boxed<T>(make: impl FnOnce(&mut MaybeUninit<T>) -> &mut T) -> Box<T> {
    let mut place = Box::<T>::new_uninit();
    let expected = place.as_ptr();
    let made: *const T = make(&mut place);
    assert!(core::ptr::eq(made, expected), "a value was made elsewhere than in its place");
    // SAFETY: there was a reference to a `T` in this place, and no write to the place since.
    unsafe { place.assume_init() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[should_panic(expected = "elsewhere")]
    fn a_value_elsewhere_is_not_taken() {
        boxed(|_| Box::leak(Box::new(5)));
    }

    #[test]
    fn a_value_is_dropped_once() {
        let counted = std::rc::Rc::new(());
        let boxed = boxed(|place| place.write(std::rc::Rc::clone(&counted)));
        assert_eq!(std::rc::Rc::strong_count(&boxed), 2);
        drop(boxed);
        assert_eq!(std::rc::Rc::strong_count(&counted), 1);
    }
}
