//! Data keys for readers outside: what is given, what is refused, and what the audit trail says of both.

use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use http::HeaderMap;
use logseal_catalog::{Catalog, Change, SegmentCommit, SegmentRow};
use logseal_core::{Clock as _, SegmentId, UnixNanos};
use logseal_crypto::{Aek, Key256, Lease, OsRandom, RootKey, aad};
use logseal_keys::availability::Cause;
use logseal_keys::{KeyFault, Suspension};

use super::*;
use crate::request::{self, Written};
use crate::resource::Method;
use crate::testing::{caller, place};
use crate::upkeep::{Upkeep, UpkeepSettings};

/// A segment of the catalog, and what only its reader and its owner know.
struct Sealed {
    row: SegmentRow,
    /// What stands in its file.
    wrapped: String,
    /// The DEK in base64url.
    key: String,
}

impl Sealed {
    fn aek(&self) -> String {
        self.row.aek.to_string()
    }
}

impl Api {
    async fn aek(&self, workspace: WorkspaceId) -> Arc<Aek> {
        self.deployment.operations.world().keyring.current(workspace).await.unwrap().aek
    }

    /// A segment that is in no catalog yet.
    async fn sealed(&self, workspace: WorkspaceId, id: u8) -> Sealed {
        let table = self.deployment.catalog.schema(workspace).await.unwrap().tables.remove(0);
        let aek = self.aek(workspace).await;
        let id = SegmentId::from_bytes([id; 16]);
        let (dek, wrapped) = aek.new_dek(id, OsRandom).unwrap();
        let row = SegmentRow {
            id,
            workspace,
            table: table.id,
            aek: aek.id(),
            path: format!("clusters/c/workspaces/w/tables/t/{id}.parquet"),
            bytes: 1,
            rows: 1,
            min_time: UnixNanos(0),
            max_time: UnixNanos(0),
            created: self.deployment.clock.now(),
            wrapped_dek: wrapped.to_bytes(),
            dek_commitment: dek.commitment().as_bytes().to_vec(),
        };
        let key = BASE64URL_NOPAD.encode(dek.key().unwrap().expose());
        Sealed { row, wrapped: BASE64URL_NOPAD.encode(&wrapped.to_bytes()), key }
    }

    async fn segment(&self, workspace: WorkspaceId, id: u8) -> Sealed {
        let sealed = self.sealed(workspace, id).await;
        self.commit(sealed.row.clone()).await;
        sealed
    }

    async fn commit(&self, segment: SegmentRow) {
        let table = self.deployment.catalog.schema(segment.workspace).await.unwrap().tables.remove(0);
        let commit = SegmentCommit { segment, table, columns: vec![], coverage: vec![], attested: vec![] };
        self.deployment.catalog.apply(Change::CommitSegment(Box::new(commit))).await.unwrap();
    }

    /// Another workspace, linked to no cluster.
    async fn workspace(&self, name: &str) -> WorkspaceId {
        let operations = &self.deployment.operations;
        let body = json!({"location": "local"});
        match request::write_workspace(operations, place(name), &body, Method::Put, &caller()).await.unwrap() {
            Written::Started { operation, .. } => {
                self.deployment.succeed(&operation).await;
                operation.row.resource.workspace()
            }
            Written::Changed(_) => panic!("it was there"),
        }
    }

    async fn unwrap(&self, aek: &str, wrapped: &str) -> (StatusCode, HeaderMap, Value) {
        self.json("POST", &format!("/v1/keys/{aek}/unwrapkey"), &json!({"alg": "A256GCM", "value": wrapped})).await
    }

    async fn export(&self, segment: SegmentId) -> (StatusCode, HeaderMap, Value) {
        self.json("POST", &format!("/v1/segments/{segment}/exportkey"), &Value::Null).await
    }

    /// What the trail says of data keys, newest first.
    async fn records(&self) -> Vec<Value> {
        let (_, page) = self.get("/v1/audit?top=1000").await;
        let records = page["value"].as_array().unwrap().iter();
        let of_keys = |record: &&Value| record["action"].as_str().unwrap().starts_with("logseal/segments/");
        records.filter(of_keys).cloned().collect()
    }
}

