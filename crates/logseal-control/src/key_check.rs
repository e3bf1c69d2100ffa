//! Whether keys of shippers that are to go are still in use.
//!
//! The model is Azure Cosmos DB's safe key rotation: where a workspace asks for it, a key that was used within the last hours is neither
//! replaced nor turned off unless the caller insists. It is looked at before anything changes; a shipper that comes in between is not
//! waited for.

use std::time::Duration;

use logseal_catalog::{AuditEntry, Change, ResourceRow};
use logseal_core::Chain;
use logseal_keys::{KeyMetadata, Slot};
use serde_json::{Map, Value, json};
use tracing::error;

use crate::Problem;
use crate::json::Object;
use crate::operation::world::World;
use crate::resource::view::{date, key_metadata, path};
use crate::resource::workspace::AccessSettings;

/// The property of a body that insists, in lower case: names compare without case, and Azure's own clients write it in two ways.
const SKIP: &str = "skipaccountkeyslastusagecheck";

/// Takes from a body whether keys may go although they are in use.
pub(crate) fn skips(root: &mut Object<'_>) -> Result<bool, Problem> {
    Ok(root.bool(SKIP)?.unwrap_or(false))
}

/// Refuses to take the keys in `slots` of the workspace of `row` from its shippers when one of them was used recently.
pub(crate) fn refuse_recent(world: &World, row: &ResourceRow, slots: &[Slot]) -> Result<(), Problem> {
    let now = world.clock.now();
    let window = i64::try_from(world.recent_use.as_nanos()).unwrap_or(i64::MAX);
    // A use in the future is one before the clock was put back: nobody knows how long ago.
    let is_recent = |key: &KeyMetadata| key.last_used.is_some_and(|used| now.0.saturating_sub(used.0) < window);
    let mut keys = world.access.metadata(row.id.workspace());
    keys.retain(|key| slots.contains(&key.slot) && is_recent(key));
    if keys.is_empty() {
        return Ok(());
    }
    let used: Vec<_> = keys
        .iter()
        .filter_map(|key| Some(format!("the {} key was last used at {}", key.slot.as_str(), date(key.last_used?))))
        .collect();
    let message = format!(
        "{}, less than {} ago, and nothing was changed: give the shippers of workspace `{}` another credential first, or insist with `skipAccountKeysLastUsageCheck`",
        used.join(" and "),
        in_words(world.recent_use),
        row.name
    );
    Err(Problem::conflict("KeyRecentlyUsed", message))
}

/// As [`refuse_recent`], when the workspace of `row` is to take keys no more and either its settings or those that it gets ask for the check.
pub(crate) fn refuse_recent_off(
    world: &World,
    row: &ResourceRow,
    now: AccessSettings,
    next: AccessSettings,
) -> Result<(), Problem> {
    let is_checked = now.enable_key_check_before_disable_local_auth || next.enable_key_check_before_disable_local_auth;
    if !is_checked || now.disable_local_auth || !next.disable_local_auth {
        return Ok(());
    }
    refuse_recent(world, row, &Slot::ALL)
}

/// Notes in the audit trail that `problem` kept `action` from the workspace of `row`.
pub(crate) async fn record(world: &World, row: &ResourceRow, actor: &str, action: &str, problem: &Problem) {
    let keys: Map<String, Value> = world
        .access
        .metadata(row.id.workspace())
        .iter()
        .map(|key| (key.slot.as_str().to_owned(), key_metadata(key)))
        .collect();
    let entry = AuditEntry {
        at: world.clock.now(),
        actor: actor.to_owned(),
        action: action.to_owned(),
        resource: path(row),
        operation: None,
        outcome: format!("Refused: {}", problem.code()),
        before: json!(keys).to_string(),
        after: "null".to_owned(),
    };
    if let Err(error) = world.catalog.apply(Change::Audit(entry)).await {
        error!(error = %Chain(&error), code = problem.code(), "the audit trail takes no record of keys that were not taken away");
    }
}

fn in_words(time: Duration) -> String {
    match time.as_secs() {
        seconds if seconds % 3_600 == 0 => format!("{} h", seconds / 3_600),
        seconds => format!("{seconds} s"),
    }
}
