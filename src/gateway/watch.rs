//! `GET /v2/watch`: firings as server-sent events.
//!
//! ```text
//!   reflex=ID | reflex=all                    a question that stands, from now on
//!   spec=above 61000 & scope=market:NAME      a new one; with id=ID it stays, else it goes with its last watcher
//!   .. & since=TX                             over history from there, flagged `replayed`, then live without a gap
//!   Last-Event-ID: ..                         behind that event, nothing left out
//!
//!   subscription -> events.rs -> response        its watcher leaves: the subscription ends at every shard
//! ```
//!
//! | event    | data                                                            |
//! |----------|-----------------------------------------------------------------|
//! | `begun`  | `{"reflex","shards":[{"shard","tx"}]}`: what comes later is heard |
//! | `firing` | the firing; the event's id is its place (`place.rs`)            |
//! | `end`    | `{"code","message"}`: no more will come over this response      |
//!
//! Invariant: a firing is told at least once to whoever goes on behind the last id it saw. Deliberately absent: order
//! across shards.

use super::events::{self, Listener, Teller, last_event_id};
use super::failure::{Failure, HttpCode};
use super::guests::Visit;
use super::place::Places;
use super::query::{market_id, tx};
use super::{Shared, limits, parameters, reflexes};
use crate::reflex::{Kind, Scope, Spec};
use crate::runtime::{clock, entropy};
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::HeaderMap;
use axum::response::Response;
use axum::response::sse::Event;
use myelin_client::{Client, Firing, FiringPlace, News, Subscription};
use myelin_datom::Tx;
use myelin_said::TickSaid;
use myelin_wire::Code;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::time::timeout;

/// What is watched.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Parameters {
    reflex: Option<String>,
    spec: Option<String>,
    scope: Option<String>,
    id: Option<String>,
    since: Option<String>,
}

/// The handler.
pub async fn watch(
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
    let Beginning { reflex, since, mut places, visit } =
        timeout(limits::ANSWER_WITHIN, beginning).await.unwrap_or_else(|_| Err(late()))?;
    let after = places.begin_all(client.shards());
    let subscribing = async {
        match (reflex, since) {
            // It depends on where it begins, so it begins there again, and what was seen is passed over.
            (Some(reflex), Some(since)) => client.back_test(reflex, since).await,
            _ => client.subscribe(reflex, &after).await,
        }
    };
    let subscription = timeout(limits::ANSWER_WITHIN, subscribing).await.map_err(|_| late())?;
    let subscription = subscription.map_err(|error| Failure::error(&error))?;
    for (shard, tx) in subscription.begun() {
        places.note_first(*shard, behind(*tx, reflex));
    }
    let (shared, client) = (Arc::clone(&shared), client.clone());
    listener.hear(Telling { shared, client, reflex, places, subscription, _visit: visit })
}

fn bad(message: impl Into<String>) -> Failure {
    Failure::http(HttpCode::BadQuery, message)
}

/// What is watched, and from where.
struct Beginning {
    /// `None` = all.
    reflex: Option<u64>,
    /// Over history from here.
    since: Option<Tx>,
    /// What was seen already, or counts as seen.
    places: Places<FiringPlace>,
    visit: Visit,
}

impl Beginning {
    fn new(shared: &Arc<Shared>, reflex: Option<u64>, since: Option<Tx>) -> Self {
        let visit = Visit::new(shared, reflex.unwrap_or_default());
        Self { reflex, since, places: Places::default(), visit }
    }
}

/// Behind all that this reflex, or any, fired at `tx` or before. Names the reflex, so that an id tells what was watched.
fn behind(tx: Tx, reflex: Option<u64>) -> FiringPlace {
    FiringPlace { reflex: reflex.unwrap_or(u64::MAX), ..FiringPlace::behind_tx(tx) }
}

