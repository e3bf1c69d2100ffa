//! What one connection may have the server do beside its requests: for how long in a row, and how many frames of HTTP/2.
//!
//! A client that sends without a pause is read without one: a thread goes on with its connection for as long as tokio's budget lasts, which is
//! milliseconds where frames are small, while others wait for the thread. And HTTP/2 has frames that call for work and carry nothing, of
//! which no library bounds the number: PING, SETTINGS, WINDOW_UPDATE, PRIORITY, and DATA of a byte. So
//!
//! 1. after a *turn* of reading others get their turn; and
//! 2. frames take of an *allowance*, which grows with time, with requests, and with bytes in both directions. Who has used it up is not read until
//!    there is some again: the client waits, and nothing is lost.
//!
//! Clients that have something to say earn more than they take. A request may come with some PINGs (clients that estimate the bandwidth send one for
//! each answer) and changes of windows; large answers with two of the latter for each frame, which is the most that libraries send; bodies in pieces
//! as small as a packet's head.

use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use metrics::{Counter, Unit, counter, describe_counter};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::yield_now;
use tokio::time::{Instant, Sleep, sleep};

/// Counts how often a connection was not read for a while, by `listener`.
const PAUSES: &str = "logseal_connections_paused_total";

/// For how long a connection is read while others wait: a thread goes from one to another in less than a hundredth of it.
const TURN: Duration = Duration::from_micros(200);

/// Frames that a connection may send at once: more than any library does, and less work than a TLS handshake.
const MOST: i64 = 4_096;

/// Microseconds in which it may send one more: 2,000 in a second, which take some thousandths of a core.
const FOR_A_FRAME: u64 = 500;

/// Frames that may come with a request, and its own.
const FOR_A_REQUEST: u64 = 8;

/// A frame of DATA with as many bytes is free; the smallest frame of a medium has as many.
const RECEIVED: u64 = 64;

/// Bytes for which the client may send one frame. Answers come in frames of 16 KiB; a change of the stream's and of the connection's window are an
/// answer to each.
const SENT: u64 = 2_048;

/// What HTTP/2 begins with (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Bytes of a frame before its payload, and the kinds that count (RFC 9113, sections 4.1 and 6).
const HEAD: usize = 9;
const DATA: u8 = 0;
const HEADERS: u8 = 1;

/// A connection of a client that may mean harm.
#[derive(Debug)]
pub struct Paced<S> {
    stream: S,
    /// When the present turn began.
    turn: Option<Instant>,
    frames: Frames,
    allowance: Allowance,
    pause: Option<Pin<Box<Sleep>>>,
    pauses: Counter,
}

impl<S> Paced<S> {
    /// `stream`, paced; `pauses` counts how often it was not read for a while.
    #[must_use]
    pub fn new(stream: S, pauses: Counter) -> Self {
        let (frames, allowance) = (Frames::default(), Allowance::new(Instant::now()));
        Self { stream, turn: None, frames, allowance, pause: None, pauses }
    }

