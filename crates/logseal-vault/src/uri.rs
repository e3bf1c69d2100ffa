//! Key vault URIs as an attack surface: what a caller of the management API names is a host that the server will connect to.
//!
//! A [`VaultUri`] only comes from [`VaultUriPolicy::parse`]. The grammar that is taken is much narrower than that of a URL, and the text is
//! never handed to a URL parser, so that no second reading of it can differ from this one:
//!
//! ```text
//! https://HOST[:PORT][/]      HOST = letters, digits, hyphens and dots, in ASCII
//! ```
//!
//! | rule | why |
//! | --- | --- |
//! | `https` only | keys and tokens travel in the body and the headers |
//! | the host is one name below an allowed domain, or an allowed host | the server must not be made to call others, or to hand them its token |
//! | port 443, or the one that the allowed host was configured with | no probing of ports |
//! | no IP address in any notation | `2130706433`, `0x7f.1` and `127.1` are all the machine itself |
//! | no userinfo, query, fragment, path, backslash, percent sign, blank, trailing dot, non-ASCII character | parsers disagree about them |
//!
//! What the name resolves to is checked when it is resolved: [`is_public`](crate::address::is_public).

use std::fmt::{self, Display};

use thiserror::Error;

use crate::{KeyName, KeyVersion};

/// The longest text that is looked at: the longest DNS name, scheme, port and slash fit.
const TEXT_BYTES: usize = 280;
const HTTPS_PORT: u16 = 443;
const SCHEME: &str = "https://";

/// For whom an access token is, as Microsoft Entra ID names it: one for each of Azure's clouds and vault kinds.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Audience {
    /// Key vaults of the public cloud.
    Public,
    /// Key vaults of Azure Government.
    Government,
    /// Key vaults of Azure operated by 21Vianet.
    China,
    /// Managed HSMs of the public cloud.
    ManagedHsm,
}

impl Audience {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Public, Self::Government, Self::China, Self::ManagedHsm];

    /// Its name in configuration.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::Government => "government",
            Self::China => "china",
            Self::ManagedHsm => "managed-hsm",
        }
    }

    /// Reads its name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.as_str() == text)
    }

    /// The domain that its vaults are one name below.
    #[must_use]
    pub fn domain(self) -> &'static str {
        match self {
            Self::Public => "vault.azure.net",
            Self::Government => "vault.usgovcloudapi.net",
            Self::China => "vault.azure.cn",
            Self::ManagedHsm => "managedhsm.azure.net",
        }
    }

    /// The resource that a token is asked for.
    #[must_use]
    pub fn resource(self) -> &'static str {
        match self {
            Self::Public => "https://vault.azure.net",
            Self::Government => "https://vault.usgovcloudapi.net",
            Self::China => "https://vault.azure.cn",
            Self::ManagedHsm => "https://managedhsm.azure.net",
        }
    }

    /// The audience whose domain `host` is one name below.
    fn of_host(host: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|audience| is_one_name_below(host, audience.domain()))
    }
}

/// A key vault's URI that passed all rules, normalized: `https://host`, or `https://host:port` when the port is not 443.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct VaultUri {
    text: Box<str>,
    port: u16,
    audience: Audience,
    explicit: bool,
}

impl VaultUri {
    /// The normalized text, as [`KeyId::vault_uri`](crate::KeyId) has it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The host's name, in lower case.
    #[must_use]
    pub fn host(&self) -> &str {
        let authority = &self.text[SCHEME.len()..];
        authority.split_once(':').map_or(authority, |(host, _)| host)
    }

    /// The port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// For whom tokens are that may be sent to this vault.
    #[must_use]
    pub fn audience(&self) -> Audience {
        self.audience
    }

    /// Whether the operator named this very host. Only then may its address be a private one.
    #[must_use]
    pub fn is_explicit(&self) -> bool {
        self.explicit
    }
}

impl Display for VaultUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Which key vaults may be named. By default all of Azure's domains.
#[derive(Clone, Debug)]
pub struct VaultUriPolicy {
    domains: Vec<Audience>,
    hosts: Vec<VaultUri>,
}

impl Default for VaultUriPolicy {
    fn default() -> Self {
        Audience::ALL.into_iter().fold(Self::none(), Self::allow_domain)
    }
}

