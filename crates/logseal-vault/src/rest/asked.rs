//! The head of a request: its path's parameters and its query, all well-formed.

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use data_encoding::BASE64URL_NOPAD;
use http::header;
use http::request::Parts;
use http::uri::Authority;
use serde_json::{Value, json};

use super::Shared;
use super::problem::Problem;
use super::throttle::Work;
use crate::embedded::Key;
use crate::{KeyId, KeyName, KeyVersion, PrincipalId};

/// Items of a page: Key Vault's most, and its default.
const PAGE: usize = 25;

/// What a request names.
#[derive(Debug)]
pub(super) struct Asked {
    parameters: HashMap<String, String>,
    query: Vec<(String, String)>,
    /// `https://authority` as the client wrote it: identifiers carry it, so that clients that build URLs from them come back here.
    pub(super) base: String,
    path: String,
}

impl FromRequestParts<Arc<Shared>> for Asked {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, shared: &Arc<Shared>) -> Result<Self, Problem> {
        let parameters = axum::extract::Path::<HashMap<String, String>>::from_request_parts(parts, shared).await;
        let axum::extract::Path(parameters) =
            parameters.map_err(|_| Problem::bad("the path's percent-encoding is not UTF-8"))?;
        let axum::extract::Query(query) = axum::extract::Query::<Vec<(String, String)>>::try_from_uri(&parts.uri)
            .map_err(|_| Problem::bad("the query cannot be decoded"))?;
        let asked = Self { parameters, query, base: base(parts)?, path: parts.uri.path().to_owned() };
        asked.check_version()?;
        if asked.parameters.contains_key("name") && shared.face.vault.state.is_reserved(&asked.name()?) {
            let message = "this key belongs to the deployment: it protects what no customer's key protects, and is not administered here";
            return Err(Problem::forbidden("ReservedKey", message));
        }
        Ok(asked)
    }
}

/// The scheme and authority that the request named.
fn base(parts: &Parts) -> Result<String, Problem> {
    let host = parts.headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let authority = match parts.uri.authority() {
        Some(authority) => authority.clone(),
        None => host
            .and_then(|host| host.parse::<Authority>().ok())
            .ok_or_else(|| Problem::bad("the header `Host` names no host"))?,
    };
    if authority.as_str().contains('@') {
        return Err(Problem::bad("the header `Host` names a user"));
    }
    Ok(format!("https://{authority}"))
}

/// Whether this is a published version of Key Vault's API.
fn is_known(version: &str) -> bool {
    let (release, stage) =
        version.split_once("-preview").map_or((version, None), |(release, stage)| (release, Some(stage)));
    let of_stage = stage.is_none_or(|stage| {
        stage.is_empty() || stage.strip_prefix('.').is_some_and(|number| number.parse::<u8>().is_ok())
    });
    let minor = release.strip_prefix("7.").and_then(|minor| minor.parse::<u8>().ok());
    let is_date = |text: &str| {
        let digits =
            text.bytes().enumerate().all(|(i, b)| if i == 4 || i == 7 { b == b'-' } else { b.is_ascii_digit() });
        text.len() == 10 && digits
    };
    of_stage
        && (minor.is_some_and(|minor| minor <= 6)
            || release == "2016-10-01"
            || (is_date(release) && release.starts_with("2025-")))
}

impl Asked {
    fn check_version(&self) -> Result<(), Problem> {
        match self.query("api-version") {
            None => Err(Problem::bad("the query lacks `api-version`, for example `?api-version=7.4`")),
            Some(version) if is_known(version) => Ok(()),
            Some(version) => Err(Problem::bad(format!(
                "`api-version` is `{version}`; this vault knows 7.0 to 7.6 and those of 2025, for example 7.4"
            ))),
        }
    }

    /// A parameter of the query, whose name compares without case.
    fn query(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    fn parameter(&self, name: &str) -> &str {
        self.parameters.get(name).map_or("", String::as_str)
    }

    pub(super) fn name(&self) -> Result<KeyName, Problem> {
        KeyName::parse(self.parameter("name")).map_err(|error| Problem::bad(error.to_string()))
    }

    /// The version that the path names; none means the newest one.
    pub(super) fn version(&self) -> Result<Option<KeyVersion>, Problem> {
        match self.parameter("version") {
            "" => Ok(None),
            text => KeyVersion::parse(text).map(Some).map_err(|error| Problem::bad(error.to_string())),
        }
    }

    pub(super) fn principal(&self) -> Result<PrincipalId, Problem> {
        PrincipalId::parse(self.parameter("principal")).map_err(|error| Problem::bad(error.to_string()))
    }

    /// The key that the path names, deleted or not, as far as its size is not asked for too often.
    pub(super) fn key(&self, shared: &Shared) -> Result<Arc<Key>, Problem> {
        let key = shared.face.vault.state.key(&self.name()?)?;
        shared.take(key.newest().rsa.bits(), Work::Other)?;
        Ok(key)
    }

    pub(super) fn id(&self, name: &KeyName, version: &KeyVersion) -> KeyId {
        KeyId { vault_uri: self.base.as_str().into(), name: name.clone(), version: version.clone() }
    }

    /// A page of `all`, which comes as tokens and items, with a link to what follows.
    pub(super) fn page(&self, all: Vec<(String, Value)>) -> Result<Value, Problem> {
        let most = match self.query("maxresults") {
            None => PAGE,
            Some(text) => text
                .parse()
                .ok()
                .filter(|most| (1..=PAGE).contains(most))
                .ok_or_else(|| Problem::bad(format!("`maxresults` is `{text}`; it can be 1 to {PAGE}")))?,
        };
        let begin = match self.query("$skiptoken") {
            None => 0,
            Some(text) => {
                let decoded = BASE64URL_NOPAD.decode(text.as_bytes()).ok();
                let last = decoded.and_then(|bytes| String::from_utf8(bytes).ok());
                let last = last.ok_or_else(|| Problem::bad("`$skiptoken` is not one that an answer gave"))?;
                let at = all.iter().position(|(token, _)| *token == last);
                // Only keys can have gone meanwhile, and they are listed in the order of their tokens.
                at.map_or_else(|| all.partition_point(|(token, _)| *token <= last), |index| index + 1)
            }
        };
        let page: Vec<_> = all[begin..].iter().take(most).collect();
        let next = (begin + page.len() < all.len()).then(|| page.last()).flatten().map(|(token, _)| {
            let (base, path, version) = (&self.base, &self.path, self.query("api-version").unwrap_or_default());
            let token = BASE64URL_NOPAD.encode(token.as_bytes());
            format!("{base}{path}?api-version={version}&maxresults={most}&$skiptoken={token}")
        });
        Ok(json!({"value": page.iter().map(|(_, item)| item).collect::<Vec<_>>(), "nextLink": next}))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_versions_are_known_and_no_others() {
        for known in
            ["7.0", "7.4", "7.6", "7.6-preview.2", "7.5-preview", "2016-10-01", "2025-07-01", "2025-06-01-preview"]
        {
            assert!(is_known(known), "{known}");
        }
        for unknown in ["", "7", "7.7", "7.-1", "8.0", "7.4-beta", "7.4-previewx", "2024-01-01", "2025-7-1", "latest"] {
            assert!(!is_known(unknown), "{unknown}");
        }
    }
}
