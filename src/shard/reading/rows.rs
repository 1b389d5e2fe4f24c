//! Rows of one market: a page of them, or the newest.
//!
//! ```text
//!   next row .......... sealed end .......... basis
//!   reader thread       core                            until the page is full, or enough was looked at
//! ```
//! Who asks for rows that are in memory is answered at once; where that is cheap to know, a page begins behind the rows
//! that are too old for it, so that who follows a market never travels. Deliberately absent: several markets.

use super::super::Refusal;
use super::super::ask::Unanswered;
use super::super::planted::{self, Bug};
use super::super::reply::Said;
use super::under_way::{Here, Step, There, about};
use myelin_datom::{EntityId, Tx};
use myelin_index::{Cache, ColumnRow, Columns, Filter, IndexError, MarketView, Sealed};
use myelin_wire::{Attribute, Code, StoredRow};
use std::ops::ControlFlow;

/// Rows in one answer at most: 640 KiB.
pub const ROWS_PER_PAGE: usize = 8192;
/// Rows that one answer looks at, up to the end of the block it has come to then: a page whose times match few is short,
/// and says that there is more. One that a block's times pass over counts 64.
const ROWS_LOOKED_AT: u64 = 1 << 15;

/// See the module's picture.
pub struct Rows {
    basis: Tx,
    kind: Attribute,
    market: EntityId,
    filter: Filter,
    wanted: Wanted,
    /// Where the sealed rows ended when it left.
    sealed_end: u32,
    looks: u64,
    found: Vec<StoredRow>,
    ended: bool,
    more: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    /// So many at most, and their places.
    Page(usize),
    /// The last one.
    Newest,
}

impl Rows {
    /// A page of at most `limit` rows that the filter lets through; where to go on is told with it.
    ///
    /// **Errors:** the market is not known; rows that were to come are gone.
    pub fn page(
        here: &Here<'_>,
        basis: Tx,
        kind: Attribute,
        market: EntityId,
        filter: Filter,
        limit: usize,
    ) -> Result<Self, Unanswered> {
        Self::begun(here, Self::new(basis, kind, market, filter, Wanted::Page(limit.min(ROWS_PER_PAGE))))
    }

    /// The newest row. **Errors:** as above.
    pub fn newest(here: &Here<'_>, basis: Tx, kind: Attribute, market: EntityId) -> Result<Self, Unanswered> {
        Self::begun(here, Self::new(basis, kind, market, Filter::default(), Wanted::Newest))
    }

    fn begun(here: &Here<'_>, mut rows: Self) -> Result<Self, Unanswered> {
        match rows.kind {
            Attribute::Tick => rows.begin(here.ticks)?,
            Attribute::Quote => rows.begin(here.quotes)?,
            Attribute::Market => return Err(Refusal::of(Code::BadBody).into()),
        }
        Ok(rows)
    }

    fn new(basis: Tx, kind: Attribute, market: EntityId, filter: Filter, wanted: Wanted) -> Self {
        let (looks, found) = (ROWS_LOOKED_AT, Vec::new());
        Self { basis, kind, market, filter, wanted, sealed_end: 0, looks, found, ended: false, more: false }
    }

    fn begin<R: ColumnRow>(&mut self, columns: &Columns<R>) -> Result<(), Unanswered> {
        let ix = columns.market_ix(self.market).ok_or(Refusal::of(Code::UnknownMarket))?;
        let kept = columns.kept(ix);
        // Who goes on behind a row or a transaction that was dropped would miss what was dropped behind it.
        let (row, since) = (self.filter.from_row, self.filter.since);
        let misses = row != 0 && row < kept.dropped || since != Tx::ZERO && since < kept.gone;
        if (misses || self.basis < kept.horizon) && !planted::is(Bug::ShortBelowHorizon) {
            return Err(about(self.market, IndexError::BelowHorizon { horizon: kept.horizon }));
        }
        let begins = match self.wanted {
            Wanted::Newest => columns.end_in_memory(ix, self.basis)?.map_or(0, |end| end.saturating_sub(1)),
            Wanted::Page(_) if since >= kept.horizon => columns.end_in_memory(ix, since)?.unwrap_or(0),
            Wanted::Page(_) => 0,
        };
        self.filter.from_row = row.max(begins).max(kept.dropped);
        Ok(())
    }

