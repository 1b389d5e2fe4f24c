//! The entries at hand: a window over the stream, kept while anybody reads it.
//!
//! ```text
//!   apply -> stored, created, stated -> [ ring, bounded ] -> by number -> readers        the oldest goes when it is full
//! ```
//!
//! Invariant: every entry of a transaction later than `known_from` is here. Deliberately absent: facts, whose values may
//! be long; a mark says that a transaction has some, and they are read where they lie.

use super::entry::{Entry, Place, What};
use myelin_datom::{Kind, Tx};
use myelin_index::{ColumnRow, Columns, Verdict};
use std::collections::VecDeque;

/// Entries a shard keeps at hand while anybody tails it: 1.5 MiB.
const AT_HAND_MAX: usize = 1 << 14;

/// See the module's picture.
#[derive(Debug, Default)]
pub struct AtHand {
    entries: VecDeque<Entry>,
    /// The number of the first, counted from the first since the start.
    first: u64,
    /// Somebody reads.
    kept: bool,
    known_from: Tx,
    /// Memory of [`AtHand::stored`].
    placed: Vec<Place>,
}

impl AtHand {
    /// From now on, where everything up to `applied` is in history, entries are kept.
    pub(super) fn keep_from(&mut self, applied: Tx) {
        if !std::mem::replace(&mut self.kept, true) {
            self.known_from = applied;
        }
    }

    /// Nobody reads any more: nothing is kept.
    pub(super) fn forget(&mut self) {
        self.first = self.end();
        (self.entries, self.kept) = (VecDeque::new(), false);
    }

    /// The number of the first.
    pub(super) const fn first(&self) -> u64 {
        self.first
    }

    /// The entry of this number. It is at hand.
    pub(super) fn entry(&self, number: u64) -> &Entry {
        &self.entries[(number - self.first) as usize]
    }

    /// The number of the entry that comes next.
    pub(super) fn end(&self) -> u64 {
        self.first + self.entries.len() as u64
    }

    /// The number of the first entry of a later transaction, or `None` when some of them may not be at hand.
    pub(super) fn behind(&self, tx: Tx) -> Option<u64> {
        let at = self.entries.partition_point(|entry| entry.place.tx <= tx);
        (tx >= self.known_from).then_some(self.first + at as u64)
    }

    fn keep(&mut self, entry: Entry) {
        if self.entries.len() == AT_HAND_MAX {
            let gone = self.entries.pop_front();
            self.known_from = gone.map_or(self.known_from, |gone| gone.place.tx);
            self.first += 1;
        }
        self.entries.push_back(entry);
    }

    /// Rows that were just stored. **Cost:** nothing while nobody reads.
    pub fn stored<R: ColumnRow>(&mut self, columns: &Columns<R>, tx: Tx, rows: &[R], verdicts: &[Verdict]) {
        if !self.kept {
            return;
        }
        let mut placed = std::mem::take(&mut self.placed);
        placed.clear();
        for (n, (row, verdict)) in (0_u32..).zip(rows.iter().zip(verdicts)) {
            if *verdict == Verdict::New
                && let Some(market) = columns.market_ix(row.market())
            {
                placed.push(Place { tx, fact: false, n, market: market.number(), number: 0 });
            }
        }
        placed.sort_unstable_by_key(|place| (place.market, place.n));
        for of_market in placed.chunk_by_mut(|a, b| a.market == b.market) {
            let market = columns.market_ix(rows[of_market[0].n as usize].market());
            // All of its rows: what was inserted last stands last.
            let Some(Ok(view)) = market.map(|market| columns.view(market, Tx::MAX)) else { continue };
            let first = view.end_row() - of_market.len() as u32;
            (first..).zip(of_market).for_each(|(number, place)| place.number = number);
        }
        let ticks = R::KIND == Kind::Tick;
        if ticks {
            placed.sort_unstable_by_key(|place| place.n);
        }
        for place in &placed {
            let row = bytemuck::cast(rows[place.n as usize]);
            let place = Place { n: if ticks { place.n } else { 0 }, ..*place };
            self.keep(Entry { place, what: if ticks { What::Tick(row) } else { What::Quote(row) } });
        }
        self.placed = placed;
    }

    /// A market that was just created.
    pub fn created(&mut self, tx: Tx, market: u32) {
        if self.kept {
            self.keep(Entry::market(tx, market));
        }
    }

    /// Facts that were just stored, the last of their transaction.
    pub fn stated(&mut self, tx: Tx, datoms: u32) {
        if datoms > 0 && self.kept {
            self.keep(Entry { place: Place::of_fact(tx, 0), what: What::Facts });
        }
    }
}
