//! A listener: somebody to whom server-sent events are told, through a bounded buffer, until an end that is told as well.
//!
//! ```text
//!   place of a listener -> Teller -> [ 256 events, bounded ] -> response        full for 5 s: event `end`, slow_consumer
//! ```
//!
//! Invariants: the last event has its place from the start, so an end is told however full the buffer is; who listens no
//! longer is noticed at once, and the stream behind it ends, before the listener's place is free. Deliberately absent: what
//! is told (`watch.rs`, `tail.rs`).

use super::failure::{Failure, HttpCode};
use super::{Shared, limits, take_place};
use axum::http::HeaderMap;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{AppendHeaders, IntoResponse as _, Response};
use futures_lite::stream;
use myelin_datom::Tx;
use serde_json::{Value, json};
use std::convert::Infallible;
use std::sync::Arc;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::mpsc::{self, OwnedPermit};
use tokio::time::timeout;

/// What tells a listener. Dropped before the listener is told of the end.
pub trait Teller: Send + 'static {
    /// The first event.
    fn begun(&self) -> Event;

    /// The next event; whoever awaits it may give up and end. **Errors:** no more will come.
    fn next(&mut self) -> impl Future<Output = Result<Event, Failure>> + Send;
}

/// Who listens: one of so many places.
pub struct Listener {
    shared: Arc<Shared>,
    place: OwnedSemaphorePermit,
}

impl Listener {
    /// Takes a place. **Errors:** there is none.
    pub fn admit(shared: &Arc<Shared>) -> Result<Self, Failure> {
        let place = take_place(&shared.watchers, "as many watchers as there are places for listen")?;
        Ok(Self { shared: Arc::clone(shared), place })
    }

    /// The response by which all of it is told.
    pub fn hear(self, mut teller: impl Teller) -> Result<Response, Failure> {
        let (events, response) = Events::open()?;
        drop(tokio::spawn(async move {
            let end = events.tell(&mut teller).await;
            // The node is told before the listener's place is free.
            drop(teller);
            events.end(&self.shared, end);
            drop(self.place);
        }));
        Ok(response)
    }
}

/// What a `begun` says: from where on each shard tells.
pub fn begun(shards: &[(u16, Tx)]) -> Value {
    shards.iter().map(|(shard, tx)| json!({ "shard": shard, "tx": tx.to_string() })).collect()
}

/// Why a stream ends.
enum End {
    /// Its listener went away: nobody is to be told.
    Left,
    /// The node ended it, or we do.
    Told(Failure),
}

/// The buffer.
struct Events {
    to: mpsc::Sender<Event>,
    last: OwnedPermit<Event>,
}

impl Events {
    fn open() -> Result<(Self, Response), Failure> {
        let (to, from) = mpsc::channel(limits::EVENTS_AHEAD);
        let last = to.clone().try_reserve_owned();
        let last = last.map_err(|_| Failure::http(HttpCode::NotServing, "a new stream has no room"))?;
        let events = stream::unfold(from, |mut from| async { Some((Ok::<_, Infallible>(from.recv().await?), from)) });
        let alive = KeepAlive::new().interval(limits::KEEP_ALIVE).text("alive");
        let response = (AppendHeaders([("x-accel-buffering", "no")]), Sse::new(events).keep_alive(alive));
        Ok((Self { to, last }, response.into_response()))
    }

    /// Hands over one event after another.
    async fn tell(&self, teller: &mut impl Teller) -> End {
        let mut event = teller.begun();
        loop {
            if let Err(end) = self.say(event).await {
                return end;
            }
            let next = tokio::select! {
                next = teller.next() => next,
                () = self.to.closed() => return End::Left,
            };
            event = match next {
                Ok(event) => event,
                Err(failure) => return End::Told(failure),
            };
        }
    }

    /// Hands over an event. **Errors:** nobody takes it.
    async fn say(&self, event: Event) -> Result<(), End> {
        match timeout(limits::SLOW_AFTER, self.to.send(event)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(End::Left),
            Err(_) => {
                let message = format!(
                    "{} events waited and none was taken for {:?}: come back behind the last one you saw",
                    limits::EVENTS_AHEAD,
                    limits::SLOW_AFTER
                );
                Err(End::Told(Failure::http(HttpCode::SlowConsumer, message)))
            }
        }
    }

    /// The last event, where somebody is to be told.
    fn end(self, shared: &Shared, end: End) {
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
