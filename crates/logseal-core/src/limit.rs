//! Hard limits. Configuration may set smaller values where it says so, never larger ones.

/// Longest table name in bytes.
pub const TABLE_NAME_BYTES: usize = 63;

/// Tables a workspace; a record that asks for one more lands in `logs`.
pub const TABLES_PER_WORKSPACE: usize = 100;

/// Longest attribute key in bytes that can become a column; a longer one stays in `overflow`.
pub const COLUMN_KEY_BYTES: usize = 256;

/// Most attribute columns a table may be configured to have, over its three attribute containers together.
///
/// A row group's ordinal of a column is an `i16` in Parquet Modular Encryption (`Encryption.md`, section 4.4.1), which
/// leaves room for this many and the fixed columns many times over; more makes every file's footer large.
pub const ATTRIBUTE_COLUMNS: usize = 4096;

/// Deepest nesting of an `AnyValue` that is decoded; prost's own limit of 100 messages is about half of its values.
///
/// A record with a deeper value is rejected by partial success.
pub const VALUE_NESTING: usize = 64;

/// Largest OTLP request in bytes after decompression, unless configuration sets less: the recommended default of the
/// OTLP specification (v1.11.0).
pub const REQUEST_BYTES: usize = 64 * 1024 * 1024;
