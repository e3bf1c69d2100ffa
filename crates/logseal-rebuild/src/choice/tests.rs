//! Each frame in one segment, and none left out that could be in.

use super::*;

const TABLE: TableId = TableId::from_bytes([1; 16]);
const AEK: AekId = AekId::from_bytes([2; 16]);

fn frames(file: u8, first: u64, last: u64) -> Frames {
    Frames { table: TABLE, aek: AEK, file: WalFileId::from_bytes([file; 16]), first, last }
}

fn settled(ranges: &[(u8, u64, u64)]) -> Settled {
    let row = |(file, first, last): &(u8, u64, u64)| {
        let Frames { table, aek, file, first, last } = frames(*file, *first, *last);
        CoverageRow { file, table, aek, first, last, segment: None }
    };
    Settled::new(&ranges.iter().map(row).collect::<Vec<_>>())
}

/// `T` for taken, `o` for an orphan, `p` for a partial one, in the order of `claims`.
fn chosen(already: &[(u8, u64, u64)], claims: &[&[(u8, u64, u64)]]) -> String {
    let claim =
        |claim: &&[(u8, u64, u64)]| claim.iter().map(|(file, first, last)| frames(*file, *first, *last)).collect();
    let claims: Vec<Vec<Frames>> = claims.iter().map(claim).collect();
    let letter = |verdict| match verdict {
        Verdict::Take => 'T',
        Verdict::Orphan => 'o',
        Verdict::Partial(_) => 'p',
    };
    choose(&settled(already), &claims).into_iter().map(letter).collect()
}

#[test]
fn segments_that_overlap_nowhere_are_all_taken() {
    assert_eq!(chosen(&[], &[&[(1, 3, 10)], &[(1, 11, 20), (2, 3, 4)], &[(2, 5, 5)], &[(3, 3, 10)]]), "TTTT");
    assert_eq!(chosen(&[(1, 11, 20)], &[&[(1, 3, 10)], &[(1, 21, 30)]]), "TT");
}

#[test]
fn what_the_catalog_has_decides_before_anything_else() {
    assert_eq!(
        chosen(&[(1, 1, 10), (1, 11, 20)], &[&[(1, 5, 15)], &[(1, 1, 20)], &[(1, 20, 21)], &[(1, 21, 22)]]),
        "oooT"
    );
    assert_eq!(chosen(&[(1, 1, 10)], &[&[(1, 5, 15), (2, 1, 9)]]), "p");
    assert_eq!(chosen(&[(1, 1, 10), (2, 1, 9)], &[&[(1, 5, 10), (2, 1, 9)]]), "o");
}

/// Scenario: a segment was put, the server was killed before the commit, and the replay cut other batches. Guarantee: no frame is
/// left out, whatever the sizes.
#[test]
fn an_orphan_of_a_crash_shuts_nothing_out() {
    for after in [&[(3, 20)][..], &[(3, 7), (8, 20)], &[(3, 4), (5, 9), (10, 20)], &[(3, 12)]] {
        let ranges: Vec<Vec<(u8, u64, u64)>> = after.iter().map(|(first, last)| vec![(1, *first, *last)]).collect();
        let mut claims: Vec<&[(u8, u64, u64)]> = vec![&[(1, 3, 12)]];
        claims.extend(ranges.iter().map(Vec::as_slice));
        assert_eq!(chosen(&[], &claims), format!("o{}", "T".repeat(after.len())), "{after:?}");
    }
}

/// Scenario: a commit was refused because its frames are in segments already; the refused one is the newest. Guarantee: as above.
#[test]
fn a_newer_orphan_shuts_nothing_out_either() {
    assert_eq!(chosen(&[], &[&[(1, 1, 10)], &[(1, 11, 30)], &[(1, 5, 15)]]), "TTo");
}

#[test]
fn a_choice_spans_files_and_minds_other_streams() {
    let claims: [&[(u8, u64, u64)]; 3] = [&[(1, 90, 99), (2, 3, 6)], &[(1, 90, 99)], &[(2, 3, 9)]];
    assert_eq!(chosen(&[], &claims), "oTT");
    let other_table = Frames { table: TableId::from_bytes([9; 16]), ..frames(1, 1, 9) };
    let claims =
        vec![vec![frames(1, 1, 9)], vec![other_table], vec![Frames { aek: AekId::from_bytes([9; 16]), ..other_table }]];
    assert_eq!(choose(&Settled::default(), &claims), [Verdict::Take; 3]);
}

#[test]
fn what_is_left_out_is_named_and_huge_ranges_do_not_overflow() {
    let claims = vec![vec![frames(1, 1, 4), frames(2, 5, 20)]];
    assert_eq!(choose(&settled(&[(1, 1, 9), (2, 5, 8)]), &claims), [Verdict::Partial(frames(2, 9, 20))]);
    assert_eq!(chosen(&[(1, 0, u64::MAX)], &[&[(1, 0, u64::MAX)], &[(1, u64::MAX, u64::MAX)]]), "oo");
    assert_eq!(chosen(&[], &[&[(1, 0, u64::MAX)], &[(1, 7, 7)]]).len(), 2);
}
