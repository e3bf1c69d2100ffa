//! The object store with what it lacks: durability of the local store, and create-only puts that know their own work.

mod local;

use std::fs::File;
use std::io;
use std::path::{Path as FsPath, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt as _, PutMode, PutOptions, PutPayload};

use self::local::LocalFolders;
use crate::SegmentError;
use crate::error::is_final;

/// An object that the store has.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct StoredObject {
    /// Its path.
    pub path: Path,
    /// Its size in bytes.
    pub bytes: u64,
}

/// Where segments and wrapped keys go.
#[derive(Clone, Debug)]
pub struct SegmentStore {
    objects: Arc<dyn ObjectStore>,
    /// A local store is written and synced by us: `object_store` 0.13 does not sync.
    local: Option<LocalFolders>,
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
        Ok(Self { objects, local: Some(LocalFolders::new(root)) })
    }

    /// A store that is durable by itself once a put returns, such as a cloud's or a test's.
    #[must_use]
    pub fn durable(objects: Arc<dyn ObjectStore>) -> Self {
        Self { objects, local: None }
    }

    /// The store for readers.
    #[must_use]
    pub fn objects(&self) -> Arc<dyn ObjectStore> {
        Arc::clone(&self.objects)
    }

    /// Puts a new object; durable when this returns.
    ///
    /// Names are unique, so an object that is there already with the same content is our own from a put whose answer was
    /// lost. After a failure that leaves open whether the object was stored, it is read back: if it is there, it counts.
    ///
    /// # Errors
    ///
    /// [`SegmentError::Conflict`] when an object with other content has this path, [`SegmentError::Put`],
    /// [`SegmentError::Sync`].
    pub async fn put_new(&self, path: &Path, content: impl Into<PutPayload>) -> Result<(), SegmentError> {
        let content = content.into();
        match self.create(path, &content).await {
            Ok(()) => {}
            Err(object_store::Error::AlreadyExists { .. }) => self.expect_own(path, &content).await?,
            Err(source) if is_final(&source) => return Err(SegmentError::Put { path: path.clone(), source }),
            Err(source) => match self.expect_own(path, &content).await {
                // The first failure says more than that of looking again.
                Err(SegmentError::Put { path, .. }) => return Err(SegmentError::Put { path, source }),
                looked => looked?,
            },
        }
        self.sync(path).await
    }

    /// The objects under the folder `prefix`, all when it is `None`, in no order.
    ///
    /// # Errors
    ///
    /// Each item may be [`SegmentError::List`]; then objects may be missing.
    pub fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<StoredObject, SegmentError>> {
        let named = prefix.cloned().unwrap_or_default();
        let objects = self.objects.list(prefix).map(move |listed| match listed {
            Ok(meta) => Ok(StoredObject { path: meta.location, bytes: meta.size }),
            Err(source) => Err(SegmentError::List { prefix: named.clone(), source }),
        });
        objects.boxed()
    }

    /// The content of an object of at most `limit` bytes.
    ///
    /// # Errors
    ///
    /// [`SegmentError::Missing`], [`SegmentError::TooLarge`], [`SegmentError::Get`], [`SegmentError::Size`].
    pub async fn get(&self, path: &Path, limit: u64) -> Result<Bytes, SegmentError> {
        let failed = |source| match source {
            object_store::Error::NotFound { .. } => SegmentError::Missing(path.clone()),
            source => SegmentError::Get { path: path.clone(), source },
        };
        let object = self.objects.get(path).await.map_err(failed)?;
        let bytes = object.meta.size;
        if bytes > limit {
            return Err(SegmentError::TooLarge { path: path.clone(), bytes, limit });
        }
        let content = object.bytes().await.map_err(failed)?;
        match content.len() as u64 {
            found if found == bytes => Ok(content),
            found => Err(SegmentError::Size { path: path.clone(), stated: bytes, found }),
        }
    }

    /// Deletes an object; durable when this returns. One that is not there counts as deleted.
    ///
    /// # Errors
    ///
    /// [`SegmentError::Delete`], [`SegmentError::Sync`].
    pub async fn delete(&self, path: &Path) -> Result<(), SegmentError> {
        match self.objects.delete(path).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
            Err(source) => return Err(SegmentError::Delete { path: path.clone(), source }),
        }
        let file = self.local.as_ref().map(|folders| folders.file(path));
        let Some(folder) = file.as_deref().and_then(FsPath::parent).map(FsPath::to_owned) else {
            return Ok(());
        };
        let synced = tokio::task::spawn_blocking(move || match File::open(folder) {
            // No folder, no object.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            opened => opened?.sync_all(),
        });
        finish_sync(path, synced.await)
    }

    /// Removes the files that a process left of its puts when it was killed, and returns how many there were. They are no objects, but take their room
    /// until then. Puts that go on are not disturbed, whoever's they are.
    ///
    /// # Errors
    ///
    /// [`SegmentError::List`]: some may be left.
    pub async fn remove_broken_off(&self) -> Result<u64, SegmentError> {
        let Some(folders) = self.local.clone() else { return Ok(0) };
        let removed = tokio::task::spawn_blocking(move || folders.remove_broken_off()).await;
        removed.unwrap_or_else(|error| Err(io::Error::other(error))).map_err(|error| SegmentError::List {
            prefix: Path::default(),
            source: object_store::Error::Generic { store: "local", source: Box::new(error) },
        })
    }

    async fn create(&self, path: &Path, content: &PutPayload) -> object_store::Result<()> {
        let Some(folders) = self.local.clone() else {
            let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
            return self.objects.put_opts(path, content.clone(), options).await.map(drop);
        };
        let (file, content) = (folders.file(path), content.clone());
        let put = tokio::task::spawn_blocking(move || folders.put_new(&file, &content)).await;
        put.unwrap_or_else(|error| Err(io::Error::other(error))).map_err(|error| {
            let (already, source) = (error.kind() == io::ErrorKind::AlreadyExists, Box::new(error));
            match already {
                true => object_store::Error::AlreadyExists { path: path.to_string(), source },
                false => object_store::Error::Generic { store: "local", source },
            }
        })
    }

    async fn expect_own(&self, path: &Path, content: &PutPayload) -> Result<(), SegmentError> {
        let failed = |source| SegmentError::Put { path: path.clone(), source };
        let stored = self.objects.get(path).await.map_err(failed)?;
        // The size is compared first, so that a foreign object of any size is not read.
        let is_own = stored.meta.size == content.content_length() as u64
            && is_same(stored.into_stream(), content).await.map_err(failed)?;
        if is_own { Ok(()) } else { Err(SegmentError::Conflict(path.clone())) }
    }

    /// Makes the object's file durable, and each folder up to the root: a new folder is as volatile as a new file.
    async fn sync(&self, path: &Path) -> Result<(), SegmentError> {
        let Some(folders) = self.local.clone() else { return Ok(()) };
        let file = folders.file(path);
        finish_sync(path, tokio::task::spawn_blocking(move || folders.sync(&file)).await)
    }
}

/// Compares piece by piece, so that no second copy of a large object is in memory.
async fn is_same(
    mut stored: BoxStream<'static, object_store::Result<Bytes>>,
    content: &PutPayload,
) -> object_store::Result<bool> {
    let mut pieces = content.iter().cloned();
    let mut expected = Bytes::new();
    while let Some(found) = stored.next().await {
        let mut found = found?;
        while !found.is_empty() {
            if expected.is_empty() {
                let Some(piece) = pieces.next() else { return Ok(false) };
                expected = piece;
            }
            let length = found.len().min(expected.len());
            if found.split_to(length) != expected.split_to(length) {
                return Ok(false);
            }
        }
    }
    Ok(expected.is_empty() && pieces.all(|piece| piece.is_empty()))
}

fn finish_sync(path: &Path, synced: Result<io::Result<()>, tokio::task::JoinError>) -> Result<(), SegmentError> {
    let result = synced.unwrap_or_else(|error| Err(io::Error::other(error)));
    result.map_err(|source| SegmentError::Sync { path: path.clone(), source })
}

#[cfg(test)]
mod tests;
