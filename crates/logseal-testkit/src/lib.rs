//! Development only: what tests of the real binary need.
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`server`] | [`Server`]: starts the binary, waits for its ready line, queries it, stops it |
//! | [`ship`] | raw OTLP requests over gRPC |
//! | [`canary`] | [`Canary`](canary::Canary): finds text in files in every usual encoding |

pub mod canary;
pub mod server;
pub mod ship;

pub use server::Server;
