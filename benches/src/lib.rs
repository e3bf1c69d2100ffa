//! Criterion stages.
