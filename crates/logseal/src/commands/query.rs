//! `logseal query`.

use std::path::Path;

use arrow::ipc::reader::StreamReader;
use http::Method;
use logseal_query::{QueryResult, format};
use serde_json::json;

use crate::cli::{Format, QueryOptions};
use crate::client::Management;
use crate::commands::{note, print, workspace};
use crate::error::CommandError;

/// Rows that a table shows unless more are asked for: more scroll past unread.
const TABLE_ROWS: usize = 1000;

pub(crate) async fn run(data_dir: &Path, options: &QueryOptions) -> Result<(), CommandError> {
    let management = Management::of(data_dir, &options.server)?;
    let id = workspace::id(&management, &options.workspace).await?;
    let accept = match options.format {
        Format::Table | Format::Arrow => "application/vnd.apache.arrow.stream",
        Format::Json => "application/vnd.logseal.rows+json",
        Format::Csv => "text/csv",
    };
    let limit = match (options.max_rows, options.format) {
        (Some(0), _) => None,
        (Some(rows), _) => Some(rows),
        (None, Format::Table) => Some(TABLE_ROWS),
        (None, _) => None,
    };
    let call = management.call(Method::POST, format!("/v1/workspaces/{id}/query")).accept(accept);
    let answer = call.json(&json!({"query": options.sql, "maxRows": limit})).without_limit().send().await?;
    let truncated = answer.headers.get("x-logseal-truncated").is_some_and(|value| value == "true");
    if options.format == Format::Table {
        let result = decode(&answer.body)?;
        let text = format::table(&result).map_err(|error| CommandError::Show(error.into()))?;
        print(text.trim_end().as_bytes())?;
        print(b"\n")?;
    } else {
        print(&answer.body)?;
        if options.format == Format::Json && !answer.body.ends_with(b"\n") {
            print(b"\n")?;
        }
    }
    if truncated {
        note(&format!("only the first {} rows are shown; ask for more with --max-rows N (0: all)", limit.unwrap_or(0)));
    }
    Ok(())
}

fn decode(stream: &[u8]) -> Result<QueryResult, CommandError> {
    let failed = |error: arrow::error::ArrowError| CommandError::Show(error.into());
    let reader = StreamReader::try_new(stream, None).map_err(failed)?;
    let schema = reader.schema();
    let batches: Vec<_> = reader.collect::<Result<_, _>>().map_err(failed)?;
    let rows = batches.iter().map(arrow::array::RecordBatch::num_rows).sum();
    Ok(QueryResult { schema, batches, rows, truncated: false, lag: logseal_query::Lag::default() })
}
