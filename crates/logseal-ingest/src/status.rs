//! What answers of both protocols have in common: the code and the text of a refusal, and partial success.

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsPartialSuccess;
use prost::Message;
use tonic::Code;

use crate::door::{Accepted, Refusal};

/// Longest text of a partial success.
const PARTIAL_MESSAGE_BYTES: usize = 4_096;

/// Longest text of a refusal. In gRPC it travels twice in headers, escaped and in base64, and gRPC's C core takes 8 KiB of them.
const REFUSAL_BYTES: usize = 1_024;

/// `google.rpc.Status`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct RpcStatus {
    #[prost(int32, tag = "1")]
    pub(crate) code: i32,
    #[prost(string, tag = "2")]
    pub(crate) message: String,
    #[prost(message, repeated, tag = "3")]
    pub(crate) details: Vec<prost_types::Any>,
}

/// The code of gRPC that says what `refusal` means to a client.
pub(crate) fn code(refusal: &Refusal) -> Code {
    match refusal {
        Refusal::Unauthenticated { .. } | Refusal::LocalAuthDisabled => Code::Unauthenticated,
        Refusal::Undecodable(_) => Code::InvalidArgument,
        Refusal::TooLarge(_) | Refusal::CapReached { retry_after: None, .. } => Code::ResourceExhausted,
        Refusal::Unsupported(_) => Code::Unimplemented,
        Refusal::Unavailable { .. } | Refusal::CapReached { .. } => Code::Unavailable,
        Refusal::DeadlinePassed => Code::DeadlineExceeded,
        Refusal::Disconnected => Code::Cancelled,
    }
}

/// What the client is told.
pub(crate) fn text(refusal: &Refusal) -> String {
    shortened(&refusal.to_string(), REFUSAL_BYTES).to_owned()
}

/// What is told beside success; nothing when all records were accepted without a word.
pub(crate) fn partial_success(accepted: &Accepted) -> Option<ExportLogsPartialSuccess> {
    let message = accepted.message.as_deref();
    (accepted.rejected > 0 || message.is_some()).then(|| ExportLogsPartialSuccess {
        rejected_log_records: i64::try_from(accepted.rejected).unwrap_or(i64::MAX),
        error_message: shortened(message.unwrap_or_default(), PARTIAL_MESSAGE_BYTES).to_owned(),
    })
}

/// The longest beginning of `text` with at most `most` bytes.
fn shortened(text: &str, most: usize) -> &str {
    &text[..text.floor_char_boundary(most)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_cut_between_characters() {
        for (text, most, expected) in [("abc", 3, "abc"), ("abcd", 3, "abc"), ("a\u{20ac}b", 3, "a"), ("", 3, "")] {
            assert_eq!(shortened(text, most), expected);
        }
    }
}
