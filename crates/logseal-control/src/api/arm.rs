//! What all requests in Azure Resource Manager's shape have in common.

use std::collections::HashMap;
use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::FromRequestParts;
use axum::response::{IntoResponse, Response};
use data_encoding::BASE64URL_NOPAD;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header};
use logseal_catalog::{OperationState, ResourceRow};
use serde_json::{Value, json};

use super::Management;
use super::auth;
use crate::Problem;
use crate::gate::Principal;
use crate::operation::Operation;
use crate::request::{Caller, Place};
use crate::resource::name;

pub(super) const ASYNC_OPERATION: HeaderName = HeaderName::from_static("azure-asyncoperation");

/// Resources of a page, unless fewer are asked for.
pub(super) const PAGE: u32 = 100;

/// The head of a request: its path's parameters, its query and its conditions, all well-formed.
#[derive(Debug)]
pub(super) struct Head {
    parameters: HashMap<String, String>,
    query: Vec<(String, String)>,
    api_version: String,
    base: String,
    path: String,
    pub(super) caller: Caller,
    pub(super) principal: Arc<Principal>,
}

impl FromRequestParts<Arc<Management>> for Head {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Arc<Management>) -> Result<Self, Problem> {
        let parameters = axum::extract::Path::<HashMap<String, String>>::from_request_parts(parts, api).await;
        let axum::extract::Path(parameters) = parameters.map_err(|_| {
            Problem::new(StatusCode::BAD_REQUEST, "InvalidRequest", "the path's percent-encoding is not UTF-8")
        })?;
        let axum::extract::Query(query) = axum::extract::Query::<Vec<(String, String)>>::try_from_uri(&parts.uri)
            .map_err(|_| Problem::new(StatusCode::BAD_REQUEST, "InvalidRequest", "the query cannot be decoded"))?;
        let api_version = name::api_version(parts.uri.query())?.to_owned();
        if let Some(subscription) = parameters.get("subscription") {
            name::subscription(subscription)?;
        }
        if let Some(group) = parameters.get("group") {
            name::resource_group(group)?;
        }
        let auth::Caller(principal) = auth::Caller::from_request_parts(parts, api).await?;
        Ok(Self {
            parameters,
            query,
            api_version,
            base: base(api, &parts.uri, &parts.headers),
            path: parts.uri.path().to_owned(),
            caller: Caller::new(&principal, &parts.headers),
            principal,
        })
    }
}

/// The scheme and authority of links: the configured public URL, else what the request named.
fn base(api: &Management, uri: &Uri, headers: &HeaderMap) -> String {
    if let Some(url) = &api.public_url {
        return url.trim_end_matches('/').to_owned();
    }
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let authority = uri.authority().map(|authority| authority.as_str()).or(host);
    let scheme = if api.is_tls { "https" } else { "http" };
    format!("{scheme}://{}", authority.unwrap_or("127.0.0.1:8430"))
}

impl Head {
    /// A parameter of the path; empty when the route has none of that name.
    pub(super) fn parameter(&self, name: &str) -> &str {
        self.parameters.get(name).map_or("", String::as_str)
    }

    /// A parameter of the query, whose name compares without case.
    pub(super) fn query(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// A flag of the query.
    pub(super) fn flag(&self, name: &'static str) -> Result<bool, Problem> {
        match self.query(name) {
            None => Ok(false),
            Some(text) if text.eq_ignore_ascii_case("true") => Ok(true),
            Some(text) if text.eq_ignore_ascii_case("false") => Ok(false),
            Some(text) => Err(Problem::bad(
                "InvalidQueryParameter",
                name,
                format!("`{name}` is `{text}`; it can be: true, false"),
            )),
        }
    }

    /// The resource that the path names.
    pub(super) fn place(&self) -> Place<'_> {
        Place {
            subscription: self.parameter("subscription"),
            group: self.parameter("group"),
            name: self.parameter("name"),
        }
    }

