//! Additional authenticated data: the only constructors of what a sealed value is bound to.
//!
//! Layout: `"logseal"` | version (1 byte) | purpose (1 byte) | fields. Ids are 16 bytes; text and bytes are preceded by
//! their length as a 32-bit little-endian number. Two different contexts can therefore never give the same bytes.

use logseal_core::{AekId, ClusterId, SegmentId, TableId, WalFileId, WorkspaceId};

/// Version of all layouts in this file; a change of any layout takes the next number.
pub const VERSION: u8 = 1;

/// Bytes that a seal is bound to. Made only by the functions of this module.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Aad(Vec<u8>);

impl Aad {
    fn new(purpose: Purpose) -> Self {
        let mut bytes = Vec::with_capacity(96);
        bytes.extend_from_slice(b"logseal");
        bytes.extend_from_slice(&[VERSION, purpose as u8]);
        Self(bytes)
    }

    fn id(mut self, id: &[u8; 16]) -> Self {
        self.0.extend_from_slice(id);
        self
    }

    fn text(self, text: &str) -> Self {
        self.bytes(text.as_bytes())
    }

    fn bytes(mut self, bytes: &[u8]) -> Self {
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        self.0.extend_from_slice(&length.to_le_bytes());
        self.0.extend_from_slice(bytes);
        self
    }

