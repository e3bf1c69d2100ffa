//! Wipes what functions left on the stack of their thread.
//!
//! A function that returns leaves its frame as it was, with what the compiler put there: parts of keys and texts in saved registers and moved
//! values. The frame's bytes stay until another call happens to write over them, which on a thread that waits may be never.
//!
//! This finds no pointer and asks for nothing unsafe: a call of its own takes the place of the frames that were there, fills it with zeros, and
//! returns. It is as good as its depth; what lay deeper stays.

use std::hint::black_box;

/// Depth that covers the use of a key by a cipher or a hash, and the end of a compute job.
const SHALLOW_BYTES: usize = 64 * 1024;

/// Runs `work`, and wipes what it left below the caller's frame, 64 KiB deep: for uses of keys, which take much less.
pub fn wiped<T>(work: impl FnOnce() -> T) -> T {
    let result = apart(work);
    wipe::<SHALLOW_BYTES>();
    result
}

/// Writes zeros over `BYTES` of the stack below the caller's frame: for a thread that is about to wait, or whose work is done.
#[inline(never)]
pub fn wipe<const BYTES: usize>() {
    let mut below = [0_u8; BYTES];
    // Whoever gets the reference might read the zeros: so they are written.
    black_box(&mut below);
}

/// A frame of its own, so that what `work` needs is not in the caller's.
#[inline(never)]
fn apart<T>(work: impl FnOnce() -> T) -> T {
    work()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_result_comes_back() {
        assert_eq!(wiped(|| 6 * 7), 42);
        wipe::<{ 512 * 1024 }>();
    }
}
