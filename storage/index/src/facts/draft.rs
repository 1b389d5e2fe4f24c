//! A transaction in the making: what would change, over what is.
//!
//! ```text
//!   changes   (e, a, v) -> held before? holds after? by which op          emitted: where the two differ, in this order
//! ```
//! Invariants: nothing here changes the state; the same state and ops make the same plan, byte for byte; what a
//! transaction asserted cannot be taken back or replaced by a later op of it. Deliberately absent: names (`check.rs`).

use std::cell::Cell;
use std::collections::BTreeMap;

use myelin_datom::{Datom, EntityId, Kind, Slot, Tx, Value};

use super::schema::born;
use super::verdict::{FactWhy, Stop};
use super::{Attribute, Counters, DATOMS_PER_TX_MAX, Facts, first_number, id_of};
use crate::IndexError;

/// A datom that waits for its transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Planned {
    pub e: EntityId,
    pub a: EntityId,
    pub v: Value<'static>,
    pub added: bool,
}

impl Planned {
    pub(crate) fn as_of(&self, tx: Tx) -> Datom<'_> {
        let v = match &self.v {
            Value::String(text) => Value::String((&**text).into()),
            Value::Keyword(text) => Value::Keyword((&**text).into()),
            Value::Bytes(bytes) => Value::Bytes((&**bytes).into()),
            other => other.clone(),
        };
        Datom { e: self.e, a: self.a, v, tx, added: self.added }
    }
}

/// What [`Facts::check`] decided, for [`Facts::insert`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The transaction it was made behind.
    pub(crate) behind: Tx,
    pub(crate) datoms: Vec<Planned>,
    pub(crate) tempids: Vec<(Box<str>, EntityId)>,
    pub(crate) next: Counters,
    pub(crate) attributes: Vec<(EntityId, Option<Attribute>)>,
}

impl Plan {
    /// The entities of the tempids, in the order in which they were first named.
    #[must_use]
    pub fn tempids(&self) -> &[(Box<str>, EntityId)] {
        &self.tempids
    }

    /// Datoms to be stored.
    #[must_use]
    pub fn datoms(&self) -> usize {
        self.datoms.len()
    }

    /// Of each datom to be stored its attribute, and whether it asserts.
    pub fn said(&self) -> impl Iterator<Item = (EntityId, bool)> {
        self.datoms.iter().map(|planned| (planned.a, planned.added))
    }
}

/// A fact that the shard itself states: about an entity, or about a new one.
#[derive(Clone, Debug)]
pub struct Note {
    /// About whom; none = a new ordinary entity of this slot.
    pub about: Result<EntityId, Slot>,
    /// Its attributes, each that every shard is born with, and their values.
    pub facts: Vec<(EntityId, Value<'static>)>,
}

#[derive(Clone, Debug)]
struct Change {
    before: bool,
    after: bool,
    value: Value<'static>,
    /// Which op said so last.
    op: u32,
}

/// See the module's picture.
pub(crate) struct Draft<'a> {
    facts: &'a Facts,
    changes: BTreeMap<(EntityId, EntityId, Vec<u8>), Change>,
    pub(crate) next: Counters,
    datoms_max: usize,
    /// Facts that were looked at so far.
    looked: Cell<u32>,
}

/// Facts that a transaction may look at, over all its ops: four times what it may change. Ops that read the same thousands
/// of facts again and again would hold up a shard, and every start behind them.
const LOOKED_MAX: u32 = 4 * DATOMS_PER_TX_MAX as u32;

