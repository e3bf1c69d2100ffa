//! Rows to and from SQLite, each checked against its MAC when it is read.

use logseal_core::{TableName, UnixNanos};
use logseal_crypto::MacKey;
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use crate::CatalogError;
use crate::rows::{
    AekRow, AekWrapsRow, AuditEntry, AuditHead, AuditRow, Authenticated, ClusterRow, ColumnRow, CoverageRow,
    GarbageRow, KekRow, KekVersionRow, OperationRow, OperationState, ResourceKind, ResourceRow, SegmentRow,
    ShreddedRow, TableRow, TokenRow, UsageRow, WalFileRow, WalFileState, WorkspaceKeyRow, WorkspaceKeyUseRow,
    WorkspaceRow,
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
    let id = ["id", "table_id", "aek_id", "workspace_id"].iter().find_map(|column| bytes(row, column));
    let id = id.map(|id| id.iter().map(|byte| format!("{byte:02x}")).collect());
    id.or_else(|| text(row, "name")).unwrap_or_else(|| "(without id)".to_owned())
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

fn flag(row: &SqliteRow, column: &str) -> Option<bool> {
    match number(row, column)? {
        0_u8 => Some(false),
        1 => Some(true),
        _ => None,
    }
}

fn kek(row: &SqliteRow) -> Option<KekRow> {
    Some(KekRow {
        vault_uri: text(row, "kek_vault_uri")?,
        name: text(row, "kek_name")?,
        version: text(row, "kek_version")?,
    })
}

/// An id that may be NULL; `None` when the column holds anything else than an id or NULL.
fn optional_id<T>(row: &SqliteRow, column: &str, make: impl FnOnce([u8; 16]) -> T) -> Option<Option<T>> {
    match row.try_get::<Option<Vec<u8>>, _>(column).ok()? {
        None => Some(None),
        Some(bytes) => Some(Some(make(bytes.try_into().ok()?))),
    }
}

/// A time that may be NULL.
fn optional_time(row: &SqliteRow, column: &str) -> Option<Option<UnixNanos>> {
    Some(row.try_get::<Option<i64>, _>(column).ok()?.map(UnixNanos))
}

/// Ids of workspaces, one after the other; `None` when there is a part of one.
fn workspaces(row: &SqliteRow, column: &str) -> Option<Vec<logseal_core::WorkspaceId>> {
    let bytes = bytes(row, column)?;
    let (ids, rest) = bytes.as_chunks::<16>();
    rest.is_empty().then(|| ids.iter().map(|id| logseal_core::WorkspaceId::from_bytes(*id)).collect())
}

/// What texts that compare without ASCII case are found by.
pub(crate) fn key_of(text: &str) -> String {
    text.to_ascii_lowercase()
}

/// A text that is found by its lower case in the column `key`. No MAC covers that one: it must be what the text gives.
fn keyed(row: &SqliteRow, column: &str, key: &str) -> Option<String> {
    let found = text(row, column)?;
    (text(row, key)? == key_of(&found)).then_some(found)
}

fn entry(row: &SqliteRow) -> Option<AuditEntry> {
    Some(AuditEntry {
        at: time(row, "at")?,
        actor: text(row, "actor")?,
        action: text(row, "action")?,
        resource: text(row, "resource")?,
        operation: optional_id(row, "operation_id", logseal_core::OperationId::from_bytes)?,
        outcome: text(row, "outcome")?,
        before: text(row, "before")?,
        after: text(row, "after")?,
    })
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
decode!(WorkspaceKeyUseRow, |r| {
    workspace: id(r, "workspace_id", logseal_core::WorkspaceId::from_bytes), slot: text(r, "slot"),
    lookup: bytes(r, "lookup"), used: time(r, "used"),
});
decode!(AekRow, |r| {
    id: id(r, "id", logseal_core::AekId::from_bytes),
    workspace: id(r, "workspace_id", logseal_core::WorkspaceId::from_bytes),
    cluster: id(r, "cluster_id", logseal_core::ClusterId::from_bytes), generation: number(r, "generation"), kek: kek(r),
    wrapped: bytes(r, "wrapped"), commitment: bytes(r, "commitment"), created: time(r, "created"),
});
decode!(AekWrapsRow, |r| { aek: id(r, "aek_id", logseal_core::AekId::from_bytes), wraps: number(r, "wraps") });
decode!(KekVersionRow, |r| {
    cluster: id(r, "cluster_id", logseal_core::ClusterId::from_bytes), kek: kek(r), probe: bytes(r, "probe"),
    commitment: bytes(r, "commitment"), used: time(r, "used"),
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
    id: id(r, "id", logseal_core::SegmentId::from_bytes),
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
    segment: optional_id(r, "segment_id", logseal_core::SegmentId::from_bytes),
});
decode!(ResourceRow, |r| {
    id: id(r, "id", logseal_core::ResourceId::from_bytes), kind: number(r, "kind").and_then(ResourceKind::from_code),
    subscription: keyed(r, "subscription", "subscription_key"), group: keyed(r, "resource_group", "resource_group_key"),
    name: keyed(r, "name", "name_key"), document: text(r, "document"), version: number(r, "version"),
    created: time(r, "created"), changed: time(r, "changed"), deleted: optional_time(r, "deleted"),
});
decode!(OperationRow, |r| {
    id: id(r, "id", logseal_core::OperationId::from_bytes), kind: text(r, "kind"),
    resource: id(r, "resource_id", logseal_core::ResourceId::from_bytes), target: text(r, "target"),
    subscription: keyed(r, "subscription", "subscription_key"), location: text(r, "location"),
    state: number(r, "state").and_then(OperationState::from_code), document: text(r, "document"),
    created: time(r, "created"), changed: time(r, "changed"), ended: optional_time(r, "ended"),
    version: number(r, "version"),
});
decode!(AuditRow, |r| {
    sequence: number(r, "sequence"), entry: entry(r), previous: bytes(r, "previous"), mac: bytes(r, "mac"),
});
decode!(AuditHead, |r| { sequence: number(r, "sequence"), mac: bytes(r, "last") });
decode!(ShreddedRow, |r| {
    aek: id(r, "aek_id", logseal_core::AekId::from_bytes),
    workspace: id(r, "workspace_id", logseal_core::WorkspaceId::from_bytes), at: time(r, "at"),
});
decode!(GarbageRow, |r| { path: text(r, "path"), since: time(r, "since") });
decode!(UsageRow, |r| {
    workspace: id(r, "workspace_id", logseal_core::WorkspaceId::from_bytes), day: number(r, "day"),
    bytes: number(r, "bytes"), reached: flag(r, "reached"),
});
decode!(TokenRow, |r| {
    name: text(r, "name"), lookup: bytes(r, "lookup"), role: text(r, "role"), workspaces: workspaces(r, "workspaces"),
    created: time(r, "created"), expires: optional_time(r, "expires"),
});
