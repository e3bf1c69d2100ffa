//! The SQL of the catalog's tables. Ids are 16-byte blobs, times are nanoseconds since 1970 (UTC).

/// Each step leads from the format of its index (`PRAGMA user_version`, 0 for a new file) to the next one. A step that was
/// released is never edited, so that an upgraded file has the same tables as a new one.
pub(crate) const STEPS: &[&str] = &[FORMAT_1, FORMAT_2, FORMAT_3, FORMAT_4, FORMAT_5, FORMAT_6, FORMAT_7];

/// The format that this version writes.
pub(crate) const FORMAT: i64 = 7;
const _: () = assert!(STEPS.len() == FORMAT as usize, "one step for each format");

const FORMAT_1: &str = "
CREATE TABLE clusters (
    id BLOB PRIMARY KEY NOT NULL,
    name TEXT NOT NULL UNIQUE,
    created INTEGER NOT NULL,
    kek_vault_uri TEXT NOT NULL,
    kek_name TEXT NOT NULL,
    kek_version TEXT NOT NULL,
    mac BLOB NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE workspaces (
    id BLOB PRIMARY KEY NOT NULL,
    name TEXT NOT NULL UNIQUE,
    cluster_id BLOB NOT NULL REFERENCES clusters (id),
    created INTEGER NOT NULL,
    mac BLOB NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE workspace_keys (
    workspace_id BLOB NOT NULL REFERENCES workspaces (id),
    slot TEXT NOT NULL,
    lookup BLOB NOT NULL UNIQUE,
    sealed BLOB NOT NULL,
    created INTEGER NOT NULL,
    mac BLOB NOT NULL,
    PRIMARY KEY (workspace_id, slot)
) STRICT, WITHOUT ROWID;

CREATE TABLE aeks (
    id BLOB PRIMARY KEY NOT NULL,
    workspace_id BLOB NOT NULL REFERENCES workspaces (id),
    cluster_id BLOB NOT NULL REFERENCES clusters (id),
    generation INTEGER NOT NULL,
    kek_vault_uri TEXT NOT NULL,
    kek_name TEXT NOT NULL,
    kek_version TEXT NOT NULL,
    wrapped BLOB NOT NULL,
    commitment BLOB NOT NULL,
    created INTEGER NOT NULL,
    mac BLOB NOT NULL,
    UNIQUE (workspace_id, generation)
) STRICT, WITHOUT ROWID;

CREATE TABLE tables (
    id BLOB PRIMARY KEY NOT NULL,
    workspace_id BLOB NOT NULL REFERENCES workspaces (id),
    name TEXT NOT NULL,
    created INTEGER NOT NULL,
    mac BLOB NOT NULL,
    UNIQUE (workspace_id, name)
) STRICT, WITHOUT ROWID;

-- One row per attribute column, in order of assignment. The name is sealed under the AEK; equal names are found by a
-- fingerprint that only the AEK's holder can compute.
CREATE TABLE columns (
    table_id BLOB NOT NULL REFERENCES tables (id),
    ordinal INTEGER NOT NULL,
    container INTEGER NOT NULL,
    kind INTEGER NOT NULL,
    aek_id BLOB NOT NULL REFERENCES aeks (id),
    name_sealed BLOB NOT NULL,
    name_fingerprint BLOB NOT NULL,
    mac BLOB NOT NULL,
    PRIMARY KEY (table_id, ordinal),
    UNIQUE (table_id, aek_id, container, name_fingerprint)
) STRICT, WITHOUT ROWID;

CREATE TABLE segments (
    id BLOB PRIMARY KEY NOT NULL,
    workspace_id BLOB NOT NULL REFERENCES workspaces (id),
    table_id BLOB NOT NULL REFERENCES tables (id),
    aek_id BLOB NOT NULL REFERENCES aeks (id),
    path TEXT NOT NULL UNIQUE,
    bytes INTEGER NOT NULL,
    row_count INTEGER NOT NULL,
    min_time INTEGER NOT NULL,
    max_time INTEGER NOT NULL,
    created INTEGER NOT NULL,
    wrapped_dek BLOB NOT NULL,
    dek_commitment BLOB NOT NULL,
    mac BLOB NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX segments_by_workspace ON segments (workspace_id, table_id, min_time);
";

/// The write-ahead log's files, and which of their frames segments cover.
///
/// Coverage rows do not refer to their file's row: an adopted segment covers files that are long gone. The rows of one stream
/// in one file never overlap, so the one with the greatest `first` up to a range's end is the only one that can meet it: the
/// primary key answers that with one look.
const FORMAT_2: &str = "
CREATE TABLE wal_files (
    id BLOB PRIMARY KEY NOT NULL,
    node_id BLOB NOT NULL,
    cluster_id BLOB NOT NULL,
    ordinal INTEGER NOT NULL,
    header_hash BLOB NOT NULL,
    created INTEGER NOT NULL,
    state INTEGER NOT NULL,
    changed INTEGER NOT NULL,
    attested INTEGER NOT NULL,
    mac BLOB NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE coverage (
    table_id BLOB NOT NULL REFERENCES tables (id),
    aek_id BLOB NOT NULL,
    file_id BLOB NOT NULL,
    first INTEGER NOT NULL,
    last INTEGER NOT NULL,
    segment_id BLOB,
    mac BLOB NOT NULL,
    PRIMARY KEY (table_id, aek_id, file_id, first)
) STRICT, WITHOUT ROWID;

CREATE INDEX coverage_by_file ON coverage (file_id);
CREATE INDEX coverage_by_segment ON coverage (segment_id);
";

/// The control plane: resources, operations, the audit trail, links that move, what was shredded, and what workspaces send a day.
///
/// The names of clusters and workspaces are no longer unique, which takes new tables (sqlite.org/lang_altertable.html, section 7); the
/// rows stay as they are, so their MACs hold. Tables whose rows may be large have a rowid: those without one keep whole rows in the
/// inner pages of their trees. The `_key` columns are the lower case of the columns beside them.
const FORMAT_3: &str = "
CREATE TABLE clusters_3 (
    id BLOB PRIMARY KEY NOT NULL,
    name TEXT NOT NULL,
    created INTEGER NOT NULL,
    kek_vault_uri TEXT NOT NULL,
    kek_name TEXT NOT NULL,
    kek_version TEXT NOT NULL,
    mac BLOB NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO clusters_3 SELECT id, name, created, kek_vault_uri, kek_name, kek_version, mac FROM clusters;
DROP TABLE clusters;
ALTER TABLE clusters_3 RENAME TO clusters;

CREATE TABLE workspaces_3 (
    id BLOB PRIMARY KEY NOT NULL,
    name TEXT NOT NULL,
    cluster_id BLOB NOT NULL REFERENCES clusters (id),
    created INTEGER NOT NULL,
    mac BLOB NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO workspaces_3 SELECT id, name, cluster_id, created, mac FROM workspaces;
DROP TABLE workspaces;
ALTER TABLE workspaces_3 RENAME TO workspaces;

CREATE INDEX workspaces_by_cluster ON workspaces (cluster_id);
CREATE INDEX aeks_by_cluster ON aeks (cluster_id);
CREATE INDEX segments_by_aek ON segments (aek_id, row_count, bytes);
CREATE INDEX segments_by_age ON segments (workspace_id, created);

CREATE TABLE resources (
    id BLOB PRIMARY KEY NOT NULL,
    kind INTEGER NOT NULL,
    subscription TEXT NOT NULL,
    subscription_key TEXT NOT NULL,
    resource_group TEXT NOT NULL,
    resource_group_key TEXT NOT NULL,
    name TEXT NOT NULL,
    name_key TEXT NOT NULL,
    document TEXT NOT NULL,
    version INTEGER NOT NULL,
    created INTEGER NOT NULL,
    changed INTEGER NOT NULL,
    deleted INTEGER,
    mac BLOB NOT NULL
) STRICT;

CREATE UNIQUE INDEX resources_by_name ON resources (kind, subscription_key, resource_group_key, name_key);
CREATE INDEX live_resources ON resources (kind, subscription_key, resource_group_key, name_key) WHERE deleted IS NULL;
CREATE INDEX deleted_resources ON resources (kind, subscription_key, resource_group_key, name_key)
    WHERE deleted IS NOT NULL;

CREATE TABLE operations (
    id BLOB PRIMARY KEY NOT NULL,
    kind TEXT NOT NULL,
    resource_id BLOB NOT NULL,
    target TEXT NOT NULL,
    subscription TEXT NOT NULL,
    subscription_key TEXT NOT NULL,
    location TEXT NOT NULL,
    state INTEGER NOT NULL,
    document TEXT NOT NULL,
    created INTEGER NOT NULL,
    changed INTEGER NOT NULL,
    ended INTEGER,
    version INTEGER NOT NULL,
    mac BLOB NOT NULL
) STRICT;

CREATE UNIQUE INDEX running_operations ON operations (resource_id) WHERE state = 1;
CREATE INDEX operations_by_resource ON operations (resource_id, id);
CREATE INDEX operations_by_state ON operations (state, id);
CREATE INDEX operations_by_subscription ON operations (subscription_key, id);
CREATE INDEX operations_by_subscription_and_state ON operations (subscription_key, state, id);
CREATE INDEX operations_by_end ON operations (ended) WHERE ended IS NOT NULL;

CREATE TABLE audit (
    sequence INTEGER PRIMARY KEY NOT NULL,
    at INTEGER NOT NULL,
    actor TEXT NOT NULL,
    action TEXT NOT NULL,
    resource TEXT NOT NULL,
    operation_id BLOB,
    outcome TEXT NOT NULL,
    before TEXT NOT NULL,
    after TEXT NOT NULL,
    previous BLOB NOT NULL,
    mac BLOB NOT NULL
) STRICT;

-- One row: the end of the audit trail.
CREATE TABLE audit_head (
    sequence INTEGER PRIMARY KEY NOT NULL,
    last BLOB NOT NULL,
    mac BLOB NOT NULL
) STRICT;

CREATE TABLE shredded (
    aek_id BLOB PRIMARY KEY NOT NULL,
    workspace_id BLOB NOT NULL,
    at INTEGER NOT NULL,
    mac BLOB NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE garbage (
    path TEXT PRIMARY KEY NOT NULL,
    since INTEGER NOT NULL,
    mac BLOB NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX garbage_by_age ON garbage (since, path);

-- What each workspace sent on the last day, counted from 1970, on which it sent anything.
CREATE TABLE usage (
    workspace_id BLOB PRIMARY KEY NOT NULL REFERENCES workspaces (id),
    day INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    reached INTEGER NOT NULL,
    mac BLOB NOT NULL
) STRICT, WITHOUT ROWID;
";

/// The KEK versions that each cluster used: a probe that shows whether one still unwraps, and when it last did.
const FORMAT_4: &str = "
CREATE TABLE kek_versions (
    cluster_id BLOB NOT NULL REFERENCES clusters (id),
    kek_vault_uri TEXT NOT NULL,
    kek_name TEXT NOT NULL,
    kek_version TEXT NOT NULL,
    probe BLOB NOT NULL,
    commitment BLOB NOT NULL,
    used INTEGER NOT NULL,
    mac BLOB NOT NULL,
    PRIMARY KEY (cluster_id, kek_vault_uri, kek_name, kek_version)
) STRICT, WITHOUT ROWID;
";

/// How often each AEK may have sealed by now. One without a row was made by a version that did not count, or its count is lost.
const FORMAT_5: &str = "
CREATE TABLE aek_wraps (
    aek_id BLOB PRIMARY KEY NOT NULL REFERENCES aeks (id),
    wraps INTEGER NOT NULL,
    mac BLOB NOT NULL
) STRICT, WITHOUT ROWID;
";

/// Tokens of the management API, each by an HMAC of it. `workspaces` is their ids one after the other.
const FORMAT_6: &str = "
CREATE TABLE tokens (
    name TEXT PRIMARY KEY NOT NULL,
    lookup BLOB NOT NULL UNIQUE,
    role TEXT NOT NULL,
    workspaces BLOB NOT NULL,
    created INTEGER NOT NULL,
    expires INTEGER,
    mac BLOB NOT NULL
) STRICT, WITHOUT ROWID;
";

/// When each access key was last presented. The row says of which key: what is told late of a key that was replaced is not taken for its
/// successor's. A key without a row was never presented, or by a version that did not look.
const FORMAT_7: &str = "
CREATE TABLE workspace_key_uses (
    workspace_id BLOB NOT NULL,
    slot TEXT NOT NULL,
    lookup BLOB NOT NULL,
    used INTEGER NOT NULL,
    mac BLOB NOT NULL,
    PRIMARY KEY (workspace_id, slot),
    FOREIGN KEY (workspace_id, slot) REFERENCES workspace_keys (workspace_id, slot)
) STRICT, WITHOUT ROWID;
";

/// Indexes that came after the formats above and that no reader or writer needs to know of, made when a catalog is opened and lacks
/// them. With them what is found of one workspace costs nothing for the rows of others.
pub(crate) const INDEXES: &str = "
CREATE INDEX IF NOT EXISTS segments_by_table ON segments (table_id, workspace_id);
CREATE INDEX IF NOT EXISTS columns_by_aek ON columns (aek_id);
";
