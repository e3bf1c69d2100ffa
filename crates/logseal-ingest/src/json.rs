//! Requests in OTLP/JSON made protobuf, under the memory budget.

use bytes::Bytes;
use logseal_otlp::from_json;
use logseal_otlp::json_request::most_bytes;

use crate::admission::{BudgetPermit, over_budget};
use crate::cpu;
use crate::door::Refusal;
use crate::expansion::Expansion;

/// A text that is read in place: about 0.2 ms.
const IN_PLACE: usize = 64 * 1024;

/// The protobuf of `text`, whose bytes and an estimate of their chunk `permit` covers; of at most `limit` bytes.
///
/// The text and its protobuf are there at the same time, together hardly more than twice the text: the estimate of the chunk, which
/// does not exist yet, has room for that.
pub(crate) async fn to_protobuf(
    text: Bytes,
    permit: BudgetPermit,
    limit: usize,
    expansion: Expansion,
) -> Result<(Bytes, BudgetPermit), Refusal> {
    if text.len() <= IN_PLACE {
        return convert(text, permit, limit, expansion);
    }
    let result = cpu::run(move |_| convert(text, permit, limit, expansion)).await;
    result.unwrap_or_else(|_panic| Err(Refusal::unavailable("the request could not be read now")))
}

fn convert(
    text: Bytes,
    mut permit: BudgetPermit,
    limit: usize,
    expansion: Expansion,
) -> Result<(Bytes, BudgetPermit), Refusal> {
    // Its buffer may be larger than the text.
    let held = permit.bytes().saturating_sub(expansion.chunk_bytes(text.len())).max(text.len());
    if !permit.try_cover(held + most_bytes(text.len())) {
        return Err(over_budget());
    }
    let mut body = from_json(&text).map_err(|error| Refusal::Undecodable(error.to_string().into()))?;
    drop(text);
    if body.len() > limit {
        return Err(Refusal::too_large("the request as protobuf", limit));
    }
    body.shrink_to_fit();
    let needed = body.capacity() + expansion.chunk_bytes(body.len());
    if !permit.try_cover(needed) {
        return Err(over_budget());
    }
    permit.shrink_to(needed);
    Ok((Bytes::from(body), permit))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Budget;

    const MIB: usize = 1024 * 1024;

    /// A request of about `bytes` bytes as JSON.
    fn text(bytes: usize) -> Bytes {
        let record = r#"{"severityNumber":9,"body":{"stringValue":"GET /index.html took 12 ms"}},"#;
        let records = record.repeat(bytes / record.len());
        let records = records.trim_end_matches(',');
        format!(r#"{{"resourceLogs":[{{"scopeLogs":[{{"logRecords":[{records}]}}]}}]}}"#).into()
    }

    /// Scenario: texts below and above what is read in place, with the budget that decompression leaves them and not a byte more.
    /// Guarantee: that suffices, and what is held afterwards is the protobuf and its chunk.
    #[tokio::test]
    async fn the_budget_of_the_text_suffices() {
        for bytes in [100, 10_000, IN_PLACE, MIB] {
            let text = text(bytes);
            let budget = Budget::new(text.len() + Expansion::default().chunk_bytes(text.len()));
            let permit = budget.try_take(budget.total()).expect("all of it");
            let (body, permit) =
                to_protobuf(text.clone(), permit, 64 * MIB, Expansion::default()).await.expect("a request");
            assert!(body.len() < text.len() && !body.is_empty());
            assert_eq!(permit.bytes(), body.len() + Expansion::default().chunk_bytes(body.len()), "{bytes}");
            assert_eq!(budget.free(), budget.total() - permit.bytes());
        }
    }

    #[tokio::test]
    async fn what_is_not_to_be_taken_is_refused_and_gives_its_budget_back() {
        let budget = Budget::new(4 * MIB);
        let take =
            |text: &Bytes| budget.try_take(text.len() + Expansion::default().chunk_bytes(text.len())).expect("free");
        for bytes in [100, 2 * IN_PLACE] {
            let whole = text(bytes);
            let cut = whole.slice(..whole.len() - 1);
            let refused = to_protobuf(cut.clone(), take(&cut), MIB, Expansion::default()).await.map(drop);
            assert!(matches!(&refused, Err(Refusal::Undecodable(text)) if text.contains("OTLP/JSON")), "{refused:?}");
            let refused = to_protobuf(whole.clone(), take(&whole), 30, Expansion::default()).await.map(drop);
            assert!(matches!(refused, Err(Refusal::TooLarge(_))), "{refused:?}");
        }
        drop(budget.take(budget.total()).await);
        assert_eq!(budget.free(), budget.total());
    }
}
