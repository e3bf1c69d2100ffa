//! Clusters, workspaces and links as clients of Azure Resource Manager drive them.

use axum::body::Body;
use http::{Request, StatusCode, header};
use serde_json::{Value, json};

use super::{GROUP, api, api_over, path};
use crate::port::QuotaStatus;
use crate::testing::VAULT;

/// Scenario: an asynchronous change over TLS, without a public URL in the configuration. Guarantee: its links are `https://`, to the
/// authority that the request named: an SDK follows them as they are, with its token.
#[tokio::test(flavor = "multi_thread")]
async fn links_of_a_server_with_tls_are_https() {
    let api = api_over(true).await;
    let (status, headers, _) = api.json("PUT", &path("clusters/Probe-1"), &json!({"location": "eastus"})).await;
    assert_eq!(status, StatusCode::OK);
    for link in ["azure-asyncoperation", "location"] {
        let link = headers[link].to_str().unwrap();
        assert!(link.starts_with("https://logs.test:8430/subscriptions/"), "{link}");
    }
}

/// Scenario: a cluster is made, gets a key, and goes, by a client that knows Azure Resource Manager. Guarantee: the answers are the ones that
/// its SDKs take: 200 with a state that is not final, absolute URLs, whole seconds, one terminal status, and the resource as it was asked for.
#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_is_driven_by_the_asynchronous_pattern() {
    let api = api().await;
    let body = json!({"location": "eastus", "tags": {"probe": "1"}, "identity": {"type": "SystemAssigned"},
        "sku": {"name": "CapacityReservation", "capacity": 500}});
    assert_eq!(api.get(&path("clusters/Probe-1")).await.0, StatusCode::NOT_FOUND);
    let (status, headers, shown) = api.json("PUT", &path("clusters/Probe-1"), &body).await;
    assert_eq!((status, &shown["properties"]["provisioningState"]), (StatusCode::OK, &json!("Creating")), "{shown}");
    assert_eq!(headers["retry-after"], "1");
    assert!(headers["location"].to_str().unwrap().starts_with("http://logs.test:8430/subscriptions/"));
    assert_eq!(shown.get("status"), None, "an SDK would take it for the operation's");
    let ended = api.follow(&headers).await;
    assert_eq!((&ended["status"], &ended["percentComplete"]), (&json!("Succeeded"), &json!(100.0)), "{ended}");
    let (_, shown) = api.get(&path("CLUSTERS/probe-1/")).await;
    assert_eq!((&shown["name"], &shown["location"]), (&json!("Probe-1"), &json!("eastus")));
    assert_eq!(shown["sku"], body["sku"]);
    assert!(shown["identity"]["principalId"].is_string() && shown["properties"]["clusterId"].is_string(), "{shown}");

    let key = json!({"keyVaultUri": format!("{VAULT}/"), "keyName": "kek", "keyVersion": ""});
    let patch = json!({"properties": {"keyVaultProperties": key}});
    let (status, headers, shown) = api.json("PATCH", &path("clusters/probe-1"), &patch).await;
    assert_eq!((status, &shown["properties"]["provisioningState"]), (StatusCode::OK, &json!("Updating")));
    let result = headers["location"].to_str().unwrap().strip_prefix("http://logs.test:8430").unwrap().to_owned();
    assert_eq!(api.follow(&headers).await["status"], "Succeeded");
    let (status, by_location) = api.get(&result).await;
    assert_eq!((status, &by_location["properties"]["keyVaultProperties"]), (StatusCode::OK, &key), "as it was given");
    assert_eq!(by_location["properties"]["keyState"]["state"], "Active");

    // A whole resource that was read may be written back.
    let (_, read) = api.get(&path("clusters/probe-1")).await;
    let (status, headers, _) = api.json("PUT", &path("clusters/probe-1"), &read).await;
    assert_eq!((status, &api.follow(&headers).await["status"]), (StatusCode::OK, &json!("Succeeded")));

    let bad =
        json!({"properties": {"keyVaultProperties": {"keyVaultUri": VAULT, "keyName": "none", "keyVersion": ""}}});
    let (_, headers, _) = api.json("PATCH", &path("clusters/probe-1"), &bad).await;
    let failed = api.follow(&headers).await;
    assert_eq!((&failed["status"], &failed["error"]["code"]), (&json!("Failed"), &json!("KeyNotFound")));
    let (_, shown) = api.get(&path("clusters/probe-1")).await;
    assert_eq!(shown["properties"]["keyVaultProperties"], key, "the key in use serves on");

    let (status, headers, _) = api.json("DELETE", &path("clusters/probe-1"), &json!({})).await;
    assert_eq!(status, StatusCode::ACCEPTED);
    assert_eq!(api.follow(&headers).await["status"], "Succeeded");
    assert_eq!(api.get(&path("clusters/probe-1")).await.0, StatusCode::NOT_FOUND);
    assert_eq!(api.json("DELETE", &path("clusters/probe-1"), &json!({})).await.0, StatusCode::NO_CONTENT);
    let (status, _, reserved) = api.json("PUT", &path("clusters/probe-1"), &body).await;
    assert_eq!((status, &reserved["error"]["code"]), (StatusCode::CONFLICT, &json!("NameReserved")));
}

