//! Telling: what a shard says of its rows to the home of a spread, and the moments that it closes for it.
//!
//! ```text
//!   ask --> parked --rows are applied, or the moment is closed--> tell
//!             \--nothing under way closes it--> Close, 2 ms apart at the least --> applied: closed
//! ```
//! All questions share one budget a turn. An answer ends with it: it speaks of the first markets of its question, and who asked
//! asks again about the others. Invariants: what is told is applied, and of each market that is spoken of complete up to
//! `closed`; a `Close` is appended only while somebody waits for it, so an idle node writes nothing. Deliberately absent: timers (`driver/letters.rs`).

use super::{Latest, Letter, Words};
use crate::reflex;
use crate::shard::append::Appender;
use crate::shard::confluence::{Ask, FeedTold, From, Tell, Told};
use crate::shard::entry::EntryKind;
use crate::shard::interleave::read_page;
use crate::shard::seek::{Price, Seek};
use crate::shard::turn::{LOOKS, Work};
use crate::shard::{Now, Shard, ShardError};
use myelin_datom::{EntityId, Tick, Tx};
use myelin_index::{Found, IndexError};

/// A shard that is waited for closes so far apart. **Units:** microseconds.
const CLOSE_EVERY_US: u64 = 2_000;
/// Rows in one letter at most: about 200 KiB.
const ROWS_PER_TELL: usize = 2048;

/// A question that waits for rows or for a moment. **Bound:** per home one, and one for each replay there.
#[derive(Debug)]
pub(super) struct Parked {
    pub(super) from: u16,
    pub(super) key: u64,
    pub(super) ask: Ask,
    /// What was applied when the last look at its markets began, and how many of them were looked at.
    seen: Tx,
    looked: usize,
}

impl Parked {
    pub(super) const fn new(from: u16, key: u64, ask: Ask) -> Self {
        Self { from, key, ask, seen: Tx::ZERO, looked: 0 }
    }
}

/// What a look at a question came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Due {
    Now,
    /// Nothing that is applied answers it.
    NotYet,
    /// The turn is over.
    Later,
}

/// What is known of a market that was asked about.
enum Start {
    /// It is not spoken of.
    Unknown,
    /// There is none of this name.
    NoMarket,
    /// Where its rows begin is not found yet.
    Sought(EntityId, Seek),
    /// From this row on; behind the transaction there are all.
    Row(EntityId, u32, Tx),
    /// From this row on, after a price whose row was dropped.
    Dropped(EntityId, u32, Latest),
}

impl Shard {
    /// Answers the questions that have waited long enough, as far as a turn reaches; who is not come to has the next one.
    /// True when there is more to do.
    pub(in crate::shard) fn answer_asks(&mut self) -> Result<bool, ShardError> {
        let (mut work, mut more) = (Work::turn(), false);
        for _ in 0..self.crossing.parked.len() {
            let Some(mut one) = self.crossing.parked.pop_front() else { break };
            match self.look(&mut one, &mut work)? {
                Due::NotYet => self.crossing.parked.push_back(one),
                Due::Later => {
                    self.crossing.parked.push_front(one);
                    more = true;
                    break;
                }
                Due::Now => {
                    let Parked { from: to, key, ask, .. } = one;
                    let words = Words::Tell(self.tell(&ask, &mut work)?);
                    self.crossing.outbox.push_back(Letter { from: self.number, to, key, words });
                }
            }
        }
        self.crossing.turn_units_max = self.crossing.turn_units_max.max(work.spent());
        Ok(more)
    }

    /// Whether a question is due. Each of its markets is looked at once for everything that is applied.
    fn look(&self, one: &mut Parked, work: &mut Work) -> Result<Due, IndexError> {
        let applied = self.group.applied_tx();
        if work.is_spent() {
            return Ok(Due::Later);
        }
        if one.ask.until != Tx::ZERO && one.ask.until <= applied {
            return Ok(Due::Now);
        }
        loop {
            if one.looked == one.ask.feeds.len() || one.seen == Tx::ZERO {
                if one.seen == applied {
                    return Ok(Due::NotYet);
                }
                (one.looked, one.seen) = (0, applied);
            }
            if work.is_spent() {
                return Ok(Due::Later);
            }
            work.spend(1);
            let some = one.ask.feeds[one.looked..].iter().take(LOOKS);
            let some_len = some.len();
            for (_, from) in some {
                if self.has_news(from)? {
                    return Ok(Due::Now);
                }
            }
            one.looked += some_len;
        }
    }

    fn has_news(&self, from: &From) -> Result<bool, IndexError> {
        let applied = self.group.applied_tx();
        Ok(match from {
            From::Behind { name, tx } => *tx <= applied && self.markets.named(name).is_some(),
            From::Price { .. } => true,
            From::Row { market, row } => match self.ticks.market_ix(*market) {
                Some(ix) => {
                    self.ticks.kept(ix).dropped > *row || self.ticks.view_from(ix, *row, applied)?.end_row() > *row
                }
                None => false,
            },
        })
    }