/// The code of a refusal, which holds no key.
fn refused(answer: &(StatusCode, HeaderMap, Value), sealed: &Sealed) -> (u16, String) {
    let (status, _, body) = answer;
    assert!(!body.to_string().contains(&sealed.key), "{body}");
    (status.as_u16(), body["error"]["code"].as_str().unwrap_or_default().to_owned())
}

/// Scenario: a reader presents the wrap of its file, twice; an owner asks for the key by the segment's id. Guarantee: each gets that very key, no
/// cache keeps it, and each time the trail has a record of who, which segment and which workspace, and not the key.
#[tokio::test]
async fn a_reader_gets_the_key_of_its_file_and_the_trail_says_so() {
    let api = api().await;
    let sealed = api.segment(api.workspace, 1).await;
    let upper = format!("/V1/Keys/{}/UnwrapKey/", sealed.aek().to_uppercase());
    let upper = api.json("POST", &upper, &json!({"ALG": "A256GCM", "Value": sealed.wrapped})).await;
    for (status, headers, body) in [api.unwrap(&sealed.aek(), &sealed.wrapped).await, upper] {
        assert_eq!((status, body), (StatusCode::OK, json!({"kid": sealed.aek(), "value": sealed.key})));
        assert_eq!(
            (&headers["cache-control"], &headers["content-type"]),
            (&"no-store".parse().unwrap(), &"application/json".parse().unwrap())
        );
    }
    let (status, headers, body) = api.export(sealed.row.id).await;
    assert_eq!((status, &headers["cache-control"]), (StatusCode::OK, &"no-store".parse().unwrap()));
    let SegmentRow { id, workspace, table, path, .. } = &sealed.row;
    let prefix = HEXLOWER.encode(aad::segment_file(*workspace, *table, *id).as_bytes());
    let expected = json!({
        "segmentId": id.to_string(), "workspaceId": workspace.to_string(), "tableId": table.to_string(), "path": path,
        "algorithm": "AES_GCM_V1", "aadPrefix": prefix, "kid": sealed.aek(), "value": sealed.key,
    });
    assert_eq!(body, expected);

    let records = api.records().await;
    let actions: Vec<_> = records.iter().map(|record| record["action"].as_str().unwrap()).collect();
    assert_eq!(actions, ["logseal/segments/exportKey", "logseal/segments/unwrapKey", "logseal/segments/unwrapKey"]);
    for record in records {
        assert_eq!((&record["outcome"], &record["actor"]), (&json!("Succeeded"), &json!("management-token")));
        let after = &record["after"];
        assert_eq!((&after["segment"], &after["workspace"]), (&json!(id.to_string()), &json!(workspace.to_string())));
        assert_eq!(after["accountKey"], sealed.aek());
        assert!(
            record["resource"].as_str().unwrap().ends_with(&format!("/workspaces/default/segments/{id}")),
            "{record}"
        );
        assert!(!record.to_string().contains(&sealed.key), "{record}");
    }
}

/// Scenario: one byte of a wrap is altered, for each byte. Guarantee: no key, whichever it is; the code says what does not fit, and the trail has
/// each wrap that was well-formed.
#[tokio::test]
async fn a_wrap_with_one_altered_byte_gives_no_key() {
    let api = api().await;
    let sealed = api.segment(api.workspace, 1).await;
    for index in 0..sealed.row.wrapped_dek.len() {
        let mut altered = sealed.row.wrapped_dek.clone();
        altered[index] ^= 1;
        let answer = api.unwrap(&sealed.aek(), &BASE64URL_NOPAD.encode(&altered)).await;
        let expected = match index {
            0 => (400, "InvalidRequestContent"),
            1..17 => (400, "AccountKeyMismatch"),
            33..49 => (404, "SegmentNotFound"),
            _ => (400, "WrappedKeyMismatch"),
        };
        assert_eq!(refused(&answer, &sealed), (expected.0, expected.1.to_owned()), "byte {index}");
        let records = api.records().await;
        assert_eq!(records.len(), index, "one for each but the first");
        if index > 0 {
            assert_eq!(records[0]["outcome"], format!("Refused: {}", expected.1));
        }
    }
}

