//! What each column costs and takes under each encoding and codec: the measurement behind the choices of `logseal-segment`.
//!
//! Every leaf column of one row group is written alone, on one thread, without encryption, by each encoding that its type has. Prints a
//! table for each payload: nanoseconds and bytes a row. `cargo bench --workspace --bench encodings -- [PAYLOAD]...`

#![expect(clippy::print_stdout, reason = "the tables are the program's output")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema};
use logseal_alloc::WipingAllocator;
use logseal_benches::{SOURCES, Source};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::properties::{EnabledStatistics, WriterProperties};

/// As in the server: what a page costs to allocate is a part of it.
#[global_allocator]
static ALLOCATOR: WipingAllocator = WipingAllocator::new();

/// Rows of a row group of the usual size.
const ROWS: usize = 30_000;

/// Measurements of each variant; the fastest counts, since all that can disturb one makes it slower.
const RUNS: usize = 7;

fn main() {
    // `cargo bench` itself adds a flag.
    let wanted: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    for source in SOURCES.iter().filter(|source| wanted.is_empty() || wanted.iter().any(|name| name == source.name)) {
        table(source);
    }
}

/// One column of all chunks.
struct Column {
    name: String,
    chunks: Vec<ArrayRef>,
}

fn columns(chunks: &[RecordBatch]) -> Vec<Column> {
    let mut columns: Vec<Column> = Vec::new();
    let mut add = |name: String, array: ArrayRef| match columns.iter_mut().find(|column| column.name == name) {
        Some(column) => column.chunks.push(array),
        None => columns.push(Column { name, chunks: vec![array] }),
    };
    for chunk in chunks {
        for (field, array) in chunk.schema_ref().fields().iter().zip(chunk.columns()) {
            match array.as_struct_opt() {
                Some(structure) => {
                    for (child, array) in structure.fields().iter().zip(structure.columns()) {
                        add(format!("{}.{}", field.name(), child.name()), Arc::clone(array));
                    }
                }
                None => add(field.name().clone(), Arc::clone(array)),
            }
        }
    }
    columns
}

fn encodings(data_type: &DataType) -> &'static [Encoding] {
    match data_type {
        DataType::Utf8 | DataType::Binary => {
            &[Encoding::PLAIN, Encoding::DELTA_LENGTH_BYTE_ARRAY, Encoding::DELTA_BYTE_ARRAY]
        }
        DataType::Float64 => &[Encoding::PLAIN, Encoding::BYTE_STREAM_SPLIT],
        DataType::Boolean => &[Encoding::PLAIN],
        _ => &[Encoding::PLAIN, Encoding::DELTA_BINARY_PACKED, Encoding::BYTE_STREAM_SPLIT],
    }
}

fn zstd(level: i32) -> Compression {
    Compression::ZSTD(ZstdLevel::try_new(level).expect("a level of zstd"))
}

fn table(source: &Source) {
    println!("\n### {}\n", source.name);
    println!(
        "| column | values | encoding | none ns | none B | no statistics ns | zstd 1 ns | zstd 1 B | zstd 3 ns | zstd 3 B |"
    );
    println!("| --- | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |");
    for column in columns(&source.chunks(ROWS)) {
        let rows: usize = column.chunks.iter().map(|array| array.len()).sum();
        let nulls: usize = column.chunks.iter().map(|array| array.null_count()).sum();
        let data_type = column.chunks[0].data_type();
        let variants = [None].into_iter().chain(encodings(data_type).iter().copied().map(Some));
        for encoding in variants {
            let measured = |codec, statistics| {
                let (time, bytes) = write(&column, encoding, codec, statistics);
                (time.as_nanos() as f64 / rows as f64, bytes as f64 / rows as f64)
            };
            let (none, none_bytes) = measured(Compression::UNCOMPRESSED, EnabledStatistics::Page);
            let (bare, _) = measured(Compression::UNCOMPRESSED, EnabledStatistics::None);
            let (one, one_bytes) = measured(zstd(1), EnabledStatistics::Page);
            let (three, three_bytes) = measured(zstd(3), EnabledStatistics::Page);
            let name = encoding.map_or("dictionary".to_owned(), |encoding| encoding.to_string().to_lowercase());
            println!(
                "| {} | {:.2} | {name} | {none:.1} | {none_bytes:.2} | {bare:.1} | {one:.1} | {one_bytes:.2} | {three:.1} | {three_bytes:.2} |",
                column.name,
                (rows - nulls) as f64 / rows as f64,
            );
        }
    }
}

/// The shortest time that the column takes, and the bytes of its pages.
fn write(
    column: &Column,
    encoding: Option<Encoding>,
    codec: Compression,
    statistics: EnabledStatistics,
) -> (Duration, usize) {
    let field = Field::new("column", column.chunks[0].data_type().clone(), true);
    let schema = Arc::new(Schema::new(vec![field]));
    let batches: Vec<RecordBatch> = column
        .chunks
        .iter()
        .map(|array| RecordBatch::try_new(Arc::clone(&schema), vec![Arc::clone(array)]).expect("one column"))
        .collect();
    let mut best = (Duration::MAX, 0);
    for _ in 0..RUNS {
        let properties = WriterProperties::builder()
            .set_compression(codec)
            .set_dictionary_enabled(encoding.is_none())
            .set_encoding(encoding.unwrap_or(Encoding::PLAIN))
            .set_statistics_enabled(statistics)
            .build();
        let mut writer =
            ArrowWriter::try_new(Vec::new(), Arc::clone(&schema), Some(properties)).expect("a schema of one column");
        let started = Instant::now();
        for batch in &batches {
            writer.write(batch).expect("memory takes all");
        }
        writer.flush().expect("memory takes all");
        let elapsed = started.elapsed();
        let bytes = writer.bytes_written();
        if elapsed < best.0 {
            best = (elapsed, bytes);
        }
    }
    best
}
