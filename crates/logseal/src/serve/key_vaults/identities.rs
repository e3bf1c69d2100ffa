//! `azure.identities_file`: the user-assigned identities that clusters can be given, and what each identity is proved with.
//!
//! ```toml
//! [[identity]]
//! id = "/subscriptions/S/resourceGroups/G/providers/Microsoft.ManagedIdentity/userAssignedIdentities/logs"
//! principal_id = "9f2c..."        # what grants in the embedded vault name
//! client_id = "5b0e..."
//! credential = "managed-identity" # for vaults beside the embedded one
//!
//! [[identity]]
//! id = "SystemAssignedIdentity"   # all clusters with a system-assigned identity
//! credential = "client-secret"
//! tenant_id = "..."
//! client_id = "..."
//! secret_file = "/etc/logseal/secret"
//! ```
//!
//! | `credential` | needs | |
//! | --- | --- | --- |
//! | `managed-identity` | | of the machine; the one with `client_id` when that is given |
//! | `workload-identity` | `tenant_id`, `client_id`, `token_file` | a service account of Kubernetes |
//! | `client-secret` | `tenant_id`, `client_id`, `secret_file` | a service principal |
//! | `token-file` | `token_file` | access tokens that somebody else writes there; they go to hosts of `azure.hosts` only |

use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use logseal_control::UserAssignedIdentity;
use logseal_vault::PrincipalId;
use logseal_vault::azure::{AzureParts, Credential, TokenFile, TokenSource};
use serde::Deserialize;

use crate::error::CommandError;

/// The identity that each cluster is born with.
const SYSTEM_ASSIGNED: &str = "SystemAssignedIdentity";

/// The deployment's own.
const FIRST_PARTY: &str = "FirstPartyIdentity";

/// What the file says.
#[derive(Debug)]
pub(super) struct Identities {
    pub(super) user_assigned: Vec<UserAssignedIdentity>,
    /// Of all principals but the system-assigned ones; `None` for one that is for the embedded vault only.
    pub(super) credentials: HashMap<PrincipalId, Option<Credential>>,
    pub(super) system_assigned: Option<Credential>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    identity: Vec<Entry>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    id: String,
    principal_id: Option<String>,
    client_id: Option<String>,
    credential: Option<Kind>,
    tenant_id: Option<String>,
    secret_file: Option<PathBuf>,
    token_file: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "kebab-case")]
enum Kind {
    ManagedIdentity,
    WorkloadIdentity,
    ClientSecret,
    TokenFile,
}

impl Identities {
    /// Those in `file`; none when it is empty.
    pub(super) fn read(file: &str, parts: &AzureParts) -> Result<Self, CommandError> {
        let mut found = Self {
            user_assigned: Vec::new(),
            credentials: HashMap::from([(PrincipalId::first_party(), None)]),
            system_assigned: None,
        };
        if file.is_empty() {
            return Ok(found);
        }
        let text = fs::read_to_string(file);
        let text = text.map_err(CommandError::io(format!("read `azure.identities_file` `{file}`")))?;
        let bad = |why: String| CommandError::Config(format!("`{file}`: {why}"));
        let File { identity } = toml::from_str(&text).map_err(|error| bad(error.to_string()))?;
        for entry in identity {
            found.add(&entry, parts).map_err(|why| bad(format!("identity `{}`: {why}", entry.id)))?;
        }
        Ok(found)
    }

    fn add(&mut self, entry: &Entry, parts: &AzureParts) -> Result<(), String> {
        let credential = entry.credential(parts)?;
        match entry.id.as_str() {
            SYSTEM_ASSIGNED | FIRST_PARTY if entry.principal_id.is_some() => {
                Err("its principal is not configured: leave out `principal_id`".to_owned())
            }
            SYSTEM_ASSIGNED if self.system_assigned.is_some() => Err("it is there twice".to_owned()),
            SYSTEM_ASSIGNED => {
                self.system_assigned = Some(credential.ok_or("it needs a `credential`")?);
                Ok(())
            }
            FIRST_PARTY => {
                let credential = Some(credential.ok_or("it needs a `credential`")?);
                match self.credentials.insert(PrincipalId::first_party(), credential) {
                    Some(Some(_)) => Err("it is there twice".to_owned()),
                    _ => Ok(()),
                }
            }
            id => {
                check_resource_id(id)?;
                let principal = entry.principal_id.as_deref().ok_or("`principal_id` is missing")?;
                let principal = PrincipalId::parse(principal).map_err(|error| format!("`principal_id`: {error}"))?;
                let client_id = entry.client_id.clone().ok_or("`client_id` is missing")?;
                let is_taken =
                    |one: &UserAssignedIdentity| one.id.eq_ignore_ascii_case(id) || one.principal == principal;
                if principal == PrincipalId::first_party() || self.user_assigned.iter().any(is_taken) {
                    return Err("its id or its principal is there twice".to_owned());
                }
                self.credentials.insert(principal.clone(), credential);
                self.user_assigned.push(UserAssignedIdentity { id: id.to_owned(), principal, client_id });
                Ok(())
            }
        }
    }
}

