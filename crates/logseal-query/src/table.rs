//! A table of a snapshot, as DataFusion sees it: its segments and the rows that are in none yet.
//!
//! Segments and batches whose time range cannot match the query's predicates are left out when the scan is planned;
//! DataFusion prunes segments further by the same ranges while it runs (top-k and join filters), and by row group and page
//! inside each file.

use std::collections::HashMap;
use std::fmt::{self, Debug};
use std::sync::Arc;

use arrow::array::{StructArray, new_null_array};
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::ScalarValue;
use datafusion::common::config::TableParquetOptions;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::error::Result;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr_adapter::{
    DefaultPhysicalExprAdapterFactory, PhysicalExprAdapter, PhysicalExprAdapterFactory, replace_columns_with_literals,
};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::physical_plan::union::UnionExec;

use crate::port::{ParkedRows, SegmentRef, TableSnapshot, Unsealed};
use crate::reader::SegmentReaderFactory;
use crate::source::SegmentSource;
use crate::time_range::{TimeFilter, TimeRange, statistics};
use crate::unsealed::UnsealedSource;

/// One table of a snapshot.
pub(crate) struct SnapshotTable {
    schema: SchemaRef,
    segments: Vec<SegmentRef>,
    batches: Arc<[RecordBatch]>,
    parked: Vec<Arc<dyn ParkedRows>>,
    readers: Arc<SegmentReaderFactory>,
    store: ObjectStoreUrl,
}

impl SnapshotTable {
    pub(crate) fn new(table: TableSnapshot, readers: Arc<SegmentReaderFactory>, store: ObjectStoreUrl) -> Self {
        let schema = Arc::new(presented(&logseal_otlp::arrow_schema(&table.columns)));
        let Unsealed { batches, parked } = table.unsealed;
        Self { schema, segments: table.segments, batches: batches.into(), parked, readers, store }
    }

    /// The scan of `segments`, of which there is at least one.
    fn sealed(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        segments: Vec<(&SegmentRef, TimeRange)>,
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let ranges: Vec<TimeRange> = segments.iter().map(|(_, range)| *range).collect();
        let files = FileGroup::new(segments.into_iter().map(|(segment, range)| self.file(segment, range)).collect());
        let options = TableParquetOptions {
            global: state.config_options().execution.parquet.clone(),
            ..TableParquetOptions::default()
        };
        let parquet = ParquetSource::new(Arc::clone(&self.schema))
            .with_table_parquet_options(options)
            .with_parquet_file_reader_factory(Arc::clone(&self.readers) as _);
        let scan = FileScanConfigBuilder::new(self.store.clone(), SegmentSource::wrap(Arc::new(parquet)))
            .with_file_groups(files.split_files(state.config().target_partitions()))
            .with_statistics(statistics(&self.schema, &ranges))
            .with_projection_indices(projection.cloned())?
            .with_limit(limit)
            .with_expr_adapter(Some(Arc::new(AbsentContainers)))
            .build();
        Ok(DataSourceExec::from_data_source(scan))
    }

    fn file(&self, segment: &SegmentRef, range: TimeRange) -> PartitionedFile {
        PartitionedFile::new(segment.path.as_ref(), segment.bytes)
            .with_extension(segment.clone())
            .with_statistics(Arc::new(statistics(&self.schema, &[range])))
    }
}

impl Debug for SnapshotTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SnapshotTable")
            .field("segments", &self.segments.len())
            .field("batches", &self.batches.len())
            .field("parked", &self.parked.len())
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl TableProvider for SnapshotTable {
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
        let schema = match projection {
            Some(indices) => Arc::new(self.schema.project(indices)?),
            None => Arc::clone(&self.schema),
        };
        let filter = TimeFilter::new(state, &self.schema, filters)?;
        let mut inputs: Vec<Arc<dyn ExecutionPlan>> = Vec::new();

        let segments = filter.kept(self.segments.iter().map(|segment| (segment, TimeRange::from(segment))).collect());
        if !segments.is_empty() {
            inputs.push(self.sealed(state, projection, segments, limit)?);
        }
        let mut batches = Vec::with_capacity(self.batches.len());
        for (index, batch) in self.batches.iter().enumerate() {
            batches.extend(TimeRange::of(batch)?.map(|range| (index, range)));
        }
        let batches = filter.kept(batches);
        if !batches.is_empty() || !self.parked.is_empty() {
            let schema = Arc::clone(&schema);
            let rows = UnsealedSource::new(schema, &self.batches, batches, &self.parked, state.config(), limit);
            inputs.push(DataSourceExec::from_data_source(rows));
        }
        if inputs.is_empty() {
            return Ok(Arc::new(EmptyExec::new(schema)));
        }
        UnionExec::try_new(inputs)
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
