//! `logseal segment`.

use std::fs::File;
use std::path::Path;

use data_encoding::{BASE64, BASE64URL_NOPAD, HEXLOWER};
use http::{Method, StatusCode};
use logseal_segment::inspect::inspect;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::cli::{SegmentCommand, ServerOptions};
use crate::client::Management;
use crate::commands::catalog;
use crate::commands::{note, print_json, print_table};
use crate::error::CommandError;

#[derive(Deserialize)]
struct Listing {
    value: Vec<Segment>,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct Segment {
    id: String,
    workspace: String,
    table: String,
    path: String,
    bytes: u64,
    rows: u64,
    min_time: i64,
    max_time: i64,
    created: i64,
    aek_id: String,
}

/// What the server gives.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct GivenKey {
    segment_id: String,
    workspace_id: String,
    path: String,
    algorithm: String,
    aad_prefix: String,
    kid: String,
    value: Zeroizing<String>,
}

/// What is shown: the key as readers take it, in both ways.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ExportedKey {
    segment_id: String,
    workspace_id: String,
    aek_id: String,
    path: String,
    algorithm: String,
    aad_prefix: String,
    key_hex: Zeroizing<String>,
    key_base64: Zeroizing<String>,
}

pub(crate) async fn run(data_dir: &Path, command: &SegmentCommand) -> Result<(), CommandError> {
    match command {
        SegmentCommand::List { workspace, server, json } => list(data_dir, server, workspace.as_deref(), *json).await,
        SegmentCommand::ExportKey { segment, json, server } => export_key(data_dir, server, segment, *json).await,
        SegmentCommand::Adopt(options) => catalog::adopt(data_dir, options).await,
        SegmentCommand::Inspect { file, json } => {
            let opening = CommandError::io(format!("inspect `{}`", file.display()));
            let shown = File::open(file).and_then(|mut file| inspect(&mut file)).map_err(opening)?;
            if *json {
                return print_json(&shown);
            }
            let row = |name: &str, value: String| vec![name.to_owned(), value];
            let rows = [
                row("segment", shown.segment_id),
                row("workspace", shown.workspace_id),
                row("account key (AEK)", shown.aek_id),
                row("algorithm", shown.algorithm.to_owned()),
                row("AAD prefix", shown.aad_prefix),
                row("AAD file unique", shown.aad_file_unique),
                row("bytes", shown.bytes.to_string()),
                row("encrypted modules", shown.modules.to_string()),
                row("largest module", format!("{} bytes", shown.largest_module_bytes)),
                row("encrypted footer", format!("{} bytes", shown.encrypted_footer_bytes)),
            ];
            print_table(&["PROPERTY", "VALUE"], &rows)
        }
    }
}

async fn list(
    data_dir: &Path,
    server: &ServerOptions,
    workspace: Option<&str>,
    json: bool,
) -> Result<(), CommandError> {
    let management = Management::of(data_dir, server)?;
    let path = workspace.map_or_else(|| "/v1/segments".to_owned(), |name| format!("/v1/segments?workspace={name}"));
    let listing: Listing = management.get(&path).await?.read()?;
    if json {
        return print_json(&listing.value);
    }
    let rows: Vec<_> = listing
        .value
        .into_iter()
        .map(|s| vec![s.id, s.workspace, s.table, s.rows.to_string(), s.bytes.to_string(), s.aek_id, s.path])
        .collect();
    print_table(&["SEGMENT", "WORKSPACE", "TABLE", "ROWS", "BYTES", "ACCOUNT KEY (AEK)", "PATH"], &rows)
}

async fn export_key(data_dir: &Path, server: &ServerOptions, segment: &str, json: bool) -> Result<(), CommandError> {
    let management = Management::of(data_dir, server)?;
    let call = management.call(Method::POST, format!("/v1/segments/{segment}/exportkey"));
    let answer = call
        .send()
        .await
        .map_err(|error| error.with_hint(StatusCode::NOT_FOUND, "`logseal segment list` shows the segments"))?;
    let given: GivenKey = answer.read()?;
    let key = BASE64URL_NOPAD.decode(given.value.as_bytes()).map(Zeroizing::new);
    let key = key.map_err(|error| CommandError::Show(error.into()))?;
    let shown = ExportedKey {
        segment_id: given.segment_id,
        workspace_id: given.workspace_id,
        aek_id: given.kid,
        path: given.path,
        algorithm: given.algorithm,
        aad_prefix: given.aad_prefix,
        key_hex: Zeroizing::new(HEXLOWER.encode(&key)),
        key_base64: Zeroizing::new(BASE64.encode(&key)),
    };
    note(
        "this key opens the segment's file for ever, also after the cluster's key was revoked: whoever has both reads it",
    );
    if json {
        return print_json(&shown);
    }
    let row = |name: &str, value: &str| vec![name.to_owned(), value.to_owned()];
    let rows = [
        row("segment", &shown.segment_id),
        row("workspace", &shown.workspace_id),
        row("account key (AEK)", &shown.aek_id),
        row("path", &shown.path),
        row("algorithm", &shown.algorithm),
        row("AAD prefix, hexadecimal", &shown.aad_prefix),
        row("key, hexadecimal", &shown.key_hex),
        row("key, base64", &shown.key_base64),
    ];
    print_table(&["PROPERTY", "VALUE"], &rows)
}
