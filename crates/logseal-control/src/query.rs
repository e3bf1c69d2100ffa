//! `POST /v1/workspaces/{workspaceId}/query`.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use logseal_core::WorkspaceId;
use serde::Deserialize;

use crate::Problem;
use crate::api::Management;
use crate::port::{QueryFailure, QueryFailureKind, QueryFormat};

/// Says whether rows beyond the limit were left out.
const TRUNCATED: HeaderName = HeaderName::from_static("x-logseal-truncated");

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct QueryBody {
    query: String,
    /// Most rows of the answer.
    max_rows: Option<usize>,
}

/// Runs a query. The body is read as JSON whatever its content type says: Azure's query client sends none.
pub(crate) async fn query(
    State(api): State<Arc<Management>>,
    Path(workspace): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    let workspace: WorkspaceId = workspace.parse().map_err(|_| unknown_workspace(&workspace))?;
    let known = api.catalog.workspaces().await.map_err(|_| Problem::unavailable("the catalog cannot be read"))?;
    if !known.iter().any(|row| row.id == workspace) {
        return Err(unknown_workspace(&workspace.to_string()));
    }
    let body: QueryBody = serde_json::from_slice(&body).map_err(|error| {
        let message = format!("the body is not {{\"query\": \"SELECT ...\"}}: {error}");
        Problem::new(StatusCode::BAD_REQUEST, "InvalidRequestContent", message)
    })?;
    let format = format(&headers)?;
    let answer = api.queries.run(workspace, &body.query, body.max_rows, format).await.map_err(problem)?;
    let content_type = HeaderValue::from_static(format.media_type());
    let truncated = HeaderValue::from_static(if answer.truncated { "true" } else { "false" });
    Ok(([(header::CONTENT_TYPE, content_type), (TRUNCATED, truncated)], answer.body).into_response())
}

fn unknown_workspace(id: &str) -> Problem {
    Problem::not_found(format!("there is no workspace with the id `{id}`; `logseal workspace list` shows them"))
}

fn format(headers: &HeaderMap) -> Result<QueryFormat, Problem> {
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or("*/*");
    let media_type = accept.split([';', ',']).next().unwrap_or_default().trim();
    match media_type {
        "" | "*/*" | "application/*" | "application/json" => Ok(QueryFormat::Tables),
        "application/vnd.apache.arrow.stream" => Ok(QueryFormat::Arrow),
        "text/csv" => Ok(QueryFormat::Csv),
        "application/vnd.logseal.rows+json" => Ok(QueryFormat::Json),
        _ => Err(Problem::new(
            StatusCode::NOT_ACCEPTABLE,
            "NotAcceptable",
            "results come as application/json, application/vnd.logseal.rows+json, text/csv or \
             application/vnd.apache.arrow.stream",
        )),
    }
}

fn problem(failure: QueryFailure) -> Problem {
    let status = match failure.kind {
        QueryFailureKind::Invalid | QueryFailureKind::LimitExceeded => StatusCode::BAD_REQUEST,
        QueryFailureKind::Damaged => StatusCode::INTERNAL_SERVER_ERROR,
        QueryFailureKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
    };
    Problem::new(status, failure.code, failure.message)
}
