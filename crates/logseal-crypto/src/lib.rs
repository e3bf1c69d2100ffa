//! Secrets, sealing, additional authenticated data (AAD), key commitment and row MACs.
//!
//! No I/O but the operating system's random source, no async, no unsafe. Everything that is sealed here binds its purpose,
//! version, workspace and object through an AAD that only the named constructors of [`aad`] can make.
//!
//! | module | what it holds | rule it follows |
//! | --- | --- | --- |
//! | [`secret`] | [`Key256`], the one type of a symmetric key | wiped on drop, never printed, never cloned |
//! | [`random`] | [`OsRandom`] | keys and nonces come from here only |
//! | [`aad`] | [`Aad`](aad::Aad) constructors | fixed-width or length-prefixed fields, unambiguous |
//! | [`credential`] | [`BearerToken`] | RFC 6750; compared in constant time |
//! | [`frame`] | [`FrameSealer`], [`FrameOpener`]: AES-256-GCM with a counter | NIST SP 800-38D, section 8.2.1 |
//! | [`seal`] | AES-256-GCM with a random 96-bit nonce | NIST SP 800-38D, section 8.2.2 |
//! | [`commitment`] | what a key commits to | compared before a key is used: AES-GCM does not commit |
//! | [`aek`] | [`Aek`]: wraps DEKs, seals schemas | keys are chosen by id, never by trial |
//! | [`lease`] | [`Lease`]: how long keys may be used after the vault's last word | uses fail closed |
//! | [`wrapped_dek`] | [`WrappedDek`], the bytes in a segment's footer | self-describing, fixed size |
//! | [`mac`] | [`MacKey`]: HMAC-SHA-256 over rows | RFC 2104, length-prefixed fields |
//! | [`wraps`] | [`WrapCount`]: how often an AEK seals | NIST SP 800-38D, section 8.3 |
//! | [`root`] | [`RootKey`]: one label per purpose | HKDF, RFC 5869 |

pub mod aad;
pub mod aek;
pub mod commitment;
pub mod credential;
pub mod frame;
pub mod lease;
pub mod mac;
pub mod random;
pub mod root;
pub mod seal;
pub mod secret;
pub mod wrapped_dek;
pub mod wraps;

pub use aek::{Aek, Dek, KeyUseError, WrapError};
pub use commitment::Commitment;
pub use credential::{BearerToken, bearer};
pub use frame::{FrameOpener, FrameSealError, FrameSealer, SequenceReused};
pub use lease::{Lease, LeaseOver};
pub use mac::{Mac, MacKey};
pub use random::OsRandom;
pub use root::RootKey;
pub use seal::SealError;
pub use secret::Key256;
pub use wrapped_dek::WrappedDek;
pub use wraps::{WrapCount, WrapsExhausted};
