//! What one crate asks of another, joined here: the engine crates do not know each other.

use std::collections::HashMap;
use std::error::Error;
use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use futures::stream::{BoxStream, StreamExt as _, TryStreamExt as _};
use logseal_catalog::{Catalog, CatalogError};
use logseal_control::{MetricsText, Queries, QueryAnswer, QueryFailure, QueryFailureKind, QueryFormat};
use logseal_core::{Clock, ClusterId, SegmentId, WorkspaceId, stack};
use logseal_crypto::{LeaseOver, WrappedDek, aad};
use logseal_ingest::pipeline::backlog::Backlog;
use logseal_ingest::pipeline::frames::{Coverage, Frames, FramesError};
use logseal_ingest::pipeline::tables::open_column;
use logseal_ingest::pipeline::unsealed::{ParkedTable, UnsealedRows};
use logseal_ingest::{AuthError, Authenticator};
use logseal_keys::wrapped_key_copy::COPY_BYTES;
use logseal_keys::{AccessKeys, KeyError, Keyring, NotAccepted, Suspension, WrappedKeyStore};
use logseal_query::{
    Lag, ParkedRows, PortError, PortErrorKind, QueryEngine, QueryError, QueryErrorKind, QueryResult, SegmentCatalog,
    SegmentOpener, SegmentRef, Snapshot, TableSnapshot, Unsealed, format,
};
use logseal_segment::{SegmentError, SegmentStore, properties};
use logseal_tls::ClientNames;
use metrics_exporter_prometheus::PrometheusHandle;
use object_store::path::Path;
use tokio::sync::broadcast;

use super::data_plane::Suspended;
use crate::error::Chain;

/// Shippers' keys and certificates for the door.
#[derive(Debug)]
pub(super) struct Shippers {
    pub(super) keys: Arc<AccessKeys>,
    /// What names in certificates stand for.
    pub(super) clients: HashMap<String, WorkspaceId>,
    pub(super) clock: Arc<dyn Clock>,
}

impl Authenticator for Shippers {
    fn workspace_of(&self, key: &str) -> Result<WorkspaceId, AuthError> {
        self.keys.workspace_of(key, self.clock.now()).map_err(|refused| match refused {
            NotAccepted::LocalAuthDisabled => AuthError::LocalAuthDisabled,
            NotAccepted::Unknown if self.keys.is_complete() => AuthError::Unknown,
            // Clients drop data on `Unknown`: it is never said while it may be a key that could not be read.
            NotAccepted::Unknown => AuthError::Unavailable,
        })
    }

    fn workspace_of_client(&self, names: &ClientNames) -> Result<Option<WorkspaceId>, AuthError> {
        let mut known = names.iter().filter_map(|name| self.clients.get(name).copied());
        let Some(workspace) = known.next() else { return Ok(None) };
        if known.any(|other| other != workspace) {
            return Err(AuthError::Ambiguous);
        }
        // Without a key it is not there, or was deleted: what its clients ship is nobody's.
        match (self.keys.has(workspace), self.keys.is_complete()) {
            (true, _) => Ok(Some(workspace)),
            (false, true) => Err(AuthError::NoSuchWorkspace),
            (false, false) => Err(AuthError::Unavailable),
        }
    }
}

/// The store for copies of wrapped keys.
#[derive(Debug)]
pub(crate) struct KeyCopies(pub(crate) SegmentStore);

#[async_trait]
impl WrappedKeyStore for KeyCopies {
    async fn put_new(&self, path: &Path, content: Vec<u8>) -> Result<(), Box<dyn Error + Send + Sync>> {
        Ok(self.0.put_new(path, content).await?)
    }

