//! Keys that are accepted, and when they were used.

use super::*;

const WORKSPACE: WorkspaceId = WorkspaceId::from_bytes([1; 16]);
const OTHER: WorkspaceId = WorkspaceId::from_bytes([2; 16]);

const SECOND: i64 = 1_000_000_000;

fn keys(root: u8) -> AccessKeys {
    AccessKeys::new(&RootKey::new(Key256::copy_from_slice(&[root; 32]).unwrap()))
}

fn new(keys: &AccessKeys, workspace: WorkspaceId, slot: Slot) -> WorkspaceKeyRow {
    keys.generate(workspace, slot, UnixNanos(0)).row
}

fn present(keys: &AccessKeys, row: &WorkspaceKeyRow, now: i64) -> Result<WorkspaceId, NotAccepted> {
    keys.workspace_of(&keys.reveal(row).unwrap(), UnixNanos(now))
}

fn uses(keys: &AccessKeys) -> Vec<(Slot, Option<i64>)> {
    keys.metadata(WORKSPACE).iter().map(|key| (key.slot, key.last_used.map(|at| at.0))).collect()
}

#[test]
fn only_an_accepted_key_opens_its_workspace() {
    let keys = keys(1);
    let row = new(&keys, WORKSPACE, Slot::Primary);
    let secret = keys.reveal(&row).unwrap();
    assert_eq!(secret.len(), 43, "256 bits in base64url");
    assert_eq!((present(&keys, &row, 0), keys.has(WORKSPACE)), (Err(NotAccepted::Unknown), false), "not accepted yet");
    keys.accept(&row);
    assert!(keys.has(WORKSPACE));
    assert_eq!(present(&keys, &row, 0), Ok(WORKSPACE));
    for wrong in ["", "x", &secret[1..], &format!("{}x", secret.as_str()), &"y".repeat(100_000)] {
        assert_eq!(keys.workspace_of(wrong, UnixNanos(0)), Err(NotAccepted::Unknown));
    }
}

/// Scenario: of a workspace's two keys one is regenerated; then the workspace is suspended, opened, and forgotten. Guarantee: the replaced
/// key is nobody's, the other one and those of other workspaces go on; of a suspended workspace none is accepted, and when it is opened
/// those that it had; of a forgotten one nothing is known.
#[test]
fn a_workspace_has_the_keys_that_it_was_given_last() {
    let keys = keys(1);
    let [primary, secondary, next, others] =
        [(WORKSPACE, Slot::Primary), (WORKSPACE, Slot::Secondary), (WORKSPACE, Slot::Primary), (OTHER, Slot::Primary)]
            .map(|(workspace, slot)| new(&keys, workspace, slot));
    keys.replace(OTHER, std::slice::from_ref(&others));
    let accepted = |row: &WorkspaceKeyRow| present(&keys, row, 0).ok();
    keys.replace(WORKSPACE, &[primary.clone(), secondary.clone(), others.clone()]);
    assert_eq!([&primary, &secondary, &others].map(accepted), [Some(WORKSPACE), Some(WORKSPACE), Some(OTHER)]);
    keys.replace(WORKSPACE, &[next.clone(), secondary.clone()]);
    assert_eq!([&primary, &secondary, &next].map(accepted), [None, Some(WORKSPACE), Some(WORKSPACE)]);
    keys.suspend(WORKSPACE);
    assert_eq!([&secondary, &next, &others].map(accepted), [None, None, Some(OTHER)]);
    assert_eq!([WORKSPACE, OTHER].map(|workspace| keys.has(workspace)), [false, true]);
    keys.replace(WORKSPACE, &[next.clone(), secondary.clone()]);
    assert_eq!([&primary, &secondary, &next].map(accepted), [None, Some(WORKSPACE), Some(WORKSPACE)]);
    keys.forget(WORKSPACE);
    assert_eq!([&secondary, &next, &others].map(accepted), [None, None, Some(OTHER)]);
    assert_eq!((uses(&keys), keys.has(WORKSPACE)), (vec![], false));
}

/// Scenario: the catalog is lost, the key is known from elsewhere. Guarantee: shippers go on with it, and nothing short of a
/// key of ours is taken for one.
#[test]
fn a_kept_key_is_the_same_key() {
    let keys = keys(1);
    let secret = keys.reveal(&new(&keys, WORKSPACE, Slot::Primary)).unwrap();
    let kept = keys.keep(WORKSPACE, Slot::Primary, &secret, UnixNanos(1)).unwrap();
    keys.accept(&kept.row);
    assert_eq!(keys.workspace_of(&secret, UnixNanos(0)), Ok(WORKSPACE));
    for wrong in ["", "short", &secret[1..], &format!("{}AA", secret.as_str()), &"!".repeat(43)] {
        assert!(keys.keep(WORKSPACE, Slot::Primary, wrong, UnixNanos(1)).is_none());
    }
}

#[test]
fn a_stored_key_opens_only_in_its_place_and_under_its_root() {
    let new = keys(1).generate(WORKSPACE, Slot::Primary, UnixNanos(0));
    let moved = WorkspaceKeyRow { slot: "secondary".into(), ..new.row.clone() };
    assert!(keys(1).reveal(&moved).is_err());
    assert!(keys(2).reveal(&new.row).is_err());
    let secret = keys(1).reveal(&new.row).unwrap();
    let accepting = keys(1);
    accepting.accept(&new.row);
    assert!(!format!("{new:?}{accepting:?}").contains(secret.as_str()), "Debug does not show the key");
}