/// Scenario: wraps that open, under keys that are there, presented where they do not belong. Guarantee: none of them gives a key.
#[tokio::test]
async fn a_genuine_wrap_gives_a_key_only_where_it_belongs() {
    let api = api().await;
    let other = api.workspace("other").await;
    let (ours, theirs) = (api.segment(api.workspace, 1).await, api.segment(other, 2).await);
    let check = async |what: &str, aek: &str, wrapped: &str, code: &str| {
        let answer = api.unwrap(aek, wrapped).await;
        assert!(refused(&answer, &ours).1 == code && refused(&answer, &theirs).1 == code, "{what}: {answer:?}");
        let newest = &api.records().await[0];
        assert_eq!(newest["outcome"], format!("Refused: {code}"), "{what}");
    };
    check("their account key in the path", &theirs.aek(), &ours.wrapped, "AccountKeyMismatch").await;
    check("our account key in the path", &ours.aek(), &theirs.wrapped, "AccountKeyMismatch").await;
    // Their wrap, under our names.
    let mut renamed = ours.row.wrapped_dek.clone();
    renamed[49..].copy_from_slice(&theirs.row.wrapped_dek[49..]);
    check("their sealed key", &ours.aek(), &BASE64URL_NOPAD.encode(&renamed), "WrappedKeyMismatch").await;
    // The same account key made another wrap of the same segment: an earlier try of it, or whoever has the account key.
    let again = api.sealed(api.workspace, 1).await;
    check("another wrap of the segment", &ours.aek(), &again.wrapped, "WrappedKeyMismatch").await;
    let never = api.sealed(api.workspace, 3).await;
    check("a segment that was never committed", &ours.aek(), &never.wrapped, "SegmentNotFound").await;
    let key = Key256::copy_from_slice(&[7; 32]).unwrap();
    let forger = Aek::new(ours.row.aek, api.workspace, 1, key, Lease::unlimited());
    let forged = forger.new_dek(ours.row.id, OsRandom).unwrap().1;
    check(
        "a wrap by another key of the same id",
        &ours.aek(),
        &BASE64URL_NOPAD.encode(&forged.to_bytes()),
        "WrappedKeyMismatch",
    )
    .await;
    for sealed in [&ours, &theirs] {
        assert_eq!(api.unwrap(&sealed.aek(), &sealed.wrapped).await.2["value"], sealed.key, "each gets its own");
    }
    assert_eq!(refused(&api.export(never.row.id).await, &never), (404, "SegmentNotFound".to_owned()));
    assert_eq!(api.records().await[0]["outcome"], "Refused: SegmentNotFound");
}

/// Scenario: the catalog's row of a segment commits to another key than the one in its wrap. Guarantee: that key does not go out.
#[tokio::test]
async fn a_key_that_its_row_does_not_commit_to_is_not_given() {
    let api = api().await;
    let (ours, other) = (api.sealed(api.workspace, 1).await, api.sealed(api.workspace, 1).await);
    api.commit(SegmentRow { dek_commitment: other.row.dek_commitment, ..ours.row.clone() }).await;
    for answer in [api.unwrap(&ours.aek(), &ours.wrapped).await, api.export(ours.row.id).await] {
        assert_eq!(refused(&answer, &ours), (500, "SegmentDamaged".to_owned()));
        assert_eq!(api.records().await[0]["outcome"], "Refused: SegmentDamaged");
    }
}