impl VaultUriPolicy {
    /// No vault at all, for operators who name each one.
    #[must_use]
    pub fn none() -> Self {
        Self { domains: Vec::new(), hosts: Vec::new() }
    }

    /// Allows all vaults of one domain.
    #[must_use]
    pub fn allow_domain(mut self, audience: Audience) -> Self {
        self.domains.push(audience);
        self
    }

    /// Allows one more host: `host` or `host:port`. Its address may be a private one, for example that of a private endpoint.
    ///
    /// `audience` says which tokens it may be sent. It may be left out below one of Azure's domains, where it is that domain's.
    ///
    /// # Errors
    ///
    /// [`VaultUriError`] when the text breaks a rule, [`VaultUriError::NoAudience`] when nothing says which tokens the host may be sent.
    pub fn allow_host(mut self, text: &str, audience: Option<Audience>) -> Result<Self, VaultUriError> {
        if text.contains('/') {
            return Err(VaultUriError::HostExpected);
        }
        let (host, port) = authority(screen(text)?)?;
        let audience = audience.or_else(|| Audience::of_host(&host)).ok_or(VaultUriError::NoAudience)?;
        self.hosts.push(vault_uri(&host, port, audience, true));
        Ok(self)
    }

    /// Reads a key vault's URI and holds it against all rules. A trailing slash is taken and dropped.
    ///
    /// # Errors
    ///
    /// [`VaultUriError`], which says what is wrong and what to do.
    pub fn parse(&self, text: &str) -> Result<VaultUri, VaultUriError> {
        let rest = after_scheme(screen(text)?)?;
        let (name, path) = rest.find('/').map_or((rest, ""), |slash| rest.split_at(slash));
        let (host, port) = authority(name)?;
        if !["", "/"].contains(&path) {
            return Err(match KeyIdentifier::recognize(text) {
                Some(KeyIdentifier { version: Some(_), .. }) => VaultUriError::VersionedKeyIdentifier,
                Some(KeyIdentifier { version: None, .. }) => VaultUriError::VersionlessKeyIdentifier,
                None => VaultUriError::Path,
            });
        }
        self.admit(&host, port)
    }

    fn admit(&self, host: &str, port: u16) -> Result<VaultUri, VaultUriError> {
        if let Some(allowed) = self.hosts.iter().find(|allowed| allowed.host() == host && allowed.port == port) {
            return Ok(allowed.clone());
        }
        match Audience::of_host(host).filter(|audience| self.domains.contains(audience)) {
            Some(audience) if port == HTTPS_PORT => Ok(vault_uri(host, port, audience, false)),
            None if !self.hosts.iter().any(|allowed| allowed.host() == host) => {
                Err(VaultUriError::HostNotAllowed(host.into()))
            }
            _ => Err(VaultUriError::PortNotAllowed(port)),
        }
    }
}

fn vault_uri(host: &str, port: u16, audience: Audience, explicit: bool) -> VaultUri {
    let text = if port == HTTPS_PORT { format!("{SCHEME}{host}") } else { format!("{SCHEME}{host}:{port}") };
    VaultUri { text: text.into(), port, audience, explicit }
}

/// A text in the shape of a key identifier: `https://{vault}/keys/{name}` with or without `/{version}`.
///
/// It only recognizes; the vault's part passed no rule. It is for callers that expect something else, such as a vault's URI or an
/// identifier without a version, and want to say what they were given.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct KeyIdentifier<'a> {
    /// What stands before `/keys/`.
    pub vault: &'a str,
    /// The key's name.
    pub name: KeyName,
    /// The key's version, if the text names one.
    pub version: Option<KeyVersion>,
}

impl<'a> KeyIdentifier<'a> {
    /// Reads `text`; `None` when it is no key identifier. Upper-case versions and a trailing slash are recognized, too.
    #[must_use]
    pub fn recognize(text: &'a str) -> Option<Self> {
        let text = text.trim().trim_end_matches('/');
        let scheme = text.get(..SCHEME.len()).filter(|scheme| scheme.eq_ignore_ascii_case(SCHEME))?;
        let authority = text[scheme.len()..].split('/').next().filter(|authority| !authority.is_empty())?;
        let vault = &text[..scheme.len() + authority.len()];
        let mut parts = text[vault.len()..].split('/').skip(1);
        parts.next().filter(|keys| keys.eq_ignore_ascii_case("keys"))?;
        let name = KeyName::parse(parts.next()?).ok()?;
        let version = match parts.next() {
            Some(version) => Some(KeyVersion::parse(&version.to_ascii_lowercase()).ok()?),
            None => None,
        };
        parts.next().is_none().then_some(Self { vault, name, version })
    }
}

