//! `GET /v2/tail`: the log as server-sent events.
//!
//! ```text
//!   since=TX                    what later transactions stored; from=TX: that one too; 0 = all there is; neither: from now on
//!   market=NAME | PATTERN       only of these markets; * stands for anything
//!   attribute=NAME,NAME ..      rows by kind (tick/id, quote/id, market/id), facts by the name of their attribute
//!   entity=ID                   only what is about it: a market, a trader, an entity of facts or what points at it
//!   Last-Event-ID: ..           behind that event of the same question, nothing left out and nothing twice
//! ```
//!
//! | event   | data                                                                                            |
//! |---------|-------------------------------------------------------------------------------------------------|
//! | `begun` | `{"shards":[{"shard","tx"}]}`: what comes later is told                                          |
//! | `entry` | `{"shard","tx","n","attribute","market","replayed","applied", ..}` and `tick`, `quote`, or what a fact says |
//! | `end`   | `{"code","message"}`: no more will come over this response                                      |
//!
//! An event's id is a place per shard, the event's own first: `shard:tx:entries`, so many entries of `tx` told; without
//! entries all of them. Invariant: each entry once, in the order of its shard. Deliberately absent: one order over shards.

use super::events::{End, Events, last_event_id};
use super::failure::{Failure, HttpCode};
use super::query::{market_id, tx};
use super::{Shared, limits, parameters, take_place};
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::HeaderMap;
use axum::response::Response;
use axum::response::sse::Event;
use myelin_client::{Client, Tail, TailNews, TailPlace, TailWanted};
use myelin_datom::{EntityId, Kind, Quote, Tx};
use myelin_feed::facts::say;
use myelin_said::{TickSaid, say_instant};
use myelin_wire::{LogKind, Logged, Named, TAIL_ATTRIBUTES_MAX, TailEntry};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use tokio::time::timeout;

/// What is wanted of the log.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Parameters {
    since: Option<String>,
    from: Option<String>,
    market: Option<String>,
    attribute: Option<String>,
    entity: Option<String>,
}

/// The handler.
pub async fn tail(
    State(shared): State<Arc<Shared>>,
    query: Result<Query<Parameters>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let watcher = take_place(&shared.watchers, "as many watchers as there are places for listen")?;
    let asked = parameters(query)?;
    let client = shared.client().await?;
    let last = last_event_id(&headers, Places::read)?;
    let beginning = begin(&shared, client, &asked, last);
    let late = || Failure::http(HttpCode::NotServing, "the node did not answer in time");
    let (tail, places) = timeout(limits::ANSWER_WITHIN, beginning).await.unwrap_or_else(|_| Err(late()))?;
    let (events, response) = Events::open()?;
    let pump = Pump { shared: Arc::clone(&shared), client: client.clone(), places, events };
    drop(tokio::spawn(async move {
        pump.run(tail).await;
        drop(watcher);
    }));
    Ok(response)
}

fn bad(message: impl Into<String>) -> Failure {
    Failure::http(HttpCode::BadQuery, message)
}

async fn begin(
    shared: &Shared,
    client: &Client,
    asked: &Parameters,
    last: Option<Places>,
) -> Result<(Tail, Places), Failure> {
    let since = match (&asked.since, &asked.from) {
        (Some(_), Some(_)) => return Err(bad("say since=TX or from=TX, not both")),
        (Some(since), None) => Some(tx(since)?),
        (None, Some(from)) => Some(Tx::from_bits(tx(from)?.bits().saturating_sub(1))),
        (None, None) => None,
    };
    let entity = asked.entity.as_ref().map(|text| text.parse().map(EntityId::from_bits)).transpose();
    let entity = entity.map_err(|_| bad("an entity is a decimal id"))?;
    let named = match &asked.market {
        None => Named::Any,
        Some(pattern) if pattern.contains('*') => Named::Like(pattern),
        Some(name) => {
            // A market that does not exist would be waited for in silence.
            market_id(shared, client, name).await?;
            Named::Market(name)
        }
    };
    let (kinds, idents) = wanted(asked.attribute.as_deref())?;
    let after = last.as_ref().map(|last| last.of_all(client.shards())).unwrap_or_default();
    let (after, kinds, attributes) = (&after[..], &kinds[..], &idents[..]);
    let wanted = TailWanted { since, after, kinds, entity, named, attributes };
    let tail = client.tail(wanted).await.map_err(|error| Failure::error(&error))?;
    let mut places = last.unwrap_or_default();
    for (shard, basis) in tail.begun() {
        places.0.entry(*shard).or_insert(TailPlace::behind(since.unwrap_or(*basis).bits()));
    }
    Ok((tail, places))
}

