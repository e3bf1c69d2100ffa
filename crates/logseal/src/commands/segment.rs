//! `logseal segment`.

use std::fs::File;
use std::path::Path;

use logseal_segment::inspect::inspect;
use serde::{Deserialize, Serialize};

use crate::cli::{SegmentCommand, ServerOptions};
use crate::client::Management;
use crate::commands::catalog;
use crate::commands::{print_json, print_table};
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

pub(crate) async fn run(data_dir: &Path, command: &SegmentCommand) -> Result<(), CommandError> {
    match command {
        SegmentCommand::List { workspace, server, json } => list(data_dir, server, workspace.as_deref(), *json).await,
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
