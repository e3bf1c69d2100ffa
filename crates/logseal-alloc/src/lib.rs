//! The global allocator: mimalloc, and every block is wiped before it is given back.
//!
//! Keys and log content pass through libraries that keep copies and wipe none of them: Parquet holds keys as `Vec<u8>`, ciphers keep their
//! schedules in boxes, decoders their pages, HTTP its buffers. A type that wipes itself cannot reach those; what all of them have in
//! common is that they free their memory when they are dropped. So when a cluster's keys are revoked and all that holds them is dropped,
//! nothing of them stays in free memory.
//!
//! | call | what is wiped |
//! | --- | --- |
//! | free | the whole block |
//! | shrink in place | the bytes that do not belong to it any more |
//! | grow, or shrink to less than half | the old block, after its content was copied to the new one |
//!
//! Of a large block, on Linux, only those pages are filled with zeros that are in memory (`resident.rs`): most of what encoders reserve they never
//! write, and the system gives such pages only when they are touched.
//!
//! A block is at least as large as its layout says. The bytes beyond belong to nobody: Rust code never writes them, and they were wiped when they
//! were within a layout.
//!
//! On Linux the same holds for C code: `malloc`, `free` and their like are this allocator's (`c.rs`). What this does not reach is memory that was
//! not freed, stacks and registers: what follows from that is in `ARCHITECTURE.md`, section "Threat model: memory".
//!
//! This is the one crate with unsafe code: [`GlobalAlloc`] is an unsafe trait.

#![expect(unsafe_code, reason = "a global allocator cannot be written without")]

#[cfg(target_os = "linux")]
mod c;
#[cfg(target_os = "linux")]
mod resident;

use std::alloc::{GlobalAlloc, Layout};
use std::fmt::{self, Debug};
use std::hint::black_box;
use std::ptr;

use mimalloc::MiMalloc;

/// Mimalloc, with every block wiped before it is given back.
pub type WipingAllocator = Wiping<MiMalloc>;

/// Wipes what it gives back to the allocator `A`, which must find a block's size by its address, as mimalloc does: a block that shrank goes
/// back with a smaller layout than it came with.
pub struct Wiping<A>(A);

impl WipingAllocator {
    /// The allocator, for `#[global_allocator]`.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "it is made once, in a constant")]
    pub const fn new() -> Self {
        Self(MiMalloc)
    }
}

/// mimalloc's `mi_option_purge_delay` (`mimalloc.h` 2.2, `mi_option_e`): its crate names only some of the options.
const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;

/// Lets freed pages stay with the process for about `milliseconds`, instead of mimalloc's 10, before the system gets them back. They are wiped
/// already. A server under load takes them again within that time; giving them back and taking them anew costs two calls of the system and a
/// fault for each page.
pub fn keep_freed_pages(milliseconds: u16) {
    // SAFETY: a number is stored, which all threads may do at any time.
    unsafe { libmimalloc_sys::mi_option_set(PURGE_DELAY, milliseconds.into()) };
}

impl<A> Debug for Wiping<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Wiping")
    }
}

/// Makes `size` bytes from `start` zeros, in a way that no optimizer takes out.
///
/// # Safety
///
/// These bytes belong to one block that the caller may write.
#[inline]
unsafe fn wipe(start: *mut u8, size: usize) {
    #[cfg(target_os = "linux")]
    if size >= resident::LARGE {
        // SAFETY: the caller's promise; all that the allocator has is private anonymous memory.
        return unsafe { resident::wipe(start, size) };
    }
    // SAFETY: the caller's promise.
    unsafe { fill(start, size) };
}

/// Writes the zeros.
///
/// # Safety
///
/// As for [`wipe`].
#[inline]
unsafe fn fill(start: *mut u8, size: usize) {
    // SAFETY: the caller's promise.
    unsafe { ptr::write_bytes(start, 0, size) };
    // Whoever gets the pointer might read the zeros: so they are written. In release code this costs nothing.
    black_box(start);
}

// SAFETY: each block comes from `A` and goes back to it once, with the alignment that it came with; wiping stays within the block's layout.
unsafe impl<A: GlobalAlloc> GlobalAlloc for Wiping<A> {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise about `layout` is the one that `A` asks for.
        unsafe { self.0.alloc(layout) }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above. Pages that are fresh from the kernel are not filled twice.
        unsafe { self.0.alloc_zeroed(layout) }
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller gives the block up, and its layout says how large it is at least.
        unsafe {
            wipe(block, layout.size());
            self.0.dealloc(block, layout);
        }
    }

    #[inline]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let old = layout.size();
        // What mimalloc does itself: a block that stays at least half used stays where it is.
        if size <= old && size >= old / 2 {
            // SAFETY: the bytes from `size` to `old` are the end of the block that the caller has.
            unsafe { wipe(block.add(size), old - size) };
            return block;
        }
        // SAFETY: the caller promises that `size`, rounded up to the alignment, is no overflow. Both blocks are as large as what is copied, and a
        // new block never overlaps one that is in use. Without a new block the old one stays the caller's.
        unsafe {
            let moved = self.0.alloc(Layout::from_size_align_unchecked(size, layout.align()));
            if !moved.is_null() {
                ptr::copy_nonoverlapping(block, moved, old.min(size));
                self.dealloc(block, layout);
            }
            moved
        }
    }
}

