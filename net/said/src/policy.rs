//! What is kept of markets, as people write and read it.

use crate::time::{length, say_length};
use myelin_wire::{Keep, PolicyRow};
use serde::Serialize;

/// Reads a policy: `all`, `latest`, `last N`, `window LENGTH`; nothing for `default`, which is the policy of all markets.
/// **Errors:** a sentence.
pub fn read_policy(words: &[&str]) -> Result<Option<Keep>, String> {
    let keep = match *words {
        ["default"] => return Ok(None),
        ["all"] => Some(Keep::All),
        ["latest"] => Some(Keep::Latest),
        ["last", rows] => rows.replace('_', "").parse().ok().and_then(|rows| Keep::from_parts(3, rows)),
        ["window", text] => Keep::from_parts(4, length(text)?.unsigned_abs()),
        _ => None,
    };
    keep.map(Some).ok_or_else(|| {
        "write all, latest, last N (1 to 2^28 rows), window LENGTH (from 1ms, as in 7d), or default".to_owned()
    })
}

/// Writes a policy as [`read_policy`] reads it.
#[must_use]
pub fn say_policy(keep: Keep) -> String {
    match keep {
        Keep::All => "all".to_owned(),
        Keep::Latest => "latest".to_owned(),
        Keep::Last(rows) => format!("last {rows}"),
        Keep::Window(ns) => format!("window {}", say_length(ns)),
    }
}

/// A policy and what it has come to. The market `*` is all without a policy of their own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Kept {
    /// Its name.
    pub market: String,
    /// tick or quote.
    pub kind: &'static str,
    /// As [`read_policy`] reads it.
    pub policy: String,
    /// It is the market's own.
    pub own: bool,
    /// Rows that are there.
    pub kept: u64,
    /// Rows that were dropped.
    pub dropped: u64,
    /// The transaction that dropped last; nothing when nothing was.
    pub horizon: Option<String>,
}

impl Kept {
    /// What there is to say of these policies, of one market or of all whose rows, or whose policy, there are; by name,
    /// `*` first. `name` gives the name of an id, where it has one.
    pub fn list(policies: &[PolicyRow], of: Option<u64>, name: impl Fn(u64) -> Option<String>) -> Vec<Self> {
        let mut lines: Vec<Self> = Vec::new();
        for policy in policies.iter().filter(|policy| of.is_none_or(|market| market == policy.market)) {
            let says = policy.market == 0 || policy.own == 1 || policy.kept > 0 || policy.dropped > 0;
            let line = Self::of(policy, &name);
            // Every shard has a policy of its own, and as a rule it is the same one.
            let again = policy.market == 0
                && lines
                    .iter()
                    .any(|other| (&*other.market, other.kind, &other.policy) == ("*", line.kind, &line.policy));
            if says && !again {
                lines.push(line);
            }
        }
        lines.sort_by(|a, b| (a.market != "*", &a.market).cmp(&(b.market != "*", &b.market)));
        lines
    }

    fn of(policy: &PolicyRow, name: impl Fn(u64) -> Option<String>) -> Self {
        let market = match policy.market {
            0 => "*".to_owned(),
            id => name(id).unwrap_or_else(|| id.to_string()),
        };
        Self {
            market,
            kind: if policy.kind == 1 { "tick" } else { "quote" },
            policy: Keep::from_parts(policy.keep, policy.value).map_or_else(|| "?".to_owned(), say_policy),
            own: policy.own == 1,
            kept: policy.kept,
            dropped: policy.dropped,
            horizon: (policy.horizon != 0).then(|| policy.horizon.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_is_written_as_it_is_read_and_nothing_else_is_one() {
        for text in ["all", "latest", "last 1", "last 268435456", "window 7d", "window 90s", "window 36h", "window 1ms"]
        {
            let words: Vec<&str> = text.split(' ').collect();
            assert_eq!(read_policy(&words).map(|keep| keep.map(say_policy)), Ok(Some(text.to_owned())));
        }
        assert_eq!(read_policy(&["default"]), Ok(None));
        for words in [
            &["last"][..],
            &["last", "0"],
            &["last", "-1"],
            &["window", "7"],
            &["window", "1us"],
            &["some"],
            &["all", "1"],
        ] {
            assert!(read_policy(words).is_err(), "{words:?}");
        }
    }
}
