//! What is printed and noted while load runs: a time series, and workspaces that got no acknowledgement.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use logseal_testkit::server::Memory;
use tokio::task::JoinHandle;

use crate::load::Load;
use crate::report;

/// How often the memory is looked at.
const SAMPLE: Duration = Duration::from_millis(200);

const MIB: u64 = 1024 * 1024;

/// Prints a line every `line` until it is dropped.
pub(crate) struct Series(JoinHandle<()>);

impl Series {
    pub(crate) fn start(load: &Arc<Load>, server: u32, line: Duration) -> Self {
        report(
            "     s  offered/s accepted/s  refused/s  dropped/s   RSS MiB  anonymous  (largest of the line; records)",
        );
        let load = Arc::clone(load);
        Self(tokio::spawn(async move {
            let began = Instant::now();
            let mut before = load.seen();
            let mut line_began = began;
            let mut largest = Memory::default();
            loop {
                tokio::time::sleep(SAMPLE).await;
                if let Some(memory) = Memory::of(server).filter(|memory| memory.resident > largest.resident) {
                    largest = memory;
                }
                let took = line_began.elapsed();
                if took < line {
                    continue;
                }
                let now = load.seen();
                let rate = |after: u64, before: u64| (after - before) as f64 / took.as_secs_f64();
                report(&format!(
                    "{:6.1} {:10.0} {:10.0} {:10.0} {:10.0} {:9} {:10}",
                    began.elapsed().as_secs_f64(),
                    rate(now.offered, before.offered),
                    rate(now.accepted, before.accepted),
                    rate(now.refused, before.refused),
                    rate(now.dropped, before.dropped),
                    largest.resident / MIB,
                    largest.anonymous / MIB,
                ));
                (before, line_began, largest) = (now, Instant::now(), Memory::default());
            }
        }))
    }
}

impl Drop for Series {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Looks in each window whether every workspace got an acknowledgement.
pub(crate) struct Windows {
    task: JoinHandle<()>,
    found: Arc<Mutex<Found>>,
}

/// What [`Windows`] found.
#[derive(Clone, Debug, Default)]
pub(crate) struct Found {
    /// Workspaces without an acknowledgement, counted in each window.
    pub(crate) starved: Vec<usize>,
    /// One of them.
    pub(crate) example: Option<String>,
    /// The fewest, over all workspaces and windows.
    pub(crate) fewest_answers: Option<u64>,
}

impl Found {
    /// Whether there was a window, and no workspace starved in any.
    pub(crate) fn is_fair(&self) -> bool {
        !self.starved.is_empty() && self.starved.iter().all(|starved| *starved == 0)
    }
}

impl Windows {
    pub(crate) fn start(load: &Arc<Load>, window: Duration) -> Self {
        let found = Arc::new(Mutex::new(Found::default()));
        let (load, shared) = (Arc::clone(load), Arc::clone(&found));
        let task = tokio::spawn(async move {
            let mut due = tokio::time::Instant::now();
            let answers = || load.tenants.iter().map(|tenant| tenant.answers()).collect::<Vec<_>>();
            let mut before = answers();
            loop {
                due += window;
                tokio::time::sleep_until(due).await;
                let now = answers();
                let mut found = shared.lock().unwrap_or_else(PoisonError::into_inner);
                let mut starved = 0;
                for ((tenant, now), before) in load.tenants.iter().zip(&now).zip(&before) {
                    let answers = now - before;
                    found.fewest_answers = Some(found.fewest_answers.map_or(answers, |fewest| fewest.min(answers)));
                    if answers == 0 {
                        starved += 1;
                        found.example = Some(tenant.name.clone());
                    }
                }
                found.starved.push(starved);
                drop(found);
                before = now;
            }
        });
        Self { task, found }
    }

    /// What was found until now.
    pub(crate) fn end(self) -> Found {
        self.task.abort();
        self.found.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
