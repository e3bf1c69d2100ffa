//! `POST /v1/keys/{AEK id}/unwrapkey` and `POST /v1/segments/{id}/exportkey`: data keys for readers outside of the server.
//!
//! The first has the shape of Azure Key Vault's `unwrapkey`: what a Parquet reader's client of a key management service calls with what it found
//! in a file. The second needs no file; it is for people who keep the key.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, header};
use logseal_core::{AekId, SegmentId};
use logseal_keys::PresentedWrap;
use serde::Serialize;
use zeroize::Zeroizing;

use super::Management;
use super::auth::Caller;
use crate::Problem;
use crate::gate::Principal;
use crate::json::{self, Object};
use crate::key_release::{Release, ReleasedKey};

/// How DEKs are wrapped (RFC 7518, section 5.3, has the name).
pub(super) const ALGORITHM: &str = "A256GCM";

/// More than any such answer has, so that the buffer of a key never moves.
const ANSWER_BYTES: usize = 4 * 1024;

#[derive(Serialize)]
struct UnwrappedKey<'a> {
    kid: String,
    value: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ExportedKey<'a> {
    segment_id: String,
    workspace_id: String,
    table_id: String,
    path: &'a str,
    algorithm: &'static str,
    aad_prefix: &'a str,
    kid: String,
    value: &'a str,
}

fn release<'r>(api: &'r Management, principal: &'r Principal) -> Release<'r> {
    Release { world: api.operations.world(), audit: &api.audit, principal }
}

/// The data key in a wrap that a reader found in a segment's file.
pub(super) async fn unwrap(
    State(api): State<Arc<Management>>,
    Caller(caller): Caller,
    Path(key): Path<String>,
    body: Bytes,
) -> Result<Response, Problem> {
    let key: AekId = key.parse().map_err(|_| {
        Problem::not_found(format!("there is no account key with the id `{key}`; `masterKeyID` in the file is one"))
    })?;
    let presented = presented(&body)?;
    let ReleasedKey { segment, value, .. } = release(&api, &caller).unwrap(key, &presented).await?;
    Ok(secret(&UnwrappedKey { kid: segment.aek.to_string(), value: &value }))
}

/// The data key of a segment, with what a reader has to know beside it.
pub(super) async fn export(
    State(api): State<Arc<Management>>,
    Caller(caller): Caller,
    Path(segment): Path<String>,
) -> Result<Response, Problem> {
    let id: SegmentId = segment.parse().map_err(|_| {
        Problem::not_found(format!("there is no segment with the id `{segment}`; `logseal segment list` shows them"))
    })?;
    let ReleasedKey { segment, aad_prefix, value } = release(&api, &caller).export(id).await?;
    Ok(secret(&ExportedKey {
        segment_id: segment.id.to_string(),
        workspace_id: segment.workspace.to_string(),
        table_id: segment.table.to_string(),
        path: &segment.path,
        algorithm: "AES_GCM_V1",
        aad_prefix: &aad_prefix,
        kid: segment.aek.to_string(),
        value: &value,
    }))
}

fn presented(body: &[u8]) -> Result<PresentedWrap, Problem> {
    let body = json::parse(body)?;
    let mut root = Object::root(&body)?;
    let (algorithm, value) = (root.string("alg")?, root.string("value")?);
    root.finish()?;
    match algorithm {
        Some(ALGORITHM) => {}
        Some(other) => {
            return Err(Problem::invalid("alg", format!("`alg` is `{other}`; data keys are wrapped by {ALGORITHM}")));
        }
        None => return Err(Problem::invalid("alg", format!("`alg` is missing; it is {ALGORITHM}"))),
    }
    let value = value.ok_or_else(|| Problem::invalid("value", "`value` is missing; it is the file's `wrappedDEK`"))?;
    PresentedWrap::parse(value).ok_or_else(|| {
        Problem::invalid(
            "value",
            "`value` is no wrapped data key of Logseal's: it is `wrappedDEK` in the file's key metadata",
        )
    })
}

/// An answer with a key in it: its body is wiped when it was sent, nobody on the way keeps it, and no connection stays whose buffers had it.
pub(super) fn secret(answer: &impl Serialize) -> Response {
    let mut body = Zeroizing::new(Vec::with_capacity(ANSWER_BYTES));
    serde_json::to_writer(&mut *body, answer).expect("texts always serialize");
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (header::CONNECTION, HeaderValue::from_static("close")),
    ];
    (headers, Bytes::from_owner(body)).into_response()
}
