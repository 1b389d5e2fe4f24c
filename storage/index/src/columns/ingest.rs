//! `check` and `insert`: who is new, and where new rows go.
//!
//! ```text
//!   row -> market? -> price sound? -> id 0? -> repeated in this frame? -> greater than all / window bit -> New
//!                                                   \________ seen, or below the window: find its row, compare bytes,
//!                                                             and where that is a correction those before it as well
//! ```
//! Invariants: `check` depends on the state and the rows alone, so every replica reaches the same verdicts; a row that is
//! there already, corrected since or not, is a duplicate: whoever repeats a file changes nothing; nothing is allocated per
//! row after warm-up, but for corrections.

use std::ops::ControlFlow;

use myelin_datom::{EntityId, Tx};

use super::market::Market;
use super::scratch::Place;
use super::window::Known;
use super::{ColumnRow, Columns, Gap, Inserted, MARKET_ROWS_MAX, MarketIx, RowRefusal, Scratch, Summary, Verdict};
use crate::IndexError;

/// The market of the row before: rows of one market often follow each other.
struct Last {
    id: EntityId,
    ix: MarketIx,
}

impl<R: ColumnRow> Columns<R> {
    /// Judges every row of a proposal; `verdicts` is cleared and filled. Changes nothing that can be seen.
    ///
    /// **Errors:** a run that cannot be read where an old id has to be compared; nothing was decided then.
    pub fn check(&mut self, rows: &[R], verdicts: &mut Vec<Verdict>) -> Result<Summary, IndexError> {
        self.check_rows(rows, verdicts, false)
    }

    /// The same for rows whose shape nobody has looked at: a flawed one is refused as [`RowRefusal::Flawed`].
    ///
    /// **Cost:** a nanosecond a row more.
    pub fn check_each(&mut self, rows: &[R], verdicts: &mut Vec<Verdict>) -> Result<Summary, IndexError> {
        self.check_rows(rows, verdicts, true)
    }

    #[inline]
    fn check_rows(&mut self, rows: &[R], verdicts: &mut Vec<Verdict>, look: bool) -> Result<Summary, IndexError> {
        assert!(rows.len() < 1 << 31, "a proposal's rows are counted in 31 bits");
        verdicts.clear();
        verdicts.reserve(rows.len());
        self.scratch.begin(rows.len());
        self.corrected.clear();
        self.placed.clear();
        let mut last = Last { id: EntityId::NONE, ix: MarketIx(0) };
        let mut summary = Summary::default();
        for (n, row) in rows.iter().enumerate() {
            let verdict = if look && row.flaw().is_some() {
                Verdict::Refused(RowRefusal::Flawed)
            } else {
                self.judge(rows, n as u32, row, &mut last)?
            };
            match verdict {
                Verdict::New => summary.new += 1,
                Verdict::Duplicate => summary.duplicates += 1,
                Verdict::Refused(refusal) => {
                    summary.refused += 1;
                    summary.first_refused = summary.first_refused.or(Some((n as u32, refusal)));
                }
            }
            verdicts.push(verdict);
            self.placed.push(last.ix);
        }
        Ok(summary)
    }

    #[inline]
    fn judge(&mut self, rows: &[R], n: u32, row: &R, last: &mut Last) -> Result<Verdict, IndexError> {
        if row.market() != last.id {
            let Some(ix) = self.table.get(row.market()) else {
                return Ok(Verdict::Refused(RowRefusal::UnknownMarket));
            };
            *last = Last { id: row.market(), ix };
        }
        let market = &self.markets[last.ix.0 as usize];
        if row.has_negative_price() && !market.options.signed {
            return Ok(Verdict::Refused(RowRefusal::NegativePrice));
        }
        // Counted as if every row of the frame went to this market: never one row too many, the same on every replica.
        let full = u64::from(market.next_row()) + rows.len() as u64 > MARKET_ROWS_MAX.into();
        let new = if full { Verdict::Refused(RowRefusal::MarketFull) } else { Verdict::New };
        let id = row.id();
        if id == 0 {
            return Ok(new);
        }
        let hash = Scratch::hash(last.ix.0, id);
        let same_key = |earlier: u32| {
            let earlier = &rows[earlier as usize];
            earlier.id() == id && earlier.market() == row.market()
        };
        let (cell, verdict) = match self.scratch.find(hash, same_key) {
            Place::Taken { cell, row: earlier } => (cell, self.judge_again(rows, earlier, n, last.ix, new)?),
            Place::Free { cell } => match market.window.known(id) {
                Known::New => (cell, unseen(market, row, new)),
                Known::Seen | Known::Below => (cell, self.judge_old(last.ix, row, new)?),
            },
        };
        if verdict == Verdict::New {
            self.scratch.put(cell, hash, n);
        }
        Ok(verdict)
    }

    #[cold]
    fn judge_old(&self, ix: MarketIx, row: &R, new: Verdict) -> Result<Verdict, IndexError> {
        Ok(match self.newest_of_id(ix, row.id())? {
            Some(stored) if is_same(&stored, row) => Verdict::Duplicate,
            Some(stored) if stored.is_correction() => self.judge_stored(ix, row, VERSIONS_MAX, new)?,
            Some(_) => other_bytes(row, new),
            None => unseen(&self.markets[ix.0 as usize], row, new),
        })
    }

