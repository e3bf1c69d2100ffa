//! A workspace of encrypted segments in memory, and a store that counts what is read of them.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use arrow::array::{
    ArrayRef, AsArray, BinaryBuilder, BooleanBuilder, Float64Builder, Int32Array, Int64Builder, StringArray,
    StringBuilder, StructArray, TimestampNanosecondArray, new_null_array,
};
use arrow::datatypes::{DataType, Field, Schema, TimestampNanosecondType};
use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use logseal_core::{SegmentId, TableName, UnixNanos, WorkspaceId};
use logseal_otlp::{AttributeColumn, AttributeContainer, AttributeKind, arrow_schema};
use logseal_query::{
    PortError, PortErrorKind, QueryEngine, QueryError, QueryResult, QuerySettings, SegmentCatalog, SegmentOpener,
    SegmentRef, Snapshot, TableSnapshot, Unsealed, format,
};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt,
    PutMultipartOptions, PutOptions, PutPayload, PutResult,
};
use parquet::arrow::ArrowWriter;
use parquet::encryption::decrypt::FileDecryptionProperties;
use parquet::encryption::encrypt::FileEncryptionProperties;
use parquet::file::properties::{EnabledStatistics, WriterProperties};

pub(crate) const WORKSPACE: WorkspaceId = WorkspaceId::from_bytes([1; 16]);

/// 2024-01-01T00:00:00Z.
pub(crate) const NEW_YEAR: i64 = 1_704_067_200_000_000_000;
pub(crate) const SECOND: i64 = 1_000_000_000;

/// An attribute value of a test record.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    Str(&'static str),
    Bool(bool),
    Int(i64),
    Double(f64),
    Bytes(&'static [u8]),
}

impl Value {
    fn kind(&self) -> AttributeKind {
        match self {
            Self::Str(_) => AttributeKind::String,
            Self::Bool(_) => AttributeKind::Bool,
            Self::Int(_) => AttributeKind::Int,
            Self::Double(_) => AttributeKind::Double,
            Self::Bytes(_) => AttributeKind::Bytes,
        }
    }
}

