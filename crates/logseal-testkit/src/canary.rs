//! Finds text in files, in every encoding in which it could have leaked.

use std::fs;
use std::path::{Path, PathBuf};

use data_encoding::{BASE64, HEXLOWER, HEXUPPER};

/// A unique text, and what to search for.
#[derive(Clone, Debug)]
pub struct Canary {
    needles: Vec<Vec<u8>>,
}

impl Canary {
    /// The canary `text`, to be found as it is, in UTF-16 of both byte orders, in hexadecimal, and in Base64 at each of its
    /// three alignments.
    #[must_use]
    pub fn new(text: &str) -> Self {
        let mut needles: Vec<_> = encodings(text.as_bytes()).into_iter().map(|(_, needle)| needle).collect();
        needles.push(text.encode_utf16().flat_map(u16::to_le_bytes).collect());
        needles.push(text.encode_utf16().flat_map(u16::to_be_bytes).collect());
        Self { needles }
    }

    /// Whether `bytes` hold the canary.
    #[must_use]
    pub fn is_in(&self, bytes: &[u8]) -> bool {
        self.needles.iter().any(|needle| bytes.windows(needle.len()).any(|window| window == needle.as_slice()))
    }

    /// The files below `folder` that hold the canary in their name or content.
    ///
    /// # Panics
    ///
    /// When a file cannot be read.
    #[must_use]
    pub fn files_with_it(&self, folder: &Path) -> Vec<PathBuf> {
        let mut found = Vec::new();
        for file in files_below(folder) {
            let content = fs::read(&file).expect("a readable file");
            if self.is_in(&content) || self.is_in(file.as_os_str().as_encoded_bytes()) {
                found.push(file);
            }
        }
        found
    }
}

/// `bytes` as they could have leaked: as they are, in hexadecimal, and in Base64 at each of its three alignments, each with its name.
pub(crate) fn encodings(bytes: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let mut forms = vec![
        ("raw", bytes.to_vec()),
        ("hexadecimal", HEXLOWER.encode(bytes).into_bytes()),
        ("upper-case hexadecimal", HEXUPPER.encode(bytes).into_bytes()),
    ];
    for skip in 0..3 {
        // Of the Base64 text only the digits that no neighboring byte touches.
        let whole = &bytes[skip..];
        forms.push(("Base64", BASE64.encode(&whole[..whole.len() / 3 * 3]).into_bytes()));
    }
    forms
}

/// All files below `folder`.
///
/// # Panics
///
/// When a folder cannot be read.
#[must_use]
pub fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(&next).expect("a readable folder") {
            let path = entry.expect("a readable entry").path();
            if path.is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_encoding_is_found() {
        let (canary, text) = (Canary::new("CANARY-123456789"), "CANARY-123456789");
        for shift in 0..3 {
            let around = format!("{}{text}zz", "x".repeat(shift));
            assert!(canary.is_in(BASE64.encode(around.as_bytes()).as_bytes()), "base64 at {shift}");
        }
        assert!(canary.is_in(b"xx CANARY-123456789 yy"));
        assert!(canary.is_in(HEXUPPER.encode(text.as_bytes()).as_bytes()));
        assert!(canary.is_in(&text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<_>>()));
        assert!(!canary.is_in(b"CANARY-12345678x"));
    }
}
