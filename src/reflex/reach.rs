//! What one scope reaches: its markets, and the reflexes that ask about them. Reflexes of one scope share one.
//!
//! ```text
//!   reflex --- reach (market:X) --- market X          a market looks at all reaches it belongs to:
//!   reflex \                      /                   its own, the patterns that match its name, all
//!   reflex --- reach (all) ------+-- market Y
//! ```
//!
//! Invariants: a reflex is in exactly one reach (a spread in none); registering costs O(log n) however many markets the
//! scope matches, but for windows, whose state is per market. Deliberately absent: copies of a band per market.

use super::firing::ReflexId;
use super::spec::{Scope, Spec, Spread};
use super::thresholds::{Cursor, Thresholds};
use super::window::Window;
use myelin_datom::{EntityId, Tx};
use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Unbounded};

#[derive(Debug)]
pub(super) struct Reach {
    pub scope: Scope,
    /// Indices of the markets that belong to it.
    pub markets: Vec<u32>,
    pub thresholds: Thresholds,
    /// Gap reflexes and when they registered.
    pub gaps: BTreeMap<u64, Tx>,
    /// Window reflexes, for markets that appear later.
    pub windows: BTreeMap<u64, (Spec, Tx)>,
    pub reflexes: usize,
    /// Some of its markets may have a quiet interval. False: all are loud already, registering need not tell them.
    pub settled: bool,
}

impl Reach {
    pub(super) fn new(scope: Scope) -> Self {
        Self {
            scope,
            markets: Vec::new(),
            thresholds: Thresholds::default(),
            gaps: BTreeMap::new(),
            windows: BTreeMap::new(),
            reflexes: 0,
            settled: true,
        }
    }

    /// Calls `hit` for gap reflexes registered before `tx`, in order, until the visits are used up. True when all are
    /// visited.
    pub(super) fn visit_gaps(&self, cursor: &mut Cursor, tx: Tx, visits: &mut usize, mut hit: impl FnMut(u64)) -> bool {
        let from = match *cursor {
            Cursor::Fresh(_, reflex) => Excluded(reflex),
            _ => Unbounded,
        };
        for (&reflex, &registered) in self.gaps.range((from, Unbounded)) {
            if *visits == 0 {
                return false;
            }
            *visits -= 1;
            *cursor = Cursor::Fresh(registered, reflex);
            if registered < tx {
                hit(reflex);
            }
        }
        true
    }
}

/// Values that change nothing: at least `low`, below `high`. Empty when `low` is above `high`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Quiet {
    pub low: f64,
    pub high: f64,
}

impl Quiet {
    /// No value is quiet.
    pub(super) const NONE: Self = Self { low: f64::INFINITY, high: f64::NEG_INFINITY };
    /// Every value is quiet.
    pub(super) const ALL: Self = Self { low: f64::NEG_INFINITY, high: f64::INFINITY };

    /// What is quiet in both.
    pub(super) fn and(self, other: Self) -> Self {
        Self { low: self.low.max(other.low), high: self.high.min(other.high) }
    }

    #[inline(always)]
    pub(super) fn contains(&self, value: f64) -> bool {
        value >= self.low && value < self.high
    }
}

/// All a quiet tick touches: half a cache line.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hot {
    pub quiet: Quiet,
    /// The latest price; means nothing while `tx` is zero.
    pub price: f64,
    /// The latest tick; [`Tx::ZERO`] before the first.
    pub tx: Tx,
}

/// The rest of a market.
#[derive(Debug)]
pub(super) struct Market {
    pub id: EntityId,
    pub name: Box<str>,
    pub reaches: Vec<u32>,
    /// What would be quiet if only bands counted.
    pub calm: Quiet,
    /// Ascending by reflex. With windows or pairs no tick is quiet.
    pub windows: Vec<(ReflexId, Window)>,
    pub pairs: Vec<u32>,
}

impl Market {
    pub(super) fn new(id: EntityId, name: &str) -> Self {
        Self { id, name: name.into(), reaches: Vec::new(), calm: Quiet::NONE, windows: Vec::new(), pairs: Vec::new() }
    }
}

/// Two markets that spreads compare. Spreads over the same two, in the same sense, share one.
#[derive(Debug)]
pub(super) struct Pair {
    pub names: [Box<str>; 2],
    pub signed: bool,
    pub markets: [Option<u32>; 2],
    pub thresholds: Thresholds,
    pub calm: Quiet,
}

impl Pair {
    /// The market that this one is compared with, once both are there.
    pub(super) fn other(&self, ix: u32) -> Option<u32> {
        let [a, b] = self.markets;
        let (a, b) = (a?, b?);
        Some(if a == ix { b } else { a })
    }

    /// What is compared, where this market stands at `own` and the other one at `other`.
    pub(super) fn measure(&self, ix: u32, own: f64, other: f64) -> f64 {
        let (x, y) = if self.markets[0] == Some(ix) { (own, other) } else { (other, own) };
        Spread::measure(self.signed, x, y)
    }
}
