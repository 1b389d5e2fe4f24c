//! Rows of several markets, back in the order in which they were applied.
//!
//! ```text
//!   per market     rows in tx order, a page at a time  --\
//!   per market     rows ...                            ---+-- by (tx, n, market) --> one row after the other
//!   per market     rows ...                            --/
//! ```
//!
//! Rows stand by market in their columns, each with its `tx` and its place `n` there. Quotes have no stored place: those of
//! one transaction come by market, in the order the markets were named. A merge reads up to its basis; [`Interleave::open`]
//! opens the next stretch. Invariants: no more rows wait in memory than it was given; a step does one page of a market's
//! rows at most, so that thousands of markets are begun over many turns. Deliberately absent: who asks.

use super::turn::{MEMORY_PAGE, SEALED_PAGE, Work};
use myelin_datom::Tx;
use myelin_index::{ColumnRow, Columns, Filter, Found, IndexError, MarketIx, MarketView};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::ops::ControlFlow;

/// Rows of one market that are read at once: the fewest, and the most.
const PAGE_ROWS: (usize, usize) = (8, 256);
/// Up to so many rows in memory are looked up by number: a scan costs as much as some hundred of them.
const ONE_BY_ONE: usize = 64;

#[derive(Debug)]
struct Feed<R> {
    market: MarketIx,
    rows: VecDeque<Found<R>>,
    next_row: u32,
}

/// See the module's picture.
#[derive(Debug)]
pub struct Interleave<R> {
    feeds: Vec<Feed<R>>,
    turns: BinaryHeap<Reverse<(Tx, u32, usize)>>,
    /// Rows up to here come; then the next stretch.
    basis: Tx,
    /// Feeds before this one were begun in this stretch.
    begun: usize,
    /// Rows that may wait in memory.
    rows_max: usize,
    page_rows: usize,
}

/// What comes next.
#[derive(Debug)]
pub enum Next<R> {
    /// A row, and the number of its feed.
    Row(usize, Found<R>),
    /// The stretch is at its end.
    End,
    /// The turn is.
    Later,
}

impl<R: ColumnRow> Interleave<R> {
    /// Over these markets, each from a row on, in memory for about so many rows. Nothing is read before [`Interleave::open`].
    pub fn new(starts: impl Iterator<Item = (MarketIx, u32)>, rows_max: usize) -> Self {
        let (turns, page_rows) = (BinaryHeap::new(), PAGE_ROWS.0);
        let mut merge = Self { feeds: Vec::new(), turns, basis: Tx::ZERO, begun: 0, rows_max, page_rows };
        starts.for_each(|(market, next_row)| merge.add(market, next_row));
        merge
    }

    /// A further market, from a row on; to be read from the next stretch on.
    pub fn add(&mut self, market: MarketIx, next_row: u32) {
        self.feeds.push(Feed { market, rows: VecDeque::new(), next_row });
    }

    /// How many markets.
    pub fn feeds(&self) -> usize {
        self.feeds.len()
    }

    /// The market of a feed.
    pub fn market(&self, feed: usize) -> MarketIx {
        self.feeds[feed].market
    }

    /// The last transaction of this stretch.
    pub const fn basis(&self) -> Tx {
        self.basis
    }

    /// Opens the stretch up to `basis`; the one before is at its end. Nothing is read yet.
    pub fn open(&mut self, basis: Tx) {
        (self.basis, self.begun) = (basis, 0);
        self.page_rows = (self.rows_max / self.feeds.len().max(1)).clamp(PAGE_ROWS.0, PAGE_ROWS.1);
    }

    /// Begins the markets that were not yet in this stretch. False when the turn is over before. **Errors:** as
    /// [`Interleave::step`].
    pub fn begin(&mut self, columns: &Columns<R>, work: &mut Work) -> Result<bool, IndexError> {
        while self.begun < self.feeds.len() {
            if work.is_spent() {
                return Ok(false);
            }
            self.fill(columns, self.begun, work)?;
            self.begun += 1;
        }
        Ok(true)
    }

    /// The place of the next row of this stretch, all of whose markets were begun.
    #[must_use]
    pub fn peek(&self) -> Option<(Tx, u32)> {
        self.turns.peek().map(|Reverse((tx, n, _))| (*tx, *n))
    }

    /// The next row. **Errors:** [`IndexError::BelowHorizon`] when rows that were still to come are gone.
    pub fn step(&mut self, columns: &Columns<R>, work: &mut Work) -> Result<Next<R>, IndexError> {
        if !self.begin(columns, work)? || work.is_spent() {
            return Ok(Next::Later);
        }
        let Some(Reverse((_, _, at))) = self.turns.pop() else { return Ok(Next::End) };
        let feed = &mut self.feeds[at];
        let Some(found) = feed.rows.pop_front() else { return Ok(Next::End) };
        work.spend(1);
        match feed.rows.front() {
            Some(next) => self.turns.push(Reverse((next.tx, next.n, at))),
            None => self.fill(columns, at, work)?,
        }
        Ok(Next::Row(at, found))
    }

    /// Brings a feed's next page, and gives it its turn.
    fn fill(&mut self, columns: &Columns<R>, at: usize, work: &mut Work) -> Result<(), IndexError> {
        let feed = &mut self.feeds[at];
        work.spend(1);
        // Refused only where retention took rows that were still to come.
        let view = columns.view_from(feed.market, feed.next_row, self.basis)?;
        if feed.next_row < view.end_row() {
            read_page(&view, feed.next_row, self.page_rows, work, |found| feed.rows.push_back(found))?;
            feed.next_row = feed.rows.back().map_or(feed.next_row, |found| found.number + 1);
        }
        if let Some(first) = feed.rows.front() {
            self.turns.push(Reverse((first.tx, first.n, at)));
        }
        Ok(())
    }
}

/// Visits up to `page` rows of a market from one on that is there. **Cost:** a page of memory or of a block.
pub fn read_page<R: ColumnRow>(
    view: &MarketView<'_, R>,
    from_row: u32,
    page: usize,
    work: &mut Work,
    mut visit: impl FnMut(Found<R>),
) -> Result<(), IndexError> {
    let in_memory = view.is_in_memory(from_row);
    if in_memory && page <= ONE_BY_ONE {
        let upto = view.end_row().min(from_row.saturating_add(page as u32));
        for number in from_row..upto {
            work.spend(1);
            view.row(number)?.into_iter().for_each(&mut visit);
        }
        return Ok(());
    }
    work.spend(if in_memory { MEMORY_PAGE } else { SEALED_PAGE });
    let mut left = page;
    view.rows(&Filter { from_row, ..Filter::default() }, |found| {
        visit(found);
        left -= 1;
        if left > 0 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })
}
