//! Parquet's own property types that hold keys. No other file touches them.
//!
//! They keep keys as plain `Vec<u8>`, print them in `Debug` on the writing side and do not wipe them: values of these types
//! live as short as one file's writing or reading and are never formatted.

use std::sync::Arc;

use logseal_crypto::aad::Aad;
use logseal_crypto::{Dek, WrappedDek};
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::{Compression, ZstdLevel};
use parquet::encryption::decrypt::{FileDecryptionProperties, KeyRetriever};
use parquet::encryption::encrypt::FileEncryptionProperties;
use parquet::errors::ParquetError;
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterPropertiesBuilder, WriterVersion};
use parquet::schema::types::ColumnPath;
use zeroize::Zeroizing;

use crate::SegmentError;
use crate::encoding::ColumnEncoding;
use crate::key_metadata::KeyMetadata;

/// Rows a page at the most. Together with the size limit of a page it keeps a column chunk of a row group (12 MiB of values)
/// far below the 32,767 pages that Parquet Modular Encryption can number (`Encryption.md`, section 4.4.1).
const PAGE_ROWS: usize = 8_192;

/// Bytes a page at the most, before compression.
const PAGE_BYTES: usize = 1024 * 1024;

/// What the writer of one segment needs; holds the DEK until the file is written.
pub(crate) fn writer_options(
    dek: &Dek,
    wrapped: &WrappedDek,
    aad_prefix: &Aad,
    zstd_level: i32,
    columns: Vec<ColumnEncoding>,
) -> Result<ArrowWriterOptions, SegmentError> {
    let encryption = FileEncryptionProperties::builder(dek.key()?.expose().to_vec())
        .with_footer_key_metadata(KeyMetadata::new(wrapped).to_json())
        .with_aad_prefix(aad_prefix.as_bytes().to_vec())
        .with_aad_prefix_storage(true)
        .build()
        .map_err(SegmentError::Encode)?;
    let properties = page_properties(zstd_level, columns)?.with_file_encryption_properties(encryption).build();
    assert_safe(&properties)?;
    Ok(options(properties))
}

/// The same without a key, for pages that are counted and dropped.
pub(crate) fn unsealed_options(
    zstd_level: i32,
    columns: Vec<ColumnEncoding>,
) -> Result<ArrowWriterOptions, SegmentError> {
    Ok(options(page_properties(zstd_level, columns)?.build()))
}

/// How pages are encoded and compressed.
fn page_properties(zstd_level: i32, columns: Vec<ColumnEncoding>) -> Result<WriterPropertiesBuilder, SegmentError> {
    let mut properties = WriterProperties::builder()
        .set_writer_version(WriterVersion::PARQUET_1_0) // data page V1: readers of version 2 are rarer
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(zstd_level).map_err(SegmentError::Encode)?))
        .set_statistics_enabled(EnabledStatistics::Page)
        .set_bloom_filter_enabled(false)
        .set_data_page_row_count_limit(PAGE_ROWS)
        .set_data_page_size_limit(PAGE_BYTES)
        .set_created_by(concat!("logseal ", env!("CARGO_PKG_VERSION")).to_owned());
    for ColumnEncoding { path, encoding, dictionary, statistics, compressed } in columns {
        properties = properties
            .set_column_encoding(path.clone(), encoding)
            .set_column_dictionary_enabled(path.clone(), dictionary);
        if !compressed {
            properties = properties.set_column_compression(path.clone(), Compression::UNCOMPRESSED);
        }
        if !statistics {
            properties = properties.set_column_statistics_enabled(path, EnabledStatistics::None);
        }
    }
    Ok(properties)
}

fn options(properties: WriterProperties) -> ArrowWriterOptions {
    // The Arrow schema in the footer's metadata would only repeat what Parquet's own types say.
    ArrowWriterOptions::new().with_properties(properties).with_skip_arrow_metadata(true)
}

