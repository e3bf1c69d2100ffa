//! A call's way through the door, the same for every protocol: who it is, whether it may, what becomes of its body, how it is counted.
//!
//! In between a protocol reads its own headers and framing, and words the answer itself.

use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use http::{HeaderMap, header};
use logseal_core::WorkspaceId;
use tokio::time::{Instant, interval_at, timeout_at};
use tracing::{debug, error};

use crate::admission::{BudgetPermit, Hold};
use crate::connection::Remote;
use crate::decompress::{Encoding, decompress};
use crate::door::{Accepted, Door, IntakeRequest, Refusal};
use crate::expansion::Expansion;
use crate::json::to_protobuf;
use crate::meter::{Outcome, Protocol};

/// A call; it is counted once, also when its future is dropped because the client went away.
pub(crate) struct Call<'a> {
    door: &'a Door,
    protocol: Protocol,
    start: Instant,
    outcome: Outcome,
}

impl<'a> Call<'a> {
    pub(crate) fn begin(door: &'a Door, protocol: Protocol) -> Self {
        Self { door, protocol, start: Instant::now(), outcome: Outcome::Aborted }
    }

    pub(crate) fn start(&self) -> Instant {
        self.start
    }

    /// Ends a call that is none of this protocol.
    pub(crate) fn unsupported(mut self) {
        self.outcome = Outcome::Unsupported;
    }

    /// Does `work` until `end` at the latest. A refusal comes with the time after which the client may come back, if it may.
    pub(crate) async fn settle(
        mut self,
        end: Option<Instant>,
        work: impl Future<Output = Result<Accepted, Refusal>>,
    ) -> Result<Accepted, (Refusal, Duration)> {
        // A panic in what we call must neither cost the client its batch nor look like a broken connection.
        let work = AssertUnwindSafe(work).catch_unwind();
        let result = match end {
            Some(end) => timeout_at(end, work).await.unwrap_or(Ok(Err(Refusal::DeadlinePassed))),
            None => work.await,
        };
        let result = result.unwrap_or_else(|_panic| {
            // The panic's text may quote log content: the panic hook has it, this line does not.
            error!("a panic was contained while a request was taken in");
            Err(Refusal::unavailable("the request could not be taken in now"))
        });
        match &result {
            Ok(accepted) => {
                self.door.meter.records_accepted.increment(accepted.accepted);
                self.door.meter.records_rejected.increment(accepted.rejected);
                let whole = accepted.rejected == 0 && accepted.message.is_none();
                self.outcome = if whole { Outcome::Accepted } else { Outcome::Partial };
            }
            Err(refusal) => {
                debug!(%refusal, "a call was refused");
                self.outcome = Outcome::from(refusal);
            }
        }
        result.map_err(|refusal| {
            let asked = match &refusal {
                Refusal::Unavailable { retry_after, .. } | Refusal::CapReached { retry_after, .. } => *retry_after,
                _ => None,
            };
            let delay = self.door.retry_delay(asked);
            (refusal, delay)
        })
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        self.door.meter.ended(self.protocol, self.outcome, self.start.elapsed());
    }
}

/// What the bytes of a body are once they are decompressed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Form {
    Protobuf,
    Json,
}

/// A body that has arrived.
#[derive(Debug)]
pub(crate) struct Arrived {
    pub(crate) workspace: WorkspaceId,
    pub(crate) hold: Hold,
    pub(crate) encoding: Encoding,
    pub(crate) form: Form,
    /// What its records are expected to become.
    pub(crate) expansion: Expansion,
    pub(crate) wire: Bytes,
    /// Covers `wire`, and as much of what becomes of it as its size tells.
    pub(crate) permit: BudgetPermit,
}

/// Whose call it is, if it may come in: by its connection and its headers alone.
pub(crate) fn identify(door: &Door, remote: &Remote, headers: &HeaderMap) -> Result<WorkspaceId, Refusal> {
    let client = &remote.client;
    let workspace = match door.authenticator.workspace_of_client(client)? {
        None if !client.is_empty() && !headers.contains_key(header::AUTHORIZATION) => {
            return Err(Refusal::Unauthenticated {
                problem: "no name in the client certificate stands for a workspace",
            });
        }
        None => door.authenticator.workspace_of(bearer(headers)?)?,
        Some(workspace) if !headers.contains_key(header::AUTHORIZATION) => workspace,
        // A key that is presented has to be good, whatever else is.
        Some(workspace) if door.authenticator.workspace_of(bearer(headers)?)? == workspace => workspace,
        Some(_) => {
            return Err(Refusal::Unauthenticated { problem: "key and client certificate are of two workspaces" });
        }
    };
    remote.seat.standing().prove();
    door.within_cap(workspace)?;
    Ok(workspace)
}

