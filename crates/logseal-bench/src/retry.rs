//! Which failures are sent again, and when: the rules of the OTLP specification (1.11.0, "Failures").

use std::time::Duration;

use prost::Message;
use tonic::{Code, Status};

/// First wait when the server names none; doubled from attempt to attempt.
const FIRST_WAIT: Duration = Duration::from_millis(100);
/// Longest wait that we choose ourselves.
const LONGEST_OWN_WAIT: Duration = Duration::from_secs(5);

/// `google.rpc.Status`, as found in `grpc-status-details-bin`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct RpcStatus {
    #[prost(int32, tag = "1")]
    pub(crate) code: i32,
    #[prost(string, tag = "2")]
    pub(crate) message: String,
    #[prost(message, repeated, tag = "3")]
    pub(crate) details: Vec<prost_types::Any>,
}

/// `google.rpc.RetryInfo`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    pub(crate) retry_delay: Option<prost_types::Duration>,
}

/// How long to wait before sending again; `None` when the failure is final.
///
/// `attempt` counts from 0 and shapes the waits that the server does not name.
pub(crate) fn wait_before_resend(status: &Status, attempt: u32, longest: Duration) -> Option<Duration> {
    let told = told_wait(status);
    let retryable = match status.code() {
        Code::Cancelled
        | Code::DeadlineExceeded
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unavailable
        | Code::DataLoss => true,
        // Only with RetryInfo: otherwise the request is simply too large.
        Code::ResourceExhausted => told.is_some(),
        _ => false,
    };
    let own = || FIRST_WAIT.saturating_mul(1 << attempt.min(10)).min(LONGEST_OWN_WAIT);
    retryable.then(|| told.unwrap_or_else(own).min(longest))
}

/// The wait that the server asked for with `RetryInfo`, if it did.
pub(crate) fn told_wait(status: &Status) -> Option<Duration> {
    let details = RpcStatus::decode(status.details()).ok()?.details;
    let any = details.iter().find(|any| any.type_url.ends_with("/google.rpc.RetryInfo"))?;
    let delay = RetryInfo::decode(any.value.as_slice()).ok()?.retry_delay?;
    // A negative delay means at once.
    Some(Duration::try_from(delay).unwrap_or(Duration::ZERO))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn with_retry_info(code: Code, delay: prost_types::Duration) -> Status {
        let info = RetryInfo { retry_delay: Some(delay) };
        let any = prost_types::Any {
            type_url: "type.googleapis.com/google.rpc.RetryInfo".to_owned(),
            value: info.encode_to_vec(),
        };
        let status = RpcStatus { code: code as i32, message: String::new(), details: vec![any] };
        Status::with_details(code, "busy", status.encode_to_vec().into())
    }

    fn seconds(seconds: i64) -> prost_types::Duration {
        prost_types::Duration { seconds, nanos: 0 }
    }

    #[test]
    fn the_servers_wait_is_taken_up_to_the_bound() {
        let longest = Duration::from_secs(30);
        let check = |status: Status, expect: Option<Duration>| {
            assert_eq!(wait_before_resend(&status, 0, longest), expect, "{status:?}");
        };
        check(with_retry_info(Code::Unavailable, seconds(2)), Some(Duration::from_secs(2)));
        check(with_retry_info(Code::Unavailable, seconds(3_600)), Some(longest));
        check(with_retry_info(Code::Unavailable, seconds(-1)), Some(Duration::ZERO));
        check(with_retry_info(Code::ResourceExhausted, seconds(1)), Some(Duration::from_secs(1)));
        check(Status::resource_exhausted("too large"), None);
        check(Status::unavailable("no details"), Some(FIRST_WAIT));
        check(Status::with_details(Code::Unavailable, "", bytes::Bytes::from_static(b"\xFF")), Some(FIRST_WAIT));
        for code in [Code::Unauthenticated, Code::InvalidArgument, Code::PermissionDenied, Code::Internal] {
            check(with_retry_info(code, seconds(1)), None);
        }
    }

    #[test]
    fn own_waits_double_up_to_their_bound() {
        let wait = |attempt| wait_before_resend(&Status::unavailable(""), attempt, Duration::MAX);
        assert_eq!(wait(1), Some(Duration::from_millis(200)));
        assert_eq!(wait(3), Some(Duration::from_millis(800)));
        assert_eq!(wait(u32::MAX), Some(LONGEST_OWN_WAIT));
    }
}
