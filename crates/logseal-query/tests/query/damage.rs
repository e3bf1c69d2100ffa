//! A segment that cannot be read whole fails the query by name, and shows nothing of itself.

use logseal_query::{PortError, PortErrorKind, QueryError, QueryErrorKind, SegmentFault, SegmentRef};
use object_store::ObjectStoreExt;

use crate::fixture::{Fixture, Record, Value, batch, encrypt, plaintext, record};

fn records() -> Vec<Record> {
    (0..300).map(|i| record(i, 9, &format!("body number {i}"), &[("k", Value::Int(i))])).collect()
}

async fn stored(fixture: &Fixture, segment: &SegmentRef) -> Vec<u8> {
    fixture.store.get(&segment.path).await.expect("stored").bytes().await.expect("memory").to_vec()
}

async fn replace(fixture: &Fixture, segment: &SegmentRef, bytes: Vec<u8>) {
    fixture.store.put(&segment.path, bytes.into()).await.expect("memory");
}

const ALL: &str = "SELECT * FROM logs";

/// Needs the page index: 100 of the 300 rows of the big segment, and the one of the good segment.
const PART: &str = "SELECT body FROM logs WHERE time < '2024-01-01T00:01:40Z'";

async fn assert_damaged(fixture: &Fixture, segment: &SegmentRef, expected: &SegmentFault, what: &str) {
    let error = fixture.error(ALL).await;
    let QueryError::Segment { segment: id, path, fault } = &error else { panic!("{what}: {error:?}") };
    assert_eq!((id, path, fault), (&segment.id, &segment.path, expected), "{what}");
    assert_eq!(error.kind(), QueryErrorKind::Damaged);
    let text = error.to_string();
    assert!(text.contains(&segment.id.to_string()) && !text.contains("body number"), "{text}");
}

#[tokio::test]
async fn every_flipped_bit_is_noticed() {
    let mut fixture = Fixture::new();
    fixture.segment(&[record(0, 9, "good", &[])]).await;
    let segment = fixture.segment(&records()).await;
    let good = stored(&fixture, &segment).await;
    let step = good.len() / 150;
    // The first four bytes are the magic, which readers find at the end. Page index and length fields are in the sample.
    let places = (4..good.len()).step_by(step).chain(good.len() - 40..good.len());
    let mut unnoticed = Vec::new();
    for place in places {
        let mut bad = good.clone();
        bad[place] ^= 0x40;
        replace(&fixture, &segment, bad).await;
        let mut noticed = false;
        for sql in [ALL, PART] {
            match fixture.run(sql).await {
                // What a query does not need is not read: here the page index, there most columns.
                Ok(result) => assert_eq!(result.rows, if sql == ALL { 301 } else { 101 }, "byte {place}: {sql}"),
                Err(error) => {
                    let expected = QueryError::Segment {
                        segment: segment.id,
                        path: segment.path.clone(),
                        fault: SegmentFault::Damaged,
                    };
                    assert_eq!(error, expected, "byte {place} of {}: {sql}", good.len());
                    noticed = true;
                }
            }
        }
        if !noticed {
            unnoticed.push(place);
        }
    }
    assert!(unnoticed.len() < 10, "{unnoticed:?}");
    replace(&fixture, &segment, good).await;
    assert_eq!(fixture.run(ALL).await.expect("whole again").rows, 301);
}

#[tokio::test]
async fn absurd_lengths_are_refused() {
    let mut fixture = Fixture::new();
    let segment = fixture.segment(&records()).await;
    let good = stored(&fixture, &segment).await;
    let end = good.len();
    for length in
        [0_u32, 1, 11, 12, u32::try_from(end - 8).expect("small"), u32::try_from(end).expect("small"), u32::MAX]
    {
        let mut bad = good.clone();
        bad[end - 8..end - 4].copy_from_slice(&length.to_le_bytes());
        replace(&fixture, &segment, bad).await;
        assert_damaged(&fixture, &segment, &SegmentFault::Damaged, &format!("footer length {length}")).await;
    }
    // The length in front of the first page's header.
    for length in [0_u32, 1, 27, u32::MAX] {
        let mut bad = good.clone();
        bad[4..8].copy_from_slice(&length.to_le_bytes());
        replace(&fixture, &segment, bad).await;
        assert_damaged(&fixture, &segment, &SegmentFault::Damaged, &format!("page header length {length}")).await;
    }
}