/// A user-assigned identity is named as Azure Resource Manager does.
fn check_resource_id(id: &str) -> Result<(), String> {
    let parts: Vec<_> = id.split('/').collect();
    let fixed = [
        (0, ""),
        (1, "subscriptions"),
        (3, "resourceGroups"),
        (5, "providers"),
        (6, "Microsoft.ManagedIdentity"),
        (7, "userAssignedIdentities"),
    ];
    let is_named = |at: usize| parts.get(at).is_some_and(|part| !part.is_empty());
    let fits = parts.len() == 9
        && fixed.iter().all(|(at, word)| parts.get(*at).is_some_and(|part| part.eq_ignore_ascii_case(word)))
        && [2, 4, 8].into_iter().all(is_named);
    if fits {
        return Ok(());
    }
    Err(format!(
        "`id` must be {SYSTEM_ASSIGNED}, {FIRST_PARTY}, or like /subscriptions/S/resourceGroups/G/providers/Microsoft.ManagedIdentity/userAssignedIdentities/NAME"
    ))
}

impl Entry {
    fn credential(&self, parts: &AzureParts) -> Result<Option<Credential>, String> {
        let given = [
            ("tenant_id", self.tenant_id.is_some()),
            ("secret_file", self.secret_file.is_some()),
            ("token_file", self.token_file.is_some()),
        ];
        let needed: &[&str] = match self.credential {
            None | Some(Kind::ManagedIdentity) => &[],
            Some(Kind::WorkloadIdentity) => &["tenant_id", "token_file"],
            Some(Kind::ClientSecret) => &["tenant_id", "secret_file"],
            Some(Kind::TokenFile) => &["token_file"],
        };
        for (field, is_given) in given {
            match (is_given, needed.contains(&field)) {
                (false, true) => return Err(format!("`{field}` is missing")),
                (true, false) => return Err(format!("its credential has no use for `{field}`: leave it out")),
                _ => {}
            }
        }
        let Some(kind) = self.credential else { return Ok(None) };
        if let (Kind::TokenFile, Some(path)) = (kind, &self.token_file) {
            let source = TokenFile::new(path.clone(), Arc::clone(&parts.clock));
            return Ok(Some(Credential::for_named_hosts(Arc::new(source), Arc::clone(&parts.clock))));
        }
        let source = self.of_directory(kind, parts)?;
        Ok(Some(Credential::of_directory(source, Arc::clone(&parts.clock))))
    }

    #[cfg(feature = "azure")]
    fn of_directory(&self, kind: Kind, parts: &AzureParts) -> Result<Arc<dyn TokenSource>, String> {
        use logseal_vault::azure::{AzureIdentity, IdentityTokens};

        let client = || self.client_id.clone().ok_or("`client_id` is missing");
        let tenant = || self.tenant_id.clone().unwrap_or_default();
        let identity = match kind {
            Kind::ClientSecret => {
                let path = self.secret_file.clone().unwrap_or_default();
                let text = fs::read_to_string(&path).map(zeroize::Zeroizing::new);
                let text = text.map_err(|error| format!("read `{}`: {error}", path.display()))?;
                let secret = zeroize::Zeroizing::new(text.trim().to_owned());
                AzureIdentity::ClientSecret { tenant: tenant(), client: client()?, secret }
            }
            Kind::WorkloadIdentity => {
                let token_file = self.token_file.clone().unwrap_or_default();
                AzureIdentity::Workload { tenant: tenant(), client: client()?, token_file }
            }
            Kind::ManagedIdentity | Kind::TokenFile => AzureIdentity::Managed { client: self.client_id.clone() },
        };
        let tokens = IdentityTokens::new(identity, parts).map_err(|error| error.to_string())?;
        Ok(Arc::new(tokens))
    }

