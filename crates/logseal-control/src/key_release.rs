//! Data keys of segments that go to readers outside of the server, each after its record in the audit trail.
//!
//! Whether a key goes out is decided by the catalog's row of the segment. The workspace is known from that row before any key is touched: what
//! a caller may read is looked at there. The record is durable before the key leaves, so a record may tell of a key that did not arrive,
//! and no key arrives without one.

use http::StatusCode;
use logseal_catalog::{AuditEntry, ResourceKind, SegmentRow};
use logseal_core::{AekId, Chain, ResourceId, SegmentId, WorkspaceId};
use logseal_keys::{KeyError, PresentedWrap, SegmentKey};
use serde_json::json;
use tracing::error;
use zeroize::Zeroizing;

use crate::Problem;
use crate::audit::AuditTrail;
use crate::gate::Principal;
use crate::operation::world::World;
use crate::resource::view::path;
use crate::upkeep;

/// A reader that has a file presented the wrap in it.
const UNWRAP: &str = "logseal/segments/unwrapKey";

/// Somebody asked for the key of a segment by its id, to keep it.
const EXPORT: &str = "logseal/segments/exportKey";

/// Gives keys to `principal`.
#[derive(Debug)]
pub(crate) struct Release<'r> {
    pub(crate) world: &'r World,
    pub(crate) audit: &'r AuditTrail,
    /// Who asks, for the record.
    pub(crate) principal: &'r Principal,
}

/// What goes out.
pub(crate) struct ReleasedKey {
    pub(crate) segment: SegmentRow,
    /// The AAD prefix of its file, hexadecimal.
    pub(crate) aad_prefix: String,
    /// The DEK, base64url.
    pub(crate) value: Zeroizing<String>,
}

/// What was asked for, as far as it is known: what a caller names is a claim.
struct Asked {
    action: &'static str,
    segment: SegmentId,
    workspace: Option<WorkspaceId>,
    aek: Option<AekId>,
}

