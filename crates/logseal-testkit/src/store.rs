//! An object store that fails on command: puts without effect, lost answers, slowness, an outage.

use std::fmt::{self, Display};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{FutureExt as _, StreamExt as _};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result,
};

use crate::record::SeededRandom;

/// A store in front of another one, that does what its [`StoreScript`] says.
#[derive(Clone, Debug)]
pub struct FaultyStore {
    inner: Arc<dyn ObjectStore>,
    script: StoreScript,
}

/// Commands what a [`FaultyStore`] does, and tells what it was asked. Clones command the same store.
#[derive(Clone, Debug, Default)]
pub struct StoreScript(Arc<Mutex<State>>);

/// How often a store was called, failed calls included.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct StoreCalls {
    /// Puts, multipart uploads included.
    pub puts: u64,
    /// Gets of whole objects, ranges and heads.
    pub gets: u64,
    /// Lists of all three kinds.
    pub lists: u64,
    /// Objects to be deleted.
    pub deletes: u64,
    /// Copies and renames.
    pub copies: u64,
    /// Puts that were failed without effect.
    pub failed_puts: u64,
    /// Puts that took effect and were reported as failed.
    pub lost_answers: u64,
}

#[derive(Debug, Default)]
struct State {
    down: bool,
    delay: Duration,
    fail_puts: u64,
    lose_answers: u64,
    /// How many of 2^32 puts fail, and the source of the decisions.
    unreliable: Option<(u64, SeededRandom)>,
    calls: StoreCalls,
}

/// What is to happen to a put.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Fate {
    Done,
    Failed,
    AnswerLost,
}

impl StoreScript {
    /// Lets the next `count` puts fail without effect.
    pub fn fail_next_puts(&self, count: u64) {
        self.lock().fail_puts = count;
    }

    /// Lets the next `count` puts take effect and report a failure: what a client sees of a lost answer.
    pub fn lose_next_answers(&self, count: u64) {
        self.lock().lose_answers = count;
    }

    /// Lets each put fail without effect with `probability` (0 to 1), decided by `seed`.
    pub fn fail_puts_with(&self, probability: f64, seed: u64) {
        let of_two_to_32 = (probability.clamp(0.0, 1.0) * f64::from(u32::MAX)).ceil() as u64;
        self.lock().unreliable = (of_two_to_32 > 0).then(|| (of_two_to_32, SeededRandom::new(seed, &[])));
    }

    /// Lets each call take `delay` longer.
    pub fn delay(&self, delay: Duration) {
        self.lock().delay = delay;
    }

    /// Lets each call fail without effect, until told otherwise.
    pub fn set_down(&self, down: bool) {
        self.lock().down = down;
    }

    /// How often the store was called so far.
    #[must_use]
    pub fn calls(&self) -> StoreCalls {
        self.lock().calls
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a call, waits, and refuses while the store is down.
    async fn enter(&self, count: impl FnOnce(&mut StoreCalls)) -> Result<()> {
        let delay = {
            let mut state = self.lock();
            count(&mut state.calls);
            state.delay
        };
        if delay > Duration::ZERO {
            tokio::time::sleep(delay).await;
        }
        if self.lock().down { Err(outage("the store is down")) } else { Ok(()) }
    }

    /// Decides about one put.
    fn fate(&self) -> Fate {
        let mut state = self.lock();
        let unlucky =
            state.unreliable.as_mut().is_some_and(|(of_two_to_32, random)| random.draw() >> 32 < *of_two_to_32);
        if state.fail_puts > 0 || unlucky {
            state.fail_puts = state.fail_puts.saturating_sub(1);
            state.calls.failed_puts += 1;
            Fate::Failed
        } else if state.lose_answers > 0 {
            state.lose_answers -= 1;
            state.calls.lost_answers += 1;
            Fate::AnswerLost
        } else {
            Fate::Done
        }
    }
}

/// An error as a store gives it for a broken connection: nothing tells whether the call took effect.
fn outage(what: &'static str) -> Error {
    Error::Generic { store: "faulty", source: what.into() }
}

impl FaultyStore {
    /// A store in front of `inner`, faultless until its script says otherwise.
    #[must_use]
    pub fn new(inner: Arc<dyn ObjectStore>) -> (Self, StoreScript) {
        let script = StoreScript::default();
        (Self { inner, script: script.clone() }, script)
    }

    /// The items of `stream`, or an error instead while the store is down.
    fn listed(&self, stream: BoxStream<'static, Result<ObjectMeta>>) -> BoxStream<'static, Result<ObjectMeta>> {
        let script = self.script.clone();
        let entered = async move {
            match script.enter(|calls| calls.lists += 1).await {
                Ok(()) => stream,
                Err(error) => stream::iter([Err(error)]).boxed(),
            }
        };
        entered.into_stream().flatten().boxed()
    }
}

impl Display for FaultyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FaultyStore({})", self.inner)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl ObjectStore for FaultyStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        self.script.enter(|calls| calls.puts += 1).await?;
        let fate = self.script.fate();
        if fate == Fate::Failed {
            return Err(outage("the put failed"));
        }
        let result = self.inner.put_opts(location, payload, opts).await?;
        if fate == Fate::AnswerLost { Err(outage("the answer was lost")) } else { Ok(result) }
    }

