//! Where key-encryption keys (KEKs) live: the [`KeyVault`] port, the embedded vault and the Azure Key Vault client behind it.
//!
//! A KEK never leaves its vault. The rest of the program names it by URI, name and version ([`KeyId`]) and asks the vault to
//! wrap and unwrap 256-bit account keys with RSA-OAEP-256. The port is as narrow as that, so that a further provider is one
//! file.
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`key_id`] | [`KeyName`], [`KeyVersion`], [`KeyId`]: the Key Vault identifier grammar |
//! | [`uri`] | [`VaultUri`], [`VaultUriPolicy`]: which key vaults may be named at all |
//! | [`address`] | to which addresses a vault's name may resolve |
//! | [`principal`] | [`PrincipalId`], [`Caller`]: as whom a vault is asked |
//! | [`port`] | [`KeyVault`], [`VaultError`] and what each error says about the key |
//! | [`embedded`] | [`EmbeddedVault`]: RSA keys in files, private keys sealed under the root key |
//! | [`rest`] | its REST face, which Azure Key Vault's SDKs drive |
//! | [`events`] | what it tells of itself |
//! | [`azure`] | [`AzureKeyVault`](azure::AzureKeyVault): Azure Key Vault and Managed HSM over HTTPS |

pub mod address;
pub mod azure;
pub mod embedded;
pub mod events;
pub mod key_id;
pub mod port;
pub mod principal;
pub mod rest;
pub mod uri;

pub use embedded::{EmbeddedClient, EmbeddedVault};
pub use events::{VaultEvent, VaultEvents};
pub use key_id::{KeyId, KeyIdError, KeyName, KeyVersion};
pub use port::{KeyProperties, KeyVault, Permission, VaultError, VaultErrorClass};
pub use principal::{Caller, PrincipalId, PrincipalIdError};
pub use uri::{VaultUri, VaultUriError, VaultUriErrorKind, VaultUriPolicy};
