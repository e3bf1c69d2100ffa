//! Where the root key comes from: a configured file, the environment, else a file that the first start makes.

use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
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

/// Longer than any root key with what editors put around it, and short enough for a name that leads elsewhere, such as to a log.
const FILE_BYTES: u64 = 4096;

fn read(path: &Path) -> Result<RootKey, CommandError> {
    let place = format!("`{}`", path.display());
    let reading = || CommandError::io(format!("read the root key in {place}"));
    let file = File::open(path).map_err(reading())?;
    // Of the open file: what the name leads to may change.
    match Exposure::of(file.metadata().map_err(reading())?.mode()) {
        Exposure::None => {}
        Exposure::Readable => warn!(
            file = %path.display(),
            "others than its owner can read or change the root key: `chmod go-w,o= FILE`, in Kubernetes `defaultMode: 0440`"
        ),
        Exposure::Writable => {
            return Err(CommandError::Refused(format!(
                "everybody on this machine can change the root key in {place}: look whether it still is yours, then \
                 `chmod go-w,o= {}`",
                path.display()
            )));
        }
    }
    // In place, so that no part of the key is left in a buffer that grew.
    let mut text = Zeroizing::new(String::with_capacity(usize::try_from(FILE_BYTES).unwrap_or_default()));
    file.take(FILE_BYTES).read_to_string(&mut text).map_err(reading())?;
    parse(&text, &place)
}

/// What the mode of a root key's file lets others do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Exposure {
    None,
    /// Everybody can read it, or its group can change it: how secrets are mounted where nobody said otherwise (Kubernetes: 0644), so it
    /// is no reason to refuse a start.
    Readable,
    Writable,
}

impl Exposure {
    /// A group that reads is how a file of root's is given to one service: `fsGroup` of Kubernetes, systemd's credentials, 0640.
    fn of(mode: u32) -> Self {
        if mode & 0o002 != 0 {
            Self::Writable
        } else if mode & 0o024 != 0 {
            Self::Readable
        } else {
            Self::None
        }
    }
}

fn parse(text: &str, place: &str) -> Result<RootKey, CommandError> {
    let bytes = HEXLOWER_PERMISSIVE.decode(text.trim().as_bytes()).map(Zeroizing::new).ok();
    let key = bytes.and_then(|bytes| Key256::copy_from_slice(&bytes));
    key.map(RootKey::new).ok_or_else(|| CommandError::RootKey { place: place.to_owned() })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_file_that_everybody_can_change_is_no_root_key_and_a_link_does_not_hide_it() {
        let dir = tempfile::tempdir().unwrap();
        let (file, link) = (dir.path().join("root.key"), dir.path().join("link"));
        fs::write(&file, "ab".repeat(32)).unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        for (mode, expected) in [
            (0o400, Exposure::None),
            (0o600, Exposure::None),
            (0o440, Exposure::None),
            (0o640, Exposure::None),
            (0o644, Exposure::Readable),
            (0o604, Exposure::Readable),
            (0o660, Exposure::Readable),
            (0o666, Exposure::Writable),
            (0o602, Exposure::Writable),
        ] {
            assert_eq!(Exposure::of(0o100_000 | mode), expected, "{mode:o}");
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
            for path in [&file, &link] {
                let found = read(path);
                match expected {
                    Exposure::Writable => {
                        let refused = found.expect_err("refused").to_string();
                        assert!(refused.contains("chmod go-w,o= /") && !refused.contains("abab"), "{refused}");
                    }
                    _ => drop(found.unwrap()),
                }
            }
        }
    }

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
