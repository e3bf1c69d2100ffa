//! What the steps of operations work with.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use logseal_catalog::{Catalog, ResourceKind, ResourceRow};
use logseal_core::{Clock, ClusterId, IdGenerator};
use logseal_keys::{AccessKeys, Keyring};

use super::document::Failure;
use crate::port::{DataPlane, Objects, Vaults};

/// The cluster of workspaces that are linked to none: the service-managed key protects it. It is no resource.
///
/// Its id is fixed, so that it is known again when a lost catalog is made anew.
pub const SERVICE_CLUSTER: ClusterId = ClusterId::from_bytes([0; 16]);

/// What steps work with.
#[derive(Debug)]
pub struct World {
    /// The resources, operations and keys.
    pub catalog: Catalog,
    /// Makes and re-wraps account keys.
    pub keyring: Arc<Keyring>,
    /// Makes access keys, and accepts them.
    pub access: Arc<AccessKeys>,
    /// For how long after its last use an access key counts as in use.
    pub recent_use: Duration,
    /// The vaults that clusters may name.
    pub vaults: Arc<dyn Vaults>,
    /// The running part of the server.
    pub data: Arc<dyn DataPlane>,
    /// Where objects are deleted.
    pub objects: Arc<dyn Objects>,
    /// Makes ids.
    pub ids: IdGenerator,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
    /// Where tests break in.
    pub faults: Arc<dyn Faults>,
}

impl World {
    /// The cluster or workspace with this id, if it is a resource.
    pub(crate) async fn resource(
        &self,
        kind: ResourceKind,
        id: logseal_core::ResourceId,
    ) -> Result<Option<ResourceRow>, logseal_catalog::CatalogError> {
        Ok(self.catalog.resource_by_id(id).await?.filter(|row| row.kind == kind))
    }
}

/// A place where an operation can be broken off.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Point {
    /// Before the step.
    Before,
    /// After what the step does outside of the catalog, before its transaction.
    Done,
    /// After its transaction.
    Committed,
}

/// What happens there.
#[derive(Clone, Debug)]
pub enum Fault {
    /// The process ends.
    Crash,
    /// The step is done once more.
    Repeat,
    /// The step fails.
    Fail(Failure),
}

/// Where tests break in: passed in, never global.
pub trait Faults: Debug + Send + Sync {
    /// What happens at this point of this step, while it is done or undone.
    fn at(&self, kind: &str, step: &str, point: Point) -> Option<Fault>;
}

/// Nothing breaks.
#[derive(Clone, Copy, Debug)]
pub struct NoFaults;

impl Faults for NoFaults {
    fn at(&self, _: &str, _: &str, _: Point) -> Option<Fault> {
        None
    }
}
