//! What is kept: of a market's rows of one kind, or of an attribute's past.
//!
//! ```text
//!   keep   1 all   2 latest   3 last `value`   4 window of `value` ns        on the wire, in log entries, in checkpoints
//! ```
//! Deliberately absent: when something goes, and how much at once; and the text, which facts and people say each their way.

/// What is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Keep {
    /// Everything.
    #[default]
    All,
    /// The last row; of a past, what holds.
    Latest,
    /// The last n rows; of a past, so many assertions, and what holds.
    Last(u32),
    /// What was said within this; of a past, what holds too. **Units:** nanoseconds.
    Window(u64),
}

/// The least and the greatest window: a millisecond is what a `tx` tells apart. **Units:** nanoseconds.
const WINDOW_NS: core::ops::RangeInclusive<u64> = 1_000_000..=i64::MAX as u64;
/// What `last` may keep: more than a market can hold would be `all`.
const LAST: core::ops::RangeInclusive<u64> = 1..=(1 << 28);

impl Keep {
    /// The number, and the value that goes with it.
    #[must_use]
    pub const fn to_parts(self) -> (u8, u64) {
        match self {
            Self::All => (1, 0),
            Self::Latest => (2, 0),
            Self::Last(last) => (3, last as u64),
            Self::Window(ns) => (4, ns),
        }
    }

    /// What these numbers mean; `None` when they mean nothing.
    #[must_use]
    pub fn from_parts(number: u8, value: u64) -> Option<Self> {
        match (number, value) {
            (1, 0) => Some(Self::All),
            (2, 0) => Some(Self::Latest),
            (3, last) if LAST.contains(&last) => Some(Self::Last(last as u32)),
            (4, ns) if WINDOW_NS.contains(&ns) => Some(Self::Window(ns)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_read_back_and_no_other_numbers_mean_anything() {
        for keep in [Keep::All, Keep::Latest, Keep::Last(1), Keep::Last(1 << 28), Keep::Window(1_000_000)] {
            let (number, value) = keep.to_parts();
            assert_eq!(Keep::from_parts(number, value), Some(keep));
        }
        for (number, value) in
            [(0, 0), (1, 1), (2, 1), (3, 0), (3, (1 << 28) + 1), (4, 0), (4, 999_999), (4, 1 << 63), (5, 0)]
        {
            assert_eq!(Keep::from_parts(number, value), None, "{number} {value}");
        }
    }
}
