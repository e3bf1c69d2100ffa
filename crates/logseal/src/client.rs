//! The command line's HTTP client of the management API.

use std::path::Path;

use bytes::Bytes;
use http::{Method, Request, header};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::credentials::Credentials;
use crate::error::CommandError;

/// A management API and the token that opens it.
pub(crate) struct Management {
    http: Client<HttpConnector, Full<Bytes>>,
    endpoint: String,
    token: Zeroizing<String>,
    pub(crate) credentials: Credentials,
}

/// A successful answer.
pub(crate) struct Answer {
    pub(crate) headers: http::HeaderMap,
    pub(crate) body: Bytes,
}

#[derive(Deserialize)]
struct ErrorBody {
    error: ErrorDetail,
}

#[derive(Deserialize)]
struct ErrorDetail {
    code: String,
    message: String,
}

impl Management {
    /// The server of `data_dir`.
    pub(crate) fn of(data_dir: &Path) -> Result<Self, CommandError> {
        let credentials = Credentials::read(data_dir)?;
        Ok(Self {
            http: Client::builder(TokioExecutor::new()).build_http(),
            endpoint: credentials.endpoints.management.trim_end_matches('/').to_owned(),
            token: credentials.management_token.clone(),
            credentials,
        })
    }

    pub(crate) async fn get(&self, path: &str) -> Result<Answer, CommandError> {
        self.send(Method::GET, path, "application/json", Bytes::new()).await
    }

    pub(crate) async fn post(&self, path: &str, accept: &str, body: Bytes) -> Result<Answer, CommandError> {
        self.send(Method::POST, path, accept, body).await
    }

    async fn send(&self, method: Method, path: &str, accept: &str, body: Bytes) -> Result<Answer, CommandError> {
        let unreachable = |source: Box<dyn std::error::Error + Send + Sync>| CommandError::Unreachable {
            endpoint: self.endpoint.clone(),
            source,
        };
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.endpoint))
            .header(header::AUTHORIZATION, format!("Bearer {}", self.token.as_str()))
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::ACCEPT, accept)
            .body(Full::new(body))
            .map_err(|error| unreachable(error.into()))?;
        let response = self.http.request(request).await.map_err(|error| unreachable(error.into()))?;
        let (parts, body) = response.into_parts();
        let body = body.collect().await.map_err(|error| unreachable(error.into()))?.to_bytes();
        if parts.status.is_success() {
            return Ok(Answer { headers: parts.headers, body });
        }
        Err(match serde_json::from_slice::<ErrorBody>(&body) {
            Ok(ErrorBody { error: ErrorDetail { code, message } }) => CommandError::Answer { code, message },
            Err(_) => CommandError::Answer { code: parts.status.to_string(), message: "the server refused".to_owned() },
        })
    }
}