/// What kind of refusal it is, for catalogues of errors.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum VaultUriErrorKind {
    /// The text is no key vault's URI.
    Syntax,
    /// The scheme is not `https`.
    Scheme,
    /// The text is well formed, but this host or port may not be called.
    HostNotAllowed,
}

/// Why a key vault's URI is refused.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum VaultUriError {
    /// There is no text.
    #[error("the key vault URI is empty: give it as `https://NAME.vault.azure.net`")]
    Empty,
    /// The text is longer than any URI of a vault.
    #[error("the key vault URI is longer than {TEXT_BYTES} bytes")]
    TooLong,
    /// A character outside of ASCII.
    #[error("the key vault URI has a character outside of ASCII: copy it from the vault's own page")]
    NonAscii,
    /// A blank or a control character.
    #[error("the key vault URI has a blank or a control character: remove it")]
    Blank,
    /// A backslash, which some parsers take for a slash.
    #[error("the key vault URI has a backslash: use `/`")]
    Backslash,
    /// A percent sign.
    #[error("the key vault URI has a percent-encoded character: write the name as it is")]
    PercentEncoding,
    /// No scheme.
    #[error("the key vault URI does not begin with `https://`: give it as `https://NAME.vault.azure.net`")]
    NoScheme,
    /// Another scheme than `https`.
    #[error("the key vault URI has another scheme than `https`: key vaults are reached over https only")]
    Scheme,
    /// A user name or a password.
    #[error(
        "the key vault URI has user information (`@`): remove it, the cluster's identity is what the vault is asked as"
    )]
    UserInfo,
    /// A query.
    #[error("the key vault URI has a query (`?`): remove it")]
    Query,
    /// A fragment.
    #[error("the key vault URI has a fragment (`#`): remove it")]
    Fragment,
    /// An IP address.
    #[error("the key vault URI has an IP address for a host: use the vault's DNS name")]
    IpAddress,
    /// No host.
    #[error("the key vault URI has no host: give it as `https://NAME.vault.azure.net`")]
    NoHost,
    /// A dot at the host's end.
    #[error("the key vault URI's host ends with a dot: remove it")]
    TrailingDot,
    /// The host is no DNS name.
    #[error("the key vault URI's host is no DNS name: labels are 1 to 63 letters, digits or inner hyphens")]
    Host,
    /// A label of an internationalized name.
    #[error(
        "the key vault URI's host is an internationalized name (`xn--`): vaults have none, this one may imitate another"
    )]
    International,
    /// The port is no number from 1 to 65535.
    #[error("the key vault URI's port is no number from 1 to 65535")]
    Port,
    /// A path.
    #[error("the key vault URI has a path: end it after the host")]
    Path,
    /// A key identifier without a version.
    #[error("this is a key's identifier: give the vault's URI up to the host, and the key's name in its own field")]
    VersionlessKeyIdentifier,
    /// A key identifier with a version.
    #[error(
        "this is the identifier of one key version: give the vault's URI up to the host, and name and version in their own fields; \
         leave the version empty for automatic rotation"
    )]
    VersionedKeyIdentifier,
    /// A host is expected, without scheme and path.
    #[error("an allowed key vault host is given as `HOST` or `HOST:PORT`, without scheme and path")]
    HostExpected,
    /// The host is below none of Azure's domains, and nothing says which tokens it may be sent.
    #[error("say for which of Azure's clouds the tokens are that this key vault host may be sent")]
    NoAudience,
    /// The host is neither allowed nor one name below an allowed domain.
    #[error(
        "host `{0}` is no key vault that may be used: it must be one name below an Azure Key Vault domain, or the operator of this server \
         must allow it"
    )]
    HostNotAllowed(Box<str>),
    /// The host may be used, but not through this port.
    #[error(
        "port {0} of this key vault may not be used: leave it out, or let the operator of this server allow host and port"
    )]
    PortNotAllowed(u16),
}

