//! `keyVaultProperties`: the reference to a customer's key.

use logseal_vault::uri::KeyIdentifier;
use logseal_vault::{KeyName, KeyVersion};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::Problem;
use crate::json::Object;

/// The longest vault URI.
pub(crate) const URI_BYTES: usize = 2048;

/// A key reference as it was given; it is shown unchanged.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct KeyReference {
    /// The vault's URI.
    pub(crate) key_vault_uri: String,
    /// The key's name.
    pub(crate) key_name: String,
    /// The pinned version; empty for automatic mode, in which the newest one is used.
    pub(crate) key_version: String,
    /// The smallest RSA modulus in bits that is accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) key_rsa_size: Option<u32>,
}

/// The key that a body asks for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum WantedKey {
    /// A customer's.
    Customers(KeyReference),
    /// The service-managed one, in the place of a customer's.
    ServiceManaged,
}

fn refused(target: &str, message: impl Into<String>) -> Problem {
    Problem::bad("InvalidKeyVaultProperties", target, message)
}

impl KeyReference {
    /// Reads `keyVaultProperties`, whose three fields make a reference, or three empty texts none; or `keyVaultKeyUri`, a key's identifier without
    /// a version.
    pub(crate) fn input(properties: &mut Object<'_>, now: Option<&Self>) -> Result<Option<WantedKey>, Problem> {
        let uri_path = properties.path_of("keyvaultkeyuri");
        if let Some(uri) = properties.string("keyvaultkeyuri")? {
            if properties.object("keyvaultproperties")?.is_some() {
                let message = format!("give either `keyVaultProperties` or `{uri_path}`");
                return Err(refused(&uri_path, message));
            }
            return Self::versionless(&uri_path, uri).map(|key| Some(WantedKey::Customers(key)));
        }
        let Some(mut given) = properties.object("keyvaultproperties")? else { return Ok(None) };
        let (uri_path, name_path) = (given.path_of("keyvaulturi"), given.path_of("keyname"));
        let version_path = given.path_of("keyversion");
        let uri = given.string("keyvaulturi")?.unwrap_or_default();
        let name = given.string("keyname")?.unwrap_or_default();
        let version = given.string("keyversion")?.unwrap_or_default();
        let size_path = given.path_of("keyrsasize");
        let size = given.integer("keyrsasize")?;
        given.finish()?;
        if uri.is_empty() && name.is_empty() && version.is_empty() {
            // What was read from a cluster without a customer's key may be sent back.
            return Ok(now.map(|_| WantedKey::ServiceManaged));
        }
        check_uri(&uri_path, uri)?;
        KeyName::parse(name)
            .map_err(|error| refused(&name_path, format!("`{name_path}` is not a key's name: {error}")))?;
        if !version.is_empty() {
            KeyVersion::parse(version).map_err(|error| {
                refused(&version_path, format!("`{version_path}` is neither empty (automatic) nor a version: {error}"))
            })?;
        }
        let key_rsa_size = match size {
            None => None,
            Some(bits) => match u32::try_from(bits) {
                Ok(bits @ (2048 | 3072 | 4096)) => Some(bits),
                _ => return Err(refused(&size_path, format!("`{size_path}` is {bits}; it can be 2048, 3072 or 4096"))),
            },
        };
        Ok(Some(WantedKey::Customers(Self {
            key_vault_uri: uri.to_owned(),
            key_name: name.to_owned(),
            key_version: version.to_owned(),
            key_rsa_size,
        })))
    }

    /// Why a cluster stays with a customer's key.
    pub(crate) fn one_way() -> Problem {
        refused(
            "properties.keyVaultProperties",
            "a cluster that has a customer's key cannot go back to the service-managed one: give another key instead \
             (`keys.allow_service_managed` of the server's configuration permits it)",
        )
    }

    /// The key that `https://VAULT/keys/NAME` names, in automatic mode.
    fn versionless(path: &str, text: &str) -> Result<Self, Problem> {
        let bad = |why: &str| {
            refused(path, format!("`{path}` must be like https://my-vault.vault.azure.net/keys/my-key: {why}"))
        };
        match KeyIdentifier::recognize(text) {
            Some(KeyIdentifier { vault, name, version: None }) => {
                check_uri(path, vault)?;
                let (key_vault_uri, key_name) = (vault.to_owned(), name.to_string());
                Ok(Self { key_vault_uri, key_name, key_version: String::new(), key_rsa_size: None })
            }
            Some(KeyIdentifier { version: Some(version), .. }) => Err(bad(&format!(
                "leave out the version `{version}`, the newest one is used; to pin a version, give `keyVaultProperties` with `keyVersion`"
            ))),
            None => Err(bad("it is no key's identifier")),
        }
    }

    pub(crate) fn view(&self) -> Value {
        let mut view = json!({
            "keyVaultUri": self.key_vault_uri,
            "keyName": self.key_name,
            "keyVersion": self.key_version,
        });
        if let Some(bits) = self.key_rsa_size {
            view["keyRsaSize"] = bits.into();
        }
        view
    }
}

