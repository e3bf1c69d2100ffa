//! `logseal completions`.

use clap::CommandFactory as _;
use clap_complete::{Shell, generate};

use crate::cli::Cli;
use crate::commands::print;
use crate::error::CommandError;

/// Prints the script for `shell`.
pub(crate) fn run(shell: Shell) -> Result<(), CommandError> {
    // It would panic when it writes to a pipe whose reader has gone.
    let mut script = Vec::new();
    generate(shell, &mut Cli::command(), "logseal", &mut script);
    print(&script)
}
