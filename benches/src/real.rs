//! The real logs of `testdata/real` as a shipper sends them that tails files: a record a line.

use std::fs;
use std::path::{Path, PathBuf};

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message;

/// Lines a request, as many as the file log receiver of the OpenTelemetry Collector takes at a time.
const LINES: usize = 100;

/// When the first line was read, and how long after it the next one: 10,000 lines a second.
const FIRST_READ: u64 = 1_767_225_600_000_000_000;
const STEP: u64 = 100_000;

/// Requests with `records` records: all lines of all files, as often as it takes.
///
/// # Panics
///
/// When the files cannot be read.
pub(crate) fn requests(records: usize) -> Vec<Vec<u8>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/real");
    let files: Vec<(String, String, Vec<u8>)> = files(&root)
        .into_iter()
        .map(|path| {
            let name = |path: Option<&std::ffi::OsStr>| path.unwrap_or_default().to_string_lossy().into_owned();
            let (folder, file) = (name(path.parent().and_then(Path::file_name)), name(path.file_name()));
            (folder, file, fs::read(&path).expect("a readable file"))
        })
        .collect();
    let (mut requests, mut made) = (Vec::new(), 0);
    while made < records {
        for (folder, file, content) in &files {
            let lines: Vec<&[u8]> = content.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).collect();
            for lines in lines.chunks(LINES) {
                requests.push(request(folder, file, lines, made as u64));
                made += lines.len();
            }
        }
    }
    requests
}

/// All log files, in one order.
fn files(root: &Path) -> Vec<PathBuf> {
    let listed = |folder: &Path| fs::read_dir(folder).expect("a readable folder").flatten().map(|entry| entry.path());
    let mut files: Vec<PathBuf> = listed(root)
        .flat_map(|folder| listed(&folder).collect::<Vec<_>>())
        .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
        .collect();
    files.sort();
    files
}

fn request(folder: &str, file: &str, lines: &[&[u8]], first: u64) -> Vec<u8> {
    let records = (first..).zip(lines).map(|(index, line)| LogRecord {
        observed_time_unix_nano: FIRST_READ + index * STEP,
        body: Some(text(&String::from_utf8_lossy(line))),
        attributes: vec![pair("log.file.name", file)],
        ..LogRecord::default()
    });
    let scope = ScopeLogs {
        scope: Some(InstrumentationScope::default()),
        log_records: records.collect(),
        ..ScopeLogs::default()
    };
    let resource =
        Resource { attributes: vec![pair("service.name", folder), pair("host.name", "web-1")], ..Resource::default() };
    let logs = ResourceLogs { resource: Some(resource), scope_logs: vec![scope], ..ResourceLogs::default() };
    ExportLogsServiceRequest { resource_logs: vec![logs] }.encode_to_vec()
}

fn text(text: &str) -> AnyValue {
    AnyValue { value: Some(Value::StringValue(text.to_owned())) }
}

fn pair(key: &str, value: &str) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(text(value)), ..KeyValue::default() }
}
