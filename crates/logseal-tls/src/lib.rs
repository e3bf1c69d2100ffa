//! TLS: the deployment's own certificate authority, listeners that speak HTTP over TLS, and clients that trust that authority only.
//!
//! The embedded vault is always served over TLS, since Key Vault's SDKs refuse less. Its certificates come from an authority that the first
//! start makes; whoever is given `ca.pem` can check whom it talks to. All of it runs on rustls with aws-lc-rs, which is in the tree for RSA.
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`authority`] | [`Authority`]: its key sealed under the root key, a server certificate for each start |
//! | [`acceptor`] | [`Acceptor`]: handshakes within bounds, for any listener |
//! | [`mod@serve`] | HTTP/1.1 and HTTP/2 over it, with bounds on connections and times |
//! | [`client`] | [`Connector`]: TLS to servers of one authority |

pub mod acceptor;
pub mod authority;
pub mod client;
pub mod serve;

pub use acceptor::Acceptor;
pub use authority::{Authority, TlsError};
pub use client::Connector;
pub use serve::{Limits, serve};
