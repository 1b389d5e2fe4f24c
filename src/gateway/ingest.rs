//! `POST /v2/ingest`: a body of rows becomes facts, shard by shard, and the answer says what became of each part.
//!
//! ```text
//!   read -> unpack -> rows -> all sound? -> names to ids -> split by shard -> parts, each atomic -> answer
//!                                 \- no, and not partial=true: refused, nothing was sent
//! ```
//!
//! | parts                               | status                                                       |
//! |-------------------------------------|--------------------------------------------------------------|
//! | all done                            | 202, `tx` of the last                                        |
//! | one of unknown outcome              | 503: repeat the whole, what is stored counts as a duplicate  |
//! | one refused for what it says        | 400, 409, 413, 422: what other parts stored stays            |
//! | one refused because the node is behind | 429, 503: repeat the whole                                |
//!
//! The gateway is a client like any other: there is no second way to write. Deliberately absent: retries of its own.

use super::body::{self, Packing};
use super::failure::{BadRow, Failure, HttpCode, Words};
use super::rows::{self, Form, Rows};
use super::{Shared, limits, parameters, take_place};
use axum::Json;
use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use myelin_client::{Ack, Client, Error, Mode, Outcome, Part, Refusal, RowVerdict};
use myelin_datom::{EntityId, Tx};
use myelin_feed::RowKind;
use myelin_wire::Code;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use tokio::time::timeout;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Parameters {
    #[serde(default)]
    create_markets: bool,
    #[serde(default)]
    partial: bool,
    kind: Option<KindName>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum KindName {
    Ticks,
    Quotes,
}

impl From<KindName> for RowKind {
    fn from(name: KindName) -> Self {
        match name {
            KindName::Ticks => Self::Ticks,
            KindName::Quotes => Self::Quotes,
        }
    }
}

/// What became of a request.
#[derive(Default, Serialize)]
struct Receipt {
    /// The last transaction, "0" when nothing was sent.
    tx: String,
    accepted: u64,
    duplicates: u64,
    refused: u64,
    first_bad: Option<u32>,
    bad: Vec<BadRow>,
    parts: Vec<PartReceipt>,
}

#[derive(Serialize)]
struct PartReceipt {
    shard: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    tx: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<String>,
    accepted: u32,
    duplicates: u32,
    refused: u32,
    first_bad: Option<u32>,
}

/// The handler.
pub async fn ingest(
    State(shared): State<Arc<Shared>>,
    query: Result<Query<Parameters>, QueryRejection>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Failure> {
    let _place = take_place(&shared.uploads, "as many bodies as there are places for are under way")?;
    let Parameters { create_markets, partial, kind } = parameters(query)?;
    let (form, packing) = (Form::of(&headers)?, Packing::of(&headers)?);
    let client = shared.client().await?;
    let mut held = shared.room.hold();
    let bytes = body::read(&headers, body, &mut held).await?;
    let large = bytes.len() > limits::INLINE_BYTES || packing != Packing::Plain;
    // Held until the rows are sent.
    let (mut rows, _held) = off_the_thread(large, move || {
        let plain = body::unpack(bytes, packing, &mut held)?;
        let mut rows = rows::read(form, kind.map(Into::into), &plain)?;
        if form == Form::Raw {
            rows.leave_out_flawed();
        }
        Ok((rows, held))
    })
    .await
    .inspect_err(|failure| shared.requests.refused(failure.words().code))?;
    if rows.refused > 0 && !partial {
        return Err(refuse(&shared, rows.bad));
    }
    let sending = async {
        resolve(&shared, client, &mut rows, create_markets).await?;
        if rows.refused > 0 && !partial {
            return Err(refuse(&shared, std::mem::take(&mut rows.bad)));
        }
        send(client, &rows, if partial { Mode::Partial } else { Mode::Whole }).await
    };
    let parts = timeout(limits::ANSWER_WITHIN, sending).await.unwrap_or_else(|_| Err(unknown("no answer in time")))?;
    answer(client, rows, &parts)
}

/// Refuses rows that no core saw, and counts that as a core would.
fn refuse(shared: &Shared, bad: Vec<BadRow>) -> Failure {
    let failure = Failure::rows(bad);
    shared.requests.refused(failure.words().code);
    failure
}

/// Runs what may take more than a millisecond beside the gateway's thread.
async fn off_the_thread<T: Send + 'static>(
    large: bool,
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    if !large {
        return work();
    }
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|_| Err(Failure::http(HttpCode::NotServing, "the node stops")))
}

