//! The commands that are clients of a server or of files.

pub(crate) mod audit;
pub(crate) mod bench;
pub(crate) mod catalog;
pub(crate) mod cluster;
pub(crate) mod completions;
pub(crate) mod config;
mod follow;
pub(crate) mod operation;
pub(crate) mod query;
pub(crate) mod segment;
pub(crate) mod token;
pub(crate) mod vault;
mod view;
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

fn print_line(line: &str) -> Result<(), CommandError> {
    print(format!("{}\n", printable(line)).as_bytes())
}

fn print_table(header: &[&str], rows: &[Vec<String>]) -> Result<(), CommandError> {
    print(table(header, rows).as_bytes())
}

/// Aligned columns under a header line.
fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let cells: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(|cell| printable(cell)).collect()).collect();
    let width = |text: &str| text.chars().count();
    let widths: Vec<usize> = header
        .iter()
        .enumerate()
        .map(|(column, name)| cells.iter().map(|row| width(&row[column])).chain([width(name)]).max().unwrap_or(0))
        .collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let padded: Vec<_> = cells.zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        format!("{}\n", padded.join("  ").trim_end())
    };
    let mut text = line(&mut header.iter().copied());
    for row in &cells {
        text.push_str(&line(&mut row.iter().map(String::as_str)));
    }
    text
}

/// The text without control characters: a tag or an answer must not drive the terminal on which it is shown.
pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// A note for people beside the result on stdout.
#[expect(clippy::print_stderr, reason = "it is no part of the result")]
fn note(text: &str) {
    eprintln!("logseal: {}", printable(text));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_cannot_drive_the_terminal() {
        let rows = [vec!["caf\u{e9}s".to_owned(), "1".to_owned()], vec!["a\x1b[2J\nb".to_owned(), String::new()]];
        assert_eq!(table(&["NAME", "N"], &rows), "NAME     N\ncaf\u{e9}s    1\na?[2J?b\n");
    }
}
