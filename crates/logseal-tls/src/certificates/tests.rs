//! Files that are what they should be, that are not, and that change.

use rcgen::{CertificateParams, KeyPair, date_time_ymd};

use super::*;

const NOW: UnixNanos = UnixNanos(1_769_817_600_000_000_000);

const OFFERS: [Offer; 2] = [(&["h2"], ClientCertificates::Asked), (&["http/1.1"], ClientCertificates::Ignored)];

struct Files {
    dir: tempfile::TempDir,
    files: CertificateFiles,
}

impl Files {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let files = CertificateFiles { certificate: at("tls.crt"), key: at("tls.key"), client_ca: None };
        let made = Self { files, dir };
        made.put(&pair());
        made
    }

    fn put(&self, (certificate, key): &(String, String)) {
        fs::write(&self.files.certificate, certificate).unwrap();
        fs::write(&self.files.key, key).unwrap();
    }

    fn copy(&self) -> PathBuf {
        self.dir.path().join("copy.pem")
    }

    fn open(&self) -> Result<Certificates, TlsError> {
        Certificates::open(self.files.clone(), self.copy(), OFFERS, NOW).map(|(certificates, _)| certificates)
    }
}

fn pair() -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
    (certificate.pem().replace("\r\n", "\n"), key.serialize_pem())
}

fn refusal(error: &TlsError) -> String {
    Chain(error).to_string()
}

/// Scenario: a start with files that are missing, hold something else, or do not belong together. Guarantee: it is refused, and setting and
/// file are named; nothing of the key is.
#[test]
fn what_cannot_be_used_is_refused_by_setting_and_file() {
    let files = Files::new();
    let (good, key) = pair();
    files.put(&(good.clone(), key.clone()));
    files.open().unwrap();
    let secret: String = key.lines().nth(1).unwrap().to_owned();
    let cases = [
        (String::new(), key.clone(), "`tls.certificate`: `", "tls.crt` has no certificate"),
        (key.clone(), key.clone(), "`tls.certificate`: `", "tls.crt` has no certificate"),
        (good.clone(), good.clone(), "`tls.key`: `", "tls.key` has no unencrypted private key"),
        (
            good.clone(),
            pair().1,
            "`tls.certificate` and `tls.key`: the key does not belong to the certificate",
            "tls.key`",
        ),
    ];
    for (certificate, key, setting, file) in cases {
        files.put(&(certificate, key));
        let message = refusal(&files.open().unwrap_err());
        assert!(message.contains(setting) && message.contains(file) && !message.contains(&secret), "{message}");
    }
    files.put(&(good, key));
    for (setting, file) in [("tls.key", &files.files.key), ("tls.certificate", &files.files.certificate)] {
        fs::remove_file(file).unwrap();
        let message = refusal(&files.open().unwrap_err());
        assert!(message.contains(&format!("`{setting}`: cannot read")) && message.contains("tls."), "{message}");
    }
    let shown = format!("{:?}", Files::new().open().unwrap());
    assert!(!shown.contains("PRIVATE") && shown.contains("Acceptor(TLS)"), "{shown}");
}

#[test]
fn the_authorities_of_clients_have_to_be_some() {
    let mut files = Files::new();
    files.files.client_ca = Some(files.dir.path().join("clients.pem"));
    let message = refusal(&files.open().unwrap_err());
    assert!(message.contains("`tls.client_ca`: cannot read"), "{message}");
    fs::write(files.files.client_ca.as_ref().unwrap(), "nothing").unwrap();
    let message = refusal(&files.open().unwrap_err());
    assert!(message.contains("`tls.client_ca`: `") && message.contains("no certificate"), "{message}");
}

