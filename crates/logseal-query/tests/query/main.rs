//! Queries over encrypted segments that the tests write themselves.
//!
//! One binary, since each one links DataFusion anew.

mod attributes;
mod damage;
mod fixture;
mod formats;
mod limits;
mod pruning;
mod refusals;
mod rows;
mod unsealed;
