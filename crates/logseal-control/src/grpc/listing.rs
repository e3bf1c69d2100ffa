//! Filters and pages of `ListOperations`.

use data_encoding::BASE64URL_NOPAD;
use logseal_catalog::{OperationFilter, OperationState as State};
use logseal_core::OperationId;
use serde_json::{Value, json};
use tonic::Status;

use super::message::message;
use super::status::invalid;
use super::v1;
use crate::operation::runner::Operations;

/// Operations of a page unless it says how many, and at most.
const PAGE: u32 = 100;
const LARGEST_PAGE: u32 = 1_000;

/// Operations that are read at a time, and how often at most for one page. A filter by resource is held against each operation, since
/// the resource itself may be gone or have been made anew.
const READ: u32 = 1_000;
const READS: u32 = 10;

/// One page.
pub(super) async fn list(
    operations: &Operations,
    request: v1::ListOperationsRequest,
) -> Result<v1::ListOperationsResponse, Status> {
    let size = match request.page_size {
        0 => PAGE,
        size => u32::try_from(size)
            .map_err(|_| invalid(format!("`page_size` is {size}; it can be 0 to {LARGEST_PAGE}")))?
            .min(LARGEST_PAGE),
    };
    let state = state(&request)?;
    let mut before = last_of(&request)?;
    let subscription = Some(request.subscription.as_str()).filter(|text| !text.is_empty());
    let filter = OperationFilter { subscription, resource: None, state };
    let resource = request.resource_id.trim_end_matches('/');
    let read = if resource.is_empty() { size } else { READ };
    let mut page = Vec::new();
    for _ in 0..READS {
        let found = operations.list(filter, before, read).await?;
        let is_last = found.len() < read as usize;
        for operation in found {
            if page.len() == size as usize {
                return Ok(response(page, before, &request));
            }
            before = Some(operation.row.id);
            if resource.is_empty() || operation.row.target.eq_ignore_ascii_case(resource) {
                page.push(message(&operation, operations.within(operation.row.id)));
            }
        }
        if is_last {
            return Ok(response(page, None, &request));
        }
        if resource.is_empty() {
            break;
        }
    }
    Ok(response(page, before, &request))
}

fn response(
    operations: Vec<v1::Operation>,
    last: Option<OperationId>,
    request: &v1::ListOperationsRequest,
) -> v1::ListOperationsResponse {
    let next_page_token = last.map(|last| token(request, &last.to_string())).unwrap_or_default();
    v1::ListOperationsResponse { operations, next_page_token }
}

fn state(request: &v1::ListOperationsRequest) -> Result<Option<State>, Status> {
    use v1::OperationState::{Canceled, Failed, Running, Succeeded, Unspecified};
    let number = request.state;
    let known = v1::OperationState::try_from(number)
        .map_err(|_| invalid(format!("`state` is {number}, which is no OperationState")))?;
    Ok(match known {
        Unspecified => None,
        Running => Some(State::Running),
        Succeeded => Some(State::Succeeded),
        Failed => Some(State::Failed),
        Canceled => Some(State::Canceled),
    })
}

/// A token says where a page ends and for which filters.
fn token(request: &v1::ListOperationsRequest, last: &str) -> String {
    let resource = request.resource_id.trim_end_matches('/').to_ascii_lowercase();
    let token = json!([last, request.state, resource, request.subscription.to_ascii_lowercase()]);
    BASE64URL_NOPAD.encode(token.to_string().as_bytes())
}

/// The last operation of the page before.
fn last_of(request: &v1::ListOperationsRequest) -> Result<Option<OperationId>, Status> {
    if request.page_token.is_empty() {
        return Ok(None);
    }
    let decoded = BASE64URL_NOPAD.decode(request.page_token.as_bytes()).ok();
    let parts: Option<Value> = decoded.and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let last =
        parts.as_ref().and_then(|parts| parts[0].as_str()).filter(|last| token(request, last) == request.page_token);
    let id = last.and_then(|last| last.parse().ok());
    id.map(Some).ok_or_else(|| invalid("`page_token` is not one that an answer to the same filters gave"))
}
