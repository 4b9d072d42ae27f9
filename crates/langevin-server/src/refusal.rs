//! Why a request gets no picture: a status, a sentence, and the limit where there is one.

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::json;

/// An answer that is an error, as JSON: `{"error": …}`, with `field` where another value of one would help, and its `limit` where one was passed.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Refusal {
    status: StatusCode,
    message: String,
    /// The field of the request that is to be another.
    field: Option<&'static str>,
    limit: Option<u64>,
    retry_after: Option<u64>,
}

impl Refusal {
    pub(crate) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
            field: None,
            limit: None,
            retry_after: None,
        }
    }

    /// 400: not even well formed.
    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// 422: well formed, and cannot be done.
    pub(crate) fn unprocessable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, message)
    }

    /// 422: more than a limit.
    pub(crate) fn beyond(field: &'static str, asked: impl std::fmt::Display, limit: u64) -> Self {
        let message = format!("{field} is {asked}, and may be {limit} at most on this server");
        Self::unprocessable(message).with_limit(field, limit)
    }

    /// With the limit that the request's `field` is over.
    pub(crate) fn with_limit(self, field: &'static str, limit: u64) -> Self {
        Self {
            field: Some(field),
            limit: Some(limit),
            ..self
        }
    }

    /// With the field that is to be another.
    pub(crate) fn with_field(self, field: &'static str) -> Self {
        Self {
            field: Some(field),
            ..self
        }
    }

    /// With the seconds after which it may go better.
    pub(crate) fn retry_after(self, seconds: u64) -> Self {
        Self {
            retry_after: Some(seconds),
            ..self
        }
    }

    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, message)
    }

    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, message)
    }
}

impl From<langevin::Error> for Refusal {
    fn from(error: langevin::Error) -> Self {
        let refusal = Self::unprocessable(error.spelled(str::to_string));
        match error {
            langevin::Error::Option {
                options: [field, ..], ..
            } => refusal.with_field(field),
            _ => refusal,
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut body = json!({ "error": self.message });
        if let Some(field) = self.field {
            body["field"] = field.into();
        }
        if let Some(limit) = self.limit {
            body["limit"] = limit.into();
        }
        let mut response = (self.status, Json(body)).into_response();
        if let Some(seconds) = self.retry_after {
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}
