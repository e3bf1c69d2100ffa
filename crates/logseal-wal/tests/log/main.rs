//! The log on real and simulated disks: round trips, damage, faults, power failures, golden bytes.

#![expect(
    clippy::unwrap_used,
    reason = "functions that tests share may fail their test; clippy exempts only test functions"
)]

mod alter;
mod chain;
mod damage;
mod faults;
mod fixture;
mod golden;
mod power;
mod quarantine;
mod rubbish;
mod writing;