    fn sent(&mut self, progress: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(bytes)) = progress {
            self.allowance.sent(bytes as u64);
        }
        progress
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Paced<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Some(pause) = &mut this.pause {
            ready!(pause.as_mut().poll(cx));
            this.pause = None;
        }
        let now = Instant::now();
        if this.turn.is_some_and(|began| now - began >= TURN) {
            this.turn = None;
            // What has come for others is looked for first. A wake alone would leave that to one in some dozens of turns.
            let _ = pin!(yield_now()).poll(cx);
            return Poll::Pending;
        }
        let before = buffer.filled().len();
        let progress = Pin::new(&mut this.stream).poll_read(cx, buffer);
        if progress.is_pending() {
            this.turn = None;
            return progress;
        }
        this.turn.get_or_insert(now);
        let received = buffer.filled().get(before..).unwrap_or_default();
        this.frames.each(received, |kind, length| this.allowance.received(kind, length));
        if let Some(pause) = this.allowance.pause(now) {
            this.pauses.increment(1);
            this.pause = Some(Box::pin(sleep(pause)));
        }
        progress
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Paced<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let progress = Pin::new(&mut self.stream).poll_write(cx, data);
        self.sent(progress)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let progress = Pin::new(&mut self.stream).poll_write_vectored(cx, data);
        self.sent(progress)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

/// Where in what the client sends its bytes are.
#[derive(Debug)]
enum Frames {
    /// In the preface, as far as it was one.
    Preface(usize),
    /// In a frame of HTTP/2.
    Frame {
        /// Of its head, as many bytes as `known`.
        head: [u8; HEAD],
        known: usize,
        /// Bytes of the payload of the frame before it that are still to come.
        payload: usize,
    },
    /// In something else, which is HTTP/1.1.
    Other,
}

impl Default for Frames {
    fn default() -> Self {
        Self::Preface(0)
    }
}

impl Frames {
    /// Calls `found` with kind and length of each frame whose head ends in `bytes`, which follow those of the last call.
    fn each(&mut self, mut bytes: &[u8], mut found: impl FnMut(u8, u32)) {
        while !bytes.is_empty() {
            match self {
                Self::Other => return,
                Self::Preface(matched) => {
                    let Some((first, rest)) = bytes.split_first() else { return };
                    bytes = rest;
                    *self = match (PREFACE.get(*matched) == Some(first), *matched + 1) {
                        (false, _) => Self::Other,
                        (true, matched) if matched < PREFACE.len() => Self::Preface(matched),
                        (true, _) => Self::Frame { head: [0; HEAD], known: 0, payload: 0 },
                    };
                }
                Self::Frame { payload, .. } if *payload > 0 => {
                    let skipped = bytes.len().min(*payload);
                    *payload -= skipped;
                    bytes = bytes.get(skipped..).unwrap_or_default();
                }
                Self::Frame { head, known, payload } => {
                    let missing = head.get_mut(*known..).unwrap_or_default();
                    let (taken, rest) = bytes.split_at(bytes.len().min(missing.len()));
                    for (place, byte) in missing.iter_mut().zip(taken) {
                        *place = *byte;
                    }
                    bytes = rest;
                    *known += taken.len();
                    if *known == HEAD {
                        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
                        found(head[3], length);
                        (*known, *payload) = (0, length as usize);
                    }
                }
            }
        }
    }
}

/// How many frames a client may send without a pause. Below zero it is to pause.
#[derive(Debug)]
struct Allowance {
    frames: i64,
    /// Until when time was counted in.
    since: Instant,
    /// Bytes that were sent, and not counted in.
    sent: u64,
}

impl Allowance {
    const fn new(now: Instant) -> Self {
        Self { frames: MOST, since: now, sent: 0 }
    }

    fn earn(&mut self, frames: u64) {
        self.frames = self.frames.saturating_add_unsigned(frames).min(MOST);
    }

    fn sent(&mut self, bytes: u64) {
        let sent = self.sent.saturating_add(bytes);
        self.sent = sent % SENT;
        self.earn(sent / SENT);
    }

    fn received(&mut self, kind: u8, length: u32) {
        let earned = match kind {
            DATA => u64::from(length) / RECEIVED,
            HEADERS => FOR_A_REQUEST,
            _ => 0,
        };
        self.frames = self.frames.saturating_sub(1);
        self.earn(earned);
    }

    /// For how long nothing is to be read, if so.
    fn pause(&mut self, now: Instant) -> Option<Duration> {
        // Whole frames only: who sends often is to lose no part of one each time.
        let passed = u64::try_from((now - self.since).as_micros()).unwrap_or(u64::MAX);
        let earned = passed / FOR_A_FRAME;
        self.earn(earned);
        self.since += Duration::from_micros(earned.saturating_mul(FOR_A_FRAME));
        (self.frames < 0).then(|| Duration::from_micros(self.frames.unsigned_abs().saturating_mul(FOR_A_FRAME)))
    }
}

/// What counts pauses of connections of `listener`.
pub fn pauses(listener: &'static str) -> Counter {
    counter!(PAUSES, "listener" => listener)
}

/// Tells the recorder of metrics what this module counts.
pub(crate) fn describe_metrics() {
    describe_counter!(
        PAUSES,
        Unit::Count,
        "pauses of connections whose clients sent more frames than their requests call for"
    );
}

#[cfg(test)]
mod tests;
