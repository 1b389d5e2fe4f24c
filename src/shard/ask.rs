//! Reads: an answer at a basis, the moment it sees. `as_of(T)` waits until T is closed and applied here.
//!
//! ```text
//!   T not given            the last applied tx
//!   T <= last applied      closed: every later tx is greater
//!   T <= last appended     waits for what is under way
//!   T above that           the leader appends Close{T}, then waits: the promise is in the log
//!   T too far ahead        Refused::Future
//! ```
//!
//! What fits a turn is answered here: one place, one page, counts. What may be long is a walk of its own (`reading/`).

use super::append::Appender;
use super::entry::EntryKind;
use super::facts::FACT_READ_BODY_MAX;
use super::reply::Said;
use super::{ConnId, Now, Refusal, Shard, ShardError};
use crate::reflex::ReflexId;
use crate::shard::replicate::LogIndex;
use myelin_datom::{EntityId, Tx};
use myelin_index::{ColumnRow, Columns, Filter, IndexError};
use myelin_wire::{Attribute, Code, Cursor, Frame, Header, Kind, StoredRow, write_market_row};
use std::collections::VecDeque;
use std::ops::ControlFlow;

/// Reads that wait for their moment.
#[derive(Debug, Default)]
pub struct Waiting {
    reads: VecDeque<Read>,
}

impl Waiting {
    /// The connection is gone, and with it its questions.
    pub fn forget(&mut self, conn: ConnId) {
        self.reads.retain(|read| read.from != conn);
    }

    /// Nobody is answered any more: who asked, and what.
    pub fn give_up(&mut self) -> Vec<(ConnId, Header)> {
        self.reads.drain(..).map(|read| (read.from, read.header)).collect()
    }
}

#[derive(Clone, Debug)]
pub(super) struct Read {
    pub(super) from: ConnId,
    pub(super) header: Header,
    pub(super) kind: Kind,
    pub(super) body: Vec<u8>,
    pub(super) basis: Tx,
    /// Applied when this entry is.
    behind: LogIndex,
}

#[cfg(test)]
impl Read {
    /// A read of what is applied.
    pub(super) fn of(from: ConnId, header: Header, kind: Kind, body: Vec<u8>, basis: Tx) -> Self {
        Self { from, header, kind, body, basis, behind: LogIndex(0) }
    }
}

/// A read's question at most: the longest is 56 bytes, and it may have to wait. **Units:** bytes.
const READ_BODY_MAX: usize = 64;
/// Rows in one answer at most: 640 KiB.
const ROWS_PER_PAGE: usize = 8192;
/// Rows that one answer looks at, up to the end of the block it has come to then: a page whose times match few is short,
/// and says that there is more. One that a block's times pass over counts 64.
const ROWS_LOOKED_AT: u64 = 1 << 15;
/// Reflexes in one answer at most.
const REFLEXES_PER_PAGE: usize = 4096;
/// Items in one answer at most; more follow on request.
const MARKETS_PER_PAGE: usize = 4096;

impl Shard {
    /// Answers a read, now or when its basis is closed and applied.
    pub(super) fn ask(
        &mut self,
        now: Now,
        from: ConnId,
        frame: &Frame<'_>,
        log: &mut Appender,
    ) -> Result<(), ShardError> {
        let header = frame.header;
        let facts = matches!(frame.kind, Kind::Datoms | Kind::Pull);
        if frame.body.len() > if facts { FACT_READ_BODY_MAX } else { READ_BODY_MAX } {
            self.refuse(from, &header, Refusal::of(Code::BadBody));
            return Ok(());
        }
        let (as_of, min_tx, applied) = (Tx::from_bits(header.tx), Tx::from_bits(header.aux), self.group.applied_tx());
        if frame.kind == Kind::Now {
            // A moment of this shard: what comes later is stamped later. Several shards share one by asking again with
            // the greatest of their answers.
            if as_of.millis() > now.millis() + self.limits.max_clock_offset_ms {
                self.refuse(from, &header, Refusal { aux: applied.bits(), ..Refusal::of(Code::Future) });
                return Ok(());
            }
            let told = self.group.tell_now(now.millis(), as_of);
            self.say(from, header.session, header.request, told, nothing());
            return Ok(());
        }
        let basis = if as_of == Tx::ZERO { applied.max(min_tx) } else { as_of };
        // What is applied is past, whatever a clock that was set back says of it.
        if basis > applied && basis.millis() > now.millis() + self.limits.max_clock_offset_ms {
            self.refuse(from, &header, Refusal { aux: applied.bits(), ..Refusal::of(Code::Future) });
            return Ok(());
        }
        if basis > self.group.appended_tx() && log.note(&mut self.group, EntryKind::Close, basis).is_err() {
            let busy = self.busy(now);
            self.refuse(from, &header, busy);
            return Ok(());
        }
        let read =
            Read { from, header, kind: frame.kind, body: frame.body.to_vec(), basis, behind: self.group.appended() };
        if basis <= applied {
            return self.answer(&read);
        }
        if self.waiting.reads.len() >= self.limits.waiting_reads_per_shard {
            let busy = self.busy(now);
            self.refuse(from, &header, busy);
            return Ok(());
        }
        self.waiting.reads.push_back(read);
        Ok(())
    }

