//! Opens one encrypted segment, checking sizes before anything is allocated for it.
//!
//! DataFusion's own way to decrypt (`EncryptionFactory`) tells files apart by path only, reads a plaintext file where an
//! encrypted one is expected, and turns our errors into text. So the scan gets this reader instead: it asks the port for
//! the key of exactly this segment and accepts nothing but an encrypted footer.

use std::collections::HashMap;
use std::fmt::{self, Debug};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use bytes::Bytes;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{ParquetFileMetrics, ParquetFileReaderFactory};
use datafusion::error::DataFusionError;
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use futures::FutureExt;
use futures::future::BoxFuture;
use logseal_core::SegmentId;
use object_store::{GetOptions, GetRange, ObjectStore, ObjectStoreExt};
use parquet::DecodeResult;
use parquet::arrow::arrow_reader::ArrowReaderOptions;
use parquet::arrow::async_reader::AsyncFileReader;
use parquet::errors::ParquetError;
use parquet::file::metadata::{PageIndexPolicy, ParquetMetaData, ParquetMetaDataPushDecoder};
use tokio::sync::OnceCell;

use crate::error::{QueryError, SegmentFault};
use crate::port::{PortErrorKind, SegmentOpener, SegmentRef};

/// Bytes read from a segment's end at once. Covers the footer of a segment with some hundred columns; a longer one costs
/// a second read.
const TAIL_BYTES: u64 = 64 * 1024;

/// Footer length and magic at the end of a Parquet file.
const TRAILER_BYTES: u64 = 8;

/// Magic of a file with an encrypted footer (`Encryption.md`, section 5.4). A file with a plaintext footer ends in `PAR1`;
/// Parquet readers take such a file although they were given keys, and then believe all that it says.
const ENCRYPTED_MAGIC: &[u8; 4] = b"PARE";

/// Makes the readers of one query, which share what they know about a segment while any of them is open.
pub(crate) struct SegmentReaderFactory {
    store: Arc<dyn ObjectStore>,
    opener: Arc<dyn SegmentOpener>,
    /// Weak: a scan over thousands of segments must not hold all their footers.
    open: Mutex<HashMap<SegmentId, Weak<OnceCell<Arc<ParquetMetaData>>>>>,
}

impl SegmentReaderFactory {
    pub(crate) fn new(store: Arc<dyn ObjectStore>, opener: Arc<dyn SegmentOpener>) -> Self {
        Self { store, opener, open: Mutex::new(HashMap::new()) }
    }

    fn shared(&self, segment: SegmentId) -> Arc<OnceCell<Arc<ParquetMetaData>>> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(metadata) = open.get(&segment).and_then(Weak::upgrade) {
            return metadata;
        }
        let metadata = Arc::new(OnceCell::new());
        open.insert(segment, Arc::downgrade(&metadata));
        metadata
    }
}

impl Debug for SegmentReaderFactory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SegmentReaderFactory").finish_non_exhaustive()
    }
}

impl ParquetFileReaderFactory for SegmentReaderFactory {
    fn create_reader(
        &self,
        partition: usize,
        file: PartitionedFile,
        _metadata_size_hint: Option<usize>,
        metrics: &ExecutionPlanMetricsSet,
    ) -> datafusion::error::Result<Box<dyn AsyncFileReader + Send>> {
        let segment = segment_of(&file)?;
        Ok(Box::new(SegmentReader {
            metrics: ParquetFileMetrics::new(partition, segment.path.as_ref(), metrics),
            metadata: self.shared(segment.id),
            store: Arc::clone(&self.store),
            opener: Arc::clone(&self.opener),
            segment,
        }))
    }
}

/// The segment that the table attached to `file`.
pub(crate) fn segment_of(file: &PartitionedFile) -> datafusion::error::Result<SegmentRef> {
    file.extension::<SegmentRef>()
        .cloned()
        .ok_or_else(|| DataFusionError::Internal("a scanned file is not a segment of the table".into()))
}

struct SegmentReader {
    segment: SegmentRef,
    store: Arc<dyn ObjectStore>,
    opener: Arc<dyn SegmentOpener>,
    metadata: Arc<OnceCell<Arc<ParquetMetaData>>>,
    metrics: ParquetFileMetrics,
}

impl AsyncFileReader for SegmentReader {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, parquet::errors::Result<Bytes>> {
        async move {
            let mut parts = self.read(vec![range]).await.map_err(external)?;
            parts.pop().ok_or_else(|| external(self.fault(SegmentFault::Damaged)))
        }
        .boxed()
    }

    fn get_byte_ranges(&mut self, ranges: Vec<Range<u64>>) -> BoxFuture<'_, parquet::errors::Result<Vec<Bytes>>> {
        async move { self.read(ranges).await.map_err(external) }.boxed()
    }

    fn get_metadata<'a>(
        &'a mut self,
        options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, parquet::errors::Result<Arc<ParquetMetaData>>> {
        let page_index = options.map_or(PageIndexPolicy::Skip, ArrowReaderOptions::column_index_policy);
        async move {
            let metadata = self.metadata.get_or_try_init(|| self.load(page_index)).await.map_err(external)?;
            Ok(Arc::clone(metadata))
        }
        .boxed()
    }
}

