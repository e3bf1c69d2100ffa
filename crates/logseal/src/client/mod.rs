//! The command line's HTTP clients of the management API and of the key vault.

mod endpoint;
mod vault;

use std::error::Error;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use logseal_tls::Connector;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::time::timeout;

pub(crate) use self::endpoint::{Place, Target, connector};
pub(crate) use self::vault::Vault;
use crate::cli::ServerOptions;
use crate::cli::names::uuid;
use crate::error::CommandError;

/// The version of Azure's API that the command line speaks.
const API_VERSION: &str = "2025-07-01";

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(10);

/// How long an answer may take; the server itself waits 30 s for an operation.
const PATIENCE: Duration = Duration::from_secs(60);

/// Most pages of a listing. A deployment has at most 10,000 workspaces, and a page at least 100.
const PAGES: usize = 1_000;

/// A management API and the token that opens it.
#[derive(Debug)]
pub(crate) struct Management {
    http: Client<Connector, Full<Bytes>>,
    pub(crate) target: Target,
}

/// A request to be sent.
#[derive(Debug)]
pub(crate) struct Call<'m> {
    management: &'m Management,
    method: Method,
    path: String,
    accept: &'static str,
    body: Bytes,
    only_new: bool,
    patience: Option<Duration>,
}

/// A successful answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
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

/// One page of a listing.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Page {
    value: Vec<Value>,
    next_link: Option<String>,
}

impl Management {
    /// What `options` name, else the server of `data_dir`.
    pub(crate) fn of(data_dir: &Path, options: &ServerOptions) -> Result<Self, CommandError> {
        Ok(Self::new(Target::of(data_dir, options)?))
    }

    pub(crate) fn new(target: Target) -> Self {
        Self { http: Client::builder(TokioExecutor::new()).build(target.connector.clone()), target }
    }

    pub(crate) fn call(&self, method: Method, path: impl Into<String>) -> Call<'_> {
        Call {
            management: self,
            method,
            path: path.into(),
            accept: "application/json",
            body: Bytes::new(),
            only_new: false,
            patience: Some(PATIENCE),
        }
    }

    pub(crate) async fn get(&self, path: &str) -> Result<Answer, CommandError> {
        self.call(Method::GET, path).send().await
    }

    /// The path of `collection` (`clusters`, `workspaces`) in the place of the resources, without a version.
    pub(crate) fn collection(&self, collection: &str) -> String {
        let Place { subscription, resource_group } = &self.target.place;
        format!(
            "/subscriptions/{subscription}/resourceGroups/{resource_group}/providers/Microsoft.OperationalInsights/{collection}"
        )
    }

    /// The path of a resource and what follows it, with the version.
    pub(crate) fn resource(&self, collection: &str, name: &str, rest: &str) -> String {
        format!("{}/{name}{rest}?api-version={API_VERSION}", self.collection(collection))
    }

    /// The path of a cluster, which is named or given by its whole id.
    pub(crate) fn cluster(&self, cluster: &str) -> String {
        if cluster.starts_with('/') {
            format!("{cluster}?api-version={API_VERSION}")
        } else {
            self.resource("clusters", cluster, "")
        }
    }

    /// All resources of a collection.
    pub(crate) async fn list(&self, collection: &str) -> Result<Vec<Value>, CommandError> {
        let mut path = format!("{}?api-version={API_VERSION}", self.collection(collection));
        let mut listed = Vec::new();
        for _ in 0..PAGES {
            let page: Page = self.get(&path).await?.read()?;
            listed.extend(page.value);
            match page.next_link {
                None => return Ok(listed),
                Some(link) => path = path_of(&link)?,
            }
        }
        Err(CommandError::Refused(format!("the server's listing has more than {PAGES} pages")))
    }
}

/// Path and query of a link: whatever host it names, the token goes to the one that was asked for.
fn path_of(link: &str) -> Result<String, CommandError> {
    let path = link.parse::<Uri>().ok().and_then(|uri| Some(uri.path_and_query()?.as_str().to_owned()));
    path.filter(|path| path.starts_with('/'))
        .ok_or_else(|| CommandError::Refused("the server's listing goes on at a link that is no URL".to_owned()))
}

impl Call<'_> {
    pub(crate) fn accept(self, accept: &'static str) -> Self {
        Self { accept, ..self }
    }

    pub(crate) fn json(self, body: &Value) -> Self {
        Self { body: Bytes::from(body.to_string()), ..self }
    }

    /// Is refused when the resource is there.
    pub(crate) fn only_new(self) -> Self {
        Self { only_new: true, ..self }
    }

    /// Waits as long as the server takes: its own limits end what it does.
    pub(crate) fn without_limit(self) -> Self {
        Self { patience: None, ..self }
    }

    pub(crate) async fn send(self) -> Result<Answer, CommandError> {
        let patience = self.patience;
        let target = &self.management.target;
        let (endpoint, advice) = (target.endpoint.clone(), target.advice.clone());
        match patience {
            None => self.exchange().await,
            Some(patience) => timeout(patience, self.exchange()).await.unwrap_or_else(|_| {
                let source = format!("no answer within {} s", patience.as_secs()).into();
                Err(CommandError::Unreachable { endpoint, advice, source })
            }),
        }
    }

    async fn exchange(self) -> Result<Answer, CommandError> {
        let Self { management: Management { http, target }, method, path, accept, body, only_new, .. } = self;
        let unreachable = |source: Box<dyn Error + Send + Sync>| CommandError::Unreachable {
            endpoint: target.endpoint.clone(),
            advice: target.advice.clone(),
            source,
        };
        let mut token = HeaderValue::try_from(format!("Bearer {}", target.token.0.as_str()))
            .map_err(|_| CommandError::Refused("the management token is not one line of printable ASCII".to_owned()))?;
        token.set_sensitive(true);
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", target.endpoint))
            .header(header::AUTHORIZATION, token)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::ACCEPT, accept);
        if only_new {
            request = request.header(header::IF_NONE_MATCH, "*");
        }
        let request = request.body(Full::new(body)).map_err(|error| unreachable(error.into()))?;
        let response = http.request(request).await.map_err(|error| unreachable(error.into()))?;
        let (parts, body) = response.into_parts();
        let body = body.collect().await.map_err(|error| unreachable(error.into()))?.to_bytes();
        if parts.status.is_success() {
            return Ok(Answer { status: parts.status, headers: parts.headers, body });
        }
        let status = parts.status;
        Err(match serde_json::from_slice::<ErrorBody>(&body) {
            Ok(ErrorBody { error: ErrorDetail { code, message } }) => CommandError::Answer { status, code, message },
            Err(_) => CommandError::Answer {
                status,
                code: status.to_string(),
                message: "this is no answer of logseal's management API".to_owned(),
            },
        })
    }
}

impl Answer {
    /// The body's JSON.
    pub(crate) fn read<T: DeserializeOwned>(&self) -> Result<T, CommandError> {
        serde_json::from_slice(&self.body).map_err(|error| CommandError::Show(error.into()))
    }

    /// The operation that goes on behind the answer.
    pub(crate) fn operation(&self) -> Option<String> {
        let url: Uri = self.headers.get("azure-asyncoperation")?.to_str().ok()?.parse().ok()?;
        uuid(url.path().rsplit('/').next()?).ok()
    }
}

#[cfg(test)]
pub(crate) mod tests;
