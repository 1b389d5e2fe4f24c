//! Reads: `GET /v2/query/as_of/{tx}` and `GET /v2/markets`.
//!
//! ```text
//!   attribute=tick/id [market=NAME]             {"tx","attribute","market","count"}
//!   market=NAME [kind=quote]                    {"tx","market","entity","tick":{..} | null}     the newest (`pages.rs`)
//!   rows=true market=NAME [kind=quote] [from_row=N since=TX from=.. to=.. limit=N]
//!                                               {"tx","market","entity","kind","rows":[..],"next"}
//!   vwap=true [market=NAME]                     {"tx","vwap":[{"market","entity","vwap","volume","notional","count"}]}
//!   bars=60s market=NAME [from=.. to=..]        {"tx","market","entity","bars":[{"start","open",..}]}
//!   top=volume [limit=10] [from=.. to=..]       {"tx","by","top":[{"market","entity","count","volume",..}]}
//!   totals=true [market=NAME] [from=.. to=..]   {"tx","market","count","price_min","price_max","price_avg","price_sum","volume_sum",..}
//!   entity=ID, attribute=person/name ..         {"tx","datoms":[{"entity","attribute","value","type","tx","added"}]}
//! ```
//! The last are facts: an entity that is no market, or an attribute that is none of rows (`facts.rs`). `entity=ID` stands
//! for `market=NAME` wherever that does. `asked.rs` knows which question has a use for which parameter, and refuses others.
//!
//! `{tx}` is a transaction, or `now`, or 0 for the same; `min_tx` is not before that one. Every answer carries the `tx` it
//! was given at: asking as of that again gives the same. A time is written with its zone, a length with its unit.

use super::asked::{Parameters, Question, bad};
use super::failure::{Failure, HttpCode};
use super::{Shared, facts, in_path, limits, pages, parameters};
use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use myelin_client::{At, Client, Error};
use myelin_datom::{EntityId, Kind, Tx};
use myelin_said::{Averaged, Bar, Listed, Ranked, Totalled, instant, length, say_instant};
use myelin_wire::{Attribute, By, Code, TopAsk};
use serde::Deserialize;
use serde_json::{Value, json};
use std::future::Future;
use std::sync::Arc;
use tokio::time::timeout;

/// What is asked of `markets`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Moment {
    as_of: Option<String>,
    min_tx: Option<String>,
}

/// The handler of `as_of`.
pub async fn as_of(
    State(shared): State<Arc<Shared>>,
    path: Result<Path<String>, PathRejection>,
    query: Result<Query<Parameters>, QueryRejection>,
) -> Result<Json<Value>, Failure> {
    let _place = shared.read()?;
    let asked = parameters(query)?;
    let question = asked.question()?;
    let at = moment(Some(&in_path(path)?), asked.min_tx.as_deref())?;
    let client = shared.client().await?;
    in_time(async {
        match question {
            Question::Facts => facts::facts(&shared, client, &asked, at).await,
            Question::Count => {
                count(client, asked.attribute.as_deref(), market(&shared, client, &asked).await?, at).await
            }
            Question::Vwap => vwap(&shared, client, market(&shared, client, &asked).await?, at).await,
            Question::Totals => totals(client, &asked, market(&shared, client, &asked).await?, at).await,
            Question::Top => top(&shared, client, &asked, at).await,
            Question::Bars => bars(client, &asked, one_market(&shared, client, &asked).await?, at).await,
            Question::Newest => pages::newest(client, &asked, &one_market(&shared, client, &asked).await?, at).await,
            Question::Rows => pages::rows(client, &asked, &one_market(&shared, client, &asked).await?, at).await,
        }
    })
    .await
    .map(Json)
}

/// The handler of `markets`.
pub async fn markets(
    State(shared): State<Arc<Shared>>,
    query: Result<Query<Moment>, QueryRejection>,
) -> Result<Json<Value>, Failure> {
    let _place = shared.read()?;
    let Moment { as_of, min_tx } = parameters(query)?;
    let at = moment(as_of.as_deref(), min_tx.as_deref())?;
    let client = shared.client().await?;
    in_time(async {
        let mut tried = 0;
        loop {
            // The count has a moment, and the list is as of that.
            let basis = client.count(Attribute::Market, None, at).await.map_err(failed)?.basis;
            let as_of = if basis == Tx::ZERO { At::NOW } else { At::as_of(basis) };
            tried += 1;
            let rows: Vec<_> = match client.list_markets(as_of).await {
                // A market was pruned in between: a later moment will do, unless one was asked for.
                Err(Error::Refused(refusal))
                    if refusal.code == Some(Code::BelowHorizon) && at.as_of.is_none() && tried < 4 =>
                {
                    continue;
                }
                listed => listed.map_err(failed)?.into_iter().map(Listed::from).collect(),
            };
            return Ok(json!({ "tx": basis.to_string(), "markets": rows }));
        }
    })
    .await
    .map(Json)
}

