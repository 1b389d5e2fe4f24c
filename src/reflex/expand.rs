//! From records to firings, in slices: a range becomes messages only as fast as somebody takes them.
//!
//! ```text
//!   records of one (tx, n) --visit cuts--> hits in runs of 4,096, each sorted by reflex --merge--> firings by reflex
//!                          (sliced)                                              (sliced)
//! ```
//!
//! Invariants: firings leave in (tx, n, reflex) order; a call does work in proportion to its budget, whether or not
//! anything comes out; what is half expanded goes on where it stopped. Memory: 16 bytes per firing of the position that
//! is being expanded ([`Untold::found`]). Deliberately absent: credit and subscribers.

use super::Reflexes;
use super::firing::{Firing, Kind, ReflexId};
use super::reach::{Market, Pair, Reach};
use super::react::{Record, What, leap_values};
use super::register::Home;
use super::thresholds::Cursor;
use std::cmp::Reverse;
use std::collections::binary_heap::PeekMut;
use std::collections::{BinaryHeap, VecDeque};

/// Bands a call may visit for each firing of its budget: not every cut that is crossed fires.
const VISITS_PER_FIRING: usize = 4;
/// The least a call visits, so that the smallest budget makes progress.
const VISITS_MIN: usize = 64;
const RUN: usize = 4096;

/// One reflex that fires at the open position.
#[derive(Clone, Copy, Debug)]
struct Hit {
    reflex: u64,
    record: u32,
    kind: Kind,
    fresh: bool,
}

/// Hits, sorted by reflex once it is closed; `next` is the first that is not told.
#[derive(Debug, Default)]
struct Run {
    hits: Vec<Hit>,
    next: usize,
}

/// The position under expansion. **Shape:** `records` counts those of the queue's front that share it; 0 = none open.
#[derive(Debug, Default)]
struct Open {
    records: usize,
    /// Which record is being visited, and where in it.
    record: usize,
    cursor: Cursor,
    /// Full ones are sorted; the last takes what is found. Separate buffers, so that growing copies nothing.
    runs: Vec<Run>,
    /// The next of each run, when there is more than one.
    heads: BinaryHeap<Reverse<(u64, u32)>>,
    merged: bool,
    /// All that were found.
    found: usize,
}

/// What happened and is not told yet, and how far the telling has come.
#[derive(Debug, Default)]
pub struct Untold {
    pub(super) records: VecDeque<Record>,
    /// Firings up to this `(tx, n, reflex)` were told before.
    after: (u64, u32, u64),
    open: Open,
}

/// Whom a record may have to do with.
struct Tables<'a> {
    reaches: &'a [Reach],
    pairs: &'a [Pair],
    markets: &'a [Market],
}

impl Open {
    fn hit(&mut self, hit: Hit) {
        self.found += 1;
        match self.runs.last_mut() {
            Some(run) if run.hits.len() < RUN => run.hits.push(hit),
            last => {
                last.into_iter().for_each(Run::sort);
                self.runs.push(Run { hits: vec![hit], next: 0 });
            }
        }
    }
}

impl Run {
    fn sort(&mut self) {
        // The record too: positions of several shards may coincide, and one reflex then fires once for each market.
        self.hits.sort_unstable_by_key(|hit| (hit.reflex, hit.record));
    }
}

impl Reflexes {
    /// Appends at most `budget` firings to `out`, in (tx, n, reflex) order, and gives their number. It may be 0 while
    /// [`Reflexes::pending`]: looking for firings is work as well, at most four visits for each.
    pub fn next_firings(&mut self, budget: usize, out: &mut Vec<Firing>) -> usize {
        let Self { untold, reaches, pairs, markets, .. } = self;
        let before = out.len();
        untold.next_firings(&Tables { reaches, pairs, markets }, budget, out);
        out.len() - before
    }

    /// The same for what [`Reflexes::react_past`] recorded; gives the number of visits.
    pub fn next_past_firings(&self, untold: &mut Untold, budget: usize, out: &mut Vec<Firing>) -> usize {
        let Self { reaches, pairs, markets, .. } = self;
        untold.next_firings(&Tables { reaches, pairs, markets }, budget, out)
    }
}

impl Untold {
    /// Of what will be recorded, all behind this `(tx, n, reflex)` is to be told.
    #[must_use]
    pub fn behind(after: (u64, u32, u64)) -> Self {
        Self { after, ..Self::default() }
    }

    /// Firings that are held in memory, 16 bytes each: those of the open position that were found so far.
    #[must_use]
    pub fn found(&self) -> usize {
        self.open.found
    }

    /// Whether anything waits for its expansion.
    #[inline]
    #[must_use]
    pub fn pending(&self) -> bool {
        !self.records.is_empty()
    }