/// A test record.
#[derive(Clone, Debug, Default)]
pub(crate) struct Record {
    pub(crate) time: i64,
    pub(crate) severity: i32,
    pub(crate) body: String,
    pub(crate) attributes: Vec<(&'static str, Value)>,
    pub(crate) resource: Vec<(&'static str, Value)>,
}

/// A record `seconds` after the new year.
pub(crate) fn record(seconds: i64, severity: i32, body: &str, attributes: &[(&'static str, Value)]) -> Record {
    Record {
        time: NEW_YEAR + seconds * SECOND,
        severity,
        body: body.into(),
        attributes: attributes.to_vec(),
        resource: Vec::new(),
    }
}

/// The workspace under test.
pub(crate) struct Fixture {
    pub(crate) store: Arc<CountingStore>,
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) opener: Arc<Opener>,
    pub(crate) engine: QueryEngine,
    next: u8,
}

impl Fixture {
    /// A workspace with the empty table `logs`.
    pub(crate) fn new() -> Self {
        Self::with_settings(QuerySettings { target_partitions: 2, ..QuerySettings::default() })
    }

    pub(crate) fn with_settings(settings: QuerySettings) -> Self {
        let store = Arc::new(CountingStore::default());
        let catalog = Arc::new(Catalog::default());
        let opener = Arc::new(Opener::default());
        let engine =
            QueryEngine::new(settings, Arc::clone(&store) as _, Arc::clone(&catalog) as _, Arc::clone(&opener) as _);
        let mut fixture = Self { store, catalog, opener, engine: engine.expect("valid settings"), next: 1 };
        fixture.table("logs");
        fixture
    }

    pub(crate) fn table(&mut self, name: &str) {
        let name = TableName::parse(name).expect("a valid name");
        let table = TableSnapshot { name, columns: Vec::new(), segments: Vec::new(), unsealed: Unsealed::default() };
        self.catalog.snapshot.lock().expect("no panic").tables.push(table);
    }

    /// Adds a segment with `records` to `logs`.
    pub(crate) async fn segment(&mut self, records: &[Record]) -> SegmentRef {
        self.segment_of("logs", records, records.len()).await
    }

    /// Adds a segment to `table`, with a row group every `group_rows` rows.
    pub(crate) async fn segment_of(&mut self, table: &str, records: &[Record], group_rows: usize) -> SegmentRef {
        let columns = columns_of(records);
        self.seal(table, &batch(records, &columns), columns, group_rows).await
    }

    /// Adds a segment with the rows of `batch`, whose attributes are `columns`, to `table`.
    pub(crate) async fn seal(
        &mut self,
        table: &str,
        batch: &RecordBatch,
        columns: Vec<AttributeColumn>,
        group_rows: usize,
    ) -> SegmentRef {
        let id = SegmentId::from_bytes([self.next; 16]);
        let key = [self.next; 32];
        self.next += 1;
        let file = encrypt(batch, id, key, group_rows);
        let times = batch.column_by_name("time").expect("of every batch").as_primitive::<TimestampNanosecondType>();
        let segment = SegmentRef {
            id,
            path: Path::from(format!("clusters/c/{id}.parquet")),
            bytes: file.len() as u64,
            rows: batch.num_rows() as u64,
            min_time: UnixNanos(arrow::compute::min(times).expect("rows")),
            max_time: UnixNanos(arrow::compute::max(times).expect("rows")),
        };
        self.store.put(&segment.path, file.into()).await.expect("memory");
        self.opener.keys.lock().expect("no panic").insert(id, key);
        self.edit(table, |table| {
            for column in columns {
                if !table.columns.contains(&column) {
                    table.columns.push(column);
                }
            }
            table.segments.push(segment.clone());
        });
        segment
    }

    /// Changes what the catalog says about `table`.
    pub(crate) fn edit(&self, table: &str, change: impl FnOnce(&mut TableSnapshot)) {
        let mut snapshot = self.catalog.snapshot.lock().expect("no panic");
        change(snapshot.tables.iter_mut().find(|t| t.name.as_str() == table).expect("the table exists"));
    }

    pub(crate) async fn run(&self, sql: &str) -> Result<QueryResult, QueryError> {
        self.engine.run(WORKSPACE, sql, None).await
    }

    /// The result of `sql` as CSV without its last line end.
    pub(crate) async fn csv(&self, sql: &str) -> String {
        let result = self.run(sql).await.unwrap_or_else(|e| panic!("{sql}: {e:?}"));
        format::csv(&result).expect("renders").trim_end().to_owned()
    }

    pub(crate) async fn error(&self, sql: &str) -> QueryError {
        match self.run(sql).await {
            Ok(result) => panic!("{sql}: {}", format::table(&result).expect("renders")),
            Err(error) => error,
        }
    }
}

fn columns_of(records: &[Record]) -> Vec<AttributeColumn> {
    let mut columns = BTreeMap::new();
    for record in records {
        let of = |container, list: &[(&'static str, Value)]| {
            list.iter()
                .map(|(key, value)| ((container_number(container), *key), (container, value.kind())))
                .collect::<Vec<_>>()
        };
        columns.extend(of(AttributeContainer::Record, &record.attributes));
        columns.extend(of(AttributeContainer::Resource, &record.resource));
    }
    columns
        .into_iter()
        .map(|((_, key), (container, kind))| AttributeColumn { container, key: key.into(), kind })
        .collect()
}

fn container_number(container: AttributeContainer) -> u8 {
    match container {
        AttributeContainer::Record => 0,
        AttributeContainer::Resource => 1,
        AttributeContainer::Scope => 2,
    }
}

/// The records as a segment holds them: all fixed columns, containers only if they have children.
pub(crate) fn batch(records: &[Record], columns: &[AttributeColumn]) -> RecordBatch {
    let logical = arrow_schema(columns);
    let mut fields = Vec::new();
    let mut arrays: Vec<ArrayRef> = Vec::new();
    for field in logical.fields() {
        let array: ArrayRef = match (field.name().as_str(), field.data_type()) {
            (_, DataType::Struct(children)) if children.is_empty() => continue,
            ("attributes", DataType::Struct(children)) => {
                Arc::new(StructArray::new(children.clone(), children_of(records, children, |r| &r.attributes), None))
            }
            ("resource_attributes", DataType::Struct(children)) => {
                Arc::new(StructArray::new(children.clone(), children_of(records, children, |r| &r.resource), None))
            }
            (_, DataType::Timestamp(_, zone)) => {
                let times = TimestampNanosecondArray::from_iter_values(records.iter().map(|r| r.time));
                Arc::new(times.with_timezone_opt(zone.clone()))
            }
            ("severity_number", _) => Arc::new(records.iter().map(|r| Some(r.severity)).collect::<Int32Array>()),
            ("body", _) => Arc::new(records.iter().map(|r| Some(r.body.as_str())).collect::<StringArray>()),
            ("body_kind", DataType::Utf8) => Arc::new(records.iter().map(|_| Some("string")).collect::<StringArray>()),
            (_, other) => new_null_array(other, records.len()),
        };
        let nullable = field.is_nullable() || array.null_count() > 0;
        fields.push(Arc::new(Field::new(field.name(), field.data_type().clone(), nullable)));
        arrays.push(array);
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).expect("arrays of the schema")
}

fn children_of<'a>(
    records: &'a [Record],
    children: &arrow::datatypes::Fields,
    list: impl Fn(&'a Record) -> &'a Vec<(&'static str, Value)>,
) -> Vec<ArrayRef> {
    let child = |field: &Arc<Field>| -> ArrayRef {
        let values: Vec<Option<Value>> = records
            .iter()
            .map(|r| list(r).iter().find(|(key, _)| key == field.name()).map(|(_, value)| value.clone()))
            .collect();
        macro_rules! column {
            ($builder:ty, $variant:path) => {{
                let mut builder = <$builder>::new();
                for value in values {
                    builder.append_option(value.map(|v| match v {
                        $variant(v) => v,
                        other => panic!("{other:?} in a column of another kind"),
                    }));
                }
                Arc::new(builder.finish())
            }};
        }
        match field.data_type() {
            DataType::Utf8 => column!(StringBuilder, Value::Str),
            DataType::Boolean => column!(BooleanBuilder, Value::Bool),
            DataType::Int64 => column!(Int64Builder, Value::Int),
            DataType::Float64 => column!(Float64Builder, Value::Double),
            DataType::Binary => column!(BinaryBuilder, Value::Bytes),
            other => panic!("no test value of {other}"),
        }
    };
    children.iter().map(child).collect()
}

/// A segment file: uniform encryption, encrypted footer, AAD prefix stored.
pub(crate) fn encrypt(batch: &RecordBatch, id: SegmentId, key: [u8; 32], group_rows: usize) -> Vec<u8> {
    let encryption = FileEncryptionProperties::builder(key.to_vec())
        .with_aad_prefix(id.as_bytes().to_vec())
        .with_aad_prefix_storage(true)
        .build()
        .expect("valid properties");
    write(batch, WriterProperties::builder().with_file_encryption_properties(encryption), group_rows)
}

/// The same file without encryption, which no reader may accept.
pub(crate) fn plaintext(batch: &RecordBatch) -> Vec<u8> {
    write(batch, WriterProperties::builder(), batch.num_rows())
}

fn write(
    batch: &RecordBatch,
    properties: parquet::file::properties::WriterPropertiesBuilder,
    group_rows: usize,
) -> Vec<u8> {
    let properties = properties
        .set_max_row_group_row_count(Some(group_rows))
        // A dictionary has to be read whole, which would hide what pruning pages saves.
        .set_dictionary_enabled(false)
        .set_data_page_row_count_limit(100)
        .set_write_batch_size(100)
        .set_statistics_enabled(EnabledStatistics::Page)
        .build();
    let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), Some(properties)).expect("valid properties");
    writer.write(batch).expect("memory");
    writer.into_inner().expect("memory")
}

/// The catalog port.
#[derive(Debug, Default)]
pub(crate) struct Catalog {
    pub(crate) snapshot: Mutex<Snapshot>,
    pub(crate) failure: Mutex<Option<PortError>>,
}

#[async_trait]
impl SegmentCatalog for Catalog {
    async fn snapshot(&self, workspace: WorkspaceId) -> Result<Snapshot, PortError> {
        if let Some(failure) = self.failure.lock().expect("no panic").clone() {
            return Err(failure);
        }
        if workspace != WORKSPACE {
            return Err(PortError::new(PortErrorKind::NotFound, "no such workspace"));
        }
        Ok(self.snapshot.lock().expect("no panic").clone())
    }
}

/// The key port; counts how often each segment is opened.
#[derive(Debug, Default)]
pub(crate) struct Opener {
    pub(crate) keys: Mutex<HashMap<SegmentId, [u8; 32]>>,
    pub(crate) opened: Mutex<Vec<SegmentId>>,
    pub(crate) failure: Mutex<Option<PortError>>,
}

impl Opener {
    /// The segments opened since the last call, sorted, each once.
    pub(crate) fn take_opened(&self) -> Vec<SegmentId> {
        let mut opened = std::mem::take(&mut *self.opened.lock().expect("no panic"));
        opened.sort();
        opened.dedup();
        opened
    }
}

#[async_trait]
impl SegmentOpener for Opener {
    async fn open(&self, segment: SegmentId) -> Result<Arc<FileDecryptionProperties>, PortError> {
        if let Some(failure) = self.failure.lock().expect("no panic").clone() {
            return Err(failure);
        }
        self.opened.lock().expect("no panic").push(segment);
        let key = self.keys.lock().expect("no panic").get(&segment).copied();
        let key = key.ok_or_else(|| PortError::new(PortErrorKind::NotFound, "no key for the segment"))?;
        let properties =
            FileDecryptionProperties::builder(key.to_vec()).with_aad_prefix(segment.as_bytes().to_vec()).build();
        Ok(properties.expect("valid properties"))
    }
}

/// Objects in memory, and how many bytes of them were read.
#[derive(Debug, Default)]
pub(crate) struct CountingStore {
    inner: InMemory,
    read: Mutex<u64>,
}

impl CountingStore {
    /// Bytes read since the last call.
    pub(crate) fn take_read(&self) -> u64 {
        std::mem::take(&mut *self.read.lock().expect("no panic"))
    }

    fn count(&self, bytes: u64) {
        *self.read.lock().expect("no panic") += bytes;
    }
}

impl fmt::Display for CountingStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CountingStore")
    }
}

#[async_trait]
impl ObjectStore for CountingStore {
    async fn put_opts(&self, at: &Path, payload: PutPayload, options: PutOptions) -> object_store::Result<PutResult> {
        self.inner.put_opts(at, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        at: &Path,
        options: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(at, options).await
    }

    async fn get_opts(&self, at: &Path, options: GetOptions) -> object_store::Result<GetResult> {
        let result = self.inner.get_opts(at, options).await?;
        self.count(result.range.end - result.range.start);
        Ok(result)
    }

    async fn get_ranges(&self, at: &Path, ranges: &[Range<u64>]) -> object_store::Result<Vec<Bytes>> {
        self.count(ranges.iter().map(|r| r.end - r.start).sum());
        self.inner.get_ranges(at, ranges).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, object_store::Result<Path>>,
    ) -> BoxStream<'static, object_store::Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> object_store::Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> object_store::Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}
