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
use myelin_client::{At, Client, Error};
use myelin_datom::{EntityId, Quote, Tick, Tx};
use myelin_said::{QuoteSaid, TickSaid};
use myelin_wire::{Attribute, Code, Header, Kind, StoredRow};
use serde_json::{Value, json};

/// Which rows of a market: ticks where nothing is said.
fn kind(asked: &Parameters) -> Result<Attribute, Failure> {
    match asked.kind.as_deref() {
        None | Some("tick") => Ok(Attribute::Tick),
        Some("quote") => Ok(Attribute::Quote),
        Some(other) => Err(bad(format!("'{other}' is no kind of row: tick or quote"))),
    }
}

/// The row that came last.
pub async fn newest(client: &Client, asked: &Parameters, market: &Market, at: At) -> Result<Value, Failure> {
    let Market { name, id } = market;
    if kind(asked)? == Attribute::Tick {
        let answer = client.latest(*id, at).await.map_err(failed)?;
        let tick = answer.value.map(|(tx, tick)| TickSaid::new(tx, &tick));
        return Ok(json!({ "tx": answer.basis.to_string(), "market": name, "entity": id.to_string(), "tick": tick }));
    }
    let mut tried = 0;
    loop {
        tried += 1;
        match newest_quote(client, *id, at).await {
            // A quote was pruned in between: a later moment will do, unless one was asked for.
            Err(Error::Refused(refusal))
                if refusal.code == Some(Code::BelowHorizon) && at.as_of.is_none() && tried < 4 => {}
            found => {
                let (basis, found) = found.map_err(failed)?;
                let quote = found.map(|row| QuoteSaid::new(Tx::from_bits(row.tx), &bytemuck::cast(row.row)));
                return Ok(
                    json!({ "tx": basis.to_string(), "market": name, "entity": id.to_string(), "quote": quote }),
                );
            }
        }
    }
}

/// The wire names the newest tick only. Of quotes, the first that is there and their count tell the number of the last.
async fn newest_quote(client: &Client, market: EntityId, at: At) -> Result<(Tx, Option<StoredRow>), Error> {
    let counted = client.count(Attribute::Quote, Some(market), at).await?;
    let mut wanted = Wanted { limit: 1, ..Wanted::all(Attribute::Quote) };
    let then = if counted.basis == Tx::ZERO { at } else { At::as_of(counted.basis) };
    let first = page(client, market, &wanted, then).await?.rows.first().copied();
    let Some(first) = first.filter(|_| counted.value > 0) else { return Ok((counted.basis, None)) };
    wanted.from_row = u64::from(first.number) + counted.value - 1;
    let last = page(client, market, &wanted, then).await?.rows.first().copied();
    Ok((counted.basis, last))
}

/// Rows of a page where nothing is said.
const ROWS: u64 = 1_000;

/// A page of rows.
pub async fn rows(client: &Client, asked: &Parameters, market: &Market, at: At) -> Result<Value, Failure> {
    let Market { name, id } = market;
    let kind = kind(asked)?;
    let (from_ns, to_ns) = stretch(asked)?;
    let limit = asked.limit.unwrap_or(ROWS);
    if !(1..=limits::ROWS_PER_PAGE).contains(&limit) {
        return Err(bad(format!("limit is 1 to {}", limits::ROWS_PER_PAGE)));
    }
    let mut wanted = Wanted {
        from_row: u64::from(asked.from_row.unwrap_or(0)),
        since: asked.since.as_deref().map(tx).transpose()?.unwrap_or_default(),
        from_ns: from_ns.unwrap_or(i64::MIN),
        to_ns: to_ns.unwrap_or(i64::MAX),
        limit,
        ..Wanted::all(kind)
    };
    let (mut rows, mut at) = (Vec::new(), at);
    let (basis, next) = loop {
        let page = page(client, *id, &wanted, at).await.map_err(failed)?;
        rows.extend(page.rows.iter().map(|row| say(kind, row)));
        wanted.limit = limit - rows.len() as u64;
        match page.next {
            Some(next) if wanted.limit > 0 => {
                // The rest of the answer is of the same moment.
                at = At::as_of(page.basis);
                wanted.from_row = next;
            }
            next => break (page.basis, next),
        }
    };
    let kind = if kind == Attribute::Quote { "quote" } else { "tick" };
    Ok(json!({ "tx": basis.to_string(), "market": name, "entity": id.to_string(), "kind": kind, "rows": rows,
               "next": next }))
}

/// A row with its number in the market and its place in the transaction.
fn say(kind: Attribute, row: &StoredRow) -> Value {
    let tx = Tx::from_bits(row.tx);
    let said = match kind {
        Attribute::Quote => json!(QuoteSaid::new(tx, &bytemuck::cast::<_, Quote>(row.row))),
        _ => json!(TickSaid::new(tx, &bytemuck::cast::<_, Tick>(row.row))),
    };
    let mut line = json!({ "number": row.number, "n": row.n });
    if let (Value::Object(line), Value::Object(said)) = (&mut line, said) {
        line.extend(said);
    }
    line
}

/// Which rows.
struct Wanted {
    kind: Attribute,
    from_row: u64,
    since: Tx,
    from_ns: i64,
    to_ns: i64,
    limit: u64,
}

impl Wanted {
    const fn all(kind: Attribute) -> Self {
        Self { kind, from_row: 0, since: Tx::ZERO, from_ns: i64::MIN, to_ns: i64::MAX, limit: limits::ROWS_PER_PAGE }
    }
}

struct Page {
    rows: Vec<StoredRow>,
    /// The row to go on with, where there are more.
    next: Option<u64>,
    basis: Tx,
}

/// One page of the wire's.
async fn page(client: &Client, market: EntityId, wanted: &Wanted, at: At) -> Result<Page, Error> {
    let shard = client.welcome().shard_of(market.slot());
    let shard = shard.ok_or_else(|| Error::Protocol("no shard owns the market's slot".to_owned()))?;
    let (tx, aux) = (at.as_of.unwrap_or_default().bits(), at.min_tx.unwrap_or_default().bits());
    let header = Header { shard, tx, aux, ..Header::new(Kind::Rows) };
    let mut body = market.bits().to_le_bytes().to_vec();
    let numbers = [wanted.kind as u64, wanted.from_row, wanted.since.bits()];
    numbers.iter().for_each(|number| body.extend_from_slice(&number.to_le_bytes()));
    [wanted.from_ns, wanted.to_ns].iter().for_each(|ns| body.extend_from_slice(&ns.to_le_bytes()));
    body.extend_from_slice(&wanted.limit.to_le_bytes());
    let reply = client.ask(header, body).await?;
    if !reply.body.len().is_multiple_of(size_of::<StoredRow>()) {
        return Err(Error::Protocol("a page of rows ends in the middle of one".to_owned()));
    }
    let rows: Vec<StoredRow> =
        reply.body.chunks_exact(size_of::<StoredRow>()).map(bytemuck::pod_read_unaligned).collect();
    let more = reply.header.flags & Header::MORE != 0;
    Ok(Page { rows, next: more.then_some(reply.header.aux), basis: Tx::from_bits(reply.header.tx) })
}