impl Release<'_> {
    /// The key that `presented` wraps, which its reader expects to be wrapped by the account key `aek`.
    pub(crate) async fn unwrap(&self, aek: AekId, presented: &PresentedWrap) -> Result<ReleasedKey, Problem> {
        let asked = Asked {
            action: UNWRAP,
            segment: presented.segment(),
            workspace: Some(presented.workspace()),
            aek: Some(presented.aek()),
        };
        self.answer(asked, self.presented(aek, presented).await).await
    }

    /// The key of `segment`.
    pub(crate) async fn export(&self, segment: SegmentId) -> Result<ReleasedKey, Problem> {
        let found = self.live(segment).await;
        let row = found.as_ref().ok();
        let (workspace, aek) = (row.map(|row| row.workspace), row.map(|row| row.aek));
        self.answer(Asked { action: EXPORT, segment, workspace, aek }, found).await
    }

    /// The segment that has this very wrap.
    async fn presented(&self, aek: AekId, presented: &PresentedWrap) -> Result<SegmentRow, Problem> {
        if presented.aek() != aek {
            let named = presented.aek();
            return Err(Problem::bad(
                "AccountKeyMismatch",
                "value",
                format!("`value` was wrapped by account key `{named}` and not by `{aek}`, which the path names"),
            ));
        }
        // First what the wrap says, so that a reader learns nothing of workspaces that are not its own; then what the catalog says.
        self.principal.admit_to(Some(presented.workspace()))?;
        let row = self.live(presented.segment()).await?;
        self.principal.admit_to(Some(row.workspace))?;
        if presented.is_of(&row) {
            return Ok(row);
        }
        let message = format!(
            "`value` is not the wrapped key that the catalog has of segment `{}`: take it from the key metadata of that segment's file",
            row.id
        );
        Err(Problem::bad("WrappedKeyMismatch", "value", message))
    }

    /// The segment, if queries may read it: it is in the catalog, its retention is not over, and its workspace is there.
    async fn live(&self, id: SegmentId) -> Result<SegmentRow, Problem> {
        let gone = |why: &str| Problem::new(StatusCode::NOT_FOUND, "SegmentNotFound", format!("segment `{id}` {why}"));
        let row = self.world.catalog.segment(id).await?;
        let row = row.ok_or_else(|| gone("is not in the catalog: it never was, or it was removed"))?;
        let workspace = self.world.resource(ResourceKind::Workspace, ResourceId::from(row.workspace)).await?;
        let Some(workspace) = workspace.filter(|workspace| workspace.deleted.is_none()) else {
            return Err(gone("belongs to a workspace that is deleted"));
        };
        match upkeep::kept_since(&workspace, self.world.clock.now()) {
            Some(since) if row.created < since => Err(gone("is older than its workspace keeps records")),
            _ => Ok(row),
        }
    }

    /// Opens the key of what was found, records what becomes of it, and only then gives it out.
    async fn answer(&self, asked: Asked, found: Result<SegmentRow, Problem>) -> Result<ReleasedKey, Problem> {
        let opened = match found {
            Ok(row) => self.open(row).await,
            Err(problem) => Err(problem),
        };
        let refused = match opened {
            Ok((segment, key)) => {
                self.audit.record(self.entry(&asked, "Succeeded".to_owned()).await?).await?;
                match key.reveal() {
                    Ok(value) => return Ok(ReleasedKey { segment, aad_prefix: key.aad_prefix().to_owned(), value }),
                    Err(over) => self.problem(&segment, &over.into()).await,
                }
            }
            // The gate has records of those who may not have it, and few of each: nobody is to fill the trail by asking.
            Err(problem) if problem.code() == Problem::AUTHORIZATION_FAILED => return Err(problem),
            Err(problem) => problem,
        };
        let recorded = match self.entry(&asked, format!("Refused: {}", refused.code())).await {
            Ok(entry) => self.audit.record(entry).await,
            Err(error) => Err(error),
        };
        if let Err(error) = recorded {
            error!(error = %Chain(&error), code = refused.code(), "the audit trail takes no record of a data key that was refused");
        }
        Err(refused)
    }

    async fn open(&self, row: SegmentRow) -> Result<(SegmentRow, SegmentKey), Problem> {
        match self.world.keyring.segment_key(&row).await {
            Ok(key) => Ok((row, key)),
            Err(error) => Err(self.problem(&row, &error).await),
        }
    }

    /// As queries answer it.
    async fn problem(&self, row: &SegmentRow, error: &KeyError) -> Problem {
        match error {
            KeyError::Suspended(why) => Problem::suspended(why),
            KeyError::LeaseOver(_) => {
                // The cluster's key is not confirmed any more: why is known a moment later.
                let aek = self.world.catalog.aek(row.aek).await.ok().flatten();
                let why = aek.and_then(|aek| self.world.keyring.suspension(aek.cluster));
                why.map_or_else(|| Problem::unavailable(error.to_string()), |why| Problem::suspended(&why))
            }
            KeyError::Shredded(_) => Problem::new(
                StatusCode::NOT_FOUND,
                "SegmentNotFound",
                format!("the key of segment `{}` was destroyed", row.id),
            ),
            KeyError::Refused { .. } => Problem::unavailable(error.to_string()),
            // What a vault refuses is told by its cluster's state, a few probes later.
            error if error.is_lasting() && !matches!(error, KeyError::Vault { .. }) => {
                error!(segment = %row.id, error = %Chain(error), "the data key of a segment cannot be used");
                let message =
                    format!("the key of segment `{}` cannot be used: the server's log has the reason", row.id);
                Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "SegmentDamaged", message)
            }
            error => {
                error!(segment = %row.id, error = %Chain(error), "the data key of a segment cannot be had now");
                Problem::unavailable("the segment's key cannot be had now: the server's log has the reason")
            }
        }
    }

    async fn entry(&self, asked: &Asked, outcome: String) -> Result<AuditEntry, logseal_catalog::CatalogError> {
        let Asked { action, segment, workspace, aek } = asked;
        let row = match workspace {
            Some(id) => self.world.resource(ResourceKind::Workspace, ResourceId::from(*id)).await?,
            None => None,
        };
        let owner = row.as_ref().map_or_else(String::new, path);
        let text = |id: Option<String>| id.map_or(serde_json::Value::Null, Into::into);
        let after = json!({
            "segment": segment.to_string(),
            "workspace": text(workspace.map(|id| id.to_string())),
            "accountKey": text(aek.map(|id| id.to_string())),
            // The trail takes equal records that follow each other for one: each key that goes out has its own.
            "request": self.world.ids.next().to_string(),
        });
        Ok(AuditEntry {
            at: self.world.clock.now(),
            actor: self.principal.actor.clone(),
            action: (*action).to_owned(),
            resource: format!("{owner}/segments/{segment}"),
            operation: None,
            outcome,
            before: "null".to_owned(),
            after: after.to_string(),
        })
    }
}
