//! `logseal workspace`.

use std::path::Path;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::cli::WorkspaceCommand;
use crate::client::Management;
use crate::commands::{print_json, print_table};
use crate::error::CommandError;

#[derive(Deserialize)]
pub(crate) struct Listing<T> {
    pub(crate) value: Vec<T>,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Workspace {
    pub(crate) name: String,
    pub(crate) customer_id: String,
    cluster_id: String,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct SharedKeys {
    primary_shared_key: String,
    secondary_shared_key: String,
}

pub(crate) async fn run(data_dir: &Path, command: &WorkspaceCommand) -> Result<(), CommandError> {
    let management = Management::of(data_dir)?;
    match command {
        WorkspaceCommand::List { json } => {
            let workspaces = all(&management).await?;
            if *json {
                return print_json(&workspaces);
            }
            let rows: Vec<_> = workspaces.into_iter().map(|w| vec![w.name, w.customer_id, w.cluster_id]).collect();
            print_table(&["NAME", "WORKSPACE ID", "CLUSTER ID"], &rows)
        }
        WorkspaceCommand::Keys { name, json } => {
            let path = format!(
                "/subscriptions/{}/resourceGroups/{}/providers/Microsoft.OperationalInsights/workspaces/{name}/sharedKeys\
                 ?api-version=2025-07-01",
                management.credentials.subscription_id, management.credentials.resource_group,
            );
            let answer = management.post(&path, "application/json", Bytes::new()).await?;
            let keys: SharedKeys = parse(&answer.body)?;
            if *json {
                return print_json(&keys);
            }
            let rows =
                [vec!["primary".into(), keys.primary_shared_key], vec!["secondary".into(), keys.secondary_shared_key]];
            print_table(&["SLOT", "KEY"], &rows)
        }
    }
}

/// All workspaces of the server.
pub(crate) async fn all(management: &Management) -> Result<Vec<Workspace>, CommandError> {
    let listing: Listing<Workspace> = parse(&management.get("/v1/workspaces").await?.body)?;
    Ok(listing.value)
}

pub(crate) fn parse<T: for<'de> Deserialize<'de>>(body: &[u8]) -> Result<T, CommandError> {
    serde_json::from_slice(body).map_err(|error| CommandError::Show(error.into()))
}
