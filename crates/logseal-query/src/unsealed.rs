//! The scan of rows that are in no segment yet: those in memory and those that only the write-ahead log has.
//!
//! Batches in memory may be very many and have ten rows each. They are spread over few partitions and joined while the
//! scan runs, so that neither the plan nor the operators above see how small they are. Each parked source is a partition,
//! read as the query asks for it.

use std::collections::VecDeque;
use std::fmt::{self, Debug, Formatter};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use datafusion::common::Statistics;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::datasource::source::DataSource;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::projection::ProjectionExprs;
use datafusion::physical_expr::{EquivalenceProperties, Partitioning, PhysicalExpr};
use datafusion::physical_plan::DisplayFormatType;
use datafusion::physical_plan::execution_plan::SchedulingType;
use datafusion::physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::prelude::SessionConfig;
use futures::future::poll_immediate;
use futures::stream::BoxStream;
use futures::{StreamExt, stream};
use tokio::task::consume_budget;

use crate::conform::{Conformer, Piece};
use crate::error::QueryError;
use crate::port::ParkedRows;
use crate::time_range::{TimeRange, statistics};

/// Most bytes that are joined into one batch. Rows usually fill a batch first; this bounds what a partition copies when
/// they have bodies of a megabyte, and keeps columns far below the 2 GiB that their 32-bit offsets reach.
const JOINED_BYTES: usize = 8 * 1024 * 1024;

/// Where the rows of one partition are.
#[derive(Clone)]
enum Partition {
    /// Some of the table's batches, by their positions; all batches are shared, so that a scan clones none.
    Memory {
        batches: Arc<[RecordBatch]>,
        picked: Arc<[(usize, TimeRange)]>,
    },
    Parked(Arc<dyn ParkedRows>),
}

/// The unsealed rows of one table in one scan.
#[derive(Clone)]
pub(crate) struct UnsealedSource {
    schema: SchemaRef,
    partitions: Arc<[Partition]>,
    limit: Option<usize>,
    metrics: ExecutionPlanMetricsSet,
}

impl UnsealedSource {
    /// A scan of the columns of `schema`, which are some of the table's, over the batches at the positions `picked`, none
    /// of them empty, and over `parked`; at most `limit` rows of each partition.
    pub(crate) fn new(
        schema: SchemaRef,
        batches: &Arc<[RecordBatch]>,
        picked: Vec<(usize, TimeRange)>,
        parked: &[Arc<dyn ParkedRows>],
        config: &SessionConfig,
        limit: Option<usize>,
    ) -> Self {
        let memory = spread(picked, config.target_partitions(), config.batch_size());
        let memory = memory.into_iter().map(|picked| Partition::Memory { batches: Arc::clone(batches), picked });
        let parked = parked.iter().map(|rows| Partition::Parked(Arc::clone(rows)));
        let partitions = memory.chain(parked).collect();
        Self { schema, partitions, limit, metrics: ExecutionPlanMetricsSet::new() }
    }

    /// The time ranges of all batches, nothing if there are rows beside those in memory.
    fn ranges(partitions: &[Partition]) -> Option<Vec<TimeRange>> {
        let mut ranges = Vec::new();
        for partition in partitions {
            match partition {
                Partition::Memory { picked, .. } => ranges.extend(picked.iter().map(|(_, range)| *range)),
                Partition::Parked(_) => return None,
            }
        }
        Some(ranges)
    }
}

/// Partitions of about the same number of rows: at most `target`, and no more than `batch_rows` rows each would need.
fn spread(picked: Vec<(usize, TimeRange)>, target: usize, batch_rows: usize) -> Vec<Arc<[(usize, TimeRange)]>> {
    let rows: u64 = picked.iter().map(|(_, range)| range.rows()).sum();
    let wanted = rows.div_ceil(batch_rows.max(1) as u64).clamp(1, target.max(1) as u64);
    let share = rows.div_ceil(wanted);
    let mut partitions = Vec::new();
    let (mut current, mut filled) = (Vec::new(), 0);
    for (index, range) in picked {
        current.push((index, range));
        filled += range.rows();
        if filled >= share {
            partitions.push(std::mem::take(&mut current).into());
            filled = 0;
        }
    }
    if !current.is_empty() {
        partitions.push(current.into());
    }
    partitions
}

impl Debug for UnsealedSource {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("UnsealedSource").field("partitions", &self.partitions.len()).finish_non_exhaustive()
    }
}

