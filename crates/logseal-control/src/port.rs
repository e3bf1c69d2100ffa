//! What the API needs of others.

use std::fmt::Debug;
use std::time::Duration;

use async_trait::async_trait;
use logseal_core::WorkspaceId;

/// The forms in which a query's result can be asked for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum QueryFormat {
    /// `{"tables":[{"name","columns","rows"}]}`, as Azure Monitor's query API writes it.
    Tables,
    /// An array of row objects.
    Json,
    /// Comma-separated values with a header line (RFC 4180).
    Csv,
    /// An Arrow IPC stream.
    Arrow,
}

impl QueryFormat {
    /// The media type of the form.
    #[must_use]
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Tables | Self::Json => "application/json",
            Self::Csv => "text/csv; charset=utf-8",
            Self::Arrow => "application/vnd.apache.arrow.stream",
        }
    }
}

/// A query's result.
#[derive(Clone, Debug)]
pub struct QueryAnswer {
    /// The result in the form that was asked for.
    pub body: Vec<u8>,
    /// Whether there were more rows than the limit.
    pub truncated: bool,
    /// Records of the workspace that are acknowledged, in memory and in no segment yet; the result has them.
    pub unsealed_records: u64,
    /// How long ago the oldest of them was received: how far segments are behind.
    pub lag: Duration,
}

/// Whose fault a failed query is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum QueryFailureKind {
    /// The query is wrong or asks for something that is not offered.
    Invalid,
    /// The query needs more memory, time or rows than it may have.
    LimitExceeded,
    /// A segment cannot be read.
    Damaged,
    /// Passing trouble on our side.
    Unavailable,
}

/// A failed query. The message goes to the caller only: it may quote the query.
#[derive(Clone, Debug)]
pub struct QueryFailure {
    /// Whose fault it is.
    pub kind: QueryFailureKind,
    /// A code for programs.
    pub code: &'static str,
    /// A message for people.
    pub message: String,
}

/// Runs queries.
#[async_trait]
pub trait Queries: Debug + Send + Sync {
    /// Runs `sql` over the tables of `workspace` and gives at most `row_limit` rows.
    async fn run(
        &self,
        workspace: WorkspaceId,
        sql: &str,
        row_limit: Option<usize>,
        format: QueryFormat,
    ) -> Result<QueryAnswer, QueryFailure>;
}

/// Renders the metrics in Prometheus' text format.
pub trait MetricsText: Debug + Send + Sync {
    /// The text.
    fn render(&self) -> String;
}
