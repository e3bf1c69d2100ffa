//! Rows to the bytes of a sealed segment.
//!
//! A segment grows row group by row group, so that its rows need not be in memory together. Each row group's leaf columns are
//! encoded, compressed and encrypted in parallel on the rayon pool that the caller runs in. Nothing is written to a disk: the file
//! is built in memory, and only ciphertext leaves this module.

use std::fmt::{self, Debug};
use std::io::{self, Write};
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::compute::concat;
use arrow::datatypes::{FieldRef, SchemaRef};
use arrow::error::ArrowError;
use bytes::Bytes;
use logseal_core::{AekId, ClusterId, SegmentId, TableId, UnixNanos, WorkspaceId};
use logseal_crypto::{Aek, Commitment, Dek, OsRandom, WrappedDek, aad};
use object_store::PutPayload;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::{
    ArrowColumnChunk, ArrowColumnWriter, ArrowRowGroupWriterFactory, ArrowWriterOptions, compute_leaves,
};
use parquet::file::writer::SerializedFileWriter;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::encoding;
use crate::unify::{Place, distinct, includes, leaf_values, leaves, places, union_schema, value_bytes};
use crate::{SegmentError, SegmentFooter, SegmentPath, properties};

/// How segments are written.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct SegmentSettings {
    /// Bytes of the values of a row group. 12 MiB keeps a worker's columns in its caches' reach and a reader's memory small.
    pub row_group_bytes: usize,
    /// zstd level, 1 to 22. Level 1 costs a third of level 3 for about a tenth more bytes on log text.
    pub zstd_level: i32,
}

impl Default for SegmentSettings {
    fn default() -> Self {
        Self { row_group_bytes: 12 * 1024 * 1024, zstd_level: 1 }
    }
}

/// Which segment it is.
#[derive(Clone, Copy, Debug)]
pub struct SegmentIdentity {
    /// The cluster that owns the AEK.
    pub cluster: ClusterId,
    /// The workspace.
    pub workspace: WorkspaceId,
    /// The table.
    pub table: TableId,
    /// The segment's own id.
    pub segment: SegmentId,
    /// When its first record was received; the date in the path.
    pub received: UnixNanos,
}

/// A segment ready to be stored.
#[derive(Debug)]
pub struct SealedSegment {
    /// Where it goes.
    pub path: SegmentPath,
    /// The file.
    pub file: PutPayload,
    /// Its records.
    pub rows: u64,
    /// Its wrapped DEK.
    pub wrapped: WrappedDek,
    /// What the DEK commits to.
    pub commitment: Commitment,
}

/// A segment that grows row group by row group: sealed pages and their statistics are all that it holds of its rows.
pub struct SegmentWriter {
    identity: SegmentIdentity,
    aek: (AekId, u32),
    dek: Dek,
    wrapped: WrappedDek,
    schema: SchemaRef,
    leaves: Vec<FieldRef>,
    row_group_bytes: usize,
    file: SerializedFileWriter<Pieces>,
    factory: ArrowRowGroupWriterFactory,
    row_groups: usize,
    rows: u64,
}

/// Rows that are encoded and sealed as the next row groups of one segment.
pub struct SealedRows {
    groups: Vec<Vec<ArrowColumnChunk>>,
    rows: u64,
}

impl SegmentWriter {
    /// Begins a segment with the columns of `schema` under a new DEK wrapped by `aek`. By the rows of `sample`, which are like those to come,
    /// it is chosen how the columns are encoded.
    ///
    /// # Errors
    ///
    /// [`SegmentError::Encode`] when Parquet does not take the schema, [`SegmentError::LeaseOver`], [`SegmentError::Wraps`].
    pub fn begin(
        identity: SegmentIdentity,
        aek: &Aek,
        schema: SchemaRef,
        sample: &[RecordBatch],
        settings: &SegmentSettings,
        random: OsRandom,
    ) -> Result<Self, SegmentError> {
        let (dek, wrapped) = aek.new_dek(identity.segment, random)?;
        let aad_prefix = aad::segment_file(identity.workspace, identity.table, identity.segment);
        let encodings = encoding::choose(&schema, sample);
        let options = properties::writer_options(&dek, &wrapped, &aad_prefix, settings.zstd_level, encodings)?;
        Self::open(identity, aek, (dek, wrapped), schema, settings, options)
    }

    fn open(
        identity: SegmentIdentity,
        aek: &Aek,
        (dek, wrapped): (Dek, WrappedDek),
        schema: SchemaRef,
        settings: &SegmentSettings,
        options: ArrowWriterOptions,
    ) -> Result<Self, SegmentError> {
        let writer = ArrowWriter::try_new_with_options(Pieces::default(), Arc::clone(&schema), options);
        let (file, factory) = writer.and_then(ArrowWriter::into_serialized_writer).map_err(SegmentError::Encode)?;
        Ok(Self {
            identity,
            aek: (aek.id(), aek.generation()),
            dek,
            wrapped,
            leaves: leaves(&schema),
            schema,
            row_group_bytes: settings.row_group_bytes,
            file,
            factory,
            row_groups: 0,
            rows: 0,
        })
    }

