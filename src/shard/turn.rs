//! What one turn of a shard may cost, for those who read on from history or listen: a budget that all of them share.
//!
//! ```text
//!   turn -> Work::turn() -> one page for one reader, then the next -> spent: the rest has its turn behind the others' work
//! ```
//!
//! A core has no clock, so cost is counted in units: one is a row looked at in memory, about 120 ns with all that belongs
//! to it. The figures are those of `storage/index/README.md`. Invariant: a turn ends within one page of a market, one entry,
//! or the tables that one tick is shown to, behind its last unit. Deliberately absent: who goes next; whoever shares the
//! budget takes turns.

/// A turn: about 250 µs, and so at most 256 KiB of entries.
pub const UNITS_PER_TURN: u32 = 2048;
/// A scan that brings the next page of a market's rows from memory: 20 µs.
pub const MEMORY_PAGE: u32 = 160;
/// The same where they are sealed, and a page of each column is decoded: 75 µs.
pub const SEALED_PAGE: u32 = 640;
/// Where a market's rows of later transactions begin: the transactions of one block, 8 µs unless they are decoded already.
pub const SEARCH: u32 = 64;
/// To go on in the log of facts: a place is sought in a part or run, 8 µs where its block was never touched.
pub const LOG_SEEK: u32 = 64;
/// A fact, and what its attribute was called: 0.3 µs.
pub const FACT: u32 = 3;
/// Something that is only asked whether there is news of it, a market or a listener: so many for one unit.
pub const LOOKS: usize = 8;
/// Bytes that one unit copies.
const UNIT_BYTES: usize = 128;

/// What is left of a turn.
#[derive(Debug)]
pub struct Work {
    left: u32,
    done: u32,
}

impl Work {
    /// A whole turn.
    #[must_use]
    pub const fn turn() -> Self {
        Self { left: UNITS_PER_TURN, done: 0 }
    }

    /// True when the turn is over.
    #[must_use]
    pub const fn is_spent(&self) -> bool {
        self.left == 0
    }

    /// So much was done.
    pub const fn spend(&mut self, units: u32) {
        self.left = self.left.saturating_sub(units);
        self.done = self.done.saturating_add(units);
    }

    /// So many bytes were written.
    pub const fn spend_bytes(&mut self, bytes: usize) {
        self.spend((bytes / UNIT_BYTES) as u32);
    }

    /// What was done so far: a turn, and what its last step came to beyond it.
    #[must_use]
    pub const fn spent(&self) -> u32 {
        self.done
    }
}
