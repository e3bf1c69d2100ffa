//! Which server a command talks to, and by which token: of a data directory, or elsewhere.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use http::Uri;
use logseal_tls::Connector;
use zeroize::Zeroizing;

use crate::cli::ServerOptions;
use crate::credentials::{Credentials, MANAGEMENT_TOKEN};
use crate::error::{Chain, CommandError};

/// Where resources are unless somebody says otherwise; neither need exist.
const SUBSCRIPTION: &str = "00000000-0000-0000-0000-000000000000";
const RESOURCE_GROUP: &str = "default";

/// The longest token that is read from a file.
const TOKEN_BYTES: u64 = 16 * 1024;

/// A server to talk to.
#[derive(Debug)]
pub(crate) struct Target {
    /// `scheme://authority`.
    pub(super) endpoint: String,
    /// Whom it is believed to be.
    pub(super) connector: Connector,
    pub(super) token: Token,
    pub(crate) place: Place,
    /// What to look at when it does not answer.
    pub(super) advice: String,
    /// The default workspace of the data directory.
    pub(crate) workspace: Option<KnownWorkspace>,
}

/// The management token. Nothing shows it.
pub(super) struct Token(pub(super) Zeroizing<String>);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token")
    }
}

/// Where resources are.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Place {
    pub(crate) subscription: String,
    pub(crate) resource_group: String,
}

/// A workspace whose id needs no request.
#[derive(Debug)]
pub(crate) struct KnownWorkspace {
    pub(crate) name: String,
    pub(crate) id: String,
}

impl Target {
    /// What `options` name, else the server of `data_dir`.
    pub(crate) fn of(data_dir: &Path, options: &ServerOptions) -> Result<Self, CommandError> {
        match given(options.endpoint.as_ref()) {
            Some(endpoint) => Self::elsewhere(endpoint, options),
            None if given(options.token_file.as_ref()).is_some() => Err(CommandError::Usage(
                "--token-file is for a server elsewhere: give its --endpoint URL too".to_owned(),
            )),
            None => Self::of_data_dir(data_dir, &Credentials::read(data_dir)?, options),
        }
    }

    /// The server of `data_dir`, whose credentials are known.
    pub(crate) fn of_data_dir(
        data_dir: &Path,
        credentials: &Credentials,
        options: &ServerOptions,
    ) -> Result<Self, CommandError> {
        let own = Place {
            subscription: credentials.subscription_id.clone(),
            resource_group: credentials.resource_group.clone(),
        };
        let place = own.clone().or(options);
        let (name, id) = (credentials.workspace.clone(), credentials.workspace_id.clone());
        let endpoint = checked(&credentials.endpoints.management)?;
        Ok(Self {
            connector: credentials.connector(&endpoint, options.ca_file.as_ref())?,
            endpoint,
            token: Token(credentials.management_token.clone()),
            workspace: (own == place).then_some(KnownWorkspace { name, id }),
            place,
            advice: format!("is `logseal serve --data-dir {}` running?", data_dir.display()),
        })
    }

    fn elsewhere(endpoint: &str, options: &ServerOptions) -> Result<Self, CommandError> {
        let endpoint = checked(endpoint)?;
        let from_variable = std::env::var(MANAGEMENT_TOKEN).ok().filter(|token| !token.is_empty()).map(Zeroizing::new);
        let token = match (given(options.token_file.as_ref()), from_variable) {
            (Some(file), _) => token_in(file)?,
            (None, Some(token)) => token,
            (None, None) => {
                return Err(CommandError::Usage(format!(
                    "--endpoint needs the management token: put it into a file and give --token-file FILE, or set {MANAGEMENT_TOKEN}"
                )));
            }
        };
        let place = Place { subscription: SUBSCRIPTION.to_owned(), resource_group: RESOURCE_GROUP.to_owned() };
        Ok(Self {
            connector: connector(&endpoint, None, options.ca_file.as_ref())?,
            endpoint,
            token: Token(token),
            place: place.or(options),
            advice: "is `logseal serve` running there, is --endpoint its management URL, and if it is an https:// one, has --ca-file the authority of its certificate?"
                .to_owned(),
            workspace: None,
        })
    }
}

