//! The random source as a value.

use std::fmt::Debug;

/// Source of random bytes for ids and jitter.
///
/// Keys and nonces never come from here: they take `logseal_crypto::random::OsRandom` by its own type, so that a seeded
/// source of a test cannot reach them.
pub trait RandomSource: Debug + Send + Sync {
    /// Fills `out` with random bytes.
    fn fill(&self, out: &mut [u8]);
}
