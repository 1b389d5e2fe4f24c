//! Telling: what a shard says of its rows to the home of a spread, and the moments that it closes for it.
//!
//! ```text
//!   ask --> parked --rows are applied, or the moment is closed--> tell
//!             \--nothing under way closes it--> Close, 2 ms apart at the least --> applied: closed
//! ```
//! Invariants: what is told is applied, and complete up to `closed`; a `Close` is appended only while somebody waits for it, so an
//! idle node writes nothing. Deliberately absent: timers (`driver/letters.rs`).

use super::{Letter, Parked, Words};
use crate::shard::append::Appender;
use crate::shard::confluence::{Ask, FeedTold, From, Tell, Told};
use crate::shard::entry::EntryKind;
use crate::shard::{Now, Shard, ShardError};
use myelin_datom::{EntityId, Tx, flags};
use myelin_index::{Filter, IndexError, MarketIx};
use std::ops::ControlFlow;

/// A shard that is waited for closes so far apart. **Units:** microseconds.
const CLOSE_EVERY_US: u64 = 2_000;
/// Rows in one letter at most: about 200 KiB.
const ROWS_PER_TELL: usize = 2048;

impl Shard {
    /// Answers the questions that have waited long enough.
    pub(in crate::shard) fn answer_asks(&mut self) -> Result<(), ShardError> {
        let mut at = 0;
        while at < self.crossing.parked.len() {
            if !self.is_due(&self.crossing.parked[at].ask)? {
                at += 1;
                continue;
            }
            let Parked { from: to, key, ask } = self.crossing.parked.swap_remove(at);
            let words = Words::Tell(self.tell(&ask)?);
            self.crossing.outbox.push_back(Letter { from: self.number, to, key, words });
        }
        Ok(())
    }

    fn is_due(&self, ask: &Ask) -> Result<bool, IndexError> {
        let applied = self.group.applied_tx();
        if ask.until != Tx::ZERO && ask.until <= applied {
            return Ok(true);
        }
        for (_, from) in &ask.feeds {
            let due = match from {
                From::Behind { name, tx } => *tx <= applied && self.markets.named(name).is_some(),
                From::Row { market, row } => match self.ticks.market_ix(*market) {
                    Some(ix) => {
                        self.ticks.kept(ix).dropped > *row || self.ticks.view_from(ix, *row, applied)?.end_row() > *row
                    }
                    None => false,
                },
            };
            if due {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// What there is for a question.
    fn tell(&self, ask: &Ask) -> Result<Tell, IndexError> {
        let closed = self.group.applied_tx();
        let mut tell = Tell { closed, ..Tell::default() };
        for (feed, from) in &ask.feeds {
            if tell.rows.len() >= ROWS_PER_TELL {
                break;
            }
            let (market, row, gone) = match from {
                From::Behind { tx, .. } if *tx > closed => continue,
                From::Behind { name, tx } => {
                    let Some(market) = self.markets.named(name) else {
                        let none =
                            FeedTold { feed: *feed, market: EntityId::NONE, next_row: 0, whole: true, gone: Tx::ZERO };
                        tell.feeds.push(none);
                        continue;
                    };
                    let Some(ix) = self.ticks.market_ix(market.id) else { continue };
                    let (row, gone) = self.row_of_price(ix, *tx)?;
                    (market.id, row, gone)
                }
                From::Row { market, row } => {
                    let Some(ix) = self.ticks.market_ix(*market) else { continue };
                    let kept = self.ticks.kept(ix);
                    if *row < kept.dropped { (*market, kept.dropped, kept.gone) } else { (*market, *row, Tx::ZERO) }
                }
            };
            let Some(ix) = self.ticks.market_ix(market) else { continue };
            let view = self.ticks.view_from(ix, row, closed)?;
            let room = ask.page.min(ROWS_PER_TELL - tell.rows.len()).max(1);
            let (mut next_row, before) = (row, tell.rows.len());
            if row < view.end_row() {
                view.rows(&Filter { from_row: row, ..Filter::default() }, |found| {
                    let (received_ns, durable_ns) = self.crossing.timeline(found.tx);
                    next_row = found.number + 1;
                    tell.rows.push(Told { feed: *feed, found, received_ns, durable_ns });
                    if tell.rows.len() - before < room { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
                })?;
            }
            tell.feeds.push(FeedTold { feed: *feed, market, next_row, whole: next_row >= view.end_row(), gone });
        }
        Ok(tell)
    }

    /// The row of a market's price at a moment, else its first one after it; and, where that price may have been dropped, the
    /// transaction behind which one is there.
    fn row_of_price(&self, ix: MarketIx, at: Tx) -> Result<(u32, Tx), IndexError> {
        let view = self.ticks.view(ix, Tx::MAX)?;
        let first = self.ticks.row_after(ix, at)?.max(view.first_row());
        let mut row = first;
        while row > view.first_row() {
            row -= 1;
            match view.row(row)? {
                Some(found) if found.row.flags & flags::CORRECTION != 0 => {}
                _ => return Ok((row, Tx::ZERO)),
            }
        }
        if self.ticks.kept(ix).gone == Tx::ZERO {
            return Ok((first, Tx::ZERO));
        }
        let mut oldest = self.group.applied_tx();
        view.rows(&Filter::default(), |found| {
            if found.row.flags & flags::CORRECTION != 0 {
                return ControlFlow::Continue(());
            }
            oldest = found.tx.next();
            ControlFlow::Break(())
        })?;
        Ok((first, oldest))
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
