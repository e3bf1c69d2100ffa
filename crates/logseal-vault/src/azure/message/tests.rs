//! Which bodies are believed.

use super::*;

const VAULT: &str = "https://kv.vault.azure.net";
const VERSION: &str = "78deebed173b48e48f55abf87ed4cf71";

fn name() -> KeyName {
    KeyName::parse("log-kek").unwrap()
}

fn kek() -> KeyId {
    KeyId { vault_uri: VAULT.into(), name: name(), version: KeyVersion::parse(VERSION).unwrap() }
}

fn bundle(kty: &str, extra: &str, attributes: &str) -> String {
    format!(
        r#"{{"key":{{"kid":"{VAULT}/keys/log-kek/{VERSION}","kty":"{kty}","key_ops":["wrapKey"]{extra}}},
            "attributes":{{"created":1493942451,"updated":1493942452{attributes}}},"tags":{{"a":"b"}}}}"#
    )
}

fn modulus(bits: usize) -> String {
    let mut bytes = vec![0xFF; bits / 8];
    bytes[0] = 0x80;
    format!(r#","n":"{}","e":"AQAB""#, BASE64URL_NOPAD.encode(&bytes))
}

#[test]
fn a_key_bundle_becomes_properties() {
    let full = r#","enabled":false,"nbf":1700000000,"exp":1800000000,"recoveryLevel":"CustomizedRecoverable+ProtectedSubscription""#;
    let body = bundle("RSA-HSM", &modulus(3072), full);
    let found = key_properties(body.as_bytes(), VAULT, &name(), Some(&kek().version)).unwrap();
    let expected = KeyProperties {
        id: kek(),
        key_type: "RSA-HSM".into(),
        rsa_bits: 3072,
        enabled: false,
        created: UnixNanos(1_493_942_451_000_000_000),
        not_before: Some(UnixNanos(1_700_000_000_000_000_000)),
        expires: Some(UnixNanos(1_800_000_000_000_000_000)),
        recoverable: true,
    };
    assert_eq!(found, expected);

    let least = bundle("EC", "", "");
    let found = key_properties(least.as_bytes(), VAULT, &name(), None).unwrap();
    assert!(found.enabled && !found.recoverable && !found.is_rsa() && found.rsa_bits == 0, "{found:?}");
    for (level, recoverable) in
        [("Recoverable", true), ("Recoverable+Purgeable", false), ("Purgeable", false), ("", false)]
    {
        let body = bundle("EC", "", &format!(r#","recoveryLevel":"{level}""#));
        assert_eq!(key_properties(body.as_bytes(), VAULT, &name(), None).unwrap().recoverable, recoverable, "{level}");
    }
    let far = bundle("EC", "", r#","exp":9223372036854775807"#);
    let far = key_properties(far.as_bytes(), VAULT, &name(), None).unwrap();
    assert_eq!(far.expires, Some(UnixNanos(i64::MAX)), "times beyond our range do not wrap around");
}

#[test]
fn key_bundles_that_are_not_what_was_asked_for_are_malformed() {
    let good = bundle("RSA", &modulus(2048), "");
    assert!(key_properties(good.as_bytes(), VAULT, &name(), Some(&kek().version)).is_ok());
    for (altered, why) in [
        (good.replace("log-kek", "other"), "another key"),
        (good.replace("kv.vault", "evil.vault"), "another vault"),
        (good.replace("https://kv", "http://kv"), "another scheme"),
        (good.replace(VERSION, &VERSION.replace('7', "8")), "another version"),
        (good.replace(&format!("/{VERSION}"), ""), "no version"),
        (good.replace(r#""kty":"RSA""#, r#""kty":"RSA\u001b[31m""#), "a type that is no word"),
        (good.replace(r#""kty":"RSA""#, r#""kty":"""#), "no type"),
        (good.replace(r#""n":""#, r#""n":"*"#), "no base64"),
        (good.replace(r#""n":""#, r#""m":""#), "no modulus"),
        (good.replace("1493942451", "\"1493942451\""), "a time that is a text"),
        (good.replace("\"created\"", "\"made\""), "no time"),
        (good.replace("\"attributes\"", "\"kind\""), "no attributes"),
        (format!("{good}x"), "more after it"),
        (good[..good.len() - 1].to_owned(), "cut short"),
        ("[".repeat(60_000), "nested without end"),
        (String::new(), "nothing"),
        ("null".to_owned(), "null"),
    ] {
        let outcome = key_properties(altered.as_bytes(), VAULT, &name(), Some(&kek().version));
        assert!(matches!(outcome, Err(VaultError::Malformed(_))), "{why}: {outcome:?}");
    }
}

fn result(value: &str) -> String {
    format!(r#"{{"kid":"{VAULT}/keys/log-kek/{VERSION}","value":"{value}"}}"#)
}

#[test]
fn an_unwrapped_key_has_32_bytes_and_is_of_the_key_that_was_asked() {
    let encoded = BASE64URL_NOPAD.encode(&[7; 32]);
    let good = result(&encoded);
    assert_eq!(unwrapped_key(good.as_bytes(), &kek()).unwrap().expose(), &[7; 32]);
    let shouted =
        good.replace("kv.vault", "KV.Vault").replace("log-kek", "Log-Kek").replace(VERSION, &VERSION.to_uppercase());
    assert!(unwrapped_key(shouted.as_bytes(), &kek()).is_ok(), "names are compared without case");
    for (altered, why) in [
        (good.replace("log-kek", "other"), "another key"),
        (good.replace("kv.vault", "evil.vault"), "another vault"),
        (good.replace(VERSION, &VERSION.replace('7', "8")), "another version"),
        (good.replace(&format!("/{VERSION}"), ""), "no version"),
        (result(&BASE64URL_NOPAD.encode(&[7; 31])), "31 bytes"),
        (result(&BASE64URL_NOPAD.encode(&[7; 33])), "33 bytes"),
        (result(&BASE64URL_NOPAD.encode(&[7; 64])), "64 bytes"),
        (result(""), "no bytes"),
        (result(&format!("{encoded}=")), "padded"),
        (result(&encoded.replace('B', "+")), "plain base64"),
        (result(&encoded.replacen('B', "\\u0042", 1)), "escaped, which would need a copy"),
        // 43 digits carry 258 bits; the two beyond the key must be zero.
        (result(&format!("{}9", &encoded[..42])), "bits beyond the end"),
        (good.replace("\"value\"", "\"values\""), "no value"),
        (good.replace("\"kid\"", "\"kids\""), "no key identifier"),
        (good.replace('}', &format!(r#","value":"{encoded}"}}"#)), "two values"),
        ("{}".to_owned(), "empty"),
    ] {
        let outcome = unwrapped_key(altered.as_bytes(), &kek());
        assert!(matches!(outcome, Err(VaultError::Malformed(_))), "{why}: {outcome:?}");
    }
}

#[test]
fn a_wrapped_key_is_of_the_key_that_was_asked_and_bounded() {
    let good = result(&BASE64URL_NOPAD.encode(&[9; 256]));
    assert_eq!(wrapped_key(good.as_bytes(), &kek()).unwrap(), [9; 256]);
    for (altered, why) in [
        (good.replace("log-kek", "other"), "another key"),
        (good.replace(VERSION, &VERSION.replace('7', "8")), "another version"),
        (result(""), "no bytes"),
        (result("*"), "no base64"),
        (result(&BASE64URL_NOPAD.encode(&[9; 1025])), "too long"),
    ] {
        let outcome = wrapped_key(altered.as_bytes(), &kek());
        assert!(matches!(outcome, Err(VaultError::Malformed(_))), "{why}: {outcome:?}");
    }
}

#[test]
fn an_operation_carries_algorithm_and_value() {
    for value in [&[0xFB; 32][..], &[1; 256], &[]] {
        let body = operation_body(value);
        let read: serde_json::Value = serde_json::from_slice(&body).unwrap();
        let expected = serde_json::json!({"alg": "RSA-OAEP-256", "value": BASE64URL_NOPAD.encode(value)});
        assert_eq!(read, expected);
        assert_eq!(body.len(), body.capacity(), "the body never grew");
    }
}

#[test]
fn codes_of_errors_are_read_from_the_inside_out() {
    for (body, expected) in [
        (r#"{"error":{"code":"KeyNotFound","message":"gone"}}"#, Some(&["KeyNotFound"][..])),
        (
            r#"{"error":{"code":"Forbidden","message":"m","innererror":{"code":"KeyDisabled"}}}"#,
            Some(&["KeyDisabled", "Forbidden"]),
        ),
        (
            r#"{"error":{"code":"Forbidden","innerError":{"code":"A","innererror":{"code":"B","innererror":null}}}}"#,
            Some(&["B", "A", "Forbidden"]),
        ),
        (r#"{"error":{"code":"Forbidden","innererror":{"message":"m"}}}"#, Some(&["Forbidden"])),
        (r#"{"error":{"code":"","message":"m"}}"#, None),
        (r#"{"error":{"message":"m"}}"#, None),
        (r#"{"error":"Forbidden"}"#, None),
        (r#"{"code":"Forbidden"}"#, None),
        (r#"{"error":{"code":403}}"#, None),
        ("<html><title>403 Forbidden</title></html>", None),
        ("", None),
    ] {
        let found = error_codes(body.as_bytes());
        assert_eq!(
            found.as_ref().map(|codes| codes.iter().map(|code| &**code).collect()),
            expected.map(<[_]>::to_vec),
            "{body}"
        );
    }
    let deep =
        format!(r#"{{"error":{{"code":"X","innererror":{}1{}}}}}"#, r#"{"innererror":"#.repeat(5000), "}".repeat(5000));
    assert_eq!(error_codes(deep.as_bytes()), None, "nested without end");
}
