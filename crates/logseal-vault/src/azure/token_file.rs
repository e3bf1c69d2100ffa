//! Access tokens that somebody else puts into a file: a sidecar, a secret store's agent, or the operator of another deployment's vault.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use logseal_core::{Clock, UnixNanos};
use tokio::io::AsyncReadExt as _;
use zeroize::Zeroizing;

use super::{AccessToken, TokenSource};
use crate::VaultError;
use crate::uri::Audience;

/// Longer ones are no tokens: a header must hold them.
const BYTES: u64 = 16 * 1024;

/// How long a token counts as good: the file is read again a minute later, since a token is replaced five minutes before its end.
const LIFE: Duration = Duration::from_secs(6 * 60);

/// A file with one bearer token, whose end nobody states.
#[derive(Debug)]
pub struct TokenFile {
    path: PathBuf,
    clock: Arc<dyn Clock>,
}

impl TokenFile {
    /// The token in `path`, which may be replaced at any time.
    #[must_use]
    pub fn new(path: PathBuf, clock: Arc<dyn Clock>) -> Self {
        Self { path, clock }
    }

    async fn read(&self) -> io::Result<Zeroizing<Vec<u8>>> {
        let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(BYTES).unwrap_or(0) + 1));
        tokio::fs::File::open(&self.path).await?.take(BYTES + 1).read_to_end(&mut bytes).await?;
        Ok(bytes)
    }
}

#[async_trait]
impl TokenSource for TokenFile {
    async fn token(&self, _: Audience) -> Result<AccessToken, VaultError> {
        let path = self.path.display();
        let bytes = self.read().await;
        let bytes = bytes.map_err(|error| VaultError::Token(format!("`{path}` cannot be read: {}", error.kind())))?;
        let token = bytes.trim_ascii();
        if token.is_empty() || token.len() as u64 > BYTES || !token.iter().all(u8::is_ascii_graphic) {
            return Err(VaultError::Token(format!("`{path}` holds no token: one line of visible characters")));
        }
        let text = Zeroizing::new(String::from_utf8_lossy(token).into_owned());
        let life = i64::try_from(LIFE.as_nanos()).unwrap_or(i64::MAX);
        Ok(AccessToken::new(text, UnixNanos(self.clock.now().0.saturating_add(life))))
    }
}

#[cfg(test)]
mod tests {
    use logseal_core::SystemClock;

    use super::*;

    #[tokio::test]
    async fn the_token_is_what_the_file_holds_now_and_anything_else_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        let source = TokenFile::new(path.clone(), Arc::new(SystemClock));
        let missing = source.token(Audience::Public).await.unwrap_err().to_string();
        assert!(missing.contains("token` cannot be read"), "{missing}");
        for text in ["one", "two\n"] {
            std::fs::write(&path, text).unwrap();
            let header = source.token(Audience::Public).await.unwrap().header().unwrap();
            assert_eq!(header, format!("Bearer {}", text.trim()));
        }
        for none in [String::new(), "\n".into(), "a b".into(), "a\r\nx: y".into(), "x".repeat(16 * 1024 + 1)] {
            std::fs::write(&path, &none).unwrap();
            let refused = source.token(Audience::Public).await.unwrap_err().to_string();
            assert!(refused.contains("holds no token"), "{refused}");
        }
    }
}
