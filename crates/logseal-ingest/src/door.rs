//! The door's ports and the words of its answers, the same for every protocol that comes in.

use std::borrow::Cow;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use logseal_core::{RandomSource, WorkspaceId};
use logseal_tls::{ClientNames, Places, evictions};
use logseal_wal::CompressedBody;
use thiserror::Error;

use crate::admission::{Admission, Budget, BudgetPermit, Hold};
use crate::expansion::Expansion;
use crate::meter::Meter;
use crate::quota::{DailyCaps, Reached};
use crate::{DoorSettings, IngestError};

/// Turns what a shipper presents into its workspace.
pub trait Authenticator: Debug + Send + Sync {
    /// The workspace that `key` may ship to.
    ///
    /// Called on an async thread for every request, so it answers from memory.
    ///
    /// # Errors
    ///
    /// [`AuthError::Unknown`] for a key that no workspace has, [`AuthError::LocalAuthDisabled`] when its workspace takes no keys,
    /// [`AuthError::Unavailable`] when that cannot be told now.
    fn workspace_of(&self, key: &str) -> Result<WorkspaceId, AuthError>;

    /// The workspace that a client with these names in its certificate may ship to; `None` when they stand for none, and a key has to say.
    ///
    /// Called like [`Authenticator::workspace_of`], with the names of a certificate that was verified.
    ///
    /// # Errors
    ///
    /// [`AuthError`]: the names stand for a workspace that is not there, or for several.
    fn workspace_of_client(&self, names: &ClientNames) -> Result<Option<WorkspaceId>, AuthError>;
}

/// Why a key has no workspace.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum AuthError {
    /// No workspace has this key.
    #[error("unknown workspace key")]
    Unknown,
    /// The key's workspace takes no keys.
    #[error("workspace keys are turned off for this workspace")]
    LocalAuthDisabled,
    /// Keys cannot be looked up now. Never to be confused with the other: clients drop data on that one.
    #[error("workspace keys are temporarily unavailable")]
    Unavailable,
    /// The certificate's names stand for several workspaces.
    #[error("the client certificate stands for several workspaces")]
    Ambiguous,
    /// No workspace is what the certificate's names stand for.
    #[error("the client certificate stands for a workspace that is not there")]
    NoSuchWorkspace,
}

/// Takes whole requests in.
#[async_trait]
pub trait Intake: Debug + Send + Sync {
    /// How much memory the records of a request of `workspace` are expected to take, so that it can be waited for before the request is read.
    fn expansion(&self, _workspace: WorkspaceId) -> Expansion {
        Expansion::default()
    }

    /// Takes one request, and returns once its accepted records are durable.
    ///
    /// The future is dropped when the client goes away or its deadline passes. Whether the records are kept then is the
    /// implementation's choice, since a client that was not answered sends them again; everything that the request
    /// holds must be released in both cases.
    ///
    /// # Errors
    ///
    /// [`IntakeError`], whose texts go to the client: they quote no log content and no secret.
    async fn take(&self, request: IntakeRequest) -> Result<Accepted, IntakeError>;
}

/// One request, admitted and decompressed.
#[derive(Debug)]
pub struct IntakeRequest {
    /// Where the records go.
    pub workspace: WorkspaceId,
    /// An `ExportLogsServiceRequest` in protobuf, not looked at yet and never empty.
    pub body: Bytes,
    /// The same as it came, if it came compressed and the log may keep it so.
    pub compressed: Option<CompressedBody>,
    /// Budget for these and for an estimate of the Arrow chunk, held until it is dropped.
    pub permit: BudgetPermit,
    /// How long short trouble may be waited out.
    pub hold: Hold,
}

/// What became of a request's records.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Accepted {
    /// Records that are durable.
    pub accepted: u64,
    /// Records that were refused, each for its own content.
    pub rejected: u64,
    /// Why records were rejected, or a warning although none was.
    pub message: Option<String>,
}

