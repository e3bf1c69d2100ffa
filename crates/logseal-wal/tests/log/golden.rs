//! Golden bytes: files of each version, as they were once written, say today what they said then.
//!
//! `LOGSEAL_BLESS=1` writes those of the present version anew; see `testdata/wal/README.md`.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use flate2::write::GzEncoder;
use logseal_testkit::SimulatedDisk;
use logseal_wal::format::VERSION;
use logseal_wal::{Bound, CompressedBody, Compression, Entry, FileKeys, FileReader, Item, survey_file};

use crate::fixture::{Log, entry, folder, path_of, unwrap};

fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/wal")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// All that a file says, line by line.
fn describe(disk: &SimulatedDisk, path: &Path) -> String {
    let mut reader = FileReader::open(disk, path).unwrap();
    let header = reader.header().clone();
    let mut keys = FileKeys::new(&header);
    let mut text = String::new();
    let mut line = |what: String| text.push_str(&(what + "\n"));
    line(format!("file {} cluster {} node {}", header.file, header.cluster, header.node));
    line(format!("ordinal {} created {:?}", header.ordinal, header.created));
    line(format!("marker {} nonce field {}", hex(&header.marker), hex(&header.nonce_field)));
    if let Some(before) = header.predecessor {
        line(format!("predecessor {} valid to {} chain {}", before.file, before.end, hex(&before.chain)));
    }
    line(format!("header hash {}", hex(&header.hash())));
    while let Some(item) = reader.next_item().unwrap() {
        match item {
            Item::Key(key) => {
                keys.add(&key, &unwrap).unwrap();
                let (place, slot) = (format!("{} at {}", key.sequence, key.offset), key.slot);
                line(format!("key {place} slot {slot} workspace {} aek {}", key.workspace, key.aek));
                line(format!("  sealed {}", hex(&key.sealed)));
                line(format!("  commitment {}", hex(key.commitment.as_bytes())));
            }
            Item::Entry(entry) => {
                let (place, slot) = (format!("{} at {}", entry.sequence, entry.offset), entry.slot);
                line(format!(
                    "entry {place} slot {slot} received {:?} scan version {}",
                    entry.received, entry.scan_version
                ));
                if header.version > 1 {
                    line(format!("  compression {:?}", entry.compression));
                }
                for part in &entry.parts {
                    line(format!("  table {} records {}", part.table, part.records));
                }
                line(format!("  {}", String::from_utf8(entry.open(&keys).unwrap()).unwrap()));
            }
            Item::Attestation(said) => line(format!("attestation {} durable {}", said.sequence, said.durable)),
            other => panic!("{other:?}"),
        }
    }
    let survey = survey_file(disk, path, &Bound::default()).unwrap();
    assert!(survey.is_intact() && survey.torn.is_none());
    line(format!(
        "records {} attested {} end {} chain {}",
        survey.records,
        survey.attested,
        survey.end,
        hex(&survey.chain)
    ));
    text
}

/// One body of each compression, and the usual one.
fn body(n: u64) -> CompressedBody {
    let text = format!("a line of request {n}, and again; ").repeat(20).into_bytes();
    let (bytes, raw) = (Bytes::from(text.clone()), text.len());
    let gzip = || {
        let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(&text).unwrap();
        encoder.finish().unwrap()
    };
    let body = match n {
        0 => CompressedBody::compress(&bytes.slice(..24)),
        1 => CompressedBody::compress(&bytes),
        2 => CompressedBody::received(Compression::Gzip, gzip().into(), raw).unwrap(),
        3 => CompressedBody::received(Compression::Zstd, zstd::bulk::compress(&bytes, 3).unwrap().into(), raw).unwrap(),
        _ => entry(n).body,
    };
    let expected = [Compression::None, Compression::Lz4, Compression::Gzip, Compression::Zstd];
    assert!(expected.get(n as usize).is_none_or(|expected| *expected == body.compression()), "{body:?}");
    body
}

fn bless() {
    let log = Log::default();
    let mut writer = log.writer(None, 1 << 30);
    for files in ["first", "second"] {
        for n in 0..5 {
            writer.append(&Entry { body: body(n), ..entry(n) }).unwrap();
            if n == 2 {
                writer.sync().unwrap();
            }
        }
        writer.sync().unwrap();
        let path = path_of(writer.file().unwrap());
        writer.close().unwrap();
        std::fs::write(data().join(format!("v{VERSION}-{files}.wal")), log.disk.bytes(&path).unwrap()).unwrap();
        std::fs::write(data().join(format!("v{VERSION}-{files}.txt")), describe(&log.disk, &path)).unwrap();
    }
}

#[test]
fn files_of_each_version_say_what_they_said_when_they_were_written() {
    if std::env::var_os("LOGSEAL_BLESS").is_some() {
        bless();
    }
    for version in 1..=VERSION {
        check(version);
    }
}

fn check(version: u16) {
    let disk = SimulatedDisk::new();
    let mut predecessor = None;
    for file in ["first", "second"] {
        let file = format!("v{version}-{file}");
        let bytes = std::fs::read(data().join(format!("{file}.wal"))).unwrap();
        let expected = std::fs::read_to_string(data().join(format!("{file}.txt"))).unwrap();
        let path = folder().join("golden.wal");
        disk.put(&path, bytes);
        assert_eq!(describe(&disk, &path), expected, "{file}");
        let survey = survey_file(&disk, &path, &Bound::default()).unwrap();
        assert_eq!(survey.header.version, version, "{file}");
        assert_eq!(survey.header.predecessor, predecessor, "{file}: the chain of the file before");
        predecessor = Some(survey.predecessor());
    }
}