    /// Answers the reads whose moment has come.
    pub(super) fn answer_waiting(&mut self) -> Result<(), ShardError> {
        let applied = self.group.applied();
        while let Some(read) = self.waiting.reads.pop_front_if(|read| read.behind <= applied) {
            self.answer(&read)?;
        }
        Ok(())
    }

    fn answer(&mut self, read: &Read) -> Result<(), ShardError> {
        let said = match read.kind {
            Kind::Count => self.count(read),
            Kind::ListMarkets => self.list_markets(read),
            // These may be long: the answer comes when they were read, some rows a turn.
            Kind::Vwap | Kind::Bars | Kind::Top => match self.begin_reading(read) {
                Ok(()) => return Ok(()),
                Err(refused) => Err(refused),
            },
            Kind::Latest => self.latest(read),
            Kind::Rows => self.rows(read),
            Kind::ListReflexes => self.list_reflexes(read),
            Kind::Datoms => self.datoms(read),
            Kind::Pull => self.pull(read),
            Kind::Policies => self.policies(read),
            Kind::Status => Ok(self.status()),
            _ => Err(Unanswered::Refused(Refusal::of(Code::UnknownKind))),
        };
        match said {
            Ok(said) => self.say(read.from, read.header.session, read.header.request, read.basis, said),
            Err(Unanswered::Refused(refusal)) => self.refuse(read.from, &read.header, refusal),
            Err(Unanswered::Failed(error)) => return Err(error.into()),
        }
        Ok(())
    }

    /// `Count`: body `attribute:8 | market:8`, market 0 = all.
    fn count(&self, read: &Read) -> Result<Said, Unanswered> {
        let mut cursor = Cursor::new(&read.body);
        let (attribute, market) = (cursor.u64().map_err(bad)?, cursor.u64().map_err(bad)?);
        cursor.end().map_err(bad)?;
        let attribute = Attribute::from_number(attribute).ok_or(Refusal::of(Code::UnknownAttribute))?;
        let market = EntityId::from_bits(market);
        let count = match (attribute, market) {
            (Attribute::Tick, EntityId::NONE) => self.ticks.count(read.basis)?,
            (Attribute::Quote, EntityId::NONE) => self.quotes.count(read.basis)?,
            (Attribute::Market, _) => self.markets.count_as_of(read.basis) as u64,
            (Attribute::Tick, market) => {
                let ix = self.ticks.market_ix(market).ok_or(Refusal::of(Code::UnknownMarket))?;
                u64::from(self.ticks.view(ix, read.basis)?.count())
            }
            (Attribute::Quote, market) => {
                let ix = self.quotes.market_ix(market).ok_or(Refusal::of(Code::UnknownMarket))?;
                u64::from(self.quotes.view(ix, read.basis)?.count())
            }
        };
        Ok(Said::Answer { count: 1, aux: count, more: false, body: Vec::new() })
    }

