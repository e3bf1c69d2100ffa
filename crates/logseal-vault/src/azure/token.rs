//! Access tokens: who gives them, and how long one is kept.

use std::collections::HashMap;
use std::fmt::{self, Debug};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::HeaderValue;
use logseal_core::{Clock, UnixNanos};
use tokio::sync::Mutex;
use tokio::time::timeout;
use zeroize::Zeroizing;

use crate::VaultError;
use crate::uri::Audience;

/// How long before its end a token is replaced.
const AHEAD: Duration = Duration::from_secs(5 * 60);

/// How long a call waits for the successor of a token that is still good.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long nobody asks for a successor after that was in vain.
const PAUSE: Duration = Duration::from_secs(30);

/// An access token and when it ends. Wiped on drop.
pub struct AccessToken {
    secret: Zeroizing<String>,
    expires: UnixNanos,
}

impl AccessToken {
    /// A token that is good until `expires`.
    #[must_use]
    pub fn new(secret: Zeroizing<String>, expires: UnixNanos) -> Self {
        Self { secret, expires }
    }

    /// The `Authorization` header with this token. The memory behind it is wiped when the last copy is dropped.
    pub(super) fn header(&self) -> Result<HeaderValue, VaultError> {
        let text = Zeroizing::new([b"Bearer ", self.secret.as_bytes()].concat());
        let mut value = HeaderValue::from_maybe_shared(Bytes::from_owner(text))
            .map_err(|_| VaultError::Token("it has characters that no header may have".into()))?;
        value.set_sensitive(true);
        Ok(value)
    }
}

impl Debug for AccessToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AccessToken([redacted], expires {:?})", self.expires)
    }
}

/// Gives access tokens of one identity.
///
/// A source keeps none of them: [`CachedTokens`] does, and it asks again when a vault refused one.
#[async_trait]
pub trait TokenSource: Debug + Send + Sync {
    /// A new token for `audience`.
    ///
    /// # Errors
    ///
    /// [`VaultError::Token`], with a text that carries nothing of what the identity service sent beyond status and codes.
    async fn token(&self, audience: Audience) -> Result<AccessToken, VaultError>;
}

/// One identity's tokens, each kept until five minutes before its end.
///
/// All vault clients of an identity share it. One call at a time asks the source; others wait for its token.
#[derive(Debug)]
pub struct CachedTokens {
    source: Arc<dyn TokenSource>,
    clock: Arc<dyn Clock>,
    kept: Mutex<HashMap<Audience, Kept>>,
}

#[derive(Clone, Debug)]
struct Kept {
    token: Arc<AccessToken>,
    /// From when on a successor is asked for.
    renew: UnixNanos,
}

impl CachedTokens {
    /// The tokens of `source`.
    #[must_use]
    pub fn new(source: Arc<dyn TokenSource>, clock: Arc<dyn Clock>) -> Self {
        Self { source, clock, kept: Mutex::default() }
    }

    /// The token to send to vaults of `audience`.
    pub(super) async fn token(&self, audience: Audience) -> Result<Arc<AccessToken>, VaultError> {
        let mut kept = self.kept.lock().await;
        let now = self.clock.now();
        let Some(old) = kept.get_mut(&audience).filter(|old| now < old.token.expires) else {
            return self.ask(&mut kept, audience).await;
        };
        if now < old.renew {
            return Ok(Arc::clone(&old.token));
        }
        // The old token is still good, so trouble of the identity service must not become the caller's.
        old.renew = later(now, PAUSE);
        let old = Arc::clone(&old.token);
        match timeout(PATIENCE, self.ask(&mut kept, audience)).await {
            Ok(Ok(new)) => Ok(new),
            Ok(Err(_)) | Err(_) => Ok(old),
        }
    }

    /// Another token than `refused`, which a vault did not take.
    pub(super) async fn another(
        &self,
        audience: Audience,
        refused: &Arc<AccessToken>,
    ) -> Result<Arc<AccessToken>, VaultError> {
        let mut kept = self.kept.lock().await;
        match kept.get(&audience) {
            // Another call was refused as well, and has asked for a new one meanwhile.
            Some(newer) if !Arc::ptr_eq(&newer.token, refused) => Ok(Arc::clone(&newer.token)),
            _ => self.ask(&mut kept, audience).await,
        }
    }

    async fn ask(
        &self,
        kept: &mut HashMap<Audience, Kept>,
        audience: Audience,
    ) -> Result<Arc<AccessToken>, VaultError> {
        let token = Arc::new(self.source.token(audience).await?);
        let now = self.clock.now();
        // A token that lives for less than ten minutes is kept for half of its life: otherwise every call would ask.
        let life = token.expires.0.saturating_sub(now.0).max(0);
        let ahead = i64::try_from(AHEAD.as_nanos()).unwrap_or(i64::MAX).min(life / 2);
        let renew = UnixNanos(token.expires.0.saturating_sub(ahead));
        kept.insert(audience, Kept { token: Arc::clone(&token), renew });
        Ok(token)
    }
}

