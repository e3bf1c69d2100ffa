//! What `logseal bench ingest` sends and how it measures: a load generator that is itself cheap and repeatable.
//!
//! Requests are encoded before the clock starts, so that the measured time is the server's and the transport's. The
//! generators are written out in full, with golden bytes in `testdata/bench/`: a number measured today is comparable
//! with one measured in a year only if the bytes are the same.
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`payload`] | [`Payload`] and [`request`]: pre-encoded OTLP export requests |
//! | [`settings`] | [`BenchSettings`] and [`BenchError`] |
//! | [`driver`] | [`run`]: connections, calls in flight, resends |
//! | [`latency`] | a log-linear histogram of microseconds |
//! | [`probe`] | [`ServerProbe`]: CPU time and peak memory of a local server |
//! | [`report`] | [`Report`], as JSON and as text |

pub mod driver;
pub mod latency;
pub mod payload;
pub mod probe;
pub mod report;
pub mod settings;

mod codec;
mod plan;
mod retry;

pub use driver::run;
pub use payload::{Payload, request};
pub use probe::ServerProbe;
pub use report::{LatencyMs, Report};
pub use settings::{BenchError, BenchSettings};
