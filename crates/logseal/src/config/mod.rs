//! The configuration: defaults, then the file, then the environment, then `--set`.
//!
//! Every key is `section.key`. A file is TOML with a table for each section; the environment says
//! `LOGSEAL_<SECTION>_<KEY>`; the command line says `--set section.key=value`. Unknown keys are refused everywhere.

pub(crate) mod azure;
mod keys;
mod tls;

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use logseal_ingest::DoorSettings;
use logseal_ingest::pipeline::settings::WalSettings;
use logseal_keys::availability::Policy;
use logseal_query::QuerySettings;
use logseal_segment::SegmentSettings;
use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use self::azure::Azure;
pub(crate) use self::keys::{KEYS, Key};
use self::tls::Tls;
use crate::credentials::{VAULT_CA_FILE, VAULT_ENDPOINT, VAULT_TOKEN};
use crate::error::CommandError;

/// Variables that look like keys of the configuration, but are what commands take in the place of `credentials.json`.
const CLIENT_VARIABLES: [&str; 3] = [VAULT_TOKEN, VAULT_ENDPOINT, VAULT_CA_FILE];

/// The whole configuration.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Config {
    pub(crate) listen: Listen,
    pub(crate) tls: Tls,
    pub(crate) ingest: DoorSettings,
    pub(crate) schema: Schema,
    pub(crate) wal: WalSettings,
    pub(crate) segment: Segment,
    pub(crate) keys: Keys,
    pub(crate) query: QuerySettings,
    pub(crate) operations: OperationsSection,
    pub(crate) store: Store,
    pub(crate) vault: Vault,
    pub(crate) azure: Azure,
    pub(crate) log: Log,
}

/// Addresses of the listeners.
#[derive(Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Listen {
    pub(crate) otlp_grpc: SocketAddr,
    pub(crate) otlp_http: SocketAddr,
    pub(crate) management: SocketAddr,
    pub(crate) vault: SocketAddr,
    /// Empty for the URL that each request names.
    pub(crate) public_url: String,
}

impl Default for Listen {
    fn default() -> Self {
        let loopback = |port| SocketAddr::from(([127, 0, 0, 1], port));
        Self {
            // The ports that are registered for OTLP.
            otlp_grpc: loopback(4317),
            otlp_http: loopback(4318),
            management: loopback(8430),
            vault: loopback(8420),
            public_url: String::new(),
        }
    }
}

/// Asynchronous operations.
#[derive(Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct OperationsSection {
    pub(crate) retention_hours: u32,
}

impl Default for OperationsSection {
    fn default() -> Self {
        // A week: somebody who comes back after a weekend still finds how it ended.
        Self { retention_hours: 168 }
    }
}

/// Bounds of what clients can mint.
#[derive(Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Schema {
    pub(crate) attribute_columns: usize,
}

impl Default for Schema {
    fn default() -> Self {
        // Well above what instrumented services use (tens), and small enough for a footer of a few 100 KB.
        Self { attribute_columns: 512 }
    }
}

/// How the keys of clusters are watched.
#[derive(Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Keys {
    pub(crate) probe_interval_ms: u64,
    pub(crate) grace_ms: u64,
    pub(crate) min_state_interval_ms: u64,
    pub(crate) autorotation_interval_ms: u64,
    pub(crate) allow_service_managed: bool,
    pub(crate) aek_max_age_days: u32,
    pub(crate) recent_use_hours: u32,
}

impl Default for Keys {
    fn default() -> Self {
        let Policy { probe, grace, min_state_interval, .. } = Policy::default();
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        Self {
            probe_interval_ms: millis(probe),
            grace_ms: millis(grace),
            min_state_interval_ms: millis(min_state_interval),
            // A twelfth of the hour within which Azure's products say that they notice.
            autorotation_interval_ms: 300_000,
            allow_service_managed: false,
            // A year: NIST SP 800-57 allows two for a symmetric key that wraps keys.
            aek_max_age_days: 365,
            // As Azure Cosmos DB's safe key rotation looks back.
            recent_use_hours: 12,
        }
    }
}

