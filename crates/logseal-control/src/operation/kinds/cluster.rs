//! Clusters are made and changed.

use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use logseal_catalog::{AekRow, Change, ClusterRow};
use logseal_core::{ClusterId, ResourceId, UnixNanos};
use logseal_keys::fault::Entry;
use logseal_keys::{AekOwner, KeyFault};
use logseal_vault::{Caller, KeyId, KeyIdError, KeyName, KeyProperties, KeyVersion, VaultError};

use super::super::document::{CreateCluster, Kek, UpdateCluster};
use super::super::runner::Context;
use super::super::world::World;
use super::super::{Effects, Intent, Operation, StepError};
use super::{FINISH, KEYS_AT_ONCE, put, remove_outdated_copies, resource};
use crate::callers::{caller, caller_of};
use crate::resource::ProvisioningState;
use crate::resource::cluster::{ClusterDocument, ClusterSettings};
use crate::resource::key::KeyReference;

pub(super) async fn run(
    operation: &mut Operation,
    step: &'static str,
    context: &Context<'_>,
) -> Result<Effects, StepError> {
    let (world, id) = (context.world, operation.row.resource);
    let is_new = matches!(operation.document.intent, Intent::CreateCluster(_));
    let (key, resolved, to_service_key) = match &mut operation.document.intent {
        Intent::CreateCluster(CreateCluster { key, resolved, .. }) => (key, resolved, false),
        Intent::UpdateCluster(UpdateCluster { key, resolved, to_service_key, .. }) => (key, resolved, *to_service_key),
        _ => return Ok(Effects::new()),
    };
    match step {
        "validate-key" => {
            if is_new {
                welcome(world, id).await?;
            }
            if let Some(key) = key {
                *resolved = Some(validate(world, id.cluster(), key).await?);
            } else if to_service_key {
                *resolved = Some(Kek::from(&logseal_keys::kek_row(&world.vaults.service_key())));
            }
            Ok(Effects::new())
        }
        "probe-key" => {
            if let Some(kek) = resolved {
                probe(world, id.cluster(), &key_id(kek)?).await?;
            }
            Ok(Effects::new())
        }
        "add-cluster" => {
            let kek = resolved.as_ref().map_or_else(|| logseal_keys::kek_row(&world.vaults.service_key()), Kek::row);
            let (row, _) = resource::<ClusterDocument>(world, id).await?;
            Ok(vec![Change::AddCluster(ClusterRow { id: id.cluster(), name: row.name, created: row.created, kek })])
        }
        "open-log" => {
            world.data.open_cluster(id.cluster()).await?;
            Ok(Effects::new())
        }
        "switch-key" => {
            let Some(kek) = resolved else { return Ok(Effects::new()) };
            let mut effects = rewrap(context, id.cluster(), kek).await?;
            let (row, mut document) = resource::<ClusterDocument>(world, id).await?;
            let now = world.clock.now();
            document.key.clone_from(key);
            document.key_since = now.0;
            effects.push(put(&row, &document, now));
            Ok(effects)
        }
        FINISH => finish(operation, world).await,
        _ => Ok(Effects::new()),
    }
}

pub(super) async fn undo(
    operation: &Operation,
    step: &'static str,
    context: &Context<'_>,
) -> Result<Effects, StepError> {
    let cluster = operation.row.resource.cluster();
    match step {
        "open-log" => {
            context.world.data.close_cluster(cluster).await?;
            Ok(Effects::new())
        }
        "add-cluster" => Ok(vec![Change::RemoveCluster { cluster }]),
        _ => Ok(Effects::new()),
    }
}

