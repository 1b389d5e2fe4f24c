//! What a checkpoint keeps of the facts besides the runs: how far they go, and which ids were given out.
//!
//! ```text
//!   0        8         10      16         24          32             36
//!   [ magic | version | zero  | last tx  | datoms u64 | counters u32 | horizons u32 | counter .. | horizon .. | CRC-32 ]
//!   counter:  kind u8, zero u8, slot u16, zero 4, next number u64
//!   horizon:  attribute u64, tx u64, datoms that are gone u64           datoms: all that were ever stored
//! ```
//! Invariants: taken right after `freeze`, so that every datom it speaks of is in the runs once that part is sealed; bytes
//! are decoded with bounds and compared with the runs, never trusted. The schema is not here: it is read from the facts.

use std::sync::Arc;

use myelin_datom::{EntityId, Kind, Slot, Tx, Value};

use super::key::Order;
use super::schema::{SCHEMA, born, described};
use super::view::Components;
use super::{ATTRIBUTES_MAX, FactFloor, FactRun, Facts, first_number};
use crate::IndexError;
use crate::columns::wire::{Input, Malformed};

const MAGIC: &[u8; 8] = b"MYELFAC\n";
const VERSION: u16 = 2;
/// More than a shard can ever be told, so that counting on does not overflow.
const STORED_MAX: u64 = u64::MAX / 2;

impl Facts {
    /// The state that goes with the runs, once every frozen part has become one.
    ///
    /// **Panics** when the newest part holds datoms: freeze first, in the same step.
    #[must_use]
    pub fn state(&self) -> Vec<u8> {
        assert!(self.newest.datoms() == 0, "the state belongs to sealed datoms: freeze first");
        let mut out = Vec::new();
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&[0; 6]);
        out.extend_from_slice(&self.last_tx.bits().to_le_bytes());
        out.extend_from_slice(&self.stored.to_le_bytes());
        out.extend_from_slice(&(self.next.len() as u32).to_le_bytes());
        out.extend_from_slice(&(self.floors.len() as u32).to_le_bytes());
        for ((kind, slot), next) in &self.next {
            out.extend_from_slice(&[*kind, 0]);
            out.extend_from_slice(&slot.to_le_bytes());
            out.extend_from_slice(&[0; 4]);
            out.extend_from_slice(&next.to_le_bytes());
        }
        for (a, floor) in &self.floors {
            for word in [a.bits(), floor.horizon.bits(), floor.dropped] {
                out.extend_from_slice(&word.to_le_bytes());
            }
        }
        let crc = crc32fast::hash(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        out
    }

    /// What [`state`](Self::state) described, with the runs of its checkpoint, oldest first. No bytes: nothing was stored.
    ///
    /// **Errors:** [`IndexError::State`] when the bytes are damaged or speak of other datoms than the runs hold; a run that
    /// cannot be read, since the schema is read from it.
    pub fn restore(state: &[u8], runs: Vec<Arc<FactRun>>) -> Result<Self, IndexError> {
        let refused = |malformed: Malformed| IndexError::State {
            offset: malformed.at,
            what: malformed.what,
            expected: malformed.expected,
            found: malformed.found,
        };
        let mut facts = Self::new();
        facts.runs = runs;
        if state.is_empty() && facts.runs.is_empty() {
            return Ok(facts);
        }
        facts.read_state(state).map_err(refused)?;
        facts.compare_runs().map_err(refused)?;
        facts.read_schema().map_err(|error| match error {
            Unreadable::Index(error) => error,
            Unreadable::Senseless(malformed) => refused(malformed),
        })?;
        Ok(facts)
    }