/// Takes in a body that has arrived.
pub(crate) async fn take_in(door: &Door, arrived: Arrived) -> Result<Accepted, Refusal> {
    let Arrived { workspace, hold, encoding, form, expansion, wire, permit } = arrived;
    let limit = door.admission.limits().request_bytes;
    door.meter.wire_bytes.increment(wire.len() as u64);
    let (body, compressed, permit) = decompress(encoding, wire, permit, limit, expansion).await?;
    let bytes = body.len();
    door.meter.decompressed_bytes.increment(bytes as u64);
    door.admission.charge(workspace, bytes);
    // OTLP wants success for a request without records, whatever state its workspace is in.
    if body.is_empty() {
        return Ok(Accepted::default());
    }
    let (body, compressed, permit) = match form {
        Form::Protobuf => (body, compressed, permit),
        Form::Json => {
            // The log keeps protobuf.
            drop(compressed);
            let (body, permit) = to_protobuf(body, permit, limit, expansion).await?;
            (body, None, permit)
        }
    };
    let accepted = if body.is_empty() {
        Accepted::default()
    } else {
        door.intake.take(IntakeRequest { workspace, body, compressed, permit, hold }).await?
    };
    door.count(workspace, bytes);
    Ok(accepted)
}

/// While calls of another workspace wait for memory a body has to come at this rate, in bytes a second,
const LEAST_RATE: u64 = 256 * 1024;

/// after this time: what is under way in the network when it is asked for.
const START: Duration = Duration::from_secs(1);

/// How often that is looked at.
const LOOK: Duration = Duration::from_millis(250);

/// Reads a body for which `workspace` has budget, for at most the time that all have; `arrived` is how much of it has come.
///
/// Who announces much and sends little would keep others out at no cost. So a body that comes slowly gives its budget back while another workspace
/// waits for it. Calls of its own do not matter: where all clients are slow they would only end each other.
pub(crate) async fn receive<T>(
    door: &Door,
    workspace: WorkspaceId,
    arrived: &AtomicU64,
    read: impl Future<Output = Result<T, Refusal>>,
) -> Result<T, Refusal> {
    let start = Instant::now();
    let too_slow = async {
        let mut looks = interval_at(start + START, LOOK);
        loop {
            let now = looks.tick().await;
            let millis = u64::try_from((now - start).saturating_sub(START).as_millis()).unwrap_or(u64::MAX);
            let least = millis.saturating_mul(LEAST_RATE) / 1_000;
            if arrived.load(Ordering::Relaxed) < least && door.admission.others_wait(workspace) {
                return;
            }
        }
    };
    tokio::select! {
        biased;
        read = in_time(door.admission.limits().body_read, read) => read,
        () = too_slow => Err(Refusal::unavailable("the request body came slowly while other requests waited for memory")),
    }
}

/// Reads from a body, for at most `limit`.
pub(crate) async fn in_time<T>(limit: Duration, read: impl Future<Output = Result<T, Refusal>>) -> Result<T, Refusal> {
    timeout_at(Instant::now() + limit, read).await.unwrap_or_else(|_| {
        // Not the request's fault but the network's: the same request may pass next time.
        Err(Refusal::unavailable("the request body did not arrive in time (setting `ingest.body_read_ms`)"))
    })
}

/// The key in `authorization: Bearer <key>`.
fn bearer(headers: &HeaderMap) -> Result<&str, Refusal> {
    const SCHEME: &str = "bearer ";
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let Some(value) = values.next() else {
        return Err(Refusal::Unauthenticated { problem: "no credentials" });
    };
    let key = value
        .to_str()
        .ok()
        .filter(|_| values.next().is_none())
        .and_then(|text| text.split_at_checked(SCHEME.len()))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case(SCHEME))
        .map(|(_, key)| key.trim_matches(' '))
        .filter(|key| !key.is_empty());
    key.ok_or(Refusal::Unauthenticated { problem: "malformed credentials" })
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn keys_come_from_one_bearer_header() {
        let cases: [(&[&[u8]], Option<&str>); 10] = [
            (&[b"Bearer key"], Some("key")),
            (&[b"bearer key"], Some("key")),
            (&[b"BEARER   key "], Some("key")),
            (&[], None),
            (&[b""], None),
            (&[b"Bearer"], None),
            (&[b"Bearer "], None),
            (&[b"Basic key"], None),
            (&[b"Bearer \xff"], None),
            (&[b"Bearer key", b"Bearer other"], None),
        ];
        for (values, expected) in cases {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::AUTHORIZATION, HeaderValue::from_bytes(value).expect("a header value"));
            }
            assert_eq!(bearer(&headers).ok(), expected, "{values:?}");
        }
    }
}
