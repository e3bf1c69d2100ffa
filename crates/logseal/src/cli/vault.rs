//! Keys of the embedded vault, and who may use them.

use clap::Subcommand;

use super::names::{cluster, key_name, key_version};

#[derive(Debug, Subcommand)]
pub(crate) enum VaultCommand {
    /// Keys: make, show, rotate, enable, disable, delete
    #[command(subcommand)]
    Key(KeyCommand),
    /// Let a cluster use a key
    Grant {
        /// The key
        #[arg(long, value_name = "NAME", value_parser = key_name)]
        key: String,
        /// The cluster: a name of the data directory's resource group, or a whole id
        #[arg(long, value_name = "CLUSTER", value_parser = cluster)]
        cluster: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Take a key away from a cluster, which stops it within a minute if it is the cluster's own
    Revoke {
        /// The key
        #[arg(long, value_name = "NAME", value_parser = key_name)]
        key: String,
        /// The cluster: a name of the data directory's resource group, or a whole id
        #[arg(long, value_name = "CLUSTER", value_parser = cluster)]
        cluster: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// `vault versions NAME` is `vault key versions NAME`, and so are the others
    #[command(flatten)]
    Direct(KeyCommand),
}

#[derive(Debug, Subcommand)]
pub(crate) enum KeyCommand {
    /// Make a key, which this deployment's clusters may use; or a new version of one that is there
    Create {
        /// The key
        #[arg(value_parser = key_name)]
        name: String,
        /// Bits of its modulus: 2048, 3072 or 4096
        #[arg(long, value_name = "BITS", default_value_t = 3072, value_parser = size)]
        size: u32,
        /// Let no cluster use it until `vault grant` does
        #[arg(long)]
        no_grant: bool,
        /// Let it be purged before its 90 days of retention have ended; no cluster takes such a key
        #[arg(long)]
        purgeable: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// List the keys
    List {
        /// Those that are deleted and can be recovered
        #[arg(long)]
        deleted: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show a key: its newest version, and who may use it
    Show {
        /// The key
        #[arg(value_parser = key_name)]
        name: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// List the versions of a key, newest first
    Versions {
        /// The key
        #[arg(value_parser = key_name)]
        name: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Give a key a new version; clusters that pin a version stay with it
    Rotate {
        /// The key
        #[arg(value_parser = key_name)]
        name: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Enable one version of a key, or all of them
    Enable {
        /// The key
        #[arg(value_parser = key_name)]
        name: String,
        /// Only this one [default: every version]
        #[arg(long, value_name = "VERSION", value_parser = key_version)]
        version: Option<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Disable one version of a key, or all of them: what they protect cannot be read until they are enabled
    Disable {
        /// The key
        #[arg(value_parser = key_name)]
        name: String,
        /// Only this one [default: every version]
        #[arg(long, value_name = "VERSION", value_parser = key_version)]
        version: Option<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Delete a key; it can be recovered for 90 days
    Delete {
        /// The key
        #[arg(value_parser = key_name)]
        name: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Bring a deleted key back
    Recover {
        /// The key
        #[arg(value_parser = key_name)]
        name: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Remove a deleted key for good, if it was made with --purgeable
    Purge {
        /// The key
        #[arg(value_parser = key_name)]
        name: String,
    },
}

/// A size that a key may have.
fn size(text: &str) -> Result<u32, String> {
    let known = logseal_vault::embedded::RSA_BITS;
    let bits = text.parse().ok().filter(|bits| known.contains(bits));
    bits.ok_or_else(|| "a key has 2048, 3072 or 4096 bits".to_owned())
}
