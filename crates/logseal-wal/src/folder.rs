//! Judges all files of a cluster together: each is bounded by what its successor's header says.

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};

use logseal_core::WalFileId;

use crate::format::Predecessor;
use crate::{Alteration, Bound, Disk, FileReader, FileSurvey, WalError, survey_file};

/// What the catalog knows of a file.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Known {
    /// A sequence that is known to have been durable; 0 if none is.
    pub attested: u64,
    /// The hash of its header, as it was registered.
    pub header_hash: Option<[u8; 32]>,
}

/// Something about a folder that is not as it should be. What is wrong inside a file is in its [`FileSurvey`].
#[derive(Debug)]
pub enum FolderProblem {
    /// A file that cannot be surveyed: its header is damaged, or the disk does not give it.
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        error: WalError,
    },
    /// A file's header names a predecessor that is not there. Nothing is wrong if that was wholly covered and deleted.
    MissingPredecessor {
        /// The file that names it.
        file: WalFileId,
        /// What is not there.
        predecessor: Predecessor,
    },
    /// Two files name the same predecessor and do not agree about it; the larger valid-to was used, so that nothing that may
    /// have been acknowledged is void.
    Fork {
        /// What is named twice.
        predecessor: WalFileId,
    },
}

/// All files of a folder, judged.
#[derive(Debug, Default)]
pub struct FolderSurvey {
    /// The files by ordinal.
    pub files: Vec<FileSurvey>,
    /// What is wrong with the folder as a whole.
    pub problems: Vec<FolderProblem>,
}

impl FolderSurvey {
    /// What a new [`Writer`](crate::Writer) of this folder continues: the newest file that belongs here.
    #[must_use]
    pub fn predecessor(&self) -> Option<Predecessor> {
        let belongs = |file: &&FileSurvey| !file.alterations.contains(&Alteration::Path);
        self.files.iter().rev().find(belongs).map(FileSurvey::predecessor)
    }
}

/// Surveys all `*.wal` files of `folder`; a folder that does not exist has none. `known` says what the catalog knows of a file.
///
/// # Errors
///
/// [`WalError::Io`] when the folder cannot be listed. Trouble with one file is a problem in the answer.
pub fn survey_folder(
    disk: &dyn Disk,
    folder: &Path,
    known: &dyn Fn(WalFileId) -> Known,
) -> Result<FolderSurvey, WalError> {
    let paths = match disk.list(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(FolderSurvey::default()),
        paths => paths.map_err(WalError::io("list", folder))?,
    };
    let mut problems = Vec::new();
    let mut headers = Vec::new();
    for path in paths.into_iter().filter(|path| path.extension().is_some_and(|extension| extension == "wal")) {
        match FileReader::open(disk, &path) {
            Ok(reader) => headers.push((reader.header().clone(), path)),
            Err(error) => problems.push(FolderProblem::Unreadable { path, error }),
        }
    }
    headers.sort_by_key(|(header, _)| (header.ordinal, header.file));
    let present: HashSet<_> = headers.iter().map(|(header, _)| header.file).collect();
    let mut successors: HashMap<WalFileId, Predecessor> = HashMap::new();
    for (header, _) in &headers {
        let Some(said) = header.predecessor else { continue };
        if !present.contains(&said.file) {
            problems.push(FolderProblem::MissingPredecessor { file: header.file, predecessor: said });
        }
        let kept = successors.entry(said.file).or_insert(said);
        if *kept != said {
            problems.push(FolderProblem::Fork { predecessor: said.file });
        }
        if said.end > kept.end {
            *kept = said;
        }
    }
    let mut files = Vec::with_capacity(headers.len());
    for (header, path) in headers {
        let Known { attested, header_hash } = known(header.file);
        let bound = Bound { successor: successors.get(&header.file).copied(), attested, header_hash };
        match survey_file(disk, &path, &bound) {
            Ok(survey) => files.push(survey),
            Err(error) => problems.push(FolderProblem::Unreadable { path, error }),
        }
    }
    Ok(FolderSurvey { files, problems })
}
