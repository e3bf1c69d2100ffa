//! The door, served on real sockets and driven by raw clients: OTLP/gRPC, and in `http` OTLP/HTTP.
//!
//! Codes are written as numbers, as they travel: 0 OK, 3 `INVALID_ARGUMENT`, 4 `DEADLINE_EXCEEDED`, 8
//! `RESOURCE_EXHAUSTED`, 12 `UNIMPLEMENTED`, 14 `UNAVAILABLE`, 16 `UNAUTHENTICATED`.

mod admission;
mod bodies;
mod caps;
mod counting;
mod harness;
mod http;
mod lifecycle;
