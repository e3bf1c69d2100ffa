//! TLS of the listeners.

use std::collections::HashMap;

use logseal_core::WorkspaceId;
use logseal_tls::CertificateFiles;
use serde::{Deserialize, Serialize};

use super::words;
use crate::error::CommandError;

/// Files of the certificate, and which clients' certificates count for which workspace.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Tls {
    pub(crate) certificate: String,
    pub(crate) key: String,
    pub(crate) client_ca: String,
    pub(crate) client_workspaces: String,
}

impl Tls {
    /// The files; `None` without TLS.
    pub(crate) fn files(&self) -> Result<Option<CertificateFiles>, CommandError> {
        let Self { certificate, key, client_ca, client_workspaces } = self;
        let refused = |text: &str| Err(CommandError::Config(text.to_owned()));
        match (certificate.is_empty(), key.is_empty()) {
            (true, true) if client_ca.is_empty() => {}
            (false, false) => {}
            _ => {
                return refused(
                    "`tls.certificate` and `tls.key` belong together, and `tls.client_ca` to them: set both or none",
                );
            }
        }
        if client_ca.is_empty() && !client_workspaces.is_empty() {
            return refused(
                "`tls.client_workspaces` needs `tls.client_ca`: without it no client is asked for a certificate",
            );
        }
        let client_ca = (!client_ca.is_empty()).then(|| client_ca.into());
        let files = CertificateFiles { certificate: certificate.into(), key: key.into(), client_ca };
        Ok((!certificate.is_empty()).then_some(files))
    }

    /// The workspace that each name in a client's certificate stands for.
    pub(crate) fn client_workspaces(&self) -> Result<HashMap<String, WorkspaceId>, CommandError> {
        let mut workspaces = HashMap::new();
        for entry in words(&self.client_workspaces) {
            let refused =
                |why: &str| Err(CommandError::Config(format!("`tls.client_workspaces` has `{entry}`: {why}")));
            // The last one: a URI may have others.
            let Some((name, workspace)) = entry.rsplit_once('=').filter(|(name, _)| !name.is_empty()) else {
                return refused("write NAME=WORKSPACE_ID");
            };
            // By its id: a name can be another workspace's by tomorrow.
            let Ok(workspace) = workspace.parse::<WorkspaceId>() else {
                return refused("after the `=` has to be a workspace's id, as `logseal workspace show` has it");
            };
            // DNS names have no case; in a URI it counts.
            let name = if name.contains(':') { name.to_owned() } else { name.to_ascii_lowercase() };
            if workspaces.insert(name, workspace).is_some_and(|before| before != workspace) {
                return refused("the name stands for another workspace already");
            }
        }
        Ok(workspaces)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tls(certificate: &str, key: &str, client_ca: &str, client_workspaces: &str) -> Tls {
        let [certificate, key, client_ca, client_workspaces] =
            [certificate, key, client_ca, client_workspaces].map(str::to_owned);
        Tls { certificate, key, client_ca, client_workspaces }
    }

    #[test]
    fn files_are_given_together_or_not_at_all() {
        assert!(tls("", "", "", "").files().unwrap().is_none());
        let files = tls("c", "k", "", "").files().unwrap().unwrap();
        assert!(files.client_ca.is_none());
        assert!(tls("c", "k", "a", "").files().unwrap().unwrap().client_ca.is_some());
        for (bad, key) in [
            (tls("c", "", "", ""), "tls.key"),
            (tls("", "k", "", ""), "tls.certificate"),
            (tls("", "", "a", ""), "tls.client_ca"),
            (tls("c", "k", "", "n=w"), "tls.client_ca"),
        ] {
            assert!(bad.files().unwrap_err().to_string().contains(key), "{bad:?}");
        }
    }

    #[test]
    fn names_stand_for_workspaces() {
        let (one, other) = ("0194d5a0-0000-7000-8000-000000000001", "0194d5a0-0000-7000-8000-000000000002");
        let text = format!("Shipper.Example={one}, spiffe://A/b=c={other}");
        let workspaces = tls("c", "k", "a", &text).client_workspaces().unwrap();
        assert_eq!(workspaces["shipper.example"], one.parse().unwrap());
        assert_eq!(workspaces["spiffe://A/b=c"], other.parse().unwrap());
        for bad in ["name", "=x", "name=default", &format!("a={one} A={other}")] {
            let error = tls("c", "k", "a", bad).client_workspaces().unwrap_err().to_string();
            assert!(error.contains("tls.client_workspaces"), "{error}");
        }
    }
}