    /// Which segment it is.
    #[must_use]
    pub fn identity(&self) -> &SegmentIdentity {
        &self.identity
    }

    /// The AEK that wraps its DEK.
    #[must_use]
    pub fn aek(&self) -> AekId {
        self.aek.0
    }

    /// Its columns.
    #[must_use]
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Its rows so far.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// The bytes of its file so far.
    #[must_use]
    pub fn file_bytes(&self) -> usize {
        self.file.bytes_written()
    }

    /// Estimate of the memory that it takes: the file so far, and what each column of each row group says about itself.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.file_bytes() + (self.row_groups + 1) * self.leaves.len() * LEAF_METADATA_BYTES
    }

    /// Whether the format takes more row groups: their number and that of their columns stay far below what Parquet Modular
    /// Encryption can number (`Encryption.md`, section 4.4.1).
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.row_groups >= MOST_ROW_GROUPS
    }

    /// Whether the segment has the columns of all `chunks`. A segment's columns cannot become more; other rows need another one.
    #[must_use]
    pub fn takes(&self, chunks: &[RecordBatch]) -> bool {
        distinct(chunks.iter().map(RecordBatch::schema_ref)).all(|schema| includes(&self.schema, schema))
    }

    /// Encodes and seals `chunks` in their order as one row group, or as several if they are large. The segment itself stays as it is,
    /// whatever happens here, a panic included.
    ///
    /// # Errors
    ///
    /// [`SegmentError::Schema`] when the segment's schema does not include theirs, [`SegmentError::Encode`], [`SegmentError::LeaseOver`].
    pub fn encode(&self, chunks: &[RecordBatch]) -> Result<SealedRows, SegmentError> {
        self.dek.lease().check()?;
        if !self.takes(chunks) {
            let what = "the segment lacks a column of the rows".to_owned();
            return Err(SegmentError::Schema(ArrowError::SchemaError(what)));
        }
        let rows: usize = chunks.iter().map(RecordBatch::num_rows).sum();
        let join = rows < chunks.len() * JOINED_ROWS;
        let groups = row_groups(chunks, self.row_group_bytes);
        let encode = |(index, group): (usize, &Vec<RecordBatch>)| {
            let writers = self.factory.create_column_writers(self.row_groups + index).map_err(SegmentError::Encode)?;
            self.encode_columns(writers, group, join).map_err(SegmentError::Encode)
        };
        let groups = groups.iter().enumerate().map(encode).collect::<Result<_, _>>()?;
        Ok(SealedRows { groups, rows: rows as u64 })
    }

    /// Each column of a row group by itself: what a chunk lacks of one, and its levels and positions, are made, written and given back while
    /// they are in the cache.
    fn encode_columns(
        &self,
        writers: Vec<ArrowColumnWriter>,
        group: &[RecordBatch],
        join: bool,
    ) -> parquet::errors::Result<Vec<ArrowColumnChunk>> {
        let places: Vec<Vec<Place>> = group.iter().map(|batch| places(batch, &self.schema)).collect();
        let encode = |(number, (mut writer, leaf)): (usize, (ArrowColumnWriter, &FieldRef))| {
            let mut write = |values: &ArrayRef| -> parquet::errors::Result<()> {
                compute_leaves(leaf, values)?.iter().try_for_each(|levels| writer.write(levels))
            };
            let mut parts = group.iter().zip(&places).map(|(batch, places)| leaf_values(batch, leaf, places[number]));
            if join {
                let parts = parts.collect::<Result<Vec<ArrayRef>, _>>()?;
                write(&concat(&parts.iter().map(|part| &**part).collect::<Vec<_>>())?)?;
            } else {
                parts.try_for_each(|values| write(&values?))?;
            }
            writer.close()
        };
        writers.into_par_iter().zip(&self.leaves).enumerate().map(encode).collect()
    }

    /// Adds what [`SegmentWriter::encode`] made; nothing else may have been added since.
    ///
    /// # Errors
    ///
    /// [`SegmentError::Encode`]; the segment cannot be finished any more.
    pub fn append(&mut self, sealed: SealedRows) -> Result<(), SegmentError> {
        for columns in sealed.groups {
            let mut row_group = self.file.next_row_group().map_err(SegmentError::Encode)?;
            for column in columns {
                column.append_to_row_group(&mut row_group).map_err(SegmentError::Encode)?;
            }
            row_group.close().map_err(SegmentError::Encode)?;
            self.row_groups += 1;
        }
        self.rows += sealed.rows;
        Ok(())
    }

    /// Writes the encrypted footer, with `footer` in it.
    ///
    /// # Errors
    ///
    /// [`SegmentError::Footer`] when `footer` describes another segment, [`SegmentError::Encode`], [`SegmentError::LeaseOver`].
    pub fn finish(mut self, footer: &SegmentFooter) -> Result<SealedSegment, SegmentError> {
        self.dek.lease().check()?;
        let Self { identity, aek, rows, .. } = self;
        footer.check(&identity, aek, rows)?;
        self.file.append_key_value_metadata(footer.to_key_value());
        let Pieces(pieces) = self.file.into_inner().map_err(SegmentError::Encode)?;
        let SegmentIdentity { cluster, workspace, table, segment, received } = identity;
        Ok(SealedSegment {
            path: SegmentPath::new(cluster, workspace, table, segment, received),
            file: pieces.into_iter().map(Bytes::from).collect(),
            rows,
            wrapped: self.wrapped,
            commitment: self.dek.commitment(),
        })
    }
}