/// What the reader of one segment needs. The wrapped DEK and the AAD prefix come from the catalog, never from the file, which
/// could claim any; a file whose key metadata are not the ones that were written is refused.
///
/// # Errors
///
/// [`SegmentError::LeaseOver`], and [`SegmentError::Encode`] when Parquet refuses the properties, which it never does for a [`Dek`].
pub fn decryption_properties(
    dek: &Dek,
    wrapped: &WrappedDek,
    aad_prefix: &Aad,
) -> Result<Arc<FileDecryptionProperties>, SegmentError> {
    let key = KeyOfOneSegment {
        key: Zeroizing::new(dek.key()?.expose().to_vec()),
        metadata: KeyMetadata::new(wrapped).to_json(),
    };
    FileDecryptionProperties::with_key_retriever(Arc::new(key))
        .with_aad_prefix(aad_prefix.as_bytes().to_vec())
        .build()
        .map_err(SegmentError::Encode)
}

/// Gives the DEK only for the key metadata that the segment was written with. Parquet leaves key metadata outside its
/// authenticated encryption: without this, an altered one would go unnoticed.
struct KeyOfOneSegment {
    key: Zeroizing<Vec<u8>>,
    metadata: Vec<u8>,
}

impl KeyRetriever for KeyOfOneSegment {
    fn retrieve_key(&self, metadata: &[u8]) -> parquet::errors::Result<Vec<u8>> {
        if metadata == self.metadata {
            return Ok(self.key.to_vec());
        }
        Err(ParquetError::General("the key metadata are not those of this segment".to_owned()))
    }
}

/// Refuses settings under which parquet 59 leaves something in clear: Bloom filters are written unencrypted, a column key
/// leaves every unlisted column in clear, and a plaintext footer leaks.
fn assert_safe(properties: &WriterProperties) -> Result<(), SegmentError> {
    let encryption =
        properties.file_encryption_properties().ok_or(SegmentError::UnsafeSettings("the file is encrypted"))?;
    let rules = [
        (encryption.encrypt_footer(), "the footer is encrypted"),
        (encryption.footer_key().len() == 32, "the key has 256 bits"),
        (encryption.column_keys().0.is_empty(), "no column has a key of its own"),
        (encryption.aad_prefix().is_some() && encryption.store_aad_prefix(), "an AAD prefix binds the file"),
        (
            properties.bloom_filter_properties(&ColumnPath::new(vec![])).is_none(),
            "there are no Bloom filters, which would be in clear",
        ),
    ];
    match rules.iter().find(|(holds, _)| !holds) {
        None => Ok(()),
        Some((_, rule)) => Err(SegmentError::UnsafeSettings(rule)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encryption(
        change: impl FnOnce(
            parquet::encryption::encrypt::EncryptionPropertiesBuilder,
        ) -> parquet::encryption::encrypt::EncryptionPropertiesBuilder,
    ) -> Arc<FileEncryptionProperties> {
        let builder =
            FileEncryptionProperties::builder(vec![1; 32]).with_aad_prefix(vec![2]).with_aad_prefix_storage(true);
        change(builder).build().unwrap()
    }

    #[test]
    fn settings_that_would_leak_are_refused() {
        let safe = WriterProperties::builder().with_file_encryption_properties(encryption(|b| b)).build();
        assert!(assert_safe(&safe).is_ok());

        let none = WriterProperties::builder().build();
        let bloom = WriterProperties::builder()
            .with_file_encryption_properties(encryption(|b| b))
            .set_bloom_filter_enabled(true)
            .build();
        let with = |e| WriterProperties::builder().with_file_encryption_properties(e).build();
        let unsafe_ones = [
            none,
            bloom,
            with(encryption(|b| b.with_plaintext_footer(true))),
            with(encryption(|b| b.with_column_key("body", vec![3; 32]))),
            with(encryption(|b| b.with_aad_prefix_storage(false))),
            with(
                FileEncryptionProperties::builder(vec![1; 16])
                    .with_aad_prefix(vec![2])
                    .with_aad_prefix_storage(true)
                    .build()
                    .unwrap(),
            ),
        ];
        for properties in &unsafe_ones {
            assert!(matches!(assert_safe(properties), Err(SegmentError::UnsafeSettings(_))));
        }
    }
}
