//! A TLS server on loopback that follows a script, one step a request.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use data_encoding::BASE64;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// What the server does with a request.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// Answers, and goes on with the connection.
    Answer(u16, &'static str, Vec<u8>),
    /// Writes these bytes and closes the connection.
    Raw(Vec<u8>),
    /// Writes these bytes and then does nothing until the client leaves.
    Hang(Vec<u8>),
    /// Writes these bytes again and again until the client leaves.
    Flood(&'static str, Vec<u8>),
    /// Answers, then closes the connection without having said so.
    AnswerAndClose(u16, Vec<u8>),
}

/// A request that the server saw.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// The how manieth connection it came over.
    pub(crate) connection: usize,
    pub(crate) server_name: Option<String>,
    /// Request line and headers.
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Seen {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().skip(1).filter_map(|line| line.split_once(": "));
        lines.find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }
}

/// A certificate authority of the test's own.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) pem: String,
}

impl Authority {
    pub(crate) fn new() -> Self {
        Self::named("Authority of the tests")
    }

    pub(crate) fn named(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap();
        let base64 = BASE64.encode(certificate.der());
        let pem = format!("-----BEGIN CERTIFICATE-----\n{base64}\n-----END CERTIFICATE-----\n");
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// A server's configuration with a certificate for `name` that is good for the years from `years.0` until `years.1`.
    pub(crate) fn server(&self, name: &str, years: (i32, i32)) -> ServerConfig {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(years.0, 1, 1);
        params.not_after = rcgen::date_time_ymd(years.1, 1, 1);
        let certificate = CertificateDer::from(params.signed_by(&key, &self.issuer).unwrap());
        ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], PrivatePkcs8KeyDer::from(key.serialize_der()).into())
            .unwrap()
    }
}

#[derive(Default)]
struct State {
    script: Mutex<VecDeque<Step>>,
    seen: Mutex<Vec<Seen>>,
}

/// The running server; it ends with the test's runtime.
pub(crate) struct Stub {
    pub(crate) address: SocketAddr,
    state: Arc<State>,
}

impl Stub {
    /// Without `tls` it speaks plain HTTP.
    pub(crate) async fn start(tls: Option<ServerConfig>, script: impl IntoIterator<Item = Step>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State { script: Mutex::new(script.into_iter().collect()), seen: Mutex::default() });
        let shared = Arc::clone(&state);
        let acceptor = tls.map(|config| TlsAcceptor::from(Arc::new(config)));
        tokio::spawn(async move {
            for connection in 1.. {
                let (stream, _) = listener.accept().await.unwrap();
                let (state, acceptor) = (Arc::clone(&shared), acceptor.clone());
                tokio::spawn(async move {
                    // A client that leaves early is part of what is tested.
                    let _ = match acceptor {
                        None => serve(stream, connection, None, &state).await,
                        Some(acceptor) => match acceptor.accept(stream).await {
                            Err(_) => Ok(()),
                            Ok(stream) => {
                                let name = stream.get_ref().1.server_name().map(str::to_owned);
                                serve(stream, connection, name, &state).await
                            }
                        },
                    };
                });
            }
        });
        Self { address, state }
    }

    /// Adds a step at the end of the script.
    pub(crate) fn push(&self, step: Step) {
        self.state.script.lock().unwrap().push_back(step);
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.state.seen.lock().unwrap().clone()
    }

    /// How many steps of the script are left.
    pub(crate) fn left(&self) -> usize {
        self.state.script.lock().unwrap().len()
    }
}

async fn serve(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    connection: usize,
    server_name: Option<String>,
    state: &State,
) -> io::Result<()> {
    loop {
        let Some((head, body)) = read_request(&mut stream).await? else { return Ok(()) };
        state.seen.lock().unwrap().push(Seen { connection, server_name: server_name.clone(), head, body });
        let step = state.script.lock().unwrap().pop_front();
        match step.unwrap_or(Step::Answer(599, "", b"the script has ended".to_vec())) {
            Step::Answer(status, headers, body) => stream.write_all(&answer(status, headers, &body)).await?,
            Step::AnswerAndClose(status, body) => {
                stream.write_all(&answer(status, "", &body)).await?;
                return stream.shutdown().await;
            }
            Step::Raw(bytes) => {
                stream.write_all(&bytes).await?;
                return stream.shutdown().await;
            }
            Step::Hang(bytes) => {
                stream.write_all(&bytes).await?;
                stream.flush().await?;
                while stream.read(&mut [0; 512]).await? > 0 {}
                return Ok(());
            }
            Step::Flood(head, bytes) => {
                stream.write_all(head.as_bytes()).await?;
                loop {
                    stream.write_all(&bytes).await?;
                }
            }
        }
        stream.flush().await?;
    }
}

fn answer(status: u16, headers: &str, body: &[u8]) -> Vec<u8> {
    let mut bytes = format!("HTTP/1.1 {status} x\r\ncontent-length: {}\r\n{headers}\r\n", body.len()).into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

/// Head and body; `None` when the client has left.
async fn read_request(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<(String, String)>> {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().filter_map(|line| line.split_once(": ")).find_map(|(name, value)| {
                name.eq_ignore_ascii_case("content-length").then(|| value.parse::<usize>().unwrap())
            });
            if body.len() >= length.unwrap_or(0) {
                return Ok(Some((head.to_owned(), body.to_owned())));
            }
        }
        if stream.read_buf(&mut bytes).await? == 0 {
            return Ok(None);
        }
    }
}
