//! Runs queries: one snapshot, one plan, one bounded result each.
//!
//! Each query counts in `logseal_queries_total` and `logseal_query_duration_seconds`, both with the label `outcome`: `ok`,
//! `canceled` (the caller went away), or the error's kind.

use std::fmt::{self, Debug};
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use datafusion::error::DataFusionError;
use datafusion::execution::SessionState;
use datafusion::execution::context::SQLOptions;
use datafusion::execution::memory_pool::MemoryConsumer;
use datafusion::logical_expr::LogicalPlan;
use datafusion::prelude::SessionContext;
use futures::StreamExt;
use futures::future::BoxFuture;
use logseal_core::WorkspaceId;
use object_store::ObjectStore;
use tokio::sync::Semaphore;

use crate::classify::{classify, suggest_table, unknown_column};
use crate::error::QueryError;
use crate::listing;
use crate::port::{Lag, SegmentCatalog, SegmentOpener, Snapshot};
use crate::runtime::QueryRuntime;
use crate::session::SessionTemplate;
use crate::settings::QuerySettings;
use crate::statement;

/// Answers SQL queries over the segments of a workspace.
pub struct QueryEngine {
    settings: QuerySettings,
    catalog: Arc<dyn SegmentCatalog>,
    store: Arc<dyn ObjectStore>,
    opener: Arc<dyn SegmentOpener>,
    template: Arc<SessionTemplate>,
    slots: Arc<Semaphore>,
    runtime: QueryRuntime,
}

/// The complete result of a query.
#[derive(Clone, Debug)]
pub struct QueryResult {
    /// Names and types of the columns.
    pub schema: SchemaRef,
    /// The rows; none of the batches is empty.
    pub batches: Vec<RecordBatch>,
    /// Number of rows in all batches.
    pub rows: usize,
    /// There were more rows than the caller's limit.
    pub truncated: bool,
    /// How far the segments were behind the acknowledgements when the query took its snapshot.
    pub lag: Lag,
}

impl QueryEngine {
    /// An engine with its own threads and memory limit.
    ///
    /// # Errors
    ///
    /// When a setting is 0 that must not be, or no thread can be started.
    pub fn new(
        settings: QuerySettings,
        store: Arc<dyn ObjectStore>,
        catalog: Arc<dyn SegmentCatalog>,
        opener: Arc<dyn SegmentOpener>,
    ) -> Result<Self, QueryError> {
        settings.validate()?;
        let template = SessionTemplate::new(&settings, Arc::clone(&store))
            .map_err(|e| QueryError::Internal { message: e.strip_backtrace() })?;
        let runtime = QueryRuntime::start(settings.partitions())
            .map_err(|e| QueryError::Internal { message: format!("no thread for queries: {e}") })?;
        let slots = Arc::new(Semaphore::new(settings.concurrent_queries));
        Ok(Self { settings, catalog, store, opener, template: Arc::new(template), slots, runtime })
    }

    /// Runs `sql` on the tables of `workspace` and returns at most `row_limit` rows.
    ///
    /// Dropping the future cancels the query.
    ///
    /// # Errors
    ///
    /// See [`QueryError`]; its kind says what the caller can do.
    //
    // Boxed here, so that the planner is compiled into this crate once and not into each one that calls it.
    pub fn run<'q>(
        &'q self,
        workspace: WorkspaceId,
        sql: &'q str,
        row_limit: Option<usize>,
    ) -> BoxFuture<'q, Result<QueryResult, QueryError>> {
        Box::pin(async move {
            let mut measure = Measure::start();
            let limit_ms = self.settings.timeout_ms;
            let limit = Duration::from_millis(limit_ms);
            let result = tokio::time::timeout(limit, self.answer(workspace, sql, row_limit))
                .await
                .unwrap_or(Err(QueryError::TimedOut { limit_ms }));
            measure.outcome = match &result {
                Ok(_) => "ok",
                Err(error) => error.kind().label(),
            };
            result
        })
    }

    async fn answer(
        &self,
        workspace: WorkspaceId,
        sql: &str,
        row_limit: Option<usize>,
    ) -> Result<QueryResult, QueryError> {
        let slot = Arc::clone(&self.slots)
            .acquire_owned()
            .await
            .map_err(|_| QueryError::Unavailable { message: "the query engine is shutting down".into() })?;
        let snapshot = self.catalog.snapshot(workspace).await.map_err(QueryError::from_catalog)?;
        let job = Job {
            template: Arc::clone(&self.template),
            store: Arc::clone(&self.store),
            opener: Arc::clone(&self.opener),
            snapshot,
            sql: sql.to_owned(),
            limits: Limits::new(&self.settings, row_limit),
        };
        let task = self.runtime.spawn(async move {
            // Held by the work itself: a canceled query keeps its slot until it has really stopped.
            let _slot = slot;
            job.run().await
        });
        task.await.unwrap_or_else(|e| {
            let message = if e.is_panic() { "the query panicked" } else { "the query engine is shutting down" };
            Err(QueryError::Internal { message: message.into() })
        })
    }
}

impl Debug for QueryEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueryEngine").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// Registers the help texts of this crate's metrics with the installed recorder.
pub fn describe_metrics() {
    metrics::describe_counter!("logseal_queries_total", metrics::Unit::Count, "queries that ended, by outcome");
    metrics::describe_histogram!(
        "logseal_query_duration_seconds",
        metrics::Unit::Seconds,
        "time from a query's call to its complete result, by outcome"
    );
}

