//! Reads of rows: averages, bars, the greatest markets, counts, pages. They never hold the core, and the core reads no file
//! for them.
//!
//! ```text
//!   asked -> its first slice at once -> answer
//!              \-> waiting -> here:  a slice of memory per turn -------------------------------> answer
//!                              | ^                                          (memory, bounded)
//!                         away v |  a trip: whole blocks and frozen parts, page faults, preads
//!                         reader thread (`reader.rs`)
//! ```
//!
//! A read is a walk (`sums.rs`, `counts.rs`, `rows.rs`) as of a basis that was fixed when it began; rows that arrive later are
//! behind it. What it has come to travels along with it, so wherever rows are sealed, frozen or merged meanwhile, it goes on
//! at the next row. Rows that retention takes before they were read end it as `below_horizon`; it never answers with fewer.
//! Two queues: what may take seconds never keeps a count or a page waiting for a place. Invariants: a turn looks at no more
//! than [`ROWS_PER_TURN`] rows, whoever asks for how much, in all shards of a core: the driver says how many there were so
//! far, and takes no further frame when they are spent; so many reads of a queue are under way at once, so many more wait,
//! and a further one is told `Busy`; a client that leaves ends its reads. Deliberately absent: facts, which `ask.rs` answers.

mod counts;
mod reader;
mod rows;
mod sums;
#[cfg(test)]
mod tests;
mod under_way;

pub use reader::{Reader, Trip};

use super::ask::{Read, Unanswered, bad};
use super::reply::Said;
use super::{ConnId, Refusal, Shard, ShardError};
use counts::{Counted, Counts};
use myelin_datom::{EntityId, Tx};
use myelin_index::{Filter, Summing};
use myelin_wire::{Attribute, Code, Cursor, Header, Kind, TopAsk};
use rows::Rows;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use sums::{Sums, Wanted};
use under_way::{Here, MARKET_ROWS, Reading, Step, ToCome, Walk};

/// Rows of the newest part that one turn looks at: at 10 ns a row 80 µs, less than a sync takes.
pub const ROWS_PER_TURN: u64 = 8192;
/// Bytes of an answer that cost as much as a row: a policy has 48 and is two look-ups, 60 ns.
const ANSWER_BYTES_PER_ROW: u64 = 8;
/// Long reads of a shard under way at once. Each holds up to 64 Ki bars, some 20 MiB; a trip of each comes in turn.
const LONG_MAX: usize = 8;
/// The same of short ones. Each holds a page of rows at most, 640 KiB, or 512 markets.
const SHORT_MAX: usize = 16;
/// Reads of a shard under way at once: places in the rings to the reader thread and back.
pub const UNDER_WAY_MAX: usize = LONG_MAX + SHORT_MAX;
/// Long reads of a shard that wait for a place; a further one is told `Busy`. One that waits is some hundred bytes.
const LONG_WAITING_MAX: usize = 1024;
/// Those of one connection: as many as the gateway asks at once, which speaks for many on one. Who asks for more at once
/// has not read the answers to these.
const LONG_WAITING_EACH_MAX: usize = 128;
/// The same of short ones.
const SHORT_WAITING_MAX: usize = 4096;
/// Markets in one page of their list; more follow on request.
const MARKETS_PER_PAGE: u32 = 4096;

/// A read that is with the reader thread.
struct Away {
    number: u64,
    from: ConnId,
    header: Header,
    gone: Arc<AtomicBool>,
}

/// Reads of one kind, and their places.
struct Queue {
    under_way_max: usize,
    waiting_max: usize,
    /// Of one connection.
    waiting_each_max: usize,
    waiting: VecDeque<Box<Reading>>,
    here: VecDeque<Box<Reading>>,
    away: Vec<Away>,
}

impl Queue {
    fn new(under_way_max: usize, waiting_max: usize, waiting_each_max: usize) -> Self {
        let (waiting, here, away) = (VecDeque::new(), VecDeque::new(), Vec::new());
        Self { under_way_max, waiting_max, waiting_each_max, waiting, here, away }
    }

    /// True when a further read of this connection finds no place to wait in.
    fn is_full_for(&self, conn: ConnId) -> bool {
        let its_own = || self.waiting.iter().filter(|reading| reading.from() == conn).count();
        self.waiting.len() >= self.waiting_max
            || self.waiting.len() >= self.waiting_each_max && its_own() >= self.waiting_each_max
    }

