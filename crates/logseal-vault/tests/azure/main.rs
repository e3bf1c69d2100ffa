//! The Azure Key Vault client against a scripted server over real TLS: every answer, every way to break, and who is called at all.

#![expect(
    clippy::unwrap_used,
    reason = "what fails here is the test; clippy takes functions beside the tests for production code"
)]

mod answers;
mod face;
#[cfg(feature = "azure")]
mod identity;
mod network;
mod stub;
mod tokens;
mod world;
