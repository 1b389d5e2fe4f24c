//! What is kept of a market: the rows of `Retain` and of the answer to `Policies`.
//!
//! ```text
//!   RetainRow   0 market:8 | 8 value:8 | 16 kinds:1 | 17 keep:1 | 18 zero:6
//!   PolicyRow   0 market:8 | 8 value:8 | 16 kept:8 | 24 dropped:8 | 32 horizon:8 | 40 kind:1 | 41 keep:1 | 42 own:1 | 43 zero:5
//!
//!   keep   0 as the shard's (no policy of its own)   1 all   2 latest   3 last `value` rows   4 window of `value` ns
//! ```
//!
//! Deliberately absent: when rows go, and how many at once; that is the shard's.

/// What is kept of a market's rows of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Keep {
    /// Everything.
    #[default]
    All,
    /// The last row.
    Latest,
    /// The last n rows.
    Last(u32),
    /// Rows whose transaction is not older than this. **Units:** nanoseconds.
    Window(u64),
}

/// The least and the greatest window: a millisecond is what a `tx` tells apart. **Units:** nanoseconds.
const WINDOW_NS: core::ops::RangeInclusive<u64> = 1_000_000..=i64::MAX as u64;
/// Rows that `last` may keep: more than a market can hold would be `all`.
const LAST_ROWS: core::ops::RangeInclusive<u64> = 1..=(1 << 28);

impl Keep {
    /// As on the wire and in a checkpoint: the number, and the value that goes with it.
    #[must_use]
    pub const fn to_parts(self) -> (u8, u64) {
        match self {
            Self::All => (1, 0),
            Self::Latest => (2, 0),
            Self::Last(rows) => (3, rows as u64),
            Self::Window(ns) => (4, ns),
        }
    }

    /// What these numbers mean; `None` when they mean nothing.
    #[must_use]
    pub fn from_parts(number: u8, value: u64) -> Option<Self> {
        match (number, value) {
            (1, 0) => Some(Self::All),
            (2, 0) => Some(Self::Latest),
            (3, rows) if LAST_ROWS.contains(&rows) => Some(Self::Last(rows as u32)),
            (4, ns) if WINDOW_NS.contains(&ns) => Some(Self::Window(ns)),
            _ => None,
        }
    }
}

/// One policy to be set. **Shape:** 24 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct RetainRow {
    /// The market; 0 = every market of the shard that has no policy of its own.
    pub market: u64,
    /// Rows, or nanoseconds.
    pub value: u64,
    /// Bit 0: ticks; bit 1: quotes.
    pub kinds: u8,
    /// As drawn above.
    pub keep: u8,
    /// Zero.
    pub zero_18: [u8; 6],
}

const _: () = assert!(size_of::<RetainRow>() == 24);

impl RetainRow {
    /// Bit of [`kinds`](Self::kinds).
    pub const TICKS: u8 = 1;
    /// Bit of [`kinds`](Self::kinds).
    pub const QUOTES: u8 = 1 << 1;

    /// A row; `None` gives the market back to the shard's policy.
    #[must_use]
    pub fn new(market: u64, kinds: u8, keep: Option<Keep>) -> Self {
        let (number, value) = keep.map_or((0, 0), Keep::to_parts);
        Self { market, value, kinds, keep: number, zero_18: [0; 6] }
    }

    /// What it says, or nothing when it says nothing sound.
    #[must_use]
    pub fn policy(&self) -> Option<Option<Keep>> {
        let kinds = (1..=Self::TICKS | Self::QUOTES).contains(&self.kinds);
        let sound = kinds && self.zero_18 == [0; 6];
        match (self.keep, self.value) {
            (0, 0) if sound && self.market != 0 => Some(None),
            (number, value) if sound => Keep::from_parts(number, value).map(Some),
            _ => None,
        }
    }
}

/// One policy as it is listed, and what it has come to. **Shape:** 48 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct PolicyRow {
    /// The market; 0 = the shard's own policy.
    pub market: u64,
    /// Rows, or nanoseconds.
    pub value: u64,
    /// Rows that are there.
    pub kept: u64,
    /// Rows that were dropped: the number of the first that is there.
    pub dropped: u64,
    /// The transaction that dropped last, 0 = none: nothing before it can be asked for.
    pub horizon: u64,
    /// 1 ticks, 2 quotes.
    pub kind: u8,
    /// As drawn above, never 0.
    pub keep: u8,
    /// 1 = the market's own policy.
    pub own: u8,
    /// Zero.
    pub zero_43: [u8; 5],
}

const _: () = assert!(size_of::<PolicyRow>() == 48);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_read_back_and_nothing_else_is_taken_for_a_policy() {
        for keep in [Keep::All, Keep::Latest, Keep::Last(1), Keep::Last(1 << 28), Keep::Window(1_000_000)] {
            let (number, value) = keep.to_parts();
            assert_eq!(Keep::from_parts(number, value), Some(keep));
            assert_eq!(RetainRow::new(0, 3, Some(keep)).policy(), Some(Some(keep)));
        }
        for (number, value) in
            [(0, 0), (1, 1), (2, 1), (3, 0), (3, (1 << 28) + 1), (4, 0), (4, 999_999), (4, 1 << 63), (5, 0)]
        {
            assert_eq!(Keep::from_parts(number, value), None, "{number} {value}");
        }
        let row = RetainRow::new(7, RetainRow::TICKS, None);
        assert_eq!(row.policy(), Some(None));
        for bad in [
            RetainRow { market: 0, ..row },
            RetainRow { kinds: 0, ..row },
            RetainRow { kinds: 4, ..row },
            RetainRow { value: 1, ..row },
            RetainRow { zero_18: [0, 0, 0, 0, 0, 1], ..row },
        ] {
            assert_eq!(bad.policy(), None, "{bad:?}");
        }
    }
}
