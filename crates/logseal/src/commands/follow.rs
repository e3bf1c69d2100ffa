//! Waiting for operations, with progress for people.

use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use http::{Method, StatusCode};
use serde_json::Value;
use tokio::time::sleep;

use crate::cli::Following;
use crate::client::{Answer, Management};
use crate::commands::view::{number, text};
use crate::commands::{note, operation, printable};
use crate::error::CommandError;

/// How long the server may hold a question: with somebody watching, progress is worth more requests.
const WATCHED: Duration = Duration::from_secs(1);
const UNWATCHED: Duration = Duration::from_secs(20);

/// The pause before a question that the last answer did not wait for.
const PAUSE: Duration = Duration::from_millis(250);

/// How long a server may be away, such as for a restart, which operations survive.
const AWAY: Duration = Duration::from_secs(30);

/// What a change became.
#[derive(Debug)]
pub(super) enum Outcome {
    /// It is done; the operation, if it took one.
    Done(Option<Value>),
    /// It is under way, and that is all that was asked for.
    Begun,
}

/// Waits for the operation behind `answer`, or shows it when nobody wants to wait.
pub(super) async fn change(
    management: &Management,
    answer: &Answer,
    following: Following,
) -> Result<Outcome, CommandError> {
    let Some(id) = answer.operation() else { return Ok(Outcome::Done(None)) };
    if following.no_wait {
        operation::print_one(management, &operation::of(management, &id).await?, following.json)?;
        note(&format!("operation `{id}` is under way; `logseal operation wait {id}` follows it"));
        return Ok(Outcome::Begun);
    }
    let ended = until_end(management, &id, None).await?;
    succeeded(&ended)?;
    Ok(Outcome::Done(Some(ended)))
}

/// Fails unless `operation`, which has ended, succeeded.
pub(super) fn succeeded(operation: &Value) -> Result<(), CommandError> {
    let status = text(operation, "/status");
    if status == "Succeeded" {
        return Ok(());
    }
    let or = |found: String, otherwise: &str| if found.is_empty() { otherwise.to_owned() } else { found };
    Err(CommandError::Operation {
        id: text(operation, "/name"),
        code: or(text(operation, "/error/code"), &status),
        message: or(text(operation, "/error/message"), "the operation did not succeed"),
    })
}

/// The operation `id` when it has ended.
pub(super) async fn until_end(
    management: &Management,
    id: &str,
    limit: Option<Duration>,
) -> Result<Value, CommandError> {
    let mut progress = Progress::new();
    let ended = tokio::select! {
        ended = watch(management, id, limit, &mut progress) => ended,
        _ = tokio::signal::ctrl_c() => Err(CommandError::GoesOn { id: id.to_owned(), why: "interrupted".to_owned() }),
    };
    progress.clear();
    ended
}

async fn watch(
    management: &Management,
    id: &str,
    limit: Option<Duration>,
    progress: &mut Progress,
) -> Result<Value, CommandError> {
    let began = Instant::now();
    let mut answered = began;
    let patience = if progress.is_shown { WATCHED } else { UNWATCHED };
    loop {
        let left = limit.map_or(patience, |limit| limit.saturating_sub(began.elapsed()).min(patience));
        let asked = Instant::now();
        // Rounded up: the last question shall wait until the time is over.
        let seconds = left.as_millis().div_ceil(1_000);
        match management.call(Method::GET, format!("/v1/operations/{id}?wait={seconds}")).send().await {
            Ok(answer) => {
                let operation: Value = answer.read()?;
                if has_ended(&operation) {
                    return Ok(operation);
                }
                answered = Instant::now();
                progress.show(&line(&operation, began.elapsed()));
            }
            Err(error) if is_passing(&error) && answered.elapsed() < AWAY => {
                progress.show(&format!("no answer, trying again  {} s", began.elapsed().as_secs()));
            }
            Err(error) => return Err(error),
        }
        if let Some(limit) = limit.filter(|limit| began.elapsed() >= *limit) {
            let why = format!("it has not ended within {} s", limit.as_secs());
            return Err(CommandError::GoesOn { id: id.to_owned(), why });
        }
        if asked.elapsed() < PAUSE {
            sleep(PAUSE).await;
        }
    }
}

/// Whether the server may answer when it is asked again.
fn is_passing(error: &CommandError) -> bool {
    matches!(error, CommandError::Unreachable { .. }) || error.status() == Some(StatusCode::SERVICE_UNAVAILABLE)
}

