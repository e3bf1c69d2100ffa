//! How much room records take: as segments, and as one zstd frame of the same OTLP bytes.
//!
//! `cargo bench --workspace --bench sizes -- [PAYLOAD]...`: all requests one after the other through `zstd -3`, which sees them as a file of logs would be
//! compressed; and as segments under the server's default settings, encrypted. The figures are the same on every machine.

#![expect(clippy::print_stdout, reason = "the table is the program's output")]

use std::error::Error;
use std::io::{self, Write};

use arrow::array::RecordBatch;
use logseal_benches::{IDENTITY, SOURCES, Source, aek, footer, schema};
use logseal_core::UnixNanos;
use logseal_crypto::{Aek, OsRandom};
use logseal_otlp::ScanLimits;
use logseal_segment::encode::SegmentWriter;
use logseal_segment::unify::union_schema;
use logseal_segment::{SegmentError, SegmentSettings};

/// Records of each payload: several row groups.
const RECORDS: usize = 250_000;

/// Size at which the server closes a segment.
const SEGMENT_BYTES: usize = 64 << 20;

const LEVEL: i32 = 3;

fn main() -> Result<(), Box<dyn Error>> {
    // `cargo bench` adds a flag.
    let wanted: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    println!(
        "| payload | records | OTLP B a record | zstd -3 | segment | OTLP : zstd | OTLP : segment | zstd : segment |"
    );
    println!("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |");
    for source in SOURCES.iter().filter(|source| wanted.is_empty() || wanted.iter().any(|name| name == source.name)) {
        row(source)?;
    }
    Ok(())
}

fn row(source: &Source) -> Result<(), Box<dyn Error>> {
    let (schema, limits) = (schema(), ScanLimits::default());
    let mut frame = zstd::Encoder::new(Counted::default(), LEVEL)?;
    let mut segments = Segments { aek: aek(), settings: SegmentSettings::default(), open: None, bytes: 0 };
    let (mut otlp, mut records, mut waiting, mut waiting_bytes) = (0, 0, Vec::new(), 0);
    for request in source.requests(RECORDS) {
        otlp += request.len();
        frame.write_all(&request)?;
        for chunk in logseal_otlp::scan(&request, &schema, UnixNanos(0), &limits)?.chunks {
            records += chunk.batch.num_rows();
            waiting_bytes += chunk.batch.get_array_memory_size();
            waiting.push(chunk.batch);
        }
        if waiting_bytes >= segments.settings.row_group_bytes {
            segments.add(&std::mem::take(&mut waiting))?;
            waiting_bytes = 0;
        }
    }
    segments.add(&waiting)?;
    let segment = segments.end()?;
    let Counted(zstd) = frame.finish()?;
    let each = |bytes: usize| bytes as f64 / records as f64;
    println!(
        "| {} | {records} | {:.1} | {:.1} | {:.1} | {:.2} | {:.2} | {:.2} |",
        source.name,
        each(otlp),
        each(zstd),
        each(segment),
        otlp as f64 / zstd as f64,
        otlp as f64 / segment as f64,
        zstd as f64 / segment as f64,
    );
    Ok(())
}

/// Segments one after the other.
struct Segments {
    aek: Aek,
    settings: SegmentSettings,
    open: Option<SegmentWriter>,
    /// Those that are closed.
    bytes: usize,
}

impl Segments {
    /// Adds a row group.
    fn add(&mut self, rows: &[RecordBatch]) -> Result<(), SegmentError> {
        if rows.is_empty() {
            return Ok(());
        }
        // A segment cannot get more columns.
        if self.open.as_ref().is_some_and(|open| open.file_bytes() >= SEGMENT_BYTES || !open.takes(rows)) {
            self.close()?;
        }
        let segment = match self.open.take() {
            Some(open) => open,
            None => {
                let schema = union_schema(rows.iter().map(RecordBatch::schema_ref)).map_err(SegmentError::Schema)?;
                SegmentWriter::begin(IDENTITY, &self.aek, schema, rows, &self.settings, OsRandom)?
            }
        };
        let segment = self.open.insert(segment);
        segment.append(segment.encode(rows)?)
    }

    fn close(&mut self) -> Result<(), SegmentError> {
        let Some(open) = self.open.take() else { return Ok(()) };
        let footer = footer(&self.aek, open.rows());
        self.bytes += open.finish(&footer)?.file.content_length();
        Ok(())
    }

    /// The bytes of all segments.
    fn end(mut self) -> Result<usize, SegmentError> {
        self.close()?;
        Ok(self.bytes)
    }
}

/// Counts what is written.
#[derive(Default)]
struct Counted(usize);

impl Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