    /// Lets reads that wait begin, as far as there are places. Where one connection may not have them all, who has none
    /// under way goes first.
    fn let_in(&mut self) {
        while self.here.len() + self.away.len() < self.under_way_max && !self.waiting.is_empty() {
            let shared = self.waiting_each_max < self.waiting_max;
            let who_has_none = || self.waiting.iter().position(|reading| !self.has_some(reading.from()));
            let next = shared.then(who_has_none).flatten().unwrap_or(0);
            self.here.extend(self.waiting.remove(next));
        }
    }

    fn has_some(&self, conn: ConnId) -> bool {
        self.here.iter().any(|one| one.from() == conn) || self.away.iter().any(|one| one.from == conn)
    }

    /// Forgets its reads; gives those that were under way here.
    fn forget(&mut self, conn: ConnId) -> VecDeque<Box<Reading>> {
        for away in self.away.iter().filter(|away| away.from == conn) {
            away.gone.store(true, Relaxed);
        }
        self.waiting.retain(|reading| reading.from() != conn);
        let (gone, here) = std::mem::take(&mut self.here).into_iter().partition(|reading| reading.from() == conn);
        self.here = here;
        gone
    }
}

/// The reads of a shard.
pub struct Readings {
    long: Queue,
    short: Queue,
    /// Whose slice comes next, where both have one.
    long_is_next: bool,
    leaving: VecDeque<Trip>,
    summing: Summing,
    begun: u64,
    /// Rows that this turn has looked at so far, and the most that a turn looked at.
    turn_rows: u64,
    turn_rows_max: u64,
}

impl Default for Readings {
    fn default() -> Self {
        Self {
            long: Queue::new(LONG_MAX, LONG_WAITING_MAX, LONG_WAITING_EACH_MAX),
            short: Queue::new(SHORT_MAX, SHORT_WAITING_MAX, SHORT_WAITING_MAX),
            long_is_next: false,
            leaving: VecDeque::new(),
            summing: Summing::default(),
            begun: 0,
            turn_rows: 0,
            turn_rows_max: 0,
        }
    }
}

impl Readings {
    /// Nobody is answered any more: who asked, and what.
    pub fn give_up(&mut self) -> Vec<(ConnId, Header)> {
        let mut who = Vec::new();
        for Queue { waiting, here, away, .. } in [&mut self.long, &mut self.short] {
            who.extend(waiting.drain(..).chain(here.drain(..)).map(|one| (one.from(), one.header())));
            let answered = |away: &&Away| !away.gone.swap(true, Relaxed);
            who.extend(away.iter().filter(answered).map(|away| (away.from, away.header)));
        }
        who
    }

    /// A long read has begun and is not answered.
    pub fn are_long_under_way(&self) -> bool {
        !(self.long.waiting.is_empty() && self.long.here.is_empty() && self.long.away.is_empty())
    }

    /// The most rows of the newest part that one turn looked at.
    #[must_use]
    pub const fn turn_rows_max(&self) -> u64 {
        self.turn_rows_max
    }

    /// This turn looks at no further row.
    pub const fn turn_is_spent(&self) -> bool {
        self.turn_rows >= ROWS_PER_TURN
    }

    fn looked_at(&mut self, rows: u64) {
        self.turn_rows += rows;
        self.turn_rows_max = self.turn_rows_max.max(self.turn_rows);
    }

    /// What is no row costs as much as so many: it may end the turn.
    fn charge(&mut self, rows: u64) {
        self.turn_rows = self.turn_rows.max(ROWS_PER_TURN.min(self.turn_rows + rows));
    }

    /// An answer of so many bytes was made at once, without a walk.
    pub fn answered(&mut self, bytes: usize) {
        self.charge(MARKET_ROWS + bytes as u64 / ANSWER_BYTES_PER_ROW);
    }

    fn queue(&mut self, long: bool) -> &mut Queue {
        if long { &mut self.long } else { &mut self.short }
    }
}

impl Shard {
    /// Begins a read of rows: one that needs memory only, and not much of it, is answered at once.
    pub(super) fn begin_reading(&mut self, read: &Read) -> Result<(), Unanswered> {
        let walk = self.walk(read)?;
        let long = walk.is_long();
        if self.readings.queue(long).is_full_for(read.from) {
            return Err(self.busy(self.now).into());
        }
        self.readings.begun += 1;
        let mut reading = Box::new(Reading::new(self.readings.begun, read, walk));
        let queue = self.readings.queue(long);
        // Who comes later does not overtake: an answer at once is for whom nobody waits in front of.
        if !long
            && queue.waiting.is_empty()
            && queue.here.is_empty()
            && let Step::Answer(said) = self.slice(&mut reading)?
        {
            self.tell_reader(&reading, said);
            return Ok(());
        }
        let queue = self.readings.queue(long);
        queue.waiting.push_back(reading);
        queue.let_in();
        Ok(())
    }

