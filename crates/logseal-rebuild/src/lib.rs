//! A lost or outdated catalog made whole again from what outlives it: the store, the vault and the root key.
//!
//! The store holds a copy of each wrapped account key, with the names of its workspace and cluster and a MAC under the root key;
//! each segment says in its encrypted footer which workspace, table, columns and frames of the write-ahead log it holds. That is
//! all that a catalog says of them, so [`Rebuild::take_in`] can put it back: into an empty catalog, or into an older copy that
//! does not know what came after it.
//!
//! Nothing in the store is ever changed or deleted. What is not taken in is named with its reason, see [`report`].
//!
//! # What is believed
//!
//! A key copy is believed when its MAC under the root key holds, its key when the vault unwraps it and it is the one that the copy
//! commits to. A segment is believed when its wrapped key opens under the account key that it names and its footer opens under
//! that for the ids in its path. So who can write the store can plant neither; he can take objects away, and put old ones back.
//!
//! # Each record once
//!
//! A store may hold segments that no catalog ever took: a crash came between put and commit, and the replay of the log made the
//! next one with the same records. Frames that are settled in the catalog are settled; of the segments that claim the same frames
//! those are chosen that cover most and overlap nowhere (see [`report::Outcome`]). The log's frames that no chosen segment
//! has are replayed by the next start.
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`take_in`](mod@take_in) | [`Rebuild`]: keys and segments into a catalog |
//! | [`report`] | [`Report`]: what was taken in, and what was not, with reasons |
//! | [`place`] | [`Place`]: a new catalog put in the place of another one, which is kept |
//! | `copies` | the copies of wrapped keys in the store |
//! | `object` | what a path in the store says |
//! | `ends` | the two ends of an object, all that its footer needs |
//! | `choice` | which segments to take when several claim the same frames; pure |
//! | `tables` | tables and columns as the catalog has them, while segments add theirs |

mod choice;
mod copies;
mod ends;
pub mod error;
mod object;
pub mod place;
pub mod report;
mod tables;
pub mod take_in;

pub use error::RebuildError;
pub use place::Place;
pub use report::Report;
pub use take_in::{Rebuild, WorkspaceSecret};
