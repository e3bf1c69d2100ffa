//! `logseal token`.

use std::path::Path;

use http::{Method, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use crate::cli::names::uuid;
use crate::cli::{Managing, TokenCommand};
use crate::client::Management;
use crate::commands::view::{NONE, text, text_or_none};
use crate::commands::{note, print_json, print_line, print_table, workspace};
use crate::error::CommandError;

const PATH: &str = "/v1/tokens";

const HEADER: [&str; 6] = ["NAME", "ROLE", "WORKSPACES", "CREATED", "EXPIRES", "LAST USED"];

/// A token that was made.
#[derive(Deserialize, Serialize)]
struct NewToken {
    name: String,
    role: String,
    created: String,
    expires: Option<String>,
    value: Zeroizing<String>,
}

#[derive(Deserialize)]
struct Listing {
    value: Vec<Value>,
}

pub(crate) async fn run(data_dir: &Path, managing: &Managing<TokenCommand>) -> Result<(), CommandError> {
    let management = Management::of(data_dir, &managing.server)?;
    match &managing.command {
        TokenCommand::Create { name, role, workspace, expires, json } => {
            let body = body(&management, name, role, workspace, *expires).await?;
            let made: NewToken = management.call(Method::POST, PATH).json(&body).send().await?.read()?;
            note(&format!("this is the token `{name}`; it is shown this once: nobody can find it again"));
            if *json { print_json(&made) } else { print_line(&made.value) }
        }
        TokenCommand::List { json } => {
            let Listing { value } = management.get(PATH).await?.read()?;
            if *json { print_json(&value) } else { print_table(&HEADER, &rows(&value)) }
        }
        TokenCommand::Delete { name } => {
            let answer = management.call(Method::DELETE, format!("{PATH}/{name}")).send().await?;
            if answer.status == StatusCode::NO_CONTENT {
                let message = format!("there is no token `{name}`; `logseal token list` shows those that are there");
                return Err(CommandError::Refused(message));
            }
            print_line(&format!("Token `{name}` is deleted."))
        }
    }
}

/// What is asked for; workspaces by their ids.
async fn body(
    management: &Management,
    name: &str,
    role: &str,
    workspaces: &[String],
    expires: Option<u64>,
) -> Result<Value, CommandError> {
    let mut ids = Vec::with_capacity(workspaces.len());
    for named in workspaces {
        ids.push(match uuid(named) {
            Ok(id) => id,
            Err(_) => workspace::id(management, named).await?,
        });
    }
    let mut body = Map::from_iter([("name".to_owned(), json!(name)), ("role".to_owned(), json!(role))]);
    if !ids.is_empty() {
        body.insert("workspaces".to_owned(), json!(ids));
    }
    if let Some(seconds) = expires {
        body.insert("expiresInSeconds".to_owned(), json!(seconds));
    }
    Ok(body.into())
}

/// One row for each token.
fn rows(tokens: &[Value]) -> Vec<Vec<String>> {
    let row = |token: &Value| {
        vec![
            text(token, "/name"),
            text(token, "/role"),
            workspaces(token),
            text(token, "/created"),
            text_or_none(token, "/expires"),
            text_or_none(token, "/lastUsed"),
        ]
    };
    tokens.iter().map(row).collect()
}

/// By their names; one that is gone by its id.
fn workspaces(token: &Value) -> String {
    let one = |workspace: &Value| {
        let name = text(workspace, "/name");
        if name.is_empty() { text(workspace, "/id") } else { name }
    };
    let names: Vec<_> = token["workspaces"].as_array().into_iter().flatten().map(one).collect();
    if names.is_empty() { NONE.to_owned() } else { names.join(" ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::table;

    #[test]
    fn tokens_are_listed_with_what_they_open() {
        let date = "2026-11-30T12:00:00.000Z";
        let tokens = [
            json!({"name": "grafana", "role": "reader", "workspaces": [{"id": "a", "name": "default"}, {"id": "b", "name": null}],
                "created": date, "expires": date, "lastUsed": null}),
            json!({"name": "ops", "role": "operator", "workspaces": [], "created": date, "expires": null, "lastUsed": date}),
        ];
        let expected = format!(
            "NAME     ROLE      WORKSPACES  CREATED                   EXPIRES                   LAST USED\n\
             grafana  reader    default b   {date}  {date}  -\n\
             ops      operator  -           {date}  -                         {date}\n"
        );
        assert_eq!(table(&HEADER, &rows(&tokens)), expected);
    }
}
