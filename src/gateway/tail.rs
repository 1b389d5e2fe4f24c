//! `GET /v2/tail`: the log as server-sent events.
//!
//! ```text
//!   since=TX                    what later transactions stored; 0 = all there is; not said: from now on
//!   market=NAME | PATTERN       only of these markets; * stands for anything
//!   attribute=NAME,NAME ..      rows, whole, by any attribute of theirs (tick/id, quote/bid ..), facts by the name of theirs
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

use super::events::{self, Listener, Teller, last_event_id};
use super::facts::known;
use super::failure::{Failure, HttpCode};
use super::place::Places;
use super::query::{market_id, tx};
use super::{Shared, limits, parameters};
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::HeaderMap;
use axum::response::Response;
use axum::response::sse::Event;
use myelin_client::{Client, Tail, TailNews, TailPlace, TailWanted};
use myelin_datom::{EntityId, Kind, Tx};
use myelin_feed::facts::say;
use myelin_said::{QuoteSaid, TickSaid};
use myelin_wire::{LogKind, Logged, Named, TAIL_ATTRIBUTES_MAX, TailEntry};
use serde::Deserialize;
use serde_json::{Value, json};
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
    let listener = Listener::admit(&shared)?;
    let asked = parameters(query)?;
    let client = shared.client().await?;
    let last = last_event_id(&headers, Places::read)?;
    let beginning = begin(&shared, client, &asked, last);
    let late = || Failure::http(HttpCode::NotServing, "the node did not answer in time");
    let (tail, places) = timeout(limits::ANSWER_WITHIN, beginning).await.unwrap_or_else(|_| Err(late()))?;
    listener.hear(Telling { shared: Arc::clone(&shared), client: client.clone(), places, tail })
}

fn bad(message: impl Into<String>) -> Failure {
    Failure::http(HttpCode::BadQuery, message)
}

async fn begin(
    shared: &Shared,
    client: &Client,
    asked: &Parameters,
    last: Option<(Places<TailPlace>, Option<TailPlace>)>,
) -> Result<(Tail, Places<TailPlace>), Failure> {
    let since = match (&asked.since, &asked.from) {
        // It was a transaction here and is an event time elsewhere: one name, two clocks.
        (_, Some(_)) => return Err(bad("'from' has no use here: say since=TX; what was from=TX is since=TX less 1")),
        (Some(since), None) => Some(tx(since)?),
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
    for ident in &idents {
        known(client, ident).await?;
    }
    let mut places = last.map(|(places, _)| places).unwrap_or_default();
    let after = places.begin_all(client.shards());
    let (after, kinds, attributes) = (&after[..], &kinds[..], &idents[..]);
    let wanted = TailWanted { since, after, kinds, entity, named, attributes };
    let tail = client.tail(wanted).await.map_err(|error| Failure::error(&error))?;
    for (shard, basis) in tail.begun() {
        places.note_first(*shard, TailPlace::behind(since.unwrap_or(*basis).bits()));
    }
    Ok((tail, places))
}

/// Which kinds the attributes name, and which of them are facts'.
fn wanted(attributes: Option<&str>) -> Result<(Vec<LogKind>, Vec<&str>), Failure> {
    let (mut kinds, mut idents) = (Vec::new(), Vec::new());
    for name in attributes.iter().flat_map(|names| names.split(',')) {
        let kind = LogKind::of_attribute(name);
        if kind == LogKind::Fact {
            idents.push(name.strip_prefix(':').unwrap_or(name));
        }
        kinds.push(kind);
    }
    if idents.len() > TAIL_ATTRIBUTES_MAX {
        return Err(bad(format!("at most {TAIL_ATTRIBUTES_MAX} attributes")));
    }
    Ok((kinds, idents))
}

/// Tells the entries of the log.
struct Telling {
    shared: Arc<Shared>,
    client: Client,
    places: Places<TailPlace>,
    tail: Tail,
}

impl Teller for Telling {
    fn begun(&self) -> Event {
        let data = json!({ "shards": events::begun(self.tail.begun()) });
        Event::default().event("begun").id(self.places.id(None)).data(data.to_string())
    }

    async fn next(&mut self) -> Result<Event, Failure> {
        match self.tail.next().await {
            Ok(Some(TailNews::Entry { shard, replayed, applied, entry })) => {
                self.say(shard, replayed, applied, entry).await
            }
            Ok(Some(TailNews::Ended { why, .. })) => Err(Failure::refusal(&why)),
            Ok(None) => Err(Failure::http(HttpCode::NotServing, "no shard sends any more")),
            Err(error) => Err(Failure::http(HttpCode::NotServing, error.to_string())),
        }
    }
}

impl Telling {
    async fn say(&mut self, shard: u16, replayed: bool, applied: Tx, entry: TailEntry) -> Result<Event, Failure> {
        let (tx, n, number) = (entry.tx, entry.n, entry.number);
        let mut said = self.what(Tx::from_bits(tx), entry.what).await?;
        let about = json!({ "shard": shard, "tx": tx.to_string(), "n": n, "number": number, "replayed": replayed,
                            "applied": applied.to_string() });
        if let (Value::Object(said), Value::Object(about)) = (&mut said, about) {
            said.extend(about);
        }
        let mut place = self.places.of(shard).unwrap_or_default();
        place.note(tx);
        self.places.note(shard, place);
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
                        "quote": QuoteSaid::new(tx, &quote) })
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
