//! A request's body: read into memory that the budget has, or left behind.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, header};
use http_body::Body;
use tokio::time::timeout;

use crate::admission::{BudgetPermit, over_budget};
use crate::door::Refusal;

/// How long a body is received that nobody reads any more.
const LEAVE_TIME: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(super) struct RequestBody<B> {
    body: B,
    /// Something was asked of it.
    begun: bool,
}

impl<B> RequestBody<B>
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Send,
{
    pub(super) fn new(body: B) -> Self {
        Self { body, begun: false }
    }

    /// How many bytes it will have, if it says so.
    pub(super) fn announced(&self) -> Option<u64> {
        self.body.size_hint().exact()
    }

    /// Reads all of it, at most `limit` bytes; `expected` are those that `permit` covers beforehand. Afterwards it covers what was read. `arrived` says
    /// how much is there meanwhile.
    pub(super) async fn read(
        &mut self,
        expected: usize,
        mut permit: BudgetPermit,
        limit: usize,
        arrived: &AtomicU64,
    ) -> Result<(Bytes, BudgetPermit), Refusal> {
        let mut read = Vec::with_capacity(expected);
        while let Some(data) = self.data().await? {
            let length = read.len() + data.len();
            if length > limit {
                return Err(Refusal::too_large("the request", limit));
            }
            if length > read.capacity() {
                let capacity = length.max(2 * read.capacity()).min(limit);
                move_to(&mut read, capacity, &mut permit)?;
            }
            read.extend_from_slice(&data);
            arrived.store(read.len() as u64, Ordering::Relaxed);
        }
        if read.capacity() > read.len() {
            let length = read.len();
            move_to(&mut read, length, &mut permit)?;
        }
        Ok((Bytes::from(read), permit))
    }

    /// The next piece, or `None` at the end.
    async fn data(&mut self) -> Result<Option<Bytes>, Refusal> {
        self.begun = true;
        while !self.body.is_end_stream() {
            match poll_fn(|cx| Pin::new(&mut self.body).poll_frame(cx)).await {
                // Trailers of a request mean nothing here.
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

    /// Leaves the rest of it to whoever sends it.
    ///
    /// A connection of HTTP/1.1 that is closed with unread bytes is reset, and its client may lose an answer that it did not read yet: it
    /// would send again what is too large; over HTTP/2 the same befalls a stream, of which some clients forget the answer when it is
    /// reset. So the rest is received, for a while and at most `most` bytes. A client that waits for our word (`expect: 100-continue`)
    /// has sent nothing.
    pub(super) fn leave(mut self, headers: &HeaderMap, most: usize) {
        let waits = !self.begun && headers.contains_key(header::EXPECT);
        if self.body.is_end_stream() || waits {
            return;
        }
        tokio::spawn(async move {
            let rest = async {
                let mut left = most;
                while let Ok(Some(data)) = self.data().await {
                    let Some(less) = left.checked_sub(data.len()) else { break };
                    left = less;
                }
            };
            drop(timeout(LEAVE_TIME, rest).await);
        });
    }
}

/// Moves `read` into memory of `capacity` bytes; both are there for a moment.
fn move_to(read: &mut Vec<u8>, capacity: usize, permit: &mut BudgetPermit) -> Result<(), Refusal> {
    if !permit.try_cover(read.capacity() + capacity) {
        return Err(over_budget());
    }
    let mut larger = Vec::with_capacity(capacity);
    larger.extend_from_slice(read);
    *read = larger;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::Arc;

    use futures::stream;
    use http_body::Frame;
    use http_body_util::StreamBody;

    use super::*;
    use crate::Budget;

    /// Reads `pieces` with a budget of `total` bytes of which `expected` were taken before.
    async fn read(
        pieces: &[&'static [u8]],
        expected: usize,
        limit: usize,
        total: usize,
    ) -> (Result<Vec<u8>, Refusal>, Arc<Budget>) {
        let frames: Vec<_> =
            pieces.iter().map(|data| Ok::<_, Infallible>(Frame::data(Bytes::from_static(data)))).collect();
        let budget = Budget::new(total);
        let permit = budget.try_take(expected).expect("there is as much");
        let mut body = RequestBody::new(StreamBody::new(stream::iter(frames)));
        let read = body.read(expected, permit, limit, &AtomicU64::new(0)).await.map(|(read, permit)| {
            assert!(permit.bytes() >= read.len());
            read.to_vec()
        });
        (read, budget)
    }

    #[tokio::test]
    async fn a_body_is_read_however_it_comes() {
        let cases: [(&[&'static [u8]], usize); 7] = [
            (&[], 0),
            (&[], 10),
            (&[b""], 0),
            (&[b"abcdef"], 6),
            (&[b"abc", b"", b"def"], 6),
            (&[b"a", b"b", b"c", b"d", b"e", b"f"], 1),
            (&[b"abcdef"], 100),
        ];
        for (pieces, expected) in cases {
            let (read, budget) = read(pieces, expected, 1_000, 1_000).await;
            assert_eq!(read, Ok(pieces.concat()), "{pieces:?} {expected}");
            assert_eq!(budget.free(), 1_000);
        }
    }

    /// Scenario: more than the limit, and more than the budget. Guarantee: both are refused, each in its way, and nothing stays taken.
    #[tokio::test]
    async fn what_grows_is_bounded_by_limit_and_budget() {
        const PIECE: &[u8] = &[b'x'; 10];
        assert_eq!(read(&[PIECE; 10], 10, 100, 1_000).await.0, Ok(vec![b'x'; 100]));
        assert_eq!(read(&[PIECE; 11], 10, 100, 1_000).await.0, Err(Refusal::too_large("the request", 100)));
        let (refused, budget) = read(&[PIECE; 10], 10, 100, 99).await;
        assert_eq!((refused, budget.free()), (Err(over_budget()), 99));
    }
}
