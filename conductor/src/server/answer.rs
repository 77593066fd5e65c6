//! Errors on their way out: an HTTP status and an [`ErrorBody`].

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

use crate::api::{ErrorBody, ErrorCode};
use crate::db::DbError;
use crate::refusal::Refusal;

/// What a call answers.
pub(super) type Answer<T> = Result<Json<T>, ApiError>;

/// Marks a response: the decision was refused because another conductor has taken over.
#[derive(Clone, Copy, Debug)]
pub(super) struct WasFenced;

/// A call that was not carried out.
#[derive(Debug)]
pub(super) struct ApiError {
    body: ErrorBody,
    fenced: bool,
}

impl ApiError {
    /// The conductor is going away.
    pub(super) fn stopping() -> Self {
        Self::from(ErrorBody {
            error: ErrorCode::Unavailable,
            message: "the conductor is stopping".to_owned(),
            hint: "try again when it is back".to_owned(),
        })
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        Self::from(refusal.body())
    }
}

impl From<ErrorBody> for ApiError {
    fn from(body: ErrorBody) -> Self {
        Self { body, fenced: false }
    }
}

impl From<DbError> for ApiError {
    fn from(error: DbError) -> Self {
        let fenced = matches!(error, DbError::Fenced);
        let (code, hint) = match error {
            DbError::Refused(refusal) => return refusal.into(),
            DbError::Fenced => {
                (ErrorCode::Standby, "ask the conductor that took over, or restart this one")
            }
            // Closed at the end of the term, before anything was begun.
            DbError::Unavailable(sqlx::Error::PoolClosed) => {
                let message = "this conductor is not active any more".to_owned();
                let hint = "ask again; it knows the active one soon".to_owned();
                return ErrorBody { error: ErrorCode::Standby, message, hint }.into();
            }
            DbError::Interrupted | DbError::Unknown(_) => {
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
        let body = ErrorBody { error: code, message: error.to_string(), hint: hint.to_owned() };
        Self { body, fenced }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (status(self.body.error), Json(self.body)).into_response();
        if self.fenced {
            response.extensions_mut().insert(WasFenced);
        }
        response
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
        ErrorCode::Unavailable | ErrorCode::Standby => StatusCode::SERVICE_UNAVAILABLE,
        ErrorCode::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}