/// Which kinds the attributes name, and which of them are facts'.
fn wanted(attributes: Option<&str>) -> Result<(Vec<LogKind>, Vec<&str>), Failure> {
    let (mut kinds, mut idents) = (Vec::new(), Vec::new());
    for name in attributes.iter().flat_map(|names| names.split(',')) {
        let kind = match name {
            "tick/id" => LogKind::Tick,
            "quote/id" => LogKind::Quote,
            "market/id" => LogKind::Market,
            _ => LogKind::Fact,
        };
        if kind == LogKind::Fact {
            idents.push(name);
        }
        kinds.push(kind);
    }
    if idents.len() > TAIL_ATTRIBUTES_MAX {
        return Err(bad(format!("at most {TAIL_ATTRIBUTES_MAX} attributes")));
    }
    Ok((kinds, idents))
}

/// How far each shard's stream was told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Places(BTreeMap<u16, TailPlace>);

impl Places {
    /// Reads an event's id. `None` when it is none.
    fn read(text: &str) -> Option<Self> {
        let mut places = BTreeMap::new();
        for item in text.trim().split(',') {
            let mut numbers = item.split(':');
            let shard: u16 = numbers.next()?.parse().ok()?;
            let tx: u64 = numbers.next()?.parse().ok()?;
            let place = match (numbers.next(), numbers.next()) {
                (None, _) => TailPlace::behind(tx),
                (Some(entries), None) => TailPlace { tx, entries: entries.parse().ok()? },
                _ => return None,
            };
            places.insert(shard, place);
        }
        Some(Self(places))
    }

    /// A place for each of so many shards. One that is not named begins behind the smallest that is: it may tell what was
    /// told, and leaves nothing out.
    fn of_all(&self, shards: u16) -> Vec<(u16, TailPlace)> {
        let whole = |place: &TailPlace| match *place == TailPlace::behind(place.tx) {
            true => place.tx,
            false => place.tx.saturating_sub(1),
        };
        let Some(least) = self.0.values().map(whole).min() else { return Vec::new() };
        let place = |shard| self.0.get(&shard).copied().unwrap_or(TailPlace::behind(least));
        (0..shards).map(|shard| (shard, place(shard))).collect()
    }

    /// The id of an event, this shard's place first.
    fn id(&self, first: Option<u16>) -> String {
        let mut id = String::new();
        let first = first.and_then(|shard| self.0.get_key_value(&shard));
        let others = self.0.iter().filter(|(shard, _)| first.is_none_or(|(first, _)| first != *shard));
        for (shard, TailPlace { tx, entries }) in first.into_iter().chain(others) {
            if !id.is_empty() {
                id.push(',');
            }
            let _ = match *entries {
                u32::MAX => write!(id, "{shard}:{tx}"),
                entries => write!(id, "{shard}:{tx}:{entries}"),
            };
        }
        id
    }
}

/// From the tail to the bounded buffer.
struct Pump {
    shared: Arc<Shared>,
    client: Client,
    places: Places,
    events: Events,
}

impl Pump {
    async fn run(mut self, mut tail: Tail) {
        let end = self.pump(&mut tail).await;
        // The node is told before the watcher's place is free.
        drop(tail);
        self.events.end(&self.shared, end);
    }