/// Scenario: bodies and paths that say nothing. Guarantee: they are refused by name, before anything is looked at.
#[tokio::test]
async fn a_request_that_is_not_understood_is_refused_by_name() {
    let api = api().await;
    let sealed = api.segment(api.workspace, 1).await;
    let path = format!("/v1/keys/{}/unwrapkey", sealed.aek());
    let wrapped = &sealed.wrapped;
    for (body, target) in [
        (json!({}), "alg"),
        (json!({"value": wrapped}), "alg"),
        (json!({"alg": "RSA-OAEP-256", "value": wrapped}), "alg"),
        (json!({"alg": null, "value": wrapped}), "alg"),
        (json!({"alg": "A256GCM"}), "value"),
        (json!({"alg": "A256GCM", "value": 7}), "value"),
        (json!({"alg": "A256GCM", "value": ""}), "value"),
        (json!({"alg": "A256GCM", "value": format!("{wrapped}==")}), "value"),
        (json!({"alg": "A256GCM", "value": wrapped, "iv": "AAAA"}), "iv"),
        (json!([]), "the body"),
    ] {
        let (status, _, answer) = api.json("POST", &path, &body).await;
        let error = &answer["error"];
        assert_eq!((status.as_u16(), error["code"].as_str()), (400, Some("InvalidRequestContent")), "{body}");
        assert_eq!(error["target"], target, "{body}: {answer}");
    }
    let large = json!({"alg": "A256GCM", "value": "A".repeat(2 * 1024 * 1024)});
    assert_eq!(api.json("POST", &path, &large).await.0, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(refused(&api.unwrap("nonsense", wrapped).await, &sealed), (404, "ResourceNotFound".to_owned()));
    let (status, _, _) = api.json("POST", "/v1/segments/nonsense/exportkey", &Value::Null).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert!(api.records().await.is_empty());
}

/// Scenario: a segment's retention is over; then it leaves the catalog; another one's workspace is deleted, and then its account key destroyed.
/// Guarantee: from the first moment on, no key.
#[tokio::test]
async fn what_is_over_gives_no_key() {
    let api = api().await;
    let other = api.workspace("other").await;
    let (old, theirs) = (api.segment(api.workspace, 1).await, api.segment(other, 2).await);
    api.deployment.clock.advance(Duration::from_secs(29 * 86_400));
    assert_eq!(api.unwrap(&old.aek(), &old.wrapped).await.0, StatusCode::OK);
    let gone = (404, "SegmentNotFound".to_owned());
    let delete = async |force| {
        let deleted = request::delete_workspace(&api.deployment.operations, place("other"), force, &caller()).await;
        api.deployment.succeed(&deleted.unwrap().unwrap()).await;
    };
    delete(false).await;
    assert_eq!(refused(&api.unwrap(&theirs.aek(), &theirs.wrapped).await, &theirs), gone, "deleted, and can come back");
    delete(true).await;
    assert_eq!(refused(&api.unwrap(&theirs.aek(), &theirs.wrapped).await, &theirs), gone, "its key is destroyed");

    api.deployment.clock.advance(Duration::from_secs(2 * 86_400));
    let row = api.deployment.catalog.segment(old.row.id).await.unwrap();
    assert!(row.is_some(), "nobody has removed it yet");
    assert_eq!(refused(&api.unwrap(&old.aek(), &old.wrapped).await, &old), gone);
    assert_eq!(refused(&api.export(old.row.id).await, &old), gone);
    let settings = UpkeepSettings { operations: Duration::from_secs(86_400), objects: Duration::from_secs(600) };
    let audit = management(&api.deployment).await.audit;
    Upkeep { operations: Arc::clone(&api.deployment.operations), audit, settings }.once().await;
    assert!(api.deployment.catalog.segment(old.row.id).await.unwrap().is_none());
    assert_eq!(refused(&api.unwrap(&old.aek(), &old.wrapped).await, &old), gone);
    assert_eq!(api.records().await[0]["outcome"], "Refused: SegmentNotFound");
}

/// Scenario: a cluster's key is revoked, then its vault is only away, then it is back; another cluster has nothing of it. Guarantee: refused with
/// the catalogue's code, as queries are, and recorded; the other cluster's keys are given all the time.
#[tokio::test]
async fn a_revoked_cluster_gives_no_key() {
    let api = api().await;
    let other = api.workspace("other").await;
    let (ours, theirs) = (api.segment(api.workspace, 1).await, api.segment(other, 2).await);
    let keyring = &api.deployment.operations.world().keyring;
    let cluster = api.deployment.catalog.workspace(api.workspace).await.unwrap().unwrap().cluster;
    for (fault, definitive, status) in [(KeyFault::KeyDisabled, true, 403), (KeyFault::VaultUnreachable, false, 503)] {
        let cause = Cause { fault, definitive };
        keyring.suspend(Arc::new(Suspension { cluster, name: "local".into(), cause }));
        for answer in [api.unwrap(&ours.aek(), &ours.wrapped).await, api.export(ours.row.id).await] {
            assert_eq!(refused(&answer, &ours), (status, fault.code().to_owned()));
            assert_eq!(answer.1.contains_key(header::RETRY_AFTER), status == 503);
            assert_eq!(api.records().await[0]["outcome"], format!("Refused: {}", fault.code()));
        }
        assert_eq!(api.unwrap(&theirs.aek(), &theirs.wrapped).await.0, StatusCode::OK);
    }
    keyring.resume(cluster, Lease::unlimited());
    assert_eq!(api.unwrap(&ours.aek(), &ours.wrapped).await.2["value"], ours.key);

    // Nobody has noticed yet that the vault does not confirm the key any more.
    let lease = Lease::unlimited();
    keyring.resume(cluster, Arc::clone(&lease));
    api.aek(api.workspace).await;
    lease.end();
    assert_eq!(refused(&api.unwrap(&ours.aek(), &ours.wrapped).await, &ours), (503, "ServiceUnavailable".to_owned()));
}

/// Scenario: a reader with a grant on one workspace presents wraps of its segment and of another workspace's, and asks for keys to keep; a key
/// officer does so too. Guarantee: the reader gets its own and nothing else, whatever the wrap claims; the key officer gets keys to keep and unwraps
/// none; the trail has no record of a key that went out to the wrong one.
#[tokio::test]
async fn keys_go_to_readers_with_a_grant_and_to_key_officers() {
    let api = api().await;
    let other = api.workspace("other").await;
    let (ours, theirs) = (api.segment(api.workspace, 1).await, api.segment(other, 2).await);
    let management = Arc::new(management(&api.deployment).await);
    let reader = crate::testing::management::token(&management, crate::Role::Reader).await;
    let officer = crate::testing::management::token(&management, crate::Role::KeyOfficer).await;
    let api = Api { router: router(management), ..api };
    let unwrap = async |token: &str, sealed: &Sealed| {
        let path = format!("/v1/keys/{}/unwrapkey", sealed.aek());
        api.json_as(token, "POST", &path, &json!({"alg": "A256GCM", "value": sealed.wrapped})).await
    };
    let export = async |token: &str, sealed: &Sealed| {
        api.json_as(token, "POST", &format!("/v1/segments/{}/exportkey", sealed.row.id), &Value::Null).await
    };
    assert_eq!(unwrap(&reader, &ours).await, (StatusCode::OK, json!({"kid": ours.aek(), "value": ours.key})));
    assert_eq!(export(&officer, &theirs).await.1["value"], theirs.key);
    let missing = Sealed { row: theirs.row.clone(), ..api.sealed(other, 3).await };
    let (refused, unknown) = (unwrap(&reader, &theirs).await, unwrap(&reader, &missing).await);
    assert_eq!((refused.0, &refused.1["error"]["code"]), (StatusCode::FORBIDDEN, &json!("AuthorizationFailed")));
    assert_eq!(refused, unknown, "whether a segment is there is not told");
    for (status, body) in [export(&reader, &ours).await, unwrap(&officer, &ours).await] {
        assert_eq!((status, &body["error"]["code"]), (StatusCode::FORBIDDEN, &json!("AuthorizationFailed")));
    }
    let records = api.records().await;
    let actors: Vec<_> = records.iter().map(|record| record["actor"].as_str().unwrap()).collect();
    assert_eq!(actors, ["token:key-officer", "token:reader"]);
}

/// Scenario: the audit trail takes no records. Guarantee: nothing goes out, for a reason that passes.
#[tokio::test]
async fn without_a_record_no_key_goes_out() {
    let api = api().await;
    let sealed = api.segment(api.workspace, 1).await;
    let folder = tempfile::tempdir().unwrap();
    let root = RootKey::new(Key256::copy_from_slice(&[1; 32]).unwrap());
    let closed = Catalog::open(&folder.path().join("catalog.sqlite"), root.catalog_mac()).await.unwrap();
    closed.close().await.unwrap();
    let whole = management(&api.deployment).await;
    let anchor = Arc::new(crate::testing::management::NoAnchor);
    let audit = AuditTrail::new(closed, anchor, Arc::clone(&api.deployment.clock) as _);
    let api = Api { router: router(Arc::new(Management { audit, ..whole })), ..api };
    for answer in [api.unwrap(&sealed.aek(), &sealed.wrapped).await, api.export(sealed.row.id).await] {
        assert_eq!(refused(&answer, &sealed), (503, "ServiceUnavailable".to_owned()));
    }
}
