//! What a segment says about itself, inside its encrypted footer: enough to put it back into a lost catalog.
//!
//! ```json
//! {"format":1,"cluster":"<id>","workspace":"<id>","workspace_name":"default","table":"<id>","table_name":"logs",
//!  "aek":"<id>","aek_generation":1,"segment":"<id>","rows":1000,"min_time":<ns>,"max_time":<ns>,"created":<ns>,
//!  "columns":[{"ordinal":0,"container":0,"kind":1,"key":"http.method"}],
//!  "coverage":[{"file":"<id>","first":1,"last":20}]}
//! ```
//!
//! The JSON is the value of `logseal.segment` in the file's key-value metadata. A reader refuses a format that it does not
//! know; within a format fields may be added, never removed or given another meaning.

use std::fmt::{self, Debug};
use std::panic::{AssertUnwindSafe, catch_unwind};

use logseal_core::{AekId, ClusterId, SegmentId, TableId, TableName, UnixNanos, WalFileId, WorkspaceId};
use logseal_crypto::aad::Aad;
use logseal_crypto::{Dek, WrappedDek};
use parquet::file::metadata::{KeyValue, ParquetMetaDataReader};
use parquet::file::reader::ChunkReader;
use serde::{Deserialize, Serialize};

use crate::inspect::check_ends;
use crate::{SegmentError, SegmentIdentity, properties};

/// The key of the footer in Parquet's key-value metadata.
pub const KEY: &str = "logseal.segment";

/// The format that this version writes, and the only one that it reads.
const FORMAT: u32 = 1;

/// What a segment says about itself.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct SegmentFooter {
    /// The cluster that owns the AEK.
    pub cluster: ClusterId,
    /// The workspace.
    pub workspace: WorkspaceId,
    /// The workspace's name when the segment was written.
    pub workspace_name: String,
    /// The table.
    pub table: TableId,
    /// The table's name.
    #[serde(with = "table_name")]
    pub table_name: TableName,
    /// The AEK that wraps the DEK.
    pub aek: AekId,
    /// The AEK's generation, counted from 1 within the workspace.
    pub aek_generation: u32,
    /// The segment.
    pub segment: SegmentId,
    /// Its number of records.
    pub rows: u64,
    /// The smallest `time` in it.
    #[serde(with = "nanos")]
    pub min_time: UnixNanos,
    /// The largest `time` in it.
    #[serde(with = "nanos")]
    pub max_time: UnixNanos,
    /// When it was made.
    #[serde(with = "nanos")]
    pub created: UnixNanos,
    /// Every attribute column of the table that was known, in order of assignment; not only those that occur in the segment.
    pub columns: Vec<FooterColumn>,
    /// The frames of the write-ahead log whose records of this stream are in the segment.
    pub coverage: Vec<FooterCoverage>,
}

/// An attribute column of the segment's table.
#[derive(Clone, Deserialize, Eq, PartialEq, Serialize)]
pub struct FooterColumn {
    /// Position in the order of assignment, from 0.
    pub ordinal: u32,
    /// Code of the attribute container.
    pub container: u8,
    /// Code of the attribute kind.
    pub kind: u8,
    /// The attribute's key: a client's text.
    pub key: String,
}

/// Without the key, which is log content.
impl Debug for FooterColumn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { ordinal, container, kind, key: _ } = self;
        f.debug_struct("FooterColumn")
            .field("ordinal", ordinal)
            .field("container", container)
            .field("kind", kind)
            .finish_non_exhaustive()
    }
}

/// The frames `first..=last` of one file of the write-ahead log.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct FooterCoverage {
    /// The file.
    pub file: WalFileId,
    /// The first sequence number.
    pub first: u64,
    /// The last sequence number.
    pub last: u64,
}

#[derive(Serialize)]
struct Written<'f> {
    format: u32,
    #[serde(flatten)]
    footer: &'f SegmentFooter,
}

#[derive(Deserialize)]
struct Format {
    format: u32,
}