pub(super) fn has_ended(operation: &Value) -> bool {
    ["Succeeded", "Failed", "Canceled"].contains(&text(operation, "/status").as_str())
}

/// `Updating  60 %  rewrap-keys  3 s`.
fn line(operation: &Value, since: Duration) -> String {
    let parts = [
        text(operation, "/status"),
        format!("{} %", number(operation, "/percentComplete")),
        text(operation, "/step"),
        format!("{} s", since.as_secs()),
    ];
    parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("  ")
}

/// One line on stderr that is written over; nothing when nobody would see it.
struct Progress {
    is_shown: bool,
    is_dirty: bool,
}

impl Progress {
    fn new() -> Self {
        Self { is_shown: std::io::stderr().is_terminal(), is_dirty: false }
    }

    fn show(&mut self, line: &str) {
        self.is_dirty |= self.is_shown;
        self.write(&format!("\r{}\x1b[K", printable(line)));
    }

    fn clear(&mut self) {
        if std::mem::take(&mut self.is_dirty) {
            self.write("\r\x1b[K");
        }
    }

    fn write(&self, text: &str) {
        if self.is_shown {
            let mut stderr = std::io::stderr().lock();
            // A terminal that went away takes the progress with it, not the command.
            let _ = stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use axum::Router;
    use axum::response::IntoResponse as _;
    use axum::routing::get;
    use serde_json::json;

    use super::*;
    use crate::client::tests::served;

    /// A server whose operation runs, is away, runs, and fails; how often it was asked is counted.
    async fn failing() -> (Management, Arc<AtomicUsize>) {
        let asked = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&asked);
        let status = move || async move {
            match counted.fetch_add(1, Ordering::Relaxed) {
                0 | 2 => json!({"name": "ID", "status": "Updating"}).to_string().into_response(),
                1 => StatusCode::SERVICE_UNAVAILABLE.into_response(),
                _ => json!({"name": "ID", "status": "Failed", "error": {"code": "C", "message": "m"}})
                    .to_string()
                    .into_response(),
            }
        };
        (served(Router::new().route("/v1/operations/ID", get(status))).await, asked)
    }

    /// Scenario: a server restarts while a command waits. Guarantee: the command sees the operation's end, and does not ask in a
    /// busy loop although the server answers at once.
    #[tokio::test]
    async fn waiting_outlasts_a_server_that_is_away_for_a_moment() {
        let (management, asked) = failing().await;
        let began = Instant::now();
        let ended = until_end(&management, "ID", None).await.unwrap();
        assert_eq!(ended["status"], "Failed");
        assert_eq!(asked.load(Ordering::Relaxed), 4);
        assert!(began.elapsed() >= 3 * PAUSE);
    }

    #[tokio::test]
    async fn waiting_ends_with_its_time_and_says_that_the_operation_goes_on() {
        let (management, _) = failing().await;
        let error = until_end(&management, "ID", Some(Duration::ZERO)).await.unwrap_err().to_string();
        assert!(error.contains("not ended within 0 s") && error.contains("logseal operation wait ID"), "{error}");
        let unknown = until_end(&management, "other", None).await.unwrap_err();
        assert_eq!(unknown.status(), Some(StatusCode::NOT_FOUND));
    }

    #[test]
    fn progress_says_what_is_being_done() {
        let running = json!({"status": "Updating", "percentComplete": 60.0, "step": "rewrap-keys"});
        assert_eq!(line(&running, Duration::from_millis(3_900)), "Updating  60 %  rewrap-keys  3 s");
        assert_eq!(line(&json!({"status": "InProgress"}), Duration::ZERO), "InProgress  0 %  0 s");
    }

    #[test]
    fn an_operation_that_failed_fails_the_command_with_its_code() {
        let failed =
            json!({"name": "ID", "status": "Failed", "error": {"code": "KeyNotFound", "message": "no such key"}});
        let error = succeeded(&failed).unwrap_err();
        assert_eq!(error.to_string(), "KeyNotFound: no such key; `logseal operation show ID` shows the operation");
        assert!(!error.is_usage());
        assert!(
            succeeded(&json!({"name": "ID", "status": "Canceled"})).unwrap_err().to_string().starts_with("Canceled: ")
        );
        assert!(succeeded(&json!({"status": "Succeeded"})).is_ok());
        assert!(has_ended(&failed) && !has_ended(&json!({"status": "Deleting"})) && !has_ended(&json!({})));
    }
}
