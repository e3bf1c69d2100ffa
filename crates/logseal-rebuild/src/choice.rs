//! Which segments to take when several claim the same frames of the log. Pure.
//!
//! The catalog of a healthy deployment is a set of segments whose claims overlap nowhere and together cover everything; beside them
//! the store may hold orphans, which were put and never committed. Neither says which it is. Taking an orphan before two segments that
//! each overlap a part of it would shut out both, and with them frames that only they have. So claims that overlap, directly or through
//! others, are looked at together, once from the newest to the oldest and once the other way round: an orphan is older than what was
//! committed in its stead after a crash, and newer after a refused commit. The order that leaves fewer frames out wins.

use std::collections::HashMap;

use logseal_catalog::CoverageRow;
use logseal_core::{AekId, TableId, WalFileId};

/// The frames `first..=last` of one stream in one file of the log.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Frames {
    pub(crate) table: TableId,
    pub(crate) aek: AekId,
    pub(crate) file: WalFileId,
    pub(crate) first: u64,
    pub(crate) last: u64,
}

impl Frames {
    fn stream(&self) -> (TableId, AekId, WalFileId) {
        (self.table, self.aek, self.file)
    }

    fn count(&self) -> u64 {
        (self.last - self.first).saturating_add(1)
    }
}

/// Whether a claim can be taken.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Verdict {
    /// None of its frames is settled.
    Take,
    /// All of its frames are settled elsewhere.
    Orphan,
    /// Some of its frames are settled elsewhere, and these first ones are not.
    Partial(Frames),
}

/// Ranges that overlap nowhere.
#[derive(Debug, Default)]
pub(crate) struct Settled(HashMap<(TableId, AekId, WalFileId), Vec<(u64, u64)>>);

impl Settled {
    pub(crate) fn new(rows: &[CoverageRow]) -> Self {
        let mut settled = Self::default();
        for row in rows {
            settled.0.entry((row.table, row.aek, row.file)).or_default().push((row.first, row.last));
        }
        settled.0.values_mut().for_each(|ranges| ranges.sort_unstable());
        settled
    }

    fn add(&mut self, frames: &Frames) {
        let ranges = self.0.entry(frames.stream()).or_default();
        let at = ranges.partition_point(|(first, _)| *first < frames.first);
        ranges.insert(at, (frames.first, frames.last));
    }

    /// The ranges that meet `frames`, in order.
    fn meeting(&self, frames: &Frames) -> impl Iterator<Item = (u64, u64)> {
        let ranges = self.0.get(&frames.stream()).map(Vec::as_slice).unwrap_or_default();
        let start = ranges.partition_point(|(_, last)| *last < frames.first);
        let last = frames.last;
        ranges[start..].iter().copied().take_while(move |(first, _)| *first <= last)
    }
}

/// How much of a claim `layers`, which overlap nowhere, have: a verdict and the number of frames that they do not have.
fn judge(layers: [&Settled; 2], claim: &[Frames]) -> (Verdict, u64) {
    let (mut missing, mut met, mut hole) = (0_u64, false, None);
    for frames in claim {
        let mut meeting: Vec<_> = layers.iter().flat_map(|layer| layer.meeting(frames)).collect();
        meeting.sort_unstable();
        met |= !meeting.is_empty();
        let (mut next, mut covered) = (frames.first, 0_u64);
        for (first, last) in meeting {
            let (first, last) = (first.max(frames.first), last.min(frames.last));
            covered = covered.saturating_add((last - first).saturating_add(1));
            if first == next {
                next = last.saturating_add(1);
            }
        }
        missing = missing.saturating_add(frames.count().saturating_sub(covered));
        if covered < frames.count() && hole.is_none() {
            hole = Some(Frames { first: next, ..*frames });
        }
    }
    match hole {
        None => (Verdict::Orphan, 0),
        Some(_) if !met => (Verdict::Take, 0),
        Some(hole) => (Verdict::Partial(hole), missing),
    }
}

/// A verdict for each of `claims`, which are in the order of their making. The frames of a claim are not empty and overlap nowhere.
pub(crate) fn choose(settled: &Settled, claims: &[Vec<Frames>]) -> Vec<Verdict> {
    let mut verdicts = vec![Verdict::Take; claims.len()];
    for group in overlapping(claims) {
        let newest_first = group.iter().rev().copied().collect::<Vec<_>>();
        let (mut best, left_out) = take_in_order(settled, claims, &newest_first);
        if left_out > 0 {
            let (other, other_left_out) = take_in_order(settled, claims, &group);
            if other_left_out < left_out {
                best = other;
            }
        }
        for (index, verdict) in best {
            verdicts[index] = verdict;
        }
    }
    verdicts
}

/// Takes what can be taken of `order`; the verdicts, and how many frames are left out.
fn take_in_order(settled: &Settled, claims: &[Vec<Frames>], order: &[usize]) -> (Vec<(usize, Verdict)>, u64) {
    let mut taken = Settled::default();
    let mut refused = Vec::new();
    let mut verdicts = Vec::with_capacity(order.len());
    for index in order {
        match judge([settled, &taken], &claims[*index]).0 {
            Verdict::Take => {
                claims[*index].iter().for_each(|frames| taken.add(frames));
                verdicts.push((*index, Verdict::Take));
            }
            _ => refused.push(*index),
        }
    }
    // Judged at the end: what was refused early may be covered by what was taken later.
    let mut left_out = 0_u64;
    for index in refused {
        let (verdict, missing) = judge([settled, &taken], &claims[index]);
        left_out = left_out.saturating_add(missing);
        verdicts.push((index, verdict));
    }
    (verdicts, left_out)
}

/// The claims in groups that do not overlap each other, each in its own order.
fn overlapping(claims: &[Vec<Frames>]) -> Vec<Vec<usize>> {
    let mut by_stream: HashMap<_, Vec<(u64, u64, usize)>> = HashMap::new();
    for (index, claim) in claims.iter().enumerate() {
        for frames in claim {
            by_stream.entry(frames.stream()).or_default().push((frames.first, frames.last, index));
        }
    }
    let mut leaders: Vec<usize> = (0..claims.len()).collect();
    for ranges in by_stream.values_mut() {
        ranges.sort_unstable();
        let mut reach: Option<(u64, usize)> = None;
        for (first, last, index) in ranges.iter() {
            reach = match reach {
                Some((end, open)) if *first <= end => {
                    join(&mut leaders, open, *index);
                    Some((end.max(*last), open))
                }
                _ => Some((*last, *index)),
            };
        }
    }
    let mut groups: HashMap<usize, Vec<usize>> = HashMap::new();
    for index in 0..claims.len() {
        groups.entry(leader(&mut leaders, index)).or_default().push(index);
    }
    groups.into_values().collect()
}

fn leader(leaders: &mut [usize], mut index: usize) -> usize {
    while leaders[index] != index {
        leaders[index] = leaders[leaders[index]];
        index = leaders[index];
    }
    index
}

fn join(leaders: &mut [usize], one: usize, other: usize) {
    let (one, other) = (leader(leaders, one), leader(leaders, other));
    leaders[one.max(other)] = one.min(other);
}

#[cfg(test)]
mod tests;
