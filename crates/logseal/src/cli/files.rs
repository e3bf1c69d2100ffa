//! The commands that work on what lies on the disk: segments, the catalog, the write-ahead log.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::ServerOptions;
use super::names::{resource_name, uuid};

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
        #[command(flatten)]
        server: ServerOptions,
    },
    /// Show layout and key ids of a segment's file, without any key
    Inspect {
        /// The file
        file: PathBuf,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Print the key of one segment, for readers that take a key itself; the server must run
    ///
    /// The key opens that file for ever, also after the cluster's key was revoked. It is printed and kept nowhere; the audit trail has a record
    /// of it. Readers with a client of a key management service need none: they ask the server by what stands in the file.
    ExportKey {
        /// The segment; `logseal segment list` shows them
        #[arg(value_name = "ID", value_parser = uuid)]
        segment: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        server: ServerOptions,
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