    #[cfg(not(feature = "azure"))]
    #[expect(clippy::unused_self, reason = "with the feature it is used")]
    fn of_directory(&self, _: Kind, _: &AzureParts) -> Result<Arc<dyn TokenSource>, String> {
        Err("this program was built without the feature `azure`: build it with `--features azure`, or use the credential `token-file`".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use logseal_core::SystemClock;
    use logseal_crypto::OsRandom;
    use logseal_vault::azure::{AzureSettings, SystemNetwork, TlsTrust};

    use super::*;

    const ID: &str =
        "/subscriptions/s/resourceGroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/logs";

    fn read(text: &str) -> Result<Identities, String> {
        let parts = AzureParts {
            network: Arc::new(SystemNetwork::default()),
            trust: TlsTrust::none(),
            clock: Arc::new(SystemClock),
            random: Arc::new(OsRandom),
            settings: AzureSettings::default(),
        };
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        Identities::read(&file.path().display().to_string(), &parts).map_err(|error| error.to_string())
    }

    fn user(more: &str) -> String {
        format!("[[identity]]\nid = '{ID}'\nprincipal_id = 'p-1'\nclient_id = 'c-1'\n{more}")
    }

    #[test]
    fn identities_have_a_principal_and_perhaps_a_credential() {
        let token = "credential = 'token-file'\ntoken_file = '/t'";
        let system = format!("[[identity]]\nid = 'SystemAssignedIdentity'\n{token}");
        let first = format!("[[identity]]\nid = 'FirstPartyIdentity'\n{token}");
        let found = read(&format!("{}\n{system}\n{first}", user(token))).unwrap();
        let principal = PrincipalId::parse("p-1").unwrap();
        assert_eq!(
            found.user_assigned,
            [UserAssignedIdentity { id: ID.into(), principal: principal.clone(), client_id: "c-1".into() }]
        );
        assert!(found.system_assigned.is_some());
        assert!([&principal, &PrincipalId::first_party()].iter().all(|own| found.credentials[own].is_some()));
        let plain = read(&user("")).unwrap();
        assert!(plain.credentials.values().all(Option::is_none) && plain.user_assigned.len() == 1);
        assert!(plain.credentials.contains_key(&principal), "it is not proved with what is another identity's");
    }

    #[test]
    fn what_is_wrong_with_an_identity_is_said() {
        for (text, expected) in [
            ("[[identity]]\nid = 'x'".to_owned(), "userAssignedIdentities/NAME"),
            ("[[identity]]\nid = 'x'\ncolor = 1".to_owned(), "color"),
            (format!("[[identity]]\nid = '{ID}'"), "`principal_id` is missing"),
            (format!("[[identity]]\nid = '{ID}'\nprincipal_id = 'p'"), "`client_id` is missing"),
            (format!("[[identity]]\nid = '{ID}'\nprincipal_id = 'a b'\nclient_id = 'c'"), "principal id"),
            (format!("{}\n{}", user(""), user("").replace("p-1", "p-2")), "twice"),
            ("[[identity]]\nid = 'SystemAssignedIdentity'".to_owned(), "`credential`"),
            ("[[identity]]\nid = 'FirstPartyIdentity'\nprincipal_id = 'p'".to_owned(), "leave out `principal_id`"),
            (user("credential = 'magic'"), "magic"),
            (user("credential = 'token-file'"), "`token_file` is missing"),
            (user("credential = 'managed-identity'\nsecret_file = '/s'"), "no use for `secret_file`"),
            (user("credential = 'client-secret'\ntenant_id = 't'"), "`secret_file` is missing"),
        ] {
            let error = read(&text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[cfg(not(feature = "azure"))]
    #[test]
    fn a_credential_that_this_build_lacks_is_refused() {
        let error = read(&user("credential = 'managed-identity'")).unwrap_err();
        assert!(error.contains("--features azure"), "{error}");
    }
}
