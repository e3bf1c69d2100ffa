//! Segments: Arrow columns to and from encrypted Parquet files in the object store.
//!
//! A segment is one immutable file of Parquet Modular Encryption (apache/parquet-format, `Encryption.md`): AES-256-GCM for
//! every module, encrypted footer, one data encryption key (DEK) for the whole file and no column keys, so that no byte of
//! a column, a statistic or a column's name is in clear. What is in clear: the file's path (ids and the day of receipt), its
//! size, the lengths of its modules, and the footer's key metadata, which name the AEK and hold the wrapped DEK.
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`encode`] | [`SegmentWriter`](encode::SegmentWriter): rows to file bytes, columns in parallel on rayon workers |
//! | `encoding` | which Parquet encoding each column gets |
//! | [`unify`] | one schema for the chunks of a segment |
//! | [`properties`] | the only file that holds Parquet's own key-bearing property types |
//! | [`footer`] | [`SegmentFooter`]: what a segment says about itself, in the encrypted footer |
//! | [`key_metadata`] | the PKMT1 JSON in the footer |
//! | [`inspect`] | what a file shows without any key |
//! | [`path`] | [`SegmentPath`]: where a segment lies |
//! | [`store`] | [`SegmentStore`]: durable, create-only puts; listing, reading, deleting |

pub mod encode;
mod encoding;
pub mod error;
pub mod footer;
pub mod inspect;
pub mod key_metadata;
pub mod path;
pub mod properties;
pub mod store;
pub mod unify;

pub use encode::{SealedSegment, SegmentIdentity, SegmentSettings};
pub use error::SegmentError;
pub use footer::{FooterColumn, FooterCoverage, SegmentFooter};
pub use path::SegmentPath;
pub use store::{SegmentStore, StoredObject};