/// Records a query's metrics when it ends, however it ends.
struct Measure {
    started: Instant,
    outcome: &'static str,
}

impl Measure {
    fn start() -> Self {
        Self { started: Instant::now(), outcome: "canceled" }
    }
}

impl Drop for Measure {
    fn drop(&mut self) {
        metrics::counter!("logseal_queries_total", "outcome" => self.outcome).increment(1);
        metrics::histogram!("logseal_query_duration_seconds", "outcome" => self.outcome)
            .record(self.started.elapsed().as_secs_f64());
    }
}

/// How much of a result is collected.
#[derive(Clone, Copy, Debug)]
struct Limits {
    /// Rows that are returned.
    rows: usize,
    /// More rows than that are cut off (the caller asked for it) instead of refused.
    cut: bool,
    bytes: usize,
    memory: usize,
    sql_bytes: usize,
}

impl Limits {
    fn new(settings: &QuerySettings, row_limit: Option<usize>) -> Self {
        let rows = row_limit.unwrap_or(usize::MAX).min(settings.max_result_rows);
        Self {
            rows,
            cut: row_limit == Some(rows),
            bytes: settings.max_result_bytes,
            memory: settings.memory_bytes,
            sql_bytes: settings.max_sql_bytes,
        }
    }
}

/// One query, moved to the query threads as a whole.
struct Job {
    template: Arc<SessionTemplate>,
    store: Arc<dyn ObjectStore>,
    opener: Arc<dyn SegmentOpener>,
    snapshot: Snapshot,
    sql: String,
    limits: Limits,
}

impl Job {
    fn run(self) -> impl Future<Output = Result<QueryResult, QueryError>> + Send {
        Box::pin(self.execute())
    }

    async fn execute(self) -> Result<QueryResult, QueryError> {
        let limits = self.limits;
        let sql = self.sql;
        let engine = |e: DataFusionError| {
            classify(&e, limits.memory).placed(|_| statement::place_of(&sql, limits.sql_bytes, unknown_column(&e)?))
        };
        let statement = statement::parse(&sql, limits.sql_bytes)?;
        let tables: Vec<String> = self.snapshot.tables.iter().map(|table| table.name.to_string()).collect();
        let lag = self.snapshot.lag;
        let session = self.template.session(self.snapshot, self.store, self.opener).map_err(engine)?;
        let shows_tables = statement::shows_tables(&statement);
        let mut plan = session.statement_to_plan(statement).await.map_err(|e| suggest_table(engine(e), &tables))?;
        // The statement's own check comes first and says more; this one is DataFusion's, on what the plan really does.
        SQLOptions::new()
            .with_allow_ddl(false)
            .with_allow_dml(false)
            .with_allow_statements(false)
            .verify_plan(&plan)
            .map_err(|_| QueryError::Refused { what: "a statement that changes something is".into() })?;
        if shows_tables {
            plan = listing::own_tables(plan).map_err(engine)?;
        }
        let result = collect(session, listing::plain_types(plan), limits, &self.template, &engine).await?;
        Ok(QueryResult { lag, ..result })
    }
}

async fn collect(
    session: SessionState,
    plan: LogicalPlan,
    limits: Limits,
    template: &SessionTemplate,
    engine: &(impl Fn(DataFusionError) -> QueryError + Sync),
) -> Result<QueryResult, QueryError> {
    let describes = matches!(plan, LogicalPlan::Explain(_) | LogicalPlan::Analyze(_) | LogicalPlan::DescribeTable(_));
    let context = SessionContext::new_with_state(session);
    let mut frame = context.execute_logical_plan(plan).await.map_err(engine)?;
    if !describes {
        // One more than is returned, to know whether there are more. As part of the plan it lets scans stop early.
        frame = frame.limit(0, Some(limits.rows.saturating_add(1))).map_err(engine)?;
    }
    let mut stream = frame.execute_stream().await.map_err(engine)?;
    let reservation = MemoryConsumer::new("result").register(&template.runtime().memory_pool);
    let mut result =
        QueryResult { schema: stream.schema(), batches: Vec::new(), rows: 0, truncated: false, lag: Lag::default() };
    let mut bytes = 0_usize;
    while let Some(batch) = stream.next().await {
        let mut batch = batch.map_err(engine)?;
        let room = limits.rows - result.rows;
        if batch.num_rows() > room {
            if !limits.cut {
                return Err(QueryError::ResultTooLarge { setting: "query.max_result_rows", limit: limits.rows });
            }
            result.truncated = true;
            batch = batch.slice(0, room);
        }
        if batch.num_rows() > 0 {
            let size = size_of(&batch);
            bytes = bytes.saturating_add(size);
            if bytes > limits.bytes {
                return Err(QueryError::ResultTooLarge { setting: "query.max_result_bytes", limit: limits.bytes });
            }
            reservation.try_grow(size).map_err(engine)?;
            result.rows += batch.num_rows();
            result.batches.push(batch);
        }
        if result.truncated {
            break;
        }
    }
    Ok(result)
}

/// Bytes of the rows of `batch`, without the parts of its buffers that belong to other rows.
fn size_of(batch: &RecordBatch) -> usize {
    batch
        .columns()
        .iter()
        .map(|c| c.to_data().get_slice_memory_size().unwrap_or_else(|_| c.get_array_memory_size()))
        .sum()
}
