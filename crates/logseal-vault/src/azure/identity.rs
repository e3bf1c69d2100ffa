//! Tokens of Azure identities, by the crate `azure_identity` over our own transport.
//!
//! The crate knows the protocols of Microsoft Entra ID and of the metadata services. It gets no HTTP client of its own, so that there is one
//! TLS implementation in the program, one set of trusted authorities, and the same bounds on time and size as towards a vault.
//!
//! Each token is asked for anew, by a credential made for it: the crate's own credentials keep tokens, also one that a vault has refused.
//! [`CachedTokens`](super::CachedTokens) is where they are kept. The crate does not wipe what it held.

use std::fmt::{self, Debug};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use azure_core::Error;
use azure_core::cloud::CloudConfiguration;
use azure_core::credentials::{Secret, TokenCredential};
use azure_core::error::ErrorKind;
use azure_core::http::headers::Headers;
use azure_core::http::{AsyncRawResponse, Body, ClientOptions, HttpClient, Request, RetryOptions, Transport};
use azure_identity::{
    ClientAssertionCredentialOptions, ClientSecretCredential, ClientSecretCredentialOptions, ManagedIdentityCredential,
    ManagedIdentityCredentialOptions, UserAssignedId, WorkloadIdentityCredential, WorkloadIdentityCredentialOptions,
};
use bytes::Bytes;
use http_body_util::Full;
use logseal_core::UnixNanos;
use serde::Deserialize;
use zeroize::Zeroizing;

use super::connect::{Dialer, Target};
use super::exchange::{Connections, ExchangeError};
use super::{AccessToken, AzureParts, TokenSource};
use crate::VaultError;
use crate::uri::Audience;

/// As what Azure knows us.
pub enum AzureIdentity {
    /// A service principal with a client secret.
    ClientSecret {
        /// The directory's id.
        tenant: String,
        /// The application's id.
        client: String,
        /// Its secret.
        secret: Zeroizing<String>,
    },
    /// A workload identity: a service account of Kubernetes that the directory trusts.
    Workload {
        /// The directory's id.
        tenant: String,
        /// The application's id.
        client: String,
        /// The file with the service account's token, which Kubernetes replaces from time to time.
        token_file: PathBuf,
    },
    /// The managed identity of the machine or service that this program runs on.
    Managed {
        /// The client id of a user-assigned identity; the system-assigned one without it.
        client: Option<String>,
    },
}

impl Debug for AzureIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ClientSecret { tenant, client, secret: _ } => {
                write!(f, "ClientSecret({tenant}, {client}, [redacted])")
            }
            Self::Workload { tenant, client, token_file } => write!(f, "Workload({tenant}, {client}, {token_file:?})"),
            Self::Managed { client } => write!(f, "Managed({client:?})"),
        }
    }
}

/// The tokens of one identity.
#[derive(Debug)]
pub struct IdentityTokens {
    identity: AzureIdentity,
    transport: Arc<dyn HttpClient>,
}

impl IdentityTokens {
    /// The tokens of `identity`.
    ///
    /// # Errors
    ///
    /// [`VaultError::Unreachable`] when TLS cannot be set up, for example without any certificate authority.
    pub fn new(identity: AzureIdentity, parts: &AzureParts) -> Result<Self, VaultError> {
        let tls = parts.trust.client_config(Arc::clone(&parts.clock))?;
        let dialer = Dialer::new(Arc::clone(&parts.network), tls, parts.settings.connect_timeout);
        Ok(Self { identity, transport: Arc::new(IdentityTransport { dialer }) })
    }

    fn credential(&self, audience: Audience) -> azure_core::Result<Arc<dyn TokenCredential>> {
        let client_options = self.client_options(audience);
        Ok(match &self.identity {
            AzureIdentity::ClientSecret { tenant, client, secret } => {
                let options = ClientSecretCredentialOptions { client_options };
                ClientSecretCredential::new(
                    tenant,
                    client.clone(),
                    Secret::new(secret.as_str().to_owned()),
                    Some(options),
                )?
            }
            AzureIdentity::Workload { tenant, client, token_file } => {
                let options = WorkloadIdentityCredentialOptions {
                    credential_options: ClientAssertionCredentialOptions { client_options },
                    tenant_id: Some(tenant.clone()),
                    client_id: Some(client.clone()),
                    token_file_path: Some(token_file.clone()),
                };
                WorkloadIdentityCredential::new(Some(options))?
            }
            AzureIdentity::Managed { client } => {
                let user_assigned_id = client.clone().map(UserAssignedId::ClientId);
                ManagedIdentityCredential::new(Some(ManagedIdentityCredentialOptions {
                    user_assigned_id,
                    client_options,
                }))?
            }
        })
    }

    fn client_options(&self, audience: Audience) -> ClientOptions {
        // The cloud is named, so that the environment cannot say who else gets the secret.
        let cloud = match audience {
            Audience::Public | Audience::ManagedHsm => CloudConfiguration::AzurePublic,
            Audience::Government => CloudConfiguration::AzureGovernment,
            Audience::China => CloudConfiguration::AzureChina,
        };
        ClientOptions {
            // The call's own time is shorter than the crate's patience.
            retry: RetryOptions::none(),
            transport: Some(Transport::new(Arc::clone(&self.transport))),
            cloud: Some(Arc::new(cloud)),
            ..ClientOptions::default()
        }
    }
}

