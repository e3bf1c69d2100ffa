//! A table of segments, as DataFusion sees it.
//!
//! Segments whose time range cannot match the query's predicates are left out when the scan is planned; DataFusion prunes
//! further by the same ranges while it runs (top-k and join filters), and by row group and page inside each file.

use std::collections::{HashMap, HashSet};
use std::fmt::{self, Debug};
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, StructArray, TimestampNanosecondArray, UInt64Array, new_null_array};
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::config::TableParquetOptions;
use datafusion::common::pruning::PruningStatistics;
use datafusion::common::stats::Precision;
use datafusion::common::{Column, ColumnStatistics, DFSchema, ScalarValue, Statistics};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::error::Result;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr_adapter::{
    DefaultPhysicalExprAdapterFactory, PhysicalExprAdapter, PhysicalExprAdapterFactory, replace_columns_with_literals,
};
use datafusion::physical_optimizer::pruning::PruningPredicateBuilder;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;

use crate::port::{SegmentRef, TableSnapshot};
use crate::reader::SegmentReaderFactory;
use crate::source::SegmentSource;

/// The column that segments are pruned by.
const TIME: &str = "time";

/// One table of a snapshot.
pub(crate) struct SegmentTable {
    schema: SchemaRef,
    segments: Vec<SegmentRef>,
    readers: Arc<SegmentReaderFactory>,
    store: ObjectStoreUrl,
}

impl SegmentTable {
    pub(crate) fn new(table: TableSnapshot, readers: Arc<SegmentReaderFactory>, store: ObjectStoreUrl) -> Self {
        let schema = Arc::new(presented(&logseal_otlp::arrow_schema(&table.columns)));
        Self { schema, segments: table.segments, readers, store }
    }

    /// The segments that may hold rows for which all `filters` are true.
    fn matching(&self, state: &dyn Session, filters: &[Expr]) -> Result<Vec<&SegmentRef>> {
        let Some(filter) = conjunction(filters.iter().cloned()) else {
            return Ok(self.segments.iter().collect());
        };
        let schema = DFSchema::try_from(Arc::clone(&self.schema))?;
        // A predicate that cannot prune is no error: then every segment is read.
        let keep = state
            .create_physical_expr(filter, &schema)
            .and_then(|expr| PruningPredicateBuilder::new().with_file_schema(Arc::clone(&self.schema)).try_build(expr))
            .and_then(|predicate| predicate.prune(&TimeRanges(&self.segments)))
            .unwrap_or_else(|_| vec![true; self.segments.len()]);
        Ok(self.segments.iter().zip(keep).filter_map(|(segment, keep)| keep.then_some(segment)).collect())
    }

    fn statistics(&self, segments: &[&SegmentRef]) -> Statistics {
        let mut statistics = Statistics::new_unknown(&self.schema);
        let rows = segments.iter().try_fold(0_usize, |sum, s| sum.checked_add(usize::try_from(s.rows).ok()?));
        statistics.num_rows = rows.map_or(Precision::Absent, Precision::Exact);
        let min = segments.iter().map(|s| s.min_time.0).min();
        let max = segments.iter().map(|s| s.max_time.0).max();
        if let (Ok(index), Some(min), Some(max)) = (self.schema.index_of(TIME), min, max) {
            let zone = match self.schema.field(index).data_type() {
                DataType::Timestamp(_, zone) => zone.clone(),
                _ => return statistics,
            };
            statistics.column_statistics[index] = ColumnStatistics {
                null_count: Precision::Exact(0),
                min_value: Precision::Exact(ScalarValue::TimestampNanosecond(Some(min), zone.clone())),
                max_value: Precision::Exact(ScalarValue::TimestampNanosecond(Some(max), zone)),
                ..ColumnStatistics::default()
            };
        }
        statistics
    }

    fn file(&self, segment: &SegmentRef) -> PartitionedFile {
        PartitionedFile::new(segment.path.as_ref(), segment.bytes)
            .with_extension(segment.clone())
            .with_statistics(Arc::new(self.statistics(&[segment])))
    }
}

impl Debug for SegmentTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SegmentTable").field("segments", &self.segments.len()).finish_non_exhaustive()
    }
}