    /// What a question walks over. **Errors:** it is not one, or of what is not there.
    fn walk(&self, read: &Read) -> Result<Walk, Unanswered> {
        match read.kind {
            Kind::Count => self.counts(read).map(Walk::Counts),
            Kind::ListMarkets => self.market_list(read).map(Walk::Counts),
            Kind::Latest => self.newest(read).map(Walk::Rows),
            Kind::Rows => self.page(read).map(Walk::Rows),
            _ => {
                let (wanted, market, filter) = self.wanted(read)?;
                let markets = self.markets.count_as_of(read.basis) as u32;
                let to_come = if market == EntityId::NONE { ToCome::numbered(0..markets) } else { ToCome::one(market) };
                Ok(Walk::Sums(Box::new(Sums::new(read.basis, wanted, to_come, filter))))
            }
        }
    }

    /// `Count`: body `attribute:8 | market:8`, market 0 = all.
    fn counts(&self, read: &Read) -> Result<Counts, Unanswered> {
        let mut cursor = Cursor::new(&read.body);
        let (attribute, market) = (cursor.u64().map_err(bad)?, cursor.u64().map_err(bad)?);
        cursor.end().map_err(bad)?;
        let market = EntityId::from_bits(market);
        let (counted, known) = match Attribute::from_number(attribute) {
            Some(Attribute::Tick) => (Counted::Ticks, self.ticks.market_ix(market).is_some()),
            Some(Attribute::Quote) => (Counted::Quotes, self.quotes.market_ix(market).is_some()),
            // Markets themselves are counted without a walk.
            Some(Attribute::Market) | None => return Err(Refusal::of(Code::UnknownAttribute).into()),
        };
        if market == EntityId::NONE {
            let markets = self.markets.count_as_of(read.basis) as u32;
            return Ok(Counts::of(read.basis, counted, ToCome::numbered(0..markets)));
        }
        if !known {
            return Err(Refusal::of(Code::UnknownMarket).into());
        }
        Ok(Counts::of(read.basis, counted, ToCome::one(market)))
    }

    /// `ListMarkets`: body `from:8`, the number of the first market; a page follows.
    fn market_list(&self, read: &Read) -> Result<Counts, Unanswered> {
        let mut cursor = Cursor::new(&read.body);
        let first = cursor.u64().map_err(bad)?;
        cursor.end().map_err(bad)?;
        let there = self.markets.count_as_of(read.basis) as u32;
        let first = u32::try_from(first).unwrap_or(u32::MAX);
        let end = first.saturating_add(MARKETS_PER_PAGE).min(there);
        Ok(Counts::each(read.basis, first..end.max(first), there))
    }

    /// `Latest`: body `market:8 | kind:8`, kind 1 ticks, 2 quotes; a page of `Rows` with the newest one.
    fn newest(&self, read: &Read) -> Result<Rows, Unanswered> {
        let mut cursor = Cursor::new(&read.body);
        let (market, kind) = (EntityId::from_bits(cursor.u64().map_err(bad)?), cursor.u64().map_err(bad)?);
        cursor.end().map_err(bad)?;
        let kind = Attribute::from_number(kind).ok_or(Refusal::of(Code::BadBody))?;
        Rows::newest(&self.here(), read.basis, kind, market)
    }

    /// `Rows`: body `market:8 | kind:8 | from row:8 | since tx:8 | from ns:8 | to ns:8 | limit:8`, kind 1 ticks, 2 quotes;
    /// rows after `since` whose event time lies in the range, ends included. `aux` is the row to go on from.
    fn page(&self, read: &Read) -> Result<Rows, Unanswered> {
        let mut cursor = Cursor::new(&read.body);
        let (market, kind) = (EntityId::from_bits(cursor.u64().map_err(bad)?), cursor.u64().map_err(bad)?);
        let (from_row, since) = (cursor.u64().map_err(bad)?, Tx::from_bits(cursor.u64().map_err(bad)?));
        let (from_ns, to_ns) = (cursor.i64().map_err(bad)?, cursor.i64().map_err(bad)?);
        let limit = usize::try_from(cursor.u64().map_err(bad)?).unwrap_or(usize::MAX);
        cursor.end().map_err(bad)?;
        let from_row = u32::try_from(from_row).map_err(|_| Refusal::of(Code::BadBody))?;
        let kind = Attribute::from_number(kind).ok_or(Refusal::of(Code::BadBody))?;
        let filter = Filter { since, from_row, event_time_ns: from_ns..=to_ns };
        Rows::page(&self.here(), read.basis, kind, market, filter, limit)
    }

