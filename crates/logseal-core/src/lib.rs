//! Words that every other Logseal crate uses: ids, time, randomness, names, limits, and how errors are shown.
//!
//! Nothing here performs I/O beyond reading the clock, and nothing is asynchronous. Time and randomness are traits, so
//! that callers receive them as values and tests can replace them.
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`bucket`] | [`Bucket`]: so much at once, and so much in a while |
//! | [`chain`] | [`Chain`]: an error with its causes on one line |
//! | [`clock`] | [`Clock`] of the wall, [`SteadyClock`] for durations, [`UnixNanos`] |
//! | [`id`] | typed UUIDs: [`WorkspaceId`], [`SegmentId`], ... and their generator |
//! | [`limit`] | sizes that bound what the outside world can make the server do |
//! | [`peer`] | [`Peer`]: the address that a connection comes from; [`Standing`]: whether its client proved anything |
//! | [`random`] | [`RandomSource`], implemented by `logseal-crypto` |
//! | [`stack`] | wipes what functions left on the stack |
//! | [`table_name`] | [`TableName`] |

pub mod bucket;
pub mod chain;
pub mod clock;
pub mod id;
pub mod limit;
pub mod peer;
pub mod random;
pub mod stack;
pub mod table_name;

pub use bucket::Bucket;
pub use chain::Chain;
pub use clock::{Clock, SteadyClock, SystemClock, SystemSteadyClock, UnixNanos};
pub use id::{
    AekId, ClusterId, IdGenerator, NodeId, OperationId, ResourceId, SegmentId, TableId, WalFileId, WorkspaceId,
};
pub use peer::{Peer, Standing};
pub use random::RandomSource;
pub use table_name::{TableName, TableNameError};
