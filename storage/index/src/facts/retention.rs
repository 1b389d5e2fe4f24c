//! What is kept of an attribute's past, as its `db/retention` says it.
//!
//! ```text
//!   all             everything: what is said nowhere
//!   latest          what holds
//!   last N          what holds, and the last N assertions of the attribute with all that was said since
//!   window LENGTH   what holds, and all that was said within it, as in 7d (ns, us, ms, s, m, h, d)
//! ```
//! Invariants: what holds always stays; so a policy is a rule for one number, the horizon of the attribute, and nothing
//! else is replicated of it. Deliberately absent: a number of values per entity, which would be a horizon per entity;
//! when the horizon moves (`src/shard/prune/facts.rs`), and what lies below it (`prune.rs`).

use myelin_datom::read_length;

/// What is kept of an attribute's past.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FactKeep {
    /// Everything.
    #[default]
    All,
    /// What holds.
    Latest,
    /// So many assertions, and what holds.
    Last(u32),
    /// What was said within this, and what holds. **Units:** nanoseconds.
    Window(u64),
}

/// Assertions that `last` may keep: what is counted of them stays in memory.
const LAST: core::ops::RangeInclusive<u64> = 1..=1_000_000;
/// A millisecond is what a `tx` tells apart. **Units:** nanoseconds.
const WINDOW_NS: core::ops::RangeInclusive<u64> = 1_000_000..=i64::MAX as u64;
impl FactKeep {
    /// Reads it; `None` when it says nothing sound.
    #[must_use]
    pub fn read(text: &str) -> Option<Self> {
        match text.split_once(' ') {
            None if text == "all" => Some(Self::All),
            None if text == "latest" => Some(Self::Latest),
            Some(("last", number)) => Self::from_parts(3, number.parse().ok()?),
            Some(("window", length)) => Self::from_parts(4, read_length(length)?),
            _ => None,
        }
    }

    /// As in a log entry: the number, and the value that goes with it.
    #[must_use]
    pub const fn to_parts(self) -> (u8, u64) {
        match self {
            Self::All => (1, 0),
            Self::Latest => (2, 0),
            Self::Last(assertions) => (3, assertions as u64),
            Self::Window(ns) => (4, ns),
        }
    }

    /// What these numbers mean; `None` when they mean nothing.
    #[must_use]
    pub fn from_parts(number: u8, value: u64) -> Option<Self> {
        match (number, value) {
            (1, 0) => Some(Self::All),
            (2, 0) => Some(Self::Latest),
            (3, assertions) if LAST.contains(&assertions) => Some(Self::Last(assertions as u32)),
            (4, ns) if WINDOW_NS.contains(&ns) => Some(Self::Window(ns)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_is_read_as_it_is_drawn_and_nothing_else_is_one() {
        for (text, keep) in [
            ("all", FactKeep::All),
            ("latest", FactKeep::Latest),
            ("last 1", FactKeep::Last(1)),
            ("last 1000000", FactKeep::Last(1_000_000)),
            ("window 1ms", FactKeep::Window(1_000_000)),
            ("window 7d", FactKeep::Window(604_800_000_000_000)),
        ] {
            assert_eq!(FactKeep::read(text), Some(keep), "{text}");
            let (number, value) = keep.to_parts();
            assert_eq!(FactKeep::from_parts(number, value), Some(keep));
        }
        for text in [
            "",
            "last",
            "last 0",
            "last 1000001",
            "last -1",
            "window",
            "window 7",
            "window 1us",
            "window d",
            "window 99999999999d",
            "latest 1",
            "all ",
            "Last 3",
        ] {
            assert_eq!(FactKeep::read(text), None, "{text}");
        }
        for (number, value) in [(0, 0), (1, 1), (2, 7), (3, 0), (4, 1), (5, 0)] {
            assert_eq!(FactKeep::from_parts(number, value), None);
        }
    }
}
