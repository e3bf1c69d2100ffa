//! `POST /v1/workspaces/{workspaceId}/query`.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use logseal_core::WorkspaceId;
use serde::Deserialize;

use super::Management;
use super::auth::Caller;
use crate::Problem;
use crate::port::{QueryFailure, QueryFailureKind, QueryFormat};

/// Says whether rows beyond the limit were left out.
const TRUNCATED: HeaderName = HeaderName::from_static("x-logseal-truncated");

/// Says how many acknowledged records of the workspace are in no segment yet. The result has them.
const UNSEALED: HeaderName = HeaderName::from_static("x-logseal-unsealed-records");

/// Says how long ago, in milliseconds, the oldest of them was received.
const LAG: HeaderName = HeaderName::from_static("x-logseal-lag-ms");

/// The body; property names are in lower case, since they compare without case.
#[derive(Deserialize)]
struct QueryBody {
    query: String,
    /// Most rows of the answer.
    #[serde(rename = "maxrows")]
    max_rows: Option<usize>,
}

impl QueryBody {
    fn parse(json: &[u8]) -> serde_json::Result<Self> {
        let properties: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(json)?;
        let lower = properties.into_iter().map(|(name, value)| (name.to_ascii_lowercase(), value));
        Self::deserialize(serde_json::Value::Object(lower.collect()))
    }
}

/// Runs a query. The body is read as JSON whatever its content type says: Azure's query client sends none.
pub(crate) async fn query(
    State(api): State<Arc<Management>>,
    Caller(caller): Caller,
    Path(workspace): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    let workspace: WorkspaceId = workspace.parse().map_err(|_| unknown_workspace(&workspace))?;
    caller.admit_to(Some(workspace))?;
    let known = api.catalog.workspace(workspace).await;
    if known.map_err(|_| Problem::unavailable("the catalog cannot be read"))?.is_none() {
        return Err(unknown_workspace(&workspace.to_string()));
    }
    let body = QueryBody::parse(&body).map_err(|error| {
        let message = format!("the body is not {{\"query\": \"SELECT ...\"}}: {error}");
        Problem::new(StatusCode::BAD_REQUEST, "InvalidRequestContent", message)
    })?;
    let format = format(&headers)?;
    let answer = api.queries.run(workspace, &body.query, body.max_rows, format).await.map_err(problem)?;
    let content_type = HeaderValue::from_static(format.media_type());
    let truncated = HeaderValue::from_static(if answer.truncated { "true" } else { "false" });
    let lag_ms = HeaderValue::from(u64::try_from(answer.lag.as_millis()).unwrap_or(u64::MAX));
    let headers = [
        (header::CONTENT_TYPE, content_type),
        (TRUNCATED, truncated),
        (UNSEALED, HeaderValue::from(answer.unsealed_records)),
        (LAG, lag_ms),
    ];
    Ok((headers, answer.body).into_response())
}

fn unknown_workspace(id: &str) -> Problem {
    Problem::not_found(format!("there is no workspace with the id `{id}`; `logseal workspace list` shows them"))
}

fn format(headers: &HeaderMap) -> Result<QueryFormat, Problem> {
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or("*/*");
    let known = |media_type: &str| match media_type.split(';').next().unwrap_or_default().trim() {
        "" | "*/*" | "application/*" | "application/json" => Some(QueryFormat::Tables),
        "application/vnd.apache.arrow.stream" => Some(QueryFormat::Arrow),
        "text/csv" => Some(QueryFormat::Csv),
        "application/vnd.logseal.rows+json" => Some(QueryFormat::Json),
        _ => None,
    };
    accept.split(',').find_map(known).ok_or_else(|| {
        Problem::new(
            StatusCode::NOT_ACCEPTABLE,
            "NotAcceptable",
            "results come as application/json, application/vnd.logseal.rows+json, text/csv or \
             application/vnd.apache.arrow.stream",
        )
    })
}

fn problem(failure: QueryFailure) -> Problem {
    let status = match failure.kind {
        QueryFailureKind::Invalid | QueryFailureKind::LimitExceeded => StatusCode::BAD_REQUEST,
        QueryFailureKind::Damaged => StatusCode::INTERNAL_SERVER_ERROR,
        QueryFailureKind::KeyRefused => StatusCode::FORBIDDEN,
        QueryFailureKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
    };
    Problem::new(status, failure.code, failure.message)
}
