//! What the driver's errors mean to the callers of the store. Texts hold no values and nothing that a server quoted.

use scylla::errors::{DbError, ExecutionError, PrepareError, RequestAttemptError};

use super::keys::BadCell;
use crate::metrics::StoreOutcome;
use crate::store::StoreError;

/// A request failed.
#[derive(Debug, Clone)]
pub(super) enum Failure {
    /// No answer in time: whether a write was done is unknown.
    Timeout(String),
    /// Anything else.
    Other(StoreError),
}

impl Failure {
    pub(super) fn away(text: impl Into<String>) -> Self {
        Self::Other(StoreError::Unavailable(text.into()))
    }

    pub(super) fn outcome(&self) -> StoreOutcome {
        match self {
            Self::Timeout(_) => StoreOutcome::Timeout,
            Self::Other(error) => StoreOutcome::of::<()>(&Err(error.clone())),
        }
    }
}

impl From<Failure> for StoreError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Timeout(text) => Self::Unavailable(text),
            Failure::Other(error) => error,
        }
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Other(error)
    }
}

impl From<BadCell> for Failure {
    fn from(_: BadCell) -> Self {
        Self::Other(StoreError::Damaged("a row's key is not of the form that this program writes".to_owned()))
    }
}

impl From<ExecutionError> for Failure {
    fn from(error: ExecutionError) -> Self {
        match error {
            ExecutionError::RequestTimeout(after) => Self::Timeout(format!("no answer within {after:?}")),
            ExecutionError::LastAttemptError(RequestAttemptError::DbError(error, _)) => of_server(&error),
            ExecutionError::LastAttemptError(RequestAttemptError::BrokenConnectionError(_)) => Self::Timeout("connection lost".to_owned()),
            ExecutionError::EmptyPlan | ExecutionError::ConnectionPoolError(_) => Self::away("no node can be reached"),
            ExecutionError::PrepareError(error) => error.into(),
            ExecutionError::LastAttemptError(_) => Self::away("the request was not understood"),
            _ => Self::away("the request could not be made"),
        }
    }
}

impl From<PrepareError> for Failure {
    fn from(error: PrepareError) -> Self {
        match error {
            PrepareError::AllAttemptsFailed { first_attempt: RequestAttemptError::DbError(error, _) } => of_server(&error),
            PrepareError::ConnectionPoolError(_) => Self::away("no node can be reached"),
            _ => Self::away("a statement was not prepared"),
        }
    }
}

fn of_server(error: &DbError) -> Failure {
    match error {
        DbError::ReadTimeout { received, required, .. } => {
            Failure::Timeout(format!("{received} of {required} replicas answered a read in time"))
        }
        DbError::WriteTimeout { received, required, .. } => {
            Failure::Timeout(format!("{received} of {required} replicas answered a write in time"))
        }
        DbError::Unavailable { required, alive, .. } => Failure::away(format!("{alive} of {required} needed replicas are alive")),
        DbError::ReadFailure { .. } => Failure::away("a replica failed to read, see its log: too many deleted rows, or a damaged disk"),
        DbError::WriteFailure { .. } => Failure::away("a replica failed to write, see its log"),
        DbError::Overloaded | DbError::RateLimitReached { .. } => Failure::away("the cluster is overloaded"),
        DbError::IsBootstrapping | DbError::ServerError | DbError::TruncateError => Failure::away("the node that was asked failed"),
        DbError::Unauthorized | DbError::AuthenticationError => Failure::away("the cluster's user may not do this"),
        DbError::Invalid | DbError::SyntaxError | DbError::ConfigError => {
            Failure::away("the cluster refused the statement: see `trunkline migrate status`, and the limits of batches and rows")
        }
        _ => Failure::away("the cluster answered with an error"),
    }
}
