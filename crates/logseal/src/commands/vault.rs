//! `logseal vault`.

use std::path::Path;

use chrono::{DateTime, SecondsFormat};
use http::{Method, StatusCode};
use serde_json::{Map, Value, json};

use crate::cli::{KeyCommand, ServerOptions, VaultCommand};
use crate::client::{Management, Vault};
use crate::commands::view::{NONE, list, name_in, properties, tags, text};
use crate::commands::{print_json, print_line, print_table};
use crate::error::CommandError;

const KEYS: [&str; 4] = ["NAME", "ENABLED", "CREATED", "RECOVERY"];
const DELETED: [&str; 3] = ["NAME", "DELETED", "PURGED"];
const VERSIONS: [&str; 4] = ["VERSION", "ENABLED", "CREATED", "EXPIRES"];

pub(crate) async fn run(data_dir: &Path, command: &VaultCommand) -> Result<(), CommandError> {
    let vault = Vault::of(data_dir)?;
    let done = match command {
        VaultCommand::Key(command) | VaultCommand::Direct(command) => key(&vault, command).await,
        VaultCommand::Grant { key, cluster, json } => {
            share(data_dir, &vault, Share { key, cluster, grants: true, json: *json }).await
        }
        VaultCommand::Revoke { key, cluster, json } => {
            share(data_dir, &vault, Share { key, cluster, grants: false, json: *json }).await
        }
    };
    done.map_err(with_advice)
}

/// What to do about a refusal.
fn with_advice(error: CommandError) -> CommandError {
    let advice = match &error {
        CommandError::Answer { code, .. } => match code.as_str() {
            "KeyNotFound" => "`logseal vault key list` shows the keys, `--deleted` those that can be recovered",
            "ObjectIsDeletedButRecoverable" => "`logseal vault key recover NAME` brings it back",
            "Unauthorized" => {
                "`logseal serve` writes the token at its start; a variable LOGSEAL_VAULT_TOKEN overrides it"
            }
            _ => return error,
        },
        _ => return error,
    };
    let status = error.status().unwrap_or(StatusCode::OK);
    error.with_hint(status, advice)
}

async fn key(vault: &Vault, command: &KeyCommand) -> Result<(), CommandError> {
    match command {
        KeyCommand::Create { name, size, no_grant, purgeable, json } => {
            let extension = json!({"grants": !no_grant, "purgeable": purgeable});
            let body = json!({"kty": "RSA", "key_size": size, "logseal": extension});
            let made = vault.call(Method::POST, &format!("/keys/{name}/create"), Some(body)).await?;
            shown(vault, name, &made, *json).await
        }
        KeyCommand::List { deleted: false, json } => {
            let keys = vault.list("/keys").await?;
            if *json {
                print_json(&keys.iter().map(listed).collect::<Vec<_>>())
            } else {
                print_table(&KEYS, &key_rows(&keys))
            }
        }
        KeyCommand::List { deleted: true, json } => {
            let keys = vault.list("/deletedkeys").await?;
            if *json {
                print_json(&keys.iter().map(listed).collect::<Vec<_>>())
            } else {
                print_table(&DELETED, &deleted_rows(&keys))
            }
        }
        KeyCommand::Show { name, json } => {
            let key = vault.get(&format!("/keys/{name}")).await?;
            shown(vault, name, &key, *json).await
        }
        KeyCommand::Versions { name, json } => {
            let versions = versions(vault, name).await?;
            if *json { print_json(&versions) } else { print_table(&VERSIONS, &version_rows(&versions)) }
        }
        KeyCommand::Rotate { name, json } => {
            let made = vault.call(Method::POST, &format!("/keys/{name}/rotate"), None).await?;
            shown(vault, name, &made, *json).await
        }
        KeyCommand::Enable { name, version, json } => set_enabled(vault, name, version.as_deref(), true, *json).await,
        KeyCommand::Disable { name, version, json } => set_enabled(vault, name, version.as_deref(), false, *json).await,
        KeyCommand::Delete { name, json } => {
            let deleted = vault.call(Method::DELETE, &format!("/keys/{name}"), None).await?;
            if *json {
                return print_json(&deleted);
            }
            let until = date(deleted.get("scheduledPurgeDate"));
            print_line(&format!(
                "Key `{name}` is deleted; until {until} `logseal vault key recover {name}` brings it back."
            ))
        }
        KeyCommand::Recover { name, json } => {
            let key = vault.call(Method::POST, &format!("/deletedkeys/{name}/recover"), None).await?;
            shown(vault, name, &key, *json).await
        }
        KeyCommand::Purge { name } => {
            vault.call(Method::DELETE, &format!("/deletedkeys/{name}"), None).await?;
            print_line(&format!("Key `{name}` is purged; nothing opens what it wrapped any more."))
        }
    }
}