impl Facts {
    /// Plans facts that the shard itself states, for [`Facts::insert`].
    ///
    /// **Errors:** a run that cannot be read. **Panics** when an attribute is unknown or of another type: these are ours.
    pub fn note(&self, notes: &[Note]) -> Result<Plan, IndexError> {
        // As many as the rows of a frame give cause for: those are bounded at the door.
        let mut draft = Draft { datoms_max: usize::MAX, ..Draft::new(self) };
        for note in notes {
            let e = note.about.unwrap_or_else(|slot| draft.allocate(Kind::Ordinary, slot));
            for (a, value) in &note.facts {
                let attribute = self.attribute(*a).filter(|attribute| attribute.value_type == value.value_type());
                let Some(attribute) = attribute else { unreachable!("{a:?} is an attribute of this type") };
                match draft.assert(attribute, e, value.clone(), 0) {
                    Ok(()) => {}
                    Err(Stop::Failed(error)) => return Err(error),
                    // The same fact twice with two values: the first one stands.
                    Err(Stop::Refused(_)) => {}
                }
            }
        }
        Ok(draft.plan(Vec::new(), Vec::new()))
    }
}

impl<'a> Draft<'a> {
    pub(crate) fn new(facts: &'a Facts) -> Self {
        Self {
            facts,
            changes: BTreeMap::new(),
            next: Counters::new(),
            datoms_max: DATOMS_PER_TX_MAX,
            looked: Cell::new(0),
        }
    }

    /// A new id.
    pub(crate) fn allocate(&mut self, kind: Kind, slot: Slot) -> EntityId {
        let key = (kind as u8, slot.number());
        let before = self.next.get(&key).or_else(|| self.facts.next.get(&key)).copied();
        let number = before.unwrap_or(first_number(kind));
        self.next.insert(key, number + 1);
        id_of(kind, slot, number)
    }

    /// Asserts a value. What was there of a cardinality of one is retracted.
    pub(crate) fn assert(&mut self, a: &Attribute, e: EntityId, v: Value<'static>, op: u32) -> Result<(), Stop> {
        if !a.many
            && let Some(current) = self.value(a, e, op)?
            && current != v
        {
            self.set(a, e, current, false, op)?;
        }
        self.set(a, e, v, true, op)
    }

    /// True for an entity that this transaction made: nothing is stored about it, so nothing has to be looked up.
    pub(crate) fn is_new(&self, e: EntityId) -> bool {
        matches!(e.kind(), Some(Kind::Ordinary | Kind::System | Kind::Transaction))
            && !born::is_born(e)
            && !self.facts.was_given_out(&Counters::new(), e)
    }

    /// Says that a fact holds, or does not.
    pub(crate) fn set(
        &mut self,
        a: &Attribute,
        e: EntityId,
        v: Value<'static>,
        after: bool,
        op: u32,
    ) -> Result<(), Stop> {
        let mut key = Vec::new();
        v.write_key(&mut key);
        let key = (e, a.id, key);
        if let Some(change) = self.changes.get_mut(&key) {
            // It was asserted here: taking it back, or putting back what was taken, is a contradiction in itself.
            if change.after != after {
                return Err(FactWhy::Conflict.of(op));
            }
            return Ok(());
        }
        if self.changes.len() >= self.datoms_max {
            return Err(FactWhy::TooLarge.of(op));
        }
        let before = !self.is_new(e) && self.facts.view(Tx::MAX).holds(a, e, &v)?;
        if before || after {
            self.changes.insert(key, Change { before, after, value: v, op });
        }
        Ok(())
    }

    /// A fact is looked at on behalf of an op. **Errors:** refused when the transaction has looked at too many.
    pub(crate) fn look(&self, op: u32) -> Result<(), Stop> {
        self.looked.set(self.looked.get() + 1);
        if self.looked.get() > LOOKED_MAX { Err(FactWhy::TooLarge.of(op)) } else { Ok(()) }
    }