/// A vault's URI is `https://authority` with at most a slash behind it: nothing else can be the base of its requests.
fn check_uri(path: &str, text: &str) -> Result<(), Problem> {
    let bad = |why: &str| Err(refused(path, format!("`{path}` must be like https://my-vault.vault.azure.net: {why}")));
    if text.len() > URI_BYTES || !text.is_ascii() {
        return bad("it is too long or not ASCII");
    }
    let Ok(uri) = text.parse::<http::Uri>() else { return bad("it is not a URI") };
    if !uri.scheme_str().is_some_and(|scheme| scheme.eq_ignore_ascii_case("https")) {
        return bad("its scheme is not https");
    }
    if uri.authority().is_none_or(|authority| authority.as_str().contains('@') || authority.host().is_empty()) {
        return bad("it needs a host and no user");
    }
    if uri.path().to_ascii_lowercase().starts_with("/keys/") {
        return bad("it is a key's identifier; give the key's name and version in `keyName` and `keyVersion`");
    }
    if !matches!(uri.path(), "" | "/") || uri.query().is_some() || text.contains('#') {
        return bad("it has a path, a query or a fragment");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const VERSION: &str = "78deebed173b48e48f55abf87ed4cf71";

    fn customers(wanted: Option<WantedKey>) -> KeyReference {
        let Some(WantedKey::Customers(key)) = wanted else { panic!("{wanted:?}") };
        key
    }

    fn input(properties: Value, now: Option<&KeyReference>) -> Result<Option<WantedKey>, Problem> {
        let body = json!({"keyVaultProperties": properties});
        KeyReference::input(&mut Object::root(&body).unwrap(), now)
    }

    #[test]
    fn a_reference_is_kept_as_it_was_given() {
        let given = json!({"keyVaultUri": "https://V.example/", "keyName": "Kek", "keyVersion": VERSION});
        let reference = customers(input(given.clone(), None).unwrap());
        assert_eq!(reference.view(), given);
        let automatic = customers(input(json!({"KeyVaultUri": "https://v", "KeyName": "k"}), None).unwrap());
        assert_eq!(automatic.key_version, "");
    }

    #[test]
    fn what_is_no_reference_is_refused_with_its_reason() {
        for bad in [
            json!({"keyVaultUri": "https://v.example"}),
            json!({"keyName": "kek"}),
            json!({"keyVaultUri": "http://v.example", "keyName": "kek"}),
            json!({"keyVaultUri": "https://v.example/keys/kek/78deebed", "keyName": "kek"}),
            json!({"keyVaultUri": "https://v.example/?x=1", "keyName": "kek"}),
            json!({"keyVaultUri": "https://user:pass@v.example", "keyName": "kek"}),
            json!({"keyVaultUri": "https://v.example", "keyName": "k/e"}),
            json!({"keyVaultUri": "https://v.example", "keyName": "kek", "keyVersion": "1"}),
            json!({"keyVaultUri": "https://v.example", "keyName": "kek", "keyRsaSize": 1024}),
            json!({"keyVaultUri": "https://v.example", "kyName": "kek"}),
        ] {
            assert!(input(bad.clone(), None).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_keys_identifier_without_a_version_is_automatic_mode() {
        let read = |body: Value| KeyReference::input(&mut Object::root(&body).unwrap(), None);
        let key = customers(read(json!({"keyVaultKeyUri": "https://v.example/keys/Kek"})).unwrap());
        assert_eq!(key.view(), json!({"keyVaultUri": "https://v.example", "keyName": "Kek", "keyVersion": ""}));
        let refusal = |uri: &str| read(json!({"keyVaultKeyUri": uri})).unwrap_err().message().to_owned();
        let versioned = refusal(&format!("https://v.example/keys/kek/{VERSION}"));
        assert!(versioned.contains("leave out the version") && versioned.contains("keyVersion"), "{versioned}");
        for bad in
            ["", "https://v.example", "http://v.example/keys/k", "https://u@v.example/keys/k", "https://v/keys/a/b/c"]
        {
            refusal(bad);
        }
        let both = json!({"keyVaultKeyUri": "https://v/keys/k", "keyVaultProperties": {"keyVaultUri": "https://v", "keyName": "k"}});
        assert!(read(both).is_err());
    }

    #[test]
    fn no_key_is_what_a_cluster_has_or_the_service_managed_one() {
        let none = json!({"keyVaultUri": "", "keyName": "", "keyVersion": ""});
        assert_eq!(input(none.clone(), None).unwrap(), None);
        let now = customers(input(json!({"keyVaultUri": "https://v", "keyName": "k"}), None).unwrap());
        assert_eq!(input(none, Some(&now)).unwrap(), Some(WantedKey::ServiceManaged));
    }
}
