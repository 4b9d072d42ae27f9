//! Why a request gets no picture: a status, a sentence, and the limit where there is one.

use std::borrow::Cow;

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};

/// A field of two names, and what it was called first.
const SCHEDULER: &str = "scheduler";
pub(crate) const SAMPLER: &str = "sampler";

/// The name among `given` that a sentence has in it, with `_` or with spaces; of several the longest.
fn blamed<'a>(message: &str, given: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let words: Vec<&str> = message
        .split(|c: char| !c.is_alphanumeric() && c != '_')
        .collect();
    let is_in = |name: &&str| {
        let spoken = name.replace('_', " ");
        words.contains(name) || (spoken.contains(' ') && message.contains(&spoken))
    };
    given.filter(is_in).max_by_key(|name| name.len())
}

/// An answer that is an error, as JSON: `{"error": …}`, with `field` where another value of one would help, and its `limit` where one was passed.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Refusal {
    status: StatusCode,
    message: String,
    /// The field of the request that is to be another.
    field: Option<Cow<'static, str>>,
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
    pub(crate) fn beyond(
        field: impl Into<Cow<'static, str>>,
        asked: impl std::fmt::Display,
        limit: u64,
    ) -> Self {
        let field = field.into();
        let message = format!("{field} is {asked}, and may be {limit} at most on this server");
        Self::unprocessable(message).with_limit(field, limit)
    }

    /// With the limit that the request's `field` is over.
    pub(crate) fn with_limit(self, field: impl Into<Cow<'static, str>>, limit: u64) -> Self {
        Self {
            field: Some(field.into()),
            limit: Some(limit),
            ..self
        }
    }

    /// With the field that is to be another.
    pub(crate) fn with_field(self, field: impl Into<Cow<'static, str>>) -> Self {
        Self {
            field: Some(field.into()),
            ..self
        }
    }

    /// With the field that is to be another, where none is known: of those that were `given`, the one that the sentence is about, and
    /// `otherwise` where it is about none. A field is called as the caller did.
    pub(crate) fn or_field<'a>(
        self,
        given: impl Iterator<Item = &'a str> + Clone,
        otherwise: &'static str,
    ) -> Self {
        if self.status != StatusCode::UNPROCESSABLE_ENTITY {
            return self;
        }
        match &self.field {
            Some(field) if *field == SCHEDULER && given.clone().any(|name| name == SAMPLER) => {
                self.with_field(SAMPLER)
            }
            Some(_) => self,
            None => {
                let field = blamed(&self.message, given).map(str::to_string);
                match field {
                    Some(field) => self.with_field(field),
                    None => self.with_field(otherwise),
                }
            }
        }
    }

    /// With fields under other names: pairs of ours and theirs, for requests that were made in another API's words.
    pub(crate) fn renamed(self, names: &[(&'static str, &'static str)]) -> Self {
        let theirs = self
            .field
            .as_ref()
            .and_then(|field| names.iter().find(|(ours, _)| field == ours));
        match theirs {
            Some((_, theirs)) => self.with_field(*theirs),
            None => self,
        }
    }

    /// The answer in another API's words, made of the status and the usual body.
    pub(crate) fn into_response_as(self, words: impl FnOnce(u16, &Value) -> Value) -> Response {
        let body = words(self.status.as_u16(), &self.body());
        self.answer(body)
    }

    /// What is said of it.
    fn body(&self) -> Value {
        let mut body = json!({ "error": self.message });
        if let Some(field) = &self.field {
            body["field"] = field.as_ref().into();
        }
        if let Some(limit) = self.limit {
            body["limit"] = limit.into();
        }
        body
    }

    fn answer(&self, body: Value) -> Response {
        let mut response = (self.status, Json(body)).into_response();
        if let Some(seconds) = self.retry_after {
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
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

    /// The same, of something that an address names.
    pub(crate) fn into_not_found(self) -> Self {
        Self {
            status: StatusCode::NOT_FOUND,
            field: None,
            ..self
        }
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
            } => refusal.with_field(*field),
            _ => refusal,
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        self.answer(self.body())
    }
}
