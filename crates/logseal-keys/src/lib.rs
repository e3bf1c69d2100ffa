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
//! | [`availability`] | whether a cluster's keys may be used: a state machine over what the vault answers |
//! | [`fault`] | [`KeyFault`]: the catalogue of what can be wrong with a key |
//! | [`access`] | [`AccessKeys`]: workspace keys of shippers, looked up by HMAC |
//! | [`probe`] | asking the vault whether it still unwraps for a cluster |
//! | [`monitor`] | [`Monitor`]: asks again and again, and has the server follow |
//! | `past` | what the audit trail tells a start about clusters that were revoked before it |
//! | [`account_keys`] | [`AccountKeyGauges`]: what AEKs there are, as metrics |
//! | [`reader`] | [`PresentedWrap`], [`SegmentKey`]: data keys of segments for readers outside of the server |
//! | [`renewal`] | AEKs under another KEK, column names under another AEK |
//! | [`schema`] | attribute columns sealed to and from the catalog |
//! | [`vaults`] | [`ClusterVaults`]: which vault is asked, and as whom |
//! | [`wrapped_key_copy`] | the copy of a wrapped AEK in the object store |

pub mod access;
pub mod account_keys;
pub mod availability;
pub mod error;
pub mod fault;
pub mod keyring;
pub mod monitor;
mod past;
pub mod probe;
pub mod reader;
pub mod renewal;
pub mod schema;
pub mod vaults;
pub mod wrapped_key_copy;

pub use access::{AccessKeys, KeyMetadata, NewWorkspaceKey, NotAccepted, Slot};
pub use account_keys::AccountKeyGauges;
pub use error::KeyError;
pub use fault::KeyFault;
pub use keyring::{Keyring, Link, Suspension, UNCOUNTED, WRAPS_LIMIT, Wraps};
pub use monitor::{Holder, KeyStatus, Monitor, MonitorParts};
pub use reader::{PresentedWrap, SegmentKey};
pub use renewal::kek_row;
pub use vaults::{ClusterVaults, OneVault};
pub use wrapped_key_copy::{AekOwner, KeyCopy, WrappedKeyStore};
