//! Why a request was not done, as the sender is told: a status, a stable code, a sentence, the rows at fault.
//!
//! ```text
//!   {"code":..,"message":..,"first_bad":..,"bad":[{"row","code","message"}, at most 100],"accepted":..}
//! ```
//!
//! | status             | whose fault      | what the sender does                                     |
//! |--------------------|------------------|----------------------------------------------------------|
//! | 400 404 405 408 409 413 415 422 | the sender's | repairs the request; repeating it changes nothing |
//! | 429, 503, 507      | load, a restart, a full disk | repeats it after `Retry-After`; ids make that safe |
//! | 503 without a time | a failed storage | reads `/readyz`                                          |
//!
//! Codes of the wire keep their names and statuses; [`HttpCode`] has those that only HTTP knows; both stand in
//! `net/wire/src/code.rs`, where `myelin explain` reads them. Deliberately absent: 500,
//! which is our bug, and a refusal without a code.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use myelin_client::{Error, Refusal};
use myelin_wire::Code;
pub use myelin_wire::HttpCode;
use serde::Serialize;

/// One row that was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BadRow {
    /// Its number in the request, from 0.
    pub row: u32,
    /// The reason's stable name.
    pub code: String,
    /// The reason for people.
    pub message: String,
}

impl BadRow {
    /// A row that the wire's codes know.
    pub fn of(row: u32, code: Code) -> Self {
        Self { row, code: code.name().to_owned(), message: code.explanation().trim().to_owned() }
    }
}

/// What the sender is told.
#[derive(Debug)]
pub struct Failure(Box<Told>);

#[derive(Debug)]
struct Told {
    status: StatusCode,
    /// **Units:** seconds.
    retry_after: Option<u64>,
    body: Body,
}

#[derive(Debug, Serialize)]
struct Body {
    code: String,
    message: String,
    first_bad: Option<u32>,
    bad: Vec<BadRow>,
    accepted: u64,
    /// The oldest transaction that can be asked for, or resumed behind.
    #[serde(skip_serializing_if = "Option::is_none")]
    oldest: Option<String>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    more: Option<serde_json::Value>,
}

impl Failure {
    fn told(status: StatusCode, code: &str, message: String) -> Self {
        let (code, bad) = (code.to_owned(), Vec::new());
        let body = Body { code, message, first_bad: None, bad, accepted: 0, oldest: None, more: None };
        Self(Box::new(Told { status, retry_after: None, body }))
    }

    /// One that only HTTP knows.
    pub fn http(code: HttpCode, message: impl Into<String>) -> Self {
        let status = StatusCode::from_u16(code.http_status()).unwrap_or(StatusCode::BAD_REQUEST);
        let failure = Self::told(status, code.name(), message.into());
        if status == StatusCode::SERVICE_UNAVAILABLE { failure.retry_after(1) } else { failure }
    }

    /// One of the wire's, in other words.
    pub fn wire(code: Code, message: impl Into<String>) -> Self {
        let status = StatusCode::from_u16(code.http_status()).unwrap_or(StatusCode::BAD_REQUEST);
        let failure = Self::told(status, code.name(), message.into());
        if code.passes() { failure.retry_after(1) } else { failure }
    }

    /// Every place is taken.
    pub fn busy(what: &str) -> Self {
        Self::wire(Code::Busy, format!("{what}: come back"))
    }

    /// Rows that were refused before any was sent.
    pub fn rows(bad: Vec<BadRow>) -> Self {
        let first = bad.first().cloned();
        let first = first.unwrap_or_else(|| BadRow::of(0, Code::BadBody));
        let status = Code::ALL.iter().find(|code| code.name() == first.code).map_or(400, |code| code.http_status());
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST);
        let message = format!("row {}: {}", first.row, first.message);
        let mut failure = Self::told(status, &first.code, message);
        failure.0.body.first_bad = Some(first.row);
        failure.0.body.bad = bad;
        failure
    }

    /// The node's own refusal.
    pub fn refusal(refusal: &Refusal) -> Self {
        let mut failure = match refusal.code {
            Some(code) => Self::wire(code, refusal.message.clone()),
            None => Self::told(StatusCode::UNPROCESSABLE_ENTITY, &refusal.name(), refusal.message.clone()),
        };
        if let Some(Code::BelowHorizon | Code::Compacted) = refusal.code {
            failure.0.body.oldest = Some(refusal.aux.to_string());
        }
        failure.0.body.first_bad = refusal.first_bad;
        failure
    }

    /// What asking the node came to.
    pub fn error(error: &Error) -> Self {
        match error {
            Error::Refused(refusal) => Self::refusal(refusal),
            Error::Unknown(lost) => Self::http(HttpCode::UnknownOutcome, format!("{lost}; repeating is safe with ids")),
            Error::Unreachable { .. } | Error::Untrusted { .. } | Error::Protocol(_) | Error::Closed => {
                Self::http(HttpCode::NotServing, error.to_string())
            }
        }
    }

    /// Says when to come back. **Units:** seconds.
    pub fn retry_after(mut self, seconds: u64) -> Self {
        self.0.retry_after = Some(seconds);
        self
    }

    /// Says what was done all the same.
    pub fn with(mut self, first_bad: Option<u32>, bad: Vec<BadRow>, accepted: u64, more: serde_json::Value) -> Self {
        let body = &mut self.0.body;
        (body.first_bad, body.bad, body.accepted, body.more) = (first_bad, bad, accepted, Some(more));
        self
    }

    /// The code and the sentence, where there is no response to put them in.
    pub fn words(&self) -> Words<'_> {
        let body = &self.0.body;
        Words { code: &body.code, message: &body.message, oldest: body.oldest.as_deref() }
    }
}

/// See [`Failure::words`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Words<'a> {
    /// The stable name.
    pub code: &'a str,
    /// The sentence.
    pub message: &'a str,
    /// The oldest transaction that can be resumed behind.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oldest: Option<&'a str>,
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let Told { status, retry_after, body } = *self.0;
        let mut response = (status, Json(body)).into_response();
        if let Some(seconds) = retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}
