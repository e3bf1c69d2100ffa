//! HTTP/2 as no client should speak it: frames one by one (RFC 9113), heads in HPACK's plainest form (RFC 7541), and how a connection ends.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PING: u8 = 6;
const GOAWAY: u8 = 7;
pub(super) const CONTINUATION: u8 = 9;

pub(super) const ACK: u8 = 1;
pub(super) const END_STREAM: u8 = 1;
pub(super) const END_HEADERS: u8 = 4;

/// `ENHANCE_YOUR_CALM`.
pub(super) const CALM: u32 = 11;

/// What a connection of HTTP/2 begins with.
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// Longest wait for room to write into. Longer than a server that goes on reading ever takes.
const ROOM: Duration = Duration::from_secs(2);

/// Hostile clients come from elsewhere than the others: every address of this network is this machine.
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a small frame").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A length with a prefix of seven bits.
fn length(bytes: usize) -> Vec<u8> {
    let Some(mut rest) = bytes.checked_sub(127) else { return vec![u8::try_from(bytes).expect("below 127")] };
    let mut out = vec![127];
    while rest >= 128 {
        out.push((rest % 128) as u8 | 128);
        rest /= 128;
    }
    out.push(rest as u8);
    out
}

fn text(text: &str) -> Vec<u8> {
    [length(text.len()), text.as_bytes().to_vec()].concat()
}

/// A header that leaves the table as it is.
pub(super) fn header(name: &str, value: &str) -> Vec<u8> {
    [vec![0], text(name), text(value)].concat()
}

/// A header that is put into the table, where [`NEWEST`] finds it.
pub(super) fn kept_header(name: &str, value: &str) -> Vec<u8> {
    [vec![0x40], text(name), text(value)].concat()
}

/// The header that was put into the table last: index 62, in one byte.
pub(super) const NEWEST: u8 = 0x80 | 62;

/// The head of a request to `path`.
pub(super) fn head(path: &str, content_type: &str, credential: Option<&str>) -> Vec<u8> {
    let authorization = credential.map(|credential| format!("Bearer {credential}"));
    let usual = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "localhost"),
        ("content-type", content_type),
        ("te", "trailers"),
    ];
    let all = usual.into_iter().chain(authorization.as_deref().map(|value| ("authorization", value)));
    all.flat_map(|(name, value)| header(name, value)).collect()
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Ending {
    /// With GOAWAY and this code.
    GoAway(u32),
    /// Closed or reset: what is sent on after GOAWAY may reset a connection before that was read.
    Closed,
    /// Not within the time.
    Open,
}

/// A client that does as it likes.
pub(super) struct Attacker(TcpStream);

impl Attacker {
    pub(super) async fn connect(address: SocketAddr) -> std::io::Result<Self> {
        Self::connect_from(ELSEWHERE, address).await
    }

    /// As others connect.
    pub(super) async fn connect_from_here(address: SocketAddr) -> std::io::Result<Self> {
        Self::connect_from(Ipv4Addr::LOCALHOST, address).await
    }

    async fn connect_from(from: Ipv4Addr, address: SocketAddr) -> std::io::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.bind((from, 0).into())?;
        let stream = socket.connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self(stream))
    }

    /// Whether `bytes` were taken: not when the server has ended the connection, or reads no more.
    pub(super) async fn send(&mut self, bytes: &[u8]) -> bool {
        matches!(timeout(ROOM, self.0.write_all(bytes)).await, Ok(Ok(())))
    }

    /// Everything that comes until `patience` is over, `stop` says that it is enough, or the end.
    pub(super) async fn read_until(&mut self, patience: Duration, stop: impl Fn(&[u8]) -> bool) -> (Vec<u8>, bool) {
        let (mut read, mut piece) = (Vec::new(), vec![0; 64 * 1024]);
        let ended = timeout(patience, async {
            while !stop(&read) {
                match self.0.read(&mut piece).await {
                    Ok(length) if length > 0 => read.extend_from_slice(&piece[..length]),
                    _ => return true,
                }
            }
            false
        });
        let ended = ended.await.unwrap_or(false);
        (read, ended)
    }

    pub(super) async fn ending(mut self, patience: Duration) -> Ending {
        let (read, ended) = self.read_until(patience, |read| go_away(read).is_some()).await;
        match (go_away(&read), ended) {
            (Some(code), _) => Ending::GoAway(code),
            (None, true) => Ending::Closed,
            (None, false) => Ending::Open,
        }
    }

    /// Whether the connection is there, as far as it is known here.
    pub(super) fn is_open(&self) -> bool {
        let mut piece = [0; 1024];
        loop {
            match self.0.try_read(&mut piece) {
                Ok(0) => return false,
                Ok(_) => {}
                Err(error) => return error.kind() == std::io::ErrorKind::WouldBlock,
            }
        }
    }
}

/// The frames of `bytes`, each as its kind, its stream and its payload.
pub(super) fn frames(mut bytes: &[u8]) -> Vec<(u8, u32, &[u8])> {
    let mut found = Vec::new();
    while let Some((start, rest)) = bytes.split_first_chunk::<9>() {
        let length = u32::from_be_bytes([0, start[0], start[1], start[2]]) as usize;
        let Some((payload, others)) = rest.split_at_checked(length) else { break };
        found.push((start[3], u32::from_be_bytes([start[5], start[6], start[7], start[8]]), payload));
        bytes = others;
    }
    found
}

fn go_away(bytes: &[u8]) -> Option<u32> {
    let (_, _, payload) = frames(bytes).into_iter().find(|(kind, ..)| *kind == GOAWAY)?;
    payload.get(4..8).and_then(|code| code.try_into().ok()).map(u32::from_be_bytes)
}
