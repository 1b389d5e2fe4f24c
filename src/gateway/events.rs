//! A stream of server-sent events: a bounded buffer between who tells and who listens, and an end that is told.
//!
//! ```text
//!   pump -> [ 256 events, bounded ] -> response        full for 5 s: event `end`, slow_consumer
//! ```
//!
//! Invariants: the last event has its place from the start, so an end is told however full the buffer is; who listens no
//! longer is noticed at once, and the stream behind it ends. Deliberately absent: what is told.

use super::failure::{Failure, HttpCode};
use super::{Shared, limits};
use axum::http::HeaderMap;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{AppendHeaders, IntoResponse as _, Response};
use futures_lite::stream;
use serde_json::json;
use std::convert::Infallible;
use tokio::sync::mpsc::{self, OwnedPermit};
use tokio::time::timeout;

/// Why a stream ends.
pub enum End {
    /// Its listener went away: nobody is to be told.
    Left,
    /// The node ended it, or we do.
    Told(Failure),
}

impl From<Failure> for End {
    fn from(failure: Failure) -> Self {
        Self::Told(failure)
    }
}

/// The end that tells.
pub struct Events {
    to: mpsc::Sender<Event>,
    last: OwnedPermit<Event>,
}

impl Events {
    /// A stream, and the response it goes out by.
    pub fn open() -> Result<(Self, Response), Failure> {
        let (to, from) = mpsc::channel(limits::EVENTS_AHEAD);
        let last = to.clone().try_reserve_owned();
        let last = last.map_err(|_| Failure::http(HttpCode::NotServing, "a new stream has no room"))?;
        let events = stream::unfold(from, |mut from| async { Some((Ok::<_, Infallible>(from.recv().await?), from)) });
        let alive = KeepAlive::new().interval(limits::KEEP_ALIVE).text("alive");
        let response = (AppendHeaders([("x-accel-buffering", "no")]), Sse::new(events).keep_alive(alive));
        Ok((Self { to, last }, response.into_response()))
    }

    /// Hands over an event. **Errors:** nobody takes it.
    pub async fn say(&self, event: Event) -> Result<(), End> {
        match timeout(limits::SLOW_AFTER, self.to.send(event)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(End::Left),
            Err(_) => {
                let message = format!(
                    "{} events waited and none was taken for {:?}: come back behind the last one you saw",
                    limits::EVENTS_AHEAD,
                    limits::SLOW_AFTER
                );
                Err(Failure::http(HttpCode::SlowConsumer, message).into())
            }
        }
    }

    /// Returns when nobody listens any more.
    pub async fn left(&self) {
        self.to.closed().await;
    }

    /// The last event, where somebody is to be told.
    pub fn end(self, shared: &Shared, end: End) {
        if let End::Told(failure) = end {
            shared.requests.ended(failure.words().code);
            let data = json!(failure.words());
            self.last.send(Event::default().event("end").data(data.to_string()));
        }
    }
}

/// What the client says it saw last; `read` understands it. **Errors:** it is no event's id of this stream.
pub fn last_event_id<T>(headers: &HeaderMap, read: impl Fn(&str) -> Option<T>) -> Result<Option<T>, Failure> {
    let id = headers.get("last-event-id").map(|id| id.to_str().unwrap_or("-")).filter(|id| !id.is_empty());
    let unknown =
        |id| Failure::http(HttpCode::BadQuery, format!("Last-Event-ID '{id}' is no event's id of this stream"));
    id.map(|id| read(id).ok_or_else(|| unknown(id))).transpose()
}
