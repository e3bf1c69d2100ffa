//! `logseal config`.

use crate::commands::print;
use crate::config::{KEYS, default_text};
use crate::error::CommandError;

/// Prints every key as a commented TOML file that can be copied.
pub(crate) fn run() -> Result<(), CommandError> {
    let mut text = String::from(
        "# Every key with its default. Set by file (--config), LOGSEAL_<SECTION>_<KEY> or --set section.key=value.\n",
    );
    let mut section = "";
    for key in KEYS {
        let (own, name) = key.name.split_once('.').unwrap_or((key.name, ""));
        if own != section {
            section = own;
            text.push_str(&format!("\n[{section}]\n"));
        }
        text.push_str(&format!("# {} ({})\n{name} = {}\n", key.meaning, key.unit, default_text(key)));
    }
    print(text.as_bytes())
}
