//! Tokens of the management API.

use clap::Subcommand;

use super::names::{lifetime, role, token_name, workspace};

#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Make a token and print it, this once
    ///
    /// A reader queries the workspaces that it names, an operator changes resources, a key officer changes keys, an auditor reads the audit trail,
    /// operations and metrics. A token never changes: delete it and make another one.
    Create {
        /// What to call it: lower-case letters, digits and hyphens
        #[arg(long, value_name = "NAME", value_parser = token_name)]
        name: String,
        /// reader, operator, key-officer or auditor
        #[arg(long, value_name = "ROLE", value_parser = role)]
        role: String,
        /// A workspace that a reader may query, by name or id, may be repeated
        #[arg(long, value_name = "NAME", value_parser = workspace)]
        workspace: Vec<String>,
        /// After how long it opens nothing any more, such as 90d, 12h or 30m [default: never]
        #[arg(long, value_name = "DURATION", value_parser = lifetime)]
        expires: Option<u64>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// List the tokens: roles, workspaces, ends, last uses since the server's start
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Delete a token; it opens nothing any more at once
    Delete {
        /// The token's name
        #[arg(value_parser = token_name)]
        name: String,
    },
}
