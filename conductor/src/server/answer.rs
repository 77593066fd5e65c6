//! Errors on their way out: an HTTP status and an [`ErrorBody`].

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

use crate::api::{ErrorBody, ErrorCode};
use crate::db::DbError;
use crate::refusal::Refusal;

/// What a call answers.
pub(super) type Answer<T> = Result<Json<T>, ApiError>;

/// A call that was not carried out.
#[derive(Debug)]
pub(super) struct ApiError(ErrorBody);

impl ApiError {
    /// The conductor is going away.
    pub(super) fn stopping() -> Self {
        Self(ErrorBody {
            error: ErrorCode::Unavailable,
            message: "the conductor is stopping".to_owned(),
            hint: "try again when it is back".to_owned(),
        })
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        Self(refusal.body())
    }
}

impl From<DbError> for ApiError {
    fn from(error: DbError) -> Self {
        let (code, hint) = match error {
            DbError::Refused(refusal) => return refusal.into(),
            DbError::Fenced => {
                (ErrorCode::Unavailable, "ask the conductor that took over, or restart this one")
            }
            DbError::Interrupted => {
                (ErrorCode::Unavailable, "look at what is there before you try again")
            }
            DbError::Unavailable(_) => {
                tracing::warn!(%error, "MetaDB cannot be reached");
                (
                    ErrorCode::Unavailable,
                    "nothing was decided; try again when the database is back: the conductor \
                     finds it by itself",
                )
            }
            DbError::Database(_) | DbError::Damaged(_) => {
                tracing::error!(%error, "MetaDB failed");
                (
                    ErrorCode::Internal,
                    "the conductor's log says more; check space and health of its data folder",
                )
            }
        };
        Self(ErrorBody { error: code, message: error.to_string(), hint: hint.to_owned() })
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        (status(self.0.error), Json(self.0)).into_response()
    }
}

fn status(code: ErrorCode) -> StatusCode {
    match code {
        ErrorCode::Invalid => StatusCode::BAD_REQUEST,
        ErrorCode::NotFound => StatusCode::NOT_FOUND,
        ErrorCode::Exists | ErrorCode::Conflict | ErrorCode::InUse | ErrorCode::NoSpace => {
            StatusCode::CONFLICT
        }
        ErrorCode::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        ErrorCode::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        ErrorCode::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}
