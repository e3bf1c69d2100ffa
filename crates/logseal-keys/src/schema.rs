//! Attribute columns to and from the catalog: the name is content and is sealed, the rest is not.

use logseal_catalog::ColumnRow;
use logseal_core::TableId;
use logseal_crypto::{Aek, KeyUseError, OsRandom, WrapError};

use crate::KeyError;

/// Seals an attribute column of `table`.
///
/// # Errors
///
/// [`WrapError`].
pub fn seal_column(
    aek: &Aek,
    table: TableId,
    ordinal: u32,
    container: u8,
    kind: u8,
    key: &str,
) -> Result<ColumnRow, WrapError> {
    Ok(ColumnRow {
        table,
        ordinal,
        container,
        kind,
        aek: aek.id(),
        name_sealed: aek.seal_name(table, key, OsRandom)?,
        name_fingerprint: aek.name_fingerprint(table, container, key)?.as_bytes().to_vec(),
    })
}

/// Opens the name of `row`, which `aek` sealed.
///
/// # Errors
///
/// [`KeyError::LeaseOver`], and [`KeyError::ColumnName`] when it does not open.
pub fn open_column_name(aek: &Aek, row: &ColumnRow) -> Result<String, KeyError> {
    let name = aek.open_name(row.table, &row.name_sealed).map_err(|error| match error {
        KeyUseError::LeaseOver(over) => KeyError::from(over),
        KeyUseError::Seal(_) => KeyError::ColumnName(aek.workspace()),
    })?;
    Ok(name.to_string())
}