    /// What there is for a question, as far as the turn reaches; of its first market in any case.
    fn tell(&self, ask: &Ask, work: &mut Work) -> Result<Tell, IndexError> {
        let closed = self.group.applied_tx();
        let mut tell = Tell { closed, ..Tell::default() };
        for (feed, from) in &ask.feeds {
            if tell.rows.len() >= ROWS_PER_TELL || work.is_spent() {
                break;
            }
            work.spend(1);
            let said =
                FeedTold { feed: *feed, market: EntityId::NONE, next_row: 0, seek: None, whole: true, gone: Tx::ZERO };
            match self.start(from, work)? {
                Start::Unknown => {}
                Start::NoMarket => tell.feeds.push(said),
                Start::Sought(market, seek) => {
                    tell.feeds.push(FeedTold { market, seek: Some(seek), whole: false, ..said });
                }
                Start::Row(market, row, gone) => {
                    self.tell_rows(ask, FeedTold { market, gone, ..said }, row, &mut tell, work)?
                }
                Start::Dropped(market, row, (tx, price)) => {
                    let stood = Tick { market, price, ..bytemuck::Zeroable::zeroed() };
                    let found = Found { number: row.saturating_sub(1), tx, n: 0, row: stood };
                    tell.rows.push(Told { feed: *feed, found, received_ns: 0, durable_ns: 0 });
                    self.tell_rows(ask, FeedTold { market, ..said }, row, &mut tell, work)?;
                }
            }
        }
        Ok(tell)
    }

    /// A page of a market's rows.
    fn tell_rows(
        &self,
        ask: &Ask,
        said: FeedTold,
        row: u32,
        tell: &mut Tell,
        work: &mut Work,
    ) -> Result<(), IndexError> {
        let Some(ix) = self.ticks.market_ix(said.market) else { return Ok(()) };
        let view = self.ticks.view_from(ix, row, tell.closed)?;
        let mut next_row = row;
        if row < view.end_row() {
            let room = ask.page.min(ROWS_PER_TELL.saturating_sub(tell.rows.len())).max(1);
            read_page(&view, row, room, work, |found| {
                let (received_ns, durable_ns) = self.crossing.timeline(found.tx);
                next_row = found.number + 1;
                tell.rows.push(Told { feed: said.feed, found, received_ns, durable_ns });
            })?;
        }
        tell.feeds.push(FeedTold { next_row, whole: next_row >= view.end_row(), ..said });
        Ok(())
    }

    /// Where a market's rows begin.
    fn start(&self, from: &From, work: &mut Work) -> Result<Start, IndexError> {
        let applied = self.group.applied_tx();
        let (market, ix, behind, mut seek) = match from {
            From::Behind { tx, .. } if *tx > applied => return Ok(Start::Unknown),
            From::Behind { name, tx } => {
                let Some(market) = self.markets.named(name) else { return Ok(Start::NoMarket) };
                let Some(ix) = self.ticks.market_ix(market.id) else { return Ok(Start::Unknown) };
                (market.id, ix, *tx, Seek::behind(&self.ticks, ix, *tx, work)?)
            }
            From::Price { market, tx, seek } => {
                let Some(ix) = self.ticks.market_ix(*market) else { return Ok(Start::Unknown) };
                (*market, ix, *tx, *seek)
            }
            From::Row { market, row } => {
                let Some(ix) = self.ticks.market_ix(*market) else { return Ok(Start::Unknown) };
                let kept = self.ticks.kept(ix);
                let (row, gone) = if *row < kept.dropped { (kept.dropped, kept.gone) } else { (*row, Tx::ZERO) };
                return Ok(Start::Row(*market, row, gone));
            }
        };
        Ok(match seek.go_on(&self.ticks, ix, applied, work)? {
            None => Start::Sought(market, seek),
            Some(Price::Row(row) | Price::Never(row)) => Start::Row(market, row, Tx::ZERO),
            Some(Price::Gone { first, oldest }) => match self.crossing.stood.get(&market) {
                // Nothing that came later was dropped.
                Some(latest) if self.ticks.kept(ix).gone <= behind => Start::Dropped(market, first, *latest),
                _ => Start::Row(market, first, oldest),
            },
        })
    }

    /// Rows of a market were dropped. Its latest price still stands, whether its row is there or not.
    pub(in crate::shard) fn keep_price(&mut self, market: EntityId) {
        let Some(ix) = self.ticks.market_ix(market) else { return };
        let gone = self.ticks.kept(ix).gone;
        match self.reflexes.latest(reflex::MarketIx(ix.number())) {
            Some(latest) if latest.0 <= gone => _ = self.crossing.stood.insert(market, latest),
            // A row that is there has a later one; what stood before it is not known.
            _ => _ = self.crossing.stood.remove(&market),
        }
    }

    /// The same of all markets, at a start: what stood is in the checkpoint.
    pub(super) fn keep_prices(&mut self) {
        let markets: Vec<_> = self.markets.iter().map(|market| market.id).collect();
        let dropped =
            |market: &EntityId| self.ticks.market_ix(*market).is_some_and(|ix| self.ticks.kept(ix).dropped > 0);
        let dropped: Vec<_> = markets.into_iter().filter(dropped).collect();
        dropped.into_iter().for_each(|market| self.keep_price(market));
    }

    /// True when some shard wants a moment that is not closed.
    #[must_use]
    pub fn is_waited_for(&self) -> bool {
        self.crossing.parked.iter().any(|one| one.ask.until > self.group.appended_tx())
    }

    /// Closes the moment that somebody waits for, when the last time is long enough ago. Gives when it is to be asked again.
    /// **Units:** microseconds, as [`Now::mono_us`].
    pub fn close_if_due(&mut self, now: Now, log: &mut Appender) -> Option<u64> {
        let until = self.crossing.parked.iter().map(|one| one.ask.until).max()?;
        if until <= self.group.appended_tx() {
            // What is under way closes it.
            return None;
        }
        let due = self.crossing.closed_us + CLOSE_EVERY_US;
        if now.mono_us < due {
            return Some(due);
        }
        // As far as the clock is: rows that come meanwhile need not wait for the next one.
        let tx = until.max(Tx::at_millis(now.millis()));
        self.crossing.closed_us = now.mono_us;
        let noted = log.note(&mut self.group, EntryKind::Close, tx);
        self.counters.moments_closed += u64::from(noted.is_ok());
        noted.is_err().then_some(now.mono_us + CLOSE_EVERY_US)
    }
}
