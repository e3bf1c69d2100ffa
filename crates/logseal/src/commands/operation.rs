//! `logseal operation`.

use std::path::Path;
use std::time::Duration;

use http::Method;
use serde::Deserialize;
use serde_json::Value;

use crate::cli::{Managing, OperationCommand, OperationStatus};
use crate::client::{Management, Place};
use crate::commands::follow::{succeeded, until_end};
use crate::commands::view::{list, number, properties, short_id, text};
use crate::commands::{print_json, print_line, print_table};
use crate::error::CommandError;

const HEADER: [&str; 6] = ["ID", "KIND", "STATUS", "%", "RESOURCE", "STARTED"];

/// Most operations of one answer.
const PAGE: usize = 1_000;

/// One page of operations.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Page {
    value: Vec<Value>,
    next_before: Option<String>,
}

pub(crate) async fn run(data_dir: &Path, managing: &Managing<OperationCommand>) -> Result<(), CommandError> {
    let management = &Management::of(data_dir, &managing.server)?;
    match &managing.command {
        OperationCommand::List { status, limit, json } => {
            let operations = newest(management, *status, *limit).await?;
            if *json {
                print_json(&operations)
            } else {
                print_table(&HEADER, &rows(&operations, &management.target.place))
            }
        }
        OperationCommand::Show { id, json } => print_one(management, &of(management, id).await?, *json),
        OperationCommand::Wait { id, timeout, json } => {
            let ended = until_end(management, id, timeout.map(Duration::from_secs)).await?;
            print_one(management, &ended, *json)?;
            succeeded(&ended)
        }
        OperationCommand::Cancel { id, json } => {
            let call = management.call(Method::POST, format!("/v1/operations/{id}/cancel"));
            print_one(management, &call.send().await?.read()?, *json)
        }
    }
}

/// The operation `id` as it is now.
pub(super) async fn of(management: &Management, id: &str) -> Result<Value, CommandError> {
    management.get(&format!("/v1/operations/{id}")).await?.read()
}

async fn newest(
    management: &Management,
    status: Option<OperationStatus>,
    limit: usize,
) -> Result<Vec<Value>, CommandError> {
    let (mut listed, mut before) = (Vec::new(), None::<String>);
    let status = status.map(|status| format!("&status={}", status.as_str())).unwrap_or_default();
    while listed.len() < limit {
        let top = (limit - listed.len()).min(PAGE);
        let from = before.map(|id| format!("&before={id}")).unwrap_or_default();
        let page: Page = management.get(&format!("/v1/operations?top={top}{status}{from}")).await?.read()?;
        let is_empty = page.value.is_empty();
        listed.extend(page.value);
        before = page.next_before;
        if is_empty || before.is_none() {
            break;
        }
    }
    listed.truncate(limit);
    Ok(listed)
}

/// Shows one operation.
pub(super) fn print_one(management: &Management, operation: &Value, json: bool) -> Result<(), CommandError> {
    if json {
        print_json(operation)
    } else {
        print_table(&["PROPERTY", "VALUE"], &details(operation, &management.target.place))
    }
}

/// What the caller of an operation that destroyed keys should know: older copies still hold them, wrapped. It is no advice to disable
/// these versions, since other keys may be under them too.
pub(super) fn print_shredded(operation: Option<&Value>) -> Result<(), CommandError> {
    let versions = operation.map(|operation| list(operation, "/properties/kekVersions")).unwrap_or_default();
    if versions.is_empty() {
        return Ok(());
    }
    print_line("Its keys are destroyed. Copies made before still hold them, wrapped by these key versions:")?;
    versions.iter().try_for_each(|version| print_line(&format!("  {}", text(version, ""))))
}

/// One row for each operation.
fn rows(operations: &[Value], place: &Place) -> Vec<Vec<String>> {
    let row = |operation: &Value| {
        vec![
            text(operation, "/name"),
            text(operation, "/kind"),
            text(operation, "/status"),
            number(operation, "/percentComplete"),
            short_id(&text(operation, "/resourceId"), place),
            text(operation, "/startTime"),
        ]
    };
    operations.iter().map(row).collect()
}

