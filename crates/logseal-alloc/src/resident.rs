//! Wiping of blocks of which the most was never written.
//!
//! Encoders take a mebibyte for a column that needs a few kilobytes of it, and the system gives a page only when it is first touched. To fill such a
//! block with zeros would take memory for all of it, at the price of a fault for each page: so only those pages are filled that are there.
//!
//! A page that is not there has never been written, or has been moved out to a swap device. The system is told to forget it either way: whoever
//! reads it next finds zeros (`madvise(2)`, `MADV_DONTNEED` of private anonymous memory). Whatever the system refuses is filled.

use std::ffi::{c_int, c_long, c_void};

use crate::fill;

/// Blocks from this size on are looked at, in bytes: asking takes as long as filling a few kilobytes.
pub(crate) const LARGE: usize = 64 * 1024;

/// Pages that are asked about at once.
const ASKED: usize = 256;

/// Linux's numbers (`bits/confname.h`, `asm-generic/mman-common.h`).
const SC_PAGESIZE: c_int = 30;
const MADV_DONTNEED: c_int = 4;

unsafe extern "C" {
    fn sysconf(name: c_int) -> c_long;
    fn mincore(start: *mut c_void, size: usize, resident: *mut u8) -> c_int;
    fn madvise(start: *mut c_void, size: usize, advice: c_int) -> c_int;
    fn __errno_location() -> *mut c_int;
}

/// Makes `size` bytes from `start` zeros without touching pages that are not there. Allocates nothing.
///
/// # Safety
///
/// These bytes belong to one block of private anonymous memory that the caller may write, and nobody else uses them.
pub(crate) unsafe fn wipe(start: *mut u8, size: usize) {
    // SAFETY: a number is asked for.
    let page =
        usize::try_from(unsafe { sysconf(SC_PAGESIZE) }).ok().filter(|page| page.is_power_of_two()).unwrap_or(size);
    // Pages that other blocks have a part of are filled.
    let head = start.addr().next_multiple_of(page).saturating_sub(start.addr()).min(size);
    let whole = (size - head) / page * page;
    // SAFETY: all of it lies within the block.
    unsafe {
        fill(start, head);
        fill(start.add(head + whole), size - head - whole);
        let mut at = head;
        while at < head + whole {
            let pages = ((head + whole - at) / page).min(ASKED);
            wipe_pages(start.add(at), pages, page);
            at += pages * page;
        }
    }
}

/// Wipes `pages` pages of `page` bytes each, at most [`ASKED`]. Leaves `errno` as it is: C code may rely on that of `free` (POSIX.1-2024).
///
/// # Safety
///
/// As for [`wipe`]; `start` is where a page begins.
unsafe fn wipe_pages(start: *mut u8, pages: usize, page: usize) {
    let mut resident = [0; ASKED];
    // SAFETY: it is this thread's own.
    let errno = unsafe { *__errno_location() };
    // SAFETY: the caller's promise, and there is a byte for each page.
    let known = unsafe { mincore(start.cast(), pages * page, resident.as_mut_ptr()) } == 0;
    let mut at = 0;
    for run in resident[..pages].chunk_by(|left, right| left & 1 == right & 1) {
        let there = !known || run[0] & 1 == 1;
        // SAFETY: the caller's promise: the run lies within its pages.
        unsafe {
            let (start, size) = (start.add(at * page), run.len() * page);
            if there || madvise(start.cast(), size, MADV_DONTNEED) != 0 {
                fill(start, size);
            }
        }
        at += run.len();
    }
    // SAFETY: as above.
    unsafe { *__errno_location() = errno };
}

#[cfg(test)]
mod tests {
    use std::alloc::{GlobalAlloc, Layout, System};

    use super::*;

    const SIZE: usize = 4 << 20;

    fn resident(start: *mut u8, page: usize) -> usize {
        let first = start.addr().next_multiple_of(page) - start.addr();
        let pages = (SIZE - first) / page;
        let mut resident = vec![0_u8; pages];
        // SAFETY: whole pages of the block are asked about, with a byte for each.
        assert_eq!(unsafe { mincore(start.add(first).cast(), pages * page, resident.as_mut_ptr()) }, 0);
        resident.iter().filter(|page| *page & 1 == 1).count()
    }

    /// Scenario: a large block, fresh from the system, of which some bytes here and there were written. Guarantee: all of it is zero after it
    /// was wiped, and wiping touched no page that was not there.
    #[test]
    fn only_pages_that_are_there_are_filled() {
        let layout = Layout::from_size_align(SIZE, 16).expect("a layout");
        // SAFETY: the block is used within its layout, and freed once.
        unsafe {
            let page = usize::try_from(sysconf(SC_PAGESIZE)).expect("a size");
            let block = System.alloc(layout);
            let written = [0, 1, 5000, 777_777, SIZE / 2, SIZE - 1];
            written.iter().for_each(|at| *block.add(*at) = 0x5A);
            let before = resident(block, page);
            assert!(before < SIZE / page / 2, "{before} pages of a fresh block are there");
            wipe(block, SIZE);
            assert!(resident(block, page) <= before, "{} pages after {before}", resident(block, page));
            assert!((0..SIZE).all(|at| *block.add(at) == 0));

            // Wholly written, from an odd place on: what lies before stays.
            block.write_bytes(0x77, SIZE);
            wipe(block.add(12_345), SIZE - 12_345);
            assert!((0..12_345).all(|at| *block.add(at) == 0x77));
            assert!((12_345..SIZE).all(|at| *block.add(at) == 0));
            System.dealloc(block, layout);
        }
    }

    /// Scenario: bytes that begin within a page, about which `mincore` and `madvise` say nothing. Guarantee: what is asked for is filled, nothing
    /// else is, and `errno` stays.
    #[test]
    fn what_the_system_refuses_is_filled() {
        let mut bytes = vec![1_u8; 3 * 8192];
        let inside = &mut bytes[4096 - 3..];
        // SAFETY: two pages of 4,096 bytes lie within the bytes.
        unsafe {
            *__errno_location() = 77;
            wipe_pages(inside.as_mut_ptr(), 2, 4096);
            assert_eq!(*__errno_location(), 77);
        }
        assert!(inside[..8192].iter().all(|byte| *byte == 0));
        assert!(inside[8192..].iter().all(|byte| *byte == 1));
    }
}
