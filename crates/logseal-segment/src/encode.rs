//! Rows to the bytes of a sealed segment.
//!
//! Each row group's leaf columns are encoded, compressed and encrypted in parallel on the rayon pool that the caller runs
//! in. Nothing is written to a disk: the file is built in memory, and only ciphertext leaves this function.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, SchemaRef};
use bytes::Bytes;
use logseal_core::{ClusterId, SegmentId, TableId, UnixNanos, WorkspaceId};
use logseal_crypto::{Aek, Commitment, OsRandom, WrappedDek, aad};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::{ArrowColumnChunk, ArrowColumnWriter, ArrowLeafColumn, compute_leaves};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::unify::{conform, union_schema};
use crate::{SegmentError, SegmentFooter, SegmentPath, properties};

/// How segments are written.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct SegmentSettings {
    /// Arrow bytes of a row group. 12 MiB keeps a worker's columns in its caches' reach and a reader's memory small.
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
    pub file: Bytes,
    /// Its records.
    pub rows: u64,
    /// Its wrapped DEK.
    pub wrapped: WrappedDek,
    /// What the DEK commits to.
    pub commitment: Commitment,
}

/// Encodes `chunks` in their order as one segment, sealed under a new DEK wrapped by `aek`. `footer` goes into the encrypted
/// footer.
///
/// # Errors
///
/// [`SegmentError::Schema`] when the chunks are not of one table, [`SegmentError::Footer`] when `footer` describes another
/// segment, [`SegmentError::Encode`].
pub fn seal(
    identity: &SegmentIdentity,
    aek: &Aek,
    chunks: &[RecordBatch],
    footer: &SegmentFooter,
    settings: &SegmentSettings,
    random: OsRandom,
) -> Result<SealedSegment, SegmentError> {
    let rows = chunks.iter().map(|chunk| chunk.num_rows() as u64).sum();
    footer.check(identity, aek, rows)?;
    let schema = union_schema(chunks).map_err(SegmentError::Schema)?;
    let leaves: usize = schema.fields().iter().map(|field| leaves(field)).sum();
    let groups = row_groups(chunks, leaves, settings.row_group_bytes);
    let (dek, wrapped) = aek.new_dek(identity.segment, random);
    let aad_prefix = aad::segment_file(identity.workspace, identity.table, identity.segment);
    let options = properties::writer_options(&dek, &wrapped, &aad_prefix, footer, settings.zstd_level)?;
    // Room for the whole file, so that growing does not hold it twice; what is not written takes no memory.
    let file = Vec::with_capacity(chunks.iter().map(RecordBatch::get_array_memory_size).sum::<usize>() / 2);
    let writer = ArrowWriter::try_new_with_options(file, Arc::clone(&schema), options).map_err(SegmentError::Encode)?;
    let (mut file, factory) = writer.into_serialized_writer().map_err(SegmentError::Encode)?;
    for (index, group) in groups.iter().enumerate() {
        // One group at a time: the columns that a chunk lacks take memory only while its group is encoded.
        let group: Vec<_> = group
            .iter()
            .map(|batch| conform(batch, &schema))
            .collect::<Result<_, _>>()
            .map_err(SegmentError::Schema)?;
        let writers = factory.create_column_writers(index).map_err(SegmentError::Encode)?;
        let columns = encode_columns(writers, &group, &schema).map_err(SegmentError::Encode)?;
        let mut row_group = file.next_row_group().map_err(SegmentError::Encode)?;
        for column in columns {
            column.append_to_row_group(&mut row_group).map_err(SegmentError::Encode)?;
        }
        row_group.close().map_err(SegmentError::Encode)?;
    }
    let file = file.into_inner().map_err(SegmentError::Encode)?;
    Ok(SealedSegment {
        path: SegmentPath::new(
            identity.cluster,
            identity.workspace,
            identity.table,
            identity.segment,
            identity.received,
        ),
        file: file.into(),
        rows,
        wrapped,
        commitment: dek.commitment(),
    })
}

/// Memory that one leaf column of one chunk takes while its row group is encoded, beside its values: arrays and level buffers.
const LEAF_BYTES: usize = 700;

fn leaves(field: &Field) -> usize {
    match field.data_type() {
        DataType::Struct(children) => children.len(),
        _ => 1,
    }
}

/// Groups chunks into row groups of about `bytes`; a chunk larger than that is sliced. Each chunk counts with what its `leaves`
/// columns take while they are encoded, so that many small chunks of a wide table do not add up unseen.
fn row_groups(chunks: &[RecordBatch], leaves: usize, bytes: usize) -> Vec<Vec<RecordBatch>> {
    let mut groups: Vec<Vec<RecordBatch>> = Vec::new();
    let mut room = 0;
    for chunk in chunks.iter().filter(|chunk| chunk.num_rows() > 0) {
        let values = chunk.get_array_memory_size();
        let slices = values.div_ceil(bytes.max(1)).clamp(1, chunk.num_rows());
        let size = values + slices * leaves * LEAF_BYTES;
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

fn encode_columns(
    writers: Vec<ArrowColumnWriter>,
    group: &[RecordBatch],
    schema: &SchemaRef,
) -> parquet::errors::Result<Vec<ArrowColumnChunk>> {
    // One list of leaves per writer: a struct column has one writer for each of its children.
    let mut leaves: Vec<Vec<ArrowLeafColumn>> = writers.iter().map(|_| Vec::with_capacity(group.len())).collect();
    for batch in group {
        let mut next = leaves.iter_mut();
        for (field, array) in schema.fields().iter().zip(batch.columns()) {
            for (leaf, list) in compute_leaves(field, array)?.into_iter().zip(&mut next) {
                list.push(leaf);
            }
        }
    }
    writers
        .into_par_iter()
        .zip(leaves)
        .map(|(mut writer, leaves)| {
            for leaf in &leaves {
                writer.write(leaf)?;
            }
            writer.close()
        })
        .collect()
}

#[cfg(test)]
pub(crate) mod tests;