/// The answer, or that there was none in time.
pub(super) async fn in_time<T>(asking: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let late = || Failure::http(HttpCode::NotServing, "the node did not answer in time; /readyz has the reasons");
    timeout(limits::ANSWER_WITHIN, asking).await.unwrap_or_else(|_| Err(late()))
}

#[expect(clippy::needless_pass_by_value, reason = "it stands in map_err")]
pub(super) fn failed(error: Error) -> Failure {
    match &error {
        // A read that was not answered changed nothing.
        Error::Unknown(lost) => Failure::http(HttpCode::NotServing, lost.to_string()),
        error => Failure::error(error),
    }
}

/// Reads a transaction.
pub fn tx(text: &str) -> Result<Tx, Failure> {
    let bits =
        text.parse().map_err(|_| bad(format!("'{text}' is no transaction: a decimal number, as an ack has it")))?;
    Ok(Tx::from_bits(bits))
}

fn moment(as_of: Option<&str>, min_tx: Option<&str>) -> Result<At, Failure> {
    let as_of = as_of.filter(|text| *text != "now").map(tx).transpose()?.filter(|tx| *tx != Tx::ZERO);
    Ok(At { as_of, min_tx: min_tx.map(tx).transpose()? })
}

/// A market that exists.
pub struct Market {
    pub(super) name: String,
    pub(super) id: EntityId,
}

/// The market that is asked about, if one is. **Errors:** there is none such.
async fn market(shared: &Shared, client: &Client, asked: &Parameters) -> Result<Option<Market>, Failure> {
    match (&asked.market, &asked.entity) {
        (None, None) => Ok(None),
        (Some(_), Some(_)) => Err(bad("say market or entity, not both")),
        (Some(name), None) => Ok(Some(Market { id: market_id(shared, client, name).await?, name: name.clone() })),
        (None, Some(text)) => {
            let bits = text.parse().map_err(|_| bad(format!("'{text}' is no entity id: a decimal number")))?;
            let id = EntityId::from_bits(bits);
            if id.kind() != Some(Kind::Market) {
                return Err(Failure::wire(Code::MarketKind, format!("{bits} is not the id of a market")));
            }
            let name = shared.names.name(client, bits).await?;
            let name = name.ok_or_else(|| Failure::wire(Code::UnknownMarket, format!("there is no market {bits}")))?;
            Ok(Some(Market { name, id }))
        }
    }
}

/// The market that must be named. **Errors:** none is, or there is none such.
async fn one_market(shared: &Shared, client: &Client, asked: &Parameters) -> Result<Market, Failure> {
    market(shared, client, asked).await?.ok_or_else(|| bad("say which market: market=NAME or entity=ID"))
}

/// The id of a market. **Errors:** there is none of this name.
pub async fn market_id(shared: &Shared, client: &Client, name: &str) -> Result<EntityId, Failure> {
    let ids = shared.names.ids(client, &[name.to_owned()]).await?;
    let id = ids.first().copied().filter(|id| *id != EntityId::NONE);
    id.ok_or_else(|| Failure::wire(Code::UnknownMarket, format!("there is no market '{name}'")))
}

async fn count(client: &Client, name: Option<&str>, market: Option<Market>, at: At) -> Result<Value, Failure> {
    let name = name.unwrap_or_default();
    let attribute = Attribute::from_name(name);
    let attribute =
        attribute.ok_or_else(|| Failure::wire(Code::UnknownAttribute, format!("there is no attribute '{name}'")))?;
    if attribute == Attribute::Market && market.is_some() {
        return Err(bad("'market' has no use here: attribute=market/id counts the markets"));
    }
    let answer = client.count(attribute, market.as_ref().map(|market| market.id), at).await.map_err(failed)?;
    let market = market.map(|market| market.name);
    Ok(json!({ "tx": answer.basis.to_string(), "attribute": name, "market": market, "count": answer.value }))
}

