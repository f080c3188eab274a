//! What can go wrong in serving, and what a client is told.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use std::net::SocketAddr;

/// Errors of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Other machines could reach it.
    #[error(
        "refusing to listen on {address}: only loopback addresses are allowed, for example 127.0.0.1:8420"
    )]
    NotLoopback {
        /// What was asked for.
        address: SocketAddr,
    },
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}; is another server running there?")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// Serving ended by itself.
    #[error("the HTTP server failed: {source}")]
    Serve {
        /// Why.
        source: std::io::Error,
    },
}

/// Why a [`Decider`](crate::Decider) has no decision. A command that was rejected is a decision, not an error.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecideError {
    /// The request cannot be decided as it is (answered 422).
    #[error("{0}")]
    Invalid(String),
    /// What is asked for is under way already (answered 409).
    #[error("{0}")]
    Busy(String),
    /// Nothing can be decided now (answered 503).
    #[error("{0}")]
    Unavailable(String),
    /// No answer in time (answered 504).
    #[error("{0}")]
    Timeout(String),
    /// A fault on our side (answered 500).
    #[error("{0}")]
    Internal(String),
}

/// An error answer: `{"error": {"code": …, "message": …}}`.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    pub(crate) code: &'static str,
    pub(crate) message: String,
}

impl Refusal {
    pub(crate) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into() }
    }

    pub(crate) fn to_json(&self) -> serde_json::Value {
        serde_json::json!({ "error": { "code": self.code, "message": self.message } })
    }

    pub(crate) fn bad_request(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, message)
    }
}

impl From<DecideError> for Refusal {
    fn from(error: DecideError) -> Self {
        let (status, code) = match &error {
            DecideError::Invalid(_) => (StatusCode::UNPROCESSABLE_ENTITY, "invalid"),
            DecideError::Busy(_) => (StatusCode::CONFLICT, "busy"),
            DecideError::Unavailable(_) => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
            DecideError::Timeout(_) => (StatusCode::GATEWAY_TIMEOUT, "timeout"),
            DecideError::Internal(_) => (StatusCode::INTERNAL_SERVER_ERROR, "internal"),
        };
        Self::new(status, code, error.to_string())
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.status, Json(self.to_json())).into_response()
    }
}