impl SegmentReader {
    async fn load(&self, page_index: PageIndexPolicy) -> Result<Arc<ParquetMetaData>, QueryError> {
        let size = self.segment.bytes;
        if size <= TRAILER_BYTES {
            return Err(self.fault(SegmentFault::Damaged));
        }
        let properties = self.opener.open(self.segment.id).await.map_err(|e| match e.kind {
            PortErrorKind::NotFound | PortErrorKind::Corrupt => self.fault(SegmentFault::Key(e.message)),
            PortErrorKind::Denied => QueryError::Denied { message: e.message },
            PortErrorKind::Unavailable => QueryError::Unavailable { message: e.message },
        })?;
        let tail = self.tail(size.min(TAIL_BYTES)).await?;
        self.check_trailer(&tail)?;

        let damaged = |_: ParquetError| self.fault(SegmentFault::Damaged);
        let mut decoder = ParquetMetaDataPushDecoder::try_new(size)
            .map_err(damaged)?
            .with_file_decryption_properties(Some(properties))
            .with_page_index_policy(page_index);
        let start = size.saturating_sub(tail.len() as u64);
        decoder.push_range(start..size, tail).map_err(damaged)?;
        let metadata = loop {
            match decoder.try_decode().map_err(damaged)? {
                DecodeResult::Data(metadata) => break metadata,
                DecodeResult::NeedsData(ranges) => {
                    let parts = self.read(ranges.clone()).await?;
                    decoder.push_ranges(ranges, parts).map_err(damaged)?;
                }
                DecodeResult::Finished => return Err(self.fault(SegmentFault::Damaged)),
            }
        };
        // The footer is authentic from here on; that it is this segment's is what the AAD prefix says.
        let rows = u64::try_from(metadata.file_metadata().num_rows()).ok();
        if rows != Some(self.segment.rows) {
            return Err(self.fault(SegmentFault::Damaged));
        }
        Ok(Arc::new(metadata))
    }

    /// The last `wanted` bytes of the object, once its size is known to be the catalog's.
    async fn tail(&self, wanted: u64) -> Result<Bytes, QueryError> {
        let options = GetOptions { range: Some(GetRange::Suffix(wanted)), ..GetOptions::default() };
        let result = self.store.get_opts(&self.segment.path, options).await.map_err(|e| self.store_error(&e))?;
        let (expected, found) = (self.segment.bytes, result.meta.size);
        if found != expected {
            return Err(self.fault(SegmentFault::Size { expected, found }));
        }
        let tail = result.bytes().await.map_err(|e| self.store_error(&e))?;
        self.metrics.bytes_scanned.add(tail.len());
        Ok(tail)
    }

    fn check_trailer(&self, tail: &[u8]) -> Result<(), QueryError> {
        let damaged = || self.fault(SegmentFault::Damaged);
        let (rest, magic) = tail.split_last_chunk::<4>().ok_or_else(damaged)?;
        let (_, length) = rest.split_last_chunk::<4>().ok_or_else(damaged)?;
        let footer = u64::from(u32::from_le_bytes(*length));
        // The parser subtracts both from the file's length without looking.
        if magic != ENCRYPTED_MAGIC || footer.saturating_add(TRAILER_BYTES) > self.segment.bytes {
            return Err(damaged());
        }
        Ok(())
    }

    async fn read(&self, ranges: Vec<Range<u64>>) -> Result<Vec<Bytes>, QueryError> {
        let mut total = 0_u64;
        for range in &ranges {
            if range.start > range.end || range.end > self.segment.bytes {
                return Err(self.fault(SegmentFault::Damaged));
            }
            total = total.saturating_add(range.end - range.start);
        }
        self.metrics.bytes_scanned.add(usize::try_from(total).unwrap_or(usize::MAX));
        let parts = match ranges.as_slice() {
            [range] => {
                vec![self.store.get_range(&self.segment.path, range.clone()).await.map_err(|e| self.store_error(&e))?]
            }
            _ => self.store.get_ranges(&self.segment.path, &ranges).await.map_err(|e| self.store_error(&e))?,
        };
        // A store that returns less than asked makes parsers panic.
        let complete =
            parts.len() == ranges.len() && parts.iter().zip(&ranges).all(|(p, r)| p.len() as u64 == r.end - r.start);
        if complete { Ok(parts) } else { Err(self.fault(SegmentFault::Damaged)) }
    }

    fn fault(&self, fault: SegmentFault) -> QueryError {
        QueryError::Segment { segment: self.segment.id, path: self.segment.path.clone(), fault }
    }

    fn store_error(&self, error: &object_store::Error) -> QueryError {
        match error {
            object_store::Error::NotFound { .. } => self.fault(SegmentFault::Missing),
            // The store's own text may name hosts and local folders.
            _ => QueryError::Unavailable {
                message: format!(
                    "the object store did not return segment {} at `{}`",
                    self.segment.id, self.segment.path
                ),
            },
        }
    }
}

fn external(error: QueryError) -> ParquetError {
    ParquetError::External(Box::new(error))
}