impl Keys {
    /// How often newer versions are looked for.
    pub(crate) fn autorotation(&self) -> Result<Duration, CommandError> {
        match self.autorotation_interval_ms {
            millis @ 1_000..=3_600_000 => Ok(Duration::from_millis(millis)),
            millis => Err(CommandError::Config(format!(
                "`keys.autorotation_interval_ms` is {millis}; it can be 1000 to 3600000"
            ))),
        }
    }

    /// The age at which account keys are replaced; `None` for never.
    pub(crate) fn aek_max_age(&self) -> Option<Duration> {
        (self.aek_max_age_days > 0).then(|| Duration::from_secs(u64::from(self.aek_max_age_days) * 86_400))
    }

    /// For how long after its last use a workspace's key counts as in use.
    pub(crate) fn recent_use(&self) -> Result<Duration, CommandError> {
        match self.recent_use_hours {
            hours @ 1..=8_760 => Ok(Duration::from_secs(u64::from(hours) * 3_600)),
            hours => Err(CommandError::Config(format!("`keys.recent_use_hours` is {hours}; it can be 1 to 8760"))),
        }
    }

    /// The times of the monitor.
    pub(crate) fn policy(&self) -> Result<Policy, CommandError> {
        let Self { probe_interval_ms, grace_ms, min_state_interval_ms, .. } = *self;
        let within = |key: &str, value: u64, bounds: std::ops::RangeInclusive<u64>| {
            if bounds.contains(&value) {
                return Ok(Duration::from_millis(value));
            }
            let (least, most) = (bounds.start(), bounds.end());
            Err(CommandError::Config(format!("`keys.{key}` is {value}; it can be {least} to {most}")))
        };
        Ok(Policy {
            // Beyond it a revocation could take longer than a minute.
            probe: within("probe_interval_ms", probe_interval_ms, 1_000..=30_000)?,
            // A probe and its call have to fit in.
            grace: within("grace_ms", grace_ms, 2 * probe_interval_ms.max(5_000)..=3_600_000)?,
            min_state_interval: within("min_state_interval_ms", min_state_interval_ms, 0..=86_400_000)?,
            ..Policy::default()
        })
    }
}

/// When segments are cut and how they are written.
#[derive(Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Segment {
    pub(crate) max_age_ms: u64,
    pub(crate) target_bytes: usize,
    pub(crate) row_group_bytes: usize,
    pub(crate) zstd_level: i32,
}

impl Default for Segment {
    fn default() -> Self {
        let SegmentSettings { row_group_bytes, zstd_level } = SegmentSettings::default();
        // Queries see records before; a minute makes segments that are large enough to read fast at some 1,000 records a second.
        Self { max_age_ms: 60_000, target_bytes: 64 * 1024 * 1024, row_group_bytes, zstd_level }
    }
}

/// Where segments go.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Store {
    /// `file:///absolute/path`; empty for `DIR/store`.
    pub(crate) url: String,
}

/// The embedded vault.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Vault {
    /// File with the root key; empty for the variable `LOGSEAL_ROOT_KEY`, else a generated one.
    pub(crate) root_key_file: String,
}

/// The program's own log.
#[derive(Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Log {
    pub(crate) level: String,
}

impl Default for Log {
    fn default() -> Self {
        Self { level: "info".to_owned() }
    }
}

