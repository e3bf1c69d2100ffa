//! Copies of wrapped keys come back as they were written, under their root key and at their place only.

use logseal_crypto::Key256;

use super::*;

const WORKSPACE: WorkspaceId = WorkspaceId::from_bytes([2; 16]);

fn mac_key(byte: u8) -> MacKey {
    MacKey::new(Key256::copy_from_slice(&[byte; 32]).unwrap())
}

fn row() -> AekRow {
    AekRow {
        id: AekId::from_bytes([1; 16]),
        workspace: WORKSPACE,
        cluster: ClusterId::from_bytes([3; 16]),
        generation: 2,
        kek: KekRow { vault_uri: "https://v".into(), name: "kek".into(), version: "ab".repeat(16) },
        wrapped: vec![7; 384],
        commitment: vec![8; 32],
        created: UnixNanos(1_767_225_600_000_000_000),
    }
}

fn tables() -> Vec<TableRow> {
    let (id, created) = (TableId::from_bytes([4; 16]), row().created);
    vec![TableRow { id, workspace: WORKSPACE, name: TableName::logs(), created }]
}

fn written() -> (Path, Vec<u8>) {
    let (kek, created) = (row().kek, UnixNanos(0));
    let cluster = ClusterRow { id: row().cluster, name: "local".into(), created, kek };
    let workspace = WorkspaceRow { id: WORKSPACE, name: "def\"ault".into(), cluster: cluster.id, created };
    object(&row(), AekOwner { cluster: &cluster, workspace: &workspace, tables: &tables() }, &mac_key(1))
}

fn refused(path: &Path, content: &[u8]) -> String {
    parse(path, content, &mac_key(1)).unwrap_err().to_string()
}

#[test]
fn a_copy_comes_back_with_names_and_tables() {
    let (path, content) = written();
    let copy = parse(&path, &content, &mac_key(1)).unwrap();
    assert_eq!((copy.workspace_name.as_deref(), copy.cluster_name.as_deref()), (Some("def\"ault"), Some("local")));
    assert_eq!((copy.aek, copy.tables), (row(), tables()));
    assert!((content.len() as u64) < COPY_BYTES);
}

/// Scenario: somebody who can write the store changes any byte. Guarantee: nothing but the very bytes is believed.
#[test]
fn an_altered_copy_is_refused_whichever_byte_it_is() {
    let (path, content) = written();
    for index in 0..content.len() {
        let mut altered = content.clone();
        altered[index] ^= 1;
        assert!(parse(&path, &altered, &mac_key(1)).is_err(), "byte {index}");
    }
    for length in [0, 1, 2, 60, 75, content.len() - 1] {
        assert!(parse(&path, &content[..length], &mac_key(1)).is_err(), "cut at {length}");
    }
    assert!(refused(&path, &[&content[..], b"\n"].concat()).contains(path.as_ref()), "the error names the object");
}

#[test]
fn a_copy_of_another_root_key_or_at_another_place_is_refused() {
    let (path, content) = written();
    assert!(parse(&path, &content, &mac_key(2)).unwrap_err().to_string().contains("another root key"));
    let elsewhere = Path::from(path.as_ref().replace("abab", "cdcd"));
    assert!(refused(&elsewhere, &content).contains("another key"));
}

/// Copies that were written before names were in them, and by versions to come that add a field.
#[test]
fn older_copies_lack_names_and_newer_ones_may_have_more() {
    let (path, content) = written();
    let text = String::from_utf8(content).unwrap();
    let (document, _) = text.rsplit_once("\"mac\":").unwrap();
    let signed = |document: &str| {
        let mac = mac_key(1).mac(MAC_DOMAIN, &[format!("{document}\"mac\":\"\"}}").as_bytes()]);
        format!("{document}\"mac\":\"{}\"}}", HEXLOWER.encode(mac.as_bytes()))
    };
    let names = ["\"workspaceName\":\"def\\\"ault\",", "\"clusterName\":\"local\","];
    let tables_at = document.find("\"tables\"").unwrap();
    let older = names.iter().fold(document[..tables_at].to_owned(), |text, name| text.replace(name, ""));
    let copy = parse(&path, signed(&older).as_bytes(), &mac_key(1)).unwrap();
    assert_eq!((copy.workspace_name, copy.cluster_name, copy.tables.len()), (None, None, 0));
    assert_eq!(copy.aek, row());

    let newer = format!("{document}\"tags\":[\"x\"],");
    assert!(parse(&path, signed(&newer).as_bytes(), &mac_key(1)).is_ok());
    let other_format = document.replace("\"format\":1", "\"format\":2");
    let refused = refused(&path, signed(&other_format).as_bytes());
    assert!(refused.contains("has format 2, this version of logseal knows format 1"), "{refused}");
}
