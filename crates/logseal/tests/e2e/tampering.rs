//! One altered byte of any class fails closed, with an error that names the object and reveals nothing.

use std::fs;
use std::path::{Path, PathBuf};

use logseal_testkit::canary::files_below;
use logseal_testkit::ship;

use crate::Deployment;
use crate::cli::done;
use crate::lifecycle::{metrics, request};

const SECRET: &str = "TamperCanary5551";

/// A stopped deployment with two segments.
async fn two_segments() -> (Deployment, Vec<PathBuf>) {
    let deployment = Deployment::new();
    // Two records with two times each: a column that is constant is not read, its value is in the catalog's row.
    for bodies in [[SECRET, "second"], ["another", "fourth"]] {
        let server = deployment.start();
        ship::export(&server, &request(&bodies)).await.expect("accepted");
        // A clean stop makes a segment of what was acknowledged.
        assert!(server.stop().success());
    }
    let mut segments = files_below(&deployment.data_dir());
    segments.retain(|file| file.extension().is_some_and(|extension| extension == "parquet"));
    segments.sort();
    assert_eq!(segments.len(), 2);
    (deployment, segments)
}

/// Starts on the altered files; the query fails, and its error names `object` but no content.
fn expect_refused(deployment: &Deployment, object: &str, what: &str) {
    let server = deployment.start();
    let error = server.query("SELECT * FROM logs ORDER BY body").expect_err(what);
    assert!(error.contains(object), "{what}: the error names the object: {error}");
    assert!(!error.contains(SECRET) && !server.log().contains(SECRET), "{what}: {error}");
    assert!(server.stop().success(), "{what}: the server goes on");
}

fn segment_id(file: &Path) -> String {
    file.file_stem().expect("a name").to_string_lossy().into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn altered_segment_files_are_refused() {
    let (deployment, segments) = two_segments().await;
    let file = &segments[0];
    let pristine = fs::read(file).unwrap();
    let metadata_at = pristine.windows(5).position(|window| window == b"PKMT1").unwrap();
    let wrapped_at = pristine.windows(10).position(|window| window == b"wrappedDEK").unwrap() + 40;
    let cases = [
        ("a data page", 60),
        ("the key metadata", metadata_at),
        ("the wrapped key in the footer", wrapped_at),
        ("the encrypted footer", pristine.len() - 60),
        ("the footer's length", pristine.len() - 7),
        ("the magic", pristine.len() - 1),
    ];
    for (what, index) in cases {
        let mut altered = pristine.clone();
        altered[index] ^= 1;
        fs::write(file, altered).unwrap();
        expect_refused(&deployment, &segment_id(file), what);
    }
    fs::write(file, &pristine[..pristine.len() - 1]).unwrap();
    expect_refused(&deployment, &segment_id(file), "a file that is cut");
    fs::remove_file(file).unwrap();
    expect_refused(&deployment, &segment_id(file), "a file that is gone");

    fs::write(file, &pristine).unwrap();
    assert_eq!(
        deployment.start().value("SELECT count(*) FROM logs WHERE body LIKE 'Tamper%'"),
        1,
        "the pristine file is fine"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn swapped_segment_files_are_refused() {
    let (deployment, segments) = two_segments().await;
    let (first, second) = (fs::read(&segments[0]).unwrap(), fs::read(&segments[1]).unwrap());
    fs::write(&segments[0], second).unwrap();
    fs::write(&segments[1], first).unwrap();
    let server = deployment.start();
    let error = server.query("SELECT body, count(*) FROM logs GROUP BY body").unwrap_err();
    assert!(segments.iter().any(|file| error.contains(&segment_id(file))), "{error}");
    assert!(!error.contains(SECRET), "{error}");
}

/// Altered catalog rows are covered column by column in `logseal-catalog`, replaced and planted keys in `logseal-keys`; here
/// the whole path from file to error message.
#[tokio::test(flavor = "multi_thread")]
async fn altered_catalog_rows_are_refused() {
    let (deployment, segments) = two_segments().await;
    let catalog = deployment.data_dir().join("catalog.sqlite");
    // Closing the last connection has folded SQLite's journal into the file.
    let pristine = fs::read(&catalog).unwrap();
    let id = segment_id(&segments[0]);
    // The footer states the wrapped DEK that the catalog's row has.
    let layout = logseal_segment::inspect::inspect(&mut fs::File::open(&segments[0]).unwrap()).unwrap();
    let metadata = serde_json::to_value(&layout.key_metadata).unwrap();
    let wrapped = data_encoding::BASE64URL_NOPAD.decode(metadata["wrappedDEK"].as_str().unwrap().as_bytes()).unwrap();
    for (what, needle) in [("the wrapped key", wrapped), ("the segment's path", format!("{id}.parquet").into_bytes())] {
        let mut altered = pristine.clone();
        let places: Vec<_> =
            (0..altered.len() - needle.len()).filter(|at| altered[*at..].starts_with(&needle)).collect();
        assert!(!places.is_empty(), "{what} is in the catalog");
        for at in places {
            altered[at + needle.len() - 1] ^= 1;
        }
        fs::write(&catalog, altered).unwrap();
        let server = deployment.start();
        let error = server.query("SELECT body FROM logs").expect_err(what);
        assert!(error.contains("segment") && error.contains("integrity"), "{what}: {error}");
        assert!(!error.contains(SECRET), "{what}: {error}");
    }
}

/// Scenario: a token is made, then the catalog from before is put back by hand. Guarantee: the start says that the audit trail lacks records, a
/// metric does, and so does who verifies the trail, also after another start.
#[test]
fn an_audit_trail_that_was_put_back_is_told_of() {
    let deployment = Deployment::new();
    assert!(deployment.start().stop().success());
    let catalog = deployment.data_dir().join("catalog.sqlite");
    let before = fs::read(&catalog).expect("one file after a clean stop");
    let server = deployment.start();
    done(&server, &["token", "create", "--name", "auditor", "--role", "auditor"]);
    assert!(!metrics(&server).contains("logseal_audit_faults_total{"), "{}", metrics(&server));
    assert!(server.stop().success());
    fs::write(&catalog, before).expect("written");

    let server = deployment.start();
    assert!(server.log().contains("the audit trail lacks records"), "{}", server.log());
    let counted = metrics(&server);
    assert!(counted.contains("logseal_audit_faults_total{fault=\"lacks_records\"} 1"), "{counted}");
    assert!(server.stop().success());
    let server = deployment.start();
    let verified = server.run(&["audit", "verify", "--json"]);
    assert_eq!(verified.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&verified.stdout).contains("put back"), "{verified:?}");
}