/// Prints a key as it is now, with those who may use it.
async fn shown(vault: &Vault, name: &str, key: &Value, json: bool) -> Result<(), CommandError> {
    if json {
        return print_json(key);
    }
    let grants = vault.get(&format!("/keys/{name}/grants")).await?;
    print_table(&["PROPERTY", "VALUE"], &details(key, &grants))
}

/// The versions of a key, newest first, each flat.
async fn versions(vault: &Vault, name: &str) -> Result<Vec<Value>, CommandError> {
    let listed = vault.list(&format!("/keys/{name}/versions")).await?;
    Ok(listed.iter().map(|item| flat(item, "version")).collect())
}

/// A key of a listing, flat, under its name.
fn listed(item: &Value) -> Value {
    flat(item, "name")
}

/// An item of a listing with its attributes beside its last segment, which is its `id`.
fn flat(item: &Value, id: &str) -> Value {
    let kid = text(item, "/kid");
    let mut flat = Map::new();
    flat.insert(id.to_owned(), name_in(&kid).into());
    flat.extend(item.get("attributes").and_then(Value::as_object).cloned().unwrap_or_default());
    for (name, value) in item.as_object().into_iter().flatten() {
        if name != "attributes" {
            flat.insert(name.clone(), value.clone());
        }
    }
    flat.into()
}

async fn set_enabled(
    vault: &Vault,
    name: &str,
    version: Option<&str>,
    enabled: bool,
    json: bool,
) -> Result<(), CommandError> {
    let chosen: Vec<String> = match version {
        Some(version) => vec![version.to_owned()],
        // Newest first: what is in use stops, or works again, before what is old.
        None => versions(vault, name).await?.iter().map(|known| text(known, "/version")).collect(),
    };
    let body = json!({"attributes": {"enabled": enabled}});
    for version in &chosen {
        vault.call(Method::PATCH, &format!("/keys/{name}/{version}"), Some(body.clone())).await?;
    }
    if json {
        return print_json(&versions(vault, name).await?);
    }
    let (count, state) = (chosen.len(), if enabled { "enabled" } else { "disabled" });
    match version {
        Some(version) => print_line(&format!("Version `{version}` of key `{name}` is {state}.")),
        None if count == 1 => print_line(&format!("The one version of key `{name}` is {state}.")),
        None => print_line(&format!("All {count} versions of key `{name}` are {state}.")),
    }
}

/// Who is to be given a key, or to lose it.
struct Share<'a> {
    key: &'a str,
    cluster: &'a str,
    grants: bool,
    json: bool,
}

async fn share(data_dir: &Path, vault: &Vault, share: Share<'_>) -> Result<(), CommandError> {
    let Share { key, cluster, grants, json } = share;
    let method = if grants { Method::PUT } else { Method::DELETE };
    let principal = principal(data_dir, cluster).await?;
    let now = vault.call(method, &format!("/keys/{key}/grants/{principal}"), None).await?;
    if json {
        return print_json(&now);
    }
    print_line(&if grants {
        format!("Cluster `{cluster}` may use key `{key}`.")
    } else {
        format!("Cluster `{cluster}` may not use key `{key}` any more.")
    })
}

/// As whom a cluster asks the vault.
async fn principal(data_dir: &Path, cluster: &str) -> Result<String, CommandError> {
    let management = Management::of(data_dir, &ServerOptions::default())?;
    let found: Value = management
        .get(&management.cluster(cluster))
        .await
        .map_err(|error| error.with_hint(StatusCode::NOT_FOUND, "`logseal cluster list` shows those that are there"))?
        .read()?;
    match text(&found, "/properties/keyState/principalId") {
        id if id.is_empty() => {
            Err(CommandError::Refused(format!("cluster `{cluster}` has no identity to grant anything to")))
        }
        id => Ok(id),
    }
}

fn key_rows(keys: &[Value]) -> Vec<Vec<String>> {
    let row = |key: &Value| {
        vec![
            name_in(&text(key, "/kid")).to_owned(),
            yes_or_no(key.pointer("/attributes/enabled")),
            date(key.pointer("/attributes/created")),
            text(key, "/attributes/recoveryLevel"),
        ]
    };
    keys.iter().map(row).collect()
}

fn deleted_rows(keys: &[Value]) -> Vec<Vec<String>> {
    let row = |key: &Value| {
        vec![name_in(&text(key, "/kid")).to_owned(), date(key.get("deletedDate")), date(key.get("scheduledPurgeDate"))]
    };
    keys.iter().map(row).collect()
}