#[async_trait]
impl TokenSource for IdentityTokens {
    async fn token(&self, audience: Audience) -> Result<AccessToken, VaultError> {
        let credential = self.credential(audience).map_err(|error| token_error(&error))?;
        let scope = format!("{}/.default", audience.resource());
        let token = credential.get_token(&[&scope], None).await.map_err(|error| token_error(&error))?;
        let expires = UnixNanos(token.expires_on.unix_timestamp().saturating_mul(1_000_000_000));
        Ok(AccessToken::new(Zeroizing::new(token.token.secret().to_owned()), expires))
    }
}

/// Says what is known in our words: the library's texts carry what the identity service sent.
fn token_error(error: &Error) -> VaultError {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(one) = cause {
        if let Some(fault) = one.downcast_ref::<TransportFault>() {
            return VaultError::Token(fault.to_string());
        }
        if let Some(ErrorKind::DataConversion) = one.downcast_ref().map(Error::kind) {
            return VaultError::Token(TransportFault::Malformed.to_string());
        }
        cause = one.source();
    }
    VaultError::Token("the identity's tenant, client or token file cannot be used".into())
}

/// What went wrong between us and the identity service.
#[derive(Debug, thiserror::Error)]
enum TransportFault {
    #[error("the identity service's address may not be used")]
    Address,
    #[error("the request to the identity service cannot be written")]
    Request,
    #[error("the identity service cannot be reached")]
    Unreachable,
    #[error("the identity service's answer is malformed")]
    Malformed,
    #[error("the identity service answered with status {0}")]
    Status(u16),
    #[error("the identity service answered with status {0} and code AADSTS{1}")]
    Code(u16, u32),
}

impl From<TransportFault> for Error {
    fn from(fault: TransportFault) -> Self {
        Self::new(ErrorKind::Io, fault)
    }
}

/// What of an error of the directory is shown: numbers such as 7000215, which its documentation explains.
#[derive(Deserialize)]
struct DirectoryError {
    error_codes: Vec<u32>,
}

/// Carries the crate's requests.
#[derive(Debug)]
struct IdentityTransport {
    dialer: Dialer,
}

#[async_trait]
impl HttpClient for IdentityTransport {
    async fn execute_request(&self, request: &Request) -> azure_core::Result<AsyncRawResponse> {
        let target = target(request)?;
        let mut sent = http::Request::builder().method(request.method().as_ref()).uri(request.path_and_query());
        sent = sent.header(http::header::HOST, authority(&target));
        for (name, value) in request.headers().iter() {
            sent = sent.header(name.as_str(), value.as_str());
        }
        let Body::Bytes(body) = request.body() else { return Err(TransportFault::Request.into()) };
        let sent = sent.body(Full::new(body.clone())).map_err(|_| TransportFault::Request)?;
        // One exchange an hour: no connection is kept for the next.
        let answer = Connections::new(self.dialer.clone(), target, Duration::ZERO).exchange(sent).await;
        let answer = answer.map_err(|error| match error {
            ExchangeError::Connect(_) | ExchangeError::Broken => TransportFault::Unreachable,
            ExchangeError::NotHttp => TransportFault::Malformed,
        })?;
        let (status, body) = (answer.status.as_u16(), answer.body);
        if !answer.status.is_success() {
            let error = body.ok().and_then(|body| serde_json::from_slice::<DirectoryError>(&body).ok());
            let code = error.and_then(|error| error.error_codes.first().copied());
            return Err(code.map_or(TransportFault::Status(status), |code| TransportFault::Code(status, code)).into());
        }
        let body = body.map_err(|_| TransportFault::Malformed)?;
        Ok(AsyncRawResponse::from_bytes(status.into(), Headers::new(), Bytes::from_owner(body)))
    }
}

/// Where a request may go: by https to a public address; without TLS only to the metadata service of this very machine.
fn target(request: &Request) -> Result<Target, TransportFault> {
    let url = request.url();
    let host = url.host_str().ok_or(TransportFault::Address)?.trim_matches(['[', ']']);
    let port = url.port_or_known_default().ok_or(TransportFault::Address)?;
    let own = host == "localhost" || host.parse().is_ok_and(is_this_machine);
    match url.scheme() {
        "https" => Ok(Target { host: host.into(), port, explicit: false, tls: true }),
        "http" if own => Ok(Target { host: host.into(), port, explicit: true, tls: false }),
        _ => Err(TransportFault::Address),
    }
}

fn is_this_machine(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_loopback() || address.is_link_local(),
        IpAddr::V6(address) => address.is_loopback(),
    }
}

fn authority(target: &Target) -> String {
    match target.host.parse() {
        Ok(IpAddr::V6(address)) => format!("[{address}]:{}", target.port),
        Ok(IpAddr::V4(_)) | Err(_) => {
            let default = if target.tls { 443 } else { 80 };
            if target.port == default { target.host.to_string() } else { format!("{}:{}", target.host, target.port) }
        }
    }
}
