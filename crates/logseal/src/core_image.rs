//! No core image of this process: keys and records are in its memory.
//!
//! It stays dumpable (`PR_SET_DUMPABLE`): without, `/proc/PID` would be root's, and who runs Logseal could not look at the memory of the
//! process, as its own test does. Whom that keeps from reading memory has the root key's file as well.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Below the smallest core image, so that none is written to a file. A limit of 1 tells the kernel not to start a program for core images
/// either, where `core_pattern` names one (`fs/coredump.c`); 0 leaves that to the program.
const LIMIT: u64 = 1;

/// Turns core images off, for good. A process that may not goes on, and says so.
#[expect(clippy::print_stderr, reason = "before the log exists")]
pub(crate) fn refuse() {
    // Nobody without rights may raise what was set to 0 before.
    let limit = Some(getrlimit(Resource::Core).maximum.map_or(LIMIT, |highest| highest.min(LIMIT)));
    if let Err(error) = setrlimit(Resource::Core, Rlimit { current: limit, maximum: limit }) {
        eprintln!("logseal: core images cannot be turned off: {error}");
    }
}