fn unknown(why: &str) -> Failure {
    let message = format!("{why}: parts may be stored; repeating the whole request is safe where rows have ids");
    Failure::http(HttpCode::UnknownOutcome, message)
}

/// Gives rows with names their ids; those without a market are left out.
async fn resolve(shared: &Shared, client: &Client, rows: &mut Rows, create: bool) -> Result<(), Failure> {
    if rows.names.is_empty() {
        return Ok(());
    }
    let ids = match create {
        true => shared.names.ids_of_created(client, &rows.names).await?,
        false => shared.names.ids(client, &rows.names).await?,
    };
    let id_of = |market: &u32| ids.get(*market as usize).copied().unwrap_or(EntityId::NONE);
    rows.ticks.iter_mut().zip(&rows.markets).for_each(|(tick, market)| tick.market = id_of(market));
    rows.quotes.iter_mut().zip(&rows.markets).for_each(|(quote, market)| quote.market = id_of(market));
    if ids.contains(&EntityId::NONE) {
        rows.leave_out(|rows, at| {
            let market = rows.markets[at];
            let name = rows.names.get(market as usize).map_or("", String::as_str);
            (id_of(&market) == EntityId::NONE).then(|| BadRow {
                row: rows.places[at],
                code: Code::UnknownMarket.name().to_owned(),
                message: format!("there is no market '{name}': create it first, or say create_markets=true"),
            })
        });
    }
    Ok(())
}

async fn send(client: &Client, rows: &Rows, mode: Mode) -> Result<Vec<Part>, Failure> {
    let sent = if rows.quotes.is_empty() {
        client.send_ticks(&rows.ticks, mode).await
    } else {
        client.send_quotes(&rows.quotes, mode).await
    };
    match sent {
        Ok(sent) => Ok(sent.wait().await),
        Err(Error::Refused(refusal)) => {
            // Before anything was sent: a row without shape.
            let row = place(rows, refusal.first_bad);
            Err(Failure::refusal(&Refusal { first_bad: row, ..refusal }))
        }
        Err(error) => Err(unknown(&error.to_string())),
    }
}

/// The request's number of a row that was sent.
fn place(rows: &Rows, sent: Option<u32>) -> Option<u32> {
    sent.map(|at| rows.places.get(at as usize).copied().unwrap_or(at))
}

/// How bad a part is: the worst decides the status.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Weight {
    Later,
    Sender,
    Unknown,
}

