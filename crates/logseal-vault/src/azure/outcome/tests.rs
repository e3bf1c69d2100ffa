//! Every row of the table in [`crate::azure`] that needs no network, and when a call is repeated.

use super::super::connect::ConnectError;
use super::*;
use crate::VaultErrorClass::{self, Refusal, Trouble};
use crate::VaultUriPolicy;

fn uri() -> VaultUri {
    VaultUriPolicy::default().parse("https://kv.vault.azure.net").unwrap()
}

fn kek() -> KeyId {
    KeyId {
        vault_uri: uri().as_str().into(),
        name: KeyName::parse("kek").unwrap(),
        version: KeyVersion::parse("78deebed173b48e48f55abf87ed4cf71").unwrap(),
    }
}

fn error(code: &str, inner: &str) -> String {
    if inner.is_empty() {
        return format!(r#"{{"error":{{"code":"{code}","message":"TEXT OF THE VAULT"}}}}"#);
    }
    format!(r#"{{"error":{{"code":"{code}","message":"TEXT OF THE VAULT","innererror":{{"code":"{inner}"}}}}}}"#)
}

fn read(ask: &Ask<'_>, status: u16, body: &str) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let body = Ok(Zeroizing::new(body.as_bytes().to_vec()));
    let answer = Answer { status: StatusCode::from_u16(status).unwrap(), retry_after: None, body };
    read_answer(ask, answer, &PrincipalId::parse("me").unwrap())
}

#[test]
fn every_answer_says_what_the_table_says() {
    let (kek, uri) = (kek(), uri());
    let unwrap = Ask::Unwrap(&kek);
    let wrap = Ask::Wrap(&kek);
    let get = Ask::Get { vault: &uri, name: &kek.name, version: Some(&kek.version) };
    let newest = Ask::Get { vault: &uri, name: &kek.name, version: None };
    let html = "<html>403 Forbidden</html>".to_owned();
    let (never, repeat) = (Repeat::Never, Repeat::After(None));
    type Check = fn(&VaultError) -> bool;
    let malformed: Check = |e| matches!(e, VaultError::Malformed(_));
    let denied: Check = |e| matches!(e, VaultError::AccessDenied { .. });
    let disabled: Check = |e| matches!(e, VaultError::KeyDisabled(_));
    let firewall: Check = |e| matches!(e, VaultError::Firewall);
    let not_found: Check = |e| matches!(e, VaultError::NotFound(_));
    let outside: Check = |e| matches!(e, VaultError::OutsideValidity { .. });
    let not_allowed: Check = |e| matches!(e, VaultError::OperationNotAllowed { .. });
    let server: Check = |e| matches!(e, VaultError::Server(408 | 500..=599));
    let rows: Vec<(Ask<'_>, u16, String, Check, VaultErrorClass, Repeat)> = vec![
        (unwrap, 401, error("Unauthorized", ""), |e| matches!(e, VaultError::Unauthorized), Trouble, never),
        (unwrap, 401, html.clone(), |e| matches!(e, VaultError::Unauthorized), Trouble, never),
        (unwrap, 403, error("Forbidden", "KeyDisabled"), disabled, Refusal, never),
        (get, 403, error("Forbidden", "KeyDisabled"), disabled, Refusal, never),
        (newest, 403, error("Forbidden", "KeyDisabled"), malformed, Trouble, never),
        (unwrap, 403, error("Forbidden", "AccessDenied"), denied, Refusal, never),
        (unwrap, 403, error("AccessDenied", ""), denied, Refusal, never),
        (get, 403, error("Forbidden", "ForbiddenByRbac"), denied, Refusal, never),
        (unwrap, 403, error("ForbiddenByRbac", ""), denied, Refusal, never),
        (wrap, 403, error("Forbidden", ""), denied, Refusal, never),
        (wrap, 403, error("Forbidden", "SomethingNew"), denied, Refusal, never),
        (unwrap, 403, error("Forbidden", "ForbiddenByFirewall"), firewall, Trouble, never),
        (unwrap, 403, error("Forbidden", "ForbiddenByConnection"), firewall, Trouble, never),
        (unwrap, 403, error("ForbiddenByFirewall", ""), firewall, Trouble, never),
        (wrap, 403, error("Forbidden", "KeyExpired"), outside, Trouble, never),
        (wrap, 403, error("Forbidden", "KeyNotYetValid"), outside, Trouble, never),
        (unwrap, 403, error("Forbidden", "KeyExpired"), malformed, Trouble, never),
        (unwrap, 403, error("Forbidden", "KeyOperationForbidden"), not_allowed, Trouble, never),
        (unwrap, 403, html.clone(), malformed, Trouble, never),
        (unwrap, 403, error("BlockedByProxy", ""), malformed, Trouble, never),
        (unwrap, 403, String::new(), malformed, Trouble, never),
        (unwrap, 404, error("KeyNotFound", ""), not_found, Refusal, never),
        (get, 404, error("KeyNotFound", ""), not_found, Refusal, never),
        (newest, 404, error("keynotfound", ""), not_found, Refusal, never),
        (unwrap, 404, error("VaultNotFound", ""), |e| matches!(e, VaultError::VaultNotFound(_)), Trouble, never),
        (unwrap, 404, html.clone(), malformed, Trouble, never),
        (unwrap, 404, error("ResourceNotFound", ""), malformed, Trouble, never),
        (unwrap, 404, error("KeyDisabled", ""), malformed, Trouble, never),
        (unwrap, 400, error("BadParameter", ""), |e| matches!(e, VaultError::BadWrap(_)), Trouble, never),
        (unwrap, 400, html.clone(), malformed, Trouble, never),
        (wrap, 400, error("BadParameter", ""), malformed, Trouble, never),
        (unwrap, 409, error("ConflictError", ""), malformed, Trouble, never),
        (unwrap, 400, error("KeyNotFound", ""), |e| matches!(e, VaultError::BadWrap(_)), Trouble, never),
        (unwrap, 429, html.clone(), |e| matches!(e, VaultError::Throttled { retry_after: None }), Trouble, repeat),
        (unwrap, 500, html.clone(), server, Trouble, repeat),
        (unwrap, 503, error("Forbidden", "KeyDisabled"), server, Trouble, repeat),
        (unwrap, 408, html.clone(), server, Trouble, repeat),
        (unwrap, 201, "{}".to_owned(), malformed, Trouble, never),
        (unwrap, 204, String::new(), malformed, Trouble, never),
        (unwrap, 302, html.clone(), malformed, Trouble, never),
        (unwrap, 307, error("KeyNotFound", ""), malformed, Trouble, never),
        (unwrap, 418, html, malformed, Trouble, never),
    ];
    for (ask, status, body, check, class, repeat) in rows {
        let failure = read(&ask, status, &body).unwrap_err();
        assert!(check(&failure.error), "{ask:?} {status} {body}: {failure:?}");
        assert_eq!((failure.error.class(), failure.repeat), (class, repeat), "{ask:?} {status} {body}");
        let shown = format!("{} {:?}", failure.error, failure.error);
        assert!(!shown.contains("TEXT OF THE VAULT") && !shown.contains("html"), "{shown}");
    }
    assert_eq!(&**read(&unwrap, 200, "{}").unwrap(), b"{}");
}

#[test]
fn a_refusal_says_who_lacks_what_on_which_key() {
    let (kek, uri) = (kek(), uri());
    for (ask, expected, shown) in [
        (Ask::Get { vault: &uri, name: &kek.name, version: None }, Permission::Get, "kek".to_owned()),
        (Ask::Wrap(&kek), Permission::WrapKey, kek.to_string()),
        (Ask::Unwrap(&kek), Permission::UnwrapKey, kek.to_string()),
    ] {
        let failure = read(&ask, 403, &error("Forbidden", "AccessDenied")).unwrap_err();
        let VaultError::AccessDenied { caller, permission, key } = failure.error else {
            panic!("{ask:?}: {failure:?}")
        };
        assert_eq!((caller.as_str(), permission, key), ("me", expected, shown));
    }
}

#[test]
fn paths_are_those_of_the_keys_api() {
    let (kek, uri) = (kek(), uri());
    let version = kek.version.as_str();
    for (ask, expected) in [
        (Ask::Get { vault: &uri, name: &kek.name, version: None }, "/keys/kek/?api-version=7.4".to_owned()),
        (
            Ask::Get { vault: &uri, name: &kek.name, version: Some(&kek.version) },
            format!("/keys/kek/{version}?api-version=7.4"),
        ),
        (Ask::Wrap(&kek), format!("/keys/kek/{version}/wrapkey?api-version=7.4")),
        (Ask::Unwrap(&kek), format!("/keys/kek/{version}/unwrapkey?api-version=7.4")),
    ] {
        assert_eq!(ask.path(), expected);
    }
}

#[test]
fn missing_answers_are_repeated_only_when_they_may_pass() {
    let limit = Duration::from_secs(2);
    type Check = fn(&VaultError) -> bool;
    let rows: [(ExchangeError, Check, bool); 7] = [
        (ExchangeError::Connect(ConnectError::Unresolved), |e| matches!(e, VaultError::Unresolved(_)), false),
        (ExchangeError::Connect(ConnectError::NotPublic), |e| matches!(e, VaultError::Unreachable(_)), false),
        (ExchangeError::Connect(ConnectError::Certificate("x")), |e| matches!(e, VaultError::Unreachable(_)), false),
        (ExchangeError::Connect(ConnectError::TimedOut(limit)), |e| matches!(e, VaultError::TimedOut(_)), true),
        (
            ExchangeError::Connect(ConnectError::Broken(std::io::ErrorKind::ConnectionRefused)),
            |e| matches!(e, VaultError::Unreachable(text) if text == "connection refused"),
            true,
        ),
        (ExchangeError::Broken, |e| matches!(e, VaultError::Unreachable(_)), true),
        (ExchangeError::NotHttp, |e| matches!(e, VaultError::Malformed(_)), false),
    ];
    for (error, check, passes) in rows {
        let shown = format!("{error:?}");
        let failure = Failure::of_exchange(error, "kv.vault.azure.net");
        assert!(check(&failure.error), "{shown}: {failure:?}");
        assert_eq!((failure.error.class(), failure.repeat != Repeat::Never), (Trouble, passes), "{shown}");
    }
}

#[derive(Debug)]
struct Always(u8);

impl RandomSource for Always {
    fn fill(&self, out: &mut [u8]) {
        out.fill(self.0);
    }
}

#[test]
fn pauses_grow_have_jitter_keep_retry_after_and_end_with_the_time() {
    let plenty = Duration::from_secs(60);
    let millis = Duration::from_millis;
    for (asked, done, left, shortest, longest) in [
        (None, 0, plenty, Some(100), Some(200)),
        (None, 1, plenty, Some(200), Some(400)),
        (None, 2, plenty, None, None),
        (None, 0, millis(150), Some(100), None),
        (None, 0, millis(0), None, None),
        (Some(millis(3000)), 0, plenty, Some(3000), Some(3100)),
        (Some(millis(3000)), 1, plenty, Some(3000), Some(3100)),
        (Some(millis(3000)), 2, plenty, None, None),
        (Some(millis(3000)), 0, millis(3000), None, None),
        (Some(millis(0)), 0, millis(3000), Some(0), Some(100)),
    ] {
        let failure = Failure { error: VaultError::Throttled { retry_after: asked }, repeat: Repeat::After(asked) };
        let pauses = [0, u8::MAX].map(|byte| failure.pause(done, left, &Always(byte)));
        assert_eq!(pauses, [shortest, longest].map(|pause| pause.map(millis)), "{asked:?} {done} {left:?}");
    }
    let never = Failure::from(VaultError::Unauthorized);
    assert_eq!(never.pause(0, plenty, &Always(0)), None);
}
