//! The greatest markets by a measure: what is asked for, a row of the answer, and the one order of both passes.
//!
//! ```text
//!   Top   0 by:8 | 8 limit:8 | 16 from ns:8 | 24 to ns:8
//! ```
//!
//! Each shard gives the greatest of its own; a market stands on one shard, so whoever puts the answers together with
//! [`By::rank`] and cuts at the limit has the greatest of all, exactly.

use crate::body::{Cursor, Short};
use core::cmp::Ordering;

/// What makes a market great.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum By {
    /// Its ticks.
    Count = 1,
    /// The sum of their volumes.
    Volume = 2,
    /// The sum of price times volume.
    Notional = 3,
    /// The last price, by event time.
    Price = 4,
    /// How far the price went from the first to the last, up or down, as a fraction of the first.
    Move = 5,
}

impl By {
    /// All of them, with the words for them.
    pub const ALL: [(Self, &'static str); 5] = [
        (Self::Count, "count"),
        (Self::Volume, "volume"),
        (Self::Notional, "notional"),
        (Self::Price, "price"),
        (Self::Move, "move"),
    ];

    /// The measure of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|(_, own)| *own == name).map(|(by, _)| by)
    }

    /// The measure with this number.
    #[must_use]
    pub fn from_number(number: u64) -> Option<Self> {
        Self::ALL.into_iter().map(|(by, _)| by).find(|by| *by as u64 == number)
    }

    /// How great a row is; what cannot be measured is least.
    fn measure(self, row: &TopRow) -> f64 {
        let measure = match self {
            Self::Count => row.count as f64,
            Self::Volume => row.volume,
            Self::Notional => row.notional,
            Self::Price => row.last,
            Self::Move => row.moved.abs(),
        };
        if measure.is_nan() { f64::NEG_INFINITY } else { measure }
    }

    /// The greater first; of equals the one with the smaller id.
    #[must_use]
    pub fn rank(self, a: &TopRow, b: &TopRow) -> Ordering {
        self.measure(b).total_cmp(&self.measure(a)).then(a.market.cmp(&b.market))
    }
}

/// The body of a `Top`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopAsk {
    /// The measure.
    pub by: By,
    /// Markets at most.
    pub limit: u64,
    /// Ticks of this event time and later. **Units:** Unix nanoseconds.
    pub from_ns: i64,
    /// And up to this, included. **Units:** Unix nanoseconds.
    pub to_ns: i64,
}

impl TopAsk {
    /// Markets in one answer at most: 224 KiB.
    pub const LIMIT_MAX: u64 = 4096;

    /// Writes it.
    #[must_use]
    pub fn body(&self) -> Vec<u8> {
        let numbers = [(self.by as u64).to_le_bytes(), self.limit.to_le_bytes()];
        [numbers[0], numbers[1], self.from_ns.to_le_bytes(), self.to_ns.to_le_bytes()].concat()
    }

    /// Reads it. **Errors:** its length, or a measure that is none.
    pub fn read(body: &[u8]) -> Result<Self, Short> {
        let mut cursor = Cursor::new(body);
        let by = By::from_number(cursor.u64()?).ok_or(Short { at: 0 })?;
        let ask = Self { by, limit: cursor.u64()?, from_ns: cursor.i64()?, to_ns: cursor.i64()? };
        cursor.end().map(|()| ask)
    }
}

/// One of the greatest markets. **Shape:** 56 bytes.
#[derive(Clone, Copy, Debug, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct TopRow {
    /// The market.
    pub market: u64,
    /// Its ticks.
    pub count: u64,
    /// Sum of volume, rounded once.
    pub volume: f64,
    /// Sum of price times volume, rounded once.
    pub notional: f64,
    /// The first price, by event time.
    pub first: f64,
    /// The last price, by event time.
    pub last: f64,
    /// From the first to the last price, as a fraction of the first; NaN when that was 0.
    pub moved: f64,
}

const _: () = assert!(size_of::<TopRow>() == 56);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_greater_comes_first_then_the_smaller_id_and_what_has_no_measure_last() {
        let row = |market, volume, moved| TopRow { market, volume, moved, ..bytemuck::Zeroable::zeroed() };
        let mut rows = [row(4, 1.0, f64::NAN), row(3, 2.0, -0.5), row(2, 1.0, 0.1), row(1, 0.5, 0.5)];
        let mut ranked = |by: By| {
            rows.sort_by(|a, b| by.rank(a, b));
            rows.map(|row| row.market)
        };
        assert_eq!(ranked(By::Volume), [3, 2, 4, 1]);
        assert_eq!(ranked(By::Move), [1, 3, 2, 4]);
        for (by, name) in By::ALL {
            assert_eq!((By::from_name(name), By::from_number(by as u64)), (Some(by), Some(by)));
        }
    }
}