    /// How many resources a page has.
    pub(super) fn top(&self) -> Result<u32, Problem> {
        let Some(text) = self.query("$top") else { return Ok(PAGE) };
        text.parse().ok().filter(|top| (1..=1_000).contains(top)).ok_or_else(|| {
            Problem::bad("InvalidQueryParameter", "$top", format!("`$top` is `{text}`; it can be 1 to 1000"))
        })
    }

    /// Where the page begins: what [`Head::page`] gave as the end of the one before.
    pub(super) fn skip_token(&self) -> Result<Option<Vec<String>>, Problem> {
        let Some(text) = self.query("$skiptoken") else { return Ok(None) };
        let decoded = BASE64URL_NOPAD.decode(text.as_bytes()).ok();
        let parts = decoded.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        parts.map(Some).ok_or_else(|| {
            Problem::bad("InvalidQueryParameter", "$skiptoken", "`$skiptoken` is not one that an answer gave")
        })
    }

    /// A page of a listing, with a link to the next one when `last` says where that begins.
    pub(super) fn page(&self, value: Vec<Value>, last: Option<&[&str]>) -> Value {
        let mut page = json!({"value": value});
        if let Some(last) = last {
            let token = BASE64URL_NOPAD.encode(json!(last).to_string().as_bytes());
            let top = self.query("$top").map(|top| format!("&$top={top}")).unwrap_or_default();
            let Self { base, path, api_version, .. } = self;
            page["nextLink"] = format!("{base}{path}?api-version={api_version}{top}&$skiptoken={token}").into();
        }
        page
    }

    /// The headers by which clients follow `operation`.
    pub(super) fn follow(&self, operation: &Operation) -> HeaderMap {
        let Self { base, api_version, .. } = self;
        let (path, target, id) = (operation.path(), &operation.row.target, operation.row.id);
        let status = format!("{base}{path}?api-version={api_version}");
        // The link service's own path would go with the link; the workspace stays.
        let result = format!("{base}{target}/operationresults/{id}?api-version={api_version}");
        let mut headers = HeaderMap::new();
        for (name, url) in [(ASYNC_OPERATION, status), (header::LOCATION, result)] {
            // Paths have been validated and ids are ours: only an odd Host header cannot be a header's value.
            if let Ok(value) = HeaderValue::from_str(&url) {
                headers.insert(name, value);
            }
        }
        headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        headers
    }
}

/// The body's JSON; an empty body counts as an empty object.
pub(super) fn body(bytes: &Bytes) -> Result<Value, Problem> {
    if bytes.is_empty() { Ok(json!({})) } else { crate::json::parse(bytes) }
}

/// A resource with its entity tag.
pub(super) fn resource(status: StatusCode, row: &ResourceRow, view: Value) -> Response {
    tagged((status, Json(view)).into_response(), row)
}

/// The same of a resource that is JSON already.
pub(super) fn rendered(row: &ResourceRow, json: Bytes) -> Response {
    tagged(([(header::CONTENT_TYPE, "application/json")], json).into_response(), row)
}

fn tagged(mut response: Response, row: &ResourceRow) -> Response {
    if let Ok(tag) = HeaderValue::from_str(&crate::resource::view::etag(row)) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    response
}

/// What the request that began the operation would have answered if it had waited; `view` is the resource.
pub(super) fn outcome(operation: &Operation, view: Option<Value>) -> Response {
    match (operation.row.state, &operation.document.failure) {
        (OperationState::Succeeded, _) => match view {
            Some(view) => Json(view).into_response(),
            None => StatusCode::NO_CONTENT.into_response(),
        },
        (_, failure) => {
            let (code, message) =
                failure.as_ref().map_or(("OperationFailed", ""), |f| (f.code.as_str(), f.message.as_str()));
            let error = json!({"error": {"code": code, "message": message}});
            (StatusCode::CONFLICT, Json(error)).into_response()
        }
    }
}