    /// The value of an attribute of cardinality one, as this transaction leaves it so far.
    pub(crate) fn value(&self, a: &Attribute, e: EntityId, op: u32) -> Result<Option<Value<'static>>, Stop> {
        Ok(self.values(a, e, op)?.pop())
    }

    /// The values of an attribute, as this transaction leaves them so far; refused when they are too many.
    pub(crate) fn values(&self, a: &Attribute, e: EntityId, op: u32) -> Result<Vec<Value<'static>>, Stop> {
        let mut values = Vec::new();
        let view = self.facts.view(Tx::MAX);
        if self.is_new(e) {
            // Only what this transaction says.
        } else if a.many {
            for datom in view.of_entity(e, Some(a)) {
                let value = datom?.v;
                self.look(op)?;
                if !self.takes(e, a.id, &value) {
                    values.push(value.into_owned());
                }
            }
        } else if let Some(datom) = view.newest(e, a.id)?
            && !self.takes(e, a.id, &datom.v)
        {
            values.push(datom.v.into_owned());
        }
        for change in self.changes_of(e, a.id).filter(|change| change.after && !change.before) {
            self.look(op)?;
            values.push(change.value.clone());
        }
        Ok(values)
    }

    /// Every fact about an entity, as this transaction leaves it so far; refused when they are too many.
    pub(crate) fn entity(&self, e: EntityId, op: u32) -> Result<Vec<(EntityId, Value<'static>)>, Stop> {
        let mut facts = Vec::new();
        for datom in self.facts.view(Tx::MAX).of_entity(e, None) {
            let datom = datom?;
            self.look(op)?;
            if !self.takes(e, datom.a, &datom.v) {
                facts.push((datom.a, datom.v.into_owned()));
            }
        }
        let first = (e, EntityId::NONE, Vec::new());
        for ((_, a, _), change) in self.changes.range(first..).take_while(|((of, ..), _)| *of == e) {
            self.look(op)?;
            if change.after && !change.before {
                facts.push((*a, change.value.clone()));
            }
        }
        Ok(facts)
    }

    /// True when anything holds about an entity. **Cost:** that of its first fact, unless this transaction takes it away.
    pub(crate) fn exists(&self, e: EntityId, op: u32) -> Result<bool, Stop> {
        let first = (e, EntityId::NONE, Vec::new());
        for (_, change) in self.changes.range(first..).take_while(|((of, ..), _)| *of == e) {
            self.look(op)?;
            if change.after {
                return Ok(true);
            }
        }
        if self.is_new(e) {
            return Ok(false);
        }
        for datom in self.facts.view(Tx::MAX).of_entity(e, None) {
            let datom = datom?;
            self.look(op)?;
            if !self.takes(e, datom.a, &datom.v) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn changes_of(&self, e: EntityId, a: EntityId) -> impl Iterator<Item = &Change> {
        let first = (e, a, Vec::new());
        self.changes
            .range(first..)
            .take_while(move |((of, attribute, _), _)| (*of, *attribute) == (e, a))
            .map(|(_, change)| change)
    }

    /// What is new or gone so far: entity, attribute, value, whether it holds, and the op that said so.
    pub(crate) fn differences(&self) -> impl Iterator<Item = (EntityId, EntityId, &Value<'static>, bool, u32)> {
        let differs = |change: &&Change| change.before != change.after;
        self.changes
            .iter()
            .map(|((e, a, _), change)| (e, a, change))
            .filter(move |(.., change)| differs(change))
            .map(|(e, a, change)| (*e, *a, &change.value, change.after, change.op))
    }

    /// What is new so far, with its value's key.
    pub(crate) fn asserted(&self) -> impl Iterator<Item = (EntityId, EntityId, &[u8], &Value<'static>, u32)> {
        let new = self.changes.iter().filter(|(_, change)| change.after && !change.before);
        new.map(|((e, a, key), change)| (*e, *a, &key[..], &change.value, change.op))
    }

    /// True when this transaction takes the fact away.
    pub(crate) fn takes(&self, e: EntityId, a: EntityId, v: &Value<'_>) -> bool {
        let mut key = Vec::new();
        v.write_key(&mut key);
        self.changes.get(&(e, a, key)).is_some_and(|change| !change.after)
    }

    pub(crate) fn plan(
        self,
        tempids: Vec<(Box<str>, EntityId)>,
        attributes: Vec<(EntityId, Option<Attribute>)>,
    ) -> Plan {
        let differ = self.changes.into_iter().filter(|(_, change)| change.before != change.after);
        let datoms = differ.map(|((e, a, _), change)| Planned { e, a, v: change.value, added: change.after }).collect();
        Plan { behind: self.facts.last_tx, datoms, tempids, next: self.next, attributes }
    }
}