fn version_rows(versions: &[Value]) -> Vec<Vec<String>> {
    let row = |version: &Value| {
        vec![
            text(version, "/version"),
            yes_or_no(version.get("enabled")),
            date(version.get("created")),
            date(version.get("exp")),
        ]
    };
    versions.iter().map(row).collect()
}

fn details(key: &Value, grants: &Value) -> Vec<Vec<String>> {
    let kid = text(key, "/key/kid");
    let modulus = text(key, "/key/n");
    // Base64 without padding: three bytes in four characters.
    let bits = modulus.len() * 3 / 4 * 8;
    let when = |pointer: &str| Some(date(key.pointer(pointer))).filter(|date| date != NONE).unwrap_or_default();
    let mut all = vec![
        ("version", name_in(&kid).to_owned()),
        ("id", kid.clone()),
        ("type", format!("{} {bits}", text(key, "/key/kty"))),
        ("enabled", yes_or_no(key.pointer("/attributes/enabled"))),
        ("operations", words(list(key, "/key/key_ops"))),
        ("created", when("/attributes/created")),
        ("changed", when("/attributes/updated")),
        ("not before", when("/attributes/nbf")),
        ("expires", when("/attributes/exp")),
        ("recovery", text(key, "/attributes/recoveryLevel")),
        ("tags", tags(key)),
        (
            "new clusters",
            if grants.get("newClusters") == Some(&Value::Bool(true)) { "granted" } else { "not granted" }.to_owned(),
        ),
    ];
    all.extend(list(grants, "/value").iter().map(|grant| {
        ("granted", format!("{} to {}", words(list(grant, "/permissions")), text(grant, "/principalId")))
    }));
    properties(all)
}

fn words(values: &[Value]) -> String {
    values.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", ")
}

fn yes_or_no(value: Option<&Value>) -> String {
    if value.and_then(Value::as_bool).unwrap_or(false) { "yes" } else { "no" }.to_owned()
}

/// A Unix time in seconds as people read it, or a dash.
fn date(value: Option<&Value>) -> String {
    let date = value.and_then(Value::as_i64).and_then(|seconds| DateTime::from_timestamp(seconds, 0));
    date.map_or_else(|| NONE.to_owned(), |date| date.to_rfc3339_opts(SecondsFormat::Secs, true))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::table;

    fn item(last: &str) -> Value {
        json!({
            "kid": format!("https://127.0.0.1:8420/keys/{last}"), "tags": {},
            "attributes": {"enabled": true, "created": 1_769_817_600, "recoveryLevel": "Recoverable"},
        })
    }

    /// The contract: newest first is the vault's order; each has `version` and `enabled`.
    #[test]
    fn a_version_is_flat_in_json_and_dated_in_tables() {
        let mut disabled = item("kek/78de");
        disabled["attributes"]["enabled"] = false.into();
        disabled["attributes"]["exp"] = 1_769_904_000.into();
        let flat = flat(&disabled, "version");
        assert_eq!((&flat["version"], &flat["enabled"]), (&json!("78de"), &json!(false)));
        assert_eq!(flat["kid"], disabled["kid"]);
        let shown = table(&VERSIONS, &version_rows(&[flat]));
        assert_eq!(
            shown,
            "VERSION  ENABLED  CREATED               EXPIRES\n78de     no       2026-01-31T00:00:00Z  2026-02-01T00:00:00Z\n"
        );
    }

    #[test]
    fn keys_are_listed_and_shown_with_who_may_use_them() {
        let shown = table(&KEYS, &key_rows(&[item("kek")]));
        assert_eq!(
            shown,
            "NAME  ENABLED  CREATED               RECOVERY\nkek   yes      2026-01-31T00:00:00Z  Recoverable\n"
        );
        let key = json!({
            "key": {"kid": "https://127.0.0.1:8420/keys/kek/78de", "kty": "RSA", "key_ops": ["wrapKey"], "n": "A".repeat(342)},
            "attributes": {"enabled": true, "created": 1_769_817_600, "recoveryLevel": "Recoverable"},
        });
        let grants = json!({"value": [{"principalId": "p", "permissions": ["get", "wrapKey"]}], "newClusters": true});
        let shown = table(&["PROPERTY", "VALUE"], &details(&key, &grants));
        for expected in ["78de", "RSA 2048", "wrapKey", "get, wrapKey to p", "new clusters  granted"] {
            assert!(shown.contains(expected), "{expected} in {shown}");
        }
        assert!(!shown.contains("expires"), "what is not there is left out: {shown}");
    }
}