/// Why a request was not taken in.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum IntakeError {
    /// The body is not an `ExportLogsServiceRequest`. Sending it again is pointless.
    #[error("{0}")]
    Undecodable(String),
    /// Trouble on our side that passes. The client is to send the same request again.
    #[error("{reason}")]
    Unavailable {
        /// What the client is told.
        reason: String,
        /// When trying again makes sense, if that is known.
        retry_after: Option<Duration>,
    },
    /// The request is larger than what can be taken in, now and later.
    #[error("{0}")]
    TooLarge(String),
}

/// Why a call was not acknowledged. The texts are for the client.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum Refusal {
    /// Credentials are missing, malformed, unknown, or of two workspaces.
    #[error("{problem}; expected `authorization: Bearer <workspace key>`")]
    Unauthenticated {
        /// Which of them.
        problem: &'static str,
    },
    /// The key is a workspace's, which takes no keys. Not to be sent again.
    #[error("workspace keys are turned off for this workspace (`features.disableLocalAuth`)")]
    LocalAuthDisabled,
    /// Framing, compression or content is broken. Not to be sent again.
    #[error("{0}")]
    Undecodable(Cow<'static, str>),
    /// Over a limit. Not to be sent again.
    #[error("{0}")]
    TooLarge(String),
    /// The workspace's daily cap is reached.
    #[error("{reason}")]
    CapReached {
        /// The cap, what was used of it, and when it is reset.
        reason: String,
        /// The time until then, if it is worth waiting for; else clients drop the batch.
        retry_after: Option<Duration>,
    },
    /// An encoding or method that does not exist here.
    #[error("{0}")]
    Unsupported(String),
    /// To be sent again, after `retry_after` or a little while.
    #[error("{reason}")]
    Unavailable {
        /// What the matter is.
        reason: Cow<'static, str>,
        /// When trying again makes sense, if that is known.
        retry_after: Option<Duration>,
    },
    /// The client's own deadline passed.
    #[error("the deadline passed before the request was acknowledged")]
    DeadlinePassed,
    /// The client went away; nobody reads this answer.
    #[error("the request body broke off")]
    Disconnected,
}

impl Refusal {
    /// A passing trouble without a known end.
    pub(crate) fn unavailable(reason: impl Into<Cow<'static, str>>) -> Self {
        Self::Unavailable { reason: reason.into(), retry_after: None }
    }

    /// The request exceeds `ingest.max_request_bytes`; `what` says in which form.
    pub(crate) fn too_large(what: &str, limit: usize) -> Self {
        Self::TooLarge(format!("{what} exceeds the limit of {limit} bytes (setting `ingest.max_request_bytes`)"))
    }
}

impl From<AuthError> for Refusal {
    fn from(error: AuthError) -> Self {
        match error {
            AuthError::Unknown => Self::Unauthenticated { problem: "unknown workspace key" },
            AuthError::LocalAuthDisabled => Self::LocalAuthDisabled,
            AuthError::Unavailable => Self::unavailable("workspace keys are temporarily unavailable"),
            AuthError::Ambiguous => {
                Self::Unauthenticated { problem: "the client certificate stands for several workspaces" }
            }
            AuthError::NoSuchWorkspace => {
                Self::Unauthenticated { problem: "the client certificate stands for a workspace that is not there" }
            }
        }
    }
}

/// A cap whose reset is nearer than this is waited for: clients keep a batch for about as long.
const NEAR_RESET: Duration = Duration::from_secs(5 * 60);

impl From<Reached> for Refusal {
    fn from(Reached { cap, used, resets_in }: Reached) -> Self {
        let reason = format!(
            "the workspace's daily cap of {cap} bytes (`workspaceCapping.dailyQuotaGb`) is reached: {used} bytes were taken today; \
             it is reset at 00:00 UTC, in {} s",
            resets_in.as_secs()
        );
        Self::CapReached { reason, retry_after: (resets_in < NEAR_RESET).then_some(resets_in) }
    }
}

