//! Turns DataFusion's errors into the caller's words.

use std::error::Error;

use arrow::error::ArrowError;
use datafusion::common::{Column, Diagnostic, SchemaError};
use datafusion::error::DataFusionError;
use datafusion::sql::sqlparser::parser::ParserError;

use crate::error::{Position, QueryError};
use crate::session::{CATALOG, SCHEMA};
use crate::wording::{of_debugged_arrow, readable, with_cast_hint};

/// Prefix of the text that the Parquet scan makes of an error in a pushed-down predicate
/// (`datafusion-datasource-parquet`, `row_filter.rs`): the query's fault, although the file's reader reports it.
pub(crate) const PREDICATE_ERROR: &str = "Error evaluating filter predicate: ";

/// What `error` means to the caller of a query whose engine has `memory_limit` bytes.
pub(crate) fn classify(error: &DataFusionError, memory_limit: usize) -> QueryError {
    if let Some(own) = own_error(error) {
        return own;
    }
    if error.iter().any(|e| matches!(e.find_root(), DataFusionError::ResourcesExhausted(_))) {
        return QueryError::OverMemory { limit: memory_limit };
    }
    let position = error.diagnostic().and_then(position_of);
    let root = error.iter().next().unwrap_or(error).find_root();
    let invalid = |message: String| QueryError::Invalid { message, position };
    match root {
        DataFusionError::SQL(parser, _) => from_parser(parser),
        DataFusionError::Plan(text) | DataFusionError::Execution(text) | DataFusionError::Configuration(text) => {
            invalid(first_part(text))
        }
        DataFusionError::NotImplemented(text) => invalid(format!("not supported: {}", first_part(text))),
        DataFusionError::SchemaError(schema, _) => invalid(first_part(&schema.to_string())),
        DataFusionError::ArrowError(arrow, _) => from_arrow(arrow),
        DataFusionError::ParquetError(parquet) => from_text(&parquet.to_string()),
        DataFusionError::Internal(text) => QueryError::Internal { message: first_part(text) },
        DataFusionError::ExecutionJoin(_) => QueryError::Internal { message: "the query's task panicked".into() },
        other => QueryError::Internal { message: first_part(&other.to_string()) },
    }
}

/// The error of ours that was passed through DataFusion, if there is one.
pub(crate) fn own_error(error: &DataFusionError) -> Option<QueryError> {
    error.iter().find_map(|one| {
        let mut link: Option<&(dyn Error + 'static)> = Some(one);
        while let Some(current) = link {
            if let Some(own) = current.downcast_ref::<QueryError>() {
                return Some(own.clone());
            }
            link = current.source();
        }
        None
    })
}

/// The column that `error` says nobody knows.
pub(crate) fn unknown_column(error: &DataFusionError) -> Option<&Column> {
    error.iter().find_map(|one| match one.find_root() {
        DataFusionError::SchemaError(schema, _) => match schema.as_ref() {
            SchemaError::FieldNotFound { field, .. } => Some(field.as_ref()),
            _ => None,
        },
        _ => None,
    })
}

/// Says which table may have been meant, if `error` is about an unknown one.
pub(crate) fn suggest_table(error: QueryError, tables: &[String]) -> QueryError {
    let QueryError::Invalid { message, position } = error else { return error };
    let unknown = message.strip_prefix("table '").and_then(|rest| rest.strip_suffix("' not found"));
    let Some(unknown) = unknown else {
        return QueryError::Invalid { message, position };
    };
    let unknown = unknown.strip_prefix(CATALOG).and_then(|rest| rest.strip_prefix('.')).unwrap_or(unknown);
    // A table of ours has no dot in its name; one of another schema is shown with it, since that is what is wrong.
    let (unknown, table) = match unknown.strip_prefix(SCHEMA).and_then(|rest| rest.strip_prefix('.')) {
        Some(table) => (table, table),
        None => (unknown, unknown.rsplit('.').next().unwrap_or(unknown)),
    };
    let near = |name: &String| {
        let folded = distance(&name.to_lowercase(), &table.to_lowercase());
        (folded <= 2).then(|| (folded, distance(name, table)))
    };
    let nearest = tables.iter().filter_map(|name| near(name).map(|by| (by, name))).min().map(|(_, name)| name);
    let hint = match nearest {
        // Names that SQL would fold to lower case need quotes.
        Some(name) if name.chars().any(char::is_uppercase) => format!("did you mean \"{name}\" (with the quotes)?"),
        Some(name) => format!("did you mean {name}?"),
        None => "SHOW TABLES lists what there is".to_owned(),
    };
    QueryError::Invalid { message: format!("table {unknown} not found; {hint}"), position }
}

/// Levenshtein's distance.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

fn from_parser(error: &ParserError) -> QueryError {
    match error {
        ParserError::RecursionLimitExceeded => {
            QueryError::Invalid { message: "the query is nested too deeply".into(), position: None }
        }
        ParserError::TokenizerError(text) | ParserError::ParserError(text) => {
            let (text, position) = split_position(text);
            QueryError::Invalid { message: format!("syntax error: {text}"), position }
        }
    }
}

fn from_arrow(error: &ArrowError) -> QueryError {
    match error {
        ArrowError::ParquetError(text) | ArrowError::ComputeError(text) => from_text(text),
        ArrowError::MemoryError(text) | ArrowError::IoError(text, _) | ArrowError::IpcError(text) => {
            QueryError::Internal { message: text.clone() }
        }
        ArrowError::CastError(text) => {
            QueryError::Invalid { message: shortened(&with_cast_hint(text)), position: None }
        }
        other => QueryError::Invalid { message: shortened(&other.to_string()), position: None },
    }
}

/// An error that was turned into text on its way; only a predicate's can be the query's fault.
fn from_text(text: &str) -> QueryError {
    let message = text.split_once(PREDICATE_ERROR).map_or(text, |(_, inner)| inner);
    let message = of_debugged_arrow(message).unwrap_or_else(|| message.to_owned());
    QueryError::Invalid { message: shortened(&with_cast_hint(&message)), position: None }
}

/// Parser messages end in ` at Line: 1, Column: 8`.
fn split_position(text: &str) -> (&str, Option<Position>) {
    let Some((message, place)) = text.rsplit_once(" at Line: ") else { return (text, None) };
    let Some((line, column)) = place.split_once(", Column: ") else { return (text, None) };
    match (line.trim().parse(), column.trim().parse()) {
        (Ok(line), Ok(column)) => (message, Some(Position { line, column })),
        _ => (text, None),
    }
}

fn position_of(diagnostic: &Diagnostic) -> Option<Position> {
    let start = diagnostic.span?.start;
    // Line 0 is DataFusion's empty span.
    (start.line > 0).then_some(Position { line: start.line, column: start.column })
}

/// DataFusion appends a backtrace, if one is compiled in, behind this separator.
fn first_part(text: &str) -> String {
    shortened(&readable(text.split(DataFusionError::BACK_TRACE_SEP).next().unwrap_or(text)))
}

/// Some messages quote a whole syntax tree.
fn shortened(text: &str) -> String {
    const CHARACTERS: usize = 1_000;
    match text.char_indices().nth(CHARACTERS) {
        Some((end, _)) => format!("{} ..", &text[..end]),
        None => text.to_owned(),
    }
}