async fn begin(
    shared: &Arc<Shared>,
    client: &Client,
    asked: &Parameters,
    last: Option<(Places<FiringPlace>, Option<FiringPlace>)>,
) -> Result<Beginning, Failure> {
    let number = |text: &String| match text.parse::<u64>() {
        Ok(id) if id > 0 => Ok(id),
        _ => Err(bad(format!("'{text}' is no reflex: a decimal number above 0, or all"))),
    };
    let since = asked.since.as_deref().map(tx).transpose()?;
    let mut beginning = match (asked, &last) {
        (Parameters { spec: None, reflex: Some(reflex), scope: None, id: None, .. }, _) => {
            let reflex = if reflex == "all" { None } else { Some(number(reflex)?) };
            if reflex.is_none() && since.is_some() {
                return Err(bad("since=TX runs one reflex over history: say which"));
            }
            Beginning::new(shared, reflex, since)
        }
        (Parameters { spec: Some(spec), reflex: None, id, scope, .. }, Some((_, within))) => {
            // It was registered when the stream began.
            let told = || bad("this Last-Event-ID does not name the reflex: say reflex=ID");
            let seen = within.map(|place| place.reflex).filter(|reflex| *reflex > 0);
            let reflex = id.as_ref().map(number).transpose()?.or(seen).ok_or_else(told)?;
            let (_, _, own) = question(spec, scope.as_deref())?;
            if seen.is_some_and(|seen| seen != reflex) || is_another(client, reflex, &own).await? {
                return Err(bad("this Last-Event-ID is an event's of another question: begin without it"));
            }
            Beginning::new(shared, Some(reflex), since)
        }
        (Parameters { spec: Some(spec), reflex: None, id, scope, .. }, None) => {
            let id = id.as_ref().map(number).transpose()?;
            register(shared, client, spec, scope.as_deref(), id, since).await?
        }
        _ => {
            return Err(bad("say reflex=ID, or spec=QUESTION with scope=SCOPE and id=ID or not; since=TX with either"));
        }
    };
    match (last, since) {
        (Some((places, _)), _) => beginning.places = places,
        (None, Some(since)) => {
            (0..client.shards()).for_each(|shard| beginning.places.note(shard, behind(since, beginning.reflex)));
        }
        (None, None) => {}
    }
    Ok(beginning)
}

/// A question as it is written, and as it travels.
fn question(spec: &str, scope: Option<&str>) -> Result<(Spec, Scope, Vec<u8>), Failure> {
    let unreadable = |error: crate::reflex::TextError| Failure::wire(Code::BadReflex, error.to_string());
    let (spec, scope): (Spec, Scope) =
        (spec.parse().map_err(unreadable)?, scope.unwrap_or("all").parse().map_err(unreadable)?);
    let mut bytes = Vec::new();
    spec.encode(&mut bytes);
    scope.encode(&mut bytes);
    Ok((spec, scope, bytes))
}

/// Whether a reflex of this id stands and asks something else.
async fn is_another(client: &Client, reflex: u64, own: &[u8]) -> Result<bool, Failure> {
    Ok(reflexes::asked(client, reflex).await?.is_some_and(|asked| asked != own))
}

async fn register(
    shared: &Arc<Shared>,
    client: &Client,
    spec: &str,
    scope: Option<&str>,
    id: Option<u64>,
    since: Option<Tx>,
) -> Result<Beginning, Failure> {
    let (spec, scope, own) = question(spec, scope)?;
    let mut named: Vec<&str> = Vec::new();
    if let Scope::Market(name) = &scope {
        named.push(name);
    }
    if let Spec::Spread(spread) = &spec {
        named.extend([&*spread.a, &*spread.b]);
    }
    // A question about a market that does not exist would wait for it in silence.
    for name in named {
        market_id(shared, client, name).await?;
    }
    // A random one fits the numbers of JSON elsewhere.
    let reflex = id.unwrap_or_else(|| (entropy::nonzero_u64() >> 11).max(1));
    if id.is_none() && !shared.guests.take_in(reflex) {
        return Err(Failure::busy("as many questions without an id as there are places stand: give it one"));
    }
    // From here on a guest is seen off, whatever happens.
    let mut beginning = Beginning::new(shared, Some(reflex), since);
    let body = [&reflex.to_le_bytes()[..], &own].concat();
    for (shard, tx) in client.register(&body, 1).await.map_err(|error| Failure::error(&error))? {
        beginning.places.note(shard, behind(tx, Some(reflex)));
    }
    Ok(beginning)
}