    /// Goes on here. **Units:** of `left`: rows.
    pub fn go_on(&mut self, here: &Here<'_>, left: &mut u64) -> Result<Step, Unanswered> {
        match self.kind {
            Attribute::Quote => self.here(here.quotes, left),
            _ => self.here(here.ticks, left),
        }
    }

    fn here<R: ColumnRow>(&mut self, columns: &Columns<R>, left: &mut u64) -> Result<Step, Unanswered> {
        let ix = columns.market_ix(self.market).ok_or(Refusal::of(Code::UnknownMarket))?;
        while !self.ended {
            if *left == 0 {
                return Ok(Step::More);
            }
            let (next, kept, sealed_end) = (self.filter.from_row, columns.kept(ix), columns.sealed_end(ix));
            if next < kept.dropped {
                return Err(about(self.market, IndexError::BelowHorizon { horizon: kept.horizon }));
            }
            if next < sealed_end {
                self.sealed_end = sealed_end;
                return Ok(Step::Away);
            }
            let rows = columns.newest_from(ix, next, self.basis)?;
            let end = rows.end_row();
            let slice = rows.before(next.saturating_add(u32::try_from(*left).unwrap_or(u32::MAX)));
            *left = left.saturating_sub(u64::from(slice.count()).max(1));
            self.take(&slice)?;
            self.ended |= self.filter.from_row >= end;
        }
        Ok(Step::Answer(self.answer()))
    }

    /// Goes on away from the core, to the end of what is sealed.
    pub fn travel(&mut self, there: &There<'_>) -> Result<(), IndexError> {
        match self.kind {
            Attribute::Quote => self.there(there.quotes, there.cache),
            _ => self.there(there.ticks, there.cache),
        }
    }

    fn there<R: ColumnRow>(&mut self, sealed: &Sealed<R>, cache: &Cache) -> Result<(), IndexError> {
        let rows = sealed.view(cache, self.market, self.filter.from_row..self.sealed_end, self.basis)?;
        self.take(&rows)?;
        // The basis may end before the sealed rows do.
        self.ended |= rows.end_row() < self.sealed_end;
        Ok(())
    }

    /// Takes what it wants of these rows, and says where to go on.
    fn take<R: ColumnRow>(&mut self, rows: &MarketView<'_, R>) -> Result<(), IndexError> {
        let Wanted::Page(limit) = self.wanted else {
            if let Some(newest) = rows.latest()? {
                self.found = vec![stored(&newest)];
            }
            self.filter.from_row = rows.end_row();
            return Ok(());
        };
        let (found, more) = (&mut self.found, &mut self.more);
        let reached = rows.rows_within(&self.filter, &mut self.looks, |row| {
            if found.len() == limit {
                *more = true;
                return ControlFlow::Break(());
            }
            found.push(stored(&row));
            ControlFlow::Continue(())
        })?;
        if self.more {
            let behind = self.found.last().map_or(self.filter.from_row, |row| row.number + 1);
            (self.filter.from_row, self.ended) = (behind, true);
            return Ok(());
        }
        self.filter.from_row = reached.max(self.filter.from_row);
        if reached < rows.end_row() {
            // Enough, though the page is not full.
            (self.more, self.ended) = (true, true);
        }
        Ok(())
    }

    fn answer(&mut self) -> Said {
        let found = std::mem::take(&mut self.found);
        let body = bytemuck::cast_slice(&found).to_vec();
        Said::Answer { count: found.len() as u32, aux: self.filter.from_row.into(), more: self.more, body }
    }
}

pub(super) fn stored<R: ColumnRow>(found: &myelin_index::Found<R>) -> StoredRow {
    StoredRow { tx: found.tx.bits(), number: found.number, n: found.n, row: bytemuck::cast(found.row) }
}