#[cfg(test)]
mod tests {
    use std::alloc::System;
    use std::cell::{Cell, RefCell};

    use super::*;

    /// The system's allocator, which keeps what is given back to it, to be looked at.
    #[derive(Default)]
    struct Keeping {
        /// Sizes that blocks came with.
        sizes: RefCell<Vec<(*mut u8, usize)>>,
        given_back: Cell<usize>,
    }

    // SAFETY: blocks are the system's, and are never given back to it.
    unsafe impl GlobalAlloc for Keeping {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            // SAFETY: the caller's promise.
            let block = unsafe { System.alloc(layout) };
            self.sizes.borrow_mut().push((block, layout.size()));
            block
        }

        unsafe fn dealloc(&self, block: *mut u8, _: Layout) {
            let size = self.sizes.borrow().iter().find(|(known, _)| *known == block).expect("a block of ours").1;
            // SAFETY: the block is kept.
            assert!((0..size).all(|at| unsafe { *block.add(at) } == 0), "all {size} bytes of the block are wiped");
            self.given_back.set(self.given_back.get() + 1);
        }
    }

    fn layout(size: usize) -> Layout {
        Layout::from_size_align(size, 8).expect("a layout")
    }

    /// Scenario: blocks with content grow, shrink a little and much, and are freed. Guarantee: each block is wiped whole when it is given
    /// back, what does not belong to a shrunk block is wiped at once, and what belongs to it is as it was.
    #[test]
    fn what_is_given_back_is_wiped() {
        for size in [8, 64, 1000, 100_000, 1_000_000] {
            let allocator = Wiping(Keeping::default());
            // SAFETY: blocks are used within their layouts and freed once; what is looked at beyond them is kept by `Keeping`.
            unsafe {
                let block = allocator.alloc(layout(size));
                block.write_bytes(0x5A, size);
                let grown = allocator.realloc(block, layout(size), 4 * size);
                assert!((0..size).all(|at| *grown.add(at) == 0x5A));
                assert_eq!(allocator.0.given_back.get(), 1);

                grown.write_bytes(0x77, 4 * size);
                let shrunk = allocator.realloc(grown, layout(4 * size), 3 * size);
                assert_eq!(shrunk, grown, "it stays where it is");
                assert!((0..3 * size).all(|at| *shrunk.add(at) == 0x77));
                assert!((3 * size..4 * size).all(|at| *shrunk.add(at) == 0));

                let small = allocator.realloc(shrunk, layout(3 * size), size);
                assert!((0..size).all(|at| *small.add(at) == 0x77));
                assert_eq!(allocator.0.given_back.get(), 2);
                allocator.dealloc(small, layout(size));
                assert_eq!(allocator.0.given_back.get(), 3);
            }
        }
    }

    /// Scenario: the delay is set. Guarantee: it is mimalloc's option of that name, which has a documented default.
    #[test]
    fn the_option_is_the_one_that_it_is_taken_for() {
        // SAFETY: a number is read.
        let delay = || unsafe { libmimalloc_sys::mi_option_get(PURGE_DELAY) };
        assert_eq!(delay(), 10, "mimalloc's default");
        keep_freed_pages(200);
        assert_eq!(delay(), 200);
    }

    /// Scenario: blocks of several alignments and sizes, from mimalloc. Guarantee: they are aligned, zeroed ones are zero, and growing keeps
    /// content and alignment.
    #[test]
    fn blocks_are_as_asked_for() {
        let allocator = WipingAllocator::new();
        for (size, align) in [(1, 1), (24, 8), (100, 64), (5000, 4096), (3 << 20, 16)] {
            let layout = Layout::from_size_align(size, align).expect("a layout");
            // SAFETY: blocks are used within their layouts and freed once.
            unsafe {
                let block = allocator.alloc_zeroed(layout);
                assert!((0..size).all(|at| *block.add(at) == 0) && block.addr().is_multiple_of(align));
                block.write_bytes(1, size);
                let grown = allocator.realloc(block, layout, 2 * size + 1);
                assert!((0..size).all(|at| *grown.add(at) == 1) && grown.addr().is_multiple_of(align));
                allocator.dealloc(grown, Layout::from_size_align(2 * size + 1, align).expect("a layout"));
            }
        }
    }
}