/// Scenario: certificate and key are replaced one after the other; then by a pair that does not belong together; then by a good one.
/// Guarantee: the half of a change is told to nobody, what stays wrong is told once, and the certificate in use is the newest good one all
/// the time.
#[test]
fn a_good_pair_is_used_at_once_and_a_bad_one_is_told_once() {
    let files = Files::new();
    let mut certificates = files.open().unwrap();
    let in_use = |expected: &str| assert_eq!(fs::read_to_string(files.copy()).unwrap(), expected);
    in_use(&fs::read_to_string(&files.files.certificate).unwrap());
    assert!(matches!(certificates.look(NOW), Look::Same));

    let first = fs::read_to_string(&files.files.certificate).unwrap();
    let (second, key) = pair();
    fs::write(&files.files.certificate, &second).unwrap();
    assert!(matches!(certificates.look(NOW), Look::Same), "half of a change");
    in_use(&first);
    fs::write(&files.files.key, &key).unwrap();
    assert!(matches!(certificates.look(NOW), Look::Replaced));
    in_use(&second);
    assert!(matches!(certificates.look(NOW), Look::Same));

    let (third, third_key) = pair();
    fs::write(&files.files.certificate, &third).unwrap();
    assert!(matches!(certificates.look(NOW), Look::Same));
    let Look::Refused(error) = certificates.look(NOW) else { panic!("it stays wrong") };
    assert!(refusal(&error).contains("does not belong"), "{error}");
    assert!(matches!(certificates.look(NOW), Look::Same), "told already");
    in_use(&second);
    fs::remove_file(&files.files.key).unwrap();
    assert!(matches!(certificates.look(NOW), Look::Same));
    assert!(matches!(certificates.look(NOW), Look::Refused(TlsError::Unreadable { setting: "tls.key", .. })));
    in_use(&second);
    fs::write(&files.files.key, &third_key).unwrap();
    assert!(matches!(certificates.look(NOW), Look::Replaced));
    in_use(&third);
}

/// Scenario: a new pair comes while the copy for commands cannot be written. Guarantee: it is told once, and used as soon as it can be,
/// though the files stay as they are.
#[test]
fn what_could_not_be_used_for_another_reason_is_tried_again() {
    let files = Files::new();
    let mut certificates = files.open().unwrap();
    fs::remove_file(files.copy()).unwrap();
    fs::create_dir_all(files.copy().join("in the way")).unwrap();
    let (second, key) = pair();
    files.put(&(second.clone(), key));
    assert!(matches!(certificates.look(NOW), Look::Same));
    assert!(matches!(certificates.look(NOW), Look::Refused(TlsError::Io { .. })));
    assert!(matches!(certificates.look(NOW), Look::Same), "told already");
    fs::remove_dir_all(files.copy()).unwrap();
    assert!(matches!(certificates.look(NOW), Look::Replaced));
    assert_eq!(fs::read_to_string(files.copy()).unwrap(), second);
}

#[test]
fn times_of_a_certificate_are_told() {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    (params.not_before, params.not_after) = (date_time_ymd(2025, 1, 1), date_time_ymd(2025, 2, 1));
    let certificate = params.self_signed(&key).unwrap();
    // NOW is in 2026.
    assert_eq!(out_of_its_time(certificate.der(), NOW), Some("has expired"));
    (params.not_before, params.not_after) = (date_time_ymd(2026, 12, 1), date_time_ymd(2027, 1, 1));
    let certificate = params.self_signed(&key).unwrap();
    assert_eq!(out_of_its_time(certificate.der(), NOW), Some("is not valid yet"));
    params.not_before = date_time_ymd(2026, 1, 1);
    let certificate_now = params.self_signed(&key).unwrap();
    assert_eq!(out_of_its_time(certificate_now.der(), NOW), None);
    // The last valid second is 2027-01-01T00:00:00Z, the one that the certificate names.
    assert_eq!(expires(certificate_now.der()), Some(1_798_761_601));
    let files = Files::new();
    files.put(&(certificate.pem(), key.serialize_pem()));
    files.open().expect("it is warned about, and used");
}
