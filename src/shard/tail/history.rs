//! A reader's way through history: rows from the columns, markets from their list, facts from their log, by `tx`.
//!
//! ```text
//!   open: a market at a time, its horizon, where its rows begin --> stretch up to what is applied --> next entry ...
//!     ^                                                                                                   |
//!     '------------------ what was applied meanwhile, unless it is at hand <------------------------------'
//! ```
//!
//! Every step ends with the turn and is gone on with in the next one, the opening as well: over ten thousand markets it
//! takes some hundred turns. Invariant: a stretch is read whole before the next one is opened. What retention took is
//! `compacted`. Deliberately absent: pages, credit (`tail.rs`).

use super::entry::{Entry, Place, What};
use super::facts::{self, FactFeed, NextFact};
use super::wanted::Wanted;
use crate::market::Markets;
use crate::shard::interleave::{Interleave, Next};
use crate::shard::replay::ReplayError;
use crate::shard::turn::{SEARCH, Work};
use crate::shard::ways::MARKETS;
use crate::shard::{Refusal, Shard};
use myelin_datom::{EntityId, Kind, Quote, Tick, Tx};
use myelin_index::{ColumnRow, Columns, IndexError};
use myelin_wire::{Code, LogKind};

/// Rows of one kind that wait in memory for one reader's history.
const BUFFERED_ROWS: usize = 1 << 14;

/// See the module's picture.
#[derive(Debug)]
pub(super) struct History {
    /// Everything later is read; what of the first transaction was given already is passed over by who gives it.
    whole: Tx,
    /// Markets of lower numbers are being read.
    opened: u32,
    opening: bool,
    /// It may read more markets than every reader may.
    pub(super) large: bool,
    ticks: Interleave<Tick>,
    quotes: Interleave<Quote>,
    facts: FactFeed,
    /// The next of each, read ahead to see whose turn it is.
    next_tick: Ahead,
    next_quote: Ahead,
    next_fact: Ahead,
    /// The next market whose creation is an entry.
    next_market: u32,
    /// The last transaction of this stretch.
    pub(super) basis: Tx,
}

#[derive(Debug)]
enum Ahead {
    Unknown,
    Entry(Entry),
    /// There is none in this stretch.
    End,
}

impl Ahead {
    const fn place(&self) -> Option<Place> {
        if let Self::Entry(entry) = self { Some(entry.place) } else { None }
    }

    fn take(&mut self) -> Option<Entry> {
        match std::mem::replace(self, Self::Unknown) {
            Self::Entry(entry) => Some(entry),
            Self::Unknown | Self::End => None,
        }
    }
}

/// What comes next.
pub(super) enum Step {
    Entry(Entry),
    /// The stretch was read.
    Stretch,
    /// The turn is over.
    Later,
}

impl History {
    /// From behind a place on.
    pub(super) fn behind(after: Place, markets: &Markets) -> Self {
        let whole = after.whole();
        Self {
            whole,
            opened: 0,
            opening: true,
            large: false,
            ticks: Interleave::new(std::iter::empty(), BUFFERED_ROWS),
            quotes: Interleave::new(std::iter::empty(), BUFFERED_ROWS),
            facts: FactFeed::behind(whole),
            next_tick: Ahead::Unknown,
            next_quote: Ahead::Unknown,
            next_fact: Ahead::Unknown,
            next_market: markets.count_as_of(whole) as u32,
            basis: Tx::ZERO,
        }
    }

    /// It reads as many markets as every reader may: only a large one goes on.
    pub(super) fn has_to_be_large(&self) -> bool {
        !self.large && self.ticks.feeds().max(self.quotes.feeds()) > MARKETS
    }

    /// Goes on with what was applied meanwhile; this stretch is at its end.
    pub(super) const fn next_stretch(&mut self) {
        self.opening = true;
    }
}

