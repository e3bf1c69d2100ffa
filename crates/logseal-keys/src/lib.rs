//! The keyring: how the key hierarchy is used.
//!
//! ```text
//! KEK (RSA, in the vault, never leaves it)
//!  `- wraps AEK  (256 bits, one per workspace and generation; wrapped in the catalog, with a copy in the store)
//!      `- wraps DEK  (256 bits, one per segment; wrapped in the catalog and in the segment's footer)
//! ```
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`keyring`] | [`Keyring`]: makes AEKs, unwraps them once, hands out DEKs |
//! | [`access`] | [`AccessKeys`]: workspace keys of shippers, looked up by HMAC |
//! | [`renewal`] | AEKs under another KEK, column names under another AEK |
//! | [`schema`] | attribute columns sealed to and from the catalog |
//! | [`wrapped_key_copy`] | the copy of a wrapped AEK in the object store |

pub mod access;
pub mod error;
pub mod keyring;
pub mod renewal;
pub mod schema;
pub mod wrapped_key_copy;

pub use access::{AccessKeys, NewWorkspaceKey};
pub use error::KeyError;
pub use keyring::{Keyring, Link};
pub use renewal::kek_row;
pub use wrapped_key_copy::{AekOwner, KeyCopy, WrappedKeyStore};
