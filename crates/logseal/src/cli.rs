//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Encrypted log ingestion: OTLP in, sealed Parquet segments out, SQL over them.
#[derive(Debug, Parser)]
#[command(name = "logseal", version, max_term_width = 110)]
pub(crate) struct Cli {
    /// Everything the server keeps; commands read addresses and credentials from it
    #[arg(long, global = true, value_name = "DIR", default_value = "./logseal-data", env = "LOGSEAL_DATA_DIR")]
    pub(crate) data_dir: PathBuf,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the server
    Serve(ServeOptions),
    /// Run a SQL query and print its result
    Query(QueryOptions),
    /// Workspaces and their keys
    #[command(subcommand)]
    Workspace(WorkspaceCommand),
    /// Sealed segments
    #[command(subcommand)]
    Segment(SegmentCommand),
    /// Copies of the catalog, and its return
    #[command(subcommand)]
    Catalog(CatalogCommand),
    /// The write-ahead log
    #[command(subcommand)]
    Wal(WalCommand),
    /// Print every configuration key with its default, unit and meaning
    Config,
    /// Measure throughput
    #[command(subcommand)]
    Bench(BenchCommand),
}

#[derive(Args, Debug)]
pub(crate) struct ServeOptions {
    /// Configuration file (TOML)
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Address of OTLP/gRPC; port 0 picks a free one
    #[arg(long, value_name = "ADDR")]
    pub(crate) otlp_grpc: Option<SocketAddr>,
    /// Address of the management API; port 0 picks a free one
    #[arg(long, value_name = "ADDR")]
    pub(crate) management: Option<SocketAddr>,
    /// Set one configuration key; `logseal config` lists them
    #[arg(long, value_name = "SECTION.KEY=VALUE")]
    pub(crate) set: Vec<String>,
}

#[derive(Args, Debug)]
pub(crate) struct QueryOptions {
    /// One query: SELECT, SHOW TABLES, DESCRIBE or EXPLAIN
    pub(crate) sql: String,
    /// The workspace to query
    #[arg(long, value_name = "NAME", default_value = "default", value_parser = resource_name)]
    pub(crate) workspace: String,
    /// How to print the result
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub(crate) format: Format,
    /// Most rows to print; 0 for no limit [default: 1000 for tables, no limit otherwise]
    #[arg(long, value_name = "N")]
    pub(crate) max_rows: Option<usize>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum Format {
    /// Aligned columns for people
    Table,
    /// An array of row objects
    Json,
    /// Comma-separated values with a header line
    Csv,
    /// An Arrow IPC stream
    Arrow,
}

#[derive(Debug, Subcommand)]
pub(crate) enum WorkspaceCommand {
    /// List the workspaces
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show the two keys that shippers of a workspace may present
    Keys {
        /// The workspace
        #[arg(value_parser = resource_name)]
        name: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum SegmentCommand {
    /// List the segments that the catalog has
    List {
        /// Only those of this workspace
        #[arg(long, value_name = "NAME", value_parser = resource_name)]
        workspace: Option<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show layout and key ids of a segment's file, without any key
    Inspect {
        /// The file
        file: PathBuf,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Take in segments of the store that the catalog does not know; the server must be stopped
    ///
    /// A catalog that was put back from a file by hand does not know what came after it. Each record stays there once: a segment whose
    /// records the catalog has elsewhere is reported. Nothing is deleted.
    Adopt(OfflineOptions),
}

#[derive(Debug, Subcommand)]
pub(crate) enum CatalogCommand {
    /// Copy the catalog, consistently, while the server may run
    ///
    /// The copy is of no use without the root key, which is not in it.
    Backup {
        /// The new file; must not exist
        file: PathBuf,
    },
    /// Put a copy in the catalog's place; the server must be stopped
    ///
    /// What came after the copy is taken in from the store and, at the next start, from the write-ahead log. The present catalog is
    /// kept under another name.
    Restore {
        /// What `catalog backup` made
        file: PathBuf,
        #[command(flatten)]
        options: OfflineOptions,
    },
    /// Make a lost catalog anew from the store, the vault and the root key; the server must be stopped
    ///
    /// Refused while there is a catalog. Access keys of workspaces are new, but for the one in credentials.json.
    Rebuild(OfflineOptions),
}

/// Options of commands that work on a stopped server's files.
#[derive(Args, Debug)]
pub(crate) struct OfflineOptions {
    /// The server's configuration file (TOML)
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Set one configuration key, as for the server
    #[arg(long, value_name = "SECTION.KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum WalCommand {
    /// Show the files of a log with their positions, key ids and tables, without any key of theirs
    ///
    /// Of a data directory also which frames the catalog has as settled, in which segment or in quarantine. The catalog's rows are
    /// checked with the root key.
    Inspect {
        /// A data directory, a folder of its log, or its quarantine
        dir: PathBuf,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// List the parts of the log that are in quarantine, without any key; the server may run or not
    Quarantine {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Check the files of a log: checksums, chain and ends without any key, with keys also each entry's seal
    Verify {
        /// A data directory, a folder of its log, or its quarantine
        dir: PathBuf,
        /// Open each entry with the keys of --data-dir; nothing of what they hold is shown
        #[arg(long)]
        with_keys: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum BenchCommand {
    /// Ship generated records to a running server and report rates and latencies
    Ingest(BenchIngestOptions),
}

#[derive(Args, Debug)]
pub(crate) struct BenchIngestOptions {
    /// OTLP/gRPC endpoint [default: the server of the data directory]
    #[arg(long, value_name = "URL")]
    pub(crate) endpoint: Option<String>,
    /// Records to ship
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    pub(crate) records: u64,
    /// Records a second, sent at an open pace: each request starts at its time, answered or not those before it
    ///
    /// Requests that find no call in flight free start late, and their latency counts from the time at which they were
    /// due. Without it each call sends its next request when the previous one was answered.
    #[arg(long, value_name = "RECORDS_PER_S", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) rate: Option<u64>,
    /// Records a request [default: what the payload says]
    #[arg(long, value_name = "N")]
    pub(crate) batch: Option<usize>,
    /// Connections
    #[arg(long, value_name = "N", default_value_t = 2)]
    pub(crate) connections: usize,
    /// Requests in flight on each connection
    #[arg(long, value_name = "N")]
    pub(crate) in_flight: Option<usize>,
    /// a: access log, 350 B, 1,000 a request; b: 1 KB bodies, 1,000 a request; c: as a, 10 a request
    #[arg(long, value_enum, default_value_t = PayloadName::A)]
    pub(crate) payload: PayloadName,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum PayloadName {
    A,
    B,
    C,
}

/// The grammar of resource names, as Azure Resource Manager has it for Log Analytics: such a name is safe in a URL.
fn resource_name(text: &str) -> Result<String, &'static str> {
    let inner = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    let ends = !text.starts_with('-') && !text.ends_with('-');
    if (4..=63).contains(&text.len()) && inner && ends {
        Ok(text.to_owned())
    } else {
        Err("a name has 4 to 63 letters, digits and hyphens, and neither begins nor ends with a hyphen")
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn names_that_would_change_a_url_are_refused() {
        assert!(resource_name("default").is_ok() && resource_name("a-b4").is_ok());
        for bad in ["", "abc", "a/../b", "a b c", "-abc", "abc-", "a?b=c", "caf\u{e9}s", &"a".repeat(64)] {
            assert!(resource_name(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
