//! Which rows of a proposal repeat an earlier row of the same proposal: an open table that is never cleared.
//!
//! ```text
//!   cell = stamp:16 | tag:16 | row:32        a cell of another stamp is empty
//! ```
//! Invariants: at most half full; a new frame is a new stamp, and the cells are zeroed only when the stamp wraps.
//! Deliberately absent: rows and ids; the caller compares, the table remembers places.

/// The table.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    cells: Vec<u64>,
    stamp: u16,
}

/// Where a key is, or where it belongs.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Place {
    /// This cell holds this row.
    Taken { cell: usize, row: u32 },
    /// Nothing equal; it belongs here.
    Free { cell: usize },
}

impl Scratch {
    /// Makes room for a frame of this many rows and forgets the one before.
    pub(crate) fn begin(&mut self, rows: usize) {
        let cells = (rows * 2).next_power_of_two().max(64);
        if self.cells.len() < cells {
            self.cells = vec![0; cells];
            self.stamp = 0;
        }
        if self.stamp == u16::MAX {
            self.cells.fill(0);
            self.stamp = 0;
        }
        self.stamp += 1;
    }

    /// **Cost:** one multiplication and, mostly, one cell.
    #[inline]
    pub(crate) fn hash(market: u32, id: u64) -> u64 {
        let key = id ^ (u64::from(market) << 40).rotate_left(7);
        let wide = u128::from(key ^ 0x9e37_79b9_7f4a_7c15) * 0xa076_1d64_78bd_642f;
        wide as u64 ^ (wide >> 64) as u64
    }

    /// Looks for a row for which `same` holds.
    #[inline]
    pub(crate) fn find(&self, hash: u64, same: impl Fn(u32) -> bool) -> Place {
        let mask = self.cells.len() - 1;
        let head = u32::from(self.stamp) << 16 | (hash >> 48) as u32;
        let mut cell = hash as usize & mask;
        loop {
            let held = self.cells[cell];
            if (held >> 48) as u16 != self.stamp {
                return Place::Free { cell };
            }
            let row = held as u32;
            if (held >> 32) as u32 == head && same(row) {
                return Place::Taken { cell, row };
            }
            cell = (cell + 1) & mask;
        }
    }

    #[inline]
    pub(crate) fn put(&mut self, cell: usize, hash: u64, row: u32) {
        self.cells[cell] = u64::from(self.stamp) << 48 | (hash >> 48) << 32 | u64::from(row);
    }
}