    async fn pump(&mut self, tail: &mut Tail) -> End {
        let shards: Vec<_> =
            tail.begun().iter().map(|(shard, tx)| json!({ "shard": shard, "tx": tx.to_string() })).collect();
        let begun = Event::default().event("begun").id(self.places.id(None));
        let mut event = begun.data(json!({ "shards": shards }).to_string());
        loop {
            if let Err(end) = self.events.say(event).await {
                return end;
            }
            let news = tokio::select! {
                news = tail.next() => news,
                () = self.events.left() => return End::Left,
            };
            event = match news {
                Ok(Some(TailNews::Entry { shard, replayed, applied, entry })) => {
                    match self.say(shard, replayed, applied, entry).await {
                        Ok(event) => event,
                        Err(failure) => return failure.into(),
                    }
                }
                Ok(Some(TailNews::Ended { why, .. })) => return Failure::refusal(&why).into(),
                Ok(None) => return Failure::http(HttpCode::NotServing, "no shard sends any more").into(),
                Err(error) => return Failure::http(HttpCode::NotServing, error.to_string()).into(),
            };
        }
    }

    async fn say(&mut self, shard: u16, replayed: bool, applied: Tx, entry: TailEntry) -> Result<Event, Failure> {
        let (tx, n, number) = (entry.tx, entry.n, entry.number);
        let mut said = self.what(Tx::from_bits(tx), entry.what).await?;
        let about = json!({ "shard": shard, "tx": tx.to_string(), "n": n, "number": number, "replayed": replayed,
                            "applied": applied.to_string() });
        if let (Value::Object(said), Value::Object(about)) = (&mut said, about) {
            said.extend(about);
        }
        self.places.0.entry(shard).or_default().note(tx);
        Ok(Event::default().event("entry").id(self.places.id(Some(shard))).data(said.to_string()))
    }

    async fn what(&self, tx: Tx, what: Logged) -> Result<Value, Failure> {
        Ok(match what {
            Logged::Tick(tick) => {
                let market = self.name(tick.market).await?;
                json!({ "attribute": "tick/id", "market": market, "entity": tick.market.to_string(),
                        "tick": TickSaid::new(tx, &tick) })
            }
            Logged::Quote(quote) => {
                let market = self.name(quote.market).await?;
                json!({ "attribute": "quote/id", "market": market, "entity": quote.market.to_string(),
                        "quote": quote_said(&quote) })
            }
            Logged::Market { id, flags, name } => {
                json!({ "attribute": "market/id", "market": name, "entity": id.to_string(), "flags": flags.0 })
            }
            Logged::Fact { datom, ident } => {
                let about = datom.e.kind() == Some(Kind::Market);
                let market = if about { Some(self.name(datom.e).await?) } else { None };
                let attribute = if ident.is_empty() { datom.a.to_string() } else { ident };
                json!({ "attribute": attribute, "market": market, "entity": datom.e.to_string(), "added": datom.added,
                        "value": say(&datom.v), "type": datom.v.value_type().name() })
            }
            Logged::Other(kind) => json!({ "attribute": "unknown", "kind": kind }),
        })
    }

    async fn name(&self, market: EntityId) -> Result<String, Failure> {
        let name = self.shared.names.name(&self.client, market.bits()).await?;
        Ok(name.unwrap_or_else(|| market.to_string()))
    }
}

fn quote_said(quote: &Quote) -> Value {
    json!({ "id": quote.id.to_string(), "event_time": say_instant(quote.event_time_ns), "bid": quote.bid,
            "bid_volume": quote.bid_volume, "ask": quote.ask, "ask_volume": quote.ask_volume,
            "source": quote.source.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_read_back_and_what_is_none_is_refused() {
        for text in ["0:5:3", "1:9:1,0:7,2:8:4", "0:5"] {
            let first = text.split(':').next().unwrap().parse().unwrap();
            assert_eq!(Places::read(text).unwrap().id(Some(first)), text);
        }
        for text in ["", "0", "x:1", "0:1:2:3", "0:1,", "70000:1", "0:-1"] {
            assert_eq!(Places::read(text), None, "{text}");
        }
    }

    #[test]
    fn a_shard_that_is_not_named_begins_where_nothing_is_left_out() {
        let places = Places::read("1:9:4,2:7:1").unwrap();
        assert_eq!(places.of_all(3)[0], (0, TailPlace::behind(6)));
        assert_eq!(Places::read("1:9:4,2:7").unwrap().of_all(1), [(0, TailPlace::behind(7))]);
        assert_eq!(Places::default().of_all(3), []);
    }
}
