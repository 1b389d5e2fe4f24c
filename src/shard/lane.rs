//! A lane of firings: what has fired, in order, the newest of it at hand.
//!
//! ```text
//!   reflexes -> records -> drain (in slices) -> [ firings at hand, bounded ]    cursor per subscriber
//!                                                ^ known_from: every firing behind it is at hand
//! ```
//! A shard has two: of reflexes that it decides by itself, and of those that wait for other shards (`crossing.rs`). Each is
//! in the order `(tx, n, reflex)`; a number counts the firings of a lane since the start. Deliberately absent: who listens.

use super::replay::Place;
use crate::reflex::{Firing, Reflexes};
use myelin_datom::{Tick, Tx};
use myelin_wire::FiringRow;
use std::collections::VecDeque;

/// Firings expanded in one slice: well under 250 µs.
const FIRINGS_PER_SLICE: usize = 1024;

/// A tick something fired at, kept until all that fired at it is written down.
#[derive(Clone, Copy, Debug)]
pub(super) struct Struck {
    pub tx: Tx,
    pub n: u32,
    pub tick: Tick,
    pub received_ns: i64,
    pub durable_ns: i64,
}

/// See the module's picture.
#[derive(Debug)]
pub(super) struct Lane {
    at_hand: VecDeque<FiringRow>,
    max: usize,
    first: u64,
    known_from: Place,
    struck: VecDeque<Struck>,
    expanded: Vec<Firing>,
}

impl Lane {
    /// Nothing has fired; `max` firings are kept at hand.
    pub fn new(max: usize) -> Self {
        Self {
            at_hand: VecDeque::new(),
            max,
            first: 0,
            known_from: (0, 0, 0),
            struck: VecDeque::new(),
            expanded: Vec::new(),
        }
    }

    /// What fired up to this transaction is not at hand: a checkpoint was before.
    pub fn begin_behind(&mut self, tx: Tx) {
        self.known_from = (tx.bits(), u32::MAX, u64::MAX);
    }

    /// Every firing behind this place is at hand.
    pub const fn known_from(&self) -> Place {
        self.known_from
    }

    /// The number of the first firing at hand.
    pub const fn first(&self) -> u64 {
        self.first
    }

    /// The number of the next firing.
    pub fn end(&self) -> u64 {
        self.first + self.at_hand.len() as u64
    }

    /// The firing of this number, if it is at hand.
    pub fn get(&self, number: u64) -> Option<&FiringRow> {
        self.at_hand.get(number.checked_sub(self.first)? as usize)
    }

    /// The number of the first firing behind a position, or `None` when older ones may be missing at hand.
    pub fn behind(&self, position: Place) -> Option<u64> {
        let at = self.at_hand.partition_point(|row| place_of(row) <= position);
        (position >= self.known_from).then_some(self.first + at as u64)
    }

    /// Something fires at this tick.
    pub fn strike(&mut self, struck: Struck) {
        self.struck.push_back(struck);
    }

    /// Writes down a slice of what has fired; gives how many.
    pub fn drain_slice(&mut self, reflexes: &mut Reflexes, fired_ns: i64) -> u64 {
        self.expanded.clear();
        reflexes.next_firings(FIRINGS_PER_SLICE, &mut self.expanded);
        let mut written = 0;
        for at in 0..self.expanded.len() {
            let firing = self.expanded[at];
            while self.struck.front().is_some_and(|struck| (struck.tx, struck.n) < (firing.tx, firing.n)) {
                self.struck.pop_front();
            }
            // Markets of two shards may have been struck at one place.
            let here = self.struck.iter().take_while(|struck| (struck.tx, struck.n) == (firing.tx, firing.n));
            let Some(struck) = here.copied().find(|struck| struck.tick.market == firing.market) else { continue };
            self.keep(firing_row(&firing, &struck, fired_ns));
            written += 1;
        }
        if !reflexes.pending() {
            self.struck.clear();
        }
        written
    }

    fn keep(&mut self, row: FiringRow) {
        if self.at_hand.len() == self.max {
            let gone = self.at_hand.pop_front();
            self.known_from = gone.as_ref().map_or(self.known_from, place_of);
            self.first += 1;
        }
        self.at_hand.push_back(row);
    }
}

/// Where a firing stands in its lane.
pub(super) fn place_of(row: &FiringRow) -> Place {
    (row.tx, row.n, row.reflex)
}

/// A firing that was derived from history: nobody measured it.
pub(super) fn derived_row(firing: &Firing, tick: &Tick) -> FiringRow {
    let struck = Struck { tx: firing.tx, n: firing.n, tick: *tick, received_ns: 0, durable_ns: 0 };
    firing_row(firing, &struck, 0)
}

fn firing_row(firing: &Firing, struck: &Struck, fired_ns: i64) -> FiringRow {
    // During recovery nobody measured anything: a timeline that was not seen is zero.
    let live = struck.received_ns != 0;
    FiringRow {
        reflex: firing.reflex.0,
        tx: firing.tx.bits(),
        n: firing.n,
        kind: firing.kind as u8,
        zero_21: 0,
        slot: firing.market.slot().number(),
        value: firing.values[0],
        basis: firing.values[1],
        received_ns: struck.received_ns,
        durable_ns: if live { struck.durable_ns } else { 0 },
        fired_ns: if live { fired_ns } else { 0 },
        tick: struck.tick,
    }
}