    async fn put_multipart_opts(&self, location: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.script.enter(|calls| calls.puts += 1).await?;
        // Its parts are calls of their own, which nobody scripted yet; its beginning has no answer worth losing.
        if self.script.fate() == Fate::Failed {
            return Err(outage("the upload failed"));
        }
        self.inner.put_multipart_opts(location, opts).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.script.enter(|calls| calls.gets += 1).await?;
        self.inner.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.script.enter(|calls| calls.gets += 1).await?;
        self.inner.get_ranges(location, ranges).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let script = self.script.clone();
        let entered = locations.then(move |location| {
            let script = script.clone();
            async move {
                script.enter(|calls| calls.deletes += 1).await?;
                location
            }
        });
        self.inner.delete_stream(entered.boxed())
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.listed(self.inner.list(prefix))
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        self.listed(self.inner.list_with_offset(prefix, offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.script.enter(|calls| calls.lists += 1).await?;
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.script.enter(|calls| calls.copies += 1).await?;
        self.inner.copy_opts(from, to, options).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.script.enter(|calls| calls.copies += 1).await?;
        self.inner.rename_opts(from, to, options).await
    }
}

#[cfg(test)]
mod tests {
    use futures::TryStreamExt as _;
    use object_store::ObjectStoreExt as _;
    use object_store::memory::InMemory;

    use super::*;

    fn store() -> (Arc<InMemory>, FaultyStore, StoreScript) {
        let inner = Arc::new(InMemory::new());
        let (store, script) = FaultyStore::new(Arc::<InMemory>::clone(&inner));
        (inner, store, script)
    }

    fn path(name: &str) -> Path {
        Path::from(name)
    }

    #[tokio::test]
    async fn without_commands_every_call_reaches_the_store() {
        let (inner, store, script) = store();
        store.put(&path("a"), "one".into()).await.unwrap();
        assert_eq!(store.get(&path("a")).await.unwrap().bytes().await.unwrap(), "one");
        assert_eq!(store.get_ranges(&path("a"), &[0..1, 1..3]).await.unwrap(), ["o", "ne"]);
        store.copy(&path("a"), &path("b")).await.unwrap();
        store.rename(&path("b"), &path("c")).await.unwrap();
        assert_eq!(store.list(None).try_collect::<Vec<_>>().await.unwrap().len(), 2);
        assert_eq!(store.list_with_offset(None, &path("b")).try_collect::<Vec<_>>().await.unwrap().len(), 1);
        assert_eq!(store.list_with_delimiter(None).await.unwrap().objects.len(), 2);
        store.delete(&path("a")).await.unwrap();
        assert!(inner.head(&path("a")).await.is_err() && inner.head(&path("c")).await.is_ok());
        let calls = StoreCalls { puts: 1, gets: 2, lists: 3, deletes: 1, copies: 2, ..StoreCalls::default() };
        assert_eq!(script.calls(), calls);
    }

    #[tokio::test]
    async fn a_failed_put_has_no_effect_and_a_lost_answer_hides_one() {
        let (inner, store, script) = store();
        script.fail_next_puts(2);
        script.lose_next_answers(1);
        for _ in 0..2 {
            assert!(store.put(&path("a"), "one".into()).await.is_err());
            assert!(inner.head(&path("a")).await.is_err(), "nothing was stored");
        }
        assert!(store.put(&path("a"), "one".into()).await.is_err());
        assert!(inner.head(&path("a")).await.is_ok(), "stored, although the answer says otherwise");
        store.put(&path("b"), "two".into()).await.unwrap();
        let calls = script.calls();
        assert_eq!((calls.puts, calls.failed_puts, calls.lost_answers), (4, 2, 1));
    }

    #[tokio::test]
    async fn an_unreliable_store_fails_the_same_puts_for_the_same_seed() {
        let outcomes = async |probability, seed| {
            let (_, store, script) = store();
            script.fail_puts_with(probability, seed);
            let mut outcomes = Vec::new();
            for number in 0..200 {
                outcomes.push(store.put(&path(&number.to_string()), "x".into()).await.is_ok());
            }
            outcomes
        };
        let third = outcomes(0.3, 5).await;
        let failed = third.iter().filter(|done| !**done).count();
        assert!((30..90).contains(&failed), "{failed} of 200");
        assert_eq!(outcomes(0.3, 5).await, third);
        assert_ne!(outcomes(0.3, 6).await, third);
        assert!(outcomes(0.0, 5).await.iter().all(|done| *done));
        assert!(outcomes(1.0, 5).await.iter().all(|done| !*done));
    }

    #[tokio::test]
    async fn while_it_is_down_nothing_works_and_nothing_changes() {
        let (inner, store, script) = store();
        store.put(&path("a"), "one".into()).await.unwrap();
        script.set_down(true);
        assert!(store.put(&path("b"), "two".into()).await.is_err());
        assert!(store.put_multipart(&path("b")).await.is_err());
        assert!(store.get(&path("a")).await.is_err());
        assert!(store.get_ranges(&path("a"), &[0..1, 1..3]).await.is_err());
        assert!(store.delete(&path("a")).await.is_err());
        assert!(store.copy(&path("a"), &path("b")).await.is_err());
        assert!(store.rename(&path("a"), &path("b")).await.is_err());
        assert!(store.list(None).try_collect::<Vec<_>>().await.is_err());
        assert!(store.list_with_offset(None, &path("0")).try_collect::<Vec<_>>().await.is_err());
        assert!(store.list_with_delimiter(None).await.is_err());
        assert_eq!(inner.list(None).try_collect::<Vec<_>>().await.unwrap().len(), 1);
        script.set_down(false);
        assert_eq!(store.get(&path("a")).await.unwrap().bytes().await.unwrap(), "one");
    }

    #[tokio::test]
    async fn a_delay_is_waited_out_before_the_call() {
        let (inner, store, script) = store();
        script.delay(Duration::from_secs(3600));
        let location = path("a");
        let mut put = Box::pin(store.put(&location, "one".into()));
        assert!(futures::poll!(&mut put).is_pending());
        assert!(inner.head(&location).await.is_err());
        assert_eq!(script.calls().puts, 1);
    }
}