impl Config {
    /// Reads `file`, then `variables` of the environment, then `sets`.
    pub(crate) fn load(
        file: Option<&Path>,
        variables: impl Iterator<Item = (String, String)>,
        sets: &[String],
    ) -> Result<Self, CommandError> {
        let mut table = match file {
            None => Table::new(),
            Some(path) => {
                let reading = CommandError::io(format!("read configuration `{}`", path.display()));
                let text = std::fs::read_to_string(path).map_err(reading)?;
                text.parse().map_err(|error| CommandError::Config(format!("`{}`: {error}", path.display())))?
            }
        };
        let defaults = Table::try_from(Self::default()).map_err(|error| CommandError::Config(error.to_string()))?;
        for (name, value) in variables {
            if let Some(key) = KEYS.iter().find(|key| key.variable() == name) {
                set(&mut table, &defaults, key, &value)?;
            } else if CLIENT_VARIABLES.contains(&name.as_str()) {
                // Commands read them, and may be run where the server is.
            } else if defaults.keys().any(|section| name.starts_with(&format!("LOGSEAL_{}_", section.to_uppercase()))) {
                let message = format!("the variable `{name}` sets no key; `logseal config` lists the keys");
                return Err(CommandError::Config(message));
            }
        }
        for assignment in sets {
            let (name, value) = assignment
                .split_once('=')
                .ok_or_else(|| CommandError::Config(format!("--set {assignment}: write section.key=value")))?;
            let key = KEYS.iter().find(|key| key.name == name.trim()).ok_or_else(|| {
                CommandError::Config(format!(
                    "--set {assignment}: there is no key `{name}`; `logseal config` lists them"
                ))
            })?;
            set(&mut table, &defaults, key, value)?;
        }
        let config =
            Self::deserialize(table).map_err(|error| CommandError::Config(format!("configuration: {error}")))?;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), CommandError> {
        let Segment { max_age_ms, target_bytes, row_group_bytes, zstd_level } = &self.segment;
        let rules = [
            ((1..=22).contains(zstd_level), "segment.zstd_level must be 1 to 22"),
            ((64 * 1024..=256 << 20).contains(row_group_bytes), "segment.row_group_bytes must be 64 KiB to 256 MiB"),
            ((64 * 1024..=4 << 30).contains(target_bytes), "segment.target_bytes must be 64 KiB to 4 GiB"),
            ((1..=3_600_000).contains(max_age_ms), "segment.max_age_ms must be 1 ms to 1 h"),
            (
                (1..=logseal_core::limit::ATTRIBUTE_COLUMNS).contains(&self.schema.attribute_columns),
                "schema.attribute_columns must be 1 to 4096",
            ),
            (
                self.store.url.is_empty() || self.store.url.starts_with("file:///"),
                "store.url must be file:///absolute/path",
            ),
            (self.log.level.parse::<tracing::Level>().is_ok(), "log.level must be error, warn, info, debug or trace"),
        ];
        match rules.iter().find(|(holds, _)| !holds) {
            None => {}
            Some((_, rule)) => return Err(CommandError::Config((*rule).to_owned())),
        }
        self.tls.files()?;
        self.tls.client_workspaces()?;
        self.wal.check().map_err(|error| CommandError::Config(error.to_string()))?;
        self.ingest.check().map_err(|error| CommandError::Config(error.to_string()))?;
        self.query.validate().map_err(|error| CommandError::Config(error.to_string()))?;
        Ok(())
    }
}

/// The words of a list; blanks and commas separate them.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split([' ', ',']).filter(|word| !word.is_empty())
}

/// Sets `key` to `text`, read as the type that the key's default has.
fn set(table: &mut Table, defaults: &Table, key: &Key, text: &str) -> Result<(), CommandError> {
    let (section, name) = key.name.split_once('.').unwrap_or((key.name, ""));
    let default = defaults.get(section).and_then(|section| section.get(name));
    let wrong = |kind: &str| CommandError::Config(format!("`{}` must be {kind}, not `{text}`", key.name));
    let text = text.trim();
    let value = match default {
        Some(Value::Integer(_)) => Value::Integer(text.parse().map_err(|_| wrong("a whole number"))?),
        Some(Value::Float(_)) => Value::Float(text.parse().map_err(|_| wrong("a number"))?),
        Some(Value::Boolean(_)) => Value::Boolean(text.parse().map_err(|_| wrong("true or false"))?),
        _ => Value::String(text.to_owned()),
    };
    let section = table.entry(section).or_insert_with(|| Value::Table(Table::new()));
    let Value::Table(section) = section else { return Err(wrong("in a table")) };
    section.insert(name.to_owned(), value);
    Ok(())
}

/// The default of `key` as text.
fn default_text(key: &Key) -> String {
    let defaults = Table::try_from(Config::default()).unwrap_or_default();
    let (section, name) = key.name.split_once('.').unwrap_or((key.name, ""));
    match defaults.get(section).and_then(|section| section.get(name)) {
        Some(Value::String(text)) => format!("\"{text}\""),
        Some(value) => value.to_string(),
        None => String::new(),
    }
}