impl SegmentFooter {
    /// As an entry of Parquet's own metadata, all of which is in the encrypted footer.
    pub(crate) fn to_key_value(&self) -> KeyValue {
        let json = serde_json::to_string(&Written { format: FORMAT, footer: self })
            .expect("ids, numbers and text always serialize");
        KeyValue::new(KEY.to_owned(), json)
    }

    fn parse(json: &str) -> Result<Self, SegmentError> {
        let not = |why| move |_| SegmentError::NotASegment(why);
        // serde's message would quote the text, which holds attribute keys.
        let Format { format } = serde_json::from_str(json).map_err(not("its footer states no format"))?;
        if format != FORMAT {
            return Err(SegmentError::NewerFooter { format, known: FORMAT });
        }
        serde_json::from_str(json).map_err(not("its footer lacks a field, or has one of another type"))
    }

    /// Refuses to be written into another segment than the one that it describes: whoever adopts the file would believe it.
    pub(crate) fn check(
        &self,
        identity: &SegmentIdentity,
        (aek, generation): (AekId, u32),
        rows: u64,
    ) -> Result<(), SegmentError> {
        let SegmentIdentity { cluster, workspace, table, segment, received: _ } = *identity;
        let rules = [
            ((self.cluster, self.workspace) == (cluster, workspace), "its cluster and workspace"),
            ((self.table, self.segment) == (table, segment), "its table and id"),
            ((self.aek, self.aek_generation) == (aek, generation), "its AEK"),
            (self.rows == rows, "its number of records"),
        ];
        match rules.iter().find(|(holds, _)| !holds) {
            None => Ok(()),
            Some((_, what)) => Err(SegmentError::Footer(what)),
        }
    }
}

/// Reads the footer of `file` with its key. `aad_prefix` and `wrapped` say which segment it must be
/// (`logseal_crypto::aad::segment_file`); a file that is another one is refused.
///
/// # Errors
///
/// [`SegmentError::NotASegment`] when `file` is none, or has no footer of ours: before that was written, or made by another
/// program. [`SegmentError::Open`] when key, prefix or key metadata are not those of `file`, or it was altered.
pub fn read(
    file: &impl ChunkReader,
    dek: &Dek,
    wrapped: &WrappedDek,
    aad_prefix: &Aad,
) -> Result<SegmentFooter, SegmentError> {
    // Parquet's reader believes the lengths in the file and may panic on what is not authenticated.
    check_ends(file)?;
    let properties = properties::decryption_properties(dek, wrapped, aad_prefix)?;
    let reader = ParquetMetaDataReader::new().with_decryption_properties(Some(properties));
    let metadata = catch_unwind(AssertUnwindSafe(|| reader.parse_and_finish(file)))
        .map_err(|_| SegmentError::NotASegment("its footer makes the reader of Parquet panic"))?
        .map_err(SegmentError::Open)?;
    let entries = metadata.file_metadata().key_value_metadata();
    let json = entries.into_iter().flatten().find(|entry| entry.key == KEY).and_then(|entry| entry.value.as_deref());
    let footer = SegmentFooter::parse(json.ok_or(SegmentError::NotASegment("it says nothing about itself"))?)?;
    if (footer.aek, footer.workspace, footer.segment) != (wrapped.aek, wrapped.workspace, wrapped.segment) {
        return Err(SegmentError::NotASegment("its footer describes another segment"));
    }
    Ok(footer)
}

/// Times as nanoseconds since 1970.
mod nanos {
    use logseal_core::UnixNanos;
    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};

    pub(super) fn serialize<S: Serializer>(time: &UnixNanos, serializer: S) -> Result<S::Ok, S::Error> {
        time.0.serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<UnixNanos, D::Error> {
        i64::deserialize(deserializer).map(UnixNanos)
    }
}

/// Table names as text.
mod table_name {
    use logseal_core::TableName;
    use serde::de::Error as _;
    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};

    pub(super) fn serialize<S: Serializer>(name: &TableName, serializer: S) -> Result<S::Ok, S::Error> {
        name.as_str().serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<TableName, D::Error> {
        TableName::parse(&String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests;