    /// `ListMarkets`: body `from:8`, the number of the first market; a page follows.
    fn list_markets(&self, read: &Read) -> Result<Said, Unanswered> {
        let mut cursor = Cursor::new(&read.body);
        let first = cursor.u64().map_err(bad)? as usize;
        cursor.end().map_err(bad)?;
        let mut body = Vec::new();
        let mut count = 0;
        let there = self.markets.count_as_of(read.basis);
        for market in self.markets.iter().take(there).skip(first).take(MARKETS_PER_PAGE) {
            let ticks = match self.ticks.market_ix(market.id) {
                Some(ix) => u64::from(self.ticks.view(ix, read.basis)?.count()),
                None => 0,
            };
            let quotes = match self.quotes.market_ix(market.id) {
                Some(ix) => u64::from(self.quotes.view(ix, read.basis)?.count()),
                None => 0,
            };
            write_market_row(&mut body, market.id, market.flags, ticks, quotes, &market.name);
            count += 1;
        }
        let next = first as u64 + u64::from(count);
        Ok(Said::Answer { count, aux: next, more: next < there as u64, body })
    }

    /// `Latest`: body `market:8`; the newest tick, and its `tx` beside it.
    fn latest(&self, read: &Read) -> Result<Said, Unanswered> {
        let mut cursor = Cursor::new(&read.body);
        let market = EntityId::from_bits(cursor.u64().map_err(bad)?);
        cursor.end().map_err(bad)?;
        let ix = self.ticks.market_ix(market).ok_or(Refusal::of(Code::UnknownMarket))?;
        Ok(match self.ticks.view(ix, read.basis)?.latest()? {
            Some(found) => {
                let body = bytemuck::bytes_of(&found.row).to_vec();
                Said::Answer { count: 1, aux: found.tx.bits(), more: false, body }
            }
            None => nothing(),
        })
    }

    /// `Rows`: body `market:8 | kind:8 | from row:8 | since tx:8 | from ns:8 | to ns:8 | limit:8`, kind 1 ticks, 2 quotes;
    /// rows after `since` whose event time lies in the range, ends included. `aux` is the row to go on from.
    fn rows(&self, read: &Read) -> Result<Said, Unanswered> {
        let mut cursor = Cursor::new(&read.body);
        let (market, kind) = (EntityId::from_bits(cursor.u64().map_err(bad)?), cursor.u64().map_err(bad)?);
        let (from_row, since) = (cursor.u64().map_err(bad)?, Tx::from_bits(cursor.u64().map_err(bad)?));
        let (from_ns, to_ns) = (cursor.i64().map_err(bad)?, cursor.i64().map_err(bad)?);
        let limit = (cursor.u64().map_err(bad)? as usize).min(ROWS_PER_PAGE);
        cursor.end().map_err(bad)?;
        let from_row = u32::try_from(from_row).map_err(|_| Refusal::of(Code::BadBody))?;
        let filter = Filter { since, from_row, event_time_ns: from_ns..=to_ns };
        match Attribute::from_number(kind) {
            Some(Attribute::Tick) => page(&self.ticks, market, read.basis, &filter, limit),
            Some(Attribute::Quote) => page(&self.quotes, market, read.basis, &filter, limit),
            _ => Err(Refusal::of(Code::BadBody).into()),
        }
    }

    /// `ListReflexes`: body `after:8`, an id or 0; items `id:8 | registered tx:8 | len:4 | spec and scope`, `aux` the last id.
    fn list_reflexes(&self, read: &Read) -> Result<Said, Unanswered> {
        let mut cursor = Cursor::new(&read.body);
        let after = cursor.u64().map_err(bad)?;
        cursor.end().map_err(bad)?;
        let (mut body, mut count, mut last) = (Vec::new(), 0_u32, after);
        let mut registrations = self.reflexes.list((after != 0).then_some(ReflexId(after)));
        for one in registrations.by_ref().take(REFLEXES_PER_PAGE) {
            body.extend_from_slice(&one.id.0.to_le_bytes());
            body.extend_from_slice(&one.registered_at.bits().to_le_bytes());
            let mut asked = Vec::new();
            one.spec.encode(&mut asked);
            one.scope.encode(&mut asked);
            body.extend_from_slice(&(asked.len() as u32).to_le_bytes());
            body.extend_from_slice(&asked);
            (count, last) = (count + 1, one.id.0);
        }
        Ok(Said::Answer { count, aux: last, more: registrations.next().is_some(), body })
    }

