//! The price of a market at a moment, sought row by row: corrections are passed over, however many there are.
//!
//! ```text
//!   first row behind the moment --back--> the newest row that is no correction: the price
//!                                  \-- none is left, and rows were dropped --forth--> the first one that is none:
//!                                                                                     behind it there is a price
//! ```
//! A way is gone in pieces, each paid for from a turn; where it is is a few bytes, which whoever seeks keeps, and may send to
//! another shard and back. Rows that retention takes meanwhile shorten it. Deliberately absent: what the price is for.

use super::turn::{SEALED_PAGE, SEARCH, Work};
use myelin_datom::{Tick, Tx, flags};
use myelin_index::{Columns, Filter, Found, IndexError, MarketIx, MarketView};
use std::ops::{ControlFlow, Range};

/// Rows in memory that are looked at one by one before it is asked whether the turn is over.
const ONE_BY_ONE: u32 = 64;
/// Rows of a sealed block that are looked at at once: they come a page at a time.
const AT_ONCE: u32 = 1024;

/// A way to the price of a market.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seek {
    /// The market's first row behind the moment.
    first: u32,
    at: At,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// Rows from here to the first one were looked at.
    Back(u32),
    /// No price is left before the moment; what was kept was looked at up to here.
    Forth(u32),
}

/// Where it led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Price {
    /// This row has it.
    Row(u32),
    /// There was none: this is the first row behind the moment.
    Never(u32),
    /// It may have been dropped.
    Gone {
        /// The first row behind the moment that is there.
        first: u32,
        /// Behind this transaction a price is there; what is applied, when there is none at all.
        oldest: Tx,
    },
}

impl Seek {
    /// The way to the price that stood at the end of a transaction.
    pub fn behind(ticks: &Columns<Tick>, market: MarketIx, tx: Tx, work: &mut Work) -> Result<Self, IndexError> {
        work.spend(SEARCH);
        let first = ticks.row_after(market, tx)?;
        Ok(Self { first, at: At::Back(first) })
    }

    /// Goes on; nothing is found yet when the turn is over before.
    pub fn go_on(
        &mut self,
        ticks: &Columns<Tick>,
        market: MarketIx,
        applied: Tx,
        work: &mut Work,
    ) -> Result<Option<Price>, IndexError> {
        let view = ticks.view(market, Tx::MAX)?;
        let (floor, gone) = (view.first_row(), ticks.kept(market).gone);
        let first = self.first.max(floor);
        while !work.is_spent() {
            match self.at {
                At::Back(row) if row > floor => {
                    let (from, price) = look_back(&view, row, work)?;
                    if let Some(price) = price {
                        return Ok(Some(Price::Row(price)));
                    }
                    self.at = At::Back(from);
                }
                At::Back(_) if gone == Tx::ZERO => return Ok(Some(Price::Never(first))),
                At::Back(_) => self.at = At::Forth(floor),
                At::Forth(row) => {
                    let from = row.max(floor);
                    if from >= view.end_row() {
                        return Ok(Some(Price::Gone { first, oldest: applied }));
                    }
                    let rows = from..view.end_row().min(from.saturating_add(AT_ONCE));
                    let mut price = None;
                    look_at(&view, &rows, work, |found| price = price.or(Some(found.tx)))?;
                    if let Some(tx) = price {
                        // A place in the middle of a transaction takes the row before it: its own is not enough.
                        return Ok(Some(Price::Gone { first, oldest: tx.next() }));
                    }
                    self.at = At::Forth(rows.end);
                }
            }
        }
        Ok(None)
    }
}

/// Looks at some rows before this one, of which there are some; gives how far it came, and the newest price among them.
fn look_back(view: &MarketView<'_, Tick>, row: u32, work: &mut Work) -> Result<(u32, Option<u32>), IndexError> {
    let floor = view.first_row();
    if !view.is_in_memory(row - 1) {
        let rows = row.saturating_sub(AT_ONCE).max(floor)..row;
        let mut newest = None;
        look_at(view, &rows, work, |found| newest = Some(found.number))?;
        return Ok((rows.start, newest));
    }
    let mut from = row;
    while from > floor.max(row.saturating_sub(ONE_BY_ONE)) && view.is_in_memory(from - 1) {
        from -= 1;
        work.spend(1);
        if view.row(from)?.is_some_and(|found| is_price(&found)) {
            return Ok((from, Some(from)));
        }
    }
    Ok((from, None))
}

/// Shows the rows of a range that are no corrections.
fn look_at(
    view: &MarketView<'_, Tick>,
    rows: &Range<u32>,
    work: &mut Work,
    mut price: impl FnMut(&Found<Tick>),
) -> Result<(), IndexError> {
    // Two pages where the range lies across their border; a row that is passed over costs a tenth of one that is given.
    work.spend(SEALED_PAGE + rows.len() as u32 / 8);
    view.rows(&Filter { from_row: rows.start, ..Filter::default() }, |found| {
        if found.number >= rows.end {
            return ControlFlow::Break(());
        }
        if is_price(&found) {
            price(&found);
        }
        ControlFlow::Continue(())
    })
}

fn is_price(found: &Found<Tick>) -> bool {
    found.row.flags & flags::CORRECTION == 0
}