    /// A row whose key an earlier row of the frame has.
    #[cold]
    fn judge_again(
        &mut self,
        rows: &[R],
        earlier: u32,
        n: u32,
        ix: MarketIx,
        new: Verdict,
    ) -> Result<Verdict, IndexError> {
        let (row, mut next, mut left) = (&rows[n as usize], Some(earlier), VERSIONS_MAX);
        let mut verdict = None;
        while let Some(at) = next {
            let version = &rows[at as usize];
            left -= 1;
            if is_same(version, row) {
                verdict = Some(Verdict::Duplicate);
            } else if left == 0 || !version.is_correction() {
                verdict = Some(other_bytes(row, new));
            }
            next = self.corrected.get(&at).copied().filter(|_| verdict.is_none());
        }
        let verdict = verdict.map_or_else(|| self.judge_stored(ix, row, left, new), Ok)?;
        if verdict == Verdict::New {
            self.corrected.insert(n, earlier);
        }
        Ok(verdict)
    }

    /// A row whose key stored rows have, of which it is compared with so many.
    #[cold]
    fn judge_stored(&self, ix: MarketIx, row: &R, mut left: usize, new: Verdict) -> Result<Verdict, IndexError> {
        let mut verdict = other_bytes(row, new);
        self.view_now(ix).versions(row.id(), |version| {
            left -= 1;
            if is_same(version, row) {
                verdict = Verdict::Duplicate;
            }
            let ended = verdict == Verdict::Duplicate || left == 0 || !version.is_correction();
            if ended { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        Ok(verdict)
    }

    /// Stores the rows judged [`Verdict::New`] under `tx`.
    ///
    /// **Panics** when the verdicts are not [`check`](Self::check)'s on these rows and this state, or when `tx` does not
    /// follow every transaction before it: applying in order is the caller's contract.
    pub fn insert(&mut self, tx: Tx, rows: &[R], verdicts: &[Verdict]) -> Inserted<'_> {
        assert!(rows.len() == verdicts.len(), "one verdict per row");
        assert!(tx > self.last_tx, "{tx} does not follow {}", self.last_tx);
        self.last_tx = tx;
        self.gaps.clear();
        let mut stored = 0;
        for (n, row) in rows.iter().enumerate() {
            if verdicts[n] != Verdict::New {
                continue;
            }
            // Where the last check found the market; looked up again when that was a check of other rows.
            let hint = self
                .placed
                .get(n)
                .filter(|ix| self.markets.get(ix.0 as usize).is_some_and(|market| market.id == row.market()));
            let Some(ix) = hint.copied().or_else(|| self.table.get(row.market())) else {
                unreachable!("{:?} was judged to exist", row.market());
            };
            let market = &mut self.markets[ix.0 as usize];
            let id = row.id();
            if id != 0 {
                let before = market.window.note(id);
                if market.options.dense_ids
                    && let Some(before) = before
                    && before != 0
                    && id - before > 1
                {
                    self.gaps.push(Gap { market: market.id, first: before + 1, last: id - 1 });
                }
            }
            if market.part.rows() == 0 {
                self.touched.push(ix);
            }
            let mut stored_row = *row;
            stored_row.set_place(n as u32);
            market.part.push(tx, &stored_row, &mut self.free);
            stored += 1;
        }
        self.newest_rows += u64::from(stored);
        if !self.gaps.is_empty() {
            self.settle_gaps();
        }
        Inserted { rows: stored, gaps: &self.gaps }
    }

    /// A gap that a later row of the same proposal filled is none.
    #[cold]
    fn settle_gaps(&mut self) {
        for gap in core::mem::take(&mut self.gaps) {
            let Some(ix) = self.table.get(gap.market) else { unreachable!("the gap's market exists") };
            let window = &self.markets[ix.0 as usize].window;
            window.missing(gap.first, gap.last, |first, last| {
                self.gaps.push(Gap { market: gap.market, first, last });
            });
        }
    }
}

/// Rows of one key that a row is compared with, the newest first. Somebody who corrects one row without end would make the
/// next one dear: a correction that repeats an older one is stored again.
const VERSIONS_MAX: usize = 16;

#[inline]
fn is_same<R: ColumnRow>(stored: &R, row: &R) -> bool {
    bytemuck::bytes_of(stored) == bytemuck::bytes_of(row)
}

/// A row whose key has rows already, none of them the same.
#[inline]
fn other_bytes<R: ColumnRow>(row: &R, new: Verdict) -> Verdict {
    if row.is_correction() { new } else { Verdict::Refused(RowRefusal::IdConflict) }
}

/// A row whose key has no row.
#[inline]
fn unseen<R: ColumnRow>(market: &Market<R>, row: &R, new: Verdict) -> Verdict {
    if market.options.ascending_ids && row.id() <= market.floor.id {
        Verdict::Refused(RowRefusal::TooOld)
    } else if row.is_correction() {
        Verdict::Refused(RowRefusal::NothingToCorrect)
    } else {
        new
    }
}
