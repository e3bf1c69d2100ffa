//! The data keys of one file, by slot.

use std::collections::HashMap;
use std::sync::Arc;

use logseal_core::{AekId, WalFileId, WorkspaceId};
use logseal_crypto::{Aek, FrameOpener, KeyUseError, SealError};

use crate::{FileHeader, KeyFrame, OpenError};

/// The data keys of one file: what its key frames said, and the openers of those whose AEK was available.
///
/// Keys are wiped when it is dropped; drop it when the file has been read.
#[derive(Debug)]
pub struct FileKeys {
    file: WalFileId,
    nonce_field: [u8; 4],
    slots: HashMap<u16, Slot>,
}

#[derive(Debug)]
struct Slot {
    workspace: WorkspaceId,
    aek: AekId,
    key: Result<FrameOpener, OpenError>,
}

impl FileKeys {
    /// No keys yet, for the file with this header.
    #[must_use]
    pub fn new(header: &FileHeader) -> Self {
        Self { file: header.file, nonce_field: header.nonce_field, slots: HashMap::new() }
    }

    /// The file.
    #[must_use]
    pub fn file(&self) -> WalFileId {
        self.file
    }

    /// Takes a key frame: unwraps its DEK if `unwrap` has the AEK. Of the two copies of a key frame, one that opens is enough.
    ///
    /// # Errors
    ///
    /// [`OpenError::KeyUnavailable`] or [`OpenError::Key`]: the slot's entries will not open, and say so themselves. Its ids
    /// are kept all the same.
    pub fn add(&mut self, frame: &KeyFrame, unwrap: &dyn Fn(AekId) -> Option<Arc<Aek>>) -> Result<(), OpenError> {
        if let Some(slot) = self.slots.get(&frame.slot)
            && slot.key.is_ok()
        {
            return Ok(());
        }
        let key = self.opener_of(frame, unwrap);
        let result = key.as_ref().map(|_| ()).map_err(|error| *error);
        self.slots.insert(frame.slot, Slot { workspace: frame.workspace, aek: frame.aek, key });
        result
    }

    fn opener_of(
        &self,
        frame: &KeyFrame,
        unwrap: &dyn Fn(AekId) -> Option<Arc<Aek>>,
    ) -> Result<FrameOpener, OpenError> {
        let aek = unwrap(frame.aek).ok_or(OpenError::KeyUnavailable { slot: frame.slot })?;
        let refused = |error| OpenError::of_key(frame.slot, error);
        if (aek.id(), aek.workspace()) != (frame.aek, frame.workspace) {
            return Err(refused(SealError.into()));
        }
        let dek = aek.unwrap_wal_dek(self.file, &frame.sealed, frame.commitment).map_err(refused)?;
        FrameOpener::new(&dek, self.nonce_field).map_err(|error| refused(KeyUseError::from(error)))
    }

    /// The workspace that a slot serves, as its key frame says; authentic once an entry of the slot opened.
    #[must_use]
    pub fn workspace_of(&self, slot: u16) -> Option<WorkspaceId> {
        self.slots.get(&slot).map(|slot| slot.workspace)
    }

    /// The AEK under which a slot's DEK is, as its key frame says.
    #[must_use]
    pub fn aek_of(&self, slot: u16) -> Option<AekId> {
        self.slots.get(&slot).map(|slot| slot.aek)
    }

    pub(crate) fn opener(&self, slot: u16) -> Result<&FrameOpener, OpenError> {
        let key = self.slots.get(&slot).map(|slot| slot.key.as_ref());
        key.ok_or(OpenError::KeyUnavailable { slot })?.map_err(|error| *error)
    }
}
