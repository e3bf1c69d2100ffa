//! Time ranges of segments and of batches: what scans are pruned by before they start, and exact statistics.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, TimestampNanosecondArray, UInt64Array};
use arrow::compute::{max, min};
use arrow::datatypes::{DataType, Schema, SchemaRef, TimestampNanosecondType};
use datafusion::catalog::Session;
use datafusion::common::pruning::PruningStatistics;
use datafusion::common::stats::Precision;
use datafusion::common::{Column, ColumnStatistics, DFSchema, ScalarValue, Statistics};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::Expr;
use datafusion::logical_expr::utils::conjunction;
use datafusion::physical_optimizer::pruning::{PruningPredicate, PruningPredicateBuilder};
use logseal_otlp::schema::column::TIME;

use crate::port::SegmentRef;

/// The exact range of the column `time` in some rows, and how many rows they are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TimeRange {
    min: i64,
    max: i64,
    rows: u64,
}

impl TimeRange {
    /// The range of `batch`, nothing if it has no rows.
    ///
    /// # Errors
    ///
    /// When a row has no time, which no batch of the port's shape may.
    pub(crate) fn of(batch: &RecordBatch) -> Result<Option<Self>> {
        if batch.num_rows() == 0 {
            return Ok(None);
        }
        let times = batch.column_by_name(TIME).and_then(|times| times.as_primitive_opt::<TimestampNanosecondType>());
        let times = times.filter(|times| times.null_count() == 0);
        let range = times.and_then(|times| {
            Some(Self { min: min(times)?, max: max(times)?, rows: u64::try_from(times.len()).ok()? })
        });
        range.map(Some).ok_or_else(|| DataFusionError::Internal("a row that is in no segment yet has no time".into()))
    }

    pub(crate) fn rows(self) -> u64 {
        self.rows
    }
}

impl From<&SegmentRef> for TimeRange {
    fn from(segment: &SegmentRef) -> Self {
        Self { min: segment.min_time.0, max: segment.max_time.0, rows: segment.rows }
    }
}

/// What all rows of `ranges` together are known to have, for a scan with `schema`.
pub(crate) fn statistics(schema: &Schema, ranges: &[TimeRange]) -> Statistics {
    let mut statistics = Statistics::new_unknown(schema);
    let rows = ranges.iter().try_fold(0_usize, |sum, range| sum.checked_add(usize::try_from(range.rows).ok()?));
    statistics.num_rows = rows.map_or(Precision::Absent, Precision::Exact);
    let min = ranges.iter().map(|range| range.min).min();
    let max = ranges.iter().map(|range| range.max).max();
    if let (Ok(index), Some(min), Some(max)) = (schema.index_of(TIME), min, max)
        && let DataType::Timestamp(_, zone) = schema.field(index).data_type()
    {
        statistics.column_statistics[index] = ColumnStatistics {
            null_count: Precision::Exact(0),
            min_value: Precision::Exact(ScalarValue::TimestampNanosecond(Some(min), zone.clone())),
            max_value: Precision::Exact(ScalarValue::TimestampNanosecond(Some(max), zone.clone())),
            ..ColumnStatistics::default()
        };
    }
    statistics
}

/// What a query's filters demand of `time`.
pub(crate) struct TimeFilter {
    predicate: Option<PruningPredicate>,
}

impl TimeFilter {
    /// The demands of `filters` on a table with `schema`. A filter that cannot prune is no error: then nothing is pruned.
    pub(crate) fn new(state: &dyn Session, schema: &SchemaRef, filters: &[Expr]) -> Result<Self> {
        let Some(filter) = conjunction(filters.iter().cloned()) else { return Ok(Self { predicate: None }) };
        let expression = state.create_physical_expr(filter, &DFSchema::try_from(Arc::clone(schema))?);
        let predicate = expression.and_then(|expression| {
            PruningPredicateBuilder::new().with_file_schema(Arc::clone(schema)).try_build(expression)
        });
        Ok(Self { predicate: predicate.ok() })
    }

    /// Those of `items` that may hold rows for which all filters are true.
    pub(crate) fn kept<T>(&self, items: Vec<(T, TimeRange)>) -> Vec<(T, TimeRange)> {
        let ranges = TimeRanges(items.iter().map(|(_, range)| *range).collect());
        let keep = self.predicate.as_ref().and_then(|predicate| predicate.prune(&ranges).ok());
        match keep {
            Some(keep) => items.into_iter().zip(keep).filter_map(|(item, keep)| keep.then_some(item)).collect(),
            None => items,
        }
    }
}

struct TimeRanges(Vec<TimeRange>);

impl TimeRanges {
    fn times(&self, column: &Column, time: impl Fn(&TimeRange) -> i64) -> Option<ArrayRef> {
        let values = TimestampNanosecondArray::from_iter_values(self.0.iter().map(time));
        // The pruning predicate casts to the column's own time zone.
        (column.name() == TIME).then(|| Arc::new(values) as ArrayRef)
    }
}

impl PruningStatistics for TimeRanges {
    fn min_values(&self, column: &Column) -> Option<ArrayRef> {
        self.times(column, |range| range.min)
    }

    fn max_values(&self, column: &Column) -> Option<ArrayRef> {
        self.times(column, |range| range.max)
    }

    fn num_containers(&self) -> usize {
        self.0.len()
    }

    fn null_counts(&self, column: &Column) -> Option<ArrayRef> {
        (column.name() == TIME).then(|| Arc::new(UInt64Array::from_value(0, self.0.len())) as ArrayRef)
    }

    fn row_counts(&self) -> Option<ArrayRef> {
        Some(Arc::new(UInt64Array::from_iter_values(self.0.iter().map(|range| range.rows))))
    }

    fn contained(&self, _: &Column, _: &HashSet<ScalarValue>) -> Option<BooleanArray> {
        None
    }
}
