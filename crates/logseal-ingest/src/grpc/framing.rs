//! gRPC message framing on a request body: a flag, a length, exactly one message.
//!
//! ```text
//! | compressed 1 | length 4, big-endian | message ... | end of stream
//! ```
//!
//! The length is handed out before the message is read, so that the caller can refuse it or find memory for it first.
//! A body that comes in one DATA frame is not copied.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Buf, Bytes, BytesMut};
use http_body::Body as _;
use tonic::body::Body;

use crate::door::Refusal;

const HEAD_BYTES: usize = 5;

/// The 5 bytes before a message.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Head {
    pub(super) compressed: bool,
    /// Bytes that the client announces, not checked yet.
    pub(super) length: u32,
}

/// A request body, read as one message.
#[derive(Debug)]
pub(super) struct MessageReader {
    body: Body,
    /// What was received and not handed out yet.
    received: Bytes,
}

impl MessageReader {
    pub(super) fn new(body: Body) -> Self {
        Self { body, received: Bytes::new() }
    }

    /// Reads the head of the message. At most one DATA frame is taken beyond it.
    pub(super) async fn head(&mut self) -> Result<Head, Refusal> {
        while self.received.len() < HEAD_BYTES {
            let Some(data) = self.data().await? else {
                return Err(Refusal::Undecodable("the request body holds no complete gRPC message".into()));
            };
            self.received = join(std::mem::take(&mut self.received), data);
        }
        let flag = self.received.get_u8();
        let length = self.received.get_u32();
        match flag {
            0 | 1 => Ok(Head { compressed: flag == 1, length }),
            _ => Err(Refusal::Undecodable("the gRPC message's compressed flag is neither 0 nor 1".into())),
        }
    }

    /// Reads the message of `length` bytes and makes sure that it is the only one; `arrived` says how much of it is there meanwhile.
    pub(super) async fn message(mut self, length: usize, arrived: &AtomicU64) -> Result<Bytes, Refusal> {
        let message = if self.received.len() >= length {
            self.received.split_to(length)
        } else {
            let mut message = BytesMut::with_capacity(length);
            message.extend_from_slice(&self.received);
            self.received = Bytes::new();
            while message.len() < length {
                let Some(mut data) = self.data().await? else {
                    return Err(Refusal::Undecodable("the request body ends within its gRPC message".into()));
                };
                message.extend_from_slice(&data.split_to(data.len().min(length - message.len())));
                arrived.store(message.len() as u64, Ordering::Relaxed);
                self.received = data;
            }
            message.freeze()
        };
        while self.received.is_empty() {
            match self.data().await? {
                Some(data) => self.received = data,
                None => return Ok(message),
            }
        }
        Err(Refusal::Undecodable("the request body holds more than one gRPC message".into()))
    }

    /// The next DATA frame, or `None` at the end of the stream.
    async fn data(&mut self) -> Result<Option<Bytes>, Refusal> {
        while !self.body.is_end_stream() {
            match poll_fn(|cx| Pin::new(&mut self.body).poll_frame(cx)).await {
                // Trailers of a request mean nothing in gRPC.
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
                Some(Err(_)) => return Err(Refusal::Disconnected),
                None => break,
            }
        }
        Ok(None)
    }
}

fn join(first: Bytes, second: Bytes) -> Bytes {
    if first.is_empty() {
        return second;
    }
    // Only for a head in pieces: `first` is shorter than it, `second` one DATA frame.
    let mut both = BytesMut::with_capacity(first.len() + second.len());
    both.extend_from_slice(&first);
    both.extend_from_slice(&second);
    both.freeze()
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures::stream;
    use http_body::Frame;
    use http_body_util::StreamBody;

    use super::*;

    async fn read(frames: &[&[u8]]) -> Result<(Head, Bytes), Refusal> {
        let frames: Vec<_> =
            frames.iter().map(|data| Ok::<_, Infallible>(Frame::data(Bytes::copy_from_slice(data)))).collect();
        let mut reader = MessageReader::new(Body::new(StreamBody::new(stream::iter(frames))));
        let head = reader.head().await?;
        Ok((head, reader.message(head.length as usize, &AtomicU64::new(0)).await?))
    }

    #[tokio::test]
    async fn one_message_is_read_however_it_is_cut() {
        let whole = b"\x00\x00\x00\x00\x04abcd";
        for first in 0..=whole.len() {
            for second in first..=whole.len() {
                let frames = [&whole[..first], &whole[first..second], &whole[second..]];
                let (head, message) = read(&frames).await.expect("valid");
                assert_eq!((head, &message[..]), (Head { compressed: false, length: 4 }, &b"abcd"[..]), "{frames:?}");
            }
        }
        let (head, message) = read(&[b"\x01\0\0\0\0"]).await.expect("valid");
        assert_eq!((head, message.len()), (Head { compressed: true, length: 0 }, 0));
    }

    #[tokio::test]
    async fn anything_but_one_whole_message_is_undecodable() {
        let cases: [&[&[u8]]; 8] = [
            &[],
            &[b""],
            &[b"\0\0\0\0"],
            &[b"\0\0\0\0\x02a"],
            &[b"\0\0\0\0\x02abc"],
            &[b"\0\0\0\0\x02ab", b"\0\0\0\0\0"],
            &[b"\0\0\0\0\0\0\0\0\0\0"],
            &[b"\x02\0\0\0\0"],
        ];
        for frames in cases {
            assert!(matches!(read(frames).await, Err(Refusal::Undecodable(_))), "{frames:?}");
        }
    }
}
