//! The pipeline behind a served door, over a disk and a store that fail on command: what was acknowledged is there exactly once.

#![expect(
    clippy::unwrap_used,
    reason = "functions that tests share may fail their test; clippy exempts only test functions"
)]

mod aside;
mod closing;
mod counters;
mod life;
mod moving;
mod once;
mod quarantine;
mod records;
mod recovering;
mod rotating;
mod settings;
mod shredding;
mod space;
mod store;
mod sync;
mod together;
mod withheld;
mod world;
