//! Requests with more attribute keys than the payloads have.

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use prost::Message as _;

/// The request `bytes` with the attributes of its records renamed, so that all its records together have `keys` of them and each one as many
/// as before: a record is one of several kinds, which have no key in common. All keys are of one length whatever their number is.
///
/// # Panics
///
/// When `bytes` is no request.
#[must_use]
pub fn with_attribute_keys(bytes: &[u8], keys: usize) -> Vec<u8> {
    let mut request = ExportLogsServiceRequest::decode(bytes).expect("generated requests are well-formed");
    let scopes = request.resource_logs.iter_mut().flat_map(|resource| &mut resource.scope_logs);
    for (index, record) in scopes.flat_map(|scope| &mut scope.log_records).enumerate() {
        let kinds = (keys / record.attributes.len().max(1)).max(1);
        for attribute in &mut record.attributes {
            attribute.key = format!("{}.{:03}", attribute.key, index % kinds);
        }
    }
    request.encode_to_vec()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use logseal_bench::Payload;

    use super::*;

    #[test]
    fn a_request_has_so_many_keys_and_is_equally_long() {
        let original = crate::request(Payload::A, 0);
        let made = [6, 60, 600].map(|keys| {
            let bytes = with_attribute_keys(&original, keys);
            let request = ExportLogsServiceRequest::decode(bytes.as_slice()).expect("a request");
            let records = &request.resource_logs[0].scope_logs[0].log_records;
            let named: BTreeSet<&str> =
                records.iter().flat_map(|record| &record.attributes).map(|attribute| attribute.key.as_str()).collect();
            (bytes.len(), records.len(), named.len())
        });
        let length = made[0].0;
        assert_eq!(made, [(length, 1_000, 6), (length, 1_000, 60), (length, 1_000, 600)]);
    }
}
