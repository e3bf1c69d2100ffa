//! `logseal workspace`.

use std::path::Path;

use http::{Method, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use crate::cli::{Following, Managing, WorkspaceCommand, WorkspaceSettings};
use crate::client::Management;
use crate::commands::follow::{Outcome, change};
use crate::commands::view::{NONE, name_in, properties, tags, text, text_or_none};
use crate::commands::{operation, print_json, print_line, print_table};
use crate::error::CommandError;

const COLLECTION: &str = "workspaces";

/// What follows a workspace's path in that of its link.
const LINK: &str = "/linkedServices/cluster";

const HEADER: [&str; 5] = ["NAME", "STATE", "WORKSPACE ID", "CLUSTER", "RETENTION"];

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct SharedKeys {
    primary_shared_key: Zeroizing<String>,
    secondary_shared_key: Zeroizing<String>,
}

pub(crate) async fn run(data_dir: &Path, managing: &Managing<WorkspaceCommand>) -> Result<(), CommandError> {
    let management = Management::of(data_dir, &managing.server)?;
    carry_out(&management, &managing.command).await.map_err(hinted)
}

/// What to do about a workspace that is not there.
fn hinted(error: CommandError) -> CommandError {
    error.with_hint(StatusCode::NOT_FOUND, "`logseal workspace list` shows those that are there")
}

/// What to do about a key that is in use.
fn in_use(error: CommandError) -> CommandError {
    match &error {
        CommandError::Answer { code, .. } if code == "KeyRecentlyUsed" => {
            error.with_hint(StatusCode::CONFLICT, "here that is --skip-last-usage-check")
        }
        _ => error,
    }
}

async fn carry_out(management: &Management, command: &WorkspaceCommand) -> Result<(), CommandError> {
    let send = |method, name: &str, rest: &str| management.call(method, management.resource(COLLECTION, name, rest));
    match command {
        WorkspaceCommand::List { json } => {
            let workspaces = management.list(COLLECTION).await?;
            if *json { print_json(&workspaces) } else { print_table(&HEADER, &rows(&workspaces)) }
        }
        WorkspaceCommand::Show { name, json } => show(management, name, *json).await,
        WorkspaceCommand::Create { name, location, settings, following } => {
            let mut body = body(settings);
            body["location"] = location.as_str().into();
            let answer = send(Method::PUT, name, "").json(&body).only_new().send().await;
            let answer = answer.map_err(|error| match error.status() {
                Some(StatusCode::PRECONDITION_FAILED) => CommandError::Refused(format!(
                    "there is a workspace `{name}` already; `logseal workspace update {name}` changes it"
                )),
                _ => error,
            })?;
            finish(management, name, change(management, &answer, *following).await?, *following).await
        }
        WorkspaceCommand::Update { name, settings, following } => {
            let body = body(settings);
            if body == json!({}) {
                let message = "nothing would change: give --retention, --daily-cap, --tag or an option of keys";
                return Err(CommandError::Usage(message.to_owned()));
            }
            let answer = send(Method::PATCH, name, "").json(&body).send().await.map_err(in_use)?;
            finish(management, name, change(management, &answer, *following).await?, *following).await
        }
        WorkspaceCommand::Link { name, cluster, following } => {
            let is_id = cluster.starts_with('/');
            let id = if is_id { cluster.clone() } else { format!("{}/{cluster}", management.collection("clusters")) };
            let body = json!({"properties": {"writeAccessResourceId": id}});
            let answer = send(Method::PUT, name, LINK).json(&body).send().await?;
            finish(management, name, change(management, &answer, *following).await?, *following).await
        }
        WorkspaceCommand::Unlink { name, following } => {
            let answer = send(Method::DELETE, name, LINK).send().await?;
            finish(management, name, change(management, &answer, *following).await?, *following).await
        }
        WorkspaceCommand::RotateKey { name, following } => {
            let answer = send(Method::POST, name, "/rotateKey").send().await?;
            finish(management, name, change(management, &answer, *following).await?, *following).await
        }
        WorkspaceCommand::Delete { name, force, following } => {
            let query = if *force { "&force=true" } else { "" };
            let path = format!("{}{query}", management.resource(COLLECTION, name, ""));
            let answer = management.call(Method::DELETE, path).send().await?;
            if answer.status == StatusCode::NO_CONTENT {
                return Err(CommandError::Refused(format!(
                    "there is no workspace `{name}` in resource group `{}`; `logseal workspace list` shows those that are there",
                    management.target.place.resource_group
                )));
            }
            match change(management, &answer, *following).await? {
                Outcome::Done(Some(ended)) if following.json => print_json(&ended),
                Outcome::Done(ended) => {
                    let back = format!("; `logseal workspace create {name}` brings it back for some time");
                    print_line(&format!("Workspace `{name}` is deleted{}.", if *force { " for good" } else { &back }))?;
                    operation::print_shredded(ended.as_ref())
                }
                Outcome::Begun => Ok(()),
            }
        }
        WorkspaceCommand::Keys { name, json } => {
            print_keys(send(Method::POST, name, "/sharedKeys").send().await?.read()?, *json)
        }
        WorkspaceCommand::RegenerateKey { name, key, skip_last_usage_check, json } => {
            let body = json!({"keyKind": key.as_str(), "skipAccountKeysLastUsageCheck": skip_last_usage_check});
            let answer = send(Method::POST, name, "/regenerateSharedKey").json(&body).send().await;
            let answer = answer.map_err(in_use)?;
            if answer.status == StatusCode::ACCEPTED {
                // It takes long: whoever waits is shown the keys afterwards.
                change(management, &answer, Following::default()).await?;
                return print_keys(send(Method::POST, name, "/sharedKeys").send().await?.read()?, *json);
            }
            print_keys(answer.read()?, *json)
        }
    }
}

fn print_keys(keys: SharedKeys, json: bool) -> Result<(), CommandError> {
    if json {
        return print_json(&keys);
    }
    let rows = [("primary", keys.primary_shared_key), ("secondary", keys.secondary_shared_key)];
    print_table(&["SLOT", "KEY"], &rows.map(|(slot, key)| vec![slot.to_owned(), key.to_string()]))
}

/// The id by which the workspace `name` is queried.
pub(super) async fn id(management: &Management, name: &str) -> Result<String, CommandError> {
    // That of the data directory's default workspace needs no request.
    if let Some(known) = management.target.workspace.as_ref().filter(|known| known.name.eq_ignore_ascii_case(name)) {
        return Ok(known.id.clone());
    }
    let answer = management.get(&management.resource(COLLECTION, name, "")).await;
    let workspace: Value = answer.map_err(hinted)?.read()?;
    Ok(text(&workspace, "/properties/customerId"))
}

async fn show(management: &Management, name: &str, json: bool) -> Result<(), CommandError> {
    let workspace: Value = management.get(&management.resource(COLLECTION, name, "")).await?.read()?;
    if json { print_json(&workspace) } else { print_table(&["PROPERTY", "VALUE"], &details(&workspace)) }
}

async fn finish(
    management: &Management,
    name: &str,
    outcome: Outcome,
    following: Following,
) -> Result<(), CommandError> {
    match outcome {
        Outcome::Done(_) => show(management, name, following.json).await,
        Outcome::Begun => Ok(()),
    }
}

/// The part of a PUT's or PATCH's body that options say.
fn body(settings: &WorkspaceSettings) -> Value {
    let WorkspaceSettings {
        retention,
        daily_cap,
        disable_local_auth,
        key_check_before_regeneration,
        key_check_before_disable_local_auth,
        skip_last_usage_check,
        tag,
    } = settings;
    let (mut body, mut properties) = (Map::new(), Map::new());
    if let Some(days) = retention {
        properties.insert("retentionInDays".to_owned(), (*days).into());
    }
    if let Some(gigabytes) = daily_cap {
        properties.insert("workspaceCapping".to_owned(), json!({"dailyQuotaGb": gigabytes}));
    }
    let features: Map<_, _> = [
        ("disableLocalAuth", disable_local_auth),
        ("enableKeyCheckBeforeRegeneration", key_check_before_regeneration),
        ("enableKeyCheckBeforeDisableLocalAuth", key_check_before_disable_local_auth),
    ]
    .into_iter()
    .filter_map(|(name, setting)| setting.map(|wanted| (name.to_owned(), wanted.into())))
    .collect();
    if !features.is_empty() {
        properties.insert("features".to_owned(), features.into());
    }
    if *skip_last_usage_check {
        body.insert("skipAccountKeysLastUsageCheck".to_owned(), true.into());
    }
    if !properties.is_empty() {
        body.insert("properties".to_owned(), properties.into());
    }
    if !tag.is_empty() {
        let tags: Map<_, _> = tag.iter().map(|(name, value)| (name.clone(), value.as_str().into())).collect();
        body.insert("tags".to_owned(), tags.into());
    }
    body.into()
}

/// One row for each workspace.
fn rows(workspaces: &[Value]) -> Vec<Vec<String>> {
    let row = |workspace: &Value| {
        vec![
            text(workspace, "/name"),
            text(workspace, "/properties/provisioningState"),
            text(workspace, "/properties/customerId"),
            cluster(workspace),
            retention(workspace),
        ]
    };
    workspaces.iter().map(row).collect()
}

fn cluster(workspace: &Value) -> String {
    let id = text(workspace, "/properties/features/clusterResourceId");
    if id.is_empty() { NONE.to_owned() } else { name_in(&id).to_owned() }
}

fn retention(workspace: &Value) -> String {
    match workspace.pointer("/properties/retentionInDays").and_then(Value::as_u64) {
        Some(1) => "1 day".to_owned(),
        Some(days) => format!("{days} days"),
        None => "for ever".to_owned(),
    }
}

fn is_set(workspace: &Value, feature: &str) -> bool {
    workspace["properties"]["features"][feature].as_bool().unwrap_or_default()
}

/// When a key was made and last used.
fn key(workspace: &Value, name: &str) -> String {
    let at = |what: &str| text(workspace, &format!("/properties/keysMetadata/{name}/{what}"));
    match (at("generationTime"), at("lastUseTime")) {
        (made, _) if made.is_empty() => String::new(),
        (made, used) if used.is_empty() => format!("of {made}, never used"),
        (made, used) => format!("of {made}, last used {used}"),
    }
}

/// From what keys in use are kept.
fn kept(workspace: &Value) -> &'static str {
    let kept = ["enableKeyCheckBeforeRegeneration", "enableKeyCheckBeforeDisableLocalAuth"];
    match kept.map(|feature| is_set(workspace, feature)) {
        [true, true] => "are neither regenerated nor turned off",
        [true, false] => "are not regenerated",
        [false, true] => "are not turned off",
        [false, false] => "",
    }
}

