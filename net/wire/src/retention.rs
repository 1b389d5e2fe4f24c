//! What is kept of a market: the rows of `Retain` and of the answer to `Policies`.
//!
//! ```text
//!   RetainRow   0 market:8 | 8 value:8 | 16 kinds:1 | 17 keep:1 | 18 zero:6
//!   PolicyRow   0 market:8 | 8 value:8 | 16 kept:8 | 24 dropped:8 | 32 horizon:8 | 40 kind:1 | 41 keep:1 | 42 own:1 | 43 zero:5
//!
//!   keep   0 as the shard's (no policy of its own); else as in `storage/datom/src/keep.rs`
//! ```
//!
//! Deliberately absent: when rows go, and how many at once; that is the shard's.

use myelin_datom::Keep;

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
            assert_eq!(RetainRow::new(0, 3, Some(keep)).policy(), Some(Some(keep)));
        }
        let row = RetainRow::new(7, RetainRow::TICKS, None);
        assert_eq!(row.policy(), Some(None));
        for bad in [
            RetainRow { market: 0, ..row },
            RetainRow { kinds: 0, ..row },
            RetainRow { kinds: 4, ..row },
            RetainRow { keep: 5, ..row },
            RetainRow { value: 1, ..row },
            RetainRow { zero_18: [0, 0, 0, 0, 0, 1], ..row },
        ] {
            assert_eq!(bad.policy(), None, "{bad:?}");
        }
    }
}
