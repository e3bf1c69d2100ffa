//! What an answer of the vault says: about the key, about the vault, or nothing. Pure; the table is in [`crate::azure`].

use std::borrow::Cow;
use std::time::Duration;

use http::{Method, StatusCode};
use logseal_core::RandomSource;
use zeroize::Zeroizing;

use super::exchange::{Answer, BodyFault, ExchangeError};
use super::message::error_codes;
use crate::uri::VaultUri;
use crate::{KeyId, KeyName, KeyVersion, Permission, PrincipalId, VaultError};

/// The version of the keys API.
const API_VERSION: &str = "7.4";

/// How many times a call is repeated.
const RETRIES: u32 = 2;

/// What the first repetition waits for at most; the next one for twice as long.
const BACKOFF: Duration = Duration::from_millis(200);

/// What is added to a time that the vault named: all who were told the same must not come back at the same moment.
const SPREAD: Duration = Duration::from_millis(100);

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub(super) enum Ask<'a> {
    Get { vault: &'a VaultUri, name: &'a KeyName, version: Option<&'a KeyVersion> },
    Wrap(&'a KeyId),
    Unwrap(&'a KeyId),
}

impl Ask<'_> {
    pub(super) fn method(&self) -> Method {
        match self {
            Self::Get { .. } => Method::GET,
            Self::Wrap(_) | Self::Unwrap(_) => Method::POST,
        }
    }

    /// Path and query. Names and versions consist of letters, digits and hyphens, so that nothing needs to be encoded.
    pub(super) fn path(&self) -> String {
        let (name, version, operation) = match self {
            // Without a version the path ends with a slash, as Azure's own SDKs send it.
            Self::Get { name, version, .. } => (*name, version.map_or("", KeyVersion::as_str), ""),
            Self::Wrap(kek) => (&kek.name, kek.version.as_str(), "/wrapkey"),
            Self::Unwrap(kek) => (&kek.name, kek.version.as_str(), "/unwrapkey"),
        };
        format!("/keys/{name}/{version}{operation}?api-version={API_VERSION}")
    }

    fn vault(&self) -> &str {
        match self {
            Self::Get { vault, .. } => vault.as_str(),
            Self::Wrap(kek) | Self::Unwrap(kek) => &kek.vault_uri,
        }
    }

    fn permission(&self) -> Permission {
        match self {
            Self::Get { .. } => Permission::Get,
            Self::Wrap(_) => Permission::WrapKey,
            Self::Unwrap(_) => Permission::UnwrapKey,
        }
    }

    /// The version that is asked for, if one is.
    fn version(&self) -> Option<KeyId> {
        match self {
            Self::Get { vault, name, version } => version.map(|version| KeyId {
                vault_uri: vault.as_str().into(),
                name: (*name).clone(),
                version: version.clone(),
            }),
            Self::Wrap(kek) | Self::Unwrap(kek) => Some((*kek).clone()),
        }
    }

    /// The key as errors name it.
    fn key(&self) -> String {
        match self {
            Self::Get { name, version: None, .. } => name.to_string(),
            Self::Get { name, version: Some(version), .. } => format!("{name}/{version}"),
            Self::Wrap(kek) | Self::Unwrap(kek) => kek.to_string(),
        }
    }
}

/// A failure, and whether the call is worth repeating.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) error: VaultError,
    pub(super) repeat: Repeat,
}

/// Whether a call is worth repeating.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Repeat {
    /// The answer would be the same.
    Never,
    /// It may pass soon; the vault may have said when to come back.
    After(Option<Duration>),
}

impl From<VaultError> for Failure {
    fn from(error: VaultError) -> Self {
        Self { error, repeat: Repeat::Never }
    }
}

impl Failure {
    /// What a missing answer of `host` says.
    pub(super) fn of_exchange(error: ExchangeError, host: &str) -> Self {
        match error {
            ExchangeError::Connect(error) => {
                let repeat = if error.passes() { Repeat::After(None) } else { Repeat::Never };
                Self { error: error.into_vault_error(host), repeat }
            }
            ExchangeError::Broken => Self::broken(),
            ExchangeError::NotHttp => VaultError::Malformed("it is not HTTP").into(),
        }
    }

    fn broken() -> Self {
        let error = VaultError::Unreachable("the connection broke before the end of the answer".into());
        Self { error, repeat: Repeat::After(None) }
    }