#[async_trait]
impl TableProvider for SegmentTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let segments = self.matching(state, filters)?;
        if segments.is_empty() {
            let schema = match projection {
                Some(indices) => Arc::new(self.schema.project(indices)?),
                None => Arc::clone(&self.schema),
            };
            return Ok(Arc::new(EmptyExec::new(schema)));
        }
        let statistics = self.statistics(&segments);
        let files = FileGroup::new(segments.into_iter().map(|s| self.file(s)).collect());
        let options = TableParquetOptions {
            global: state.config_options().execution.parquet.clone(),
            ..TableParquetOptions::default()
        };
        let parquet = ParquetSource::new(Arc::clone(&self.schema))
            .with_table_parquet_options(options)
            .with_parquet_file_reader_factory(Arc::clone(&self.readers) as _);
        let scan = FileScanConfigBuilder::new(self.store.clone(), SegmentSource::wrap(Arc::new(parquet)))
            .with_file_groups(files.split_files(state.config().target_partitions()))
            .with_statistics(statistics)
            .with_projection_indices(projection.cloned())?
            .with_limit(limit)
            .with_expr_adapter(Some(Arc::new(AbsentContainers)))
            .build();
        Ok(DataSourceExec::from_data_source(scan))
    }
}

/// The table's schema as queries see it: an attribute container without any attribute is a column of type Null, since
/// Arrow's kernels and file formats do not agree on structs without fields.
fn presented(logical: &Schema) -> Schema {
    let present = |field: &FieldRef| match field.data_type() {
        DataType::Struct(children) if children.is_empty() => Arc::new(Field::new(field.name(), DataType::Null, true)),
        _ => Arc::clone(field),
    };
    Schema::new(logical.fields().iter().map(present).collect::<Vec<_>>())
}

/// The segments' time ranges, for static pruning.
struct TimeRanges<'a>(&'a [SegmentRef]);

impl TimeRanges<'_> {
    fn times(&self, column: &Column, time: impl Fn(&SegmentRef) -> i64) -> Option<ArrayRef> {
        let values = TimestampNanosecondArray::from_iter_values(self.0.iter().map(time));
        // The pruning predicate casts to the column's own time zone.
        (column.name() == TIME).then(|| Arc::new(values) as ArrayRef)
    }
}

impl PruningStatistics for TimeRanges<'_> {
    fn min_values(&self, column: &Column) -> Option<ArrayRef> {
        self.times(column, |segment| segment.min_time.0)
    }

    fn max_values(&self, column: &Column) -> Option<ArrayRef> {
        self.times(column, |segment| segment.max_time.0)
    }

    fn num_containers(&self) -> usize {
        self.0.len()
    }

    fn null_counts(&self, column: &Column) -> Option<ArrayRef> {
        (column.name() == TIME).then(|| Arc::new(UInt64Array::from_value(0, self.0.len())) as ArrayRef)
    }

    fn row_counts(&self) -> Option<ArrayRef> {
        Some(Arc::new(UInt64Array::from_iter_values(self.0.iter().map(|segment| segment.rows))))
    }

    fn contained(&self, _: &Column, _: &HashSet<ScalarValue>) -> Option<BooleanArray> {
        None
    }
}

/// DataFusion's adaptation of the table's schema to each file's, with one addition: a container that a file lacks, because
/// none of its records has an attribute in it, reads as a struct of NULLs, as it does in a file that has the container.
#[derive(Debug)]
struct AbsentContainers;

impl PhysicalExprAdapterFactory for AbsentContainers {
    fn create(&self, logical: SchemaRef, physical: SchemaRef) -> Result<Arc<dyn PhysicalExprAdapter>> {
        let absent = logical.fields().iter().filter(|field| physical.index_of(field.name()).is_err());
        let absent = absent.filter_map(|field| match field.data_type() {
            DataType::Struct(children) => {
                let nulls = children.iter().map(|child| new_null_array(child.data_type(), 1)).collect();
                let value = StructArray::new(children.clone(), nulls, None);
                Some((field.name().clone(), ScalarValue::Struct(Arc::new(value))))
            }
            _ => None,
        });
        let absent = absent.collect();
        let rest = DefaultPhysicalExprAdapterFactory.create(logical, physical)?;
        Ok(Arc::new(AbsentContainersAdapter { absent, rest }))
    }
}

#[derive(Debug)]
struct AbsentContainersAdapter {
    absent: HashMap<String, ScalarValue>,
    rest: Arc<dyn PhysicalExprAdapter>,
}

impl PhysicalExprAdapter for AbsentContainersAdapter {
    fn rewrite(&self, expr: Arc<dyn PhysicalExpr>) -> Result<Arc<dyn PhysicalExpr>> {
        self.rest.rewrite(replace_columns_with_literals(expr, &self.absent)?)
    }
}