/// Scenario: a workspace is made, linked, unlinked, deleted, recovered and purged. Guarantee: each shows where it is, and its cluster
/// shows it as long as it is linked.
#[tokio::test(flavor = "multi_thread")]
async fn a_workspace_is_linked_and_unlinked_deleted_and_recovered() {
    let api = api().await;
    let body = json!({"location": "x", "properties": {"retentionInDays": 60, "sku": {"name": "PerGB2018"}}});
    let (status, headers, shown) = api.json("PUT", &path("workspaces/work-1"), &body).await;
    assert_eq!(status, StatusCode::CREATED, "{shown}");
    assert_eq!(api.follow(&headers).await["status"], "Succeeded");
    let (_, made) = api.get(&path("workspaces/work-1")).await;
    assert_eq!(
        (&made["properties"]["provisioningState"], &made["properties"]["retentionInDays"]),
        (&json!("Succeeded"), &json!(60))
    );
    assert_eq!(made["properties"]["features"].get("clusterResourceId"), None);

    let cluster = format!("{GROUP}/clusters/local");
    let link = json!({"properties": {"writeAccessResourceId": cluster}});
    let (status, headers, _) = api.json("PUT", &path("workspaces/work-1/linkedServices/Cluster"), &link).await;
    assert_eq!((status, &api.follow(&headers).await["status"]), (StatusCode::OK, &json!("Succeeded")));
    let (_, linked) = api.get(&path("workspaces/work-1/linkedServices/cluster")).await;
    assert_eq!(
        (&linked["name"], &linked["properties"]["writeAccessResourceId"]),
        (&json!("work-1/Cluster"), &json!(cluster))
    );
    let names = |shown: &Value| {
        let linked = shown["properties"]["associatedWorkspaces"].as_array().unwrap().clone();
        linked.iter().map(|one| one["workspaceName"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let (_, shown) = api.get(&path("clusters/local")).await;
    assert!(names(&shown).contains(&"work-1".to_owned()), "{shown}");
    let (status, _, again) = api.json("PUT", &path("workspaces/work-1/linkedServices/cluster"), &link).await;
    assert_eq!((status, &again["properties"]["provisioningState"]), (StatusCode::OK, &json!("Succeeded")));

    let (status, headers, _) = api.json("DELETE", &path("workspaces/work-1/linkedServices/cluster"), &json!({})).await;
    assert_eq!((status, &api.follow(&headers).await["status"]), (StatusCode::ACCEPTED, &json!("Succeeded")));
    let (_, shown) = api.get(&path("clusters/local")).await;
    assert!(!names(&shown).contains(&"work-1".to_owned()), "{shown}");

    let (status, _, patched) =
        api.json("PATCH", &path("workspaces/work-1"), &json!({"properties": {"retentionInDays": 90}})).await;
    assert_eq!((status, &patched["properties"]["retentionInDays"]), (StatusCode::OK, &json!(90)), "at once");

    let (status, headers, _) = api.json("DELETE", &path("workspaces/work-1"), &json!({})).await;
    assert_eq!((status, &api.follow(&headers).await["status"]), (StatusCode::ACCEPTED, &json!("Succeeded")));
    assert_eq!(api.get(&path("workspaces/work-1")).await.0, StatusCode::NOT_FOUND);
    let (_, headers, _) = api.json("PUT", &path("workspaces/work-1"), &body).await;
    assert_eq!(api.follow(&headers).await["status"], "Succeeded");
    let (_, recovered) = api.get(&path("workspaces/work-1")).await;
    assert_eq!(recovered["properties"]["customerId"], made["properties"]["customerId"], "the same one is back");
    let (_, headers, _) = api.json("DELETE", &path("workspaces/work-1?force=true"), &json!({})).await;
    let purged = api.follow(&headers).await;
    assert_eq!(
        (&purged["status"], &purged["properties"]["shreddedKeys"]),
        (&json!("Succeeded"), &json!(3)),
        "{purged}"
    );
    let (_, headers, _) = api.json("PUT", &path("workspaces/work-1"), &body).await;
    api.follow(&headers).await;
    let (_, new) = api.get(&path("workspaces/work-1")).await;
    assert_ne!(new["properties"]["customerId"], made["properties"]["customerId"], "its name was free at once");
}

/// Scenario: a workspace is asked to go on under a new account key: without a body, with one that says something, in a state that it is not in
/// any more, with a stale address, and while its cluster's key is revoked. Guarantee: the first is an operation that can be followed and tells
/// which generation it made; the others are refused and begin nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_workspace_gets_a_new_account_key() {
    let api = api().await;
    let rotate = path("workspaces/default/rotateKey");
    let asked = |condition: Option<&str>| {
        let request = Request::builder().method("POST").uri(&rotate).header(header::AUTHORIZATION, "Bearer token");
        let request = request.header(header::HOST, "logs.test:8430");
        let request = condition.into_iter().fold(request, |request, tag| request.header(header::IF_MATCH, tag));
        api.send(request.body(Body::empty()).unwrap())
    };
    let (status, shown, headers) = asked(None).await;
    assert_eq!((status, shown.as_str(), &headers["retry-after"]), (StatusCode::ACCEPTED, "", &"1".parse().unwrap()));
    assert!(headers["location"].to_str().unwrap().starts_with("http://logs.test:8430/subscriptions/"));
    let ended = api.follow(&headers).await;
    assert_eq!((&ended["status"], &ended["properties"]["generation"]), (&json!("Succeeded"), &json!(2)), "{ended}");
    let (_, listed) = api.get("/v1/operations").await;
    assert_eq!(listed["value"][0]["kind"], "rotateWorkspaceKey", "{listed}");
    let (_, workspace) = api.get(&path("workspaces/default")).await;
    assert_eq!(workspace["properties"]["provisioningState"], "Succeeded");

    let (status, _, refused) = api.json("POST", &rotate, &json!({"generation": 7})).await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{refused}");
    let (status, refused, _) = asked(Some("\"0\"")).await;
    assert_eq!((status, refused.contains("PreconditionFailed")), (StatusCode::PRECONDITION_FAILED, true), "{refused}");
    let (status, _, refused) = api.json("POST", &path("workspaces/none/rotateKey"), &json!({})).await;
    assert_eq!(status, StatusCode::NOT_FOUND, "{refused}");
    let cluster = api.deployment.catalog.workspaces().await.unwrap().remove(0).cluster;
    let cause = logseal_keys::availability::Cause { fault: logseal_keys::KeyFault::KeyDisabled, definitive: true };
    let why = logseal_keys::Suspension { cluster, name: "local".into(), cause };
    api.deployment.operations.world().keyring.suspend(std::sync::Arc::new(why));
    let (status, _, refused) = api.json("POST", &rotate, &json!({})).await;
    let code = &refused["error"]["code"];
    assert_eq!((status, code), (StatusCode::FORBIDDEN, &json!(cause.fault.code())), "{refused}");
    assert_eq!(api.deployment.catalog.aeks().await.unwrap().len(), 2);
    assert_eq!(api.deployment.catalog.running_operations().await.unwrap().len(), 0);
}

/// Scenario: requests that cannot be served. Guarantee: each is refused with its status and its code, and nothing is begun.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_a_request_is_said() {
    let api = api().await;
    let put = json!({"location": "x"});
    let s = "/subscriptions/00000000-0000-0000-0000-000000000000";
    let provider = "providers/Microsoft.OperationalInsights";
    for (method, path, body, status, code) in [
        ("GET", format!("{GROUP}/clusters/local"), json!({}), 400, "MissingApiVersionParameter"),
        ("GET", format!("{GROUP}/clusters/local?api-version=1"), json!({}), 400, "InvalidApiVersionParameter"),
        (
            "GET",
            format!("/subscriptions/x/{provider}/clusters?api-version=2025-07-01"),
            json!({}),
            400,
            "InvalidSubscriptionId",
        ),
        (
            "GET",
            format!("{s}/resourceGroups/a%20b/{provider}/clusters?api-version=2025-07-01"),
            json!({}),
            400,
            "InvalidResourceGroupName",
        ),
        ("GET", path("clusters?$top=0"), json!({}), 400, "InvalidQueryParameter"),
        ("GET", path("clusters?$skiptoken=x"), json!({}), 400, "InvalidQueryParameter"),
        ("PUT", path("clusters/a_b_c_d"), put.clone(), 400, "InvalidClusterName"),
        ("PUT", path("clusters/abc"), put.clone(), 400, "InvalidClusterName"),
        ("PUT", path("workspaces/a%2Fb%2F"), put.clone(), 400, "InvalidWorkspaceName"),
        ("PUT", path("clusters/good-name"), json!({"location": "x", "extra": 1}), 400, "InvalidRequestContent"),
        ("PUT", path("clusters/good-name"), json!([]), 400, "InvalidRequestContent"),
        ("PATCH", path("clusters/absent"), json!({}), 404, "ResourceNotFound"),
        ("PATCH", path("workspaces/absent"), json!({}), 404, "ResourceNotFound"),
        ("PUT", path("workspaces/absent/linkedServices/cluster"), json!({}), 404, "ResourceNotFound"),
        ("PUT", path("workspaces/default/linkedServices/automation"), json!({}), 404, "ResourceNotFound"),
        (
            "PUT",
            path("workspaces/default/linkedServices/cluster"),
            json!({"properties": {"writeAccessResourceId": "x"}}),
            400,
            "InvalidRequestContent",
        ),
        (
            "PUT",
            path("workspaces/default/linkedServices/cluster"),
            json!({"properties": {"writeAccessResourceId": format!("{GROUP}/clusters/none")}}),
            400,
            "ClusterNotFound",
        ),
        ("DELETE", path("clusters/local?forceDelete=maybe"), json!({}), 400, "InvalidQueryParameter"),
        (
            "GET",
            format!("{s}/{provider}/locations/local/operationStatuses/x?api-version=2025-07-01"),
            json!({}),
            404,
            "ResourceNotFound",
        ),
        ("GET", "/v1/operations?status=odd".to_owned(), json!({}), 400, "InvalidQueryParameter"),
    ] {
        let (found, _, answer) = api.json(method, &path, &body).await;
        assert_eq!(
            (found.as_u16(), answer["error"]["code"].as_str()),
            (status, Some(code)),
            "{method} {path} {answer}"
        );
        assert!(answer["error"]["message"].as_str().is_some_and(|text| text.len() > 10), "{answer}");
    }
    assert!(api.get("/v1/operations").await.1["value"].as_array().unwrap().is_empty(), "nothing was begun");
}

/// Scenario: somebody changed the resource after it was read. Guarantee: a conditional write is refused, and one that names the present
/// entity tag is not.
#[tokio::test(flavor = "multi_thread")]
async fn a_write_on_condition_fails_when_the_resource_changed() {
    let api = api().await;
    let write = |tag: String, name: &'static str, body: Value| {
        let request = Request::put(path("workspaces/default")).header(header::AUTHORIZATION, "Bearer token");
        request.header(name, tag).body(Body::from(body.to_string())).unwrap()
    };
    let (_, read) = api.get(&path("workspaces/default")).await;
    let tag = read["etag"].as_str().unwrap().to_owned();
    let body = json!({"location": "local", "tags": {"a": "b"}});
    let (status, _, headers) = api.send(write(tag.clone(), "if-match", body.clone())).await;
    assert_eq!(status, StatusCode::OK);
    assert_ne!(headers[header::ETAG].to_str().unwrap(), tag);
    assert_eq!(api.send(write(tag, "if-match", body.clone())).await.0, StatusCode::PRECONDITION_FAILED);
    assert_eq!(api.send(write("*".into(), "if-none-match", body.clone())).await.0, StatusCode::PRECONDITION_FAILED);
    assert_eq!(api.send(write("*".into(), "if-match", body)).await.0, StatusCode::OK);
}

