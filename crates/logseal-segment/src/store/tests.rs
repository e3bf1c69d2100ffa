//! The store when answers are lost, objects are foreign, or it lies.

use std::fmt::{self, Display};

use async_trait::async_trait;
use futures::TryStreamExt as _;
use object_store::memory::InMemory;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, PutMultipartOptions,
    PutPayload, PutResult, RenameOptions, Result as StoreResult,
};

use super::*;

/// What happens to a call.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Fault {
    /// The object is stored, the answer is lost.
    AnswerLost,
    /// Nothing is stored.
    NotStored,
    /// Another object gets the path, and the answer is lost.
    Foreign,
    /// The object is stored, but the store says that it can not do this.
    Denied,
    /// Objects seem to be one byte longer than they are.
    LiesOfSize,
    /// Listings break off, deletions and reads fail.
    Down,
}

#[derive(Debug)]
struct Faulty(InMemory, Fault);

impl Display for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "faulty store")
    }
}

fn broken() -> Error {
    Error::Generic { store: "faulty", source: "the connection broke".into() }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl ObjectStore for Faulty {
    async fn put_opts(&self, path: &Path, content: PutPayload, options: PutOptions) -> StoreResult<PutResult> {
        match self.1 {
            Fault::LiesOfSize | Fault::Down => self.0.put_opts(path, content, options).await,
            Fault::NotStored => Err(broken()),
            Fault::Foreign => {
                self.0.put_opts(path, "foreign".into(), options).await?;
                Err(broken())
            }
            Fault::AnswerLost => {
                self.0.put_opts(path, content, options).await?;
                Err(broken())
            }
            Fault::Denied => {
                self.0.put_opts(path, content, options).await?;
                Err(Error::NotImplemented { operation: "put".into(), implementer: "faulty".into() })
            }
        }
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        options: PutMultipartOptions,
    ) -> StoreResult<Box<dyn MultipartUpload>> {
        self.0.put_multipart_opts(path, options).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> StoreResult<GetResult> {
        match self.1 {
            Fault::Down => Err(broken()),
            Fault::LiesOfSize => {
                let mut result = self.0.get_opts(path, options).await?;
                result.meta.size += 1;
                Ok(result)
            }
            _ => self.0.get_opts(path, options).await,
        }
    }

    async fn get_ranges(&self, path: &Path, ranges: &[std::ops::Range<u64>]) -> StoreResult<Vec<Bytes>> {
        self.0.get_ranges(path, ranges).await
    }

    fn delete_stream(&self, paths: BoxStream<'static, StoreResult<Path>>) -> BoxStream<'static, StoreResult<Path>> {
        match self.1 {
            Fault::Down => paths.map(|_| Err(broken())).boxed(),
            _ => self.0.delete_stream(paths),
        }
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, StoreResult<ObjectMeta>> {
        match self.1 {
            Fault::Down => self.0.list(prefix).chain(futures::stream::iter([Err(broken())])).boxed(),
            _ => self.0.list(prefix),
        }
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, StoreResult<ObjectMeta>> {
        self.0.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> StoreResult<ListResult> {
        self.0.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> StoreResult<()> {
        self.0.copy_opts(from, to, options).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> StoreResult<()> {
        self.0.rename_opts(from, to, options).await
    }
}

fn faulty(fault: Fault) -> SegmentStore {
    SegmentStore::durable(Arc::new(Faulty(InMemory::new(), fault)))
}

fn path() -> Path {
    Path::from("clusters/a/b.parquet")
}

#[tokio::test]
async fn after_an_ambiguous_failure_an_object_that_is_there_counts() {
    let put = async |fault| faulty(fault).put_new(&path(), Bytes::from_static(b"content")).await;
    put(Fault::AnswerLost).await.expect("it is there");
    let failed = put(Fault::NotStored).await.unwrap_err();
    assert!(
        matches!(&failed, SegmentError::Put { source: Error::Generic { .. }, .. }),
        "the first failure: {failed:?}"
    );
    assert!(failed.is_storage());
    let failed = put(Fault::Foreign).await.unwrap_err();
    assert!(matches!(failed, SegmentError::Conflict(_)), "{failed:?}");
    assert!(!failed.is_storage());
    let failed = put(Fault::Denied).await.unwrap_err();
    assert!(matches!(failed, SegmentError::Put { source: Error::NotImplemented { .. }, .. }), "{failed:?}");
    assert!(!failed.is_storage(), "trying again is no use");
}

#[tokio::test]
async fn a_store_that_is_down_or_lies_is_an_error_that_says_so() {
    let down = faulty(Fault::Down);
    down.put_new(&path(), Bytes::from_static(b"content")).await.unwrap();
    let listed: Vec<_> = down.list(None).collect().await;
    assert!(matches!(&listed[..], [Ok(_), Err(SegmentError::List { .. })]), "{listed:?}");
    let errors = [
        listed.into_iter().nth(1).unwrap().unwrap_err(),
        down.get(&path(), 100).await.unwrap_err(),
        down.delete(&path()).await.unwrap_err(),
    ];
    for error in errors {
        assert!(error.is_storage(), "{error:?}");
    }
    let lies = faulty(Fault::LiesOfSize);
    lies.put_new(&path(), Bytes::from_static(b"content")).await.unwrap();
    let refused = lies.get(&path(), 100).await.unwrap_err();
    assert!(matches!(refused, SegmentError::Size { stated: 8, found: 7, .. }), "{refused:?}");
}

#[tokio::test]
async fn objects_are_listed_read_within_a_limit_and_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let memory = SegmentStore::durable(Arc::new(InMemory::new()));
    for store in [SegmentStore::local(dir.path().join("store")).unwrap(), memory] {
        for (path, content) in [("clusters/a/x", "1"), ("clusters/a/b/y", "22"), ("clusters/ab/z", "333")] {
            store.put_new(&Path::from(path), Bytes::from_static(content.as_bytes())).await.unwrap();
        }
        let listed = async |prefix: Option<&str>| {
            let objects = store.list(prefix.map(Path::from).as_ref()).try_collect::<Vec<_>>().await.unwrap();
            let mut shown: Vec<_> = objects.iter().map(|o| (o.path.to_string(), o.bytes)).collect();
            shown.sort();
            shown
        };
        let [x, y, z] = [("clusters/a/x".into(), 1), ("clusters/a/b/y".into(), 2), ("clusters/ab/z".into(), 3)];
        assert_eq!(listed(None).await, [y.clone(), x.clone(), z.clone()]);
        assert_eq!(listed(Some("clusters/a")).await, [y.clone(), x], "a folder, not the beginning of a name");
        assert!(listed(Some("nowhere")).await.is_empty());

        let path = Path::from("clusters/ab/z");
        assert_eq!(store.get(&path, 3).await.unwrap(), "333");
        let refused = store.get(&path, 2).await;
        assert!(matches!(refused, Err(SegmentError::TooLarge { bytes: 3, limit: 2, .. })), "{refused:?}");
        store.delete(&path).await.unwrap();
        store.delete(&path).await.expect("gone already");
        let missing = store.get(&path, 3).await.unwrap_err();
        assert!(matches!(&missing, SegmentError::Missing(missing) if *missing == path), "{missing:?}");
        assert!(!missing.is_storage());
        assert_eq!(listed(None).await.len(), 2);
        store.delete(&Path::from("no/such/folder/object")).await.unwrap();
    }
}

#[tokio::test]
async fn a_put_is_create_only_but_knows_its_own_object() {
    let dir = tempfile::tempdir().unwrap();
    let store = SegmentStore::local(dir.path().join("store")).unwrap();
    let path = Path::from("clusters/a/b.parquet");
    store.put_new(&path, Bytes::from_static(b"one")).await.unwrap();
    assert_eq!(std::fs::read(dir.path().join("store/clusters/a/b.parquet")).unwrap(), b"one");
    store.put_new(&path, Bytes::from_static(b"one")).await.expect("the same content is our own");
    for other in [&b"two"[..], b"longer"] {
        let refused = store.put_new(&path, Bytes::from_static(other)).await;
        assert!(matches!(refused, Err(SegmentError::Conflict(_))), "{other:?}");
    }
    assert_eq!(std::fs::read(dir.path().join("store/clusters/a/b.parquet")).unwrap(), b"one");
}

#[tokio::test]
async fn a_store_that_cannot_write_says_which_object() {
    let dir = tempfile::tempdir().unwrap();
    let store = SegmentStore::local(dir.path().join("store")).unwrap();
    std::fs::write(dir.path().join("store/clusters"), b"a file in the way").unwrap();
    let refused = store.put_new(&Path::from("clusters/a"), Bytes::new()).await;
    assert!(refused.unwrap_err().to_string().contains("clusters/a"));
}

/// Scenario: a process was killed while it wrote an object of several syncs' size. Guarantee: what it left is no object and hinders nobody, and a put leaves
/// nothing beside its object, whether it succeeds or not.
#[tokio::test]
async fn what_a_broken_off_put_left_is_no_object() {
    let dir = tempfile::tempdir().unwrap();
    let store = SegmentStore::local(dir.path().join("store")).unwrap();
    let folder = dir.path().join("store/clusters");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("a#1"), b"half").unwrap();
    let path = Path::from("clusters/a");
    let large: PutPayload = (0..11).map(|piece| Bytes::from(vec![piece; 1 << 20])).collect();
    store.put_new(&path, large.clone()).await.unwrap();
    assert!(matches!(store.put_new(&path, Bytes::from_static(b"other")).await, Err(SegmentError::Conflict(_))));
    let listed: Vec<_> = store.list(None).map(|object| object.unwrap()).collect().await;
    assert_eq!(listed, [StoredObject { path: path.clone(), bytes: 11 << 20 }]);
    assert_eq!(store.get(&path, 1 << 30).await.unwrap(), Bytes::from(large));
    let names = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name());
    assert_eq!(names.collect::<std::collections::HashSet<_>>(), ["a", "a#1"].map(Into::into).into());
}

/// Scenario: processes were killed while they wrote a segment and a key's copy, another put goes on, and beside them is what is somebody else's.
/// Guarantee: what was left is removed, the put that goes on keeps its file until it ends, and nothing else is touched.
#[tokio::test]
async fn what_broken_off_puts_left_is_removed_and_nothing_else() {
    const CLUSTER: &str = "store/clusters/01010101-0101-0101-0101-010101010101";
    let dir = tempfile::tempdir().unwrap();
    let store = SegmentStore::local(dir.path().join("store")).unwrap();
    assert_eq!(store.remove_broken_off().await.unwrap(), 0, "a new store");
    let cluster = dir.path().join(CLUSTER);
    let plant = |file: PathBuf| {
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, b"half").unwrap();
        file
    };
    let left = ["workspaces/w/tables/t/date=2026-01-01/a.parquet#1", "keys/k/v.json#12"];
    let left = left.map(|name| plant(cluster.join(name)));
    let mut others: Vec<_> = [
        "a.parquet",
        "a.parquet#",
        "a.parquet#0",
        "a.parquet#01",
        "a.parquet#x",
        "a.parquet#-1",
        "a#1",
        "a#1.parquet#1",
    ]
    .map(|name| plant(cluster.join("workspaces").join(name)))
    .into();
    for folder in ["store", "store/clusters", "store/clusters/notes", "store/other"] {
        others.push(plant(dir.path().join(folder).join("a.parquet#1")));
    }
    std::fs::create_dir(cluster.join("b.parquet#1")).unwrap();
    std::os::unix::fs::symlink(&others[0], cluster.join("c.parquet#1")).unwrap();
    others.extend(["b.parquet#1", "c.parquet#1"].map(|name| cluster.join(name)));
    // Beside what an earlier one left.
    let (staged, open) = local::stage(&cluster.join("workspaces/w/tables/t/date=2026-01-01/a.parquet")).unwrap();
    assert_eq!(staged.extension().unwrap(), "parquet#2");

    assert_eq!(store.remove_broken_off().await.unwrap(), 2);
    assert!(left.iter().all(|file| !file.exists()), "{left:?}");
    assert!(staged.exists(), "it is being written");
    drop(open);
    assert_eq!(store.remove_broken_off().await.unwrap(), 1);
    assert!(!staged.exists());
    for other in &others {
        assert!(other.symlink_metadata().is_ok(), "{}", other.display());
    }
    assert_eq!(store.remove_broken_off().await.unwrap(), 0);
}
