//! Data keys of segments for readers outside of the server, which read the files themselves.
//!
//! A reader finds a wrapped DEK in a file's footer, in clear and outside of the file's authenticated encryption: what it presents is a claim.
//! The key that it is given comes from the catalog's authenticated row alone, and only if that row has the very wrap that was presented.

use std::fmt::{self, Debug};

use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use logseal_catalog::SegmentRow;
use logseal_core::{AekId, SegmentId, WorkspaceId, stack};
use logseal_crypto::{Dek, LeaseOver, WrappedDek, aad};
use zeroize::Zeroizing;

use crate::{KeyError, Keyring};

/// A wrapped DEK as a reader presents it. Nothing in it is true before [`PresentedWrap::is_of`] says so.
#[derive(Clone, Debug)]
pub struct PresentedWrap(WrappedDek);

impl PresentedWrap {
    /// Reads `text`, base64url without padding, as it stands in a segment's key metadata; `None` when it is nothing of ours.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        BASE64URL_NOPAD.decode(text.as_bytes()).ok().and_then(|bytes| WrappedDek::from_bytes(&bytes)).map(Self)
    }

    /// The AEK that it names.
    #[must_use]
    pub fn aek(&self) -> AekId {
        self.0.aek
    }

    /// The workspace that it names.
    #[must_use]
    pub fn workspace(&self) -> WorkspaceId {
        self.0.workspace
    }

    /// The segment that it names.
    #[must_use]
    pub fn segment(&self) -> SegmentId {
        self.0.segment
    }

    /// Whether it is the wrap that the catalog has of `segment`.
    #[must_use]
    pub fn is_of(&self, segment: &SegmentRow) -> bool {
        let owner = (self.0.aek, self.0.workspace, self.0.segment) == (segment.aek, segment.workspace, segment.id);
        owner && WrappedDek::from_bytes(&segment.wrapped_dek).is_some_and(|stored| stored.ct_eq(&self.0))
    }
}

/// The DEK of one segment, on its way to a reader; under the lease of its cluster until it is shown.
pub struct SegmentKey {
    dek: Dek,
    aad_prefix: String,
}

impl SegmentKey {
    /// The DEK in base64url without padding. From here on no lease holds it: it opens that one file for ever.
    ///
    /// # Errors
    ///
    /// [`LeaseOver`].
    pub fn reveal(&self) -> Result<Zeroizing<String>, LeaseOver> {
        let key = self.dek.key()?;
        Ok(stack::wiped(|| Zeroizing::new(BASE64URL_NOPAD.encode(key.expose()))))
    }

    /// The AAD prefix of the segment's file, hexadecimal. A reader that asks for it takes no other file for this one.
    #[must_use]
    pub fn aad_prefix(&self) -> &str {
        &self.aad_prefix
    }
}

impl Debug for SegmentKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SegmentKey").field("aad_prefix", &self.aad_prefix).finish_non_exhaustive()
    }
}

impl Keyring {
    /// The DEK of `segment`, from its authenticated catalog row, for a reader outside.
    ///
    /// # Errors
    ///
    /// As [`Keyring::segment_dek`], and [`KeyError::Refused`] while the workspace is not available.
    pub async fn segment_key(&self, segment: &SegmentRow) -> Result<SegmentKey, KeyError> {
        let workspace = segment.workspace;
        if let Some(why) = self.refusal(workspace) {
            return Err(KeyError::Refused { workspace, why });
        }
        let dek = self.segment_dek(segment).await?;
        let aad_prefix = HEXLOWER.encode(aad::segment_file(workspace, segment.table, segment.id).as_bytes());
        Ok(SegmentKey { dek, aad_prefix })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use logseal_core::{TableId, UnixNanos};
    use logseal_crypto::{Aek, Key256, Lease, OsRandom};

    use super::*;

    const WORKSPACE: WorkspaceId = WorkspaceId::from_bytes([1; 16]);

    fn aek(lease: Arc<Lease>) -> Aek {
        let key = Key256::copy_from_slice(&[9; 32]).unwrap();
        Aek::new(AekId::from_bytes([2; 16]), WORKSPACE, 1, key, lease)
    }

    fn segment(aek: &Aek, id: u8) -> (SegmentRow, Dek, String) {
        let id = SegmentId::from_bytes([id; 16]);
        let (dek, wrapped) = aek.new_dek(id, OsRandom).unwrap();
        let row = SegmentRow {
            id,
            workspace: WORKSPACE,
            table: TableId::from_bytes([3; 16]),
            aek: aek.id(),
            path: "p".into(),
            bytes: 1,
            rows: 1,
            min_time: UnixNanos(0),
            max_time: UnixNanos(0),
            created: UnixNanos(0),
            wrapped_dek: wrapped.to_bytes(),
            dek_commitment: dek.commitment().as_bytes().to_vec(),
        };
        (row, dek, BASE64URL_NOPAD.encode(&wrapped.to_bytes()))
    }

    /// Scenario: a wrap is presented for its own segment, for another one, and for rows that differ from it in one thing. Guarantee: it is
    /// that of its own row alone.
    #[test]
    fn a_presented_wrap_is_that_of_its_own_row_alone() {
        let aek = aek(Lease::unlimited());
        let (row, _, text) = segment(&aek, 4);
        let (other, _, _) = segment(&aek, 5);
        let (again, _, _) = segment(&aek, 4);
        let presented = PresentedWrap::parse(&text).unwrap();
        assert!(presented.is_of(&row));
        let others = [
            SegmentRow { wrapped_dek: row.wrapped_dek.clone(), ..other.clone() },
            SegmentRow { workspace: WorkspaceId::from_bytes([7; 16]), ..row.clone() },
            SegmentRow { aek: AekId::from_bytes([7; 16]), ..row.clone() },
            SegmentRow { wrapped_dek: vec![], ..row },
            other,
            again,
        ];
        for other in others {
            assert!(!presented.is_of(&other), "{other:?}");
        }
        for nothing in ["", "AAAA", "not base64", &format!("{text}="), &text[1..]] {
            assert!(PresentedWrap::parse(nothing).is_none(), "{nothing}");
        }
    }

    /// Scenario: the lease ends between the moment at which a key was opened and that at which it is to go out. Guarantee: it does not.
    #[test]
    fn a_key_is_not_shown_after_its_lease_and_never_by_debug() {
        let lease = Lease::unlimited();
        let (_, dek, _) = segment(&aek(Arc::clone(&lease)), 4);
        let hex = HEXLOWER.encode(dek.key().unwrap().expose());
        let key = SegmentKey { dek, aad_prefix: "prefix".to_owned() };
        let shown = key.reveal().unwrap();
        assert_eq!(HEXLOWER.encode(&BASE64URL_NOPAD.decode(shown.as_bytes()).unwrap()), hex);
        let debug = format!("{key:?}");
        assert!(!debug.contains(shown.as_str()) && !debug.contains(&hex), "{debug}");
        lease.end();
        assert_eq!(key.reveal().unwrap_err(), LeaseOver);
    }
}