/// Tells the firings.
struct Telling {
    shared: Arc<Shared>,
    client: Client,
    reflex: Option<u64>,
    places: Places<FiringPlace>,
    subscription: Subscription,
    /// Behind the subscription: a guest's question goes when nobody is subscribed to it any more.
    _visit: Visit,
}

impl Teller for Telling {
    fn begun(&self) -> Event {
        let reflex = self.reflex.map_or_else(|| "all".to_owned(), |id| id.to_string());
        let data = json!({ "reflex": reflex, "shards": events::begun(self.subscription.begun()) });
        Event::default().event("begun").id(self.places.id(None)).data(data.to_string())
    }

    async fn next(&mut self) -> Result<Event, Failure> {
        loop {
            match self.subscription.next().await {
                Ok(Some(News::Firing(firing))) if self.seen(&firing) => {}
                Ok(Some(News::Firing(firing))) => return self.say(&firing).await,
                Ok(Some(News::Ended { why, .. })) => return Err(Failure::refusal(&why)),
                Ok(None) => return Err(Failure::http(HttpCode::NotServing, "no shard is listened to any more")),
                Err(error) => return Err(Failure::http(HttpCode::NotServing, error.to_string())),
            }
        }
    }
}

impl Telling {
    fn seen(&self, firing: &Firing) -> bool {
        self.places.of(firing.shard).is_some_and(|known| FiringPlace::of(&firing.row) <= known)
    }

    async fn say(&mut self, firing: &Firing) -> Result<Event, Failure> {
        let row = &firing.row;
        let market = self.shared.names.name(&self.client, row.tick.market.bits()).await?;
        let place = FiringPlace::of(row);
        self.places.note(firing.shard, place);
        let said = FiringSaid::new(firing, market.unwrap_or_else(|| row.tick.market.to_string()));
        let data = serde_json::to_string(&said).unwrap_or_default();
        Ok(Event::default().event("firing").id(self.places.id(Some(firing.shard))).data(data))
    }
}

#[derive(Serialize)]
struct FiringSaid {
    reflex: String,
    market: String,
    entity: String,
    kind: &'static str,
    /// What was measured; a gap's first missing id as a string.
    value: Value,
    /// What it was measured against; a gap's last missing id as a string.
    basis: Value,
    shard: u16,
    tx: String,
    n: u32,
    replayed: bool,
    /// What fired; nothing where it is a gap.
    tick: Option<TickSaid>,
    /// By the node's clock; nothing where the firing was derived from history. **Units:** Unix nanoseconds.
    received_ns: Option<String>,
    durable_ns: Option<String>,
    /// On one node a transaction is committed when it is durable.
    committed_ns: Option<String>,
    fired_ns: Option<String>,
    /// When this was written, also where it comes from history.
    sent_ns: String,
}

impl FiringSaid {
    fn new(firing: &Firing, market: String) -> Self {
        let row = &firing.row;
        let kind = Kind::from_number(row.kind);
        let value = |bits: u64| match kind {
            Some(Kind::Gap) => Value::String(bits.to_string()),
            _ => json!(f64::from_bits(bits)),
        };
        let live = |ns: i64| (row.fired_ns != 0).then(|| ns.to_string());
        Self {
            reflex: row.reflex.to_string(),
            market,
            entity: row.tick.market.to_string(),
            kind: kind.map_or("unknown", Kind::as_str),
            value: value(row.value),
            basis: value(row.basis),
            shard: firing.shard,
            tx: row.tx.to_string(),
            n: row.n,
            replayed: firing.replayed,
            tick: (kind != Some(Kind::Gap)).then(|| TickSaid::new(Tx::from_bits(row.tx), &row.tick)),
            received_ns: live(row.received_ns),
            durable_ns: live(row.durable_ns),
            committed_ns: live(row.durable_ns),
            fired_ns: live(row.fired_ns),
            sent_ns: clock::unix_ns().to_string(),
        }
    }
}