    async fn get(&self, path: &Path) -> Result<Option<Vec<u8>>, Box<dyn Error + Send + Sync>> {
        match self.0.get(path, COPY_BYTES).await {
            Ok(content) => Ok(Some(content.to_vec())),
            Err(SegmentError::Missing(_)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// Tables, segments, their keys, and what is in no segment yet, for queries.
#[derive(Debug)]
pub(super) struct Readable {
    pub(super) catalog: Catalog,
    pub(super) backlog: Arc<Backlog>,
    pub(super) frames: Frames,
    pub(super) suspended: Arc<Suspended>,
    pub(super) clock: Arc<dyn Clock>,
}

/// Rows that are only in the log.
#[derive(Debug)]
struct Parked(ParkedTable);

impl ParkedRows for Parked {
    fn read(&self) -> BoxStream<'static, Result<RecordBatch, PortError>> {
        let rows = self.0.read().map_err(|error| match error {
            FramesError::Key { source, .. } => key_trouble(&source),
            error => PortError::new(PortErrorKind::Unavailable, Chain(&error).to_string()),
        });
        rows.boxed()
    }
}

#[async_trait]
impl SegmentCatalog for Readable {
    async fn snapshot(&self, workspace: WorkspaceId) -> Result<Snapshot, PortError> {
        if self.suspended.has(workspace) {
            return Err(PortError::new(PortErrorKind::NotFound, format!("workspace `{workspace}` is deleted")));
        }
        if let Some(why) = self.frames.keyring.refusal(workspace) {
            return Err(key_trouble(&KeyError::Refused { workspace, why }));
        }
        // Pinned before the snapshot is taken: what becomes a segment in between is dropped by the snapshot's coverage.
        if self.frames.tables.workspace(workspace).is_none() {
            return Err(PortError::new(PortErrorKind::NotFound, format!("workspace `{workspace}` is not loaded")));
        }
        let pinned = self.backlog.pin(workspace);
        let rows = self.catalog.snapshot(workspace).await.map_err(|error| catalog_trouble(&error))?;
        let unsealed = UnsealedRows::new(pinned, Coverage::new(&rows.coverage), self.frames.clone());
        let lag = Lag { records: unsealed.records(), age: unsealed.age(self.clock.now()) };
        let mut tables: Vec<_> = rows
            .tables
            .iter()
            .map(|table| TableSnapshot {
                name: table.name.clone(),
                columns: Vec::new(),
                segments: Vec::new(),
                unsealed: Unsealed {
                    batches: unsealed.batches(table.id),
                    parked: unsealed.parked(table.id).into_iter().map(|rows| Arc::new(Parked(rows)) as _).collect(),
                },
            })
            .collect();
        let index = |id| rows.tables.iter().position(|table| table.id == id);
        for row in &rows.columns {
            let aek = self.frames.keyring.aek(row.aek).await.map_err(|error| key_trouble(&error))?;
            let column = open_column(&aek, row).map_err(|error| key_trouble(&error))?;
            if let Some(index) = index(row.table) {
                tables[index].columns.push(column);
            }
        }
        for row in rows.segments {
            let path = Path::parse(&row.path).map_err(|_| {
                PortError::new(PortErrorKind::Corrupt, format!("segment `{}` has an impossible path", row.id))
            })?;
            let index = index(row.table).ok_or_else(|| {
                PortError::new(PortErrorKind::Corrupt, format!("segment `{}` belongs to no table", row.id))
            })?;
            tables[index].segments.push(SegmentRef {
                id: row.id,
                path,
                bytes: row.bytes,
                rows: row.rows,
                min_time: row.min_time,
                max_time: row.max_time,
            });
        }
        Ok(Snapshot { tables, lag })
    }
}

#[async_trait]
impl SegmentOpener for Readable {
    async fn open(
        &self,
        segment: SegmentId,
    ) -> Result<Arc<parquet::encryption::decrypt::FileDecryptionProperties>, PortError> {
        let row = self.catalog.segment(segment).await.map_err(|error| catalog_trouble(&error))?;
        let row = row.ok_or_else(|| {
            PortError::new(PortErrorKind::NotFound, format!("segment `{segment}` is no longer in the catalog"))
        })?;
        let dek = self.frames.keyring.segment_dek(&row).await.map_err(|error| key_trouble(&error))?;
        let wrapped =
            WrappedDek::from_bytes(&row.wrapped_dek).ok_or_else(|| key_trouble(&KeyError::SegmentKey(segment)))?;
        let aad_prefix = aad::segment_file(row.workspace, row.table, row.id);
        properties::decryption_properties(&dek, &wrapped, &aad_prefix)
            .map_err(|error| PortError::new(PortErrorKind::Corrupt, error.to_string()))
    }
}

fn catalog_trouble(error: &CatalogError) -> PortError {
    let kind = match error {
        CatalogError::Integrity { .. } => PortErrorKind::Corrupt,
        _ => PortErrorKind::Unavailable,
    };
    PortError::new(kind, error.to_string())
}

fn key_trouble(error: &KeyError) -> PortError {
    let kind = match error {
        KeyError::Catalog(cause) => return catalog_trouble(cause),
        KeyError::Shredded(_) => PortErrorKind::NotFound,
        KeyError::Vault { .. }
        | KeyError::Copy(_)
        | KeyError::Refused { .. }
        | KeyError::Suspended(_)
        | KeyError::LeaseOver(_)
        | KeyError::Wraps(_) => PortErrorKind::Unavailable,
        _ => PortErrorKind::Corrupt,
    };
    PortError::new(kind, Chain(error).to_string())
}

/// The query engine for the management API.
#[derive(Debug)]
pub(super) struct Engine {
    pub(super) engine: QueryEngine,
    pub(super) catalog: Catalog,
    pub(super) keyring: Arc<Keyring>,
    pub(super) suspensions: broadcast::Sender<ClusterId>,
}

impl Engine {
    /// Runs until a cluster that has keys of `workspace` is suspended: what was decrypted by then is let go of.
    async fn run_while_keys_serve(
        &self,
        workspace: WorkspaceId,
        sql: &str,
        row_limit: Option<usize>,
    ) -> Result<QueryResult, QueryFailure> {
        let mut suspended = self.suspensions.subscribe();
        let keys = self.catalog.aeks_of(workspace).await.map_err(|error| {
            let refused = self.keyring.refusal(workspace).map(|why| KeyError::Refused { workspace, why });
            port_failure(&refused.map_or_else(|| catalog_trouble(&error), |refused| key_trouble(&refused)))
        })?;
        // Its tables are not in memory then.
        if let Some(why) = keys.last().and_then(|newest| self.keyring.suspension(newest.cluster)) {
            return Err(suspended_failure(&why));
        }
        let mut clusters: Vec<_> = keys.iter().map(|key| key.cluster).collect();
        clusters.sort_unstable();
        clusters.dedup();
        let serving: Vec<_> = clusters.iter().copied().filter(|cluster| self.keyring.serves(*cluster)).collect();
        let over = async {
            loop {
                match suspended.recv().await {
                    Ok(cluster) if !serving.contains(&cluster) => {}
                    // Which ones were missed cannot be known.
                    Ok(_) | Err(_) => break,
                }
            }
        };
        let result = tokio::select! {
            result = self.engine.run(workspace, sql, row_limit) => Some(result),
            () = over => None,
        };
        // Also when nobody watched: a result is given only while the keys that it may have taken can be used.
        let ended = serving.iter().any(|cluster| !self.keyring.serves(*cluster));
        match result {
            Some(Ok(result)) if !ended => return Ok(result),
            Some(Err(error)) if !ended && error.kind() != QueryErrorKind::Unavailable => return Err(failure(&error)),
            Some(Err(error)) if !ended && clusters.len() == serving.len() => return Err(failure(&error)),
            _ => {}
        }
        match clusters.iter().find_map(|cluster| self.keyring.suspension(*cluster)) {
            Some(why) => Err(suspended_failure(&why)),
            None => Err(port_failure(&key_trouble(&KeyError::LeaseOver(LeaseOver)))),
        }
    }
}

fn suspended_failure(why: &Suspension) -> QueryFailure {
    let kind = if why.cause.definitive { QueryFailureKind::KeyRefused } else { QueryFailureKind::Unavailable };
    QueryFailure { kind, code: why.cause.fault.code(), message: why.to_string() }
}

fn port_failure(error: &PortError) -> QueryFailure {
    QueryFailure { kind: QueryFailureKind::Unavailable, code: "ServiceUnavailable", message: error.to_string() }
}

#[async_trait]
impl Queries for Engine {
    async fn run(
        &self,
        workspace: WorkspaceId,
        sql: &str,
        row_limit: Option<usize>,
        query_format: QueryFormat,
    ) -> Result<QueryAnswer, QueryFailure> {
        let result = self.run_while_keys_serve(workspace, sql, row_limit).await?;
        let (truncated, lag) = (result.truncated, result.lag);
        // Rendering a large result takes long enough to hold up other requests of this thread.
        let render = move || match query_format {
            QueryFormat::Tables => format::azure_json(&result).map(String::into_bytes),
            QueryFormat::Json => format::json(&result).map(String::into_bytes),
            QueryFormat::Csv => format::csv(&result).map(String::into_bytes),
            QueryFormat::Arrow => format::arrow_stream(&result),
        };
        let body = match tokio::task::spawn_blocking(|| stack::wiped(render)).await {
            Ok(body) => body.map_err(|error| failure(&error))?,
            Err(_) => {
                return Err(failure(&QueryError::Internal { message: "the result cannot be rendered".to_owned() }));
            }
        };
        Ok(QueryAnswer { body, truncated, unsealed_records: lag.records, lag: lag.age })
    }
}

fn failure(error: &QueryError) -> QueryFailure {
    let (kind, code) = match error.kind() {
        QueryErrorKind::Invalid => (QueryFailureKind::Invalid, "InvalidQuery"),
        QueryErrorKind::Refused => (QueryFailureKind::Invalid, "StatementNotAllowed"),
        QueryErrorKind::OverLimit => (QueryFailureKind::LimitExceeded, "QueryLimitExceeded"),
        QueryErrorKind::TimedOut => (QueryFailureKind::LimitExceeded, "QueryTimedOut"),
        QueryErrorKind::Damaged => (QueryFailureKind::Damaged, "SegmentDamaged"),
        QueryErrorKind::Denied => (QueryFailureKind::Unavailable, "KeyNotUsable"),
        QueryErrorKind::NotFound => (QueryFailureKind::Invalid, "ResourceNotFound"),
        QueryErrorKind::Unavailable => (QueryFailureKind::Unavailable, "ServiceUnavailable"),
        QueryErrorKind::Internal => (QueryFailureKind::Damaged, "InternalError"),
    };
    QueryFailure { kind, code, message: error.to_string() }
}

/// The metrics of the process.
pub(super) struct Prometheus {
    pub(super) handle: PrometheusHandle,
    pub(super) backlog: Arc<Backlog>,
    pub(super) clock: Arc<dyn Clock>,
}

impl std::fmt::Debug for Prometheus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Prometheus")
    }
}

impl MetricsText for Prometheus {
    fn render(&self) -> String {
        // Asked for now rather than kept up to date all the time.
        logseal_ingest::meter::refresh(&self.backlog, self.clock.now());
        self.handle.render()
    }
}
