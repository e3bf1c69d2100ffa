//! The commands that are clients of a server or of files.

pub(crate) mod bench;
pub(crate) mod catalog;
pub(crate) mod config;
pub(crate) mod query;
pub(crate) mod segment;
pub(crate) mod wal;
pub(crate) mod workspace;

use std::io::{self, Write};

use serde::Serialize;

use crate::error::CommandError;

/// Writes to stdout; a reader that went away (`| head`) is no error.
fn print(content: &[u8]) -> Result<(), CommandError> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(content).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(CommandError::io("write to stdout")(error)),
        _ => Ok(()),
    }
}

fn print_json(value: &impl Serialize) -> Result<(), CommandError> {
    let mut text = serde_json::to_string_pretty(value).map_err(|error| CommandError::Show(error.into()))?;
    text.push('\n');
    print(text.as_bytes())
}

/// Aligned columns under a header line.
fn print_table(header: &[&str], rows: &[Vec<String>]) -> Result<(), CommandError> {
    let widths: Vec<usize> = header
        .iter()
        .enumerate()
        .map(|(column, name)| rows.iter().map(|row| row[column].len()).chain([name.len()]).max().unwrap_or(0))
        .collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let padded: Vec<_> = cells.zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        format!("{}\n", padded.join("  ").trim_end())
    };
    let mut text = line(&mut header.iter().copied());
    for row in rows {
        text.push_str(&line(&mut row.iter().map(String::as_str)));
    }
    print(text.as_bytes())
}
