//! The command line.
//!
//! | module | what it holds |
//! | --- | --- |
//! | `control` | clusters, workspaces, operations, audit: what the management API changes and shows |
//! | `files` | segments, the catalog, the write-ahead log: what lies on the disk |
//! | `vault` | keys of the embedded vault, and who may use them |
//! | `token` | tokens of the management API |
//! | `names` | what is well-formed as a name or a value |

mod control;
mod files;
pub(crate) mod names;
mod token;
mod vault;

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::parser::ValueSource;
use clap::{ArgMatches, Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

pub(crate) use self::control::{
    AuditCommand, ClusterCommand, ClusterIdentity, ClusterKey, ClusterSettings, Following, OperationCommand,
    OperationStatus, WorkspaceCommand, WorkspaceSettings,
};
pub(crate) use self::files::{CatalogCommand, OfflineOptions, SegmentCommand, WalCommand};
use self::names::{resource_group, resource_name, uuid};
pub(crate) use self::token::TokenCommand;
pub(crate) use self::vault::{KeyCommand, VaultCommand};

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
    /// Clusters and the keys that protect them
    Cluster(Managing<ClusterCommand>),
    /// Workspaces: their settings, their cluster and their shippers' keys
    Workspace(Managing<WorkspaceCommand>),
    /// Asynchronous changes of clusters and workspaces
    Operation(Managing<OperationCommand>),
    /// Keys of the embedded key vault, and who may use them
    #[command(subcommand)]
    Vault(VaultCommand),
    /// Tokens that open the management API, each for a role
    Token(Managing<TokenCommand>),
    /// Who changed what, and whether the record of it is whole
    Audit(Managing<AuditCommand>),
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
    /// Print a script that completes commands and options
    ///
    /// For bash: logseal completions bash > ~/.local/share/bash-completion/completions/logseal
    Completions {
        /// The shell
        #[arg(value_enum)]
        shell: Shell,
    },
}

/// A command that a server carries out, and which server.
#[derive(Args, Debug)]
pub(crate) struct Managing<C: Subcommand> {
    #[command(flatten)]
    pub(crate) server: ServerOptions,
    #[command(subcommand)]
    pub(crate) command: C,
}

/// Which server a command is for, and where in it resources are.
///
/// They stand behind the command's first word, since `bench ingest --endpoint` is another endpoint.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Server")]
pub(crate) struct ServerOptions {
    /// Management URL of a server elsewhere; then no data directory is needed, but --token-file
    #[arg(long, global = true, value_name = "URL", env = "LOGSEAL_ENDPOINT")]
    pub(crate) endpoint: Option<String>,
    /// Authorities to trust for an https:// endpoint (PEM) [default: those that this machine trusts]
    #[arg(long, global = true, value_name = "FILE", env = "LOGSEAL_CA_FILE")]
    pub(crate) ca_file: Option<PathBuf>,
    /// File with a token for --endpoint
    #[arg(long, global = true, value_name = "FILE", env = "LOGSEAL_TOKEN_FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// Subscription of the resources [default: that of the data directory, else zeros]
    #[arg(long, global = true, value_name = "UUID", env = "LOGSEAL_SUBSCRIPTION", value_parser = uuid)]
    pub(crate) subscription: Option<String>,
    /// Resource group of the resources [default: that of the data directory, else `default`]
    #[arg(long, global = true, value_name = "NAME", env = "LOGSEAL_RESOURCE_GROUP", value_parser = resource_group)]
    pub(crate) resource_group: Option<String>,
}

impl Cli {
    /// Reads the process's arguments; ends the process with code 2 when they are wrong.
    pub(crate) fn of_process() -> Self {
        Self::of(Self::command().get_matches()).unwrap_or_else(|error| error.exit())
    }

    fn of(matches: ArgMatches) -> Result<Self, clap::Error> {
        let has_own_data_dir = matches.value_source("data_dir") == Some(ValueSource::CommandLine);
        let endpoint = endpoint_source(&matches);
        let mut cli = Self::from_arg_matches(&matches)?;
        if let Some(server) = cli.server_options().filter(|_| has_own_data_dir) {
            if endpoint == Some(ValueSource::CommandLine) {
                let message = "--endpoint is another server than that of --data-dir: give one of them";
                return Err(Self::command().error(clap::error::ErrorKind::ArgumentConflict, message));
            }
            // What stands in the command line counts more than the environment.
            (server.endpoint, server.ca_file, server.token_file) = (None, None, None);
        }
        Ok(cli)
    }

    fn server_options(&mut self) -> Option<&mut ServerOptions> {
        match &mut self.command {
            Command::Query(options) => Some(&mut options.server),
            Command::Cluster(managing) => Some(&mut managing.server),
            Command::Workspace(managing) => Some(&mut managing.server),
            Command::Operation(managing) => Some(&mut managing.server),
            Command::Token(managing) => Some(&mut managing.server),
            Command::Audit(managing) => Some(&mut managing.server),
            Command::Segment(SegmentCommand::List { server, .. } | SegmentCommand::ExportKey { server, .. }) => {
                Some(server)
            }
            _ => None,
        }
    }
}

/// Where the value of the server options' `--endpoint` is from.
fn endpoint_source(matches: &ArgMatches) -> Option<ValueSource> {
    let (_, below) = matches.subcommand()?;
    let here = below.try_get_one::<String>("endpoint").is_ok().then(|| below.value_source("endpoint")).flatten();
    here.max(endpoint_source(below))
}

#[derive(Args, Debug)]
pub(crate) struct ServeOptions {
    /// Configuration file (TOML)
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Address of OTLP/gRPC; port 0 picks a free one
    #[arg(long, value_name = "ADDR")]
    pub(crate) otlp_grpc: Option<SocketAddr>,
    /// Address of OTLP/HTTP; port 0 picks a free one
    #[arg(long, value_name = "ADDR")]
    pub(crate) otlp_http: Option<SocketAddr>,
    /// Address of the management API; port 0 picks a free one
    #[arg(long, value_name = "ADDR")]
    pub(crate) management: Option<SocketAddr>,
    /// Address of the embedded key vault; port 0 picks a free one
    #[arg(long, value_name = "ADDR")]
    pub(crate) vault: Option<SocketAddr>,
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
    #[command(flatten)]
    pub(crate) server: ServerOptions,
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
pub(crate) enum BenchCommand {
    /// Ship generated records to a running server and report rates and latencies
    Ingest(BenchIngestOptions),
}

#[derive(Args, Debug)]
pub(crate) struct BenchIngestOptions {
    /// OTLP/gRPC endpoint [default: the server of the data directory]
    #[arg(long, value_name = "URL")]
    pub(crate) endpoint: Option<String>,
    /// Authorities to trust for an https:// endpoint (PEM) [default: those that this machine trusts]
    #[arg(long, value_name = "FILE", env = "LOGSEAL_CA_FILE")]
    pub(crate) ca_file: Option<PathBuf>,
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

#[cfg(test)]
mod tests;
