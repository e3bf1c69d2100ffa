//! The key metadata in a segment's footer: PKMT1 key material as parquet-java and pyarrow read it.
//!
//! ```json
//! {"keyMaterialType":"PKMT1","internalStorage":true,"isFooterKey":true,"kmsInstanceID":"logseal",
//!  "kmsInstanceURL":"DEFAULT","masterKeyID":"<AEK id>","wrappedDEK":"<base64url>","doubleWrapping":false}
//! ```
//!
//! All eight fields are required by pyarrow. `wrappedDEK` is [`WrappedDek`] in base64url without padding; a reader with a KMS
//! client class hands it to Logseal to be unwrapped. The metadata is outside the file's authenticated encryption: Logseal's
//! own reader takes the wrapped DEK from the catalog and never from here.

use data_encoding::BASE64URL_NOPAD;
use logseal_crypto::WrappedDek;
use serde::{Deserialize, Serialize};

use crate::SegmentError;

/// PKMT1 key material with internal storage and single wrapping.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct KeyMetadata {
    key_material_type: String,
    internal_storage: bool,
    is_footer_key: bool,
    #[serde(rename = "kmsInstanceID")]
    kms_instance_id: String,
    #[serde(rename = "kmsInstanceURL")]
    kms_instance_url: String,
    #[serde(rename = "masterKeyID")]
    master_key_id: String,
    #[serde(rename = "wrappedDEK")]
    wrapped_dek: String,
    double_wrapping: bool,
}

impl KeyMetadata {
    /// The metadata that name `wrapped` and its AEK.
    #[must_use]
    pub fn new(wrapped: &WrappedDek) -> Self {
        Self {
            key_material_type: "PKMT1".into(),
            internal_storage: true,
            is_footer_key: true,
            kms_instance_id: "logseal".into(),
            kms_instance_url: "DEFAULT".into(),
            master_key_id: wrapped.aek.to_string(),
            wrapped_dek: BASE64URL_NOPAD.encode(&wrapped.to_bytes()),
            double_wrapping: false,
        }
    }

    /// The bytes for the footer.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("strings and booleans always serialize")
    }

    /// Reads a footer's key metadata and the wrapped DEK in it.
    ///
    /// # Errors
    ///
    /// [`SegmentError::NotASegment`] when they are not ours.
    pub fn parse(json: &[u8]) -> Result<(Self, WrappedDek), SegmentError> {
        let metadata: Self = serde_json::from_slice(json)
            .map_err(|_| SegmentError::NotASegment("its key metadata are not PKMT1 JSON"))?;
        let wrapped = BASE64URL_NOPAD
            .decode(metadata.wrapped_dek.as_bytes())
            .ok()
            .and_then(|bytes| WrappedDek::from_bytes(&bytes))
            .ok_or(SegmentError::NotASegment("its wrapped DEK is not of Logseal's format"))?;
        Ok((metadata, wrapped))
    }
}
