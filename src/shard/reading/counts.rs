//! How many rows markets had at a moment: of one, of all, or market by market.
//!
//! ```text
//!   markets to come -> [ tally tally tally ]  a batch
//!                        known in memory | the moment ends within a sealed block: away, one page of transactions each
//!                      all known -> the sum, or the list -> next batch ... answer
//! ```
//! What the directory of the runs says is in memory: a block is read only where the moment lies between its first
//! transaction and its last. Deliberately absent: rows, which are not looked at.

use super::super::ask::Unanswered;
use super::super::reply::Said;
use super::under_way::{Here, MARKET_ROWS, Step, There, ToCome, about};
use crate::market::Markets;
use myelin_datom::{EntityId, Tx};
use myelin_index::{Cache, ColumnRow, Columns, IndexError, Sealed};
use myelin_wire::write_market_row;
use std::ops::Range;

/// Markets of one batch: a block each at most, so this bounds a trip.
const BATCH_MAX: usize = 512;

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counted {
    /// Ticks.
    Ticks,
    /// Quotes.
    Quotes,
    /// Both, market by market, with the markets' names.
    Each,
}

/// Rows of one market.
#[derive(Clone, Debug)]
enum Tally {
    Known(u32),
    /// Of these rows, those up to the moment: a sealed block says it.
    Sealed(Range<u32>),
}

impl Tally {
    /// What memory says.
    fn here<R: ColumnRow>(columns: &Columns<R>, market: EntityId, basis: Tx) -> Result<Self, IndexError> {
        let Some(ix) = columns.market_ix(market) else { return Ok(Self::Known(0)) };
        let first = columns.kept(ix).dropped;
        let end = columns.end_in_memory(ix, basis)?;
        Ok(end.map_or_else(|| Self::Sealed(first..columns.sealed_end(ix)), |end| Self::Known(end - first)))
    }

    fn look_up<R: ColumnRow>(
        &mut self,
        sealed: &Sealed<R>,
        cache: &Cache,
        market: EntityId,
        basis: Tx,
    ) -> Result<(), IndexError> {
        if let Self::Sealed(rows) = self {
            *self = Self::Known(sealed.view(cache, market, rows.clone(), basis)?.count());
        }
        Ok(())
    }

    fn known(&self) -> u64 {
        match self {
            Self::Known(rows) => u64::from(*rows),
            Self::Sealed(_) => unreachable!("a batch is told when all of it is known"),
        }
    }
}

struct Tallied {
    market: EntityId,
    ticks: Tally,
    quotes: Tally,
}

impl Tallied {
    fn is_known(&self) -> bool {
        matches!((&self.ticks, &self.quotes), (Tally::Known(_), Tally::Known(_)))
    }
}

/// See the module's picture.
pub struct Counts {
    basis: Tx,
    counted: Counted,
    to_come: ToCome,
    batch: Vec<Tallied>,
    /// Of the list: its first market's number, the next one's, and how many there are.
    first: u32,
    next: u32,
    there: u32,
    sum: u64,
    body: Vec<u8>,
}

impl Counts {
    /// Rows of one kind, of these markets.
    pub fn of(basis: Tx, counted: Counted, to_come: ToCome) -> Self {
        let (batch, body) = (Vec::new(), Vec::new());
        Self { basis, counted, to_come, batch, first: 0, next: 0, there: 0, sum: 0, body }
    }

    /// A page of the list: markets by their numbers, of so many that there were.
    pub fn each(basis: Tx, page: Range<u32>, there: u32) -> Self {
        let (first, next) = (page.start, page.start);
        Self { first, next, there, ..Self::of(basis, Counted::Each, ToCome::numbered(page)) }
    }

    /// Goes on here until `left` is spent. **Units:** rows.
    pub fn go_on(&mut self, here: &Here<'_>, left: &mut u64) -> Result<Step, Unanswered> {
        loop {
            while self.batch.len() < BATCH_MAX && !self.to_come.is_empty() {
                if *left == 0 {
                    return Ok(Step::More);
                }
                *left = left.saturating_sub(MARKET_ROWS);
                self.look_up_next(here)?;
            }
            if self.batch.is_empty() {
                return Ok(Step::Answer(self.answer()));
            }
            if !self.batch.iter().all(Tallied::is_known) {
                return Ok(Step::Away);
            }
            self.tell(here.markets);
        }
    }

    /// Reads what memory did not say.
    pub fn travel(&mut self, there: &There<'_>) -> Result<(), IndexError> {
        for one in &mut self.batch {
            if there.nobody_asks() {
                break;
            }
            one.ticks.look_up(there.ticks, there.cache, one.market, self.basis)?;
            one.quotes.look_up(there.quotes, there.cache, one.market, self.basis)?;
        }
        Ok(())
    }

    fn look_up_next(&mut self, here: &Here<'_>) -> Result<(), Unanswered> {
        let Some(market) = self.to_come.next(here.markets) else { return Ok(()) };
        let (mut ticks, mut quotes) = (Tally::Known(0), Tally::Known(0));
        let named = |error| about(market, error);
        if self.counted != Counted::Quotes {
            ticks = Tally::here(here.ticks, market, self.basis).map_err(named)?;
        }
        if self.counted != Counted::Ticks {
            quotes = Tally::here(here.quotes, market, self.basis).map_err(named)?;
        }
        self.batch.push(Tallied { market, ticks, quotes });
        Ok(())
    }

    fn tell(&mut self, markets: &Markets) {
        for one in self.batch.drain(..) {
            let (ticks, quotes) = (one.ticks.known(), one.quotes.known());
            self.sum += ticks + quotes;
            if self.counted == Counted::Each
                && let Some(market) = markets.get(self.next)
            {
                write_market_row(&mut self.body, market.id, market.flags, ticks, quotes, &market.name);
                self.next += 1;
            }
        }
    }

    fn answer(&mut self) -> Said {
        let body = std::mem::take(&mut self.body);
        if self.counted == Counted::Each {
            return Said::Answer {
                count: self.next - self.first,
                aux: u64::from(self.next),
                more: self.next < self.there,
                body,
            };
        }
        Said::Answer { count: 1, aux: self.sum, more: false, body }
    }
}
