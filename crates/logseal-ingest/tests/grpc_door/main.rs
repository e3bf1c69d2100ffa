//! The gRPC door, served on a real socket and driven by a raw HTTP/2 client.
//!
//! Codes are written as numbers, as they travel: 0 OK, 3 `INVALID_ARGUMENT`, 4 `DEADLINE_EXCEEDED`, 8
//! `RESOURCE_EXHAUSTED`, 12 `UNIMPLEMENTED`, 14 `UNAVAILABLE`, 16 `UNAUTHENTICATED`.

mod admission;
mod bodies;
mod caps;
mod counting;
mod harness;
mod lifecycle;