/// A cluster that could not be made is gone; another one is as it was.
pub(super) async fn undone(operation: &Operation, context: &Context<'_>) -> Result<Effects, StepError> {
    let (row, mut document) = resource::<ClusterDocument>(context.world, operation.row.resource).await?;
    if matches!(operation.document.intent, Intent::CreateCluster(_)) {
        return Ok(vec![Change::RemoveResource { id: row.id, expected: row.version }]);
    }
    let keys = context.world.catalog.aeks_of_cluster(row.id.cluster()).await?;
    remove_outdated_copies(context.world, &keys).await?;
    document.provisioning_state = match operation.document.intent {
        Intent::UpdateCluster(_) if operation.document.canceled => ProvisioningState::Canceled,
        Intent::UpdateCluster(_) => ProvisioningState::Failed,
        _ => ProvisioningState::Succeeded,
    };
    Ok(vec![put(&row, &document, context.world.clock.now())])
}

async fn finish(operation: &Operation, world: &World) -> Result<Effects, StepError> {
    let (row, mut document) = resource::<ClusterDocument>(world, operation.row.resource).await?;
    let now = world.clock.now();
    let (settings, key): (&ClusterSettings, &Option<KeyReference>) = match &operation.document.intent {
        Intent::CreateCluster(intent) => (&intent.settings, &intent.key),
        Intent::UpdateCluster(intent) => (&intent.settings, &intent.key),
        _ => return Ok(Effects::new()),
    };
    document.settings = settings.clone();
    if let Intent::UpdateCluster(UpdateCluster { identity, default_identity, .. }) = &operation.document.intent {
        if let Some(identity) = identity {
            document.identity = identity.clone();
        }
        document.default_identity = default_identity.clone().or(document.default_identity);
    }
    if let (Some(key), Intent::CreateCluster(_)) = (key, &operation.document.intent) {
        document.key = Some(key.clone());
        document.key_since = now.0;
    }
    let keys = world.catalog.aeks_of_cluster(row.id.cluster()).await?;
    remove_outdated_copies(world, &keys).await?;
    document.provisioning_state = ProvisioningState::Succeeded;
    Ok(vec![put(&row, &document, now)])
}

/// Keys of the embedded vault that are open to every cluster are granted to a new one, before it asks for any.
async fn welcome(world: &World, id: ResourceId) -> Result<(), StepError> {
    let (_, document) = resource::<ClusterDocument>(world, id).await?;
    match caller(&*world.vaults, &document).map_err(|error| vault_trouble(&error))? {
        Caller::Principal(principal) => world.vaults.welcome(&principal).await.map_err(|error| vault_trouble(&error)),
        Caller::Deployment | Caller::Nobody => Ok(()),
    }
}

/// The key version that `key` names, if it may protect `cluster`.
async fn validate(world: &World, cluster: ClusterId, key: &KeyReference) -> Result<Kek, StepError> {
    let caller = caller_of(&world.catalog, &*world.vaults, cluster).await.map_err(|error| vault_trouble(&error))?;
    let found = world.vaults.vault(&key.key_vault_uri, &caller);
    let (uri, vault) = found.map_err(|error| vault_trouble(&error))?;
    let invalid = |error: KeyIdError| StepError::failed("KeyValidationFailed", error.to_string());
    let name = KeyName::parse(&key.key_name).map_err(invalid)?;
    let version = match key.key_version.as_str() {
        "" => None,
        version => Some(KeyVersion::parse(version).map_err(invalid)?),
    };
    let found = vault.key(&name, version.as_ref()).await.map_err(|error| vault_trouble(&error))?;
    check(&found, key.key_rsa_size.unwrap_or(2048), world.clock.now()).map_err(|(kind, what)| fault(kind, &what))?;
    let KeyProperties { id, .. } = found;
    Ok(Kek { vault_uri: uri.to_string(), name: id.name.to_string(), version: id.version.to_string() })
}