/// Scenario: a row of a slot or with an HMAC that no version writes. Guarantee: it is no key, and what is unknown may be one.
#[test]
fn a_row_that_cannot_be_a_key_makes_what_is_unknown_doubtful() {
    let row = new(&keys(1), WORKSPACE, Slot::Primary);
    for bad in [
        WorkspaceKeyRow { slot: "tertiary".into(), ..row.clone() },
        WorkspaceKeyRow { lookup: vec![1; 31], ..row.clone() },
    ] {
        let keys = keys(1);
        keys.accept(&bad);
        assert_eq!(present(&keys, &row, 0), Err(NotAccepted::Unknown));
        assert!(!keys.is_complete());
    }
}

/// Scenario: both keys are presented, some of the time within a second, with a clock that is put back, and after the workspace was suspended.
/// Guarantee: each key's last use is known to the second, and only what was accepted counts.
#[test]
fn the_last_use_of_each_key_is_known() {
    let keys = keys(1);
    let rows = Slot::ALL.map(|slot| new(&keys, WORKSPACE, slot));
    let stranger = new(&keys, WORKSPACE, Slot::Primary);
    rows.iter().for_each(|row| keys.accept(row));
    assert_eq!(uses(&keys), [(Slot::Primary, None), (Slot::Secondary, None)]);
    for (at, expected) in [(100, 100), (100 * SECOND, 100 * SECOND), (101 * SECOND - 1, 100 * SECOND), (7, 7)] {
        assert_eq!(present(&keys, &rows[0], at), Ok(WORKSPACE));
        assert_eq!(present(&keys, &stranger, at + 5 * SECOND), Err(NotAccepted::Unknown));
        assert_eq!(uses(&keys), [(Slot::Primary, Some(expected)), (Slot::Secondary, None)]);
    }
    present(&keys, &rows[1], 50 * SECOND).unwrap();
    keys.suspend(WORKSPACE);
    assert!(present(&keys, &rows[1], 60 * SECOND).is_err());
    assert_eq!(uses(&keys), [(Slot::Primary, Some(7)), (Slot::Secondary, Some(50 * SECOND))]);
}

/// Scenario: uses are stored while further ones come, the server starts anew, and one key is regenerated. Guarantee: what changed is given
/// until it is stored and no longer; a start goes on from it; the regenerated key was never used, and the other one's use stays known.
#[test]
fn uses_are_stored_once_and_go_on_after_a_start() {
    let before = keys(1);
    let rows = Slot::ALL.map(|slot| new(&before, WORKSPACE, slot));
    rows.iter().for_each(|row| before.accept(row));
    assert_eq!(before.unsaved(), []);
    present(&before, &rows[1], 10 * SECOND).unwrap();
    let first = before.unsaved();
    let row = |at| WorkspaceKeyUseRow {
        workspace: WORKSPACE,
        slot: "secondary".into(),
        lookup: rows[1].lookup.clone(),
        used: UnixNanos(at),
    };
    assert_eq!(first, [row(10 * SECOND)]);
    present(&before, &rows[1], 20 * SECOND).unwrap();
    before.saved(&first);
    let second = before.unsaved();
    assert_eq!(second, [row(20 * SECOND)], "what came meanwhile is not taken for stored");
    before.saved(&second);
    assert_eq!(before.unsaved(), []);

    let after = keys(1);
    rows.iter().for_each(|row| after.accept(row));
    after.load_uses(&second);
    assert_eq!(uses(&after), [(Slot::Primary, None), (Slot::Secondary, Some(20 * SECOND))]);
    assert_eq!(after.unsaved(), []);
    present(&after, &rows[0], 30 * SECOND).unwrap();
    let next = new(&after, WORKSPACE, Slot::Primary);
    after.replace(WORKSPACE, &[next, rows[1].clone()]);
    assert_eq!(uses(&after), [(Slot::Primary, None), (Slot::Secondary, Some(20 * SECOND))]);
    assert_eq!(after.unsaved(), [], "the use of a key that is gone is nobody's");
}

/// Scenario: a workspace turns keys off and on, and settings of an older version come late. Guarantee: the newest version counts; keys
/// that are off are told from keys that nobody has, and their use is none.
#[test]
fn keys_that_are_turned_off_are_refused_as_such() {
    let keys = keys(1);
    let [own, others] = [WORKSPACE, OTHER].map(|workspace| new(&keys, workspace, Slot::Primary));
    keys.accept(&own);
    keys.accept(&others);
    for (is_on, version, expected) in [
        (true, 1, Ok(WORKSPACE)),
        (false, 3, Err(NotAccepted::LocalAuthDisabled)),
        (true, 2, Err(NotAccepted::LocalAuthDisabled)),
        (true, 4, Ok(WORKSPACE)),
        (false, 5, Err(NotAccepted::LocalAuthDisabled)),
    ] {
        keys.set_local_auth(WORKSPACE, is_on, version);
        assert_eq!(present(&keys, &own, i64::try_from(version).unwrap() * SECOND), expected);
        assert_eq!(present(&keys, &others, 0), Ok(OTHER));
    }
    assert_eq!(uses(&keys), [(Slot::Primary, Some(4 * SECOND))]);
    keys.replace(WORKSPACE, &[new(&keys, WORKSPACE, Slot::Primary)]);
    assert_eq!(present(&keys, &own, 0), Err(NotAccepted::Unknown));
}