#[tokio::test]
async fn wrong_objects_are_refused() {
    let mut fixture = Fixture::new();
    let first = fixture.segment(&records()).await;
    let second = fixture.segment(&records()).await;
    let good = stored(&fixture, &first).await;
    let other = stored(&fixture, &second).await;

    let truncated = good[..good.len() - 1].to_vec();
    let size = |found: usize| SegmentFault::Size { expected: good.len() as u64, found: found as u64 };
    replace(&fixture, &first, truncated.clone()).await;
    assert_damaged(&fixture, &first, &size(truncated.len()), "truncated").await;
    replace(&fixture, &first, [good.clone(), vec![0]].concat()).await;
    assert_damaged(&fixture, &first, &size(good.len() + 1), "longer").await;
    replace(&fixture, &first, vec![b'x'; 3]).await;
    assert_damaged(&fixture, &first, &size(3), "tiny").await;
    replace(&fixture, &first, Vec::new()).await;
    assert_damaged(&fixture, &first, &size(0), "empty").await;

    assert_eq!(good.len(), other.len(), "the same records");
    replace(&fixture, &first, other).await;
    assert_damaged(&fixture, &first, &SegmentFault::Damaged, "another segment").await;

    // The same key, but another name.
    let columns = fixture.catalog.snapshot.lock().expect("no panic").tables[0].columns.clone();
    let rows = batch(&records(), &columns);
    let foreign = encrypt(&rows, second.id, [1; 32], 300);
    assert_eq!(foreign.len(), good.len());
    replace(&fixture, &first, foreign).await;
    assert_damaged(&fixture, &first, &SegmentFault::Damaged, "another AAD prefix").await;

    // A plaintext file of the catalog's size: no key is needed to make one.
    let plain = plaintext(&rows);
    fixture.catalog.snapshot.lock().expect("no panic").tables[0].segments[0].bytes = plain.len() as u64;
    replace(&fixture, &first, plain).await;
    assert_damaged(&fixture, &first, &SegmentFault::Damaged, "plaintext").await;
    fixture.catalog.snapshot.lock().expect("no panic").tables[0].segments[0].bytes = good.len() as u64;

    // Fewer rows than the catalog counted.
    let short = encrypt(&rows.slice(0, 299), first.id, [1; 32], 300);
    fixture.catalog.snapshot.lock().expect("no panic").tables[0].segments[0].bytes = short.len() as u64;
    replace(&fixture, &first, short).await;
    assert_damaged(&fixture, &first, &SegmentFault::Damaged, "a row less").await;

    fixture.store.delete(&first.path).await.expect("memory");
    assert_damaged(&fixture, &first, &SegmentFault::Missing, "missing").await;
}

#[tokio::test]
async fn key_failures_keep_their_kind() {
    let mut fixture = Fixture::new();
    fixture.segment(&records()).await;
    for (kind, expected) in [
        (PortErrorKind::Denied, QueryErrorKind::Denied),
        (PortErrorKind::Unavailable, QueryErrorKind::Unavailable),
        (PortErrorKind::Corrupt, QueryErrorKind::Damaged),
        (PortErrorKind::NotFound, QueryErrorKind::Damaged),
    ] {
        *fixture.opener.failure.lock().expect("no panic") = Some(PortError::new(kind, "cluster `c` is revoked"));
        for sql in [
            ALL,
            "SELECT count(body) FROM logs GROUP BY severity_number",
            "SELECT a.body FROM logs a JOIN logs b USING (body)",
            "SELECT body FROM logs ORDER BY time LIMIT 1",
        ] {
            let error = fixture.error(sql).await;
            assert_eq!(error.kind(), expected, "{sql}: {error:?}");
            assert!(error.to_string().contains("cluster `c` is revoked"), "{error}");
        }
    }
}
