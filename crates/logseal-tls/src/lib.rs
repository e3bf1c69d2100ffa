//! TLS: certificates, listeners that take connections over it, and clients that know whom they talk to.
//!
//! The embedded vault is always served over TLS, since Key Vault's SDKs refuse less. Its certificates come from an authority that the first
//! start makes; whoever is given `ca.pem` can check whom it talks to. The other listeners are served with a certificate that the operator
//! gives, or plain. All of it runs on rustls with aws-lc-rs, which is in the tree for RSA: TLS 1.2 at least.
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`authority`] | [`Authority`]: its key sealed under the root key, a server certificate for each start |
//! | [`certificates`] | [`Certificates`]: those of files, which may change while they are in use |
//! | [`acceptor`] | [`Acceptor`]: what makes a connection of a TCP stream, within bounds, for any listener |
//! | [`stream`] | [`Stream`]: a connection, over TLS or plain, and whom its client proved to be |
//! | [`paced`] | [`Paced`]: what one connection may have the server do beside its requests |
//! | [`mod@serve`] | HTTP/1.1 and HTTP/2 over it, with bounds on connections and times |
//! | [`places`] | [`Places`]: how many connections there may be, and who gives way to a newcomer |
//! | [`client`] | [`Connector`]: connections to servers of an authority, or to one server alone |

pub mod acceptor;
pub mod authority;
pub mod certificates;
pub mod client;
pub mod paced;
pub mod places;
pub mod serve;
pub mod stream;

pub use acceptor::{Acceptor, Listener, listen};
pub use authority::{Authority, TlsError};
pub use certificates::{CertificateFiles, Certificates, ClientCertificates};
pub use client::Connector;
pub use paced::{Paced, pauses};
pub use places::{Place, Places, Seat};
pub use serve::{Limits, evictions, serve};
pub use stream::{ClientNames, Stream};

/// Tells the recorder of metrics what this crate counts.
pub fn describe_metrics() {
    certificates::describe_metrics();
    paced::describe_metrics();
    serve::describe_metrics();
}