fn later(now: UnixNanos, by: Duration) -> UnixNanos {
    UnixNanos(now.0.saturating_add(i64::try_from(by.as_nanos()).unwrap_or(i64::MAX)))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};

    use super::*;

    #[derive(Debug, Default)]
    struct Time(AtomicI64);

    impl Clock for Time {
        fn now(&self) -> UnixNanos {
            UnixNanos(self.0.load(Ordering::SeqCst) * 1_000_000_000)
        }
    }

    /// Numbers its tokens; each is good for an hour. Fails or hangs on demand.
    #[derive(Debug, Default)]
    struct Source {
        time: Arc<Time>,
        asked: AtomicU32,
        fails: AtomicU32,
        hangs: AtomicU32,
    }

    #[async_trait]
    impl TokenSource for Source {
        async fn token(&self, audience: Audience) -> Result<AccessToken, VaultError> {
            let number = self.asked.fetch_add(1, Ordering::SeqCst);
            if self.hangs.load(Ordering::SeqCst) > 0 {
                std::future::pending::<()>().await;
            }
            if self.fails.load(Ordering::SeqCst) > 0 {
                return Err(VaultError::Token("status 503".into()));
            }
            let expires = later(self.time.now(), Duration::from_secs(3600));
            Ok(AccessToken::new(Zeroizing::new(format!("{number}@{}", audience.resource())), expires))
        }
    }

    fn cached() -> (Arc<Source>, CachedTokens) {
        let source = Arc::new(Source::default());
        let shared: Arc<dyn TokenSource> = Arc::<Source>::clone(&source);
        let clock: Arc<dyn Clock> = Arc::<Time>::clone(&source.time);
        (source, CachedTokens::new(shared, clock))
    }

    async fn at(source: &Source, tokens: &CachedTokens, second: i64) -> Result<String, VaultError> {
        source.time.0.store(second, Ordering::SeqCst);
        tokens.token(Audience::Public).await.map(|token| token.secret.to_string())
    }

    #[tokio::test]
    async fn a_token_is_kept_until_five_minutes_before_its_end() {
        let (source, tokens) = cached();
        for (second, expected) in [(0, 0), (1, 0), (3299, 0), (3300, 1), (3301, 1), (6599, 1), (6600, 2)] {
            assert_eq!(at(&source, &tokens, second).await.unwrap(), format!("{expected}@https://vault.azure.net"));
        }
        let hsm = tokens.token(Audience::ManagedHsm).await.unwrap();
        assert_eq!(*hsm.secret, "3@https://managedhsm.azure.net", "a token is only for its own audience");
        assert_eq!(source.asked.load(Ordering::SeqCst), 4);
    }

    #[tokio::test]
    async fn a_token_that_is_still_good_outlives_trouble_of_its_source() {
        let (source, tokens) = cached();
        at(&source, &tokens, 0).await.unwrap();
        source.fails.store(1, Ordering::SeqCst);
        for (second, asked) in [(3300, 2), (3329, 2), (3330, 3)] {
            assert!(at(&source, &tokens, second).await.unwrap().starts_with("0@"));
            assert_eq!(source.asked.load(Ordering::SeqCst), asked, "asked again after a pause, at {second}");
        }
        source.hangs.store(1, Ordering::SeqCst);
        assert!(at(&source, &tokens, 3400).await.unwrap().starts_with("0@"), "a source that hangs");
        source.hangs.store(0, Ordering::SeqCst);
        assert!(matches!(at(&source, &tokens, 3600).await, Err(VaultError::Token(_))), "the token has ended");
        source.fails.store(0, Ordering::SeqCst);
        assert!(at(&source, &tokens, 3601).await.is_ok());
    }

    #[tokio::test]
    async fn a_refused_token_is_replaced_once_for_all_who_had_it() {
        let (source, tokens) = cached();
        let refused = tokens.token(Audience::Public).await.unwrap();
        let first = tokens.another(Audience::Public, &refused).await.unwrap();
        let second = tokens.another(Audience::Public, &refused).await.unwrap();
        assert!(Arc::ptr_eq(&first, &second) && !Arc::ptr_eq(&first, &refused));
        assert_eq!(source.asked.load(Ordering::SeqCst), 2);
    }

    #[test]
    fn tokens_are_shown_nowhere_and_cannot_smuggle_headers() {
        let token = AccessToken::new(Zeroizing::new("s3cret".to_owned()), UnixNanos(0));
        assert!(!format!("{token:?}").contains("s3cret"));
        let header = token.header().unwrap();
        assert_eq!(header, "Bearer s3cret");
        assert!(!format!("{header:?}").contains("s3cret"));
        let odd = AccessToken::new(Zeroizing::new("a\r\nx: y".to_owned()), UnixNanos(0));
        let error = odd.header().unwrap_err();
        assert!(matches!(&error, VaultError::Token(text) if !text.contains("x: y")), "{error}");
    }
}
