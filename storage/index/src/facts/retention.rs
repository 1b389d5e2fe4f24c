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

use myelin_datom::{Keep, read_length};

/// Assertions that `last` may keep: what is counted of them stays in memory.
const LAST_MAX: u32 = 1_000_000;

/// Reads it; `None` when it says nothing sound.
pub(super) fn read(text: &str) -> Option<Keep> {
    let keep = match text.split_once(' ') {
        None if text == "all" => Some(Keep::All),
        None if text == "latest" => Some(Keep::Latest),
        Some(("last", number)) => Keep::from_parts(3, number.parse().ok()?),
        Some(("window", length)) => Keep::from_parts(4, read_length(length)?),
        _ => None,
    };
    keep.filter(|keep| !matches!(keep, Keep::Last(last) if *last > LAST_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_is_read_as_it_is_drawn_and_nothing_else_is_one() {
        for (text, keep) in [
            ("all", Keep::All),
            ("latest", Keep::Latest),
            ("last 1", Keep::Last(1)),
            ("last 1000000", Keep::Last(1_000_000)),
            ("window 1ms", Keep::Window(1_000_000)),
            ("window 7d", Keep::Window(604_800_000_000_000)),
        ] {
            assert_eq!(read(text), Some(keep), "{text}");
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
            assert_eq!(read(text), None, "{text}");
        }
    }
}
