//! What is under way for a cluster ends when its keys may not be used any more.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use logseal_core::ClusterId;
use tokio::time::sleep;
use tracing::debug;

use super::Sealer;
use crate::cpu;
use crate::pipeline::backlog::Lot;
use crate::pipeline::commit::GrowingSegment;

/// How often a suspension looks whether what was under way has ended.
const LOOK: Duration = Duration::from_millis(10);

impl Sealer {
    /// Nothing more is done for `cluster`, the lease of whose keys is over: what is under way is broken off, and has ended when this returns.
    /// Rows that were on their way are in the log.
    pub(in crate::pipeline) async fn suspend(&self, cluster: ClusterId) {
        self.drop_growing(|segment| segment.cluster() == cluster);
        while self.is_under_way(cluster) {
            self.keys_gone.notify_waiters();
            sleep(LOOK).await;
        }
        // What ended a moment ago may have given its segment back.
        self.drop_growing(|segment| segment.cluster() == cluster);
    }

    pub(super) fn drop_growing(&self, which: impl Fn(&GrowingSegment) -> bool) {
        let mut growing = self.growing.lock().unwrap_or_else(PoisonError::into_inner);
        let gone: Vec<_> = growing.extract_if(|_, segment| which(segment)).collect();
        drop(growing);
        cpu::discard(gone);
    }

    /// As [`Sealer::grow`], until the lease of the stream's key is over.
    pub(in crate::pipeline) async fn grow_while_leased(self: Arc<Self>, lot: Lot) {
        let stream = lot.stream.clone();
        let _under_way = self.enter(stream.cluster);
        let over = async {
            loop {
                let told = self.keys_gone.notified();
                if stream.is_over() {
                    break;
                }
                told.await;
            }
        };
        tokio::select! {
            biased;
            () = over => debug!(table = %stream.key().table, "sealing is broken off: the key may not be used any more"),
            () = Arc::clone(&self).grow(lot) => {}
        }
    }

    fn is_under_way(&self, cluster: ClusterId) -> bool {
        let under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        under_way.get(&cluster).is_some_and(|work| work.strong_count() > 0)
    }

    fn enter(&self, cluster: ClusterId) -> Arc<()> {
        let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        let known = under_way.entry(cluster).or_default();
        known.upgrade().unwrap_or_else(|| {
            let work = Arc::new(());
            *known = Arc::downgrade(&work);
            work
        })
    }
}