/// What keeps a key version from protecting a cluster, if anything does.
fn check(found: &KeyProperties, smallest: u32, now: UnixNanos) -> Result<(), (KeyFault, String)> {
    let id = &found.id;
    let rules = [
        (found.is_rsa(), KeyFault::KeyTypeNotSupported, format!("key `{id}` is of the type {}", found.key_type)),
        (
            found.rsa_bits >= smallest,
            KeyFault::KeyTooSmall,
            format!("key `{id}` has {} bits, fewer than the {smallest} that are asked for", found.rsa_bits),
        ),
        (found.enabled, KeyFault::KeyDisabled, format!("key `{id}` is disabled")),
        (
            found.not_before.is_none_or(|from| from <= now),
            KeyFault::KeyOutsideValidity,
            format!("key `{id}` is not valid yet"),
        ),
        (
            found.expires.is_none_or(|until| now < until),
            KeyFault::KeyOutsideValidity,
            format!("key `{id}` has expired"),
        ),
        (found.recoverable, KeyFault::KeyNotRecoverable, format!("key `{id}` can be purged before its retention ends")),
    ];
    match rules.into_iter().find(|(holds, ..)| !holds) {
        None => Ok(()),
        Some((_, kind, what)) => Err((kind, what)),
    }
}

/// A key was not adopted because of `kind`.
fn fault(kind: KeyFault, what: &str) -> StepError {
    let Entry { code, action, .. } = kind.entry();
    StepError::failed(code, format!("{what}: {action}"))
}

async fn probe(world: &World, cluster: ClusterId, kek: &KeyId) -> Result<(), StepError> {
    world.keyring.probe(cluster, kek).await.map_err(|error| vault_trouble(&error))
}

/// A vault that could not be asked is no reason to go on trying for ever: whoever waits for the operation is told.
fn vault_trouble(error: &VaultError) -> StepError {
    let message = logseal_core::Chain(error).to_string();
    match error {
        VaultError::Io { .. } | VaultError::Stopped => StepError::Passing(message),
        _ => fault(KeyFault::from(error), &message),
    }
}

fn key_id(kek: &Kek) -> Result<KeyId, StepError> {
    let bad = |error: KeyIdError| StepError::failed("KeyValidationFailed", error.to_string());
    Ok(KeyId {
        vault_uri: kek.vault_uri.as_str().into(),
        name: KeyName::parse(&kek.name).map_err(bad)?,
        version: KeyVersion::parse(&kek.version).map_err(bad)?,
    })
}

/// Wraps every account key of the cluster by `kek`; one transaction switches them all. Until then the old version serves. Copies of the keys
/// as the old version wrapped them are removed after it.
async fn rewrap(context: &Context<'_>, id: ClusterId, kek: &Kek) -> Result<Effects, StepError> {
    let (world, to) = (context.world, key_id(kek)?);
    let cluster = world.catalog.cluster(id).await?;
    let cluster = cluster.ok_or_else(|| StepError::failed("ClusterNotFound", "the cluster is no longer there"))?;
    let keys = world.catalog.aeks_of_cluster(id).await?;
    let renew = async |key: &AekRow| {
        if key.kek == kek.row() {
            return Ok(key.clone());
        }
        let workspace = world.catalog.workspace(key.workspace).await?;
        // A workspace that goes takes its keys with it.
        let workspace = workspace.ok_or(StepError::Back("switch-key"))?;
        let tables = world.catalog.schema(key.workspace).await?.tables;
        let owner = AekOwner { cluster: &cluster, workspace: &workspace, tables: &tables };
        world.keyring.rewrap(key, owner, &to).await.map_err(|error| old_key_trouble(error, key))
    };
    let mut renewing = stream::iter(keys.iter().map(renew)).buffered(KEYS_AT_ONCE);
    let mut renewed: Vec<AekRow> = Vec::with_capacity(keys.len());
    while let Some(key) = renewing.try_next().await? {
        renewed.push(key);
        context.within.set(renewed.len(), keys.len());
    }
    drop(renewing);
    Ok(vec![Change::SwitchKek { cluster: id, kek: kek.row(), aeks: renewed }])
}

/// A key that its present KEK version does not unwrap cannot be wrapped by another one.
fn old_key_trouble(error: logseal_keys::KeyError, key: &AekRow) -> StepError {
    match StepError::from(error) {
        StepError::Failed(failure) => {
            let what = format!("the version in use is `{}` ({})", Kek::from(&key.kek).id(), failure.message);
            fault(KeyFault::OldKeyVersionUnusable, &what)
        }
        other => other,
    }
}
