//! Hostile and good key vault URIs, each with the reason that must be given.

use super::VaultUriError::*;
use super::*;

fn policy() -> VaultUriPolicy {
    VaultUriPolicy::default()
        .allow_host("Vault.Example.com:8420", Some(Audience::Public))
        .and_then(|policy| policy.allow_host("private.vault.azure.net", None))
        .unwrap()
}

#[test]
fn good_uris_are_normalized() {
    for (text, normalized, port, audience, explicit) in [
        ("https://kv.vault.azure.net", "https://kv.vault.azure.net", 443, Audience::Public, false),
        ("https://kv.vault.azure.net/", "https://kv.vault.azure.net", 443, Audience::Public, false),
        ("https://kv.vault.azure.net:443", "https://kv.vault.azure.net", 443, Audience::Public, false),
        ("https://kv.vault.azure.net:443/", "https://kv.vault.azure.net", 443, Audience::Public, false),
        ("HTTPS://Kv-1.VAULT.Azure.Net/", "https://kv-1.vault.azure.net", 443, Audience::Public, false),
        ("https://kv.vault.usgovcloudapi.net", "https://kv.vault.usgovcloudapi.net", 443, Audience::Government, false),
        ("https://kv.vault.azure.cn", "https://kv.vault.azure.cn", 443, Audience::China, false),
        ("https://hsm.managedhsm.azure.net", "https://hsm.managedhsm.azure.net", 443, Audience::ManagedHsm, false),
        ("https://0x7f.vault.azure.net", "https://0x7f.vault.azure.net", 443, Audience::Public, false),
        ("https://vault.example.com:8420", "https://vault.example.com:8420", 8420, Audience::Public, true),
        ("https://VAULT.example.com:8420/", "https://vault.example.com:8420", 8420, Audience::Public, true),
        ("https://private.vault.azure.net", "https://private.vault.azure.net", 443, Audience::Public, true),
    ] {
        let uri = policy().parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!((uri.as_str(), uri.port()), (normalized, port), "{text}");
        assert_eq!((uri.audience(), uri.is_explicit()), (audience, explicit), "{text}");
        assert_eq!(policy().parse(uri.as_str()).as_ref(), Ok(&uri), "reading the normalized text changes nothing");
        assert!(normalized.contains(uri.host()) && !uri.host().contains([':', '/']), "{}", uri.host());
    }
}

fn not_allowed(host: &str) -> VaultUriError {
    HostNotAllowed(host.into())
}