    fn read_state(&mut self, state: &[u8]) -> Result<(), Malformed> {
        let mut input = Input::new(state);
        let body = state.len().saturating_sub(4);
        let crc = Input::new(&state[body..]).u32()?;
        let expected = crc32fast::hash(&state[..body]);
        input.expect("the state's checksum", crc == expected, expected.into(), crc.into())?;
        let magic = input.take(8)? == MAGIC;
        input.expect("the state's magic", magic, 1, 0)?;
        let (version, _) = (input.u16()?, input.take(6)?);
        input.expect("the state's version", version == VERSION, VERSION.into(), version.into())?;
        self.last_tx = Tx::from_bits(input.u64()?);
        let (stored, counters, floors) = (input.u64()?, input.u32()?, input.u32()?);
        self.stored = stored;
        input.expect("datoms", stored <= STORED_MAX, STORED_MAX, stored)?;
        for _ in 0..counters {
            let (kind, _, slot) = (input.u8()?, input.u8()?, input.u16()?);
            let (_, next) = (input.u32()?, input.u64()?);
            let known = [Kind::Ordinary, Kind::Transaction, Kind::System].into_iter().find(|one| *one as u8 == kind);
            input.expect("a counter's kind", known.is_some(), 3, kind.into())?;
            input.expect("a counter's slot", Slot::new(slot).is_some(), 4095, slot.into())?;
            let least = known.map_or(0, first_number);
            input.expect("a counter's number", (least..=1 << 48).contains(&next), least, next)?;
            self.next.insert((kind, slot), next);
        }
        let (mut below, mut gone) = (EntityId::NONE, 0_u64);
        for _ in 0..floors {
            let (a, horizon, dropped) = (EntityId::from_bits(input.u64()?), Tx::from_bits(input.u64()?), input.u64()?);
            input.expect("the order of horizons", below < a, below.bits(), a.bits())?;
            input.expect(
                "a horizon",
                horizon > Tx::ZERO && horizon <= self.last_tx,
                self.last_tx.bits(),
                horizon.bits(),
            )?;
            gone = gone.saturating_add(dropped);
            input.expect("datoms that are gone", gone <= stored, stored, gone)?;
            self.floors.insert(a, FactFloor { horizon, dropped });
            below = a;
        }
        input.expect("bytes after the last horizon", input.left() == 4, 4, input.left() as u64)
    }

    /// Every datom is there but for those that are gone; these may be in the runs still.
    fn compare_runs(&self) -> Result<(), Malformed> {
        let malformed = |what, expected, found| Malformed { at: 0, what, expected, found };
        let (mut last_tx, mut found) = (Tx::ZERO, 0);
        for run in &self.runs {
            let meta = run.meta();
            if meta.tx_min <= last_tx {
                return Err(malformed("order of runs by tx", last_tx.bits(), meta.tx_min.bits()));
            }
            last_tx = meta.tx_max;
            found += meta.rows;
        }
        if found > self.stored || found < self.datoms() {
            return Err(malformed("datoms of the runs", self.stored, found));
        }
        if last_tx > self.last_tx {
            return Err(malformed("last tx of the runs", self.last_tx.bits(), last_tx.bits()));
        }
        Ok(())
    }

    /// Puts the attributes that the facts describe into the schema.
    fn read_schema(&mut self) -> Result<(), Unreadable> {
        let mut ids: Vec<EntityId> = Vec::new();
        let typed = Components { a: Some(born::VALUE_TYPE), ..Components::default() };
        for datom in self.view(Tx::MAX).datoms(Order::Aevt, &typed) {
            let id = datom.map_err(Unreadable::Index)?.e;
            if !born::is_born(id) && ids.len() < ATTRIBUTES_MAX {
                ids.push(id);
            }
        }
        for id in ids {
            let mut facts: Vec<(EntityId, Value<'static>)> = Vec::new();
            for datom in self.view(Tx::MAX).entity(id) {
                let datom = datom.map_err(Unreadable::Index)?;
                if SCHEMA.contains(&datom.a) {
                    facts.push((datom.a, datom.v.into_owned()));
                }
            }
            let attribute = described(id, &facts).map_err(|a| {
                let (expected, found) = (id.bits(), a.bits());
                Unreadable::Senseless(Malformed { at: 0, what: "an attribute's facts", expected, found })
            })?;
            self.schema.install(id, attribute);
        }
        Ok(())
    }
}

enum Unreadable {
    Index(IndexError),
    Senseless(Malformed),
}