/// A commented file with every key at its default.
pub(crate) fn example() -> String {
    let mut text = String::from(
        "# Every key with its default. Set by file (--config), LOGSEAL_<SECTION>_<KEY> or --set section.key=value.\n",
    );
    let mut section = "";
    for key in KEYS {
        let (own, name) = key.name.split_once('.').unwrap_or((key.name, ""));
        if own != section {
            section = own;
            text.push_str(&format!("\n[{section}]\n"));
        }
        text.push_str(&format!("# {} ({})\n{name} = {}\n", key.meaning, key.unit, default_text(key)));
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::io::Write as _;

    use super::*;

    fn load(file: &str, variables: &[(&str, &str)], sets: &[&str]) -> Result<Config, String> {
        let mut config = tempfile::NamedTempFile::new().unwrap();
        config.write_all(file.as_bytes()).unwrap();
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let sets: Vec<_> = sets.iter().map(|set| (*set).to_owned()).collect();
        Config::load(Some(config.path()), variables, &sets).map_err(|error| crate::error::Chain(&error).to_string())
    }

    #[test]
    fn every_key_is_documented_and_every_documented_key_exists() {
        let defaults = Table::try_from(Config::default()).unwrap();
        let existing: BTreeSet<_> = defaults
            .iter()
            .flat_map(|(section, keys)| keys.as_table().unwrap().keys().map(move |key| format!("{section}.{key}")))
            .collect();
        let documented: BTreeSet<_> = KEYS.iter().map(|key| key.name.to_owned()).collect();
        assert_eq!(existing, documented);
        assert!(KEYS.iter().all(|key| !key.meaning.is_empty()));
    }

    #[test]
    fn examples_have_every_key_at_its_default_and_can_be_read() {
        for text in [include_str!("../../../../deploy/logseal.toml"), &example()] {
            assert_eq!(text.parse::<Table>().unwrap(), Table::try_from(Config::default()).unwrap());
            load(text, &[], &[]).unwrap();
        }
    }

    #[test]
    fn later_sources_win() {
        let file = "[segment]\nmax_age_ms = 5\n[ingest]\nhold_ms = 1\n[log]\nlevel = \"warn\"";
        let variables =
            [("LOGSEAL_INGEST_HOLD_MS", "2"), ("LOGSEAL_SEGMENT_ZSTD_LEVEL", "3"), ("LOGSEAL_DATA_DIR", "x")];
        let config = load(file, &variables, &["segment.zstd_level=4", "listen.otlp_grpc=127.0.0.1:0"]).unwrap();
        assert_eq!(config.segment.max_age_ms, 5);
        assert_eq!(config.ingest.hold_ms, 2);
        assert_eq!(config.segment.zstd_level, 4);
        assert_eq!(config.listen.otlp_grpc.port(), 0);
        assert_eq!(config.log.level, "warn");
        assert_eq!(config.segment.target_bytes, 64 * 1024 * 1024, "the default");
    }

    #[test]
    fn wrong_configuration_says_what_is_wrong() {
        for (file, sets, expected) in [
            ("[segmnt]", &[][..], "segmnt"),
            ("[segment]\nage = 1", &[], "age"),
            ("[segment]\nmax_age_ms = \"soon\"", &[], "max_age_ms"),
            ("nonsense", &[], "expected"),
            ("", &["segment.max_age_ms"], "section.key=value"),
            ("", &["segment.nothing=1"], "logseal config"),
            ("", &["segment.max_age_ms=soon"], "whole number"),
            ("", &["segment.zstd_level=99"], "1 to 22"),
            ("", &["store.url=s3://bucket"], "file:///"),
            ("", &["listen.management=nowhere"], "listen"),
            ("", &["ingest.max_request_bytes=0"], "max_request_bytes"),
            ("", &["query.timeout_ms=0"], "query.timeout_ms"),
            ("[tls]\nkey = \"k\"", &[], "tls.certificate"),
        ] {
            let error = load(file, &[], sets).unwrap_err();
            assert!(error.contains(expected), "{file} {sets:?}: {error}");
        }
        let error = load("", &[("LOGSEAL_SEGMENT_MAX_AGE", "3")], &[]).unwrap_err();
        assert!(error.contains("LOGSEAL_SEGMENT_MAX_AGE"), "{error}");
    }
}
