//! Development only: what tests of the real binary need.
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`server`] | [`Server`]: starts the binary, waits for its ready line, queries it, stops it |
//! | [`ship`] | raw OTLP requests over gRPC |
//! | [`disk`] | [`SimulatedDisk`]: power failures, full disks and I/O errors on command |
//! | [`canary`] | [`Canary`](canary::Canary): finds text in files in every usual encoding |
//! | [`fleet`] | [`Fleet`](fleet::Fleet): shippers that never give a record up and keep ledgers of what was acknowledged |
//! | [`record`] | numbered records that follow from a seed and carry a hash of themselves |
//! | [`ledger`] | [`Ledger`](ledger::Ledger): what one shipper sent, and what was acknowledged |
//! | [`compare`] | [`Comparison`](compare::Comparison): ledgers against store |
//! | [`vault`] | [`ScriptedVault`](vault::ScriptedVault): a key vault that answers as it is told |
//! | [`memory`] | [`Secrets`](memory::Secrets): finds keys and text in the memory of a running process |
//! | [`store`] | [`FaultyStore`](store::FaultyStore): an object store that fails on command |

pub mod canary;
pub mod compare;
pub mod disk;
pub mod fleet;
pub mod ledger;
pub mod memory;
pub mod record;
pub mod server;
pub mod ship;
pub mod store;
pub mod vault;

pub use disk::SimulatedDisk;
pub use server::Server;
