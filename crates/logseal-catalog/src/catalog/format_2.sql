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
CREATE INDEX segments_by_table ON segments (table_id, workspace_id);
CREATE INDEX columns_by_aek ON columns (aek_id);