    /// The bytes to give to the cipher.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// What a sealed value is for; the number is part of the format and never reused.
#[derive(Clone, Copy, Debug)]
enum Purpose {
    SegmentDek = 1,
    SegmentFile = 2,
    AttributeName = 3,
    VaultPrivateKey = 4,
    WorkspaceKey = 5,
    AccountKey = 6,
    WalDek = 7,
    WalFrame = 8,
    KekProbe = 9,
    AuthorityKey = 10,
}

/// An AEK under its KEK. The vault's wrap takes no AAD (RSA-OAEP through the Key Vault API), so this binds the commitment.
#[must_use]
pub fn account_key(workspace: WorkspaceId, aek: AekId, generation: u32) -> Aad {
    let mut aad = Aad::new(Purpose::AccountKey).id(workspace.as_bytes()).id(aek.as_bytes());
    aad.0.extend_from_slice(&generation.to_le_bytes());
    aad
}

/// A key that protects nothing, by which a cluster's KEK is probed. As for an AEK, this binds its commitment.
#[must_use]
pub fn kek_probe(cluster: ClusterId) -> Aad {
    Aad::new(Purpose::KekProbe).id(cluster.as_bytes())
}

/// A segment's DEK wrapped by its workspace's AEK.
#[must_use]
pub fn segment_dek(workspace: WorkspaceId, aek: AekId, segment: SegmentId) -> Aad {
    Aad::new(Purpose::SegmentDek).id(workspace.as_bytes()).id(aek.as_bytes()).id(segment.as_bytes())
}

/// The AAD prefix of a segment's Parquet modules (Parquet Modular Encryption, section 4.4.2).
#[must_use]
pub fn segment_file(workspace: WorkspaceId, table: TableId, segment: SegmentId) -> Aad {
    Aad::new(Purpose::SegmentFile).id(workspace.as_bytes()).id(table.as_bytes()).id(segment.as_bytes())
}

/// The name of an attribute column in the catalog.
#[must_use]
pub fn attribute_name(workspace: WorkspaceId, aek: AekId, table: TableId) -> Aad {
    Aad::new(Purpose::AttributeName).id(workspace.as_bytes()).id(aek.as_bytes()).id(table.as_bytes())
}

/// A private key of the embedded vault.
#[must_use]
pub fn vault_private_key(name: &str, version: &str) -> Aad {
    Aad::new(Purpose::VaultPrivateKey).text(name).text(version)
}

/// The private key of the deployment's certificate authority, bound to the certificate that clients trust.
#[must_use]
pub fn authority_key(certificate: &[u8]) -> Aad {
    Aad::new(Purpose::AuthorityKey).bytes(certificate)
}

/// The readable copy of a workspace's access key.
#[must_use]
pub fn workspace_key(workspace: WorkspaceId, slot: &str) -> Aad {
    Aad::new(Purpose::WorkspaceKey).id(workspace.as_bytes()).text(slot)
}

/// The DEK of one workspace in one file of the write-ahead log, wrapped by the workspace's AEK.
#[must_use]
pub fn wal_dek(workspace: WorkspaceId, aek: AekId, file: WalFileId) -> Aad {
    Aad::new(Purpose::WalDek).id(workspace.as_bytes()).id(aek.as_bytes()).id(file.as_bytes())
}

/// The body of one frame of the write-ahead log: bound to the file, to what the frame's `head` says of itself (its sequence,
/// its slot, its lengths) and to the `metadata` that stands in clear before the body.
#[must_use]
pub fn wal_frame(file: WalFileId, head: &[u8], metadata: &[u8]) -> Aad {
    Aad::new(Purpose::WalFrame).id(file.as_bytes()).bytes(head).bytes(metadata)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_and_purpose_changes_the_bytes() {
        let (w, a, s, t) = ([1; 16], [2; 16], [3; 16], [4; 16]);
        let ids = |w, a, s| segment_dek(WorkspaceId::from_bytes(w), AekId::from_bytes(a), SegmentId::from_bytes(s));
        let all = [
            ids(w, a, s),
            ids(t, a, s),
            ids(w, t, s),
            ids(w, a, t),
            segment_file(WorkspaceId::from_bytes(w), TableId::from_bytes(a), SegmentId::from_bytes(s)),
            attribute_name(WorkspaceId::from_bytes(w), AekId::from_bytes(a), TableId::from_bytes(s)),
            vault_private_key("ab", "c"),
            vault_private_key("a", "bc"),
            workspace_key(WorkspaceId::from_bytes(w), "primary"),
            workspace_key(WorkspaceId::from_bytes(w), "secondary"),
            wal_dek(WorkspaceId::from_bytes(w), AekId::from_bytes(a), WalFileId::from_bytes(s)),
            wal_dek(WorkspaceId::from_bytes(t), AekId::from_bytes(a), WalFileId::from_bytes(s)),
            wal_dek(WorkspaceId::from_bytes(w), AekId::from_bytes(t), WalFileId::from_bytes(s)),
            wal_dek(WorkspaceId::from_bytes(w), AekId::from_bytes(a), WalFileId::from_bytes(t)),
            wal_frame(WalFileId::from_bytes(s), b"ab", b"c"),
            wal_frame(WalFileId::from_bytes(s), b"a", b"bc"),
            wal_frame(WalFileId::from_bytes(t), b"ab", b"c"),
            authority_key(b"ab"),
            authority_key(b"abc"),
        ];
        for (i, left) in all.iter().enumerate() {
            for right in &all[i + 1..] {
                assert_ne!(left, right);
            }
        }
    }

    /// The layout is part of the format of every stored wrap: it must not move.
    #[test]
    fn the_layout_is_pinned() {
        let aad =
            segment_dek(WorkspaceId::from_bytes([1; 16]), AekId::from_bytes([2; 16]), SegmentId::from_bytes([3; 16]));
        let expected = [b"logseal\x01\x01".as_slice(), &[1; 16], &[2; 16], &[3; 16]].concat();
        assert_eq!(aad.as_bytes(), expected);
        assert_eq!(vault_private_key("kek", "v").as_bytes(), b"logseal\x01\x04\x03\0\0\0kek\x01\0\0\0v");
        let dek = wal_dek(WorkspaceId::from_bytes([1; 16]), AekId::from_bytes([2; 16]), WalFileId::from_bytes([3; 16]));
        assert_eq!(dek.as_bytes(), [b"logseal\x01\x07".as_slice(), &[1; 16], &[2; 16], &[3; 16]].concat());
        let frame = wal_frame(WalFileId::from_bytes([3; 16]), b"head", b"m");
        assert_eq!(
            frame.as_bytes(),
            [b"logseal\x01\x08".as_slice(), &[3; 16], b"\x04\0\0\0head", b"\x01\0\0\0m"].concat()
        );
    }
}
