//! Rows to and from SQLite, each checked against its MAC when it is read.

use logseal_core::{SegmentId, TableName, UnixNanos};
use logseal_crypto::MacKey;
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use crate::CatalogError;
use crate::rows::{
    AekRow, Authenticated, ClusterRow, ColumnRow, CoverageRow, KekRow, SegmentRow, TableRow, WalFileRow, WalFileState,
    WorkspaceKeyRow, WorkspaceRow,
};

/// The MAC to store with `row`.
pub(crate) fn mac<R: Authenticated>(key: &MacKey, row: &R) -> Vec<u8> {
    let fields = row.fields();
    key.mac(R::KIND, &fields.iter().map(Vec::as_slice).collect::<Vec<_>>()).as_bytes().to_vec()
}

/// A kind of row that can be read.
pub(crate) trait Decode: Authenticated + Sized {
    /// The row as its columns state it; `None` when a column has an impossible value.
    fn decode(row: &SqliteRow) -> Option<Self>;
}

/// Decodes and authenticates `row`.
pub(crate) fn read<R: Decode>(key: &MacKey, row: &SqliteRow) -> Result<R, CatalogError> {
    let altered = |id: String| CatalogError::Integrity { kind: R::KIND, id };
    let decoded = R::decode(row).ok_or_else(|| altered(raw_id(row)))?;
    let stored: Vec<u8> = row.try_get("mac").map_err(|_| altered(decoded.label()))?;
    let fields = decoded.fields();
    let genuine = key.verify(R::KIND, &fields.iter().map(Vec::as_slice).collect::<Vec<_>>(), &stored);
    if genuine { Ok(decoded) } else { Err(altered(decoded.label())) }
}

/// What an undecodable row can still be called by.
fn raw_id(row: &SqliteRow) -> String {
    let id = ["id", "table_id", "workspace_id"].iter().find_map(|column| bytes(row, column));
    id.map_or_else(|| "(without id)".to_owned(), |id| id.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn text(row: &SqliteRow, column: &str) -> Option<String> {
    row.try_get(column).ok()
}

fn bytes(row: &SqliteRow, column: &str) -> Option<Vec<u8>> {
    row.try_get(column).ok()
}

fn id<T>(row: &SqliteRow, column: &str, make: impl FnOnce([u8; 16]) -> T) -> Option<T> {
    Some(make(bytes(row, column)?.try_into().ok()?))
}

fn number<T: TryFrom<i64>>(row: &SqliteRow, column: &str) -> Option<T> {
    T::try_from(row.try_get::<i64, _>(column).ok()?).ok()
}

fn time(row: &SqliteRow, column: &str) -> Option<UnixNanos> {
    number(row, column).map(UnixNanos)
}

fn kek(row: &SqliteRow) -> Option<KekRow> {
    Some(KekRow {
        vault_uri: text(row, "kek_vault_uri")?,
        name: text(row, "kek_name")?,
        version: text(row, "kek_version")?,
    })
}

/// An id that may be NULL; `None` when the column holds anything else than an id or NULL.
fn segment(row: &SqliteRow) -> Option<Option<SegmentId>> {
    match row.try_get::<Option<Vec<u8>>, _>("segment_id").ok()? {
        None => Some(None),
        Some(bytes) => Some(Some(SegmentId::from_bytes(bytes.try_into().ok()?))),
    }
}

macro_rules! decode {
    ($row:ident, |$r:ident| { $($field:ident: $value:expr),+ $(,)? }) => {
        impl Decode for $row {
            fn decode($r: &SqliteRow) -> Option<Self> {
                Some(Self { $($field: $value?),+ })
            }
        }
    };
}

decode!(ClusterRow, |r| {
    id: id(r, "id", logseal_core::ClusterId::from_bytes), name: text(r, "name"), created: time(r, "created"), kek: kek(r),
});
decode!(WorkspaceRow, |r| {
    id: id(r, "id", logseal_core::WorkspaceId::from_bytes), name: text(r, "name"),
    cluster: id(r, "cluster_id", logseal_core::ClusterId::from_bytes), created: time(r, "created"),
});
decode!(WorkspaceKeyRow, |r| {
    workspace: id(r, "workspace_id", logseal_core::WorkspaceId::from_bytes), slot: text(r, "slot"),
    lookup: bytes(r, "lookup"), sealed: bytes(r, "sealed"), created: time(r, "created"),
});
decode!(AekRow, |r| {
    id: id(r, "id", logseal_core::AekId::from_bytes),
    workspace: id(r, "workspace_id", logseal_core::WorkspaceId::from_bytes),
    cluster: id(r, "cluster_id", logseal_core::ClusterId::from_bytes), generation: number(r, "generation"), kek: kek(r),
    wrapped: bytes(r, "wrapped"), commitment: bytes(r, "commitment"), created: time(r, "created"),
});
decode!(TableRow, |r| {
    id: id(r, "id", logseal_core::TableId::from_bytes),
    workspace: id(r, "workspace_id", logseal_core::WorkspaceId::from_bytes),
    name: text(r, "name").and_then(|name| TableName::parse(&name).ok()), created: time(r, "created"),
});
decode!(ColumnRow, |r| {
    table: id(r, "table_id", logseal_core::TableId::from_bytes), ordinal: number(r, "ordinal"),
    container: number(r, "container"), kind: number(r, "kind"), aek: id(r, "aek_id", logseal_core::AekId::from_bytes),
    name_sealed: bytes(r, "name_sealed"), name_fingerprint: bytes(r, "name_fingerprint"),
});
decode!(SegmentRow, |r| {
    id: id(r, "id", SegmentId::from_bytes),
    workspace: id(r, "workspace_id", logseal_core::WorkspaceId::from_bytes),
    table: id(r, "table_id", logseal_core::TableId::from_bytes), aek: id(r, "aek_id", logseal_core::AekId::from_bytes),
    path: text(r, "path"), bytes: number(r, "bytes"), rows: number(r, "row_count"), min_time: time(r, "min_time"),
    max_time: time(r, "max_time"), created: time(r, "created"), wrapped_dek: bytes(r, "wrapped_dek"),
    dek_commitment: bytes(r, "dek_commitment"),
});
decode!(WalFileRow, |r| {
    id: id(r, "id", logseal_core::WalFileId::from_bytes), node: id(r, "node_id", logseal_core::NodeId::from_bytes),
    cluster: id(r, "cluster_id", logseal_core::ClusterId::from_bytes), ordinal: number(r, "ordinal"),
    header_hash: bytes(r, "header_hash"), created: time(r, "created"),
    state: number(r, "state").and_then(WalFileState::from_code), changed: time(r, "changed"),
    attested: number(r, "attested"),
});
decode!(CoverageRow, |r| {
    file: id(r, "file_id", logseal_core::WalFileId::from_bytes), table: id(r, "table_id", logseal_core::TableId::from_bytes),
    aek: id(r, "aek_id", logseal_core::AekId::from_bytes), first: number(r, "first"), last: number(r, "last"),
    segment: segment(r),
});