fn answer(client: &Client, mut rows: Rows, parts: &[Part]) -> Result<Response, Failure> {
    let mut receipt = Receipt { refused: u64::from(rows.refused), ..Receipt::default() };
    let mut bad = std::mem::take(&mut rows.bad);
    let mut worst: Option<(Weight, Failure)> = None;
    let mut last = Tx::ZERO;
    let mut sent = SentRows::new(client, &rows);
    for part in parts {
        let places = sent.take(part);
        let mut told = PartReceipt {
            shard: part.shard,
            tx: None,
            code: None,
            accepted: 0,
            duplicates: 0,
            refused: 0,
            first_bad: None,
        };
        match &part.outcome {
            Outcome::Done(ack) => {
                last = last.max(ack.tx);
                told.tx = Some(ack.tx.to_string());
                (told.accepted, told.duplicates, told.refused) = (ack.accepted, ack.duplicates, ack.refused);
                told.first_bad = place(&rows, ack.first_bad.map(|(row, _)| row));
                note_verdicts(ack, &places, told.first_bad, &mut bad);
            }
            refused => {
                let (weight, failure, first_bad) = why_not(refused, &rows);
                told.refused = if weight == Weight::Unknown { 0 } else { part.rows };
                told.first_bad = first_bad;
                let Words { code, message, .. } = failure.words();
                if let (Weight::Sender, Some(row)) = (weight, first_bad) {
                    bad.push(BadRow { row, code: code.to_owned(), message: message.to_owned() });
                }
                told.code = Some(code.to_owned());
                if worst.as_ref().is_none_or(|(known, _)| weight > *known) {
                    worst = Some((weight, failure));
                }
            }
        }
        receipt.accepted += u64::from(told.accepted);
        receipt.duplicates += u64::from(told.duplicates);
        receipt.refused += u64::from(told.refused);
        receipt.parts.push(told);
    }
    bad.sort_by_key(|bad| bad.row);
    receipt.first_bad = bad.first().map(|bad| bad.row);
    bad.truncate(limits::BAD_ROWS);
    receipt.tx = last.to_string();
    match worst {
        None => {
            receipt.bad = bad;
            Ok((StatusCode::ACCEPTED, Json(receipt)).into_response())
        }
        Some((_, failure)) => {
            let Receipt { tx, accepted, duplicates, refused, first_bad, parts, .. } = receipt;
            let more = serde_json::json!({ "tx": tx, "duplicates": duplicates, "refused": refused, "parts": parts });
            Err(failure.with(first_bad, bad, accepted, more))
        }
    }
}

fn why_not(outcome: &Outcome, rows: &Rows) -> (Weight, Failure, Option<u32>) {
    match outcome {
        Outcome::Refused(refusal) => {
            let later = refusal
                .code
                .is_some_and(|code| code.passes() || matches!(code, Code::Unavailable | Code::SessionExpired));
            let weight = if later { Weight::Later } else { Weight::Sender };
            (weight, Failure::refusal(refusal), place(rows, refusal.first_bad))
        }
        Outcome::NotSent(why) => (Weight::Later, Failure::http(HttpCode::NotServing, why.clone()), None),
        Outcome::Unknown(lost) => (Weight::Unknown, unknown(&lost.to_string()), None),
        Outcome::Done(_) => (Weight::Later, unknown(""), None),
    }
}

/// The refused rows of a part that was done.
fn note_verdicts(ack: &Ack, places: &[u32], first_bad: Option<u32>, bad: &mut Vec<BadRow>) {
    let name = |row: u32, number: u16| match Code::from_number(number) {
        Some(code) => BadRow::of(row, code),
        None => BadRow { row, code: format!("code_{number}"), message: String::new() },
    };
    if ack.verdicts.is_empty() {
        // A repeated answer remembers the first one only.
        bad.extend(first_bad.zip(ack.first_bad).map(|(row, (_, number))| name(row, number)));
        return;
    }
    let refused = ack.verdicts.iter().zip(places).filter_map(|(verdict, row)| match verdict {
        RowVerdict::Refused(number) => Some(name(*row, *number)),
        RowVerdict::Stored | RowVerdict::Duplicate => None,
    });
    bad.extend(refused.take(limits::BAD_ROWS));
}

/// Which rows of the request each part carries: a shard's parts carry its rows in their order.
struct SentRows {
    /// Per shard, its rows' numbers in the request.
    by_shard: Vec<std::vec::IntoIter<u32>>,
}

impl SentRows {
    fn new(client: &Client, rows: &Rows) -> Self {
        let mut by_shard = vec![Vec::new(); usize::from(client.shards())];
        let markets = rows.ticks.iter().map(|tick| tick.market).chain(rows.quotes.iter().map(|quote| quote.market));
        for (market, place) in markets.zip(&rows.places) {
            let shard = client.welcome().shard_of(market.slot()).map(usize::from);
            if let Some(list) = shard.and_then(|shard| by_shard.get_mut(shard)) {
                list.push(*place);
            }
        }
        Self { by_shard: by_shard.into_iter().map(Vec::into_iter).collect() }
    }

    fn take(&mut self, part: &Part) -> Vec<u32> {
        let list = self.by_shard.get_mut(usize::from(part.shard));
        list.map(|list| list.take(part.rows as usize).collect()).unwrap_or_default()
    }
}
