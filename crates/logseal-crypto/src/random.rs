//! The operating system's random source: the only origin of keys and nonces.

use logseal_core::RandomSource;

/// The operating system's cryptographic random source (`getrandom(2)` on Linux).
///
/// Functions that make keys or nonces take this type and not [`RandomSource`], so that a seeded source cannot reach them.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsRandom;

impl OsRandom {
    /// Fills `out` with unpredictable bytes.
    ///
    /// # Panics
    ///
    /// When the operating system has no random source. There is no safe way to go on: every key and nonce would be guessable.
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the system's random source")]
    pub fn fill_secret(self, out: &mut [u8]) {
        getrandom::fill(out).expect("the operating system must have a random source");
    }

    /// `N` unpredictable bytes, for nonces and other public values.
    #[must_use]
    pub fn array<const N: usize>(self) -> [u8; N] {
        let mut out = [0_u8; N];
        self.fill_secret(&mut out);
        out
    }
}

impl RandomSource for OsRandom {
    fn fill(&self, out: &mut [u8]) {
        self.fill_secret(out);
    }
}
