//! The gate over a real catalog: who comes in, for how long, and what becomes of those who do not.

use http::HeaderValue;
use logseal_catalog::{Change, TokenRow};
use logseal_core::{UnixNanos, WorkspaceId};
use serde_json::Value;

use super::tokens::WantedToken;
use super::*;
use crate::testing::Deployment;
use crate::testing::management::{Steady, TOKEN, gate};

fn headers(token: &str) -> HeaderMap {
    let mut value = HeaderValue::try_from(format!("Bearer {token}")).unwrap();
    value.set_sensitive(true);
    HeaderMap::from_iter([(header::AUTHORIZATION, value)])
}

fn peer(last: u8) -> Peer {
    Peer::new(([192, 0, 2, last], 1).into())
}

fn wanted(name: &str, role: Role) -> WantedToken {
    WantedToken { name: name.to_owned(), role, workspaces: Vec::new(), expires: None }
}

impl Gate {
    /// As whom `token` is let in; else the status and the message.
    async fn try_token(&self, token: &str) -> Result<String, (u16, String)> {
        let entered = self.enter(&headers(token), peer(1)).await;
        entered
            .map(|principal| principal.actor.clone())
            .map_err(|problem| (problem.status().as_u16(), problem.message().to_owned()))
    }
}

async fn records(deployment: &Deployment, action: &str) -> Vec<Value> {
    let rows = deployment.catalog.audit(None, 1_000).await.unwrap();
    let of_action = rows.into_iter().filter(|row| row.entry.action == action);
    of_action
        .map(|row| {
            json!([row.entry.actor, row.entry.outcome, serde_json::from_str::<Value>(&row.entry.after).unwrap()])
        })
        .collect()
}

/// Scenario: tokens are made, one with an end; time goes by, the server starts anew, one is deleted. Guarantee: each opens the gate as itself, also
/// after the start, until its end or until it is deleted, which counts at once and for the start after it; nothing shows a token.
#[tokio::test]
async fn a_token_opens_the_gate_until_its_end_or_its_deletion() {
    let deployment = Deployment::new().await;
    let open = gate(&deployment, Arc::default()).await;
    let hour = Duration::from_secs(3_600);
    let expires = Some(UnixNanos(deployment.clock.now().0 + 3_600_000_000_000));
    let short = open.create(WantedToken { expires, ..wanted("short", Role::Auditor) }, "someone").await.unwrap();
    let long = open.create(wanted("long", Role::Operator), "someone").await.unwrap();
    assert!(short.value.starts_with("lsm_") && short.value.len() == 4 + 43, "256 bits in base64url");
    assert_ne!(short.value, long.value);
    let shown = format!("{open:?}{short:?}{:?}", deployment.catalog.tokens().await.unwrap());
    assert!(!shown.contains(&*short.value) && !shown.contains(&short.value[4..]));
    assert_eq!(open.try_token(&short.value).await.as_deref(), Ok("token:short"));
    assert_eq!(open.try_token(&long.value).await.as_deref(), Ok("token:long"));
    assert_eq!(open.try_token(TOKEN).await.as_deref(), Ok("management-token"));
    for wrong in ["", "x", &long.value[1..], &format!("{}x", *long.value), &"y".repeat(100_000)] {
        assert_eq!(open.try_token(wrong).await.unwrap_err().0, 401);
    }
    let used: Vec<_> = open.tokens().iter().map(|token| (token.row.name.clone(), token.used().is_some())).collect();
    assert_eq!(used, [("long".to_owned(), true), ("short".to_owned(), true)]);

    let open = gate(&deployment, Arc::default()).await;
    assert_eq!(open.try_token(&short.value).await.as_deref(), Ok("token:short"), "after a start");
    deployment.clock.advance(hour);
    let (status, message) = open.try_token(&short.value).await.unwrap_err();
    assert_eq!(status, 401);
    assert!(message.starts_with("the token `short` expired at 20"), "{message}");

    assert!(open.delete("long", "someone").await.unwrap());
    assert_eq!(open.try_token(&long.value).await.unwrap_err().0, 401);
    assert!(!open.delete("long", "someone").await.unwrap(), "there is none any more");
    assert_eq!(gate(&deployment, Arc::default()).await.try_token(&long.value).await.unwrap_err().0, 401);
    let made = records(&deployment, "logseal/tokens/write").await;
    assert_eq!((made.len(), &made[0][0], &made[1][2]["role"]), (2, &json!("someone"), &json!("auditor")));
    assert_eq!(records(&deployment, "logseal/tokens/delete").await.len(), 1);
    assert!(!json!(made).to_string().contains(&*long.value));
}

/// Writes `row` in the place of the token of its name, as who lacks the root key.
async fn alter(deployment: &Deployment, row: TokenRow) {
    let foreign = deployment.foreign_catalog().await;
    for change in [Change::RemoveToken { name: row.name.clone() }, Change::AddToken(row)] {
        foreign.apply(change).await.unwrap();
    }
    foreign.close().await.unwrap();
}

