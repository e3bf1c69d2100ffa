//! `logseal cluster`.

use std::path::Path;

use http::{Method, StatusCode};
use serde_json::{Map, Value, json};

use crate::cli::{ClusterCommand, ClusterIdentity, ClusterKey, ClusterSettings, Following, Managing};
use crate::client::Management;
use crate::commands::follow::{Outcome, change};
use crate::commands::view::{list, name_in, number, properties, tags, text};
use crate::commands::{operation, print_json, print_line, print_table};
use crate::error::CommandError;
use crate::serve::VAULT_URI;

const COLLECTION: &str = "clusters";

const HEADER: [&str; 5] = ["NAME", "STATE", "KEY", "WORKSPACES", "ID"];

/// The only tier of Azure's clusters.
const SKU: &str = "CapacityReservation";

pub(crate) async fn run(data_dir: &Path, managing: &Managing<ClusterCommand>) -> Result<(), CommandError> {
    let management = Management::of(data_dir, &managing.server)?;
    let done = carry_out(&management, &managing.command).await;
    done.map_err(|error| error.with_hint(StatusCode::NOT_FOUND, "`logseal cluster list` shows those that are there"))
}

async fn carry_out(management: &Management, command: &ClusterCommand) -> Result<(), CommandError> {
    match command {
        ClusterCommand::List { json } => {
            let clusters = management.list(COLLECTION).await?;
            if *json { print_json(&clusters) } else { print_table(&HEADER, &rows(&clusters)) }
        }
        ClusterCommand::Show { name, json } => show(management, name, *json).await,
        ClusterCommand::Create { name, location, key, identity, settings, following } => {
            let mut body = body(key, identity, settings);
            body["location"] = location.as_str().into();
            if body.get("identity").is_none() {
                body["identity"] = json!({"type": "SystemAssigned"});
            }
            let call = management.call(Method::PUT, management.resource(COLLECTION, name, "")).json(&body).only_new();
            let answer = call.send().await.map_err(|error| match error.status() {
                Some(StatusCode::PRECONDITION_FAILED) => CommandError::Refused(format!(
                    "there is a cluster `{name}` already; `logseal cluster update {name}` changes it"
                )),
                _ => error,
            })?;
            finish(management, name, change(management, &answer, *following).await?, *following).await
        }
        ClusterCommand::Update { name, key, identity, settings, following } => {
            let body = body(key, identity, settings);
            if body == json!({}) {
                let message = "nothing would change: give --key-name, --identity, --capacity or --tag";
                return Err(CommandError::Usage(message.to_owned()));
            }
            let call = management.call(Method::PATCH, management.resource(COLLECTION, name, "")).json(&body);
            let answer = call.send().await?;
            finish(management, name, change(management, &answer, *following).await?, *following).await
        }
        ClusterCommand::Delete { name, force_delete, following } => {
            let force = if *force_delete { "&forceDelete=true" } else { "" };
            let path = format!("{}{force}", management.resource(COLLECTION, name, ""));
            let answer = management.call(Method::DELETE, path).send().await?;
            if answer.status == StatusCode::NO_CONTENT {
                return Err(CommandError::Refused(format!(
                    "there is no cluster `{name}` in resource group `{}`; `logseal cluster list` shows those that are there",
                    management.target.place.resource_group
                )));
            }
            match change(management, &answer, *following).await? {
                Outcome::Done(Some(ended)) if following.json => print_json(&ended),
                Outcome::Done(ended) => {
                    print_line(&format!("Cluster `{name}` is deleted."))?;
                    operation::print_shredded(ended.as_ref())
                }
                Outcome::Begun => Ok(()),
            }
        }
    }
}