impl Place {
    /// What `options` say, else this.
    fn or(self, options: &ServerOptions) -> Self {
        Self {
            subscription: options.subscription.clone().unwrap_or(self.subscription),
            resource_group: options.resource_group.clone().unwrap_or(self.resource_group),
        }
    }
}

/// An empty variable is one that is not set.
fn given<T: AsRef<OsStr>>(option: Option<&T>) -> Option<&T> {
    option.filter(|value| !(*value).as_ref().is_empty())
}

impl Credentials {
    /// What opens connections to `endpoint`, which is one of these: by the server's own certificate as far as that is known.
    pub(crate) fn connector(&self, endpoint: &str, ca_file: Option<&PathBuf>) -> Result<Connector, CommandError> {
        // The variable may be there for another server.
        let ca_file = ca_file.filter(|_| is_tls(endpoint));
        connector(endpoint, Some(&self.tls_certificate_file), ca_file)
    }
}

/// What opens connections to `endpoint`: the server whose certificate is in `pinned`, else one with a certificate of `ca_file`'s authorities,
/// else of those that this machine trusts.
pub(crate) fn connector(
    endpoint: &str,
    pinned: Option<&PathBuf>,
    ca_file: Option<&PathBuf>,
) -> Result<Connector, CommandError> {
    let made = match (is_tls(endpoint), given(pinned), given(ca_file)) {
        (true, Some(certificate), _) => Connector::pinned(certificate),
        (true, None, Some(file)) => Connector::trusting(file),
        (true, None, None) => Connector::system(),
        (false, None, Some(_)) => {
            return Err(CommandError::Usage(format!("--ca-file is for https:// endpoints, and `{endpoint}` is none")));
        }
        (false, ..) => Connector::plain(),
    };
    made.map_err(|error| CommandError::Refused(Chain(&error).to_string()))
}

fn is_tls(endpoint: &str) -> bool {
    endpoint.get(..8).is_some_and(|scheme| scheme.eq_ignore_ascii_case("https://"))
}

/// `scheme://authority` of a URL to which the token may go.
fn checked(url: &str) -> Result<String, CommandError> {
    let refused =
        |why: &str| Err(CommandError::Usage(format!("the management endpoint `{url}` cannot be used: {why}")));
    let tunnel = "forward its port over SSH (`ssh -N -L 8430:127.0.0.1:8430 HOST`) and give http://127.0.0.1:8430";
    let Ok(uri) = url.parse::<Uri>() else { return refused("it is no URL such as http://127.0.0.1:8430") };
    let Some(authority) = uri.authority().filter(|authority| !authority.host().is_empty()) else {
        return refused("it is no URL such as http://127.0.0.1:8430");
    };
    if authority.as_str().contains('@') {
        return Err(CommandError::Usage(
            "the management endpoint cannot be used: it names a user; the token is the only credential".to_owned(),
        ));
    }
    if !matches!(uri.path(), "" | "/") || uri.query().is_some() || url.contains('#') {
        return refused("it has a path, a query or a fragment");
    }
    match uri.scheme_str() {
        Some("http") => {}
        Some("https") => return Ok(format!("https://{authority}")),
        _ => return refused("it is no URL such as http://127.0.0.1:8430"),
    }
    if !is_loopback(authority.host()) {
        return refused(&format!(
            "over plain HTTP everybody on the way could read the management token: have it served over TLS, or {tunnel}"
        ));
    }
    Ok(format!("http://{authority}"))
}

fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    // RFC 6761, section 6.3: the name is nobody else's.
    address.map_or_else(|_| host.eq_ignore_ascii_case("localhost"), |address| address.is_loopback())
}

