//! Rows of one market: the newest, and a page of them in the order in which they were applied.
//!
//! ```text
//!   from_row=N    from the market's row of this number on; an answer's `next` goes on, as of the same tx; null = no more
//!   since=TX      rows that later transactions brought       from, to: event time, both ends included
//! ```
//!
//! A page has as many rows as were asked for, unless there are no more: the wire's pages end sooner where few rows match,
//! and are asked for until one is full. Deliberately absent: rows of several markets in one order (`tail.rs`).

use super::asked::{Parameters, bad};
use super::failure::Failure;
use super::limits;
use super::query::{Market, failed, stretch, tx};
use myelin_client::{Answer, At, Client, MarketRows, Placed, Stretch};
use myelin_datom::{Quote, Tick, Tx};
use myelin_said::{QuoteSaid, TickSaid};
use myelin_wire::Attribute;
use serde_json::{Value, json};

/// Which rows of a market: ticks where nothing is said.
fn kind(asked: &Parameters) -> Result<Attribute, Failure> {
    match asked.kind.as_deref() {
        None | Some("tick") => Ok(Attribute::Tick),
        Some("quote") => Ok(Attribute::Quote),
        Some(other) => Err(bad(format!("'{other}' is no kind of row: tick or quote"))),
    }
}

/// How a row is said.
trait Said: MarketRows {
    const NAME: &'static str;
    fn said(&self, tx: Tx) -> Value;
}

impl Said for Tick {
    const NAME: &'static str = "tick";
    fn said(&self, tx: Tx) -> Value {
        json!(TickSaid::new(tx, self))
    }
}

impl Said for Quote {
    const NAME: &'static str = "quote";
    fn said(&self, tx: Tx) -> Value {
        json!(QuoteSaid::new(tx, self))
    }
}

/// The row that came last.
pub async fn newest(client: &Client, asked: &Parameters, market: &Market, at: At) -> Result<Value, Failure> {
    match kind(asked)? {
        Attribute::Quote => newest_of::<Quote>(client, market, at).await,
        _ => newest_of::<Tick>(client, market, at).await,
    }
}

async fn newest_of<R: Said>(client: &Client, Market { name, id }: &Market, at: At) -> Result<Value, Failure> {
    let answer = client.newest::<R>(*id, at).await.map_err(failed)?;
    let newest = answer.value.map(|found| found.row.said(found.tx));
    Ok(json!({ "tx": answer.basis.to_string(), "market": name, "entity": id.to_string(), R::NAME: newest }))
}

/// Rows of a page where nothing is said.
const ROWS: u32 = 1_000;

/// A page of rows.
pub async fn rows(client: &Client, asked: &Parameters, market: &Market, at: At) -> Result<Value, Failure> {
    match kind(asked)? {
        Attribute::Quote => rows_of::<Quote>(client, asked, market, at).await,
        _ => rows_of::<Tick>(client, asked, market, at).await,
    }
}

async fn rows_of<R: Said>(
    client: &Client,
    asked: &Parameters,
    Market { name, id }: &Market,
    mut at: At,
) -> Result<Value, Failure> {
    let (from_ns, to_ns) = stretch(asked)?;
    let limit =
        asked.limit.map_or(Ok(ROWS), u32::try_from).ok().filter(|limit| (1..=limits::ROWS_PER_PAGE).contains(limit));
    let Some(limit) = limit else { return Err(bad(format!("limit is 1 to {}", limits::ROWS_PER_PAGE))) };
    let mut wanted = Stretch {
        from_row: asked.from_row.unwrap_or(0),
        since: asked.since.as_deref().map(tx).transpose()?.unwrap_or_default(),
        from_ns: from_ns.unwrap_or(i64::MIN),
        to_ns: to_ns.unwrap_or(i64::MAX),
        limit,
    };
    let mut rows = Vec::new();
    let (basis, next) = loop {
        let Answer { value: page, basis } = client.rows_of::<R>(*id, wanted, at).await.map_err(failed)?;
        rows.extend(page.rows.iter().map(say));
        let left = limit.saturating_sub(rows.len() as u32);
        match page.next {
            Some(next) if left > 0 => {
                // The rest of the answer is of the same moment.
                at = At::as_of(basis);
                wanted = Stretch { limit: left, ..next };
            }
            next => break (basis, next.map(|next| next.from_row)),
        }
    };
    Ok(json!({ "tx": basis.to_string(), "market": name, "entity": id.to_string(), "kind": R::NAME, "rows": rows,
               "next": next }))
}

/// A row with its number in the market and its place in the transaction.
fn say<R: Said>(found: &Placed<R>) -> Value {
    let mut line = json!({ "number": found.number, "n": found.n });
    if let (Value::Object(line), Value::Object(said)) = (&mut line, found.row.said(found.tx)) {
        line.extend(said);
    }
    line
}