#[test]
fn hostile_uris_are_refused_each_with_its_reason() {
    let long = format!("https://{}.vault.azure.net", "a".repeat(300));
    let long_label = format!("https://{}.vault.azure.net", "a".repeat(64));
    let version = "78deebed173b48e48f55abf87ed4cf71";
    let key_version = format!("https://kv.vault.azure.net/keys/kek/{version}");
    let upper_version = format!("https://kv.vault.azure.net/keys/kek/{}/", version.to_uppercase());
    let cases: Vec<(&str, VaultUriError)> = vec![
        // No URI at all.
        ("", Empty),
        (&long, TooLong),
        ("kv.vault.azure.net", NoScheme),
        ("kv.vault.azure.net:443", NoScheme),
        ("//kv.vault.azure.net", NoScheme),
        ("/keys/kek", NoScheme),
        ("https", NoScheme),
        ("https:", NoScheme),
        ("https:/kv.vault.azure.net", NoScheme),
        ("https:kv.vault.azure.net", NoScheme),
        ("https;//kv.vault.azure.net", NoScheme),
        // Other schemes.
        ("http://kv.vault.azure.net", Scheme),
        ("HTTP://kv.vault.azure.net", Scheme),
        ("httpss://kv.vault.azure.net", Scheme),
        ("ftp://kv.vault.azure.net", Scheme),
        ("file:///etc/passwd", Scheme),
        ("gopher://kv.vault.azure.net:70/_x", Scheme),
        ("ldap://kv.vault.azure.net", Scheme),
        ("unix:///var/run/docker.sock", Scheme),
        ("data:text/plain,kv.vault.azure.net", Scheme),
        ("javascript:alert(1)", Scheme),
        ("jar:https://kv.vault.azure.net!/", NoScheme),
        // User information.
        ("https://user@kv.vault.azure.net", UserInfo),
        ("https://user:password@kv.vault.azure.net", UserInfo),
        ("https://kv.vault.azure.net@evil.example", UserInfo),
        ("https://kv.vault.azure.net:443@evil.example/", UserInfo),
        ("https://@kv.vault.azure.net", UserInfo),
        ("https://evil.example/@kv.vault.azure.net", UserInfo),
        ("https://evil.example?@kv.vault.azure.net", UserInfo),
        ("https://evil.example#@kv.vault.azure.net", UserInfo),
        // Query and fragment.
        ("https://kv.vault.azure.net?x=1", Query),
        ("https://kv.vault.azure.net/?api-version=7.4", Query),
        ("https://evil.example?.vault.azure.net", Query),
        ("https://kv.vault.azure.net#", Fragment),
        ("https://evil.example#.vault.azure.net", Fragment),
        // Characters on which parsers disagree.
        ("https://evil.example\\.vault.azure.net", Backslash),
        ("https:\\\\kv.vault.azure.net", Backslash),
        ("https://evil.example\\@kv.vault.azure.net", Backslash),
        ("https://kv%2evault.azure.net", PercentEncoding),
        ("https://evil.example%2f.vault.azure.net", PercentEncoding),
        ("https://evil.example%00.vault.azure.net", PercentEncoding),
        ("https://kv.vault.azure.net/%2e%2e", PercentEncoding),
        (" https://kv.vault.azure.net", Blank),
        ("https://kv.vault.azure.net ", Blank),
        ("https://kv .vault.azure.net", Blank),
        ("https://kv.vault.azure.net\r\nHost: evil.example", Blank),
        ("https://evil.example\t.vault.azure.net", Blank),
        ("https://evil.example\0.vault.azure.net", Blank),
        ("ht\ntps://kv.vault.azure.net", Blank),
        ("https://kv.vault.azure.net\u{7f}", Blank),
        ("https://kv.va\u{fc}lt.azure.net", NonAscii),
        ("https://kv.vault.\u{430}zure.net", NonAscii),
        ("https://kv\u{3002}vault\u{3002}azure\u{3002}net", NonAscii),
        ("https://evil.example\u{ff0f}.vault.azure.net", NonAscii),
        ("https://kv.vault.azure.net\u{200b}", NonAscii),
        ("https://\u{ff11}27.0.0.1", NonAscii),
        ("https://\u{2460}69.254.169.254", NonAscii),
        // IP addresses in all notations.
        ("https://127.0.0.1", IpAddress),
        ("https://127.0.0.1:8420/", IpAddress),
        ("https://169.254.169.254/", IpAddress),
        ("https://20.1.2.3", IpAddress),
        ("https://127.1", IpAddress),
        ("https://127.0.1", IpAddress),
        ("https://2130706433", IpAddress),
        ("https://0x7f000001", IpAddress),
        ("https://0X7F.0.0.1", IpAddress),
        ("https://0x7f.1", IpAddress),
        ("https://0177.0.0.01", IpAddress),
        ("https://017700000001", IpAddress),
        ("https://0", IpAddress),
        ("https://0x", IpAddress),
        ("https://999.999.999.999", IpAddress),
        ("https://kv.vault.azure.net.1", IpAddress),
        ("https://[::1]", IpAddress),
        ("https://[::1]:443/", IpAddress),
        ("https://[::ffff:127.0.0.1]/", IpAddress),
        ("https://[fd00::1]", IpAddress),
        ("https://[fe80::1]", IpAddress),
        ("https://::1", IpAddress),
        ("https://fd00::1", IpAddress),
        ("https://[kv.vault.azure.net]", IpAddress),
        ("https://kv.vault.azure.net:443:443", IpAddress),
        // Hosts that are no names.
        ("https://", NoHost),
        ("https:///", NoHost),
        ("https:///kv.vault.azure.net", NoHost),
        ("https://:443", NoHost),
        ("https://kv.vault.azure.net.", TrailingDot),
        ("https://kv.vault.azure.net./", TrailingDot),
        ("https://kv.vault.azure.net.:443", TrailingDot),
        ("https://.", TrailingDot),
        ("https://.vault.azure.net", Host),
        ("https://kv..vault.azure.net", Host),
        ("https://-kv.vault.azure.net", Host),
        ("https://kv-.vault.azure.net", Host),
        ("https://k_v.vault.azure.net", Host),
        ("https://*.vault.azure.net", Host),
        ("https://k$v.vault.azure.net", Host),
        ("https://kv,evil.vault.azure.net", Host),
        ("https://{vault}.vault.azure.net", Host),
        (&long_label, Host),
        ("https://xn--kv-fka.vault.azure.net", International),
        ("https://kv.vault.xn--zure-53d.net", International),
        // Ports.
        ("https://kv.vault.azure.net:", Port),
        ("https://kv.vault.azure.net:0", Port),
        ("https://kv.vault.azure.net:65536", Port),
        ("https://kv.vault.azure.net:99999999999", Port),
        ("https://kv.vault.azure.net:+443", Port),
        ("https://kv.vault.azure.net:-1", Port),
        ("https://kv.vault.azure.net:0443", Port),
        ("https://kv.vault.azure.net:https", Port),
        ("https://kv.vault.azure.net:80", PortNotAllowed(80)),
        ("https://kv.vault.azure.net:8443", PortNotAllowed(8443)),
        ("https://vault.example.com", PortNotAllowed(443)),
        ("https://vault.example.com:8421", PortNotAllowed(8421)),
        // Paths.
        ("https://kv.vault.azure.net//", Path),
        ("https://kv.vault.azure.net/../", Path),
        ("https://kv.vault.azure.net/secrets/s", Path),
        ("https://kv.vault.azure.net/keys", Path),
        ("https://kv.vault.azure.net/keys/a/b/c", Path),
        ("https://kv.vault.azure.net/;x", Path),
        ("https://kv.vault.azure.net/keys/kek", VersionlessKeyIdentifier),
        (&key_version, VersionedKeyIdentifier),
        (&upper_version, VersionedKeyIdentifier),
        // Well-formed hosts that may not be called.
        ("https://localhost", not_allowed("localhost")),
        ("https://localhost:8420", not_allowed("localhost")),
        ("https://metadata.google.internal", not_allowed("metadata.google.internal")),
        ("https://kubernetes.default.svc", not_allowed("kubernetes.default.svc")),
        ("https://evil.example", not_allowed("evil.example")),
        ("https://vault.azure.net", not_allowed("vault.azure.net")),
        ("https://evilvault.azure.net", not_allowed("evilvault.azure.net")),
        ("https://a.b.vault.azure.net", not_allowed("a.b.vault.azure.net")),
        ("https://kv.vault.azure.net.evil.example", not_allowed("kv.vault.azure.net.evil.example")),
        ("https://kv.vault.azure.netx", not_allowed("kv.vault.azure.netx")),
        ("https://kv.privatelink.vaultcore.azure.net", not_allowed("kv.privatelink.vaultcore.azure.net")),
        ("https://kv.vault.azure.com", not_allowed("kv.vault.azure.com")),
        ("https://127.0.0.1.nip.io", not_allowed("127.0.0.1.nip.io")),
        ("https://sub.vault.example.com:8420", not_allowed("sub.vault.example.com")),
        ("https://com:8420", not_allowed("com")),
    ];
    assert!(cases.len() >= 80);
    for (text, reason) in cases {
        assert_eq!(policy().parse(text), Err(reason), "{text:?}");
    }
}