fn token_in(file: &Path) -> Result<Zeroizing<String>, CommandError> {
    let mut text = Zeroizing::new(String::new());
    let reading = CommandError::io(format!("read the token in `{}`", file.display()));
    File::open(file).and_then(|file| file.take(TOKEN_BYTES).read_to_string(&mut text)).map_err(reading)?;
    let token = text.trim();
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        let message = format!("`{}` does not hold a token: one line of printable ASCII", file.display());
        return Err(CommandError::Usage(message));
    }
    Ok(Zeroizing::new(token.to_owned()))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn refusal(url: &str) -> String {
        match checked(url) {
            Err(error) => {
                assert!(error.is_usage());
                error.to_string()
            }
            Ok(taken) => panic!("{url} was taken as {taken}"),
        }
    }

    /// Scenario: endpoints near and far. Guarantee: without TLS the token goes to loopback addresses only, and the refusal says why and what
    /// to do.
    #[test]
    fn the_token_is_not_sent_over_a_network_in_clear() {
        for (url, expected) in [
            ("http://127.0.0.1:8430", "http://127.0.0.1:8430"),
            ("http://127.9.9.9:1/", "http://127.9.9.9:1"),
            ("http://[::1]:8430", "http://[::1]:8430"),
            ("HTTP://LocalHost:8430/", "http://LocalHost:8430"),
            ("https://logs.example:8430/", "https://logs.example:8430"),
        ] {
            assert_eq!(checked(url).unwrap(), expected);
        }
        for far in [
            "http://10.0.0.1:8430",
            "http://logs.example",
            "http://localhost.example:1",
            "http://[::2]",
            "http://127.0.0.1.example",
        ] {
            let message = refusal(far);
            assert!(message.contains("plain HTTP") && message.contains("ssh -N -L"), "{message}");
        }
        assert!(!refusal("http://me:hush@127.0.0.1").contains("hush"));
        for bad in
            ["", "127.0.0.1:8430", "ftp://127.0.0.1", "http://", "http://127.0.0.1/x", "http://127.0.0.1?x", "nonsense"]
        {
            assert!(refusal(bad).contains("endpoint"), "{bad}");
        }
        let ca = PathBuf::from("/nonexistent/ca.pem");
        assert!(connector("http://127.0.0.1", None, Some(&ca)).unwrap_err().to_string().contains("--ca-file"));
        for (pinned, file) in [(Some(&ca), None), (None, Some(&ca))] {
            let error = connector("HTTPS://127.0.0.1", pinned, file).unwrap_err();
            assert!(error.to_string().contains("/nonexistent/ca.pem"), "never without: {error}");
        }
    }

    #[test]
    fn a_server_elsewhere_needs_its_token_and_has_default_places() {
        let options = |endpoint: Option<&str>, token_file: Option<&Path>| ServerOptions {
            endpoint: endpoint.map(str::to_owned),
            token_file: token_file.map(Path::to_owned),
            ..ServerOptions::default()
        };
        let nowhere = Path::new("/nonexistent");
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"  s3cret-t0ken\n").unwrap();
        let target = Target::of(nowhere, &options(Some("http://127.0.0.1:1"), Some(file.path()))).unwrap();
        assert_eq!(target.token.0.as_str(), "s3cret-t0ken");
        assert_eq!(
            (target.place.subscription.as_str(), target.place.resource_group.as_str()),
            (SUBSCRIPTION, "default")
        );
        assert!(!format!("{target:?}").contains("s3cret"));
        let error = Target::of(nowhere, &options(Some("http://127.0.0.1:1"), Some(nowhere))).unwrap_err();
        assert!(error.to_string().contains("/nonexistent") && !error.is_usage());
        assert!(Target::of(nowhere, &options(None, Some(file.path()))).unwrap_err().is_usage());
        assert!(matches!(Target::of(nowhere, &options(None, None)), Err(CommandError::NoCredentials { .. })));
        let empty = options(Some(""), Some(Path::new("")));
        assert!(matches!(Target::of(nowhere, &empty), Err(CommandError::NoCredentials { .. })));
        for bad in [&b""[..], b"two words", b"\xff"] {
            let mut file = tempfile::NamedTempFile::new().unwrap();
            file.write_all(bad).unwrap();
            assert!(token_in(file.path()).is_err(), "{bad:?}");
        }
    }
}