async fn show(management: &Management, name: &str, json: bool) -> Result<(), CommandError> {
    let cluster: Value = management.get(&management.resource(COLLECTION, name, "")).await?.read()?;
    if json { print_json(&cluster) } else { print_table(&["PROPERTY", "VALUE"], &details(&cluster)) }
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
fn body(key: &ClusterKey, identity: &ClusterIdentity, settings: &ClusterSettings) -> Value {
    let (mut body, mut properties) = (Map::new(), Map::new());
    if let Some(name) = &key.key_name {
        let mut reference = json!({
            "keyVaultUri": key.key_vault_uri.as_deref().unwrap_or(VAULT_URI),
            "keyName": name,
            "keyVersion": key.key_version.as_deref().unwrap_or_default(),
        });
        if let Some(bits) = key.key_rsa_size {
            reference["keyRsaSize"] = bits.into();
        }
        properties.insert("keyVaultProperties".to_owned(), reference);
    }
    if let Some(uri) = &key.key_vault_key_uri {
        properties.insert("keyVaultKeyUri".to_owned(), uri.as_str().into());
    }
    if let Some(form) = &identity.default_identity {
        properties.insert("defaultIdentity".to_owned(), form.as_str().into());
    }
    if !properties.is_empty() {
        body.insert("properties".to_owned(), properties.into());
    }
    if let Some(id) = &identity.user_assigned_identity {
        let assigned = json!({"type": "UserAssigned", "userAssignedIdentities": {id.as_str(): {}}});
        body.insert("identity".to_owned(), assigned);
    } else if let Some(kind) = &identity.identity {
        body.insert("identity".to_owned(), json!({"type": kind}));
    }
    if let Some(capacity) = settings.capacity {
        body.insert("sku".to_owned(), json!({"name": SKU, "capacity": capacity}));
    }
    if !settings.tag.is_empty() {
        let tags: Map<_, _> = settings.tag.iter().map(|(name, value)| (name.clone(), value.as_str().into())).collect();
        body.insert("tags".to_owned(), tags.into());
    }
    body.into()
}

/// One row for each cluster.
fn rows(clusters: &[Value]) -> Vec<Vec<String>> {
    let row = |cluster: &Value| {
        vec![
            text(cluster, "/name"),
            state(cluster),
            key(cluster),
            list(cluster, "/properties/associatedWorkspaces").len().to_string(),
            text(cluster, "/properties/clusterId"),
        ]
    };
    clusters.iter().map(row).collect()
}

/// What is being done with the cluster or went wrong at last, else the state of its key.
fn state(cluster: &Value) -> String {
    let (provisioning, key) =
        (text(cluster, "/properties/provisioningState"), text(cluster, "/properties/keyState/state"));
    if provisioning == "Succeeded" && !key.is_empty() { key } else { provisioning }
}

/// `name/version` of the key in use.
fn key(cluster: &Value) -> String {
    let name = text(cluster, "/properties/keyVaultProperties/keyName");
    if name.is_empty() {
        return "service-managed".to_owned();
    }
    let version = Some(text(cluster, "/properties/keyState/resolvedVersion")).filter(|version| !version.is_empty());
    let version = version.unwrap_or_else(|| text(cluster, "/properties/keyVaultProperties/keyVersion"));
    format!("{name}/{version}")
}

/// Since when the key is in its state, until when that can last, why, and what to do: in one line.
fn key_state(cluster: &Value) -> String {
    let of = |name: &str| text(cluster, &format!("/properties/keyState/{name}"));
    let mut line = of("state");
    for (word, what) in [("since", of("since")), ("and revoked at", of("until")), ("because", of("reason"))] {
        if !what.is_empty() {
            line.push_str(&format!(" {word} {what}"));
        }
    }
    line
}

fn details(cluster: &Value) -> Vec<Vec<String>> {
    let of = |pointer: &str| text(cluster, pointer);
    let has_key = cluster.pointer("/properties/keyVaultProperties/keyName").is_some();
    let mode = match of("/properties/keyVaultProperties/keyVersion") {
        _ if !has_key => String::new(),
        pinned if pinned.is_empty() => "automatic: the newest one".to_owned(),
        pinned => format!("pinned to {pinned}"),
    };
    let wrapped = list(cluster, "/properties/keyState/versions").iter();
    let wrapped =
        wrapped.map(|version| format!("{} under {}", number(version, "/wrappedKeys"), text(version, "/version")));
    let mut all = vec![
        ("name", of("/name")),
        ("id", of("/id")),
        ("cluster id", of("/properties/clusterId")),
        ("location", of("/location")),
        ("provisioning state", of("/properties/provisioningState")),
        ("key state", key_state(cluster)),
        ("key", key(cluster)),
        ("key vault", of("/properties/keyVaultProperties/keyVaultUri")),
        ("key version", mode),
        ("least key size", of("/properties/keyVaultProperties/keyRsaSize")),
        ("newest key version", of("/properties/keyState/newestVersion")),
        ("account keys (AEKs)", wrapped.collect::<Vec<_>>().join(", ")),
        ("identity", of("/identity/type")),
        ("default identity", of("/properties/defaultIdentity")),
        ("asks the key vault as", of("/properties/keyState/principalId")),
        ("capacity", of("/sku/capacity")),
        ("tags", tags(cluster)),
        ("created", of("/properties/createdDate")),
        ("changed", of("/properties/lastModifiedDate")),
    ];
    all.extend(list(cluster, "/properties/associatedWorkspaces").iter().map(|workspace| {
        let name = text(workspace, "/workspaceName");
        let name = if name.is_empty() { name_in(&text(workspace, "/resourceId")).to_owned() } else { name };
        ("workspace", format!("{name} since {}", text(workspace, "/associateDate")))
    }));
    properties(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::table;

    fn sample() -> Value {
        json!({
            "id": "/subscriptions/s/resourceGroups/default/providers/Microsoft.OperationalInsights/clusters/prod",
            "name": "prod", "location": "local", "tags": {"team": "x"},
            "identity": {"type": "SystemAssigned", "principalId": "p"},
            "sku": {"name": "CapacityReservation", "capacity": 100},
            "properties": {
                "provisioningState": "Succeeded", "clusterId": "0194d5a0-0000-7000-8000-000000000001",
                "associatedWorkspaces": [{"workspaceName": "team", "associateDate": "2026-11-21T00:00:00.000Z"}],
                "keyVaultProperties": {"keyVaultUri": "https://127.0.0.1:8420", "keyName": "kek", "keyVersion": ""},
                "keyState": {"state": "Revoked", "since": "T", "reason": "it is disabled: enable it (KeyDisabled)", "resolvedVersion": "78de",
                    "versions": [{"version": "78de", "wrappedKeys": 3}]},
            },
        })
    }

    #[test]
    fn clusters_are_listed_with_key_and_state() {
        let mut service_managed = sample();
        service_managed["name"] = "local".into();
        service_managed["properties"]["keyVaultProperties"] = Value::Null;
        service_managed["properties"]["keyState"]["state"] = "Active".into();
        let mut failed = service_managed.clone();
        failed["properties"]["provisioningState"] = "Failed".into();
        failed["properties"]["associatedWorkspaces"] = json!([]);
        let shown = table(&HEADER, &rows(&[sample(), service_managed, failed, json!({"name": "odd"})]));
        let id = "0194d5a0-0000-7000-8000-000000000001";
        let expected = format!(
            "NAME   STATE    KEY              WORKSPACES  ID\n\
             prod   Revoked  kek/78de         1           {id}\n\
             local  Active   service-managed  1           {id}\n\
             local  Failed   service-managed  0           {id}\n\
             odd             service-managed  0\n"
        );
        assert_eq!(shown, expected);
    }

    #[test]
    fn a_cluster_is_shown_with_what_its_owner_has_to_know() {
        let shown = table(&["PROPERTY", "VALUE"], &details(&sample()));
        for expected in [
            "automatic",
            "Revoked since T because it is disabled: enable it (KeyDisabled)",
            "3 under 78de",
            "team=x",
            "team since 2026-11-21",
            "SystemAssigned",
        ] {
            assert!(shown.contains(expected), "{expected} in {shown}");
        }
        assert!(!shown.contains("default identity"), "what is not there is left out: {shown}");
        let mut pinned = sample();
        pinned["properties"]["keyVaultProperties"]["keyVersion"] = "78de".into();
        assert!(table(&["PROPERTY", "VALUE"], &details(&pinned)).contains("pinned to 78de"));
    }

    /// The contract: without a vault's URI the embedded one, without a version automatic, and nothing that was not asked for.
    #[test]
    fn a_body_says_what_the_options_say() {
        let key = ClusterKey { key_name: Some("kek".into()), ..ClusterKey::default() };
        let same = ClusterIdentity::default;
        let properties = json!({"keyVaultProperties": {"keyVaultUri": VAULT_URI, "keyName": "kek", "keyVersion": ""}});
        assert_eq!(body(&key, &same(), &ClusterSettings::default()), json!({"properties": properties}));
        assert_eq!(body(&ClusterKey::default(), &same(), &ClusterSettings::default()), json!({}));
        let key = ClusterKey { key_vault_key_uri: Some("https://v/keys/k".into()), ..ClusterKey::default() };
        let identity = ClusterIdentity {
            user_assigned_identity: Some("/id".into()),
            default_identity: Some("UserAssignedIdentity=/id".into()),
            ..same()
        };
        let expected = json!({
            "identity": {"type": "UserAssigned", "userAssignedIdentities": {"/id": {}}},
            "properties": {"keyVaultKeyUri": "https://v/keys/k", "defaultIdentity": "UserAssignedIdentity=/id"},
        });
        assert_eq!(body(&key, &identity, &ClusterSettings::default()), expected);
        let none = ClusterIdentity { identity: Some("None".into()), ..same() };
        assert_eq!(
            body(&ClusterKey::default(), &none, &ClusterSettings::default())["identity"],
            json!({"type": "None"})
        );
        let key = ClusterKey {
            key_vault_uri: Some("https://v".into()),
            key_name: Some("kek".into()),
            key_version: Some("1".into()),
            key_rsa_size: Some(4096),
            ..ClusterKey::default()
        };
        let settings = ClusterSettings { tag: vec![("a".into(), "b".into())], capacity: Some(500) };
        let body = body(&key, &same(), &settings);
        let reference = &body["properties"]["keyVaultProperties"];
        assert_eq!(
            reference,
            &json!({"keyVaultUri": "https://v", "keyName": "kek", "keyVersion": "1", "keyRsaSize": 4096})
        );
        assert_eq!((&body["sku"]["capacity"], &body["tags"]), (&json!(500), &json!({"a": "b"})));
    }
}