impl Shard {
    /// Opens the markets that were not yet, and then the stretch up to what is applied. False when the turn is over before.
    ///
    /// **Errors:** `Compacted` when something that was to come is gone.
    pub(super) fn open_history(
        &self,
        wanted: &mut Wanted,
        history: &mut History,
        work: &mut Work,
    ) -> Result<bool, ReplayError> {
        if !history.opening {
            return Ok(true);
        }
        if !wanted.look(&self.markets, work) {
            return Ok(false);
        }
        if history.opened == 0 && wanted.kind(LogKind::Fact) {
            let gone = facts::horizon(&self.facts, wanted);
            if history.whole < gone {
                return Err(Refusal { aux: gone.bits(), ..Refusal::of(Code::Compacted) }.into());
            }
        }
        while let Some(market) = self.markets.get(history.opened) {
            if work.is_spent() || history.has_to_be_large() {
                return Ok(false);
            }
            work.spend(1);
            let is_wanted = wanted.market(history.opened);
            history.opened += 1;
            if is_wanted && wanted.kind(LogKind::Tick) {
                open(&self.ticks, &mut history.ticks, market.id, history.whole, work)?;
            }
            if is_wanted && wanted.kind(LogKind::Quote) {
                open(&self.quotes, &mut history.quotes, market.id, history.whole, work)?;
            }
        }
        history.opening = false;
        history.basis = self.group.applied_tx();
        history.ticks.open(history.basis);
        history.quotes.open(history.basis);
        history.next_tick = Ahead::Unknown;
        history.next_quote = Ahead::Unknown;
        history.next_fact = if wanted.kind(LogKind::Fact) { Ahead::Unknown } else { Ahead::End };
        Ok(true)
    }

    /// The next entry of this stretch, which is open.
    pub(super) fn next_of_history(
        &self,
        wanted: &Wanted,
        history: &mut History,
        work: &mut Work,
    ) -> Result<Step, ReplayError> {
        let History { ticks, quotes, facts, next_tick, next_quote, next_fact, basis, .. } = history;
        let known = look_ahead(&self.ticks, ticks, next_tick, work)?
            && look_ahead(&self.quotes, quotes, next_quote, work)?
            && self.look_ahead_at_facts(wanted, facts, next_fact, *basis, work)?;
        if !known || work.is_spent() {
            return Ok(Step::Later);
        }
        let market = self.markets.get(history.next_market).filter(|market| market.created <= *basis);
        let market = market.map(|market| Entry::market(market.created, history.next_market));
        let turn = |place: Place| (place.tx, place.fact);
        let places = [next_tick.place(), next_quote.place(), market.as_ref().map(|one| one.place), next_fact.place()];
        let first = (0..).zip(places).filter_map(|(at, place)| Some((turn(place?), at))).min();
        let entry = match first {
            None => None,
            Some((_, 0)) => next_tick.take(),
            Some((_, 1)) => next_quote.take(),
            Some((_, 2)) => {
                history.next_market += 1;
                work.spend(1);
                market
            }
            Some(_) => next_fact.take(),
        };
        Ok(entry.map_or(Step::Stretch, Step::Entry))
    }

    fn look_ahead_at_facts(
        &self,
        wanted: &Wanted,
        feed: &mut FactFeed,
        ahead: &mut Ahead,
        upto: Tx,
        work: &mut Work,
    ) -> Result<bool, IndexError> {
        if let Ahead::Unknown = ahead {
            *ahead = match feed.next(&self.facts, wanted, upto, work)? {
                NextFact::Fact(entry) => Ahead::Entry(entry),
                NextFact::End => Ahead::End,
                NextFact::Later => return Ok(false),
            };
        }
        Ok(true)
    }
}

/// Reads on where nothing is known yet. False when the turn is over before.
fn look_ahead<R: ColumnRow>(
    columns: &Columns<R>,
    merge: &mut Interleave<R>,
    ahead: &mut Ahead,
    work: &mut Work,
) -> Result<bool, IndexError> {
    if let Ahead::Unknown = ahead {
        *ahead = match merge.step(columns, work)? {
            Next::Row(feed, found) => {
                let (market, row) = (merge.market(feed).number(), bytemuck::cast(found.row));
                let place = Place { tx: found.tx, fact: false, n: found.n, market, number: found.number };
                let what = if R::KIND == Kind::Tick { What::Tick(row) } else { What::Quote(row) };
                Ahead::Entry(Entry { place, what })
            }
            Next::End => Ahead::End,
            Next::Later => return Ok(false),
        };
    }
    Ok(true)
}

/// A market's rows of later transactions are read from here on. **Errors:** `Compacted`.
fn open<R: ColumnRow>(
    columns: &Columns<R>,
    merge: &mut Interleave<R>,
    market: EntityId,
    whole: Tx,
    work: &mut Work,
) -> Result<(), ReplayError> {
    let Some(ix) = columns.market_ix(market) else { return Ok(()) };
    let gone = columns.kept(ix).gone;
    if whole < gone {
        return Err(Refusal { aux: gone.bits(), ..Refusal::of(Code::Compacted) }.into());
    }
    // From the beginning on there is nothing to look for.
    let from = if whole == Tx::ZERO {
        0
    } else {
        work.spend(SEARCH);
        columns.row_after(ix, whole)?
    };
    merge.add(ix, from);
    Ok(())
}
