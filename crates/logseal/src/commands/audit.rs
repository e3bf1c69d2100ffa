//! `logseal audit`.

use std::path::Path;

use http::Method;
use serde::Deserialize;
use serde_json::Value;

use crate::cli::{AuditCommand, Managing};
use crate::client::{Management, Place};
use crate::commands::view::{list, number, short_id, text, text_or_none};
use crate::commands::{print_json, print_line, print_table};
use crate::error::CommandError;

const HEADER: [&str; 7] = ["SEQUENCE", "TIME", "ACTOR", "ACTION", "RESOURCE", "OUTCOME", "OPERATION"];

/// Most records of one answer.
const PAGE: usize = 1_000;

/// What all actions begin with.
const PROVIDER: &str = "Microsoft.OperationalInsights/";

/// One page of records.
#[derive(Deserialize)]
struct Page {
    value: Vec<Value>,
}

pub(crate) async fn run(data_dir: &Path, managing: &Managing<AuditCommand>) -> Result<(), CommandError> {
    let management = &Management::of(data_dir, &managing.server)?;
    match &managing.command {
        AuditCommand::List { limit, json } => {
            let records = newest(management, *limit).await?;
            if *json { print_json(&records) } else { print_table(&HEADER, &rows(&records, &management.target.place)) }
        }
        AuditCommand::Verify { json } => {
            // A long trail takes its time.
            let answer = management.call(Method::GET, "/v1/audit/verify").without_limit().send().await?;
            let result: Value = answer.read()?;
            if *json {
                print_json(&result)?;
            }
            verdict(&result).and_then(|sound| if *json { Ok(()) } else { print_line(&sound) })
        }
    }
}

async fn newest(management: &Management, limit: usize) -> Result<Vec<Value>, CommandError> {
    let mut listed: Vec<Value> = Vec::new();
    while listed.len() < limit {
        let oldest = listed.last().and_then(sequence);
        let top = (limit - listed.len()).min(PAGE);
        let before = oldest.map(|sequence| format!("&before={sequence}")).unwrap_or_default();
        let page: Page = management.get(&format!("/v1/audit?top={top}{before}")).await?.read()?;
        // Each page has to lead on, or the listing would have no end.
        let leads_on =
            page.value.last().and_then(sequence).is_some_and(|last| oldest.is_none_or(|oldest| last < oldest));
        let is_full = page.value.len() == top;
        listed.extend(page.value);
        if !(leads_on && is_full) {
            break;
        }
    }
    listed.truncate(limit);
    Ok(listed)
}

fn sequence(record: &Value) -> Option<u64> {
    record.get("sequence")?.as_u64()
}

/// One row for each record.
fn rows(records: &[Value], place: &Place) -> Vec<Vec<String>> {
    let row = |record: &Value| {
        let action = text(record, "/action");
        vec![
            text(record, "/sequence"),
            text(record, "/time"),
            text(record, "/actor"),
            action.strip_prefix(PROVIDER).unwrap_or(&action).to_owned(),
            short_id(&text(record, "/resource"), place),
            text(record, "/outcome"),
            text_or_none(record, "/operation"),
        ]
    };
    records.iter().map(row).collect()
}

/// Says that the records are whole, and what they say of catalogs that took others' places; or fails with what is wrong with them.
fn verdict(result: &Value) -> Result<String, CommandError> {
    let records = number(result, "/records");
    let Some(faults) = result.get("faults").and_then(Value::as_array) else {
        return Err(CommandError::Refused("the server did not say whether it found faults".to_owned()));
    };
    if faults.is_empty() {
        let notices = list(result, "/notices");
        if notices.is_empty() {
            return Ok(format!("All {records} records are as they were written, and none is missing."));
        }
        let notices: String = notices.iter().map(|notice| format!("\nBut {}.", text(notice, ""))).collect();
        return Ok(format!("All {records} records are as they were written.{notices}"));
    }
    let faults: Vec<_> = list(result, "/faults").iter().map(|fault| text(fault, "")).collect();
    Err(CommandError::Refused(format!(
        "the record of changes was altered, {} faults among {records} records: {}",
        faults.len(),
        faults.join("; ")
    )))
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::extract::Query;
    use axum::routing::get;
    use serde_json::json;

    use super::*;
    use crate::client::tests::served;
    use crate::commands::table;

    #[derive(Deserialize)]
    struct Asked {
        top: u64,
        before: Option<u64>,
    }

    #[tokio::test]
    async fn a_listing_goes_back_as_far_as_was_asked_for() {
        let page = |Query(Asked { top, before }): Query<Asked>| async move {
            let newest = before.unwrap_or(2_501) - 1;
            let value: Vec<_> =
                (1..=newest).rev().take(usize::try_from(top).unwrap()).map(|s| json!({"sequence": s})).collect();
            json!({"value": value}).to_string()
        };
        let management = served(Router::new().route("/v1/audit", get(page))).await;
        for (limit, count) in [(3, 3), (2_000, 2_000), (2_001, 2_001), (9_999, 2_500)] {
            let listed = newest(&management, limit).await.unwrap();
            let sequences: Vec<_> = listed.iter().filter_map(sequence).collect();
            assert!(sequences.iter().copied().eq((1..=2_500).rev().take(count)), "{limit}");
        }
    }

    /// Scenario: a server that answers each question with the same records. Guarantee: the listing ends.
    #[tokio::test]
    async fn a_listing_that_does_not_lead_on_ends() {
        let page = |Query(Asked { top, .. }): Query<Asked>| async move {
            let value: Vec<_> = (0..top).map(|_| json!({"sequence": 7})).collect();
            json!({"value": value}).to_string()
        };
        let management = served(Router::new().route("/v1/audit", get(page))).await;
        assert_eq!(newest(&management, usize::MAX).await.unwrap().len(), 2 * PAGE);
    }

    #[test]
    fn records_are_listed_in_short() {
        let record = json!({
            "sequence": 7, "time": "2026-11-21T19:00:00.000Z", "actor": "management-token",
            "action": "Microsoft.OperationalInsights/clusters/write", "outcome": "Accepted", "operation": null,
            "resource": "/subscriptions/s/resourceGroups/default/providers/Microsoft.OperationalInsights/clusters/prod",
            "before": null, "after": {"kek": "x"},
        });
        let place = Place { subscription: "s".into(), resource_group: "default".into() };
        let expected = "SEQUENCE  TIME                      ACTOR             ACTION          RESOURCE       OUTCOME   OPERATION\n\
                        7         2026-11-21T19:00:00.000Z  management-token  clusters/write  clusters/prod  Accepted  -\n";
        assert_eq!(table(&HEADER, &rows(&[record], &place)), expected);
    }

    /// Scenario: the server found faults, none, or its answer does not say. Guarantee: only a server that says that there is none
    /// makes the command succeed, and each fault is named.
    #[test]
    fn only_records_without_faults_pass() {
        assert!(verdict(&json!({"records": 3, "faults": []})).unwrap().contains("All 3 records"));
        assert!(verdict(&json!({"records": 3})).is_err());
        let replaced = json!({"records": 3, "faults": [], "notices": ["record 1 says so"]});
        let message = verdict(&replaced).unwrap();
        assert!(message.contains("All 3 records") && message.contains("But record 1 says so."), "{message}");
        assert!(!message.contains("none is missing"), "{message}");
        let altered = json!({"records": 3, "faults": ["record 2: altered", {"sequence": 3, "fault": "missing"}]});
        let message = verdict(&altered).unwrap_err().to_string();
        assert!(message.contains("record 2: altered") && message.contains("\"missing\""), "{message}");
    }
}
