//! `logseal config`.

use crate::commands::print;
use crate::config::example;
use crate::error::CommandError;

/// Prints every key as a commented TOML file that can be copied.
pub(crate) fn run() -> Result<(), CommandError> {
    print(example().as_bytes())
}
