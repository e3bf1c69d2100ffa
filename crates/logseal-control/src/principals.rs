//! As whom the clusters of a deployment ask the key vault.

use logseal_catalog::{Catalog, CatalogError, ResourceFilter, ResourceKind};
use logseal_vault::PrincipalId;

use crate::resource::cluster::ClusterDocument;

/// Clusters that are read at once.
const PAGE: u32 = 500;

/// The identities of all clusters, also of those that are being made. A cluster whose document cannot be read has none.
///
/// # Errors
///
/// [`CatalogError`] when the clusters cannot be read.
pub async fn cluster_principals(catalog: &Catalog) -> Result<Vec<PrincipalId>, CatalogError> {
    let filter = ResourceFilter { kind: ResourceKind::Cluster, subscription: None, group: None, deleted: false };
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let mut page = catalog.resources(filter, after.as_ref(), PAGE).await?;
        found.extend(page.iter().filter_map(|row| {
            let document = serde_json::from_str::<ClusterDocument>(&row.document).ok()?;
            PrincipalId::parse(&document.identity.principal_id).ok()
        }));
        match page.pop() {
            Some(last) => after = Some(last),
            None => return Ok(found),
        }
    }
}
