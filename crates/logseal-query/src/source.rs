//! Names the segment in every read error, and contains the Parquet reader's panics.
//!
//! [`SegmentSource`] is DataFusion's `ParquetSource` with one difference: it drives the scan of each file itself, so that
//! it knows which segment an error or a panic belongs to. Everything else is forwarded; a method that is not forwarded
//! here has the trait's default, which `ParquetSource` keeps too.

use std::any::Any;
use std::collections::VecDeque;
use std::fmt::{self, Formatter};
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{FileOpenFuture, FileOpener, FileScanConfig, FileSource};
use datafusion::datasource::table_schema::TableSchema;
use datafusion::error::{DataFusionError, Result};
use datafusion::physical_expr::projection::ProjectionExprs;
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr, PhysicalSortExpr};
use datafusion::physical_plan::filter_pushdown::FilterPushdownPropagation;
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use datafusion::physical_plan::{DisplayFormatType, SortOrderPushdownResult};
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt, stream};
use object_store::ObjectStore;
use parquet::errors::ParquetError;

use crate::classify::{PREDICATE_ERROR, own_error};
use crate::error::{QueryError, SegmentFault};
use crate::port::SegmentRef;
use crate::reader::segment_of;

/// A `ParquetSource` whose errors name the segment.
#[derive(Clone)]
pub(crate) struct SegmentSource {
    parquet: Arc<dyn FileSource>,
}

impl SegmentSource {
    pub(crate) fn wrap(parquet: Arc<dyn FileSource>) -> Arc<dyn FileSource> {
        Arc::new(Self { parquet })
    }
}

impl FileSource for SegmentSource {
    fn create_file_opener(
        &self,
        store: Arc<dyn ObjectStore>,
        config: &FileScanConfig,
        partition: usize,
    ) -> Result<Arc<dyn FileOpener>> {
        let morsels = Arc::new(self.parquet.create_morselizer(store, config, partition)?);
        let open = move |file: PartitionedFile| {
            let morsels = Arc::clone(&morsels);
            async move {
                let mut planners = VecDeque::from([morsels.plan_file(file)?]);
                let mut streams = Vec::new();
                while let Some(planner) = planners.pop_front() {
                    let Some(mut plan) = planner.plan()? else { continue };
                    streams.extend(plan.take_morsels().into_iter().map(|morsel| morsel.into_stream()));
                    let mut next = plan.take_ready_planners();
                    if let Some(pending) = plan.take_pending_planner() {
                        next.push(pending.await?);
                    }
                    next.into_iter().rev().for_each(|planner| planners.push_front(planner));
                }
                Ok(stream::iter(streams).flatten().boxed())
            }
        };
        Ok(Arc::new(SegmentFileOpener { open }))
    }

    // `create_morselizer` keeps its default, which adapts the opener above.

    fn table_schema(&self) -> &TableSchema {
        self.parquet.table_schema()
    }

    fn with_batch_size(&self, batch_size: usize) -> Arc<dyn FileSource> {
        Self::wrap(self.parquet.with_batch_size(batch_size))
    }

    fn filter(&self) -> Option<Arc<dyn PhysicalExpr>> {
        self.parquet.filter()
    }

    fn projection(&self) -> Option<&ProjectionExprs> {
        self.parquet.projection()
    }

    fn metrics(&self) -> &ExecutionPlanMetricsSet {
        self.parquet.metrics()
    }

    fn file_type(&self) -> &str {
        self.parquet.file_type()
    }

    fn fmt_extra(&self, t: DisplayFormatType, f: &mut Formatter<'_>) -> fmt::Result {
        self.parquet.fmt_extra(t, f)
    }

    fn supports_repartitioning(&self) -> bool {
        self.parquet.supports_repartitioning()
    }

    fn try_pushdown_filters(
        &self,
        filters: Vec<Arc<dyn PhysicalExpr>>,
        config: &ConfigOptions,
    ) -> Result<FilterPushdownPropagation<Arc<dyn FileSource>>> {
        let pushed = self.parquet.try_pushdown_filters(filters, config)?;
        Ok(FilterPushdownPropagation { filters: pushed.filters, updated_node: pushed.updated_node.map(Self::wrap) })
    }

    fn try_pushdown_sort(
        &self,
        order: &[PhysicalSortExpr],
        properties: &EquivalenceProperties,
    ) -> Result<SortOrderPushdownResult<Arc<dyn FileSource>>> {
        Ok(self.parquet.try_pushdown_sort(order, properties)?.map(Self::wrap))
    }

    fn reorder_files(&self, files: Vec<PartitionedFile>) -> Vec<PartitionedFile> {
        self.parquet.reorder_files(files)
    }

    fn try_pushdown_projection(&self, projection: &ProjectionExprs) -> Result<Option<Arc<dyn FileSource>>> {
        Ok(self.parquet.try_pushdown_projection(projection)?.map(Self::wrap))
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        self.parquet.apply_expressions(f)
    }
}

/// Opens files by `open`, which is generic because the morsel traits are not public in the crate `datafusion`.
struct SegmentFileOpener<F> {
    open: F,
}

impl<F, Opening> FileOpener for SegmentFileOpener<F>
where
    F: Fn(PartitionedFile) -> Opening + Send + Sync + Unpin,
    Opening: Future<Output = Result<BoxStream<'static, Result<RecordBatch>>>> + Send + 'static,
{
    fn open(&self, file: PartitionedFile) -> Result<FileOpenFuture> {
        let segment = segment_of(&file)?;
        let opening = AssertUnwindSafe((self.open)(file)).catch_unwind();
        Ok(async move {
            let batches = opening.await.unwrap_or_else(|panic| Err(panicked(&segment, panic)));
            let batches = batches.map_err(|e| blame(&segment, e))?;
            let contained = AssertUnwindSafe(batches).catch_unwind();
            Ok(contained
                .map(move |batch| match batch {
                    Ok(batch) => batch.map_err(|e| blame(&segment, e)),
                    Err(panic) => Err(panicked(&segment, panic)),
                })
                .boxed())
        }
        .boxed())
    }
}

fn damaged(segment: &SegmentRef) -> DataFusionError {
    DataFusionError::External(Box::new(QueryError::Segment {
        segment: segment.id,
        path: segment.path.clone(),
        fault: SegmentFault::Damaged,
    }))
}

/// The panic's own text stays inside: it may quote what the file holds.
fn panicked(segment: &SegmentRef, _panic: Box<dyn Any + Send>) -> DataFusionError {
    damaged(segment)
}

/// An error of the file's reader means that the segment is damaged; one of the query's expressions, evaluated during the
/// scan, stays what it is.
fn blame(segment: &SegmentRef, error: DataFusionError) -> DataFusionError {
    if let Some(own) = own_error(&error) {
        return DataFusionError::External(Box::new(own));
    }
    let of_the_file = match error.find_root() {
        DataFusionError::ParquetError(parquet) => match parquet.as_ref() {
            ParquetError::External(inner) => match inner.downcast_ref::<ArrowError>() {
                Some(ArrowError::ComputeError(text)) => !text.starts_with(PREDICATE_ERROR),
                _ => true,
            },
            other => !other.to_string().contains(PREDICATE_ERROR),
        },
        // The decoder's errors lose their type on their way through the Arrow reader; the projection's do not.
        DataFusionError::ArrowError(arrow, _) => match arrow.as_ref() {
            ArrowError::ParquetError(text) => !text.contains(PREDICATE_ERROR),
            _ => false,
        },
        _ => false,
    };
    if of_the_file { damaged(segment) } else { error }
}