    const fn here(&self) -> Here<'_> {
        Here { ticks: &self.ticks, quotes: &self.quotes, markets: &self.markets }
    }

    /// What is asked for, of one market or of all (`NONE`), of which rows.
    fn wanted(&self, read: &Read) -> Result<(Wanted, EntityId, Filter), Unanswered> {
        let bad = |_| Refusal::of(Code::BadBody);
        let mut cursor = Cursor::new(&read.body);
        match read.kind {
            // Body `market:8`, 0 = every market of the shard.
            Kind::Vwap => {
                let market = EntityId::from_bits(cursor.u64().map_err(bad)?);
                cursor.end().map_err(bad)?;
                Ok((Wanted::Vwap, market, Filter::default()))
            }
            // Body `market:8 | from ns:8 | to ns:8`, market 0 = every one of the shard.
            Kind::Totals => {
                let market = EntityId::from_bits(cursor.u64().map_err(bad)?);
                let (from, to) = (cursor.i64().map_err(bad)?, cursor.i64().map_err(bad)?);
                cursor.end().map_err(bad)?;
                if market != EntityId::NONE && self.ticks.market_ix(market).is_none() {
                    return Err(Refusal::of(Code::UnknownMarket).into());
                }
                Ok((Wanted::Totals, market, Filter { event_time_ns: from..=to, ..Filter::default() }))
            }
            // Body `market:8 | width ns:8 | from ns:8 | to ns:8`.
            Kind::Bars => {
                let market = EntityId::from_bits(cursor.u64().map_err(bad)?);
                let width_ns = cursor.i64().map_err(bad)?;
                let (from, to) = (cursor.i64().map_err(bad)?, cursor.i64().map_err(bad)?);
                cursor.end().map_err(bad)?;
                if width_ns <= 0 {
                    return Err(Refusal::of(Code::BadBody).into());
                }
                self.ticks.market_ix(market).ok_or(Refusal::of(Code::UnknownMarket))?;
                Ok((Wanted::Bars { width_ns }, market, Filter { event_time_ns: from..=to, ..Filter::default() }))
            }
            Kind::Top => {
                let ask = TopAsk::read(&read.body).map_err(bad)?;
                if !(1..=TopAsk::LIMIT_MAX).contains(&ask.limit) {
                    return Err(Refusal::of(Code::TooMany).into());
                }
                let filter = Filter { event_time_ns: ask.from_ns..=ask.to_ns, ..Filter::default() };
                Ok((Wanted::top(&ask), EntityId::NONE, filter))
            }
            _ => Err(Refusal::of(Code::UnknownKind).into()),
        }
    }

    /// A turn of the core goes on here that has looked at so many rows.
    pub const fn go_on_from(&mut self, turn_rows: u64) {
        self.readings.turn_rows = turn_rows;
    }

    /// Rows that the turn has looked at so far.
    #[must_use]
    pub const fn turn_rows(&self) -> u64 {
        self.readings.turn_rows
    }

    /// True when a slice can be read now, or a read begun.
    #[must_use]
    pub fn has_readings(&self) -> bool {
        self.can_read_on(&|_| true)
    }

    /// The same for somebody who has room for an answer.
    pub fn can_read_on(&self, has_room: &impl Fn(ConnId) -> bool) -> bool {
        self.who_reads().any(has_room) || self.waiting.is_due(self.group.applied())
    }

    /// Who asked for the reads that can go on here.
    pub fn who_reads(&self) -> impl Iterator<Item = ConnId> {
        self.readings.long.here.iter().chain(&self.readings.short.here).map(|reading| reading.from())
    }

    /// Slices of reads, as far as the turn's rows reach: a read that comes to little must not cost a turn, or those behind it
    /// would never be fewer. Reads of a queue in turn, and the queues in turn; one whose asker has no room for an answer keeps
    /// its place, and waits.
    ///
    /// **Errors:** what it needs could not be read.
    pub fn read_on(&mut self, has_room: &impl Fn(ConnId) -> bool) -> Result<(), ShardError> {
        // Those whose moment came in a turn that was spent.
        self.answer_waiting()?;
        while !self.readings.turn_is_spent() && self.next_slice(has_room)? {}
        Ok(())
    }

    /// False when nobody can go on.
    fn next_slice(&mut self, has_room: &impl Fn(ConnId) -> bool) -> Result<bool, ShardError> {
        let readings = &mut self.readings;
        let next = |queue: &Queue| queue.here.iter().position(|reading| has_room(reading.from()));
        let (next_long, next_short) = (next(&readings.long), next(&readings.short));
        let long = next_short.is_none() || readings.long_is_next && next_long.is_some();
        readings.long_is_next = !long;
        let next = if long { next_long } else { next_short };
        let Some(mut reading) = next.and_then(|at| readings.queue(long).here.remove(at)) else { return Ok(false) };
        match self.slice(&mut reading) {
            Ok(Step::More) => self.readings.queue(long).here.push_back(reading),
            Ok(Step::Away) => self.leave(reading),
            Ok(Step::Answer(said)) => {
                self.tell_reader(&reading, said);
                self.let_go(reading);
            }
            Err(Unanswered::Refused(refusal)) => {
                self.refuse(reading.from(), &reading.header(), refusal);
                self.let_go(reading);
            }
            Err(Unanswered::Failed(error)) => {
                // Who asked is told when the shard stops.
                self.readings.queue(long).here.push_front(reading);
                return Err(error.into());
            }
        }
        self.readings.queue(long).let_in();
        Ok(true)
    }

    /// A large answer ends the turn: whether who asked has room for another shows when this one stands in its outbox.
    fn tell_reader(&mut self, reading: &Reading, said: Said) {
        if let Said::Answer { body, .. } = &said {
            self.readings.charge(body.len() as u64 / ANSWER_BYTES_PER_ROW);
        }
        let (from, header) = (reading.from(), reading.header());
        self.say(from, header.session, header.request, reading.basis(), said);
    }

    fn slice(&mut self, reading: &mut Reading) -> Result<Step, Unanswered> {
        let rows = ROWS_PER_TURN.saturating_sub(self.readings.turn_rows);
        let mut left = rows;
        let here = Here { ticks: &self.ticks, quotes: &self.quotes, markets: &self.markets };
        let step = reading.go_on(&here, &mut self.readings.summing, &mut left);
        let looked_at = rows - left;
        self.readings.looked_at(looked_at);
        // A read of one row is an answer too.
        self.readings.charge(MARKET_ROWS.saturating_sub(looked_at));
        step
    }

    /// The connection is gone, and its reads with it. One that is away keeps its place until it is back.
    pub(super) fn forget_readings(&mut self, conn: ConnId) {
        for long in [true, false] {
            self.readings.queue(long).forget(conn).into_iter().for_each(|reading| self.let_go(reading));
            // Its places are for those who wait: nobody else may come who would let them in.
            self.readings.queue(long).let_in();
        }
    }

    /// Nobody needs it any more. What holds much is let go by the reader thread, and has its place until then.
    fn let_go(&mut self, reading: Box<Reading>) {
        if reading.holds_much() {
            reading.gone().store(true, Relaxed);
            self.leave(reading);
        }
    }

    fn leave(&mut self, reading: Box<Reading>) {
        let (number, from, header, gone) = (reading.number(), reading.from(), reading.header(), reading.gone());
        let long = reading.is_long();
        self.readings.queue(long).away.push(Away { number, from, header, gone });
        self.readings.leaving.push_back(Trip::new(self.number, reading, self.ticks.sealed(), self.quotes.sealed()));
    }

    /// The next read that is to go to the reader thread.
    pub fn poll_trip(&mut self) -> Option<Trip> {
        self.readings.leaving.pop_front()
    }

    /// A read is back from the reader thread. **Errors:** a run could not be read.
    pub fn is_back(&mut self, trip: Trip) -> Result<(), ShardError> {
        let Trip { number, long, reading, result, .. } = trip;
        let queue = self.readings.queue(long);
        let Some(at) = queue.away.iter().position(|away| away.number == number) else { return Ok(()) };
        // Who asked for what cannot be read stays in the list, and is told when the shard stops.
        result?;
        let away = queue.away.swap_remove(at);
        match reading {
            Some(reading) if away.gone.load(Relaxed) => self.let_go(reading),
            reading => queue.here.extend(reading),
        }
        self.readings.queue(long).let_in();
        Ok(())
    }
}
