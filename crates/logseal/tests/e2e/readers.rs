//! Readers that are not ours: with a key that came over HTTP they open a segment's file, and without one they open nothing.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use arrow::array::AsArray as _;
use bytes::Bytes;
use data_encoding::{BASE64, BASE64URL_NOPAD, HEXLOWER};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use logseal_testkit::canary::files_below;
use logseal_testkit::{Server, ship};
use parquet::arrow::arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use parquet::encryption::decrypt::{FileDecryptionProperties, KeyRetriever};
use parquet::errors::{ParquetError, Result as ParquetResult};
use serde_json::{Value, json};

use crate::Deployment;
use crate::cli::{done, failed, json as shown};
use crate::lifecycle::request;
use crate::revocation::until;

const SETTINGS: [&str; 2] = ["keys.probe_interval_ms=1000", "keys.min_state_interval_ms=0"];

/// Reads the column `body` as somebody who has the file and `properties`, and nothing else.
fn bodies(file: &Path, properties: Arc<FileDecryptionProperties>) -> ParquetResult<Vec<String>> {
    let options = ArrowReaderOptions::new().with_file_decryption_properties(properties);
    let reader = ParquetRecordBatchReaderBuilder::try_new_with_options(File::open(file)?, options)?.build()?;
    let mut found = Vec::new();
    for batch in reader {
        let batch = batch?;
        let column = batch.column_by_name("body").expect("a column of every table").as_string::<i32>();
        found.extend(column.iter().map(|body| body.unwrap_or_default().to_owned()));
    }
    Ok(found)
}

fn with_key(key: &[u8]) -> Arc<FileDecryptionProperties> {
    FileDecryptionProperties::builder(key.to_vec()).build().expect("a key of 256 bits")
}

fn with_prefix(key: &[u8], prefix: &[u8]) -> Arc<FileDecryptionProperties> {
    FileDecryptionProperties::builder(key.to_vec()).with_aad_prefix(prefix.to_vec()).build().expect("a key of 256 bits")
}

/// Learns what stands in the file, and has no key.
#[derive(Default)]
struct Curious(Mutex<Vec<u8>>);

impl KeyRetriever for Curious {
    fn retrieve_key(&self, metadata: &[u8]) -> ParquetResult<Vec<u8>> {
        *self.0.lock().expect("no panic holds it") = metadata.to_vec();
        Err(ParquetError::General("no key yet".to_owned()))
    }
}

fn key_metadata(file: &Path) -> Value {
    let curious = Arc::<Curious>::default();
    let properties =
        FileDecryptionProperties::with_key_retriever(Arc::clone(&curious) as _).build().expect("a retriever");
    assert!(bodies(file, properties).is_err(), "without a key nothing is read");
    let metadata = curious.0.lock().expect("no panic holds it").clone();
    serde_json::from_slice(&metadata).expect("JSON")
}

/// What a client of a key management service does with it.
async fn unwrap(server: &Server, token: &str, metadata: &Value) -> (u16, Value) {
    let text = |name: &str| metadata[name].as_str().expect("a text").to_owned();
    let url = format!("{}/v1/keys/{}/unwrapkey", server.credential("/endpoints/management"), text("masterKeyID"));
    let body = json!({"alg": "A256GCM", "value": text("wrappedDEK")}).to_string();
    let request = http::Request::post(url).header("authorization", format!("Bearer {token}"));
    let request = request.body(Full::new(Bytes::from(body))).expect("a request");
    let client = Client::builder(TokioExecutor::new()).build_http();
    let (parts, body) = client.request(request).await.expect("an answer").into_parts();
    let body = body.collect().await.expect("a whole answer").to_bytes();
    if parts.status.is_success() {
        assert_eq!(parts.headers["cache-control"], "no-store");
    }
    (parts.status.as_u16(), serde_json::from_slice(&body).expect("JSON"))
}

fn segments(deployment: &Deployment) -> Vec<PathBuf> {
    let mut files = files_below(&deployment.data_dir());
    files.retain(|file| file.extension().is_some_and(|extension| extension == "parquet"));
    files
}

fn outcomes(server: &Server, action: &str) -> Vec<String> {
    let records = shown(server, &["audit", "list"]);
    let records = records.as_array().expect("an array").iter().filter(|record| record["action"] == action);
    records.map(|record| record["outcome"].as_str().expect("a text").to_owned()).collect()
}

