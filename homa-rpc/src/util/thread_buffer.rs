//! One buffer per thread, to assemble bytes before they are copied to their final place.

use std::cell::Cell;

/// A buffer that has grown beyond this is not kept, in bytes.
const KEPT_MAX: usize = 4096;

thread_local! {
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Runs `use_it` with an empty buffer with room for `len` bytes. No allocation if that is little.
pub(crate) fn with<T>(len: usize, use_it: impl FnOnce(&mut Vec<u8>) -> T) -> T {
    // Gone while a thread ends, and empty if `use_it` comes back here: a new one does as well.
    let mut scratch = SCRATCH.try_with(Cell::take).unwrap_or_default();
    scratch.clear();
    scratch.reserve(len);
    let result = use_it(&mut scratch);
    if scratch.capacity() <= KEPT_MAX {
        let _ended = SCRATCH.try_with(|kept| kept.set(scratch));
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_empty_each_time_and_a_second_one_at_a_time_is_another() {
        with(4, |outer| {
            outer.extend_from_slice(b"left");
            with(4, |inner| assert!(inner.is_empty()));
            assert_eq!(outer, b"left");
        });
        with(0, |scratch| assert!(scratch.is_empty()));
    }

    #[test]
    fn a_long_buffer_is_not_kept() {
        with(KEPT_MAX + 1, |_| {});
        with(0, |scratch| assert!(scratch.capacity() <= KEPT_MAX));
    }
}
