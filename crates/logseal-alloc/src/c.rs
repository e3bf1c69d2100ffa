//! The allocation functions of the C library, for the C code in this process.
//!
//! zstd's contexts hold pieces of records, compressed or not; it takes them from `malloc` and wipes nothing. These functions take the place of the
//! C library's own ones in any program that has [`WipingAllocator`](crate::WipingAllocator): in its own C code as well as in the C library (the GNU C Library's
//! manual, "Replacing malloc", lists what must be there). All blocks are mimalloc's then, and each is wiped as a whole before it is given
//! back: C says no size when it frees.

use std::ffi::{c_int, c_void};
use std::ptr;

use libmimalloc_sys::{mi_calloc, mi_free, mi_malloc, mi_malloc_aligned, mi_usable_size};

use crate::wipe;

/// Linux's numbers for a wrong argument and for no memory (`errno(3)`).
const EINVAL: c_int = 22;
const ENOMEM: c_int = 12;

/// What a page of `valloc` is.
const PAGE: usize = 4096;

#[unsafe(no_mangle)]
extern "C" fn malloc(size: usize) -> *mut c_void {
    // SAFETY: any size may be asked for.
    unsafe { mi_malloc(size) }
}

#[unsafe(no_mangle)]
extern "C" fn calloc(count: usize, size: usize) -> *mut c_void {
    // SAFETY: as above; mimalloc looks whether the product overflows.
    unsafe { mi_calloc(count, size) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn free(block: *mut c_void) {
    if !block.is_null() {
        // SAFETY: the caller gives up a block of ours; all of its usable bytes are its own.
        unsafe {
            wipe(block.cast(), mi_usable_size(block));
            mi_free(block);
        }
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn realloc(block: *mut c_void, size: usize) -> *mut c_void {
    if block.is_null() {
        return malloc(size);
    }
    // SAFETY: the caller has a block of ours.
    let usable = unsafe { mi_usable_size(block) };
    if size <= usable && size >= usable / 2 {
        // SAFETY: the end of the caller's block, which it has no use for any more.
        unsafe { wipe(block.cast::<u8>().add(size), usable - size) };
        return block;
    }
    let moved = malloc(size);
    if !moved.is_null() {
        // SAFETY: both blocks are as large as what is copied, and the caller gives the old one up.
        unsafe {
            ptr::copy_nonoverlapping(block.cast::<u8>(), moved.cast(), usable.min(size));
            free(block);
        }
    }
    moved
}

#[unsafe(no_mangle)]
extern "C" fn memalign(alignment: usize, size: usize) -> *mut c_void {
    // SAFETY: any size may be asked for; mimalloc refuses what is no alignment.
    unsafe { mi_malloc_aligned(size, alignment) }
}

#[unsafe(no_mangle)]
extern "C" fn aligned_alloc(alignment: usize, size: usize) -> *mut c_void {
    memalign(alignment, size)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn posix_memalign(out: *mut *mut c_void, alignment: usize, size: usize) -> c_int {
    if !alignment.is_power_of_two() || !alignment.is_multiple_of(size_of::<*mut c_void>()) {
        return EINVAL;
    }
    let block = memalign(alignment, size);
    if block.is_null() {
        return ENOMEM;
    }
    // SAFETY: the caller gives a place for the address.
    unsafe { out.write(block) };
    0
}

#[unsafe(no_mangle)]
extern "C" fn valloc(size: usize) -> *mut c_void {
    memalign(PAGE, size)
}

#[unsafe(no_mangle)]
extern "C" fn pvalloc(size: usize) -> *mut c_void {
    size.checked_next_multiple_of(PAGE).map_or(ptr::null_mut(), |size| valloc(size))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn malloc_usable_size(block: *mut c_void) -> usize {
    // SAFETY: the caller has a block of ours, or none, which has no bytes.
    unsafe { mi_usable_size(block) }
}

#[cfg(test)]
mod tests {
    use std::hint::black_box;

    use super::*;

    // What the linker finds under these names: the C library's functions, unless they were replaced.
    unsafe extern "C" {
        fn strdup(text: *const std::ffi::c_char) -> *mut std::ffi::c_char;
    }

    /// Scenario: the C library itself takes a block. Guarantee: it is one of ours.
    #[test]
    fn the_c_library_takes_its_memory_here() {
        // SAFETY: the text ends with a zero; the copy is freed once.
        unsafe {
            let copy = strdup(c"a text of the C library".as_ptr());
            assert!(libmimalloc_sys::mi_is_in_heap_region(copy.cast()), "it is mimalloc's");
            free(copy.cast());
        }
    }

    /// Scenario: blocks are made, moved and freed as C does. Guarantee: contents stay as they must, alignments are kept, and the end of a shrunk block
    /// is wiped.
    #[test]
    fn blocks_are_as_c_has_them() {
        // SAFETY: blocks are used within their sizes and freed once.
        unsafe {
            let block = realloc(ptr::null_mut(), 4000).cast::<u8>();
            let usable = malloc_usable_size(block.cast());
            block.write_bytes(0x5A, usable);
            let shrunk = realloc(block.cast(), 3000).cast::<u8>();
            assert_eq!(shrunk, block);
            assert!((0..3000).all(|at| *shrunk.add(at) == 0x5A) && (3000..usable).all(|at| *shrunk.add(at) == 0));
            let grown = realloc(shrunk.cast(), 50_000).cast::<u8>();
            assert!((0..3000).all(|at| *grown.add(at) == 0x5A));
            free(grown.cast());
            free(ptr::null_mut());

            let zeroed = calloc(100, 30).cast::<u8>();
            assert!((0..3000).all(|at| *zeroed.add(at) == 0));
            free(zeroed.cast());
            // Opaque, or the optimizer takes out allocations that nobody uses and has them succeed.
            let most = black_box(usize::MAX);
            assert!(black_box(calloc(most, 2)).is_null() && black_box(pvalloc(most)).is_null());

            let mut aligned = ptr::null_mut();
            assert_eq!(posix_memalign(&raw mut aligned, 3, 8), EINVAL);
            assert_eq!(posix_memalign(&raw mut aligned, 256, 1000), 0);
            assert!(aligned.addr().is_multiple_of(256));
            free(aligned);
            for block in [aligned_alloc(64, 128), valloc(10), pvalloc(10)] {
                assert!(block.addr().is_multiple_of(64));
                free(block);
            }
        }
    }
}
