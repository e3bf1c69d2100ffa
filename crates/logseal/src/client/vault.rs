//! The command line's client of the embedded key vault: one connection a request, over TLS, trusting the deployment's authority only.

use std::path::Path;

use bytes::Bytes;
use http::uri::Authority;
use http::{HeaderValue, Method, Request, Uri, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use logseal_tls::Connector;
use serde::Deserialize;
use serde_json::Value;
use tokio::time::timeout;

use super::endpoint::Token;
use super::{Answer, CONNECT, PAGES, PATIENCE, Page, path_of};
use crate::credentials::{Credentials, VAULT_CA_FILE, VAULT_ENDPOINT, VAULT_TOKEN};
use crate::error::CommandError;

/// The version of Key Vault's API that the command line speaks.
const API_VERSION: &str = "7.4";

/// The largest answer that is read: a page of keys has some 20 KiB.
const ANSWER_BYTES: usize = 4 * 1024 * 1024;

/// A key vault and the token that opens it.
#[derive(Debug)]
pub(crate) struct Vault {
    authority: Authority,
    token: Token,
    connector: Connector,
    /// What to look at when it does not answer.
    advice: String,
}

#[derive(Deserialize)]
struct ErrorBody {
    error: ErrorDetail,
}

#[derive(Deserialize)]
struct ErrorDetail {
    code: String,
    message: String,
    innererror: Option<InnerError>,
}

#[derive(Deserialize)]
struct InnerError {
    code: String,
}

impl Vault {
    /// The vault of the server of `data_dir`, or the one that variables name in its place.
    pub(crate) fn of(data_dir: &Path) -> Result<Self, CommandError> {
        let credentials = Credentials::read(data_dir)?;
        let endpoint = &credentials.endpoints.vault;
        if endpoint.is_empty() || credentials.vault_token.is_empty() {
            let file = data_dir.join("credentials.json");
            return Err(CommandError::Refused(format!(
                "`{}` names no key vault: it is of an earlier version; start `logseal serve` once, or set {VAULT_ENDPOINT}, {VAULT_TOKEN} and {VAULT_CA_FILE}",
                file.display()
            )));
        }
        Ok(Self {
            authority: authority(endpoint)?,
            token: Token(credentials.vault_token.clone()),
            connector: Connector::trusting(&credentials.vault_ca_file)
                .map_err(|error| CommandError::Refused(logseal_core::Chain(&error).to_string()))?,
            advice: format!("is `logseal serve --data-dir {}` running?", data_dir.display()),
        })
    }

    pub(crate) async fn get(&self, path: &str) -> Result<Value, CommandError> {
        self.call(Method::GET, path, None).await
    }

    /// All items of a listing.
    pub(crate) async fn list(&self, path: &str) -> Result<Vec<Value>, CommandError> {
        let mut path = versioned(path);
        let mut listed = Vec::new();
        for _ in 0..PAGES {
            let page: Page = self.send(Method::GET, &path, None).await?.read()?;
            listed.extend(page.value);
            match page.next_link {
                None => return Ok(listed),
                Some(link) => path = path_of(&link)?,
            }
        }
        Err(CommandError::Refused(format!("the vault's listing has more than {PAGES} pages")))
    }

    /// The answer's JSON; `null` when it has none.
    pub(crate) async fn call(&self, method: Method, path: &str, body: Option<Value>) -> Result<Value, CommandError> {
        let answer = self.send(method, &versioned(path), body).await?;
        if answer.body.is_empty() { Ok(Value::Null) } else { answer.read() }
    }

    async fn send(&self, method: Method, path: &str, body: Option<Value>) -> Result<Answer, CommandError> {
        timeout(PATIENCE, self.exchange(method, path, body))
            .await
            .unwrap_or_else(|_| Err(self.unreachable(format!("no answer within {} s", PATIENCE.as_secs()).into())))
    }

    async fn exchange(&self, method: Method, path: &str, body: Option<Value>) -> Result<Answer, CommandError> {
        let mut token = HeaderValue::try_from(format!("Bearer {}", self.token.0.as_str()))
            .map_err(|_| CommandError::Refused("the vault token is not one line of printable ASCII".to_owned()))?;
        token.set_sensitive(true);
        let body = body.map_or_else(Bytes::new, |body| Bytes::from(body.to_string()));
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, self.authority.as_str())
            .header(header::AUTHORIZATION, token)
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(|error| self.unreachable(error.into()))?;
        let connecting = self.connector.connect(self.authority.host(), self.authority.port_u16().unwrap_or(443));
        let stream = timeout(CONNECT, connecting).await.map_err(|error| self.unreachable(error.into()))?;
        let stream = stream.map_err(|error| self.unreachable(error.into()))?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| self.unreachable(error.into()))?;
        // It ends with the exchange, for which the answer tells whether it went well.
        tokio::spawn(connection);
        let response = sender.send_request(request).await.map_err(|error| self.unreachable(error.into()))?;
        let (parts, body) = response.into_parts();
        let body =
            Limited::new(body, ANSWER_BYTES).collect().await.map_err(|error| self.unreachable(error))?.to_bytes();
        if parts.status.is_success() {
            return Ok(Answer { status: parts.status, headers: parts.headers, body });
        }
        let status = parts.status;
        Err(match serde_json::from_slice::<ErrorBody>(&body) {
            Ok(ErrorBody { error: ErrorDetail { code, message, innererror } }) => {
                let code = innererror.map_or(code, |inner| inner.code);
                CommandError::Answer { status, code, message }
            }
            Err(_) => CommandError::Answer {
                status,
                code: status.to_string(),
                message: "this is no answer of a key vault".to_owned(),
            },
        })
    }

    fn unreachable(&self, source: Box<dyn std::error::Error + Send + Sync>) -> CommandError {
        CommandError::Unreachable {
            endpoint: format!("https://{}", self.authority),
            advice: self.advice.clone(),
            source,
        }
    }
}

fn versioned(path: &str) -> String {
    format!("{path}?api-version={API_VERSION}")
}

/// The authority of the vault's URL, to which the token may go.
fn authority(endpoint: &str) -> Result<Authority, CommandError> {
    let uri = endpoint
        .parse::<Uri>()
        .ok()
        .filter(|uri| uri.scheme_str() == Some("https") && matches!(uri.path(), "" | "/") && uri.query().is_none());
    let authority = uri.and_then(|uri| uri.authority().cloned());
    authority.filter(|authority| !authority.host().is_empty() && !authority.as_str().contains('@')).ok_or_else(|| {
        CommandError::Usage("the key vault's endpoint is no URL such as https://127.0.0.1:8420".to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_goes_to_https_urls_only() {
        assert_eq!(authority("https://127.0.0.1:8420/").unwrap(), "127.0.0.1:8420");
        for bad in
            ["", "127.0.0.1:8420", "http://127.0.0.1:8420", "https://a/b", "https://a?b", "https://u:p@a", "https://"]
        {
            let refused = authority(bad).unwrap_err();
            assert!(refused.is_usage() && !refused.to_string().contains("u:p"), "{bad}");
        }
    }
}
