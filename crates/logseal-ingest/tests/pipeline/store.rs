//! The object store: answers that are lost, and an outage.

use std::sync::Arc;

use crate::counters::alone;
use crate::settings::Settings;
use crate::world::{World, until};

/// Scenario: a put takes effect and its answer is lost. Guarantee: it is recognized; one object, one segment, no duplicate.
#[test]
fn a_put_whose_answer_is_lost_counts_once() {
    let _alone = alone();
    let world = Arc::new(World::new());
    let life = world.start(&Settings::default());
    life.run(async |parts| {
        let records = parts.new_records(0, 1);
        parts.send(&records, 0).await.unwrap();
        world.script.lose_next_answers(1);
        parts.cutter.flush().await;
        assert_eq!(world.script.calls().lost_answers, 1);
        assert_eq!(world.stored_objects().await, 1);
        let seen = parts.check("after the lost answer").await;
        assert_eq!((seen.sealed, seen.loaded.len()), (records, 0));
    });
    life.stop();
}

/// Scenario: the store is away while records come and memory is short. Guarantee: each is acknowledged and seen once, first from
/// memory, then from the log alone; when the store is back, all become segments without a restart.
#[test]
fn an_outage_is_waited_out_in_the_log() {
    let _alone = alone();
    let world = Arc::new(World::new());
    let life = world.start(&Settings { file_bytes: 4_000, ..Settings::cut_at_once() });
    life.run(async |parts| {
        world.script.set_down(true);
        parts.ship(0, 3).await.unwrap();
        until("a failed put", async || world.script.calls().puts > 0).await;
        // Somebody else takes half of the memory but for some requests.
        let _ballast = parts.budget.try_take(parts.budget.total() / 2 - 200_000).unwrap();
        let mut seen = parts.check("the store is down").await;
        assert_eq!((seen.loaded.len(), seen.parked.len()), (3, 0));
        for round in 0..200 {
            parts.ship_all(&[(0, 5), (1, 4), (2, 3)]).await;
            seen = parts.check(&format!("the store is down, round {round}")).await;
            if seen.parked.len() > 100 {
                break;
            }
        }
        assert!(seen.parked.len() > 100 && seen.sealed.is_empty(), "{seen:?}");
        assert!(world.ledger.lock().unwrap().refused.is_empty(), "everything was acknowledged");

        world.script.set_down(false);
        while parts.backlog.totals().records > 0 {
            parts.check("the store is back").await;
        }
        parts.sealed().await;
        let acknowledged = world.ledger.lock().unwrap().acknowledged.len();
        let seen = parts.check("all is stored").await;
        assert_eq!((seen.sealed.len(), seen.loaded.len(), seen.parked.len()), (acknowledged, 0, 0));
        parts.ship(0, 3).await.unwrap();
        parts.sealed().await;
    });
    life.stop();
}
