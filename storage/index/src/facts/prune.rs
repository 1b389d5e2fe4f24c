//! The horizon of an attribute: which of its datoms are gone, and from which moment on every answer is whole.
//!
//! ```text
//!   raise(attribute, H)     a datom is gone when it was said at or before H and does not hold as of H
//!
//!   as of T >= H            every answer is what it always was          below: BelowHorizon { H }
//!   history since S >= H    every datom is there                        below: BelowHorizon { H }
//!   runs that become one    of a fact said at or before H only the newest datom stays, and that one only if it asserts
//! ```
//! Invariants: raising reads nothing, so every replica comes to the same horizon at the same place of its log, whatever it
//! has merged; a horizon only rises; what holds as of it is never gone. A retraction that is the newest of its fact stays
//! until it is merged with the oldest run: without it an older assertion would hold again. A read that names no attribute
//! is one of all attributes of its partition. Deliberately absent: when to raise, and to what (`src/shard/prune/facts.rs`).

use std::collections::BTreeMap;

use myelin_datom::{Datom, EntityId, Tx};

use super::key::{self, KeyRef, Order};
use super::scan::Merge;
use super::view::Components;
use super::{Attribute, Facts};
use crate::IndexError;

/// What is gone of an attribute.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FactFloor {
    /// Every moment from this transaction on can be asked for, and none before it.
    pub horizon: Tx,
    /// Datoms that are gone.
    pub dropped: u64,
}

/// The horizons of a shard's attributes, as of now: what [`merge_facts`](super::merge_facts) leaves out lies below them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FactFloors {
    horizons: BTreeMap<EntityId, Tx>,
}

impl FactFloors {
    /// The horizon of an attribute; zero where nothing is gone.
    #[must_use]
    pub fn of(&self, a: EntityId) -> Tx {
        self.horizons.get(&a).copied().unwrap_or(Tx::ZERO)
    }
}

impl Facts {
    /// Raises the horizon of an attribute; `dropped` datoms are gone by that, or all where there are fewer. False when it is no higher than before, or
    /// above the last transaction. **Cost:** nothing is read.
    pub fn raise(&mut self, a: EntityId, horizon: Tx, dropped: u64) -> bool {
        let floor = self.floors.get(&a).copied().unwrap_or_default();
        let rises = horizon > floor.horizon && horizon <= self.last_tx && self.schema.get(a).is_some();
        if rises {
            let dropped = floor.dropped + dropped.min(self.datoms());
            self.floors.insert(a, FactFloor { horizon, dropped });
        }
        rises
    }

    /// What is gone of an attribute.
    #[must_use]
    pub fn floor(&self, a: EntityId) -> FactFloor {
        self.floors.get(&a).copied().unwrap_or_default()
    }

    /// Every horizon, as of now.
    #[must_use]
    pub fn floors(&self) -> FactFloors {
        FactFloors { horizons: self.floors.iter().map(|(a, floor)| (*a, floor.horizon)).collect() }
    }

    /// Every datom that is not gone, retractions too, by entity: the same wherever datoms lie. **Errors:** a run that cannot be
    /// read. **Cost:** reads everything.
    pub fn each_kept(&self, mut see: impl FnMut(&Datom<'_>)) -> Result<(), IndexError> {
        let floors = self.floors();
        let mut thinning = Thinning::new(&floors, true);
        let mut keys = Merge::new(self.sources(Tx::MAX), Order::Eavt, &[], None)?;
        while let Some(key) = keys.next()? {
            if let Some(datom) = key::read(Order::Eavt, key.bytes).filter(|_| thinning.keeps(Order::Eavt, key)) {
                see(&datom);
            }
        }
        Ok(())
    }

    /// From which moment on the datoms asked for are all there.
    pub(super) fn horizon(&self, order: Order, asked: &Components<'_>) -> Tx {
        if let Some(a) = asked.a {
            return self.floor(a).horizon;
        }
        let stands = |attribute: &Attribute| match order {
            Order::Eavt | Order::Aevt => true,
            Order::Avet => attribute.is_indexed(),
            Order::Vaet => attribute.value_type == myelin_datom::ValueType::Ref,
            Order::Teav => true,
        };
        let touched =
            |a: &EntityId| asked.e.is_none_or(|e| e.slot() == a.slot()) && self.schema.get(*a).is_none_or(stands);
        let horizons = self.floors.iter().filter(|(a, _)| touched(a)).map(|(_, floor)| floor.horizon);
        horizons.max().unwrap_or(Tx::ZERO)
    }
}

/// Which keys of an ascending stream stay.
pub(super) struct Thinning<'f> {
    floors: &'f FactFloors,
    /// Nothing older lies anywhere.
    oldest: bool,
    /// The fact of the last key below a horizon.
    group: Vec<u8>,
}

impl<'f> Thinning<'f> {
    pub(super) const fn new(floors: &'f FactFloors, oldest: bool) -> Self {
        Self { floors, oldest, group: Vec::new() }
    }

    /// Whether the next key stays. Keys that are none stay too: who writes them says so.
    pub(super) fn keeps(&mut self, order: Order, key: KeyRef<'_>) -> bool {
        if self.floors.horizons.is_empty() {
            return true;
        }
        if order == Order::Teav {
            // The log is not read below a horizon.
            let (a, said) = (key::attribute(order, key.bytes), key::said_by(order, key.bytes));
            return a.zip(said).is_none_or(|(a, (tx, _))| tx > self.floors.of(a));
        }
        let Some(mark_at) = key::mark_at(order, key.bytes) else { return true };
        let (Some(a), Some((tx, added))) = (key::attribute(order, key.bytes), key::said(key.bytes, mark_at)) else {
            return true;
        };
        if tx > self.floors.of(a) {
            return true;
        }
        let group = &key.bytes[..mark_at];
        if self.group == group {
            return false;
        }
        // A group of one order is never taken for one of another: the last order's keys are all behind us.
        self.group.clear();
        self.group.extend_from_slice(group);
        added || !self.oldest
    }

    /// The next order begins.
    pub(super) fn turn(&mut self) {
        self.group.clear();
    }
}
