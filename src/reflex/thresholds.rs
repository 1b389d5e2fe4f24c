//! Bands over one series of numbers (a price, a spread), sorted by their cuts.
//!
//! ```text
//!   cuts      --|-----|--|-----------|-----|-->      a value that leaps from A to B crosses the cuts between:
//!                   A ==================> B          a range of the tree, enumerated later and in slices
//!   by_time   by (registered, reflex)                who has not seen a tick yet: those since the last one
//! ```
//!
//! Invariants: a band has one or two cuts, and both carry the whole band, so a visit touches nothing else. A leap fires
//! a band at one cut at most: across both, truth is the same at either end. Who registered at or after the series' last
//! tick is fresh and was false. **Cost:** O(log n) to insert, remove and seek; a visit per cut crossed.
//! Deliberately absent: the state of a predicate; it follows from the last value.

use super::band::{BOTTOM, Band, TOP};
use super::firing::Kind;
use myelin_datom::Tx;
use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Included, Unbounded};

/// One tick's effect on a series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Leap {
    /// The series' last tick before this one; [`Tx::ZERO`] if there was no value.
    pub seen: Tx,
    /// The key before; means nothing when `seen` is zero.
    pub from: u64,
    /// The key now.
    pub to: u64,
    /// The tick that did it.
    pub tx: Tx,
}

#[derive(Clone, Copy, Debug)]
struct Edge {
    /// The band's other end.
    other: u64,
    registered: Tx,
    kind: Kind,
    is_low: bool,
}

impl Edge {
    #[inline]
    fn band(&self, cut: u64) -> Band {
        let (low, high) = if self.is_low { (cut, self.other) } else { (self.other, cut) };
        Band { low, high, outside: self.kind == Kind::Leaves }
    }

    #[inline]
    fn fires(&self, cut: u64, leap: &Leap) -> bool {
        let band = self.band(cut);
        self.registered < leap.seen && band.holds(leap.to) && !band.holds(leap.from)
    }
}

/// Where an enumeration stands.
#[derive(Clone, Copy, Debug, Default)]
pub(super) enum Cursor {
    #[default]
    Start,
    Fresh(Tx, u64),
    Edges,
    Edge(u64, u64),
}

/// Visits a leap may cost at once.
const FEW: usize = 8;

/// Reflexes that fire, their kinds, and whether this is the first tick they see.
pub(super) struct Few {
    hits: [(u64, Kind, bool); FEW],
    len: usize,
}

impl IntoIterator for Few {
    type Item = (u64, Kind, bool);
    type IntoIter = std::iter::Take<std::array::IntoIter<Self::Item, FEW>>;

    fn into_iter(self) -> Self::IntoIter {
        self.hits.into_iter().take(self.len)
    }
}

#[derive(Debug, Default)]
pub(super) struct Thresholds {
    edges: BTreeMap<(u64, u64), Edge>,
    /// All bands, by when they were registered.
    by_time: BTreeMap<(Tx, u64), (Band, Kind)>,
    /// No registration is later; that one may be gone.
    newest: Tx,
}

/// A band as it is registered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    pub reflex: u64,
    pub band: Band,
    pub kind: Kind,
    pub registered: Tx,
}

impl Asked {
    fn cuts(&self) -> impl Iterator<Item = ((u64, u64), Edge)> + use<> {
        let Self { reflex, band, kind, registered } = *self;
        let low = Edge { other: band.high, registered, kind, is_low: true };
        let high = Edge { other: band.low, registered, kind, is_low: false };
        [(band.low, low), (band.high, high)]
            .into_iter()
            .filter(|(cut, _)| *cut != BOTTOM && *cut != TOP)
            .map(move |(cut, edge)| ((cut, reflex), edge))
    }
}

impl Thresholds {
    /// Builds the trees in one go, which is what a restart with a million bands wants.
    pub(super) fn build(all: &[Asked]) -> Self {
        Self {
            edges: all.iter().flat_map(Asked::cuts).collect(),
            by_time: all.iter().map(|a| ((a.registered, a.reflex), (a.band, a.kind))).collect(),
            newest: all.iter().map(|a| a.registered).max().unwrap_or_default(),
        }
    }

    pub(super) fn insert(&mut self, asked: Asked) {
        self.newest = self.newest.max(asked.registered);
        self.edges.extend(asked.cuts());
        self.by_time.insert((asked.registered, asked.reflex), (asked.band, asked.kind));
    }

    pub(super) fn remove(&mut self, asked: Asked) {
        for (cut, _) in asked.cuts() {
            self.edges.remove(&cut);
        }
        self.by_time.remove(&(asked.registered, asked.reflex));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.edges.is_empty()
    }

    /// The first registration.
    pub(super) fn oldest(&self) -> Option<Tx> {
        self.by_time.first_key_value().map(|((registered, _), _)| *registered)
    }