#[test]
fn no_byte_at_any_place_makes_another_host_of_a_good_uri() {
    let good = "https://kv.vault.azure.net/";
    let mut taken = 0;
    for place in 0..=good.len() {
        for character in (0..=u8::MAX).map(char::from) {
            let mut text = good.to_owned();
            text.insert(place, character);
            let Ok(uri) = policy().parse(&text) else { continue };
            taken += 1;
            let name = uri.host().strip_suffix(".vault.azure.net").unwrap_or_else(|| panic!("{text:?}"));
            assert!(name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-'), "{text:?}");
            assert_eq!((uri.port(), uri.audience()), (443, Audience::Public), "{text:?}");
        }
    }
    assert!(taken > 100, "letters and digits within the vault's own name are taken");
}

#[test]
fn kinds_are_what_error_catalogues_need() {
    for (text, kind) in [
        ("http://kv.vault.azure.net", VaultUriErrorKind::Scheme),
        ("https://evil.example", VaultUriErrorKind::HostNotAllowed),
        ("https://127.1", VaultUriErrorKind::HostNotAllowed),
        ("https://kv.vault.azure.net:80", VaultUriErrorKind::HostNotAllowed),
        ("kv", VaultUriErrorKind::Syntax),
        ("https://kv.vault.azure.net/x", VaultUriErrorKind::Syntax),
    ] {
        assert_eq!(policy().parse(text).unwrap_err().kind(), kind, "{text}");
    }
}

#[test]
fn an_operator_may_allow_less_than_all_of_azure() {
    let one = VaultUriPolicy::none().allow_host("private.vault.azure.net", None).unwrap();
    let hsm = VaultUriPolicy::none().allow_domain(Audience::ManagedHsm);
    for (policy, text, allowed) in [
        (&VaultUriPolicy::none(), "https://kv.vault.azure.net", false),
        (&one, "https://private.vault.azure.net", true),
        (&one, "https://kv.vault.azure.net", false),
        (&hsm, "https://hsm.managedhsm.azure.net", true),
        (&hsm, "https://kv.vault.azure.net", false),
    ] {
        let outcome = policy.parse(text);
        assert_eq!(outcome.is_ok(), allowed, "{text}: {outcome:?}");
        assert!(allowed || matches!(outcome, Err(HostNotAllowed(_))), "{outcome:?}");
    }
    for audience in Audience::ALL {
        assert_eq!(Audience::parse(audience.as_str()), Some(audience));
    }
    assert_eq!(Audience::parse("Public"), None);
}

#[test]
fn allowed_hosts_follow_the_same_rules() {
    for (text, audience, reason) in [
        ("https://vault.example.com", Some(Audience::Public), HostExpected),
        ("vault.example.com/", Some(Audience::Public), HostExpected),
        ("127.0.0.1:8420", Some(Audience::Public), IpAddress),
        ("*.example.com", Some(Audience::Public), Host),
        ("vault.example.com.", Some(Audience::Public), TrailingDot),
        ("vault.example.com:0", Some(Audience::Public), Port),
        ("vault.example.com", None, NoAudience),
        ("", None, Empty),
    ] {
        assert_eq!(VaultUriPolicy::default().allow_host(text, audience).unwrap_err(), reason, "{text}");
    }
}

#[test]
fn key_identifiers_are_recognized_with_and_without_version() {
    let version = "78deebed173b48e48f55abf87ed4cf71";
    for (text, expected) in [
        (format!("https://kv.vault.azure.net/keys/kek/{version}"), Some(Some(version))),
        (format!("HTTPS://kv.vault.azure.net/Keys/kek/{}/", version.to_uppercase()), Some(Some(version))),
        ("https://kv.vault.azure.net/keys/kek".to_owned(), Some(None)),
        ("https://kv.vault.azure.net/keys/kek/".to_owned(), Some(None)),
        ("https://kv.vault.azure.net/keys/kek/v1".to_owned(), None),
        (format!("https://kv.vault.azure.net/keys/kek/{version}/x"), None),
        ("https://kv.vault.azure.net/secrets/kek".to_owned(), None),
        ("https://kv.vault.azure.net".to_owned(), None),
        ("https:///keys/kek".to_owned(), None),
        ("keys/kek".to_owned(), None),
        ("\u{fc}\u{fc}\u{fc}\u{fc}\u{fc}".to_owned(), None),
    ] {
        let found = KeyIdentifier::recognize(&text);
        let version = found.as_ref().map(|found| found.version.as_ref().map(KeyVersion::as_str));
        assert_eq!(version, expected, "{text}");
        if let Some(found) = found {
            assert!(found.vault.eq_ignore_ascii_case("https://kv.vault.azure.net"), "{text}");
            assert_eq!(found.name.as_str(), "kek");
        }
    }
}