async fn vwap(shared: &Shared, client: &Client, market: Option<Market>, at: At) -> Result<Value, Failure> {
    let answer = client.vwap(market.map(|market| market.id), at).await.map_err(failed)?;
    let mut rows = Vec::with_capacity(answer.value.len());
    for row in &answer.value {
        let name = shared.names.name(client, row.market).await?;
        rows.push(Averaged::new(name.unwrap_or_else(|| row.market.to_string()), row).with_entity(row));
    }
    rows.sort_by(|a, b| a.market.cmp(&b.market));
    Ok(json!({ "tx": answer.basis.to_string(), "vwap": rows }))
}

/// The event time that is asked about, where it is bounded. **Units:** Unix nanoseconds.
pub(super) fn stretch(asked: &Parameters) -> Result<(Option<i64>, Option<i64>), Failure> {
    let read = |text: &Option<String>| text.as_deref().map(instant).transpose().map_err(bad);
    let (from_ns, to_ns) = (read(&asked.from)?, read(&asked.to)?);
    match (from_ns, to_ns) {
        (Some(from), Some(to)) if from > to => {
            Err(bad(format!("from={} is later than to={}", say_instant(from), say_instant(to))))
        }
        stretch => Ok(stretch),
    }
}

async fn bars(client: &Client, asked: &Parameters, Market { name, id }: Market, at: At) -> Result<Value, Failure> {
    let width_ns = length(asked.bars.as_deref().unwrap_or_default()).map_err(bad)?;
    let (from_ns, to_ns) = stretch(asked)?;
    let span = from_ns.zip(to_ns).map(|(from, to)| to.saturating_sub(from).max(0) as u64 / width_ns as u64);
    let (from_ns, to_ns) = (from_ns.unwrap_or(i64::MIN), to_ns.unwrap_or(i64::MAX));
    // The first and the last of them may stick out.
    if span.is_none_or(|bars| bars.saturating_add(2) > limits::BARS) {
        // Where ticks are is known a week at a time: 30,000 weeks at most, whatever their times say.
        let weeks = client.bars(id, WEEK_NS, from_ns, to_ns, at).await.map_err(failed)?.value;
        let in_a_week = WEEK_NS as u64 / width_ns as u64 + 1;
        if weeks.iter().map(|week| week.count.min(in_a_week)).sum::<u64>() > limits::BARS {
            let message = format!("these may be more than {} bars: narrow from and to, or widen bars", limits::BARS);
            return Err(Failure::wire(Code::TooMany, message));
        }
    }
    let answer = client.bars(id, width_ns, from_ns, to_ns, at).await.map_err(failed)?;
    let rows: Vec<_> = answer.value.iter().map(Bar::from).collect();
    Ok(json!({ "tx": answer.basis.to_string(), "market": name, "entity": id.to_string(), "bars": rows }))
}

/// What ticks come to, over one market or all shards: exact, or rounded once.
async fn totals(client: &Client, asked: &Parameters, market: Option<Market>, at: At) -> Result<Value, Failure> {
    let (from_ns, to_ns) = stretch(asked)?;
    let (from_ns, to_ns) = (from_ns.unwrap_or(i64::MIN), to_ns.unwrap_or(i64::MAX));
    let id = market.as_ref().map(|market| market.id);
    let told = client.totals(id, from_ns, to_ns, at).await.map_err(failed)?;
    let mut said = json!(Totalled::new(&told.value, told.basis));
    said["market"] = json!(market.map(|market| market.name));
    Ok(said)
}

async fn top(shared: &Shared, client: &Client, asked: &Parameters, at: At) -> Result<Value, Failure> {
    let by = asked.top.as_deref().unwrap_or_default();
    let measure =
        By::from_name(by).ok_or_else(|| bad(format!("'{by}' is none of count, volume, notional, price, move")))?;
    let (from_ns, to_ns) = stretch(asked)?;
    let (from_ns, to_ns) = (from_ns.unwrap_or(i64::MIN), to_ns.unwrap_or(i64::MAX));
    let limit = asked.limit.unwrap_or(10);
    if !(1..=limits::TOP).contains(&limit) {
        return Err(bad(format!("limit is 1 to {}", limits::TOP)));
    }
    let ask = TopAsk { by: measure, limit, from_ns, to_ns };
    let answer = client.top(ask, at).await.map_err(failed)?;
    let mut rows = Vec::with_capacity(answer.value.len());
    for row in &answer.value {
        let name = shared.names.name(client, row.market).await?;
        rows.push(Ranked::new(name.unwrap_or_else(|| row.market.to_string()), row).with_entity(row));
    }
    Ok(json!({ "tx": answer.basis.to_string(), "by": by, "top": rows }))
}

const WEEK_NS: i64 = 7 * 86_400_000_000_000;
