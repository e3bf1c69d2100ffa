//! A consistent copy of the catalog while a server uses it.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _, Executor as _, Row as _, SqliteConnection};

use crate::{CatalogError, catalog, schema};

/// Copies the catalog in `file` to the new file `to`: one file, readable by its owner alone, checked and durable when this
/// returns. The catalog is only read, from a moment of its own; another process may go on changing it.
///
/// While the copy is written it is called `to` with `.partial` behind it, and `to` is empty.
///
/// # Errors
///
/// [`CatalogError::Exists`] when `to` or its partial file exists, [`CatalogError::Format`] when `file` is of a newer format or
/// no catalog, [`CatalogError::Damaged`] when the copy does not pass SQLite's integrity check, [`CatalogError::Backup`],
/// [`CatalogError::Sql`]. Nothing new is left then.
pub async fn backup(file: &Path, to: &Path) -> Result<(), CatalogError> {
    let mut source = open(file).await?;
    check_format(&mut source).await?;
    let mut partial = to.as_os_str().to_owned();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    let claim = NewFile::create(to)?;
    let copy = NewFile::create(&partial)?;
    // Binding the path instead of writing it into the statement makes every name possible.
    let text = partial.to_str().ok_or_else(|| failed(&partial)(io::ErrorKind::InvalidFilename.into()))?;
    source.execute(sqlx::query("VACUUM INTO ?").bind(text)).await.map_err(CatalogError::sql("copy"))?;
    source.close().await.map_err(CatalogError::sql("close"))?;
    check(&partial).await?;
    tokio::task::spawn_blocking(move || publish(claim, copy))
        .await
        .unwrap_or_else(|panic| Err(failed(&partial)(io::Error::other(panic))))
}

/// Makes the copy durable, and only then gives it its name.
fn publish(claim: NewFile, copy: NewFile) -> Result<(), CatalogError> {
    let folder = match claim.path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    File::open(&copy.path).and_then(|file| file.sync_all()).map_err(failed(&copy.path))?;
    // Replaces the empty file that we made: no one else's file can be there.
    fs::rename(&copy.path, &claim.path).map_err(failed(&claim.path))?;
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed(folder))?;
    copy.keep();
    claim.keep();
    Ok(())
}

/// A file that this call made, removed again unless it is kept.
struct NewFile {
    path: PathBuf,
    kept: bool,
}

impl NewFile {
    fn create(path: &Path) -> Result<Self, CatalogError> {
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        match options.open(path) {
            Ok(_) => Ok(Self { path: path.to_owned(), kept: false }),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(CatalogError::Exists(path.to_owned())),
            Err(error) => Err(failed(path)(error)),
        }
    }

    fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if !self.kept {
            // The error that led here says more than that of a file that cannot be removed.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> CatalogError {
    let path = path.to_owned();
    move |source| CatalogError::Backup { path, source: Arc::new(source) }
}

/// Opens the catalog in `file` for reading.
pub(crate) async fn open(file: &Path) -> Result<SqliteConnection, CatalogError> {
    let options = SqliteConnectOptions::new()
        .filename(file)
        .read_only(true)
        .pragma("temp_store", "MEMORY")
        .pragma("trusted_schema", "OFF")
        .disable_statement_logging();
    SqliteConnection::connect_with(&options).await.map_err(CatalogError::sql("open"))
}

/// The format of a catalog that this version can read.
pub(crate) async fn check_format(connection: &mut SqliteConnection) -> Result<i64, CatalogError> {
    match catalog::format(connection).await? {
        known @ 1..=schema::FORMAT => Ok(known),
        found => Err(CatalogError::Format { found, known: schema::FORMAT }),
    }
}

async fn check(file: &Path) -> Result<(), CatalogError> {
    let mut copy = open(file).await?;
    check_format(&mut copy).await?;
    let row = copy.fetch_one("PRAGMA integrity_check(1)").await.map_err(CatalogError::sql("check integrity"))?;
    let verdict: String = row.get(0);
    copy.close().await.map_err(CatalogError::sql("close"))?;
    if verdict == "ok" { Ok(()) } else { Err(CatalogError::Damaged(verdict)) }
}

#[cfg(test)]
mod tests;
