//! `logseal`: the server and its command line. Wiring only; the engine is in the other crates.

mod cli;
mod client;
mod commands;
mod config;
mod core_image;
mod credentials;
mod data_dir;
mod error;
mod root_key;
mod serve;

use std::process::ExitCode;
use std::time::Duration;

use logseal_alloc::{WipingAllocator, keep_freed_pages};
use logseal_core::stack;

use crate::cli::{Cli, Command};
use crate::error::{Chain, CommandError};

/// Of keys and records nothing stays in free memory.
#[global_allocator]
static ALLOCATOR: WipingAllocator = WipingAllocator::new();

/// What of its stack an async thread wipes before it waits for work: bodies and keys went through it. A busy thread never waits.
const WIPED_BYTES: usize = 64 * 1024;

/// Long enough that a server under load finds most of the memory that it freed; after a burst it is given back within a second or two.
const FREED_PAGES_KEPT_MS: u16 = 50;

fn main() -> ExitCode {
    keep_freed_pages(FREED_PAGES_KEPT_MS);
    quiet_panics();
    core_image::refuse();
    // clap answers usage errors with exit code 2, and --help and --version with 0.
    let cli = Cli::of_process();
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .on_thread_park(stack::wipe::<WIPED_BYTES>)
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return report(&CommandError::Io { what: "start the async runtime".into(), source: error }),
    };
    let ended = runtime.block_on(run(cli));
    // A blocking call that hangs, such as a sync of a dead disk, must not keep the process.
    runtime.shutdown_timeout(Duration::from_secs(2));
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => report(&error),
    }
}

/// A panic's own text may quote the data that caused it: only its place is reported.
#[expect(clippy::print_stderr, reason = "a panic may come before or after the log exists")]
fn quiet_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        eprintln!("logseal: a panic at {place}; its text is withheld, since it may hold log content");
    }));
}

async fn run(cli: Cli) -> Result<(), CommandError> {
    let data_dir = &cli.data_dir;
    match cli.command {
        Command::Serve(options) => serve::serve(data_dir, &options).await,
        Command::Query(options) => commands::query::run(data_dir, &options).await,
        Command::Cluster(managing) => commands::cluster::run(data_dir, &managing).await,
        Command::Workspace(managing) => commands::workspace::run(data_dir, &managing).await,
        Command::Operation(managing) => commands::operation::run(data_dir, &managing).await,
        Command::Vault(command) => commands::vault::run(data_dir, &command).await,
        Command::Token(managing) => commands::token::run(data_dir, &managing).await,
        Command::Audit(managing) => commands::audit::run(data_dir, &managing).await,
        Command::Segment(command) => commands::segment::run(data_dir, &command).await,
        Command::Catalog(command) => commands::catalog::run(data_dir, &command).await,
        Command::Wal(command) => commands::wal::run(data_dir, &command).await,
        Command::Config => commands::config::run(),
        Command::Bench(command) => commands::bench::run(data_dir, &command).await,
        Command::Completions { shell } => commands::completions::run(shell),
    }
}

#[expect(clippy::print_stderr, reason = "the command line's own error output")]
fn report(error: &CommandError) -> ExitCode {
    let text = Chain(error).to_string();
    let lines: Vec<_> = text.lines().map(commands::printable).collect();
    eprintln!("logseal: {}", lines.join("\n"));
    ExitCode::from(if error.is_usage() { 2 } else { 1 })
}