    /// Gives the number of visits.
    fn next_firings(&mut self, tables: &Tables<'_>, budget: usize, out: &mut Vec<Firing>) -> usize {
        let granted = budget.saturating_mul(VISITS_PER_FIRING).max(VISITS_MIN);
        let mut visits = granted;
        let mut left = budget;
        while self.pending() && left > 0 {
            self.open_position();
            if !self.visit(tables, &mut visits) {
                break;
            }
            if !self.merge(tables.markets, &mut left, out) {
                break;
            }
            self.close_position();
        }
        granted - visits
    }

    fn open_position(&mut self) {
        if self.open.records > 0 {
            return;
        }
        let position = self.records.front().map(|r| (r.tx, r.n));
        self.open.records = self.records.iter().take_while(|r| Some((r.tx, r.n)) == position).count();
    }

    /// Collects who fires. True when all are found.
    fn visit(&mut self, tables: &Tables<'_>, visits: &mut usize) -> bool {
        while self.open.record < self.open.records {
            let record = self.records[self.open.record];
            if !self.visit_record(tables, &record, visits) {
                return false;
            }
            self.open.record += 1;
            self.open.cursor = Cursor::Start;
        }
        true
    }

    fn visit_record(&mut self, tables: &Tables<'_>, record: &Record, visits: &mut usize) -> bool {
        let Self { open, after, .. } = self;
        let Tables { reaches, pairs, .. } = *tables;
        let (number, mut cursor) = (open.record as u32, open.cursor);
        let mut hit = |reflex, kind, fresh| {
            if (record.tx.bits(), record.n, reflex) > *after {
                open.hit(Hit { reflex, record: number, kind, fresh });
            }
        };
        let done = match record.what {
            What::Fired { reflex, kind, .. } => {
                hit(reflex.0, kind, false);
                true
            }
            What::Leap { home, ref leap, .. } => {
                let thresholds = match home {
                    Home::Reach(at) => &reaches[at as usize].thresholds,
                    Home::Pair(at) => &pairs[at as usize].thresholds,
                };
                thresholds.visit(&mut cursor, leap, visits, hit)
            }
            What::Gap { reach, .. } => reaches[reach as usize]
                .visit_gaps(&mut cursor, record.tx, visits, |reflex| hit(reflex, Kind::Gap, false)),
        };
        open.cursor = cursor;
        done
    }

    /// Gives firings in the order of their reflexes until the budget is used up. True when all are given.
    fn merge(&mut self, markets: &[Market], left: &mut usize, out: &mut Vec<Firing>) -> bool {
        let open = &mut self.open;
        if !open.merged {
            open.merged = true;
            open.runs.last_mut().into_iter().for_each(Run::sort);
            if open.runs.len() > 1 {
                open.heads.extend((0..).zip(&open.runs).map(|(at, run)| Reverse((run.hits[0].reflex, at))));
            }
        }
        if let [run] = &mut open.runs[..] {
            let some = &run.hits[run.next..];
            let some = &some[..some.len().min(*left)];
            out.extend(some.iter().map(|hit| firing(&self.records, markets, hit)));
            *left -= some.len();
            run.next += some.len();
            return run.next == run.hits.len();
        }
        while let Some(mut head) = open.heads.peek_mut() {
            if *left == 0 {
                return false;
            }
            let run = &mut open.runs[head.0.1 as usize];
            out.push(firing(&self.records, markets, &run.hits[run.next]));
            *left -= 1;
            run.next += 1;
            match run.hits.get(run.next) {
                Some(next) => head.0.0 = next.reflex,
                None => {
                    run.hits = Vec::new();
                    PeekMut::pop(head);
                }
            }
        }
        true
    }

    fn close_position(&mut self) {
        self.records.drain(..self.open.records);
        let Open { mut runs, heads, .. } = std::mem::take(&mut self.open);
        if let [run] = &mut runs[..] {
            // The common case keeps its one buffer.
            run.hits.clear();
            run.next = 0;
            self.open = Open { runs, heads, ..Open::default() };
        }
    }
}

fn firing(records: &VecDeque<Record>, markets: &[Market], hit: &Hit) -> Firing {
    let record = &records[hit.record as usize];
    let values = match record.what {
        What::Fired { values, .. } => values,
        What::Gap { first, last, .. } => [first, last],
        What::Leap { home, ref leap, other } => leap_values(home, leap, other, hit.fresh),
    };
    let market = markets[record.ix as usize].id;
    Firing { reflex: ReflexId(hit.reflex), market, tx: record.tx, n: record.n, kind: hit.kind, values }
}
