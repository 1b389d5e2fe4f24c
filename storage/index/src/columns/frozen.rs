//! The part that was newest until it was frozen: immutable, readable, on its way into a run.
//!
//! Invariants: shared by count, so that the seal thread writes it while the data core and scan threads read it; all that
//! changes is how far the writer has come. Rows that were pruned before it was frozen are in memory still, and never written.
//! Deliberately absent: the bytes of a run (`write.rs`).

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use myelin_datom::{EntityId, Tx};

use super::ColumnRow;
use super::part::Part;

/// A frozen part; see [`Columns::freeze`](super::Columns::freeze).
#[derive(Debug)]
pub struct Frozen<R> {
    /// By market, ascending.
    pub(crate) markets: Vec<FrozenMarket<R>>,
    pub(crate) rows: u64,
    /// Those that were not pruned when it was frozen.
    pub(crate) live: u64,
    /// The transaction it was frozen after: nothing in it is newer.
    pub(crate) upto: Tx,
    /// Rows that the writer has put into its run so far.
    pub(crate) written: AtomicU64,
}

/// One market of a frozen part.
#[derive(Debug)]
pub(crate) struct FrozenMarket<R> {
    pub id: EntityId,
    /// Number of its first row.
    pub first: u32,
    /// Of its rows, so many were pruned when it was frozen.
    pub dead: u32,
    pub part: Part<R>,
}

impl<R: ColumnRow> Frozen<R> {
    /// **Units:** rows.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Rows that its run does not hold yet: what a caller that pushes back goes by, so that load is let in as fast as
    /// rows are written and not a whole part at a time.
    #[must_use]
    pub fn unwritten_rows(&self) -> u64 {
        self.rows.saturating_sub(self.written.load(Relaxed))
    }

    /// Rows that were there when it was frozen: those that a run of it holds. **Units:** rows.
    #[must_use]
    pub fn live_rows(&self) -> u64 {
        self.live
    }

    /// The last transaction before it was frozen.
    #[must_use]
    pub fn upto(&self) -> Tx {
        self.upto
    }

    pub(crate) fn market(&self, id: EntityId) -> Option<&FrozenMarket<R>> {
        self.markets.binary_search_by_key(&id, |market| market.id).ok().map(|at| &self.markets[at])
    }
}