fn details(workspace: &Value) -> Vec<Vec<String>> {
    let of = |pointer: &str| text(workspace, pointer);
    let cap = workspace.pointer("/properties/workspaceCapping/dailyQuotaGb").and_then(Value::as_f64);
    let cap = cap.filter(|cap| *cap >= 0.0).map_or_else(|| "none".to_owned(), |cap| format!("{cap} GB"));
    properties(vec![
        ("name", of("/name")),
        ("id", of("/id")),
        ("workspace id", of("/properties/customerId")),
        ("location", of("/location")),
        ("provisioning state", of("/properties/provisioningState")),
        ("cluster", text_or_none(workspace, "/properties/features/clusterResourceId")),
        ("retention", retention(workspace)),
        ("daily cap", cap),
        ("keys", if is_set(workspace, "disableLocalAuth") { "turned off".to_owned() } else { String::new() }),
        ("primary key", key(workspace, "primarySharedKey")),
        ("secondary key", key(workspace, "secondarySharedKey")),
        ("keys in use", kept(workspace).to_owned()),
        ("tags", tags(workspace)),
        ("created", of("/properties/createdDate")),
        ("changed", of("/properties/modifiedDate")),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::table;

    fn sample() -> Value {
        json!({
            "id": "/subscriptions/s/resourceGroups/default/providers/Microsoft.OperationalInsights/workspaces/team",
            "name": "team", "location": "local", "tags": {},
            "properties": {
                "provisioningState": "Succeeded", "customerId": "0194d5a0-0000-7000-8000-000000000002",
                "retentionInDays": 90, "workspaceCapping": {"dailyQuotaGb": -1.0},
                "features": {"clusterResourceId":
                    "/subscriptions/s/resourceGroups/g/providers/Microsoft.OperationalInsights/clusters/prod"},
            },
        })
    }

    #[test]
    fn workspaces_are_listed_with_cluster_and_retention() {
        let mut alone = sample();
        alone["name"] = "alone".into();
        alone["properties"]["features"] = json!({});
        alone["properties"]["retentionInDays"] = Value::Null;
        let id = "0194d5a0-0000-7000-8000-000000000002";
        let expected = format!(
            "NAME   STATE      WORKSPACE ID                          CLUSTER  RETENTION\n\
             team   Succeeded  {id}  prod     90 days\n\
             alone  Succeeded  {id}  -        for ever\n"
        );
        assert_eq!(table(&HEADER, &rows(&[sample(), alone])), expected);
    }

    #[test]
    fn a_workspace_is_shown_with_its_cap() {
        let shown = |workspace: &Value| table(&["PROPERTY", "VALUE"], &details(workspace));
        assert!(shown(&sample()).contains("daily cap           none"), "{}", shown(&sample()));
        let mut capped = sample();
        capped["properties"]["workspaceCapping"]["dailyQuotaGb"] = 1.5.into();
        assert!(shown(&capped).contains("1.5 GB"));
    }

    #[test]
    fn a_body_says_what_the_options_say() {
        assert_eq!(body(&WorkspaceSettings::default()), json!({}));
        let settings = WorkspaceSettings {
            retention: Some(90),
            daily_cap: Some(-1.0),
            tag: vec![("a".into(), "b".into())],
            ..WorkspaceSettings::default()
        };
        let properties = json!({"retentionInDays": 90, "workspaceCapping": {"dailyQuotaGb": -1.0}});
        assert_eq!(body(&settings), json!({"properties": properties, "tags": {"a": "b"}}));
        let settings = WorkspaceSettings {
            disable_local_auth: Some(true),
            key_check_before_regeneration: Some(false),
            skip_last_usage_check: true,
            ..WorkspaceSettings::default()
        };
        let features = json!({"disableLocalAuth": true, "enableKeyCheckBeforeRegeneration": false});
        let expected = json!({"properties": {"features": features}, "skipAccountKeysLastUsageCheck": true});
        assert_eq!(body(&settings), expected);
    }

    #[test]
    fn a_workspace_is_shown_with_what_is_known_of_its_keys() {
        let mut workspace = sample();
        let shown = |workspace: &Value| table(&["PROPERTY", "VALUE"], &details(workspace));
        assert!(!shown(&workspace).contains("key"), "an earlier server says nothing of them: {}", shown(&workspace));
        workspace["properties"]["keysMetadata"] = json!({
            "primarySharedKey": {"generationTime": "2026-01-01T00:00:00.000Z", "lastUseTime": "2026-01-02T00:00:00.000Z"},
            "secondarySharedKey": {"generationTime": "2026-01-01T00:00:00.000Z", "lastUseTime": null},
        });
        workspace["properties"]["features"]["disableLocalAuth"] = true.into();
        workspace["properties"]["features"]["enableKeyCheckBeforeRegeneration"] = true.into();
        let shown = shown(&workspace);
        for expected in [
            "of 2026-01-01T00:00:00.000Z, last used 2026-01-02T00:00:00.000Z",
            "of 2026-01-01T00:00:00.000Z, never used",
            "turned off",
            "are not regenerated",
        ] {
            assert!(shown.contains(expected), "{expected}: {shown}");
        }
    }
}
