//! What configuration decides about queries.

use serde::{Deserialize, Serialize};

use crate::error::QueryError;

/// Section `query` of the configuration.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct QuerySettings {
    /// Memory in bytes that all running queries together may hold in sorts, joins, aggregates and collected results.
    pub memory_bytes: usize,
    /// Longest time in milliseconds from the call to the complete result.
    pub timeout_ms: u64,
    /// Queries that run at the same time; more wait, within their own time limit.
    pub concurrent_queries: usize,
    /// Partitions a plan is split into, and threads that work on plans; 0 means one per processor.
    pub target_partitions: usize,
    /// Most rows of a result.
    pub max_result_rows: usize,
    /// Most bytes of a result, in Arrow's representation.
    pub max_result_bytes: usize,
    /// Longest SQL text in bytes.
    pub max_sql_bytes: usize,
}

impl Default for QuerySettings {
    fn default() -> Self {
        Self {
            // As much as ingest's budget: both together leave room on a machine with 1 GiB.
            memory_bytes: 256 * 1024 * 1024,
            // Below the 100 s after which common HTTP proxies give up, long enough for a scan of some 100 GB.
            timeout_ms: 60_000,
            // Pages being decoded are not counted by the memory pool (about 10 MiB a partition), so their number is
            // bounded here.
            concurrent_queries: 8,
            target_partitions: 0,
            // A client that wants more should take it in time ranges: a result is held in memory until it is sent.
            max_result_rows: 1_000_000,
            max_result_bytes: 128 * 1024 * 1024,
            // Room for an IN list of some thousand ids; the nesting of an expression is bounded by its text.
            max_sql_bytes: 64 * 1024,
        }
    }
}

impl QuerySettings {
    /// Refuses values with which no query could run.
    ///
    /// # Errors
    ///
    /// When a setting is 0 that must not be; the message names it.
    pub fn validate(&self) -> Result<(), QueryError> {
        let Self {
            memory_bytes,
            timeout_ms,
            concurrent_queries,
            target_partitions: _,
            max_result_rows,
            max_result_bytes,
            max_sql_bytes,
        } = self;
        let zeros = [
            ("query.memory_bytes", *memory_bytes == 0),
            ("query.timeout_ms", *timeout_ms == 0),
            ("query.concurrent_queries", *concurrent_queries == 0),
            ("query.max_result_rows", *max_result_rows == 0),
            ("query.max_result_bytes", *max_result_bytes == 0),
            ("query.max_sql_bytes", *max_sql_bytes == 0),
        ];
        match zeros.iter().find(|(_, zero)| *zero) {
            Some((name, _)) => Err(QueryError::Internal { message: format!("`{name}` must be above 0") }),
            None => Ok(()),
        }
    }

    /// The number of partitions and threads, with 0 resolved.
    pub(crate) fn partitions(&self) -> usize {
        match self.target_partitions {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            n => n,
        }
    }
}
