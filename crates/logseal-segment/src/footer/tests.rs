//! What a segment says about itself: readable with its key, by nobody else, and only about itself.

use bytes::Bytes;
use logseal_crypto::{OsRandom, aad};

use super::*;
use crate::encode::tests::{CANARY, Sealed, aek, chunk, footer, identity, prefix, sealed};
use crate::{SegmentSettings, encode};

fn written() -> (Sealed, Dek, SegmentFooter) {
    let chunks = [chunk(0, 50, "a"), chunk(50, 60, "b")];
    let (segment, dek) = sealed(&chunks, 1 << 24);
    (segment, dek, footer(&chunks))
}

#[test]
fn a_footer_comes_back_with_the_key() {
    let (segment, dek, expected) = written();
    assert_eq!(read(&segment.file, &dek, &segment.wrapped, &prefix()).unwrap(), expected);
}

#[test]
fn a_footer_does_not_open_with_another_key_prefix_or_wrapped_key() {
    let (segment, dek, _) = written();
    let (other, other_wrapped) = aek().new_dek(identity().segment, OsRandom).unwrap();
    let elsewhere = aad::segment_file(identity().workspace, identity().table, SegmentId::from_bytes([99; 16]));
    for (what, refused) in [
        ("key", read(&segment.file, &other, &segment.wrapped, &prefix())),
        ("prefix", read(&segment.file, &dek, &segment.wrapped, &elsewhere)),
        ("wrapped key", read(&segment.file, &dek, &other_wrapped, &prefix())),
    ] {
        assert!(matches!(refused, Err(SegmentError::Open(_))), "{what}: {refused:?}");
    }
}

#[test]
fn files_that_are_no_segments_or_were_altered_are_errors_and_never_panics() {
    let (segment, dek, expected) = written();
    let read = |file: Vec<u8>| read(&Bytes::from(file), &dek, &segment.wrapped, &prefix());
    for length in [0, 4, 11, 12, segment.file.len() - 1] {
        assert!(read(segment.file[..length].to_vec()).is_err(), "cut at {length}");
    }
    let at = segment.file.len() - 8;
    for length in [0, 1, 27, 28, 1 << 31, u32::MAX] {
        let mut forged = segment.file.to_vec();
        forged[at..at + 4].copy_from_slice(&length.to_le_bytes());
        assert!(read(forged).is_err(), "a footer of {length} bytes");
    }
    let footer_bytes = u32::from_le_bytes(segment.file[at..at + 4].try_into().unwrap()) as usize;
    let mut refused = 0;
    for index in at - footer_bytes..segment.file.len() {
        let mut altered = segment.file.to_vec();
        altered[index] ^= 0x11;
        match read(altered) {
            // The stored prefix is not believed, so that a flipped bit in it changes nothing.
            Ok(footer) => assert_eq!(footer, expected, "byte {index}"),
            Err(_) => refused += 1,
        }
    }
    assert!(refused > footer_bytes - 200, "{refused} of {footer_bytes}");
}

#[test]
fn a_footer_of_another_segment_is_not_written() {
    let chunks = [chunk(0, 5, "a")];
    let right = footer(&chunks);
    let id = [77; 16];
    let wrong = [
        SegmentFooter { cluster: ClusterId::from_bytes(id), ..right.clone() },
        SegmentFooter { workspace: WorkspaceId::from_bytes(id), ..right.clone() },
        SegmentFooter { table: TableId::from_bytes(id), ..right.clone() },
        SegmentFooter { segment: SegmentId::from_bytes(id), ..right.clone() },
        SegmentFooter { aek: AekId::from_bytes(id), ..right.clone() },
        SegmentFooter { aek_generation: 2, ..right.clone() },
        SegmentFooter { rows: 6, ..right.clone() },
    ];
    for footer in wrong {
        let refused = encode::seal(&identity(), &aek(), &chunks, &footer, &SegmentSettings::default(), OsRandom);
        assert!(matches!(refused, Err(SegmentError::Footer(_))), "{footer:?}");
    }
}

#[test]
fn a_footer_keeps_its_format_and_another_one_is_refused_without_quoting_it() {
    let footer = SegmentFooter { columns: vec![], coverage: vec![], ..footer(&[]) };
    let id = |byte: &str| [byte.repeat(4), byte.repeat(2), byte.repeat(2), byte.repeat(2), byte.repeat(6)].join("-");
    let json = format!(
        "{{\"format\":1,\"cluster\":\"{}\",\"workspace\":\"{}\",\"workspace_name\":\"CANARY-7f3b9c-workspace\",\
         \"table\":\"{}\",\"table_name\":\"CANARY_7f3b9c_table\",\"aek\":\"{}\",\"aek_generation\":1,\
         \"segment\":\"{}\",\"rows\":0,\"min_time\":-9223372036854775808,\"max_time\":9223372036854775807,\
         \"created\":7,\"columns\":[],\"coverage\":[]}}",
        id("01"),
        id("02"),
        id("03"),
        id("05"),
        id("04"),
    );
    assert_eq!(footer.to_key_value().value.unwrap(), json);
    assert_eq!(SegmentFooter::parse(&json).unwrap(), footer);
    let extended = json.replace("\"created\"", "\"new\":1,\"created\"");
    assert_eq!(SegmentFooter::parse(&extended).unwrap(), footer, "a field more is passed over");
    let later = SegmentFooter::parse(&json.replace("\"format\":1", "\"format\":2")).unwrap_err();
    assert!(matches!(later, SegmentError::NewerFooter { format: 2, known: 1 }), "{later:?}");
    assert!(later.to_string().ends_with("has format 2, this version of logseal knows format 1"), "{later}");
    for wrong in [
        json.replace("\"format\":1,", ""),
        json.replace("CANARY_7f3b9c_table", "CANARY 7f3b9c"),
        json.replace("\"rows\":0", "\"rows\":\"CANARY\""),
        "CANARY".to_owned(),
    ] {
        let refused = SegmentFooter::parse(&wrong).expect_err(&wrong);
        assert!(matches!(refused, SegmentError::NotASegment(_)), "{refused:?}");
        assert!(!format!("{refused} {refused:?}").contains("CANARY"), "{refused:?}");
    }
}

#[test]
fn attribute_keys_are_not_in_debug_output() {
    let footer = SegmentFooter { workspace_name: "default".into(), ..footer(&[]) };
    assert_eq!(footer.columns.len(), 40);
    assert!(!format!("{footer:?}").contains(CANARY));
}
