//! Every configuration key with its unit and meaning, for `logseal config`.

/// A configuration key.
#[derive(Debug)]
pub(crate) struct Key {
    /// `section.key`.
    pub(crate) name: &'static str,
    /// The unit of its value, or what kind of value it is.
    pub(crate) unit: &'static str,
    /// What it does, in one line.
    pub(crate) meaning: &'static str,
}

impl Key {
    /// The environment variable that sets the key.
    pub(crate) fn variable(&self) -> String {
        format!("LOGSEAL_{}", self.name.replace('.', "_").to_ascii_uppercase())
    }
}

const fn key(name: &'static str, unit: &'static str, meaning: &'static str) -> Key {
    Key { name, unit, meaning }
}

/// All keys, by section.
pub(crate) const KEYS: &[Key] = &[
    key("listen.otlp_grpc", "address", "where OTLP/gRPC is served; loopback only without TLS"),
    key("listen.otlp_http", "address", "where OTLP/HTTP is served; loopback only without TLS"),
    key("listen.management", "address", "where the management API is served; loopback only without TLS"),
    key("listen.vault", "address", "where the embedded key vault is served, over TLS; loopback only"),
    key("listen.public_url", "URL", "what links in answers begin with; empty for the scheme and host of each request"),
    key(
        "tls.certificate",
        "path",
        "certificate of OTLP and the management API and those that lead to its authority (PEM); empty for no TLS",
    ),
    key("tls.key", "path", "the certificate's private key (PEM, not encrypted)"),
    key(
        "tls.client_ca",
        "path",
        "authorities (PEM) of shippers' certificates; empty for none, then only workspace keys open OTLP",
    ),
    key(
        "tls.client_workspaces",
        "names",
        "NAME=WORKSPACE_ID for DNS names and URIs in shippers' certificates, which then need no workspace key",
    ),
    key("ingest.max_request_bytes", "bytes", "largest request, on the wire and after decompression"),
    key("ingest.memory_budget_bytes", "bytes", "memory for bodies, decoded chunks and open batches together"),
    key("ingest.hold_ms", "ms", "longest time that a call is held back before it is told to come back"),
    key("ingest.max_held_calls", "calls", "calls held back at the same time"),
    key("ingest.body_read_ms", "ms", "time in which a body must have arrived"),
    key("ingest.workspace_bytes_per_second", "bytes/s", "rate that one workspace may send at; 0 is unlimited"),
    key(
        "ingest.max_connections",
        "connections",
        "TCP connections at the same time, of OTLP/gRPC and OTLP/HTTP together",
    ),
    key("ingest.max_streams", "calls", "calls at the same time on one connection"),
    key("ingest.drain_ms", "ms", "time that calls under way get to finish at shutdown"),
    key(
        "schema.attribute_columns",
        "columns",
        "attribute columns a table can have; further attributes stay in `overflow`",
    ),
    key("wal.max_bytes", "bytes", "most bytes of one cluster's write-ahead log; beyond it records are refused"),
    key(
        "wal.reserve_bytes",
        "bytes",
        "free bytes of the disk left to segments and catalog; -1 is the larger of 1 GiB and 5 %",
    ),
    key("wal.file_bytes", "bytes", "size at which the write-ahead log goes on in a new file"),
    key("segment.max_age_ms", "ms", "a batch becomes a segment at this age"),
    key("segment.target_bytes", "bytes", "a batch becomes a segment when its file is expected to reach this size"),
    key("segment.row_group_bytes", "bytes", "size of the values of a row group"),
    key("segment.zstd_level", "1 to 22", "compression of segments"),
    key("keys.probe_interval_ms", "ms", "time between two probes of a cluster's key; 1,000 to 30,000"),
    key("keys.grace_ms", "ms", "how long keys in memory serve while the key vault cannot be reached; at most an hour"),
    key(
        "keys.min_state_interval_ms",
        "ms",
        "least time from one resumption of a cluster to the next, so that a flapping key does not load it again and again",
    ),
    key(
        "keys.autorotation_interval_ms",
        "ms",
        "how often newer versions of clusters' keys, and account keys that are to be replaced, are looked for; at most an hour",
    ),
    key("keys.aek_max_age_days", "days", "age at which a workspace gets a new account key; 0 means never"),
    key(
        "keys.recent_use_hours",
        "h",
        "how long after its last use a workspace's key counts as in use, where that is checked; 1 to 8,760",
    ),
    key(
        "keys.allow_service_managed",
        "true or false",
        "whether a cluster may go back from a customer's key to the service-managed one",
    ),
    key(
        "query.memory_bytes",
        "bytes",
        "memory for sorts, joins, aggregates and results of all running queries together",
    ),
    key("query.timeout_ms", "ms", "longest time of a query"),
    key(
        "query.concurrent_queries",
        "queries",
        "queries that run at the same time; more wait within their own time limit",
    ),
    key("query.target_partitions", "threads", "threads that work on queries; 0 means one per processor"),
    key("query.max_result_rows", "rows", "most rows of a result"),
    key("query.max_result_bytes", "bytes", "most bytes of a result in memory"),
    key("query.max_sql_bytes", "bytes", "longest text of a query"),
    key("operations.retention_hours", "h", "how long operations that have ended can be read; 24 at least"),
    key("store.url", "URL", "where segments go: file:///absolute/path; empty for DIR/store"),
    key(
        "vault.root_key_file",
        "path",
        "file with the root key (64 hexadecimal digits); empty for LOGSEAL_ROOT_KEY or a generated one",
    ),
    key(
        "azure.domains",
        "clouds",
        "clouds of which any key vault may be named: public, government, china, managed-hsm",
    ),
    key(
        "azure.hosts",
        "hosts",
        "further key vaults: HOST[:PORT][=CLOUD], CLOUD as above for the audience of tokens; their addresses may be private",
    ),
    key("azure.ca_file", "path", "certificate authorities (PEM) that key vaults may have beside the machine's own"),
    key("azure.identities_file", "path", "user-assigned identities and the credentials of all identities (TOML)"),
    key("log.level", "level", "the program's own log on stderr: error, warn, info, debug or trace"),
];