fn details(operation: &Value, place: &Place) -> Vec<Vec<String>> {
    let of = |pointer: &str| text(operation, pointer);
    let mut all = vec![
        ("id", of("/name")),
        ("kind", of("/kind")),
        ("resource", short_id(&of("/resourceId"), place)),
        ("status", of("/status")),
        ("complete", format!("{} %", number(operation, "/percentComplete"))),
        ("step", of("/step")),
        ("started", of("/startTime")),
        ("ended", of("/endTime")),
        ("error", of("/error/code")),
        ("reason", of("/error/message")),
    ];
    let result = operation.get("properties").and_then(Value::as_object).into_iter().flatten();
    all.extend(result.map(|(name, _)| (name.as_str(), of(&format!("/properties/{name}")))));
    properties(all)
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

    /// Scenario: a server with five operations that gives two at a time. Guarantee: as many as were asked for are listed, newest
    /// first, whether that is more than a page, all, or more than there are.
    #[tokio::test]
    async fn a_listing_has_as_many_operations_as_were_asked_for() {
        #[derive(Deserialize)]
        struct Asked {
            top: usize,
            before: Option<usize>,
            status: Option<String>,
        }
        let page = |Query(asked): Query<Asked>| async move {
            assert_eq!(asked.status.as_deref(), Some("failed"));
            let below = asked.before.unwrap_or(6);
            let names: Vec<_> = (1..below).rev().take(asked.top.min(2)).collect();
            let next = names.last().filter(|last| **last > 1).map(ToString::to_string);
            let value: Vec<_> = names.iter().map(|name| json!({"name": name})).collect();
            json!({"value": value, "nextBefore": next}).to_string()
        };
        let management = served(Router::new().route("/v1/operations", get(page))).await;
        for (limit, expected) in
            [(1, &[5][..]), (3, &[5, 4, 3]), (5, &[5, 4, 3, 2, 1]), (9, &[5, 4, 3, 2, 1]), (0, &[])]
        {
            let listed = newest(&management, Some(OperationStatus::Failed), limit).await.unwrap();
            let names: Vec<_> = listed.iter().map(|operation| operation["name"].as_u64().unwrap()).collect();
            assert_eq!(names, expected, "{limit}");
        }
    }

    fn place() -> Place {
        Place { subscription: "s".into(), resource_group: "default".into() }
    }

    fn sample() -> Value {
        json!({
            "id": "/subscriptions/s/providers/Microsoft.OperationalInsights/locations/local/operationStatuses/ID",
            "name": "ID", "status": "Updating", "startTime": "2026-11-21T19:00:00.000Z", "percentComplete": 60.0,
            "kind": "updateCluster", "step": "rewrap-keys",
            "resourceId": "/subscriptions/s/resourceGroups/default/providers/Microsoft.OperationalInsights/clusters/prod",
        })
    }

    #[test]
    fn operations_are_listed_with_their_progress() {
        let expected = "ID  KIND           STATUS    %   RESOURCE       STARTED\n\
                        ID  updateCluster  Updating  60  clusters/prod  2026-11-21T19:00:00.000Z\n";
        assert_eq!(table(&HEADER, &rows(&[sample()], &place())), expected);
    }

    #[test]
    fn an_operation_is_shown_with_its_step_or_its_reason() {
        let shown = |operation: &Value| table(&["PROPERTY", "VALUE"], &details(operation, &place()));
        assert!(shown(&sample()).contains("rewrap-keys") && !shown(&sample()).contains("reason"));
        let mut failed = sample();
        failed["status"] = "Failed".into();
        failed["error"] = json!({"code": "KeyNotFound", "message": "no such key"});
        failed["properties"] = json!({"kekVersions": ["https://v/keys/kek/1"]});
        for expected in ["KeyNotFound", "no such key", "https://v/keys/kek/1"] {
            assert!(shown(&failed).contains(expected), "{}", shown(&failed));
        }
    }
}