/// Scenario: a reader has a file and the token, and asks for the key; an owner exports it; the cluster's key is disabled and enabled again.
/// Guarantee: what came over HTTP opens that file, to the record; while the cluster is revoked nobody gets the key, and who has it has it; the
/// audit trail tells all of it; the key is in no file of the server's and not in its log.
#[tokio::test(flavor = "multi_thread")]
async fn a_segment_opens_with_a_key_that_came_over_http_until_the_clusters_key_is_revoked() {
    let deployment = Deployment::new();
    let server = deployment.start_with(&SETTINGS);
    done(&server, &["vault", "key", "create", "kek", "--size", "2048"]);
    done(&server, &["cluster", "update", "local", "--key-name", "kek"]);
    ship::export(&server, &request(&["one", "two", "three"])).await.expect("accepted");
    // A clean stop makes a segment of what was acknowledged.
    assert!(server.stop().success());
    let server = deployment.start_with(&SETTINGS);
    let files = segments(&deployment);
    let [file] = files.as_slice() else { panic!("one segment: {files:?}") };
    let metadata = key_metadata(file);
    let inspected = shown(&server, &["segment", "inspect", file.to_str().expect("a path")]);
    assert_eq!(inspected["keyMetadata"], metadata, "what the command shows is what stands in the file");
    let token = server.credential("/managementToken").to_owned();

    assert_eq!(unwrap(&server, "another", &metadata).await.0, 401);
    let (status, answer) = unwrap(&server, &token, &metadata).await;
    assert_eq!((status, &answer["kid"]), (200, &metadata["masterKeyID"]), "{answer}");
    let value = answer["value"].as_str().expect("a key").to_owned();
    let key = BASE64URL_NOPAD.decode(value.as_bytes()).expect("base64url");
    assert_eq!(bodies(file, with_key(&key)).expect("it opens"), ["one", "two", "three"]);

    let id = inspected["segmentId"].as_str().expect("an id").to_owned();
    let output = server.run(&["segment", "export-key", &id, "--json"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stderr).contains("for ever"), "a warning that is no part of the JSON");
    let exported: Value = serde_json::from_slice(&output.stdout).expect("JSON alone");
    let (hex, base64) = (HEXLOWER.encode(&key), BASE64.encode(&key));
    assert_eq!((&exported["keyHex"], &exported["keyBase64"]), (&json!(hex), &json!(base64)));
    for name in ["segmentId", "workspaceId", "aekId", "algorithm", "aadPrefix"] {
        assert_eq!(exported[name], inspected[name], "{name}");
    }
    let table = done(&server, &["segment", "export-key", &id]);
    assert!(table.contains(&hex) && table.contains(&base64), "{table}");
    let prefix = HEXLOWER.decode(exported["aadPrefix"].as_str().expect("a text").as_bytes()).expect("hexadecimal");
    assert_eq!(bodies(file, with_prefix(&key, &prefix)).expect("it opens").len(), 3);
    assert!(bodies(file, with_prefix(&key, b"another file's")).is_err());
    let wrong: Vec<u8> = key.iter().map(|byte| byte ^ 1).collect();
    assert!(bodies(file, with_key(&wrong)).is_err());
    assert!(failed(&server, &["segment", "export-key", &id.replace(&id[..8], "00000000")]).contains("SegmentNotFound"));

    done(&server, &["vault", "key", "disable", "kek"]);
    until(&server, "Revoked");
    let (status, answer) = unwrap(&server, &token, &metadata).await;
    assert_eq!((status, &answer["error"]["code"]), (403, &json!("KeyDisabled")), "{answer}");
    assert!(failed(&server, &["segment", "export-key", &id]).contains("KeyDisabled"));
    assert_eq!(bodies(file, with_key(&key)).expect("a key that was handed out outlives the revocation").len(), 3);
    done(&server, &["vault", "key", "enable", "kek"]);
    until(&server, "Active");
    assert_eq!(unwrap(&server, &token, &metadata).await.1["value"], value.as_str());

    let refused = "Refused: KeyDisabled";
    assert_eq!(outcomes(&server, "logseal/segments/unwrapKey"), ["Succeeded", refused, "Succeeded"]);
    let exports = [refused, "Refused: SegmentNotFound", "Succeeded", "Succeeded"];
    assert_eq!(outcomes(&server, "logseal/segments/exportKey"), exports);
    assert_eq!(shown(&server, &["audit", "verify"])["faults"], json!([]));
    let log = server.log();
    assert!(server.stop().success());
    let forms = [key, hex.into_bytes(), base64.trim_end_matches('=').as_bytes().to_vec(), value.into_bytes()];
    for form in forms {
        assert!(!log.as_bytes().windows(form.len()).any(|window| window == form), "the log has the key");
        for file in files_below(&deployment.data_dir()) {
            let content = fs::read(&file).expect("a file of a stopped server");
            assert!(!content.windows(form.len()).any(|window| window == form), "{} has the key", file.display());
        }
    }
}
