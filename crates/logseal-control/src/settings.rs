//! What the running server has to know of workspaces' settings: how much each may send a day, and whether it takes keys.

use logseal_catalog::{CatalogError, ResourceFilter, ResourceKind};
use logseal_core::WorkspaceId;

use crate::operation::kinds;
use crate::operation::runner::Operations;
use crate::operation::world::World;
use crate::resource::workspace::{WorkspaceDocument, WorkspaceSettings};

/// Tells the server the settings of `workspace`, which are those of `version` of its resource.
pub(crate) fn tell(world: &World, workspace: WorkspaceId, settings: &WorkspaceSettings, version: u64) {
    world.data.set_daily_cap(workspace, settings.daily_cap(), version);
    world.access.set_local_auth(workspace, !settings.access.disable_local_auth, version);
}

impl Operations {
    /// Tells the server the settings of all workspaces, before it takes records.
    ///
    /// # Errors
    ///
    /// [`CatalogError`] when they cannot be read.
    pub async fn tell_settings(&self) -> Result<(), CatalogError> {
        let filter = ResourceFilter { kind: ResourceKind::Workspace, subscription: None, group: None, deleted: false };
        for row in self.world().catalog.resources(filter, None, u32::MAX).await? {
            // One that cannot be read was told of; it has no cap then, and takes keys.
            if let Ok(document) = kinds::document::<WorkspaceDocument>(&row) {
                tell(self.world(), row.id.workspace(), &document.settings, row.version);
            }
        }
        Ok(())
    }
}