impl Debug for SegmentWriter {
    /// Parquet's own types would print the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SegmentWriter")
            .field("identity", &self.identity)
            .field("row_groups", &self.row_groups)
            .field("rows", &self.rows)
            .finish_non_exhaustive()
    }
}

impl Debug for SealedRows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SealedRows").field("rows", &self.rows).finish_non_exhaustive()
    }
}

/// Encodes `chunks` in their order as one whole segment, sealed under a new DEK wrapped by `aek`. `footer` goes into the encrypted
/// footer.
///
/// # Errors
///
/// [`SegmentError::Schema`] when the chunks are not of one table, [`SegmentError::Footer`] when `footer` describes another
/// segment, [`SegmentError::Encode`], [`SegmentError::LeaseOver`].
pub fn seal(
    identity: &SegmentIdentity,
    aek: &Aek,
    chunks: &[RecordBatch],
    footer: &SegmentFooter,
    settings: &SegmentSettings,
    random: OsRandom,
) -> Result<SealedSegment, SegmentError> {
    let schema = union_schema(chunks.iter().map(RecordBatch::schema_ref)).map_err(SegmentError::Schema)?;
    let mut writer = SegmentWriter::begin(*identity, aek, schema, chunks, settings, random)?;
    let rows = writer.encode(chunks)?;
    writer.append(rows)?;
    writer.finish(footer)
}

/// Does with `chunks` all that [`seal`] does but sealing, and tells how many bytes that makes: what sealing costs is measured against this.
/// Nothing of it can reach a file, since only the number leaves this function.
///
/// # Errors
///
/// As [`seal`].
pub fn count_unsealed_bytes(
    identity: &SegmentIdentity,
    aek: &Aek,
    chunks: &[RecordBatch],
    footer: &SegmentFooter,
    settings: &SegmentSettings,
    random: OsRandom,
) -> Result<usize, SegmentError> {
    let schema = union_schema(chunks.iter().map(RecordBatch::schema_ref)).map_err(SegmentError::Schema)?;
    let encodings = encoding::choose(&schema, chunks);
    let options = properties::unsealed_options(settings.zstd_level, encodings)?;
    let keys = aek.new_dek(identity.segment, random)?;
    let mut writer = SegmentWriter::open(*identity, aek, keys, schema, settings, options)?;
    let rows = writer.encode(chunks)?;
    writer.append(rows)?;
    let segment = writer.finish(footer)?;
    Ok(segment.file.content_length())
}

/// A file in pieces: growing moves nothing, and a store takes it as it is.
#[derive(Default)]
struct Pieces(Vec<Vec<u8>>);

impl Pieces {
    const PIECE: usize = 1 << 20;
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.0.last_mut().filter(|piece| piece.len() + bytes.len() <= Self::PIECE) {
            Some(piece) => piece.extend_from_slice(bytes),
            None => self.0.push(bytes.to_vec()),
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What Parquet keeps in memory of one column of one row group until the footer is written: offsets, sizes, statistics.
const LEAF_METADATA_BYTES: usize = 2048;

/// Row groups of a segment at the most; small ones add up where memory is short.
const MOST_ROW_GROUPS: usize = 256;

/// Chunks with fewer rows on average are joined before they are encoded: one more leaf column costs the encoder as much as some
/// hundred values.
const JOINED_ROWS: usize = 256;

/// What the rows of `chunk` count towards the size of a row group, in bytes: their values. Of a table with many attributes most cells are null, and
/// a row group of few values costs as much for each column as one of many; but nobody's memory is for nulls alone, so these count a third.
#[must_use]
pub fn row_group_share(chunk: &RecordBatch) -> usize {
    value_bytes(chunk).max(chunk.get_array_memory_size() / 3)
}

/// Groups chunks into row groups of about `bytes`; a chunk larger than that is sliced.
fn row_groups(chunks: &[RecordBatch], bytes: usize) -> Vec<Vec<RecordBatch>> {
    let mut groups: Vec<Vec<RecordBatch>> = Vec::new();
    let mut room = 0;
    for chunk in chunks.iter().filter(|chunk| chunk.num_rows() > 0) {
        let size = row_group_share(chunk);
        let slices = size.div_ceil(bytes.max(1)).clamp(1, chunk.num_rows());
        let rows = chunk.num_rows().div_ceil(slices);
        for start in (0..chunk.num_rows()).step_by(rows) {
            let slice = chunk.slice(start, rows.min(chunk.num_rows() - start));
            match groups.last_mut() {
                Some(group) if room >= size / slices => group.push(slice),
                _ => {
                    groups.push(vec![slice]);
                    room = bytes;
                }
            }
            room = room.saturating_sub(size / slices);
        }
    }
    groups
}

#[cfg(test)]
pub(crate) mod tests;
