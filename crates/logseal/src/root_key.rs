//! Where the root key comes from: a configured file, the environment, else a file that the first start makes.

use std::fs;
use std::path::{Path, PathBuf};

use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use logseal_crypto::{Key256, OsRandom, RootKey};
use tracing::warn;
use zeroize::Zeroizing;

use crate::data_dir::{DataDir, replace_private};
use crate::error::CommandError;

/// The environment variable that may hold the root key.
pub(crate) const VARIABLE: &str = "LOGSEAL_ROOT_KEY";

/// The root key and whether we made it ourselves.
pub(crate) struct FoundRootKey {
    pub(crate) key: RootKey,
    /// It lies in the data directory: who copies that can read everything.
    pub(crate) generated: bool,
}

/// Where a generated root key lies.
fn generated_file(data_dir: &Path) -> PathBuf {
    data_dir.join("vault/root.key")
}

/// The root key of a data directory that has been in use: `file` if configured, else the environment, else the generated one.
pub(crate) fn existing(data_dir: &Path, file: &str) -> Result<RootKey, CommandError> {
    if !file.is_empty() {
        return read(Path::new(file));
    }
    match std::env::var(VARIABLE) {
        Ok(text) => parse(&Zeroizing::new(text), &format!("the variable {VARIABLE}")),
        Err(_) => read(&generated_file(data_dir)),
    }
}

/// Whether the root key is, or would be, one that a start generated, also when its file is named.
pub(crate) fn would_be_generated(data_dir: &Path, file: &str) -> bool {
    if file.is_empty() {
        return std::env::var_os(VARIABLE).is_none();
    }
    let generated = generated_file(data_dir).canonicalize().ok();
    generated.is_some() && generated == Path::new(file).canonicalize().ok()
}

/// Finds the root key: `file` if configured, else the environment, else `DIR/vault/root.key`, made if it is missing.
pub(crate) fn find(data_dir: &DataDir, file: &str) -> Result<FoundRootKey, CommandError> {
    if !file.is_empty() {
        return Ok(FoundRootKey { key: read(Path::new(file))?, generated: false });
    }
    if let Ok(text) = std::env::var(VARIABLE) {
        let key = parse(&Zeroizing::new(text), &format!("the variable {VARIABLE}"))?;
        return Ok(FoundRootKey { key, generated: false });
    }
    let path = generated_file(data_dir.path());
    if !path.try_exists().map_err(CommandError::io(format!("look for `{}`", path.display())))? {
        let text = Zeroizing::new(HEXLOWER.encode(Key256::generate(OsRandom).expose()));
        fs::create_dir_all(data_dir.join("vault")).map_err(CommandError::io("make the vault's folder"))?;
        replace_private(&path, text.as_bytes()).map_err(CommandError::io(format!("write `{}`", path.display())))?;
    }
    warn!(
        file = %path.display(),
        "the root key was generated and lies in the data directory: whoever copies that directory can read everything; \
         set `vault.root_key_file` or {VARIABLE} to a key that is kept elsewhere"
    );
    Ok(FoundRootKey { key: read(&path)?, generated: true })
}

/// Finds the root key, and never makes one: for what an earlier start has sealed.
pub(crate) fn find_existing(data_dir: &DataDir, file: &str) -> Result<RootKey, CommandError> {
    let made = data_dir.join("vault/root.key");
    let there = made.try_exists().map_err(CommandError::io(format!("look for `{}`", made.display())))?;
    if would_be_generated(data_dir.path(), file) && !there {
        return Err(CommandError::Refused(format!(
            "there is no root key: give the one of this data directory by `vault.root_key_file` or {VARIABLE}, or put \
             `{}` back",
            made.display()
        )));
    }
    Ok(find(data_dir, file)?.key)
}

fn read(path: &Path) -> Result<RootKey, CommandError> {
    let place = format!("`{}`", path.display());
    let text = fs::read_to_string(path).map_err(CommandError::io(format!("read the root key in {place}")))?;
    parse(&Zeroizing::new(text), &place)
}

fn parse(text: &str, place: &str) -> Result<RootKey, CommandError> {
    let bytes = HEXLOWER_PERMISSIVE.decode(text.trim().as_bytes()).map(Zeroizing::new).ok();
    let key = bytes.and_then(|bytes| Key256::copy_from_slice(&bytes));
    key.map(RootKey::new).ok_or_else(|| CommandError::RootKey { place: place.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_64_hexadecimal_digits_are_a_root_key() {
        let good = "0123456789abcdefABCDEF0123456789".repeat(2);
        assert!(parse(&format!("{good}\n"), "here").is_ok());
        for bad in ["", "xyz", &good[1..], &format!("{good}00"), &"g".repeat(64)] {
            let error = parse(bad, "here").unwrap_err().to_string();
            assert!(error.contains("here") && (bad.is_empty() || !error.contains(bad)), "{error}");
        }
    }
}