    /// The first registration at or after this tick: who has not seen it. [`Tx::MAX`] when there is none.
    pub(super) fn next_registered(&self, tx: Tx) -> Tx {
        self.by_time.range((tx, 0)..).next().map_or(Tx::MAX, |((registered, _), _)| *registered)
    }

    /// Somebody may have registered at or after this tick, and has not seen it.
    #[inline]
    pub(super) fn awaits_later_than(&self, tx: Tx) -> bool {
        self.newest >= tx
    }

    /// Who fires, if that is known after a few visits (`None` for a longer range), and the cuts around the new key. One
    /// descent of the tree where something is crossed: the walk ends at the cut beyond.
    pub(super) fn leap(&self, leap: &Leap) -> (Option<Few>, (u64, u64)) {
        let mut few = Few { hits: [(0, Kind::Gap, false); FEW], len: 0 };
        let mut left = FEW;
        let mut hit = |reflex, kind, fresh| {
            few.hits[few.len] = (reflex, kind, fresh);
            few.len += 1;
        };
        let mut done = self.visit_fresh(&mut Cursor::Start, leap, &mut left, &mut hit);
        let (mut low, mut high) = (None, None);
        if done && leap.seen > Tx::ZERO && leap.from != leap.to {
            let rises = leap.from < leap.to;
            let (mut up, mut down);
            let edges: &mut dyn Iterator<Item = (&(u64, u64), &Edge)> = if rises {
                up = self.edges.range((Excluded((leap.from, u64::MAX)), Unbounded));
                &mut up
            } else {
                down = self.edges.range(..=(leap.from, u64::MAX)).rev();
                &mut down
            };
            let (behind, ahead) = if rises { (&mut low, &mut high) } else { (&mut high, &mut low) };
            *ahead = Some(if rises { TOP } else { BOTTOM });
            for (&(cut, reflex), edge) in edges {
                if (cut > leap.to) == rises {
                    *ahead = Some(cut);
                    break;
                }
                if left == 0 {
                    (done, *ahead) = (false, None);
                    *behind = None;
                    break;
                }
                left -= 1;
                *behind = Some(cut);
                if edge.fires(cut, leap) {
                    hit(reflex, edge.kind, false);
                }
            }
        }
        let low = low.unwrap_or_else(|| self.at_or_below(leap.to));
        let high = high.unwrap_or_else(|| self.beyond(leap.to));
        (done.then_some(few), (low, high))
    }

    fn at_or_below(&self, key: u64) -> u64 {
        self.edges.range(..=(key, u64::MAX)).next_back().map_or(BOTTOM, |((cut, _), _)| *cut)
    }

    fn beyond(&self, key: u64) -> u64 {
        self.edges.range((Excluded((key, u64::MAX)), Unbounded)).next().map_or(TOP, |((cut, _), _)| *cut)
    }

    /// Calls `hit(reflex, kind, fresh)` for every band the leap fires, in no promised order, until the visits are used
    /// up. True when all is visited; else the cursor says where to go on.
    pub(super) fn visit(
        &self,
        cursor: &mut Cursor,
        leap: &Leap,
        visits: &mut usize,
        mut hit: impl FnMut(u64, Kind, bool),
    ) -> bool {
        if !self.visit_fresh(cursor, leap, visits, &mut hit) {
            return false;
        }
        let (low, high) = (leap.from.min(leap.to), leap.from.max(leap.to));
        if leap.seen == Tx::ZERO || low == high {
            return true;
        }
        let from = match *cursor {
            Cursor::Edge(cut, reflex) => (cut, reflex),
            _ => (low, u64::MAX),
        };
        for (&(cut, reflex), edge) in self.edges.range((Excluded(from), Included((high, u64::MAX)))) {
            if *visits == 0 {
                return false;
            }
            *visits -= 1;
            *cursor = Cursor::Edge(cut, reflex);
            if edge.fires(cut, leap) {
                hit(reflex, edge.kind, false);
            }
        }
        true
    }

    fn visit_fresh(
        &self,
        cursor: &mut Cursor,
        leap: &Leap,
        visits: &mut usize,
        hit: &mut impl FnMut(u64, Kind, bool),
    ) -> bool {
        let from = match *cursor {
            Cursor::Start if self.newest >= leap.seen => Included((leap.seen, 0)),
            Cursor::Fresh(registered, reflex) => Excluded((registered, reflex)),
            Cursor::Start | Cursor::Edges | Cursor::Edge(..) => return true,
        };
        for (&(registered, reflex), (band, kind)) in self.by_time.range((from, Excluded((leap.tx, 0)))) {
            if *visits == 0 {
                return false;
            }
            *visits -= 1;
            *cursor = Cursor::Fresh(registered, reflex);
            if band.holds(leap.to) {
                hit(reflex, *kind, true);
            }
        }
        *cursor = Cursor::Edges;
        true
    }
}