impl From<IntakeError> for Refusal {
    fn from(error: IntakeError) -> Self {
        match error {
            IntakeError::Undecodable(reason) => Self::Undecodable(reason.into()),
            IntakeError::Unavailable { reason, retry_after } => {
                Self::Unavailable { reason: reason.into(), retry_after }
            }
            IntakeError::TooLarge(reason) => Self::TooLarge(reason),
        }
    }
}

/// Everything that receivers of all protocols share: ports, admission and metrics. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct Door {
    pub(crate) authenticator: Arc<dyn Authenticator>,
    pub(crate) intake: Arc<dyn Intake>,
    pub(crate) admission: Arc<Admission>,
    pub(crate) random: Arc<dyn RandomSource>,
    caps: Option<Arc<DailyCaps>>,
    pub(crate) meter: Arc<Meter>,
    /// Of the connections that all listeners may have together.
    pub(crate) places: Arc<Places>,
}

impl Door {
    /// A door with its own memory budget; see [`Door::budget`]. A metrics recorder must have been installed before.
    ///
    /// # Errors
    ///
    /// [`IngestError::Setting`] for a value that cannot work.
    pub fn new(
        settings: &DoorSettings,
        authenticator: Arc<dyn Authenticator>,
        intake: Arc<dyn Intake>,
        random: Arc<dyn RandomSource>,
    ) -> Result<Self, IngestError> {
        let limits = settings.check()?;
        let budget = Budget::new(limits.budget_bytes);
        Self::with_budget(settings, budget, authenticator, intake, random)
    }

    /// A door that shares `budget` with others, such as the pipeline behind it.
    ///
    /// # Errors
    ///
    /// [`IngestError::Setting`] for a value that cannot work, a budget of another size included.
    pub fn with_budget(
        settings: &DoorSettings,
        budget: Arc<Budget>,
        authenticator: Arc<dyn Authenticator>,
        intake: Arc<dyn Intake>,
        random: Arc<dyn RandomSource>,
    ) -> Result<Self, IngestError> {
        let limits = settings.check()?;
        if budget.all() != limits.budget_bytes {
            let problem = format!("the shared budget has `{}` bytes", budget.all());
            return Err(IngestError::Setting { name: "ingest.memory_budget_bytes", problem });
        }
        let admission = Arc::new(Admission::new(limits, budget));
        let (meter, places) = (Arc::new(Meter::new()), Places::new(limits.connections, evictions("otlp")));
        Ok(Self { authenticator, intake, admission, random, caps: None, meter, places })
    }

    /// The same door, which refuses what comes after a workspace's daily cap was reached.
    #[must_use]
    pub fn with_daily_caps(self, caps: Arc<DailyCaps>) -> Self {
        Self { caps: Some(caps), ..self }
    }

    /// Refuses when the daily cap of `workspace` is reached.
    pub(crate) fn within_cap(&self, workspace: WorkspaceId) -> Result<(), Refusal> {
        let Some(caps) = &self.caps else { return Ok(()) };
        caps.admit(workspace).map_err(|reached| {
            self.meter.daily_cap.increment(1);
            Refusal::from(reached)
        })
    }

    /// Counts an acknowledged request of `bytes` against the daily cap of `workspace`.
    pub(crate) fn count(&self, workspace: WorkspaceId, bytes: usize) {
        if let Some(caps) = &self.caps {
            caps.count(workspace, bytes as u64);
        }
    }

    /// The memory budget that calls draw on.
    #[must_use]
    pub fn budget(&self) -> &Arc<Budget> {
        self.admission.budget()
    }

    /// When a client should come back: 1 to 5 s with jitter, not before `asked` if that lies in between.
    ///
    /// Without jitter all clients that were refused together would come back together.
    pub(crate) fn retry_delay(&self, asked: Option<Duration>) -> Duration {
        const LEAST: u64 = 1_000;
        const MOST: u64 = 5_000;
        let asked = asked.map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX));
        // One second of spread remains even when five were asked for.
        let base = asked.clamp(LEAST, MOST - 1_000);
        let mut random = [0; 8];
        self.random.fill(&mut random);
        Duration::from_millis(base + u64::from_le_bytes(random) % (MOST - base + 1))
    }
}