impl DataSource for UnsealedSource {
    fn open(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let place = self.partitions.get(partition).cloned();
        let place = place.ok_or_else(|| DataFusionError::Internal("a partition that the scan does not have".into()))?;
        let rows = context.session_config().batch_size().max(1);
        let joiner = Joiner {
            input: pieces(place, &self.schema)?,
            conformer: Conformer::new(Arc::clone(&self.schema), rows),
            waiting: VecDeque::new(),
            ended: false,
            rows,
            left: self.limit.unwrap_or(usize::MAX),
        };
        let metrics = BaselineMetrics::new(&self.metrics, partition);
        let step = |mut joiner: Joiner| async move { Ok(joiner.next().await?.map(|batch| (batch, joiner))) };
        let batches = stream::try_unfold(joiner, step);
        let counted = batches.inspect(move |batch: &Result<RecordBatch>| {
            metrics.record_output(batch.as_ref().map_or(0, RecordBatch::num_rows));
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), counted)))
    }

    fn fmt_as(&self, t: DisplayFormatType, f: &mut Formatter<'_>) -> fmt::Result {
        let mut batches = 0;
        let mut parked = 0;
        for partition in &*self.partitions {
            match partition {
                Partition::Memory { picked, .. } => batches += picked.len(),
                Partition::Parked(_) => parked += 1,
            }
        }
        let memory = self.partitions.len() - parked;
        match t {
            DisplayFormatType::Default | DisplayFormatType::Verbose => {
                let columns: Vec<_> = self.schema.fields().iter().map(|field| field.name().as_str()).collect();
                write!(f, "unsealed, batches={batches} in {memory} partitions, parked={parked}")?;
                write!(f, ", projection=[{}]", columns.join(", "))?;
                self.limit.map_or(Ok(()), |limit| write!(f, ", limit={limit}"))
            }
            DisplayFormatType::TreeRender => {
                writeln!(f, "format=unsealed")?;
                writeln!(f, "batches={batches}")?;
                writeln!(f, "parked={parked}")
            }
        }
    }

    fn output_partitioning(&self) -> Partitioning {
        Partitioning::UnknownPartitioning(self.partitions.len())
    }

    fn eq_properties(&self) -> EquivalenceProperties {
        EquivalenceProperties::new(Arc::clone(&self.schema))
    }

    /// The streams ask tokio before each batch that they read, joined or not.
    fn scheduling_type(&self) -> SchedulingType {
        SchedulingType::Cooperative
    }

    /// Exact for rows in memory, unknown as soon as there are parked ones: nobody has counted those.
    fn partition_statistics(&self, partition: Option<usize>) -> Result<Arc<Statistics>> {
        let partitions = match partition {
            Some(index) => self.partitions.get(index..=index),
            None => Some(&*self.partitions),
        };
        let Some(ranges) = partitions.and_then(Self::ranges) else {
            return Ok(Arc::new(Statistics::new_unknown(&self.schema)));
        };
        let known = statistics(&self.schema, &ranges);
        // With a limit each partition stops by itself, perhaps before its last row.
        Ok(Arc::new(if self.limit.is_some() { known.to_inexact() } else { known }))
    }

    fn with_fetch(&self, limit: Option<usize>) -> Option<Arc<dyn DataSource>> {
        Some(Arc::new(Self { limit, ..self.clone() }))
    }

    fn fetch(&self) -> Option<usize> {
        self.limit
    }

    fn metrics(&self) -> ExecutionPlanMetricsSet {
        self.metrics.clone()
    }

    /// Columns that no one needs were left out when the scan was planned.
    fn try_swapping_with_projection(&self, _: &ProjectionExprs) -> Result<Option<Arc<dyn DataSource>>> {
        Ok(None)
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }
}

/// The rows of a partition, batch by batch.
fn pieces(partition: Partition, schema: &SchemaRef) -> Result<BoxStream<'static, Result<Piece>>> {
    let schema = Arc::clone(schema);
    match partition {
        Partition::Memory { batches, picked } => {
            let piece = move |at: usize| picked.get(at).map(|(index, _)| Ok(Piece::select(&batches[*index], &schema)));
            Ok(stream::iter((0..).map_while(piece)).boxed())
        }
        Partition::Parked(rows) => {
            let batches = catch_unwind(AssertUnwindSafe(|| rows.read())).map_err(|_| panicked())?;
            let contained = AssertUnwindSafe(batches).catch_unwind();
            let piece = move |batch| match batch {
                Ok(Ok(batch)) => Ok(Piece::select(&batch, &schema)),
                Ok(Err(error)) => Err(DataFusionError::External(Box::new(QueryError::from_parked(error)))),
                Err(_) => Err(panicked()),
            };
            Ok(contained.map(piece).boxed())
        }
    }
}

/// The panic's own text stays inside: it may quote a record.
fn panicked() -> DataFusionError {
    let message = "reading rows from the write-ahead log panicked".into();
    DataFusionError::External(Box::new(QueryError::Internal { message }))
}

/// Makes batches of the usual size out of batches of any size.
struct Joiner {
    input: BoxStream<'static, Result<Piece>>,
    conformer: Conformer,
    /// Read, and not returned yet; none of them has more than `rows` rows.
    waiting: VecDeque<Piece>,
    ended: bool,
    /// Most rows of a batch.
    rows: usize,
    /// Rows that may still be returned.
    left: usize,
}

impl Joiner {
    async fn next(&mut self) -> Result<Option<RecordBatch>> {
        let room = self.rows.min(self.left);
        if room == 0 {
            return Ok(None);
        }
        let mut joined: Vec<Piece> = Vec::new();
        let (mut rows, mut bytes) = (0, 0);
        loop {
            while let Some(piece) = self.waiting.pop_front_if(|piece| {
                joined.is_empty() || (rows + piece.rows() <= self.rows && bytes + piece.bytes() <= JOINED_BYTES)
            }) {
                rows += piece.rows();
                bytes += piece.bytes();
                joined.push(piece);
            }
            if rows >= room || !self.waiting.is_empty() || self.ended {
                break;
            }
            consume_budget().await;
            let next = match rows {
                0 => Some(self.input.next().await),
                // What is there is not held back while a slow source makes up its mind.
                _ => poll_immediate(self.input.next()).await,
            };
            match next {
                Some(Some(piece)) => self.waiting.extend(piece?.cut(self.rows)),
                Some(None) => self.ended = true,
                None => break,
            }
        }
        if joined.is_empty() {
            return Ok(None);
        }
        let batch = self.conformer.join(&joined).map_err(|e| {
            DataFusionError::Internal(format!("rows that are in no segment yet do not fit their table: {e}"))
        })?;
        let batch = batch.slice(0, rows.min(room));
        self.left -= batch.num_rows();
        Ok(Some(batch))
    }
}