    /// How long to wait before the repetition after `done` of them; `None` when there is none, or not within the time that is `left`.
    pub(super) fn pause(&self, done: u32, left: Duration, random: &dyn RandomSource) -> Option<Duration> {
        let Repeat::After(asked) = self.repeat else { return None };
        if done >= RETRIES {
            return None;
        }
        let half = BACKOFF * (1 << done) / 2;
        let (base, spread) = asked.map_or((half, half), |asked| (asked, SPREAD));
        let mut bytes = [0; 4];
        random.fill(&mut bytes);
        let pause = base + spread.mul_f64(f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX));
        (pause < left).then_some(pause)
    }
}

/// The body of a good answer, or what the answer says. `caller` is named when it lacks a permission.
pub(super) fn read_answer(ask: &Ask<'_>, answer: Answer, caller: &PrincipalId) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let Answer { status, retry_after, body } = answer;
    match status {
        StatusCode::UNAUTHORIZED => return Err(VaultError::Unauthorized.into()),
        StatusCode::TOO_MANY_REQUESTS => {
            let error = VaultError::Throttled { retry_after };
            return Err(Failure { error, repeat: Repeat::After(retry_after) });
        }
        _ if status.is_server_error() || status == StatusCode::REQUEST_TIMEOUT => {
            return Err(Failure { error: VaultError::Server(status.as_u16()), repeat: Repeat::After(retry_after) });
        }
        _ => {}
    }
    let body = match body {
        Ok(body) => body,
        Err(BodyFault::TooLong) => return Err(VaultError::Malformed("it is longer than 64 KiB").into()),
        Err(BodyFault::Broken) => return Err(Failure::broken()),
    };
    if status == StatusCode::OK {
        return Ok(body);
    }
    let Some(codes) = error_codes(&body) else {
        return Err(VaultError::Malformed("it is a refusal that does not come from Key Vault").into());
    };
    Err(refusal(ask, status, &codes, caller).into())
}

fn refusal(ask: &Ask<'_>, status: StatusCode, codes: &[Cow<'_, str>], caller: &PrincipalId) -> VaultError {
    // From the inside out: the innermost code that is known says most.
    let known = codes.iter().find_map(|code| by_code(ask, status, code, caller));
    known.unwrap_or(match (status, ask) {
        (StatusCode::BAD_REQUEST, Ask::Unwrap(kek)) => VaultError::BadWrap((*kek).clone()),
        _ => VaultError::Malformed("it is an error that is not known here"),
    })
}

fn by_code(ask: &Ask<'_>, status: StatusCode, code: &str, caller: &PrincipalId) -> Option<VaultError> {
    let is = |names: &[&str]| names.iter().any(|name| name.eq_ignore_ascii_case(code));
    match status {
        StatusCode::NOT_FOUND if is(&["KeyNotFound"]) => Some(VaultError::NotFound(ask.key())),
        StatusCode::NOT_FOUND if is(&["VaultNotFound"]) => Some(VaultError::VaultNotFound(ask.vault().into())),
        StatusCode::FORBIDDEN if is(&["KeyDisabled"]) => Some(ask.version().map_or(
            // Which version is the newest is not said.
            VaultError::Malformed("it says that a version is disabled which was not asked for"),
            VaultError::KeyDisabled,
        )),
        StatusCode::FORBIDDEN if is(&["KeyExpired", "KeyNotYetValid"]) => match ask {
            Ask::Wrap(kek) => {
                let why = if is(&["KeyExpired"]) { "expired" } else { "not yet valid" };
                Some(VaultError::OutsideValidity { key: (*kek).clone(), why })
            }
            // An expired key unwraps; a refusal by its validity time would contradict the API.
            Ask::Get { .. } | Ask::Unwrap(_) => Some(VaultError::Malformed("it refuses for the key's validity time")),
        },
        StatusCode::FORBIDDEN if is(&["KeyOperationForbidden"]) => match ask {
            Ask::Wrap(kek) | Ask::Unwrap(kek) => {
                Some(VaultError::OperationNotAllowed { key: (*kek).clone(), operation: ask.permission().as_str() })
            }
            Ask::Get { .. } => None,
        },
        StatusCode::FORBIDDEN if is(&["ForbiddenByFirewall", "ForbiddenByConnection"]) => Some(VaultError::Firewall),
        StatusCode::FORBIDDEN if is(&["AccessDenied", "ForbiddenByRbac", "ForbiddenByPolicy", "Forbidden"]) => {
            let (caller, permission, key) = (caller.to_string(), ask.permission(), ask.key());
            Some(VaultError::AccessDenied { caller, permission, key })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests;