/// Scenario: who can write the catalog makes an operator of an auditor, and gives another token another HMAC. Guarantee: neither opens anything. Who has
/// the first is told that the catalog cannot be believed, however often, and not that nobody has such a token, while other tokens come in and unknown
/// ones are unknown; so is the second, which nothing tells from those. Both can be deleted, and then are unknown.
#[tokio::test]
async fn an_altered_token_opens_nothing() {
    let deployment = Deployment::new().await;
    let open = gate(&deployment, Arc::default()).await;
    let altered = open.create(wanted("altered", Role::Auditor), "someone").await.unwrap();
    let hidden = open.create(wanted("hidden", Role::Auditor), "someone").await.unwrap();
    let other = open.create(wanted("other", Role::Auditor), "someone").await.unwrap();
    let (rows, _) = deployment.catalog.tokens().await.unwrap();
    let row = |name: &str| rows.iter().find(|row| row.name == name).unwrap().clone();
    alter(&deployment, TokenRow { role: "operator".to_owned(), ..row("altered") }).await;
    alter(&deployment, TokenRow { lookup: vec![7; 32], ..row("hidden") }).await;
    let open = gate(&deployment, Arc::default()).await;
    for _ in 0..50 {
        let (status, message) = open.try_token(&altered.value).await.unwrap_err();
        assert!(status == 503 && message.contains("cannot be believed"), "{status} {message}");
    }
    let refused = records(&deployment, "logseal/access/refused").await;
    assert_eq!(refused.len(), 10, "within bounds, as of others");
    assert!(refused.iter().all(|record| record[1] == "ServiceUnavailable"), "{refused:?}");
    for unknown in ["x", hidden.value.as_str()] {
        assert_eq!(open.try_token(unknown).await.unwrap_err().0, 401);
    }
    assert_eq!(open.try_token(&other.value).await.as_deref(), Ok("token:other"));
    let again = open.create(wanted("altered", Role::Auditor), "someone").await.unwrap_err();
    assert_eq!(again.code(), "TokenExists");
    for (name, gone) in [("altered", &altered), ("hidden", &hidden)] {
        assert!(open.delete(name, "someone").await.unwrap());
        assert_eq!(open.try_token(&gone.value).await.unwrap_err().0, 401, "{name}");
    }
    open.create(wanted("altered", Role::Auditor), "someone").await.unwrap();
}

/// Scenario: tokens that nobody may have. Guarantee: they are refused with the reason, and none is made.
#[tokio::test]
async fn a_token_is_made_for_what_there_is() {
    let deployment = Deployment::new().await;
    let open = gate(&deployment, Arc::default()).await;
    let own = deployment.catalog.workspaces().await.unwrap()[0].id;
    let of = |workspaces: Vec<WorkspaceId>, role| WantedToken { workspaces, ..wanted("name", role) };
    let nobody = WorkspaceId::from_bytes([9; 16]);
    for (refused, part) in [
        (of(vec![], Role::Reader), "names those that it may query"),
        (of(vec![own], Role::KeyOfficer), "is for readers"),
        (of(vec![own, nobody], Role::Reader), "there is no workspace with the id"),
        (of(vec![own; 101], Role::Reader), "more than 100"),
    ] {
        let message = open.create(refused, "someone").await.unwrap_err().message().to_owned();
        assert!(message.contains(part), "{message}");
    }
    assert!(open.tokens().is_empty());
    let reader = open.create(of(vec![own], Role::Reader), "someone").await.unwrap();
    let principal = open.enter(&headers(&reader.value), peer(1)).await.unwrap();
    assert!(principal.admit_to(Some(own)).is_ok() && principal.admit_to(Some(nobody)).is_err());
    assert_eq!(open.create(wanted("name", Role::Auditor), "someone").await.unwrap_err().code(), "TokenExists");
}

/// Scenario: one peer presents thousands of wrong tokens, between them the right one and none at all; another peer presents a wrong one. Guarantee:
/// after a few the first is answered 429 with the time to wait; the right token gets in all the same, and others are not affected; the trail gets
/// few records, which together count all of them.
#[tokio::test]
async fn wrong_tokens_are_limited_by_peer_and_counted_in_the_trail() {
    let deployment = Deployment::new().await;
    let clock = Arc::<Steady>::default();
    let open = gate(&deployment, Arc::clone(&clock)).await;
    let wrong = headers("wrong");
    let mut answers = std::collections::BTreeMap::<u16, u32>::new();
    for _ in 0..3_000 {
        let problem = open.enter(&wrong, peer(1)).await.unwrap_err();
        *answers.entry(problem.status().as_u16()).or_default() += 1;
    }
    assert_eq!(answers, [(401, 20), (429, 2_980)].into());
    let limited = axum::response::IntoResponse::into_response(open.enter(&wrong, peer(1)).await.unwrap_err());
    assert_eq!(limited.headers()["retry-after"], "3", "one comes back every 3 s");
    assert!(open.enter(&headers(TOKEN), peer(1)).await.is_ok());
    assert_eq!(open.enter(&HeaderMap::new(), peer(1)).await.unwrap_err().status(), 401, "it is no attempt");
    assert_eq!(open.enter(&wrong, peer(2)).await.unwrap_err().status(), 401);

    open.settle().await;
    open.settle().await;
    let records = records(&deployment, "logseal/access/refused").await;
    assert_eq!(records.len(), 11, "ten at once and one for the rest");
    let counted: u64 = records.iter().map(|record| record[2]["notRecorded"].as_u64().unwrap()).sum();
    assert_eq!(counted + 10, 3_002);
    assert_eq!(records[10], json!(["unknown", "Unauthorized", {"peer": "192.0.2.1", "notRecorded": 0}]));
    clock.advance(Duration::from_secs(60));
    assert_eq!(open.enter(&wrong, peer(1)).await.unwrap_err().status(), 401, "its allowance came back");
}