    /// `Policies`: body `from:8`, the number of the first market; a page follows.
    fn policies(&self, read: &Read) -> Result<Said, Unanswered> {
        let mut cursor = Cursor::new(&read.body);
        let first = cursor.u64().map_err(bad)? as usize;
        cursor.end().map_err(bad)?;
        let (count, next, body) = self.policy_rows(first);
        Ok(Said::Answer { count, aux: next as u64, more: next < self.markets.len(), body })
    }

    /// `Status`: what the shard counts, as text lines `name value`.
    fn status(&self) -> Said {
        let mut lines = String::new();
        let mut line = |name: &str, value: u64| {
            lines.push_str(name);
            lines.push(' ');
            lines.push_str(&value.to_string());
            lines.push('\n');
        };
        line("rows_accepted", self.counters.rows_accepted);
        line("rows_duplicate", self.counters.rows_duplicate);
        line("rows_dropped", self.counters.rows_dropped);
        line("firings", self.counters.firings);
        line("moments_closed", self.counters.moments_closed);
        line("spreads_across", self.crossing.spreads() as u64);
        line("markets", self.markets.len() as u64);
        line("reflexes", self.reflexes.len() as u64);
        line("sessions", self.sessions.count() as u64);
        line("subscriptions", self.subscribers.count() as u64);
        line("datoms", self.facts.datoms());
        line("datoms_dropped", self.counters.datoms_dropped);
        line("tails", self.tails.count() as u64);
        line("unsealed_rows", self.unsealed_rows());
        line("read_turn_rows_max", self.readings.turn_rows_max());
        for (code, count) in &self.counters.refused {
            line(&format!("refused_{}", code.name()), *count);
        }
        Said::Answer { count: 1, aux: 0, more: false, body: lines.into_bytes() }
    }
}

/// One page of a market's rows.
fn page<R: ColumnRow>(
    columns: &Columns<R>,
    market: EntityId,
    basis: Tx,
    filter: &Filter,
    limit: usize,
) -> Result<Said, Unanswered> {
    let ix = columns.market_ix(market).ok_or(Refusal::of(Code::UnknownMarket))?;
    let view = columns.view(ix, basis)?;
    let kept = columns.kept(ix);
    // Who goes on behind a row or a transaction that was dropped would miss what was dropped behind it.
    let (row, since) = (filter.from_row, filter.since);
    if row != 0 && row < kept.dropped || since != Tx::ZERO && since < kept.gone {
        return Err(IndexError::BelowHorizon { horizon: kept.horizon }.into());
    }
    let mut rows: Vec<StoredRow> = Vec::new();
    let mut more = false;
    let reached = view.rows_within(filter, &mut { ROWS_LOOKED_AT }, |found| {
        if rows.len() == limit {
            more = true;
            return ControlFlow::Break(());
        }
        let row = bytemuck::cast(found.row);
        rows.push(StoredRow { tx: found.tx.bits(), number: found.number, n: found.n, row });
        ControlFlow::Continue(())
    })?;
    let mut next = rows.last().map_or(u64::from(filter.from_row), |row| u64::from(row.number) + 1);
    if !more && reached < view.end_row() {
        // Enough for one turn, though the page is not full.
        (more, next) = (true, u64::from(reached));
    }
    Ok(Said::Answer { count: rows.len() as u32, aux: next, more, body: bytemuck::cast_slice(&rows).to_vec() })
}

/// Why there is no answer: the asker's fault, or the storage's.
pub(super) enum Unanswered {
    Refused(Refusal),
    Failed(IndexError),
}

impl From<Refusal> for Unanswered {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<IndexError> for Unanswered {
    fn from(error: IndexError) -> Self {
        match error {
            IndexError::BelowHorizon { horizon } => {
                Self::Refused(Refusal { aux: horizon.bits(), ..Refusal::of(Code::BelowHorizon) })
            }
            other => Self::Failed(other),
        }
    }
}

pub(super) fn bad(_: myelin_wire::Short) -> Unanswered {
    Refusal::of(Code::BadBody).into()
}

fn nothing() -> Said {
    Said::Answer { count: 0, aux: 0, more: false, body: Vec::new() }
}

pub(super) fn items<T: bytemuck::NoUninit>(rows: &[T]) -> Said {
    Said::Answer { count: rows.len() as u32, aux: 0, more: false, body: bytemuck::cast_slice(rows).to_vec() }
}
