//! Rows of several markets, back in the order in which they were applied.
//!
//! ```text
//!   per market     rows in tx order, a page at a time  --\
//!   per market     rows ...                            ---+-- by (tx, n, market) --> one row after the other
//!   per market     rows ...                            --/
//! ```
//!
//! Rows stand by market in their columns, each with its `tx` and its place `n` there. Quotes have no stored place: those of
//! one transaction come by market, in the order the markets were named. A merge reads up to its basis; [`Interleave::go_on`]
//! opens the next stretch. Invariant: no more rows wait in memory than it was given. Deliberately absent: who asks.

use myelin_datom::Tx;
use myelin_index::{ColumnRow, Columns, Filter, Found, IndexError, MarketIx};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::ops::ControlFlow;

/// Rows of one market that are read at once: the fewest, and the most.
const PAGE_ROWS: (usize, usize) = (8, 256);

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
    page_rows: usize,
}

impl<R: ColumnRow> Interleave<R> {
    /// Over these markets, each from a row on, in memory for about so many rows. Nothing is read before [`Interleave::go_on`].
    pub fn new(starts: impl Iterator<Item = (MarketIx, u32)>, rows: usize) -> Self {
        let feed = |(market, next_row)| Feed { market, rows: VecDeque::new(), next_row };
        let feeds: Vec<_> = starts.map(feed).collect();
        let page_rows = (rows / feeds.len().max(1)).clamp(PAGE_ROWS.0, PAGE_ROWS.1);
        Self { feeds, turns: BinaryHeap::new(), basis: Tx::ZERO, page_rows }
    }

    /// A market that came meanwhile, from its first row on; it is read from the next stretch on.
    pub fn add(&mut self, market: MarketIx) {
        self.feeds.push(Feed { market, rows: VecDeque::new(), next_row: 0 });
    }

    /// The market of a feed.
    pub fn market(&self, feed: usize) -> MarketIx {
        self.feeds[feed].market
    }

    /// The last transaction of this stretch.
    pub const fn basis(&self) -> Tx {
        self.basis
    }

    /// Opens the stretch up to `basis`; the one before is at its end.
    ///
    /// **Errors:** [`IndexError::BelowHorizon`] when rows that were still to come are gone.
    pub fn go_on(&mut self, columns: &Columns<R>, basis: Tx) -> Result<(), IndexError> {
        self.basis = basis;
        (0..self.feeds.len()).try_for_each(|at| self.fill(columns, at))
    }

    /// The place of the next row of this stretch.
    #[must_use]
    pub fn peek(&self) -> Option<(Tx, u32)> {
        self.turns.peek().map(|Reverse((tx, n, _))| (*tx, *n))
    }

    /// The next row and the number of its feed; `None` at the end of the stretch. **Errors:** as [`Interleave::go_on`].
    pub fn next(&mut self, columns: &Columns<R>) -> Result<Option<(usize, Found<R>)>, IndexError> {
        let Some(Reverse((_, _, at))) = self.turns.pop() else { return Ok(None) };
        let feed = &mut self.feeds[at];
        let Some(found) = feed.rows.pop_front() else { return Ok(None) };
        match feed.rows.front() {
            Some(next) => self.turns.push(Reverse((next.tx, next.n, at))),
            None => self.fill(columns, at)?,
        }
        Ok(Some((at, found)))
    }

    /// Brings a feed's next page, and gives it its turn.
    fn fill(&mut self, columns: &Columns<R>, at: usize) -> Result<(), IndexError> {
        let feed = &mut self.feeds[at];
        // Refused only where retention took rows that were still to come.
        let view = columns.view_from(feed.market, feed.next_row, self.basis)?;
        if feed.next_row < view.end_row() {
            let filter = Filter { from_row: feed.next_row, ..Filter::default() };
            let page = self.page_rows;
            view.rows(&filter, |found| {
                feed.rows.push_back(found);
                if feed.rows.len() < page { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            })?;
            feed.next_row = feed.rows.back().map_or(feed.next_row, |found| found.number + 1);
        }
        if let Some(first) = feed.rows.front() {
            self.turns.push(Reverse((first.tx, first.n, at)));
        }
        Ok(())
    }
}
