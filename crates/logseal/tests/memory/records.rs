//! Records whose bodies, values and attribute names are unique.

use data_encoding::HEXLOWER;
use logseal_crypto::OsRandom;
use logseal_testkit::Server;
use logseal_testkit::ship::{self, attribute, text};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::resource::v1::Resource;

/// Records of a request.
const RECORDS: usize = 500;

/// Requests of one phase, at the most.
const REQUESTS: usize = 64;

/// Of so many records one has texts that are looked for.
const LOOKED_FOR: usize = 100;

/// What was sent.
#[derive(Debug, Default)]
pub(crate) struct Records {
    /// How many records.
    pub(crate) count: usize,
    /// Texts to look for, each with its name.
    pub(crate) texts: Vec<(String, Vec<u8>)>,
    /// Names of attributes.
    names: Vec<String>,
}

impl Records {
    /// A text that is nowhere else, looked for as `name`.
    fn text(&mut self, name: &str) -> String {
        let text = unique();
        self.texts.push((format!("{name} {}", self.texts.len()), text.clone().into_bytes()));
        text
    }

    /// Ships requests of `phase` until it is `done`.
    pub(crate) async fn ship_until(&mut self, server: &Server, phase: &str, done: impl Fn() -> bool) {
        for _ in 0..REQUESTS {
            self.ship(server, phase, 1).await;
            if done() {
                return;
            }
        }
        panic!("{phase}: not after {REQUESTS} requests");
    }

    /// Ships `requests` requests of `phase`.
    pub(crate) async fn ship(&mut self, server: &Server, phase: &str, requests: usize) {
        if self.names.is_empty() {
            self.names = ["attribute name", "resource attribute name"].map(|name| self.text(name)).into();
        }
        for _ in 0..requests {
            let request = self.request(phase);
            ship::export(server, &request).await.expect("acknowledged");
            self.count += RECORDS;
        }
    }

    fn request(&mut self, phase: &str) -> ExportLogsServiceRequest {
        let resource_value = self.text(&format!("{phase} resource value"));
        let records = (0..RECORDS).map(|number| {
            let mut own = |what: &str| match number % LOOKED_FOR {
                0 => self.text(&format!("{phase} {what}")),
                _ => unique(),
            };
            // Entropy, so that segments are as large as what is in them.
            let body = format!("{} {}", own("body"), HEXLOWER.encode(&OsRandom.array::<400>()));
            let value = own("value");
            LogRecord {
                time_unix_nano: 1_767_225_600_000_000_000 + number as u64,
                body: Some(text(body)),
                attributes: vec![attribute(self.names[0].clone(), text(value))],
                ..LogRecord::default()
            }
        });
        let scope_logs = vec![ScopeLogs { log_records: records.collect(), ..ScopeLogs::default() }];
        let attributes = vec![attribute(self.names[1].clone(), text(resource_value))];
        let resource = Some(Resource { attributes, ..Resource::default() });
        ExportLogsServiceRequest {
            resource_logs: vec![ResourceLogs { resource, scope_logs, ..ResourceLogs::default() }],
        }
    }

    /// Queries them in several ways: all of them, by attribute, by text.
    pub(crate) fn query(&self, server: &Server) {
        assert_eq!(server.value("SELECT count(*) FROM logs"), self.count);
        let name = &self.names[0];
        let by_value = format!("SELECT body, attributes['{name}'] AS value FROM logs ORDER BY attributes['{name}']");
        assert_eq!(server.query(&by_value).expect("a query").len(), self.count);
        let groups =
            format!("SELECT attributes['{name}'] AS value, count(*) AS n FROM logs GROUP BY attributes['{name}']");
        assert_eq!(server.query(&groups).expect("a query").len(), self.count);
        for (kind, text) in &self.texts {
            let text = std::str::from_utf8(text).expect("text");
            if kind.contains("body") {
                let one = format!("SELECT count(*) FROM logs WHERE body LIKE '{text}%'");
                assert_eq!(server.value(&one), 1, "{kind}");
            }
        }
    }
}

/// 32 random digits.
fn unique() -> String {
    HEXLOWER.encode(&OsRandom.array::<16>())
}