/// Scenario: more workspaces than a page has. Guarantee: the pages, followed by their links, have each once.
#[tokio::test(flavor = "multi_thread")]
async fn listings_are_read_page_by_page() {
    let api = api().await;
    for index in 0..5 {
        let (_, headers, _) =
            api.json("PUT", &path(&format!("workspaces/work-{index}")), &json!({"location": "x"})).await;
        api.follow(&headers).await;
    }
    let (mut next, mut names) = (path("workspaces?$top=2"), Vec::new());
    for _ in 0..3 {
        let (_, _, page) = api.json("GET", &next, &json!({})).await;
        names.extend(page["value"].as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap().to_owned()));
        match page["nextLink"].as_str() {
            Some(link) => next = link.strip_prefix("http://logs.test:8430").unwrap().to_owned(),
            None => break,
        }
    }
    assert_eq!(names, ["default", "work-0", "work-1", "work-2", "work-3", "work-4"]);
    let all = format!("{}?api-version=2021-06-01", GROUP.replace("/resourceGroups/default", "") + "/workspaces");
    assert_eq!(api.get(&all).await.1["value"].as_array().unwrap().len(), 6);
}

/// Scenario: a workspace has a daily cap and uses more and more of it. Guarantee: GET, the listing and PATCH show the status that the
/// server has.
#[tokio::test]
async fn a_workspace_shows_how_much_of_its_daily_cap_is_used() {
    let api = api().await;
    let body = json!({"properties": {"workspaceCapping": {"dailyQuotaGb": 0.023}}});
    for (quota, expected) in [
        (QuotaStatus::RespectQuota, "RespectQuota"),
        (QuotaStatus::ApproachingQuota, "ApproachingQuota"),
        (QuotaStatus::OverQuota, "OverQuota"),
    ] {
        *api.deployment.server.quota.lock().unwrap() = quota;
        let (_, _, patched) = api.json("PATCH", &path("workspaces/default"), &body).await;
        let (_, shown) = api.get(&path("workspaces/default")).await;
        let (_, listed) = api.get(&path("workspaces")).await;
        for shown in [&patched, &shown, &listed["value"][0]] {
            assert_eq!(shown["properties"]["workspaceCapping"]["dataIngestionStatus"], expected, "{shown}");
            assert_eq!(shown["properties"]["workspaceCapping"]["dailyQuotaGb"], 0.023);
        }
    }
}
