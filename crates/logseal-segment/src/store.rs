//! The object store with what it lacks: durability of the local store, and create-only puts that know their own work.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt as _, PutMode, PutOptions};

use crate::SegmentError;

/// Where segments and wrapped keys go.
#[derive(Clone, Debug)]
pub struct SegmentStore {
    objects: Arc<dyn ObjectStore>,
    /// The root folder of a local store, which has to be synced by us: `object_store` 0.13 does not.
    local_root: Option<PathBuf>,
}

impl SegmentStore {
    /// A store in the folder `root`, made when it is missing.
    ///
    /// # Errors
    ///
    /// [`SegmentError::Put`] when the folder cannot be made or read.
    pub fn local(root: PathBuf) -> Result<Self, SegmentError> {
        let failed = |source| SegmentError::Put { path: Path::default(), source };
        std::fs::create_dir_all(&root)
            .map_err(|error| failed(object_store::Error::Generic { store: "local", source: Box::new(error) }))?;
        // A folder is durable once the one above it is synced.
        for folder in root.ancestors().skip(1).take(2).filter(|folder| !folder.as_os_str().is_empty()) {
            File::open(folder)
                .and_then(|folder| folder.sync_all())
                .map_err(|error| failed(object_store::Error::Generic { store: "local", source: Box::new(error) }))?;
        }
        let objects = Arc::new(LocalFileSystem::new_with_prefix(&root).map_err(failed)?);
        Ok(Self { objects, local_root: Some(root) })
    }

    /// A store that is durable by itself once a put returns, such as a cloud's or a test's.
    #[must_use]
    pub fn durable(objects: Arc<dyn ObjectStore>) -> Self {
        Self { objects, local_root: None }
    }

    /// The store for readers.
    #[must_use]
    pub fn objects(&self) -> Arc<dyn ObjectStore> {
        Arc::clone(&self.objects)
    }

    /// Puts a new object; durable when this returns.
    ///
    /// Names are unique, so an object that is there already with the same content is our own from a put whose answer was
    /// lost.
    ///
    /// # Errors
    ///
    /// [`SegmentError::Conflict`] when an object with other content has this path, [`SegmentError::Put`],
    /// [`SegmentError::Sync`].
    pub async fn put_new(&self, path: &Path, content: Bytes) -> Result<(), SegmentError> {
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        match self.objects.put_opts(path, content.clone().into(), options).await {
            Ok(_) => {}
            Err(object_store::Error::AlreadyExists { .. }) => self.expect_own(path, &content).await?,
            Err(source) => return Err(SegmentError::Put { path: path.clone(), source }),
        }
        self.sync(path).await
    }

    async fn expect_own(&self, path: &Path, content: &Bytes) -> Result<(), SegmentError> {
        let failed = |source| SegmentError::Put { path: path.clone(), source };
        let stored = self.objects.get(path).await.map_err(failed)?;
        // The size is compared first, so that a foreign object of any size is not read into memory.
        if stored.meta.size == content.len() as u64 && stored.bytes().await.map_err(failed)? == *content {
            Ok(())
        } else {
            Err(SegmentError::Conflict(path.clone()))
        }
    }

    /// Syncs the object's file and each folder up to the root: a new folder is as volatile as a new file.
    async fn sync(&self, path: &Path) -> Result<(), SegmentError> {
        let Some(root) = self.local_root.clone() else { return Ok(()) };
        let mut file = root.clone();
        file.extend(path.parts().map(|part| part.as_ref().to_owned()));
        let synced = tokio::task::spawn_blocking(move || {
            let mut next = Some(file.as_path());
            while let Some(entry) = next {
                File::open(entry)?.sync_all()?;
                next = if entry == root { None } else { entry.parent() };
            }
            Ok(())
        });
        let result = synced.await.unwrap_or_else(|error| Err(std::io::Error::other(error)));
        result.map_err(|source| SegmentError::Sync { path: path.clone(), source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
