//! The two ends of an object: all that a segment's footer needs, without the pages between them.

use std::ops::Range;

use bytes::buf::Reader;
use bytes::{Buf as _, Bytes};
use logseal_segment::{SegmentError, SegmentStore, StoredObject};
use object_store::ObjectStoreExt as _;
use parquet::errors::ParquetError;
use parquet::file::reader::{ChunkReader, Length};

/// Read in the first go: the footers of most segments are smaller.
const TAIL_BYTES: u64 = 64 * 1024;

/// The longest footer that the reader of segments takes, and what stands behind it.
const MOST_TAIL_BYTES: u64 = 64 * 1024 * 1024 + 8;

/// The mark at both ends of a file.
const MARK_BYTES: u64 = 4;

/// An object's first four bytes and its footer.
#[derive(Debug)]
pub(crate) struct Ends {
    bytes: u64,
    head: Bytes,
    tail: Bytes,
}

impl Ends {
    /// Reads the ends of `object`. Whether they are those of a segment is for the reader of footers to say.
    pub(crate) async fn fetch(store: &SegmentStore, object: &StoredObject) -> Result<Self, SegmentError> {
        let bytes = object.bytes;
        let head = part(store, object, 0..bytes.min(MARK_BYTES)).await?;
        let mut tail = part(store, object, bytes.saturating_sub(TAIL_BYTES)..bytes).await?;
        let footer = tail.len().checked_sub(8).and_then(|at| tail.get(at..at + 4)).and_then(|le| le.try_into().ok());
        let needed = u64::from(footer.map_or(0, u32::from_le_bytes)) + 8;
        // A length that cannot be is refused by the reader, which sees it in the last bytes.
        if needed > tail.len() as u64 && needed <= bytes.min(MOST_TAIL_BYTES) {
            tail = part(store, object, bytes - needed..bytes).await?;
        }
        Ok(Self { bytes, head, tail })
    }
}

async fn part(store: &SegmentStore, object: &StoredObject, range: Range<u64>) -> Result<Bytes, SegmentError> {
    if range.is_empty() {
        return Ok(Bytes::new());
    }
    let path = object.path.clone();
    let content = store.objects().get_range(&path, range.clone()).await;
    let content = content.map_err(|source| SegmentError::Get { path: path.clone(), source })?;
    if content.len() as u64 == range.end - range.start {
        return Ok(content);
    }
    Err(SegmentError::Size { path, stated: object.bytes, found: range.start + content.len() as u64 })
}

impl Length for Ends {
    fn len(&self) -> u64 {
        self.bytes
    }
}

impl ChunkReader for Ends {
    type T = Reader<Bytes>;

    fn get_read(&self, start: u64) -> parquet::errors::Result<Self::T> {
        let tail_bytes = self.bytes.checked_sub(start).and_then(|bytes| usize::try_from(bytes).ok());
        Ok(self.get_bytes(start, tail_bytes.ok_or_else(outside)?)?.reader())
    }

    fn get_bytes(&self, start: u64, length: usize) -> parquet::errors::Result<Bytes> {
        let within = |held: &Bytes, first: u64| {
            let from = usize::try_from(start.checked_sub(first)?).ok()?;
            let to = from.checked_add(length)?;
            (to <= held.len()).then(|| held.slice(from..to))
        };
        let tail_start = self.bytes - self.tail.len() as u64;
        within(&self.tail, tail_start).or_else(|| within(&self.head, 0)).ok_or_else(outside)
    }
}

fn outside() -> ParquetError {
    ParquetError::EOF("only the ends of the file were read".to_owned())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use object_store::memory::InMemory;
    use object_store::path::Path;

    use super::*;

    async fn ends(content: Vec<u8>) -> Ends {
        let store = SegmentStore::durable(Arc::new(InMemory::new()));
        let (path, bytes) = (Path::from("x"), content.len() as u64);
        store.put_new(&path, content).await.unwrap();
        Ends::fetch(&store, &StoredObject { path, bytes }).await.unwrap()
    }

    /// A file whose last eight bytes state a footer of `footer` bytes.
    fn file(bytes: usize, footer: u32) -> Vec<u8> {
        let mut content: Vec<u8> = (0..bytes).map(|index| index as u8).collect();
        let at = bytes - 8;
        content[at..at + 4].copy_from_slice(&footer.to_le_bytes());
        content
    }

    /// Scenario: a footer longer than the first read, in a file that is longer still. Guarantee: the whole footer and the mark at the
    /// start are there, the middle is not, and nothing panics.
    #[tokio::test]
    async fn a_long_footer_is_read_whole_and_the_pages_are_not() {
        let content = file(300_000, 100_000);
        let ends = ends(content.clone()).await;
        assert_eq!(ends.len(), 300_000);
        assert_eq!(ends.get_bytes(0, 4).unwrap(), content[..4]);
        assert_eq!(ends.get_bytes(199_992, 100_008).unwrap(), content[199_992..]);
        assert!(ends.tail.len() < 200_000);
        for (start, length) in
            [(0, 5), (100, 4), (199_991, 4), (299_999, 2), (300_000, 1), (u64::MAX, 1), (3, usize::MAX)]
        {
            assert!(ends.get_bytes(start, length).is_err(), "{start} {length}");
        }
        assert!(ends.get_read(299_990).is_ok() && ends.get_read(300_001).is_err() && ends.get_read(4).is_err());
    }

    #[tokio::test]
    async fn short_files_and_impossible_lengths_are_held_as_they_are() {
        for content in [vec![], vec![1], vec![1; 7], file(12, u32::MAX), file(100, 92), file(100, 93)] {
            let ends = ends(content.clone()).await;
            assert_eq!(ends.len(), content.len() as u64);
            assert_eq!(ends.get_bytes(0, content.len()).unwrap(), content);
        }
    }
}