impl VaultUriError {
    /// What kind of refusal it is.
    #[must_use]
    pub fn kind(&self) -> VaultUriErrorKind {
        match self {
            Self::Scheme => VaultUriErrorKind::Scheme,
            Self::IpAddress | Self::International | Self::HostNotAllowed(_) | Self::PortNotAllowed(_) => {
                VaultUriErrorKind::HostNotAllowed
            }
            _ => VaultUriErrorKind::Syntax,
        }
    }
}

/// Refuses what no part of a vault's URI has, before anything is taken apart.
fn screen(text: &str) -> Result<&str, VaultUriError> {
    if text.is_empty() {
        return Err(VaultUriError::Empty);
    }
    if text.len() > TEXT_BYTES {
        return Err(VaultUriError::TooLong);
    }
    for byte in text.bytes() {
        match byte {
            0x80.. => return Err(VaultUriError::NonAscii),
            0..=b' ' | 0x7F => return Err(VaultUriError::Blank),
            b'\\' => return Err(VaultUriError::Backslash),
            b'%' => return Err(VaultUriError::PercentEncoding),
            _ => {}
        }
    }
    // `@` first: in `https://vault@evil/` or `https://evil/?@vault` it is what the text is about.
    for (character, error) in
        [('@', VaultUriError::UserInfo), ('?', VaultUriError::Query), ('#', VaultUriError::Fragment)]
    {
        if text.contains(character) {
            return Err(error);
        }
    }
    Ok(text)
}

fn after_scheme(text: &str) -> Result<&str, VaultUriError> {
    if text.get(..SCHEME.len()).is_some_and(|scheme| scheme.eq_ignore_ascii_case(SCHEME)) {
        return Ok(&text[SCHEME.len()..]);
    }
    // `host:443` has a colon as well: it is a scheme only if slashes follow, or if it is one that needs none.
    let scheme = text.split_once(':').filter(|(scheme, rest)| {
        let known = ["data", "file", "javascript", "mailto", "urn"].iter().any(|one| scheme.eq_ignore_ascii_case(one));
        !scheme.eq_ignore_ascii_case("https") && (rest.starts_with("//") || known)
    });
    Err(if scheme.is_some() { VaultUriError::Scheme } else { VaultUriError::NoScheme })
}

/// Takes `HOST[:PORT]` apart. The host comes back in lower case.
fn authority(text: &str) -> Result<(String, u16), VaultUriError> {
    if text.contains(['[', ']']) || text.matches(':').count() > 1 {
        return Err(VaultUriError::IpAddress);
    }
    let (host, port) = match text.split_once(':') {
        None => (text, HTTPS_PORT),
        Some((host, port)) => {
            let digits = (1..=5).contains(&port.len()) && port.bytes().all(|byte| byte.is_ascii_digit());
            let number = port.parse().ok().filter(|port| digits && *port != 0);
            (host, number.filter(|_| !port.starts_with('0')).ok_or(VaultUriError::Port)?)
        }
    };
    Ok((checked_host(host)?, port))
}

fn checked_host(host: &str) -> Result<String, VaultUriError> {
    if host.is_empty() {
        return Err(VaultUriError::NoHost);
    }
    if host.ends_with('.') {
        return Err(VaultUriError::TrailingDot);
    }
    let host = host.to_ascii_lowercase();
    let labels = host.split('.');
    // A last label that is a number makes the whole an IPv4 address in one of its notations: no top-level domain is one.
    if labels.clone().next_back().is_some_and(is_number) {
        return Err(VaultUriError::IpAddress);
    }
    for label in labels {
        let charset = label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        if !charset || !(1..=63).contains(&label.len()) || label.starts_with('-') || label.ends_with('-') {
            return Err(VaultUriError::Host);
        }
        if label.starts_with("xn--") {
            return Err(VaultUriError::International);
        }
    }
    if host.len() > 253 { Err(VaultUriError::Host) } else { Ok(host) }
}

/// Whether a label is a number as C's `strtoul` reads it: decimal, octal or hexadecimal.
fn is_number(label: &str) -> bool {
    match label.strip_prefix("0x") {
        Some(digits) => digits.bytes().all(|byte| byte.is_ascii_hexdigit()),
        None => !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_digit()),
    }
}

/// Compares whole labels: `evilvault.azure.net` is not below `vault.azure.net`. A wildcard certificate covers one name, and so do we.
fn is_one_name_below(host: &str, domain: &str) -> bool {
    host.split_once('.').is_some_and(|(_, parent)| parent == domain)
}

#[cfg(test)]
mod tests;
