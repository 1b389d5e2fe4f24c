//! Reads that may be long: averages, bars, the greatest markets. They never hold the core, and the core reads no file for
//! them.
//!
//! ```text
//!   asked -> waiting -> here:  a slice of rows in memory per turn ----------------------------> answer
//!                        | ^                                                (memory, bounded)
//!                   away v |  a trip: whole blocks and frozen parts, page faults, preads
//!                   reader thread (`reader.rs`)
//! ```
//!
//! A read is a walk over markets, row by row (`walk.rs`), as of a basis that was fixed when it began; rows that arrive
//! later are behind it. What it has come to travels along with it, so wherever rows are sealed, frozen or merged
//! meanwhile, it goes on at the next row. Rows that retention takes before they were read end it as `below_horizon`; it
//! never answers with fewer. Invariants: a turn looks at no more than [`ROWS_PER_TURN`] rows, whoever asks for how much;
//! so many reads are under way at once, so many more wait, and a further one is told `Busy`; a client that leaves ends its
//! reads. Deliberately absent: reads of one place or one page, which `ask.rs` answers at once.

mod reader;
#[cfg(test)]
mod tests;
mod walk;

pub use reader::{Reader, Trip};

use super::ask::{Read, Unanswered};
use super::{ConnId, Refusal, Shard, ShardError};
use myelin_datom::EntityId;
use myelin_index::{Filter, Summing};
use myelin_wire::{Code, Cursor, Header, Kind, TopAsk};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use walk::{Reading, Step, Wanted};

/// Rows of the newest part that one turn looks at: at 10 ns a row 80 µs, less than a sync takes.
pub const ROWS_PER_TURN: u64 = 8192;
/// Reads of a shard under way at once. Each holds up to 64 Ki bars, some 20 MiB; a trip of each comes in turn.
pub const READINGS_MAX: usize = 8;
/// Reads of a shard that wait for a place; a further one is told `Busy`.
const WAITING_MAX: usize = 256;
/// Markets in one answer of `Top` at most: 224 KiB.
const TOP_MAX: u64 = 4096;

/// A read that is with the reader thread.
struct Away {
    number: u64,
    from: ConnId,
    header: Header,
    gone: Arc<AtomicBool>,
}

/// The long reads of a shard.
#[derive(Default)]
pub struct Readings {
    waiting: VecDeque<Box<Reading>>,
    here: VecDeque<Box<Reading>>,
    leaving: VecDeque<Trip>,
    away: Vec<Away>,
    summing: Summing,
    begun: u64,
    /// The most rows that a turn looked at.
    turn_rows_max: u64,
}

impl Readings {
    /// The connection is gone, and its reads with it. One that is away keeps its place until it is back.
    pub fn forget(&mut self, conn: ConnId) {
        self.waiting.retain(|reading| reading.from() != conn);
        self.here.retain(|reading| reading.from() != conn);
        for away in self.away.iter().filter(|away| away.from == conn) {
            away.gone.store(true, Relaxed);
        }
        // Its places are for those who wait: nobody else may come who would let them in.
        self.let_in();
    }

    /// Nobody is answered any more: who asked, and what.
    pub fn give_up(&mut self) -> Vec<(ConnId, Header)> {
        let gone = |away: &Away| away.gone.swap(true, Relaxed);
        let away = self.away.iter().filter(|away| !gone(away)).map(|away| (away.from, away.header));
        let here = self.waiting.drain(..).chain(self.here.drain(..)).map(|reading| (reading.from(), reading.header()));
        here.chain(away).collect()
    }

    /// The most rows of the newest part that one turn looked at.
    #[must_use]
    pub const fn turn_rows_max(&self) -> u64 {
        self.turn_rows_max
    }

    /// Lets reads that wait begin, as far as there are places.
    fn let_in(&mut self) {
        while self.here.len() + self.away.len() < READINGS_MAX {
            let Some(next) = self.waiting.pop_front() else { return };
            self.here.push_back(next);
        }
    }
}

impl Shard {
    /// `Vwap`, `Bars` and `Top`: checked now, answered when it was all read.
    pub(super) fn begin_reading(&mut self, read: &Read) -> Result<(), Unanswered> {
        let (wanted, market, filter) = self.wanted(read)?;
        if self.readings.waiting.len() >= WAITING_MAX {
            return Err(self.busy(self.now).into());
        }
        self.readings.begun += 1;
        let markets = self.markets.count_as_of(read.basis) as u32;
        let reading = Reading::new(self.readings.begun, read.clone(), wanted, market, markets, filter);
        self.readings.waiting.push_back(Box::new(reading));
        self.readings.let_in();
        Ok(())
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
                if !(1..=TOP_MAX).contains(&ask.limit) {
                    return Err(Refusal::of(Code::TooMany).into());
                }
                let filter = Filter { event_time_ns: ask.from_ns..=ask.to_ns, ..Filter::default() };
                Ok((Wanted::top(&ask), EntityId::NONE, filter))
            }
            _ => Err(Refusal::of(Code::UnknownKind).into()),
        }
    }

    /// True when a slice can be read now.
    #[must_use]
    pub fn has_readings(&self) -> bool {
        !self.readings.here.is_empty()
    }

    /// One slice of one read: at most [`ROWS_PER_TURN`] rows. Reads in turn. **Errors:** what it needs could not be read.
    pub fn read_on(&mut self) -> Result<(), ShardError> {
        let Some(mut reading) = self.readings.here.pop_front() else { return Ok(()) };
        let mut left = ROWS_PER_TURN;
        let step = reading.go_on(&self.ticks, &self.markets, &mut self.readings.summing, &mut left);
        self.readings.turn_rows_max = self.readings.turn_rows_max.max(ROWS_PER_TURN - left);
        match step {
            Ok(Step::More) => self.readings.here.push_back(reading),
            Ok(Step::Away) => self.leave(reading),
            Ok(Step::Answer(said)) => {
                let (from, header) = (reading.from(), reading.header());
                self.say(from, header.session, header.request, reading.basis(), said);
            }
            Err(Unanswered::Refused(refusal)) => self.refuse(reading.from(), &reading.header(), refusal),
            Err(Unanswered::Failed(error)) => {
                // Who asked is told when the shard stops.
                self.readings.here.push_front(reading);
                return Err(error.into());
            }
        }
        self.readings.let_in();
        Ok(())
    }

    fn leave(&mut self, reading: Box<Reading>) {
        let (number, from, header, gone) = (reading.number(), reading.from(), reading.header(), reading.gone());
        self.readings.away.push(Away { number, from, header, gone });
        self.readings.leaving.push_back(Trip::new(self.number, reading, self.ticks.sealed()));
    }

    /// The next read that is to go to the reader thread.
    pub fn poll_trip(&mut self) -> Option<Trip> {
        self.readings.leaving.pop_front()
    }

    /// A read is back from the reader thread. **Errors:** a run could not be read.
    pub fn is_back(&mut self, trip: Trip) -> Result<(), ShardError> {
        let (reading, result) = trip.end();
        let Some(at) = self.readings.away.iter().position(|away| away.number == reading.number()) else {
            return Ok(());
        };
        // Who asked for what cannot be read stays in the list, and is told when the shard stops.
        result?;
        let away = self.readings.away.swap_remove(at);
        if !away.gone.load(Relaxed) {
            self.readings.here.push_back(reading);
        }
        self.readings.let_in();
        Ok(())
    }
}
